//! SPEC.md says what this module does.
