//! The driver against a device in software that is stricter than real ones.
#![allow(clippy::std_instead_of_core)] // a hosted test

mod data;
mod fake;
mod handshake;
mod hostile;
mod limits;
mod waking;
