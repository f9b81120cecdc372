//! Lookup-table entries: which store chunk holds a chunk of the disk (SPEC.md §6).

use super::error::{Field, FormatError};
use crate::units::{ChunkIndex, StoreChunk};

/// Bytes of one entry.
pub const ENTRY_BYTES: u64 = 4;

/// Entries on one page of the table.
pub const ENTRIES_PER_PAGE: u32 = 1024;

pub(super) const UNMAPPED: u32 = 0xFFFF_FFFF;
const UNREADABLE: u32 = 0xFFFF_FFFD;
const SPLIT: u32 = 0x8000_0000;
const SPLIT_LIMIT: u32 = 0x7FFF_0000;

/// One entry of the lookup table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TableEntry {
    /// No store chunk: blocks that are in the base come from there, the others are zeros.
    Unmapped,
    /// The contents are lost and known to be lost: reads fail until a write replaces the chunk.
    ///
    /// Only `repair` writes it, in place of a guess: neither zeros nor base data may stand in for
    /// what a guest once flushed.
    Unreadable,
    /// Split record `i`; reserved until split records exist, so no image may hold one yet.
    Split(u32),
    /// The store chunk that holds the chunk; below 2^31 on disk.
    Chunk(StoreChunk),
}

impl TableEntry {
    /// Reads an entry.
    ///
    /// # Errors
    ///
    /// `Corrupt` for a value without a meaning, which includes split entries: they are legal only
    /// under an incompatible feature bit that this reader refuses.
    pub fn decode(raw: u32) -> Result<TableEntry, FormatError> {
        match raw {
            chunk if chunk < SPLIT => Ok(TableEntry::Chunk(StoreChunk(chunk))),
            UNMAPPED => Ok(TableEntry::Unmapped),
            UNREADABLE => Ok(TableEntry::Unreadable),
            other => Err(FormatError::corrupt(Field::TableEntry, u64::from(other))),
        }
    }

    /// The entry as it is stored.
    ///
    /// A chunk or record number that the format can not hold is a bug of the caller; it becomes
    /// [`TableEntry::Unreadable`], which loses one chunk and can not expose another's bytes.
    #[must_use]
    pub const fn encode(self) -> u32 {
        match self {
            TableEntry::Unmapped => UNMAPPED,
            TableEntry::Unreadable => UNREADABLE,
            TableEntry::Split(index) if index < SPLIT_LIMIT => SPLIT | index,
            TableEntry::Chunk(StoreChunk(chunk)) if chunk < SPLIT => chunk,
            TableEntry::Split(_) | TableEntry::Chunk(_) => {
                debug_assert!(false, "a chunk number beyond the format");
                UNREADABLE
            }
        }
    }
}

/// Reads the entry of `chunk` from the bytes of a whole table, or `None` past their end.
#[must_use]
pub fn read_entry(table: &[u8], chunk: ChunkIndex) -> Option<Result<TableEntry, FormatError>> {
    let (entries, _) = table.as_chunks();
    let bytes = entries.get(usize::try_from(chunk.0).ok()?)?;
    Some(TableEntry::decode(u32::from_le_bytes(*bytes)))
}

/// Writes the entry of `chunk` into the bytes of a whole table; `false` past their end.
#[must_use]
pub fn write_entry(table: &mut [u8], chunk: ChunkIndex, entry: TableEntry) -> bool {
    let (entries, _) = table.as_chunks_mut();
    let place = usize::try_from(chunk.0).ok();
    match place.and_then(|place| entries.get_mut(place)) {
        Some(bytes) => {
            *bytes = entry.encode().to_le_bytes();
            true
        }
        None => false,
    }
}

/// Checks that entries behind the last of `chunk_count` chunks are unmapped in page `page_index`.
///
/// # Errors
///
/// `Corrupt` with the first one that is not.
pub fn check_tail(page: &[u8], page_index: u32, chunk_count: u32) -> Result<(), FormatError> {
    let first = page_index.saturating_mul(ENTRIES_PER_PAGE);
    let within = usize::try_from(chunk_count.saturating_sub(first)).unwrap_or(usize::MAX);
    let (entries, _) = page.as_chunks::<4>();
    let mut behind = entries
        .iter()
        .skip(within)
        .map(|bytes| u32::from_le_bytes(*bytes));
    match behind.find(|raw| *raw != UNMAPPED) {
        Some(raw) => Err(FormatError::corrupt(Field::TableTail, u64::from(raw))),
        None => Ok(()),
    }
}

/// Checks one page of the table: every entry below `store_chunks`, the tail unmapped.
///
/// `page` is page `page_index` of the table, `chunk_count` the number of chunks of the disk.
///
/// # Errors
///
/// `Corrupt` with the first entry that breaks a rule of SPEC.md §6.
pub fn check_page(
    page: &[u8],
    page_index: u32,
    chunk_count: u32,
    store_chunks: u32,
) -> Result<(), FormatError> {
    let first = page_index.saturating_mul(ENTRIES_PER_PAGE);
    let within = usize::try_from(chunk_count.saturating_sub(first)).unwrap_or(usize::MAX);
    let (entries, _) = page.as_chunks::<4>();
    for bytes in entries.iter().take(within) {
        let raw = u32::from_le_bytes(*bytes);
        if let TableEntry::Chunk(StoreChunk(target)) = TableEntry::decode(raw)?
            && target >= store_chunks
        {
            return Err(FormatError::corrupt(Field::TableEntry, u64::from(raw)));
        }
    }
    check_tail(page, page_index, chunk_count)
}
