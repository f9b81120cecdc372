//! The `fvd` command.
fn main() {}
