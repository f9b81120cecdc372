//! The mapping in memory: table and bitmap pages, what changed, and what it means for a range.
//!
//! The unit of change is the *mapping* of one chunk: its table entry together with the base-bitmap
//! bits of its at most 16 blocks. Both travel in one journal record, so that a crash can never leave
//! one without the other (SPEC.md §7).
//!
//! Invariants:
//! 1. `pages` always holds the *live* mapping: what a guest read may use.
//! 2. A mapping whose live value is not known durable has an entry in `pending`, which keeps the
//!    last durable value. So live minus pending is exactly what a checkpoint may write in place.
//! 3. Page numbers run through the table's pages and then the bitmap's, as in the checksum arrays.

mod dirty;
mod loose;
mod pending;
mod runs;
mod sums;
#[cfg(test)]
pub(crate) mod tests;

pub(crate) use dirty::DirtyPages;
pub(crate) use pending::{NONE, Pending, PendingTable};
pub(crate) use runs::Source;

use crate::buffer::{Arena, Part};
use crate::format::bitmap;
use crate::format::journal::MapRecord;
use crate::format::page::PageCounts;
use crate::format::table::{self, TableEntry};
use crate::format::{Header, PAGE_BYTES};
use crate::seeded::{Bug, bug};
use crate::units::{ChunkIndex, GuestOffset, Shape, StoreChunk};

/// Table entry and base-bitmap bits of one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Mapping {
    /// Where the chunk lives. [`TableEntry::Unmapped`] without a table.
    pub(crate) entry: TableEntry,
    /// Bit `i` set: block `i` of the chunk is not in the base.
    pub(crate) bits: u16,
}

/// Everything that decides where a guest byte lives.
pub(crate) struct Map {
    pub(crate) shape: Shape,
    /// Table pages, then bitmap pages, as they would be on disk.
    pub(crate) pages: Part<u8>,
    /// Checksums of the pages as they were where the journal begins, as on disk (see `sums`).
    pub(crate) sums: Part<u8>,
    pub(crate) counts: PageCounts,
    pub(crate) dirty: DirtyPages,
    pub(crate) pending: PendingTable,
    pub(crate) has_table: bool,
    /// Blocks that the bitmap covers; 0 = no base.
    pub(crate) bitmap_blocks: u64,
    /// Bytes of the base that the guest can see.
    pub(crate) base_bytes: u64,
    /// Where the bitmap's say ends. In version 2 it ends with a block; in the old dialects with the
    /// base, so that its last block may belong to the base in part.
    pub(crate) cover_bytes: u64,
    /// No table, no live bitmap, and a store for every byte: guest bytes lie like on a raw disk.
    pub(crate) plain: bool,
    /// The mappings of an old dialect: bits in ranges of any size, written in place (see `loose`).
    pub(crate) loose: bool,
    /// Table and bitmap as they may be written in place; empty in version 2, which has `pending`.
    pub(crate) sealed: Part<u8>,
    /// First byte of the guest's disk that a store without a table is too short for.
    pub(crate) store_limit: u64,
    /// Where chunk 0 of the store starts on the data device.
    pub(crate) data_offset: u64,
    table_bytes: usize,
}

/// Sizes that a [`Map`] takes from an arena.
#[derive(Clone, Copy, Debug)]
pub(crate) struct MapSize {
    pub(crate) page_bytes: usize,
    pub(crate) sum_bytes: usize,
    pub(crate) page_count: usize,
    pub(crate) sealed_bytes: usize,
    pub(crate) pending: u16,
}

impl Map {
    /// Carves an empty map for `header`. `None` if the arena is too small.
    pub(crate) fn carve(
        arena: &mut Arena,
        header: &Header,
        shape: Shape,
        size: &MapSize,
        base_bytes: u64,
    ) -> Option<Map> {
        let counts = header.page_counts();
        let loose = header.dialect.is_old();
        let has_bitmap = header.has_bitmap();
        Some(Map {
            shape,
            pages: arena.carve(size.page_bytes, 0u8)?,
            sums: arena.carve(size.sum_bytes, 0u8)?,
            counts,
            dirty: DirtyPages::carve(arena, size.page_count)?,
            pending: PendingTable::carve(arena, size.pending)?,
            has_table: header.has_table(),
            bitmap_blocks: if has_bitmap {
                header.bitmap_blocks()
            } else {
                0
            },
            base_bytes: if has_bitmap {
                base_bytes.min(shape.virtual_bytes())
            } else {
                0
            },
            cover_bytes: if loose {
                header.core.base_bytes.min(shape.virtual_bytes())
            } else {
                u64::MAX
            },
            plain: !header.has_table() && !has_bitmap,
            loose,
            sealed: arena.carve(size.sealed_bytes, 0u8)?,
            store_limit: u64::MAX,
            data_offset: header.core.data_offset,
            table_bytes: counts.table_pages as usize * PAGE_BYTES,
        })
    }

