//! What opening checks before it writes anything.

use crate::engine::Disk;
use crate::format::page::{PageKind, page_checksum, read_checksum};
use crate::format::table::{self, TableEntry};
use crate::format::{Field, FormatError, bitmap};
use crate::stores::{Role, Stores};
use crate::units::ChunkIndex;

impl<S: Stores> Disk<S> {
    pub(super) fn store_grows_zeroed(&self) -> bool {
        let data = self.stores.geometry(Role::Data);
        data.and_then(|data| data.growth)
            .is_some_and(|growth| growth.zeroed)
    }

    /// Size of the store to work with: at least what is on record, more if the device has grown.
    pub(super) fn usable_store(&self, recorded: u64, capacity: u64) -> u64 {
        if self.map.has_table {
            recorded.max(capacity)
        } else {
            recorded
        }
    }

    /// Checks every page: its checksum, unless a record just changed it, and its content.
    pub(super) fn check_pages(&self, store_chunks: u32) -> Result<(), FormatError> {
        let header = &self.journal.header;
        let chunk_count = self.map.shape.chunk_count();
        for number in 0..self.map.counts.total() {
            let (Some(page), Some((kind, index))) =
                (self.map.page(number), self.map.counts.locate(number))
            else {
                continue;
            };
            if kind == PageKind::Bitmap && self.map.bitmap_blocks == 0 {
                // Left over from a base that is not needed any more; nothing is read from it.
                continue;
            }
            if header.has_checksums() && !self.map.dirty.is_current(number) {
                let wanted = read_checksum(&self.map.sums, number);
                if wanted != Some(page_checksum(&header.image_id, number, page)) {
                    return Err(FormatError::corrupt(Field::PageChecksum, u64::from(number)));
                }
            }
            match kind {
                PageKind::Table => table::check_page(page, index, chunk_count, store_chunks)?,
                PageKind::Bitmap => bitmap::check_page(page, index, self.map.bitmap_blocks)?,
            }
        }
        Ok(())
    }

    /// Rebuilds the free map from the table. Two chunks in one place, or one at or above the `floor`
    /// that was found, where nothing was ever written, is damage.
    pub(super) fn adopt_chunks(&mut self, floor: u32) -> Result<(), FormatError> {
        if !self.map.has_table {
            return Ok(());
        }
        for chunk in 0..self.map.shape.chunk_count() {
            if let TableEntry::Chunk(at) = self.map.entry(ChunkIndex(chunk))
                && (at.0 >= floor || !self.alloc.adopt(at))
            {
                return Err(FormatError::corrupt(Field::TableEntry, u64::from(at.0)));
            }
        }
        Ok(())
    }
}
