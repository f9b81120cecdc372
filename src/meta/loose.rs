//! Mappings of the old dialects: blocks and chunks of any size, bits that only ever get set.
//!
//! A block may lie in several chunks and a chunk may hold thousands of blocks, so bits are handled in
//! ranges of bytes, not as part of a chunk's [`Mapping`](super::Mapping).
//!
//! The bitmap speaks of the base alone, to the byte: what lies at or beyond the base's end is in the
//! store whatever the bit of its block says.
//!
//! Instead of taking pending changes back from a page, which needs the old bits, there are two copies:
//! `pages` is live, `sealed` is what may be written in place. Sealing copies whole pages, which is
//! right because a live mapping is always one whose data write has completed.

use crate::buffer::Part;
use crate::format::table::{self, TableEntry};
use crate::format::{PAGE_BYTES, bitmap};
use crate::seeded::{Bug, bug};
use crate::units::{ChunkIndex, GuestOffset};

use super::Map;

/// Blocks with the same bit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct BlockRun {
    pub(super) in_base: bool,
    /// Where they end, or the range that was asked about.
    pub(super) end: u64,
}

impl Map {
    /// The blocks from `start` with the same bit, within `[start, stop)`. `None` where the bitmap has
    /// no say.
    pub(super) fn loose_piece(&self, start: u64, stop: u64) -> Option<BlockRun> {
        if self.bitmap_blocks == 0 || start >= self.cover_bytes {
            return None;
        }
        let covered = stop.min(self.cover_bytes);
        let block = |offset: u64| self.shape.block_of(GuestOffset(offset)).0;
        let (first, last) = (block(start), block(covered.saturating_sub(1)));
        let len = bitmap::run_len(self.bitmap(), first, last.saturating_add(1));
        let next = crate::units::BlockIndex(first.saturating_add(len));
        let run_end = self.shape.block_start(next).0.min(covered);
        let in_base = !bitmap::read_bit(self.bitmap(), first);
        // Beyond the base the store goes on.
        let end = if !in_base && run_end == covered {
            stop
        } else {
            run_end
        };
        Some(BlockRun { in_base, end })
    }

    /// Blocks that `[start, end)` touches within a chunk and the base.
    fn blocks_in(&self, chunk: ChunkIndex, start: u64, end: u64) -> Option<(u64, u64)> {
        if self.bitmap_blocks == 0 {
            return None;
        }
        let from = start.max(self.shape.chunk_start(chunk).0);
        let to = end.min(self.shape.chunk_end(chunk).0).min(self.cover_bytes);
        let block = |offset: u64| self.shape.block_of(GuestOffset(offset)).0;
        (from < to).then(|| (block(from), block(to - 1).saturating_add(1)))
    }

    /// Whether a block of `chunk` that `[start, end)` touches still shows the base, in any dialect.
    pub(crate) fn shows_base(&self, chunk: ChunkIndex, start: u64, end: u64) -> bool {
        if !self.loose {
            return self.touched_bits(chunk, start, end) & !self.bits(chunk) != 0;
        }
        let Some((first, last)) = self.blocks_in(chunk, start, end) else {
            return false;
        };
        let bits = self.bitmap();
        !bitmap::read_bit(bits, first)
            || bitmap::run_len(bits, first, last) < last.saturating_sub(first)
    }

    /// Hides the base behind every block of `chunk` that `[start, end)` touches. Returns whether one
    /// was not hidden. Does nothing in version 2, where a chunk's bits are part of its mapping.
    pub(crate) fn hide(&mut self, chunk: ChunkIndex, start: u64, end: u64) -> bool {
        if !self.loose {
            return false;
        }
        match self.blocks_in(chunk, start, end) {
            Some((first, last)) => bitmap::set_range(self.bitmap_mut(), first, last),
            None => false,
        }
    }

    /// Hides the base behind `[start, end)` and marks the pages that say so, for recovery.
    pub(crate) fn hide_range(&mut self, start: u64, end: u64) {
        let to = end.min(self.cover_bytes);
        if self.bitmap_blocks == 0 || start >= to {
            return;
        }
        let block = |offset: u64| self.shape.block_of(GuestOffset(offset)).0;
        let (first, last) = (block(start), block(to - 1).saturating_add(1));
        let changed = bitmap::set_range(self.bitmap_mut(), first, last);
        if changed || !bug(Bug::NamedPagesTrusted) {
            self.mark_blocks(first, last);
        }
    }

    /// Sets an entry and marks its page, for recovery.
    pub(crate) fn set_loose_entry(&mut self, chunk: ChunkIndex, entry: TableEntry) {
        if table::write_entry(self.table_mut(), chunk, entry) {
            self.dirty.mark(chunk.0 / table::ENTRIES_PER_PAGE);
        }
    }

    fn mark_blocks(&mut self, first: u64, last: u64) {
        let page = |block: u64| self.counts.table_pages.saturating_add((block >> 15) as u32);
        for number in page(first)..=page(last.saturating_sub(1)) {
            self.dirty.mark(number);
        }
    }

    /// Whether every byte of a chunk still shows the base.
    pub(crate) fn is_all_base(&self, chunk: ChunkIndex) -> bool {
        let (start, end) = (
            self.shape.chunk_start(chunk).0,
            self.shape.chunk_end(chunk).0,
        );
        let end = end.min(self.shape.virtual_bytes());
        match self.blocks_in(chunk, start, end) {
            Some((first, last)) if end <= self.cover_bytes => {
                let bits = self.bitmap();
                !bitmap::read_bit(bits, first)
                    && bitmap::run_len(bits, first, last) == last.saturating_sub(first)
            }
            _ => false,
        }
    }

    /// Marks the pages that hold what is known of a chunk: its entry, and the bits of its blocks.
    pub(crate) fn mark_loose(&mut self, chunk: ChunkIndex) {
        if self.has_table {
            self.dirty.mark(chunk.0 / table::ENTRIES_PER_PAGE);
        }
        let all = self.blocks_in(chunk, 0, u64::MAX);
        if let Some((first, last)) = all {
            self.mark_blocks(first, last);
        }
    }

    /// Takes the live state of a page as what may be written in place.
    pub(crate) fn seal_page(&mut self, number: u32) {
        let start = (number as usize).saturating_mul(PAGE_BYTES);
        let live = self.pages.get(start..).and_then(<[u8]>::first_chunk);
        let sealed = self.sealed.get_mut(start..);
        let sealed = sealed.and_then(<[u8]>::first_chunk_mut::<PAGE_BYTES>);
        if let (Some(live), Some(sealed)) = (live, sealed) {
            *sealed = *live;
        }
    }

    /// A page as it may be written in place.
    pub(crate) fn sealed_page(&self, number: u32) -> Option<&[u8; PAGE_BYTES]> {
        let sealed: &Part<u8> = &self.sealed;
        sealed
            .get((number as usize).checked_mul(PAGE_BYTES)?..)?
            .first_chunk()
    }
}
