//! What opening checks before it writes anything.

use crate::engine::Disk;
use crate::format::page::{PageKind, page_checksum, read_checksum};
use crate::format::table::{self, TableEntry};
use crate::format::{Field, FormatError, PAGE_BYTES, bitmap};
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

    /// The pages that count: number, kind, index in their region, content. The bitmap of a base that
    /// is not needed any more is left over; nothing is read from it.
    pub(crate) fn pages(
        &self,
    ) -> impl Iterator<Item = (u32, PageKind, u32, &[u8; PAGE_BYTES])> + '_ {
        (0..self.map.counts.total()).filter_map(|number| {
            let (kind, index) = self.map.counts.locate(number)?;
            let counts = kind == PageKind::Table || self.map.bitmap_blocks != 0;
            counts.then_some((number, kind, index, self.map.page(number)?))
        })
    }

    /// The checksum on record and the one found, if the page has one that must be right: a record
    /// that was just replayed vouches for its page, which may have been torn in place.
    pub(crate) fn sums_of(&self, number: u32, page: &[u8; PAGE_BYTES]) -> Option<(u32, u32)> {
        let header = &self.journal.header;
        if !header.has_checksums() || self.map.dirty.is_current(number) {
            return None;
        }
        let recorded = read_checksum(&self.map.sums, number).unwrap_or(0);
        Some((recorded, page_checksum(&header.image_id, number, page)))
    }

    /// Checks the checksum of every page.
    pub(super) fn check_sums(&self) -> Result<(), FormatError> {
        for (number, _, _, page) in self.pages() {
            if self
                .sums_of(number, page)
                .is_some_and(|(recorded, found)| recorded != found)
            {
                return Err(FormatError::corrupt(Field::PageChecksum, u64::from(number)));
            }
        }
        Ok(())
    }

    /// Checks what every page says.
    pub(super) fn check_contents(&self, store_chunks: u32) -> Result<(), FormatError> {
        let chunk_count = self.map.shape.chunk_count();
        for (_, kind, index, page) in self.pages() {
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