    /// Gives the memory back.
    pub(crate) fn reclaim(self, arena: &mut Arena) -> bool {
        arena.reclaim(self.pages).is_ok()
            & arena.reclaim(self.sums).is_ok()
            & arena.reclaim(self.sealed).is_ok()
            & self.dirty.reclaim(arena)
            & self.pending.reclaim(arena)
    }

    fn table(&self) -> &[u8] {
        self.pages.get(..self.table_bytes).unwrap_or(&[])
    }

    pub(crate) fn table_mut(&mut self) -> &mut [u8] {
        self.pages.get_mut(..self.table_bytes).unwrap_or(&mut [])
    }

    pub(crate) fn bitmap(&self) -> &[u8] {
        self.pages.get(self.table_bytes..).unwrap_or(&[])
    }

    pub(crate) fn bitmap_mut(&mut self) -> &mut [u8] {
        self.pages.get_mut(self.table_bytes..).unwrap_or(&mut [])
    }

    /// Blocks of `chunk` that the base covers: the meaningful low bits of its [`Mapping::bits`].
    /// None where bits are kept in ranges.
    #[inline]
    pub(crate) fn group_len(&self, chunk: ChunkIndex) -> u32 {
        if self.bitmap_blocks == 0 || self.loose {
            return 0;
        }
        let first = self.shape.first_block(chunk).0;
        bitmap::group_len(first, self.shape.blocks_per_chunk(), self.bitmap_blocks)
    }

    /// The live table entry. Damaged entries were refused at open and read as unreadable.
    #[inline]
    pub(crate) fn entry(&self, chunk: ChunkIndex) -> TableEntry {
        match table::read_entry(self.table(), chunk) {
            Some(Ok(entry)) => entry,
            _ => TableEntry::Unreadable,
        }
    }

    /// The live bits of a chunk's blocks; bits beyond the base are clear.
    #[inline]
    pub(crate) fn bits(&self, chunk: ChunkIndex) -> u16 {
        if self.bitmap_blocks == 0 || self.loose {
            return 0;
        }
        self.read_bits(chunk)
    }

    #[inline(never)] // so that a disk without a base gets past it quickly
    fn read_bits(&self, chunk: ChunkIndex) -> u16 {
        let len = self.group_len(chunk);
        bitmap::read_group(self.bitmap(), self.shape.first_block(chunk).0, len)
    }

    /// The live mapping of a chunk.
    #[inline]
    pub(crate) fn mapping(&self, chunk: ChunkIndex) -> Mapping {
        let entry = if self.has_table {
            self.entry(chunk)
        } else {
            TableEntry::Unmapped
        };
        Mapping {
            entry,
            bits: self.bits(chunk),
        }
    }

    /// Changes the live mapping of a chunk. The caller keeps invariant 2.
    pub(crate) fn set_mapping(&mut self, chunk: ChunkIndex, value: Mapping) {
        if self.has_table {
            // Every chunk of the disk has an entry; the header's validation saw to that.
            let _ = table::write_entry(self.table_mut(), chunk, value.entry);
        }
        let len = self.group_len(chunk);
        if len != 0 {
            let first = self.shape.first_block(chunk).0;
            bitmap::write_group(self.bitmap_mut(), first, len, value.bits);
        }
    }

    /// The journal record that turns the mapping `told` of a chunk into `value`.
    pub(crate) fn record(&self, chunk: ChunkIndex, told: Mapping, value: Mapping) -> MapRecord {
        let set = if bug(Bug::BitsRecordedTwice) {
            value.bits
        } else {
            value.bits & !told.bits
        };
        let set = set & bitmap::group_mask(self.group_len(chunk));
        let placed = self.has_table && value.entry != told.entry;
        MapRecord {
            chunk,
            entry: placed.then_some(value.entry),
            bits: (set != 0).then_some(set),
        }
    }

    /// The newest record of a pending mapping is durable.
    pub(crate) fn settle(&mut self, index: u16) {
        let Some(settled) = self.pending.settle(index) else {
            return;
        };
        let chunk = ChunkIndex(settled.chunk);
        if !self.loose {
            self.mark_dirty(chunk);
            if !bug(Bug::SumsAheadOfTheCut) {
                self.sum_settled(chunk, settled.from, settled.to);
            }
        }
        self.pending.remove_if_idle(index);
    }

    /// Marks the pages that hold a chunk's mapping as changed by a durable record.
    pub(crate) fn mark_dirty(&mut self, chunk: ChunkIndex) {
        if self.has_table {
            self.dirty.mark(chunk.0 / table::ENTRIES_PER_PAGE);
        }
        if self.group_len(chunk) != 0 {
            self.dirty.mark(self.bitmap_page(chunk));
        }
    }

    /// Number of the page that holds the bits of a chunk, all of them: 4096 bytes of 8 bits, and a
    /// group never straddles a byte pair.
    fn bitmap_page(&self, chunk: ChunkIndex) -> u32 {
        let page = self.shape.first_block(chunk).0 >> 15;
        self.counts.table_pages.saturating_add(page as u32)
    }

