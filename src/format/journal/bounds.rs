//! What the records of one image may speak of.

use super::{MapRecord, Record, StoreRecord};
use crate::format::bitmap::{group_len, group_mask};
use crate::format::error::{Field, FormatError};
use crate::format::header::{Header, chunks_in};
use crate::format::rules::OFFSET_LIMIT;
use crate::format::table::TableEntry;
use crate::units::StoreChunk;

/// What the records of one image may speak of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordBounds {
    chunk_count: u32,
    blocks_per_chunk: u32,
    bitmap_blocks: u64,
    has_table: bool,
    data_offset: u64,
    chunk_bytes: u64,
}

impl RecordBounds {
    /// The bounds that a header sets.
    #[must_use]
    pub fn new(header: &Header) -> RecordBounds {
        let shape = header.shape();
        RecordBounds {
            chunk_count: shape.chunk_count(),
            blocks_per_chunk: shape.blocks_per_chunk(),
            // By the region, not by `has_bitmap`: when the last block of the base has been fetched,
            // units from before may still wait for replay.
            bitmap_blocks: if header.core.bitmap.exists() {
                header.bitmap_blocks()
            } else {
                0
            },
            has_table: header.has_table(),
            data_offset: header.core.data_offset,
            chunk_bytes: header.core.chunk_bytes,
        }
    }

    /// Checks a record against the image; `store_chunks` is the number of chunks in the durable
    /// store as known *after* all store records up to this one.
    ///
    /// # Errors
    ///
    /// `Corrupt` if it names a chunk, block or store chunk that the image does not have.
    pub fn check(&self, record: &Record, store_chunks: u32) -> Result<(), FormatError> {
        match record {
            Record::Map(map) => self.check_map(map, store_chunks),
            Record::Store(store) => self.check_store(store),
        }
    }

    fn check_map(&self, map: &MapRecord, store_chunks: u32) -> Result<(), FormatError> {
        let chunk = u64::from(map.chunk.0);
        if map.chunk.0 >= self.chunk_count {
            return Err(FormatError::corrupt(Field::RecordChunk, chunk));
        }
        if let Some(entry) = map.entry {
            if !self.has_table {
                let raw = u64::from(entry.encode());
                return Err(FormatError::corrupt(Field::RecordEntry, raw));
            }
            match entry {
                TableEntry::Chunk(StoreChunk(target)) if target < store_chunks => {}
                TableEntry::Chunk(StoreChunk(target)) => {
                    return Err(FormatError::corrupt(Field::TableEntry, u64::from(target)));
                }
                // A record gives a chunk its place; nothing takes one away.
                other => {
                    let raw = u64::from(other.encode());
                    return Err(FormatError::corrupt(Field::RecordEntry, raw));
                }
            }
        }
        if let Some(bits) = map.bits {
            let first_block = chunk.saturating_mul(u64::from(self.blocks_per_chunk));
            let held = group_len(first_block, self.blocks_per_chunk, self.bitmap_blocks);
            if held == 0 || bits & !group_mask(held) != 0 {
                return Err(FormatError::corrupt(Field::RecordBits, u64::from(bits)));
            }
        }
        Ok(())
    }

    fn check_store(&self, store: &StoreRecord) -> Result<(), FormatError> {
        if store.store_bytes < self.data_offset || store.store_bytes >= OFFSET_LIMIT {
            return Err(FormatError::corrupt(Field::StoreBytes, store.store_bytes));
        }
        if store.zero_floor_chunk > self.chunks_in(store.store_bytes) {
            let floor = u64::from(store.zero_floor_chunk);
            return Err(FormatError::corrupt(Field::RecordFloor, floor));
        }
        Ok(())
    }

    /// Whole chunks in a store of `store_bytes` bytes, as [`Header::chunks_in`] counts them.
    #[must_use]
    pub fn chunks_in(&self, store_bytes: u64) -> u32 {
        chunks_in(store_bytes, self.data_offset, self.chunk_bytes)
    }
}
