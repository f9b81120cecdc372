//! Journal units and records (SPEC.md §7).
//!
//! ```text
//!  0                                used             unit - 32                    unit
//!  +-----------+-----------+- - - - -+- - - zeros - - -+----------------------------+
//!  | record    | record    |         |                 | trailer                    |
//!  +-----------+-----------+- - - - -+- - - - - - - - -+----------------------------+
//! ```
//!
//! A unit is what the device writes all or nothing, 512 to 4096 bytes; it is never taken on trust
//! that the device really does: each unit proves itself by image, sequence number, place and CRC.
//!
//! Invariants:
//! 1. A unit that does not prove itself counts as never written. Torn, stale, foreign and misplaced
//!    units are all the same to a reader, so none of them is an error.
//! 2. A unit that proves itself but breaks a rule is `Corrupt`: a writer of this image made it.
//! 3. Records are absolute: they say what the state is, not how it changes. Replaying one twice, or
//!    an older one before a newer one, ends in the same state.

mod bounds;
mod reader;
mod writer;

use core::mem::{offset_of, size_of};

use static_assertions::const_assert_eq;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

pub use bounds::RecordBounds;
pub use reader::{Records, UnitView, parse_unit};
pub use writer::UnitWriter;

use super::crc32c::Crc32c;
use super::error::{Field, FormatError};
use super::table::TableEntry;
use super::{ImageId, PAGE_BYTES, SEQ_MAX};
use crate::units::ChunkIndex;

/// Bytes of the largest unit; a unit is a power of two from 512 up to this.
pub const UNIT_BYTES_MAX: usize = PAGE_BYTES;

/// Bytes of the trailer that ends each unit.
pub const TRAILER_BYTES: usize = 32;

/// Bytes of a map record.
pub const MAP_RECORD_BYTES: usize = 12;

/// Bytes of a store record; it takes the room of at most two map records.
pub const STORE_RECORD_BYTES: usize = 16;

/// Most bytes of units in one commit, so that one write carries it (SPEC.md §7.4).
pub const COMMIT_BYTES_MAX: u64 = 64 << 10;

/// `magic` of a trailer.
const MAGIC_UNIT: [u8; 4] = *b"FVDJ";

const KIND_MAP: u8 = 1;
const KIND_STORE: u8 = 2;

const FLAG_ENTRY: u8 = 1 << 0;
const FLAG_BITS: u8 = 1 << 1;

const FLAG_LAST: u16 = 1 << 0;
const FLAG_EARLIER_UNSURE: u16 = 1 << 1;
const INDEX_SHIFT: u32 = 2;
/// Largest index of a unit in its commit that the trailer can hold.
const INDEX_MAX: u16 = u16::MAX >> INDEX_SHIFT;

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawMap {
    kind: u8,
    flags: u8,
    bits: U16,
    chunk: U32,
    entry: U32,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawStore {
    kind: u8,
    zero_a: u8,
    zero_b: U16,
    zero_floor_chunk: U32,
    store_bytes: U64,
}

#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
struct RawTrailer {
    end_word: U32,
    magic: [u8; 4],
    seq: U64,
    stable_seq: U64,
    used: U16,
    flags: U16,
    crc: U32,
}

const_assert_eq!(size_of::<RawMap>(), MAP_RECORD_BYTES);
const_assert_eq!(offset_of!(RawMap, bits), 2);
const_assert_eq!(offset_of!(RawMap, chunk), 4);
const_assert_eq!(offset_of!(RawMap, entry), 8);
const_assert_eq!(size_of::<RawStore>(), STORE_RECORD_BYTES);
const_assert_eq!(offset_of!(RawStore, zero_floor_chunk), 4);
const_assert_eq!(offset_of!(RawStore, store_bytes), 8);
const_assert_eq!(size_of::<RawTrailer>(), TRAILER_BYTES);
const_assert_eq!(offset_of!(RawTrailer, magic), 4);
const_assert_eq!(offset_of!(RawTrailer, seq), 8);
const_assert_eq!(offset_of!(RawTrailer, stable_seq), 16);
const_assert_eq!(offset_of!(RawTrailer, used), 24);
const_assert_eq!(offset_of!(RawTrailer, flags), 26);
const_assert_eq!(offset_of!(RawTrailer, crc), 28);

/// One record of the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Record {
    /// The mapping of a chunk.
    Map(MapRecord),
    /// Size and zero floor of the store.
    Store(StoreRecord),
}

