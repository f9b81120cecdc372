//! The rules that both dialects of 2011 keep, and what follows from their fields (DIALECTS.md §1).
//!
//! Their headers have no checksum and were never validated by anybody, so this is stricter than the
//! reference implementation: what it answers with a crash or with wrong bytes is refused here.

use crate::format::error::{Field, FormatError};
use crate::format::feature::Features;
use crate::format::header::Header;
use crate::format::regions::Region;
use crate::format::rules::{OFFSET_LIMIT, bitmap_bytes, table_bytes};
use crate::format::{JOURNAL_BYTES_MAX, PAGE_BYTES_U64};
use crate::units::{SECTOR_BYTES, Shape};

/// Blocks of a disk that has no bitmap: a size to work with, nothing more.
const BLOCK_BYTES_WITHOUT_BITMAP: u64 = 64 << 10;
/// Chunks of a disk that has no table.
const CHUNK_BYTES_WITHOUT_TABLE: u64 = 1 << 20;
/// Largest block or chunk, bytes.
const SIZE_MAX: u64 = 1 << 31;

/// What the header of a dialect says in its own way.
pub(super) struct Recorded {
    /// Bytes of the bitmap.
    pub(super) bitmap_bytes: u64,
    /// Where the table starts, if there is one.
    pub(super) table: Option<u64>,
    /// Where the chunks start.
    pub(super) data_offset: u64,
}

/// Checks the fields that were read, and fills in what version 2 would say explicitly.
pub(super) fn complete(header: &mut Header, recorded: &Recorded) -> Result<(), FormatError> {
    let core = &mut header.core;
    check_size(Field::VirtualDiskSize, core.virtual_bytes)?;
    check_size(Field::BaseImageSize, core.base_bytes)?;
    let external = !core.data_file.is_empty();
    if external {
        header.features.incompatible |= Features::EXTERNAL_DATA;
    }
    core.data_offset = recorded.data_offset;
    if core.data_offset >= OFFSET_LIMIT || !core.data_offset.is_multiple_of(SECTOR_BYTES) {
        return Err(FormatError::corrupt(Field::OldDataOffset, core.data_offset));
    }
    // The table must exist for the shape to be looked for; its size follows from the shape.
    core.table = Region {
        offset: recorded.table.unwrap_or(0),
        bytes: recorded.table.map_or(0, |_| PAGE_BYTES_U64),
    };
    let shape = check_shape(header)?;
    if header.has_table() {
        header.core.table.bytes = table_bytes(&shape);
    }
    place_bitmap(header, recorded)?;
    check_journal(header, &shape)?;
    header.atomic_unit = write_unit(header);
    Ok(())
}

fn check_size(field: Field, bytes: u64) -> Result<(), FormatError> {
    if !bytes.is_multiple_of(SECTOR_BYTES) || bytes >= OFFSET_LIMIT {
        return Err(FormatError::corrupt(field, bytes));
    }
    Ok(())
}

pub(super) fn check_shape(header: &Header) -> Result<Shape, FormatError> {
    let core = &header.core;
    let legal = |bytes: u64| bytes != 0 && bytes.is_multiple_of(SECTOR_BYTES) && bytes <= SIZE_MAX;
    if header.has_bitmap() && !legal(core.block_bytes) {
        return Err(FormatError::corrupt(Field::OldBlockSize, core.block_bytes));
    }
    if header.has_table() && !legal(core.chunk_bytes) {
        return Err(FormatError::corrupt(Field::OldChunkSize, core.chunk_bytes));
    }
    // Sizes are legal one by one: what is left to fail is the number of chunks.
    shape(header).ok_or(FormatError::limit(
        Field::VirtualDiskSize,
        core.virtual_bytes,
    ))
}

/// Sizes to work with. What the image does not say is chosen so that nothing depends on it.
pub(in crate::format) fn shape(header: &Header) -> Option<Shape> {
    let core = &header.core;
    let (block, chunk) = match (header.has_bitmap(), header.has_table()) {
        (true, true) => (core.block_bytes, core.chunk_bytes),
        (true, false) => {
            let blocks = CHUNK_BYTES_WITHOUT_TABLE
                .checked_div(core.block_bytes)
                .unwrap_or(1);
            (
                core.block_bytes,
                core.block_bytes.saturating_mul(blocks.max(1)),
            )
        }
        (false, true) => (
            core.chunk_bytes.min(BLOCK_BYTES_WITHOUT_BITMAP),
            core.chunk_bytes,
        ),
        (false, false) => (BLOCK_BYTES_WITHOUT_BITMAP, CHUNK_BYTES_WITHOUT_TABLE),
    };
    Shape::loose(core.virtual_bytes, block, chunk)
}

/// A bitmap that nobody needs any more is not looked at.
fn place_bitmap(header: &mut Header, recorded: &Recorded) -> Result<(), FormatError> {
    if !header.has_bitmap() {
        header.core.bitmap = Region::NONE;
        return Ok(());
    }
    let blocks = header.bitmap_blocks();
    if recorded.bitmap_bytes < blocks.div_ceil(8) {
        let bytes = recorded.bitmap_bytes;
        return Err(FormatError::corrupt(Field::OldBitmapSize, bytes));
    }
    header.core.bitmap.bytes = bitmap_bytes(blocks);
    Ok(())
}

/// The journal is whole sectors. Its size bounds recovery, so it bounds what is accepted.
fn check_journal(header: &mut Header, shape: &Shape) -> Result<(), FormatError> {
    let journal = &mut header.core.journal;
    if !journal.exists() {
        *journal = Region::NONE;
        return Ok(());
    }
    if !journal.bytes.is_multiple_of(SECTOR_BYTES) {
        return Err(FormatError::corrupt(Field::OldJournalSize, journal.bytes));
    }
    let most = JOURNAL_BYTES_MAX.max(journal_bytes_for_table(u64::from(shape.chunk_count())));
    if journal.bytes > most {
        return Err(FormatError::limit(Field::OldJournalSize, journal.bytes));
    }
    Ok(())
}

/// The smallest journal that the reference gives an image with a table of `entries` entries: one
/// record for every entry at once.
pub(in crate::format) fn journal_bytes_for_table(entries: u64) -> u64 {
    entries
        .div_ceil(super::records::ENTRIES_BESIDE_BITMAP)
        .saturating_mul(SECTOR_BYTES)
        .next_multiple_of(PAGE_BYTES_U64)
}

/// The largest logical block that a device may have: what is written in place are whole pages, which
/// start at multiples of 512 at least.
fn write_unit(header: &Header) -> u32 {
    let core = &header.core;
    let aligned = |region: Region| region.offset.is_multiple_of(PAGE_BYTES_U64);
    if aligned(core.table) && aligned(core.bitmap) {
        4096
    } else {
        512
    }
}
