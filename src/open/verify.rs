//! What opening checks before it writes anything.

use crate::engine::Disk;
use crate::format::page::{PageKind, page_checksum, read_checksum};
use crate::format::table::{self, TableEntry};
use crate::format::{Field, FormatError, PAGE_BYTES, bitmap};
use crate::stores::{Role, Stores};
use crate::units::ChunkIndex;

use super::error::OpenError;
use super::recovery::{Body, Opening, Step};
use super::rewrite::{Found, Rewrite};
use super::survey::Purpose;

impl<S: Stores> Opening<S> {
    /// Checks everything that was read; then, unless read-only, writes it back.
    pub(super) fn verify(&mut self) -> Result<(), OpenError> {
        if self.purpose == Purpose::Inspect {
            self.end_survey();
            return Ok(());
        }
        let first_seq = self.replay.first_seq()?;
        let Body::Disk(disk) = &mut self.body else {
            return Ok(());
        };
        let capacity = disk
            .stores
            .geometry(Role::Data)
            .map_or(0, |data| data.capacity_bytes);
        let repair = self.purpose == Purpose::Repair;
        if repair {
            self.replay.store_bytes = disk.shortened_store(self.replay.store_bytes, capacity);
        }
        if self.replay.store_bytes > capacity {
            return Err(FormatError::corrupt(Field::StoreBytes, self.replay.store_bytes).into());
        }
        let store_bytes = disk.usable_store(self.replay.store_bytes, capacity);
        let chunks = disk.journal.header.chunks_in(store_bytes);
        let recorded = disk.journal.header.chunks_in(self.replay.store_bytes);
        let mut found = u32::try_from(self.replay.floor)
            .unwrap_or(u32::MAX)
            .min(recorded);
        if repair && disk.map.has_tails() {
            disk.map.clear_tails();
        }
        disk.check_sums()?;
        if repair {
            found = disk.mended_floor(found, recorded);
        }
        disk.check_contents(recorded)?;
        // Unless somebody promised that new space reads zeros, everything free counts as used before.
        let grown = chunks > recorded && !disk.store_grows_zeroed();
        let floor = if grown { chunks } else { found };
        disk.alloc.begin(chunks, floor);
        disk.adopt_chunks(found)?;
        let found = Found {
            store_bytes,
            first_seq,
            floor: disk.floor_target(chunks).max(floor),
        };
        self.step = if disk.options.read_only {
            disk.adopt(&found);
            Step::Ready
        } else {
            Step::Rewrite(Rewrite::first(found))
        };
        Ok(())
    }
}

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

    /// The checksum that a page must have after replay, and the one it has; `None` without checksums.
    pub(crate) fn sums_of(&self, number: u32, page: &[u8; PAGE_BYTES]) -> Option<(u32, u32)> {
        let header = &self.journal.header;
        if !header.has_checksums() {
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
