//! What a repair may change: only what loses nothing and needs no guess.
//!
//! * A store that is shorter than recorded: the table says whether anything was in the part that is
//!   gone, and the checks that follow refuse the image if so.
//! * Entries at or above the zero floor: the floor claims that they were never written, the entries
//!   show that they were. Raising it only means that free chunks are zeroed before use.
//! * What stands behind the last entry of the table or the last bit of the bitmap, where nothing is and
//!   no checksum looks.
//!
//! Everything else a repair does is recovery and a clean close (docs/DESIGN.md §6).

use crate::engine::Disk;
use crate::format::table::TableEntry;
use crate::stores::Stores;
use crate::units::ChunkIndex;

impl<S: Stores> Disk<S> {
    /// The size of the store to go on with: what is there, if that is less than is on record. Without
    /// a table every byte of the store is the guest's, so that none may be missing.
    pub(super) fn shortened_store(&self, recorded: u64, capacity: u64) -> u64 {
        if self.map.has_table && capacity >= self.journal.header.core.data_offset {
            recorded.min(capacity)
        } else {
            recorded
        }
    }

    /// The floor, or above all of the store if an entry shows that it is wrong: then nothing is known
    /// of any chunk.
    pub(super) fn mended_floor(&self, floor: u32, store_chunks: u32) -> u32 {
        let above = |chunk| match self.map.entry(ChunkIndex(chunk)) {
            TableEntry::Chunk(at) => at.0 >= floor,
            TableEntry::Unmapped | TableEntry::Unreadable | TableEntry::Split(_) => false,
        };
        let has_table = self.map.has_table;
        if has_table && (0..self.map.shape.chunk_count()).any(above) {
            store_chunks
        } else {
            floor
        }
    }
}
