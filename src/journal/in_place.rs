//! Commit in place, for the dialects of 2011: no journal is written.
//!
//! ```text
//! seal -> data flush -> table pages -> flush -> bitmap pages -> flush
//! ```
//!
//! Their mappings only ever come: a bit goes from 0 to 1, an entry from "none" to one chunk for ever.
//! So a page that landed in part holds, entry by entry and bit by bit, an old or a new state, and each
//! of them is true if three things hold: the data were durable before the page was sent, an entry is
//! durable before a bit relies on it, and a chunk is never given to two owners. Their own journals add
//! nothing to that and can prove nothing (docs/decisions).
//!
//! A kind of page that did not change costs neither its write nor its flush.

use crate::buffer::Head;
use crate::device::OpKind;
use crate::engine::{Disk, Tag};
use crate::format::page::PageKind;
use crate::format::{PAGE_BYTES, PAGE_BYTES_U64};
use crate::seeded::{Bug, bug};
use crate::stores::{Role, Stores};
use crate::units::ChunkIndex;

use super::Commit;

/// Memory to put pages together in, bytes.
pub(super) const STAGING_BYTES: u32 = 64 << 10;

/// What a commit in place waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    DataFlush,
    Pages(PageKind),
    PagesFlush(PageKind),
}

/// The state of a commit in place, while the commit's phase says that there is one.
#[derive(Clone, Copy, Debug)]
pub(crate) struct InPlace {
    phase: Phase,
    /// First page that was not sent yet.
    next_page: u32,
    /// Whether a page was sent since the last flush.
    wrote: bool,
}

impl InPlace {
    pub(super) const IDLE: InPlace = InPlace {
        phase: Phase::DataFlush,
        next_page: 0,
        wrote: false,
    };
}

impl<S: Stores> Disk<S> {
    /// Starts a commit of everything that is live.
    pub(super) fn start_in_place(&mut self) {
        for _ in 0..self.map.pending.dirty_count() {
            let map = &mut self.map;
            let Some(chunk) = map.pending.dirty_head_chunk().map(ChunkIndex) else {
                break;
            };
            let live = map.mapping(chunk);
            if map.pending.seal_next(live).is_none() {
                break;
            }
            map.mark_loose(chunk);
        }
        self.seal_dirty_pages();
        let journal = &mut self.journal;
        journal.commits_sealed += 1;
        journal.commit_wanted = false;
        journal.floor_wanted = 0;
        journal.dirty_since = None;
        journal.in_place = InPlace::IDLE;
        journal.commit = Commit::IN_PLACE;
        self.stats.commits += 1;
        self.stats.strict_commits += 1;
        if !bug(Bug::StrictWithoutDataFlush) {
            self.commit_flush(Role::Data);
        }
        self.advance_in_place();
    }

    /// What is live now is what goes out: the data write of every live mapping has completed, so the
    /// flush that follows covers it.
    fn seal_dirty_pages(&mut self) {
        self.map.dirty.cut();
        let mut from = 0;
        for _ in 0..self.map.counts.total() {
            let Some(number) = self.map.dirty.next_old(from) else {
                break;
            };
            self.map.seal_page(number);
            from = number.saturating_add(1);
        }
    }

    /// Moves the commit on while nothing is in flight for it.
    pub(super) fn advance_in_place(&mut self) {
        // Each turn sends an operation, moves to the next phase, or ends.
        for _ in 0..8 {
            if self.journal.commit.is_waiting() || self.journal.poisoned {
                return;
            }
            let state = self.journal.in_place;
            match state.phase {
                Phase::DataFlush => self.enter_in_place(Phase::Pages(first_kind())),
                Phase::Pages(kind) => {
                    if self.send_sealed_pages(kind) {
                        continue;
                    }
                    self.enter_in_place(Phase::PagesFlush(kind));
                    if state.wrote && !bug(Bug::EntryNotFlushedBeforeBit) {
                        self.commit_flush(Role::Metadata);
                    }
                }
                Phase::PagesFlush(kind) if kind == first_kind() => {
                    self.enter_in_place(Phase::Pages(other(kind)));
                }
                Phase::PagesFlush(_) => return self.settle_commit(),
            }
        }
    }

    fn enter_in_place(&mut self, phase: Phase) {
        self.journal.in_place = InPlace {
            phase,
            ..InPlace::IDLE
        };
    }

    /// Sends the next run of adjacent pages of a kind. False if there is none left.
    fn send_sealed_pages(&mut self, kind: PageKind) -> bool {
        let (map, journal) = (&mut self.map, &mut self.journal);
        let start = match kind {
            PageKind::Table => 0,
            PageKind::Bitmap => map.counts.table_pages,
        };
        let is_kind = |number| {
            let found = map.counts.locate(number);
            found.is_some_and(|(found, _)| found == kind)
        };
        let from = journal.in_place.next_page.max(start);
        let first = map.dirty.next_old(from).filter(|first| is_kind(*first));
        let Some(first) = first else { return false };
        let region = match kind {
            PageKind::Table => journal.header.core.table,
            PageKind::Bitmap => journal.header.core.bitmap,
        };
        let mut count: u32 = 0;
        for number in first..first.saturating_add(STAGING_BYTES / PAGE_BYTES as u32) {
            if !is_kind(number) || map.dirty.next_old(number) != Some(number) {
                break;
            }
            let at = u64::from(count) * PAGE_BYTES_U64;
            let page = map.sealed_page(number);
            if !page.is_some_and(|page| journal.commit_memory.copy_in(at, page)) {
                self.poison();
                return true;
            }
            count += 1;
        }
        for number in first..first.saturating_add(count) {
            map.dirty.clear_old(number);
        }
        let len = u64::from(count) * PAGE_BYTES_U64;
        let head = Head::new(
            OpKind::Write,
            region.offset + u64::from(first.saturating_sub(start)) * PAGE_BYTES_U64,
            len,
        )
        .with_tag(Tag::commit(Role::Metadata).word());
        let Some(op) = journal.commit_memory.send(&mut journal.ops, head, len) else {
            self.poison();
            return true;
        };
        journal.in_place.next_page = first.saturating_add(count);
        journal.in_place.wrote = true;
        journal.commit.count_sent();
        self.stats.pages_written += u64::from(count);
        self.stats.metadata_writes += 1;
        self.send(Role::Metadata, op);
        true
    }
}

/// Entries first: a bit must never hide base data before the chunk that replaces it is found.
fn first_kind() -> PageKind {
    if bug(Bug::BitBeforeEntry) {
        PageKind::Bitmap
    } else {
        PageKind::Table
    }
}

const fn other(kind: PageKind) -> PageKind {
    match kind {
        PageKind::Table => PageKind::Bitmap,
        PageKind::Bitmap => PageKind::Table,
    }
}
