//! `fvd`: the Fast Virtual Disk, being built.
#![no_std]
#![deny(clippy::std_instead_of_core, clippy::alloc_instead_of_core)]

mod alloc;
pub mod blocking;
pub mod buffer;
pub mod check;
pub mod create;
pub mod device;
mod engine;
pub mod format;
pub mod io;
mod journal;
mod meta;
pub mod open;
pub mod seeded;
pub mod shared;
pub mod stores;
pub mod units;

pub use engine::{CancelOutcome, Closed, Closing, Disk, RequestId, StaleRequest, Stats};
