//! `fvd`: the Fast Virtual Disk, being built.
#![no_std]

pub mod buffer;
pub mod device;
pub mod format;
pub mod units;
