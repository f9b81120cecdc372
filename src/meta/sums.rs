//! Checksums of pages that change while journal units name them.
//!
//! A checksum covers its page *without* what live units say (SPEC.md §8), so that it can be held
//! against the page however much of a checkpoint reached it. A CRC is linear: what one changed word
//! does to it depends on the place of the word alone. So nothing has to be taken back to compare:
//!
//! * Replay puts each record into the page and into its checksum.
//! * A mapping that becomes durable after the cut of a checkpoint, but before its page is staged, is
//!   in the page and not in the checksum. Until then the checksum's place collects such changes.

use crate::format::journal::MapRecord;
use crate::format::page::{checksum_change, read_checksum, write_checksum};
use crate::format::table::{ENTRIES_PER_PAGE, TableEntry};
use crate::units::ChunkIndex;

use super::{Map, Mapping};

/// Which pages a change is noted for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pages {
    All,
    /// Those that the checkpoint under way has still to stage.
    Unstaged,
}

impl Map {
    /// Notes a record that replay has put into its pages.
    pub(crate) fn sum_replayed(&mut self, record: &MapRecord) {
        let unmapped = TableEntry::Unmapped.encode();
        let entry = record.entry.map_or(0, |entry| entry.encode() ^ unmapped);
        let bits = record.bits.unwrap_or(0);
        self.sum_change(record.chunk, entry, bits, Pages::All);
    }

    /// Notes that a mapping became durable beyond the cut of the checkpoint under way, if any.
    pub(super) fn sum_settled(&mut self, chunk: ChunkIndex, from: Mapping, to: Mapping) {
        if self.dirty.old_count != 0 {
            let entry = from.entry.encode() ^ to.entry.encode();
            self.sum_change(chunk, entry, from.bits ^ to.bits, Pages::Unstaged);
        }
    }

    /// Begins a checkpoint: the pages that changed since the last one are its pages, and their
    /// checksums begin to collect.
    pub(crate) fn cut(&mut self) {
        self.dirty.cut();
        let mut next = 0;
        // Each turn goes on behind the page that it found.
        for _ in 0..self.counts.total() {
            let Some(page) = self.dirty.next_old(next) else {
                break;
            };
            let _ = write_checksum(&mut self.sums, page, 0);
            next = page.saturating_add(1);
        }
    }

    /// Takes the checksum of a page as it was staged.
    pub(crate) fn sum_staged(&mut self, page: u32, sum: u32) {
        self.xor_sum(page, sum);
    }

    #[inline(never)]
    fn sum_change(&mut self, chunk: ChunkIndex, entry: u32, bits: u16, pages: Pages) {
        if self.sums.is_empty() {
            return;
        }
        let noted = |map: &Map, page| pages == Pages::All || map.dirty.is_old(page);
        let page = chunk.0 / ENTRIES_PER_PAGE;
        if self.has_table && entry != 0 && noted(self, page) {
            let word = chunk.0 % ENTRIES_PER_PAGE;
            self.xor_sum(page, checksum_change(word, entry));
        }
        let page = self.bitmap_page(chunk);
        if self.group_len(chunk) != 0 && bits != 0 && noted(self, page) {
            // A chunk's bits never straddle 16, so never a word of 32, which is what shifts go round by.
            let first = self.shape.first_block(chunk).0 as u32;
            let change = u32::from(bits).wrapping_shl(first);
            self.xor_sum(page, checksum_change(first / 32 % ENTRIES_PER_PAGE, change));
        }
    }

    fn xor_sum(&mut self, page: u32, change: u32) {
        // Without checksums there is no array to note it in.
        let sum = read_checksum(&self.sums, page).unwrap_or(0);
        let _ = write_checksum(&mut self.sums, page, sum ^ change);
    }
}
