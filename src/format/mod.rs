//! The on-disk format of version 2, as pure functions between bytes and values.
//!
//! `docs/SPEC.md` is the law; this module says the same thing in Rust. Nothing here does I/O, and
//! nothing here knows the engine: a caller hands in bytes it has read and gets a value or a typed
//! error, or hands in a value and gets the bytes to write.
//!
//! ```text
//!   error    what can be wrong, in which field, with which value
//!   raw      the byte layout of a header slot, checked at compile time
//!   common   the fields of 2011 as values   name     bounded, inert strings
//!   header   the whole header as a value    feature  feature bits
//!   rules    which rules its fields keep    regions  where everything lies, proved disjoint
//!   slots    which of the two slots counts  layout   where `create` puts everything
//!   table, bitmap, page, journal            the metadata behind the header
//!   old                                     the two dialects of 2011
//! ```
//!
//! Invariants:
//! 1. Every function is total: any bytes give a value or an error. No index, no arithmetic and no
//!    conversion here can panic or wrap, and the lints below hold the module to it.
//! 2. No loop is longer than its input, and nothing recurses.
//! 3. Bytes that a version-2 writer made are read back to the value they were made from.

#![deny(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

pub mod bitmap;
mod common;
mod crc32c;
mod error;
mod feature;
mod header;
pub mod journal;
pub mod layout;
mod name;
pub mod old;
pub mod page;
mod raw;
mod regions;
mod rules;
mod slots;
pub mod table;

#[cfg(test)]
mod tests;

pub use common::{CopySettings, Core};
pub use error::{Field, FormatError, FormatErrorKind};
pub use feature::{Feature, FeatureClass, Features, FeaturesIter};
pub use header::{Header, MetadataBytes};
pub use layout::{BaseParams, CreateParams, JournalChoice, LayoutError, StoreChoice, plan_layout};
pub use name::{FormatName, Name, Text};
pub use regions::{DataArea, Region, Regions};
pub use rules::Limits;
pub use slots::{ChosenSlot, Dialect, SlotIndex, choose_slot, read_header, slot_faults};

/// Bytes of one header slot (SPEC.md §3).
pub const SLOT_BYTES: usize = 4096;

/// Bytes before the first byte that metadata or data may use: both header slots (SPEC.md §2).
pub const HEADER_BYTES: u64 = 8192;

/// Bytes of a metadata page: the unit of alignment, of page checksums and of write-back
/// (SPEC.md §2).
pub const PAGE_BYTES: usize = 4096;

/// [`PAGE_BYTES`] where sizes are 64 bits wide.
pub const PAGE_BYTES_U64: u64 = 4096;

/// Smallest number of journal units in an image (SPEC.md §7.1); tests may go down to 2.
pub const JOURNAL_UNITS_MIN: u64 = 4;

/// Largest journal that this crate opens, in bytes (SPEC.md §7.1).
///
/// Recovery reads the whole journal, so its size bounds the work that an image can ask for.
pub const JOURNAL_BYTES_MAX: u64 = 64 << 20;

/// Largest sequence number of a journal unit (SPEC.md §7.2).
///
/// Half the range is kept free so that recovery can add the size of a journal without wrapping.
pub const SEQ_MAX: u64 = (1 << 63) - 1;

/// The 16 bytes that make one image different from every other.
///
/// Each checksum behind the header begins with them, so that metadata copied from another image
/// never counts (SPEC.md §1.3). The caller chooses them at random when it creates an image: this
/// crate has no source of randomness.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct ImageId(pub [u8; 16]);
