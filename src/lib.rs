//! FVD, the Fast Virtual Disk: a crash-safe copy-on-write block layer. `no_std`, no heap, poll-based.
//!
//! A [`Disk`] turns one or two plain block devices, and optionally a read-only base, into a virtual
//! disk. It runs where there is no operating system and, unchanged, on a host.
//!
//! From the outside in:
//!
//! | module | what it is | who touches it |
//! | --- | --- | --- |
//! | [`io`], [`shared`] | a byte stream over a disk; one disk for several cores | convenience |
//! | [`blocking`] | create, open, read, write, close for callers who wait | simple programs |
//! | [`create`](mod@create), [`check`] | making an image; looking inside an open one | tools |
//! | [`open`] | probing and opening, which is recovery | everybody |
//! | [`Disk`] | requests in, device operations out; commits and checkpoints | everybody |
//! | [`stores`] | the devices behind a disk, by role | everybody |
//! | [`format`](mod@format) | bytes on disk <-> values, without I/O | tools, fuzzers |
//! | [`device`] | what a block device is, and the power-loss contract | authors of drivers |
//! | [`buffer`] | who owns memory while devices work on it; the only unsafe code | everybody |
//! | [`units`] | places and sizes as types | everybody |
//!
//! # Example
//!
//! ```
//! use fvd::blocking::{self, Blocking};
//! use fvd::create::CREATE_ARENA_BYTES;
//! use fvd::device::Ram;
//! use fvd::format::{CreateParams, ImageId, StoreChoice, plan_layout};
//! use fvd::open::OpenOptions;
//! use fvd::stores::One;
//! use fvd::units::Instant;
//!
//! # fn memory(bytes: usize) -> &'static mut [core::mem::MaybeUninit<u8>] {
//! #     let block = vec![core::mem::MaybeUninit::uninit(); bytes + 4096].leak();
//! #     let skip = block.as_ptr().align_offset(4096);
//! #     &mut block[skip..skip + bytes]
//! # }
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let wait = |_| Instant::ZERO; // nothing to wait for in RAM
//! let device = Ram::new(vec![0; 8 << 20].leak());
//! let header = plan_layout(&CreateParams {
//!     store: StoreChoice::FixedZeroed { device_bytes: 8 << 20 },
//!     ..CreateParams::new(1 << 30, ImageId(*b"made at random!!"))
//! })?;
//! let created = blocking::create(device, header, true, memory(CREATE_ARENA_BYTES), wait);
//! created.result?;
//!
//! let stores = One(created.device);
//! let disk = blocking::open(stores, OpenOptions::DEFAULT, memory(4 << 20), wait)
//!     .map_err(|failure| failure.error)?;
//! let mut disk = Blocking::new(disk, memory(64 << 10), wait).map_err(|_| "64 KiB are enough")?;
//! disk.write_at(512 << 20, b"sixteen bytes...".repeat(32).as_slice())?;
//! disk.flush()?;
//! let (disk, _) = disk.into_parts();
//! blocking::close(disk, wait, drop).result?;
//! # Ok(())
//! # }
//! ```
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
pub mod repair;
pub mod seeded;
pub mod shared;
pub mod stores;
pub mod units;

pub use engine::{CancelOutcome, Closed, Closing, Disk, RequestId, StaleRequest, Stats};
