//! Host side of `fvd`: files and block devices as stores, a clock, and a way to sleep.
//!
//! | module | its one job |
//! | --- | --- |
//! | [`mod@file`] | a file or block device as a `BlockDevice` with many operations in flight |
//! | [`arena`] | heap memory that a disk can borrow and give back |
//! | [`drive`] | run poll-driven things to their end, asleep while there is nothing to do |
//! | [`sparse`] | devices that know where they hold nothing but zeros |
//! | [`image`] | images in files: open, make and drive them |
//! | [`serve`] | a disk for clients that speak NBD |
//! | [`aligned`] | buffers that any device can take as they are |
//!
//! The core crate reads no clock, starts no thread and opens no file; all of that is here.
//! Unsafe code is allowed in three files of [`mod@file`], for system calls, and in [`arena`] and
//! [`aligned`], for memory.

#[cfg(not(target_os = "linux"))]
compile_error!("fvd-std needs Linux: it uses fallocate, SEEK_HOLE and preadv/pwritev");

pub mod aligned;
pub mod arena;
mod bell;
pub mod drive;
pub mod file;
pub mod image;
pub mod serve;
pub mod sparse;
