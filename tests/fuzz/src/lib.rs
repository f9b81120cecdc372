//! What the fuzz targets do with their input. Each takes any bytes, and panics if a promise of the
//! core is broken.
//!
//! | target | input | what must hold |
//! | --- | --- | --- |
//! | [`header`] | two slots | a value or an error; a value goes back to the same bytes' meaning |
//! | [`pages`] | pages of table and bitmap, and edits of them | what the check lets through can be read |
//! | [`journal`] | a unit | records are read to their end; what the bounds let through fits the image |
//! | [`records`] | records | what the writer wrote is what the reader reads |
//! | [`image`] | edits of golden images | the promises of `tests/hostile/bench.rs` |
//! | [`operations`] | edits, then guest requests | the disk is a disk: it agrees with a model |
//! | [`requests`] | requests, however absurd | refused without effect, or completed once |
//! | [`old`] | edits of images of 2011 | the same as `image`: no checksum is in the way |
//! | [`nbd`] | what a client of the network server sends | nothing outside the export, bounded answers |
//!
//! A checksum stops a fuzzer at the door. So checksums are made right after the input has been
//! applied, as somebody who forges an image would do.
#![allow(dead_code)] // of what is shared with the tests, a part is used here

#[path = "../../common/mod.rs"]
mod common;

#[path = "../../hostile/bench.rs"]
mod bench;
#[path = "../../hostile/device.rs"]
mod device;
#[path = "../../hostile/image.rs"]
mod image;
#[path = "../../hostile/old_image.rs"]
mod old_image;

mod disk;
mod edit;
mod input;
mod nbd;
mod pure;

pub use disk::{image, old, operations, requests};
pub use nbd::nbd;
pub use pure::{header, journal, pages, records};
