//! The rules that a header keeps by itself, before any device is known (SPEC.md §3.5).
//!
//! One function per group of fields, in the order of SPEC.md. Each names the field it refuses and
//! the value found there. What depends on the size of a device is in `regions.rs`.

use core::num::NonZeroU64;

use super::common::Core;
use super::error::{Field, FormatError};
use super::feature::Features;
use super::header::Header;
use super::page::ChecksumArray;
use super::regions::Region;
use super::{JOURNAL_BYTES_MAX, JOURNAL_UNITS_MIN, PAGE_BYTES_U64, SEQ_MAX, table};
use crate::units::{CHUNK_COUNT_MAX, SECTOR_BYTES, Shape};

/// Sizes and offsets are below 2^63, so that signed file offsets hold them and a sum of two fits.
pub(super) const OFFSET_LIMIT: u64 = 1 << 63;

/// Bounds that the caller sets, apart from what the format says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct Limits {
    /// Fewest journal units in an image that has a journal; the format says 4, tests use 2.
    pub journal_units_min: u64,
    /// Largest journal in bytes, since recovery reads all of it.
    pub journal_bytes_max: u64,
}

impl Limits {
    /// What the format says.
    pub const FORMAT: Limits = Limits {
        journal_units_min: JOURNAL_UNITS_MIN,
        journal_bytes_max: JOURNAL_BYTES_MAX,
    };

    /// What a writer holds itself to: whoever opened the image has applied the caller's limits.
    pub(super) const WIDEST: Limits = Limits {
        journal_units_min: 2,
        journal_bytes_max: u64::MAX,
    };

    /// The format's limits with journals down to `units` units; 2 at least.
    #[must_use]
    pub const fn with_journal_units_min(self, units: u64) -> Limits {
        Limits {
            journal_units_min: if units < 2 { 2 } else { units },
            ..self
        }
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits::FORMAT
    }
}

/// Checks every rule of a header that needs no device.
pub(super) fn check(header: &Header, limits: &Limits) -> Result<(), FormatError> {
    if header.generation == u64::MAX {
        return Err(FormatError::corrupt(Field::Generation, header.generation));
    }
    let shape = check_sizes(&header.core)?;
    check_names(header)?;
    check_metadata_sizes(header, &shape)?;
    check_checksums(header)?;
    check_journal(header, limits)?;
    check_store(header)
}

/// Virtual size, block, chunk, base and growth: the shape of the disk.
pub(super) fn check_sizes(core: &Core) -> Result<Shape, FormatError> {
    let (disk, block, chunk) = (core.virtual_bytes, core.block_bytes, core.chunk_bytes);
    if !disk.is_multiple_of(SECTOR_BYTES) || disk >= OFFSET_LIMIT {
        return Err(FormatError::corrupt(Field::VirtualDiskSize, disk));
    }
    if !block.is_power_of_two() || block < SECTOR_BYTES {
        return Err(FormatError::corrupt(Field::BlockSize, block));
    }
    if !chunk.is_power_of_two() || chunk < block || chunk > CHUNK_COUNT_MAX {
        return Err(FormatError::corrupt(Field::ChunkSize, chunk));
    }
    if chunk > block.saturating_mul(16) {
        return Err(FormatError::corrupt(Field::ChunkSize, chunk));
    }
    // Sizes are legal one by one: what is left to fail is the number of chunks.
    let shape =
        Shape::new(disk, block, chunk).ok_or(FormatError::limit(Field::VirtualDiskSize, disk))?;
    if !core.base_bytes.is_multiple_of(SECTOR_BYTES) || core.base_bytes >= OFFSET_LIMIT {
        return Err(FormatError::corrupt(Field::BaseImageSize, core.base_bytes));
    }
    let grow_bytes = core.grow_bytes.map_or(0, NonZeroU64::get);
    if !grow_bytes.is_multiple_of(chunk) || grow_bytes >= OFFSET_LIMIT {
        return Err(FormatError::corrupt(Field::StorageGrowUnit, grow_bytes));
    }
    Ok(shape)
}

/// A data file without the bit that says "chunks live there" would be overlooked by a reader that
/// goes by the bit, and the wrong device would be written.
fn check_names(header: &Header) -> Result<(), FormatError> {
    let name = header.core.data_file.as_bytes();
    if !name.is_empty() && !header.has_external_data() {
        let length = u64::try_from(name.len()).unwrap_or(u64::MAX);
        return Err(FormatError::corrupt(Field::DataFile, length));
    }
    Ok(())
}

/// Table and bitmap have exactly the size that their contents need.
///
/// Exactly, not "at least": a region that is larger than its contents is never right, and a size
/// that is not fixed by other fields is one more number for an attacker to choose.
fn check_metadata_sizes(header: &Header, shape: &Shape) -> Result<(), FormatError> {
    let core = &header.core;
    let table = table_bytes(shape);
    check_size(core.table, table, Field::TableOffset, Field::TableSize)?;
    let bitmap = bitmap_bytes(header.bitmap_blocks());
    check_size(core.bitmap, bitmap, Field::BitmapOffset, Field::BitmapSize)?;
    if core.bitmap.exists() && !header.has_base() {
        return Err(FormatError::corrupt(Field::BitmapSize, core.bitmap.bytes));
    }
    if !core.bitmap.exists() && header.has_bitmap() {
        return Err(FormatError::corrupt(Field::BitmapSize, 0));
    }
    Ok(())
}