    /// Whether something stands behind the last entry of the table or the last bit of the bitmap.
    pub(crate) fn has_tails(&self) -> bool {
        let (entries, bits) = self.tails();
        self.table()
            .get(entries..)
            .unwrap_or(&[])
            .iter()
            .any(|byte| *byte != 0xFF)
            || bitmap::check_page(self.bitmap(), 0, bits).is_err()
    }

    /// Clears it, and marks the pages that it was on as changed.
    pub(crate) fn clear_tails(&mut self) {
        let (entries, bits) = self.tails();
        self.table_mut()
            .get_mut(entries..)
            .unwrap_or(&mut [])
            .fill(0xFF);
        bitmap::clear_tail(self.bitmap_mut(), bits);
        let counts = self.counts;
        let first_table = (entries / PAGE_BYTES) as u32;
        let first_bitmap = u32::try_from(bits >> 15).unwrap_or(u32::MAX);
        let first_bitmap = counts.table_pages.saturating_add(first_bitmap);
        for page in (first_table..counts.table_pages).chain(first_bitmap..counts.total()) {
            self.dirty.mark(page);
        }
    }

    /// Where they begin: a byte of the table, a bit of the bitmap. That of a base that is not needed
    /// has none.
    fn tails(&self) -> (usize, u64) {
        let entries = self.shape.chunk_count() as usize * table::ENTRY_BYTES as usize;
        let bits = if self.bitmap_blocks == 0 {
            u64::MAX
        } else {
            self.bitmap_blocks
        };
        (entries, bits)
    }

    /// Bytes of a page by its number.
    pub(crate) fn page(&self, number: u32) -> Option<&[u8; PAGE_BYTES]> {
        let start = (number as usize).checked_mul(PAGE_BYTES)?;
        self.pages.get(start..)?.first_chunk()
    }

    /// Copies a page as it may be written in place: live, with every change that is not known
    /// durable taken back (law 6).
    pub(crate) fn stage_page(
        &self,
        number: u32,
        target: &mut [u8; PAGE_BYTES],
        live: bool,
    ) -> bool {
        let Some(page) = self.page(number) else {
            return false;
        };
        target.copy_from_slice(page);
        if live {
            return true;
        }
        let table_pages = self.counts.table_pages;
        for pending in self.pending.iter() {
            let chunk = ChunkIndex(pending.chunk);
            let durable = if bug(Bug::StageSealedPages) {
                pending.recorded()
            } else {
                pending.durable
            };
            if number < table_pages {
                if chunk.0 / table::ENTRIES_PER_PAGE == number {
                    let within = ChunkIndex(chunk.0 % table::ENTRIES_PER_PAGE);
                    let _ = table::write_entry(target, within, durable.entry);
                }
            } else {
                let first = self.shape.first_block(chunk).0;
                let len = self.group_len(chunk);
                if len != 0 && first >> 15 == u64::from(number - table_pages) {
                    bitmap::write_group(target, first & 0x7FFF, len, durable.bits);
                }
            }
        }
        true
    }

    /// Where `chunk` of the guest's disk lives or will live: its live entry, or the chunk reserved
    /// for it. Without a table every chunk is at its own place.
    /// `guess` is where its pending entry probably is.
    #[inline]
    pub(crate) fn store_chunk(&self, chunk: ChunkIndex, guess: u16) -> Option<StoreChunk> {
        if !self.has_table {
            return Some(StoreChunk(chunk.0));
        }
        match self.entry(chunk) {
            TableEntry::Chunk(at) => Some(at),
            _ => {
                let entry = self.pending.find_near(guess, chunk.0)?;
                let reserved = self.pending.get(entry)?.reserved;
                (reserved != u32::MAX).then_some(StoreChunk(reserved))
            }
        }
    }

    /// The chunk that the sets of a request count from: that of the first byte of its blocks.
    pub(crate) fn first_chunk(&self, extent_start: u64) -> u32 {
        self.shape.chunk_of(GuestOffset(extent_start)).0
    }

    /// Bits of the blocks of `chunk` that `[start, end)` touches, within the base.
    pub(crate) fn touched_bits(&self, chunk: ChunkIndex, start: u64, end: u64) -> u16 {
        let len = self.group_len(chunk);
        if len == 0 {
            return 0;
        }
        let begin = self.shape.chunk_start(chunk).0;
        let (from, to) = (
            start.max(begin),
            end.min(begin.saturating_add(self.shape.chunk_bytes())),
        );
        if from >= to {
            return 0;
        }
        let block = |offset: u64| self.shape.block_of(GuestOffset(offset)).0;
        let first = block(from).saturating_sub(block(begin)) as u32;
        let last = block(to - 1).saturating_sub(block(begin)) as u32;
        (bitmap::group_mask(last + 1) & !bitmap::group_mask(first)) & bitmap::group_mask(len)
    }
}