/// What is new of one chunk: its table entry, bits of its blocks, or both.
///
/// Both in one record, because a chunk whose bit is set but whose entry is not would read zeros in
/// place of the base (SPEC.md §7.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MapRecord {
    /// The chunk of the disk.
    pub chunk: ChunkIndex,
    /// Its table entry, which was unmapped before; `None` = unchanged.
    pub entry: Option<TableEntry>,
    /// The bits that were clear and are set now, that of its first block least significant; `None` =
    /// unchanged.
    pub bits: Option<u16>,
}

impl MapRecord {
    /// Whether it says nothing, as no record on disk may.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.entry.is_none() && self.bits.is_none()
    }
}

/// Size and zero floor of the store; replay takes the maximum of each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StoreRecord {
    /// Chunks at and above this one were never sent a write; 2^31 = no such chunk.
    pub zero_floor_chunk: u32,
    /// Durable size of the data area's device, bytes.
    pub store_bytes: u64,
}

/// What a unit says about itself besides its sequence number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct UnitFlags {
    /// Whether this unit ends its commit. A commit without its last unit never happened.
    pub last: bool,
    /// Clear only if every earlier commit was known durable when this unit was submitted. Then a
    /// gap before this unit is lost data, not a reordered write.
    pub earlier_unsure: bool,
    /// Place of the unit in its commit, from 0; at most 16,383.
    pub index: u16,
}

impl UnitFlags {
    fn encode(self) -> u16 {
        let last = if self.last { FLAG_LAST } else { 0 };
        let unsure = if self.earlier_unsure {
            FLAG_EARLIER_UNSURE
        } else {
            0
        };
        last | unsure | self.index.wrapping_shl(INDEX_SHIFT)
    }

    fn decode(raw: u16) -> UnitFlags {
        UnitFlags {
            last: raw & FLAG_LAST != 0,
            earlier_unsure: raw & FLAG_EARLIER_UNSURE != 0,
            index: raw.wrapping_shr(INDEX_SHIFT),
        }
    }
}

/// Whether a unit can have this many bytes.
#[must_use]
pub const fn is_unit_size(unit_bytes: usize) -> bool {
    unit_bytes.is_power_of_two() && unit_bytes >= 512 && unit_bytes <= UNIT_BYTES_MAX
}

/// Map records that fit one unit of `unit_bytes` bytes: 40 in 512, 338 in 4096.
#[must_use]
pub const fn records_per_unit(unit_bytes: u32) -> u32 {
    unit_bytes.saturating_sub(32) / 12
}

/// Units that hold `map_records` map records. Count a store record as two.
#[must_use]
pub const fn units_for(map_records: u32, unit_bytes: u32) -> u32 {
    match records_per_unit(unit_bytes) {
        0 => u32::MAX,
        per_unit => map_records.div_ceil(per_unit),
    }
}

/// Most units of one commit in a journal of `units` units: half of them, at most 64 KiB, at least
/// one. Half, so that a commit always fits beside the one that a checkpoint is still retiring.
#[must_use]
pub fn commit_units_max(units: u64, unit_bytes: u32) -> u32 {
    let by_bytes = COMMIT_BYTES_MAX
        .checked_div(u64::from(unit_bytes))
        .unwrap_or(1);
    u32::try_from((units >> 1).min(by_bytes).max(1)).unwrap_or(1)
}

/// The slot of the journal where the unit `seq` lives.
#[must_use]
pub const fn slot_of(seq: u64, units: u64) -> u64 {
    match seq.checked_rem(units) {
        Some(slot) => slot,
        None => 0,
    }
}

/// The `stable_seq` with which recovery ends (SPEC.md §7.5): behind every number that a unit which
/// was not replayed may carry, so that no such unit can come back.
///
/// `seq_highest` is the highest `seq` of any unit that counts, replayed or not.
///
/// # Errors
///
/// `Corrupt` if the image has run out of sequence numbers, which only a forged one can.
pub fn burned_seq(
    stable_seq: u64,
    seq_highest: Option<u64>,
    units: u64,
) -> Result<u64, FormatError> {
    let next = seq_highest
        .map_or(0, |seq| seq.saturating_add(1))
        .max(stable_seq);
    match next.checked_add(units) {
        Some(seq) if seq <= SEQ_MAX => Ok(seq),
        _ => Err(FormatError::corrupt(Field::StableSeq, next)),
    }
}

/// CRC of a unit: image id, records, trailer up to the CRC.
fn unit_crc(image_id: &ImageId, records: &[u8], trailer: &RawTrailer) -> u32 {
    let bytes = trailer.as_bytes();
    let head = bytes
        .split_last_chunk::<4>()
        .map_or(bytes, |(head, _)| head);
    Crc32c::new()
        .and(&image_id.0)
        .and(records)
        .and(head)
        .finish()
}