/// A region has exactly `bytes` bytes, or none at all and no offset.
fn check_size(
    region: Region,
    bytes: u64,
    offset_field: Field,
    size_field: Field,
) -> Result<(), FormatError> {
    if region.exists() {
        if region.bytes != bytes {
            return Err(FormatError::corrupt(size_field, region.bytes));
        }
    } else if region.offset != 0 {
        return Err(FormatError::corrupt(offset_field, region.offset));
    }
    Ok(())
}

/// Bit 0 and the checksum fields say the same thing.
fn check_checksums(header: &Header) -> Result<(), FormatError> {
    let [offset_a, offset_b] = header.checksum_offset;
    let size = header.checksum_bytes;
    if header.has_checksums() {
        let pages = header.page_counts().total();
        if pages == 0 || size != checksum_bytes(pages) {
            return Err(FormatError::corrupt(Field::ChecksumSize, size));
        }
        return Ok(());
    }
    if header.checksum_active != ChecksumArray::A {
        return Err(FormatError::corrupt(Field::ChecksumActive, 1));
    }
    for (field, value) in [
        (Field::ChecksumOffsetA, offset_a),
        (Field::ChecksumOffsetB, offset_b),
        (Field::ChecksumSize, size),
    ] {
        if value != 0 {
            return Err(FormatError::corrupt(field, value));
        }
    }
    Ok(())
}

/// The journal is whole units, enough of them, and there if anything needs it.
fn check_journal(header: &Header, limits: &Limits) -> Result<(), FormatError> {
    let unit = check_unit(header.atomic_unit)?;
    if header.core.stable_seq > SEQ_MAX {
        return Err(FormatError::corrupt(
            Field::StableSeq,
            header.core.stable_seq,
        ));
    }
    let journal = header.core.journal;
    if !journal.exists() {
        if header.has_table() || header.has_bitmap() {
            return Err(FormatError::corrupt(Field::JournalSize, 0));
        }
        return check_size(journal, 0, Field::JournalOffset, Field::JournalSize);
    }
    let bytes_min = limits.journal_units_min.max(2).saturating_mul(unit);
    if !journal.bytes.is_multiple_of(unit) || journal.bytes < bytes_min {
        return Err(FormatError::corrupt(Field::JournalSize, journal.bytes));
    }
    if journal.bytes > limits.journal_bytes_max {
        return Err(FormatError::limit(Field::JournalSize, journal.bytes));
    }
    Ok(())
}

/// A journal unit is a power of two from 512 to 4096 bytes.
pub(super) fn check_unit(atomic_unit: u32) -> Result<u64, FormatError> {
    let unit = u64::from(atomic_unit);
    if !unit.is_power_of_two() || !(512..=PAGE_BYTES_U64).contains(&unit) {
        return Err(FormatError::corrupt(Field::AtomicUnit, unit));
    }
    Ok(unit)
}

/// The data area as the header records it, whatever the device says today.
fn check_store(header: &Header) -> Result<(), FormatError> {
    let core = &header.core;
    if !core.data_offset.is_multiple_of(PAGE_BYTES_U64) || core.data_offset >= OFFSET_LIMIT {
        return Err(FormatError::corrupt(Field::DataOffset, core.data_offset));
    }
    let needed = if header.has_table() {
        0
    } else {
        core.virtual_bytes
    };
    // Both are below 2^63.
    let needed = core.data_offset.saturating_add(needed);
    if header.store_bytes < needed || header.store_bytes >= OFFSET_LIMIT {
        return Err(FormatError::corrupt(Field::StoreBytes, header.store_bytes));
    }
    if header.zero_floor_chunk > u64::from(header.chunks_in(header.store_bytes)) {
        return Err(FormatError::corrupt(
            Field::ZeroFloorChunk,
            header.zero_floor_chunk,
        ));
    }
    Ok(())
}

/// Bytes of a lookup table: 4 per chunk, whole pages, at least one.
pub(super) fn table_bytes(shape: &Shape) -> u64 {
    whole_pages(u64::from(shape.chunk_count()).saturating_mul(table::ENTRY_BYTES))
}

/// Bytes of a bitmap: one bit per block of the base, whole pages, at least one.
pub(super) fn bitmap_bytes(blocks: u64) -> u64 {
    whole_pages(blocks.div_ceil(8))
}

/// Bytes of a checksum array over `pages` metadata pages.
pub(super) fn checksum_bytes(pages: u32) -> u64 {
    whole_pages(u64::from(pages).saturating_mul(super::page::CHECKSUM_BYTES))
}

/// Rounds up to whole pages, at least one. Callers pass sizes far below 2^63.
fn whole_pages(bytes: u64) -> u64 {
    bytes
        .max(1)
        .checked_next_multiple_of(PAGE_BYTES_U64)
        .unwrap_or(u64::MAX)
}

/// The features that this writer sets for an image with these regions.
pub(super) fn incompatible_bits(any_metadata: bool, external: bool) -> u64 {
    let checksums = if any_metadata {
        Features::PAGE_CHECKSUMS
    } else {
        0
    };
    let external = if external { Features::EXTERNAL_DATA } else { 0 };
    checksums | external
}
