//! Checkpoint: writes durable mappings in place and frees journal space behind them.
//!
//! ```text
//! cut at L -> pages of `old` -> checksums (idle array) -> flush -> header {stable_seq = L} -> flush
//! ```
//!
//! * The cut L is the first sequence number that is not known durable. A page is staged with every
//!   change beyond that taken back, so nothing in place is ever ahead of the durable journal.
//! * A page that a live unit names may be half written after a crash: replay writes it again.
//! * Between the two flushes both headers are true: the old one replays from before L, the new one
//!   from L. Only after the second is the space below L free.
//!
//! Recovery and close end with the same steps; they differ in what the header says.

use crate::buffer::{Head, Op};
use crate::device::{OpKind, Status};
use crate::engine::{Disk, Tag, Work};
use crate::format::page::{PageKind, page_checksum};
use crate::format::{Header, PAGE_BYTES, PAGE_BYTES_U64, SLOT_BYTES, SlotIndex};
use crate::seeded::{Bug, bug};
use crate::stores::{Role, Stores};

/// Why a checkpoint runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CheckpointKind {
    /// The journal is half full, or somebody asked.
    Background,
    /// The end of recovery: skips sequence numbers, so that nothing torn can come back.
    Recovery {
        /// First sequence number of the session.
        stable_seq: u64,
        /// Zero floor, raised ahead of need.
        floor: u32,
    },
    /// A clean close: exact floor, clean flag, both slots.
    Close,
}

/// What the checkpoint under way waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CheckpointPhase {
    /// No checkpoint.
    Idle,
    /// A write of pages.
    Pages,
    /// A write of checksums.
    Sums,
    /// The flush that makes them durable.
    PagesFlush,
    /// The header.
    Header,
    /// The flush that makes it durable.
    HeaderFlush,
    /// At close: the header again, in the other slot.
    SecondHeader,
    /// And its flush.
    SecondFlush,
}

/// The checkpoint under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Checkpoint {
    pub(crate) phase: CheckpointPhase,
    pub(crate) kind: CheckpointKind,
    in_flight: bool,
    cut: u64,
    /// First page that was not staged yet.
    next_page: u32,
    /// Bytes of the checksum array that were written.
    sums_done: u64,
    wrote_pages: bool,
    /// What is being written.
    header: Header,
}

impl Checkpoint {
    pub(crate) const fn idle(header: Header) -> Checkpoint {
        Checkpoint {
            phase: CheckpointPhase::Idle,
            kind: CheckpointKind::Background,
            in_flight: false,
            cut: 0,
            next_page: 0,
            sums_done: 0,
            wrote_pages: false,
            header,
        }
    }

    pub(crate) fn is_idle(&self) -> bool {
        self.phase == CheckpointPhase::Idle
    }

    /// Only for seeded bugs: the cut of a checkpoint under way.
    pub(crate) fn cut_in_progress(&self) -> Option<u64> {
        (!self.is_idle()).then_some(self.cut)
    }
}

impl<S: Stores> Disk<S> {
    /// Starts a checkpoint in the background if one is due.
    pub(crate) fn start_due_checkpoint(&mut self) {
        let journal = &self.journal;
        let due = journal.checkpoint_wanted || journal.half_full();
        if due && journal.checkpoint.is_idle() && !journal.poisoned && journal.units != 0 {
            self.start_checkpoint(CheckpointKind::Background);
        }
    }

    /// Starts a checkpoint. None may be under way.
    pub(crate) fn start_checkpoint(&mut self, kind: CheckpointKind) {
        if self.map.loose && kind == CheckpointKind::Close {
            // The last commit left everything in place, and the mark has been there since opening.
            self.work.insert(Work::RETRY);
            return;
        }
        let journal = &mut self.journal;
        journal.checkpoint_wanted = false;
        let cut = match kind {
            CheckpointKind::Background | CheckpointKind::Close => journal.durable_seq,
            CheckpointKind::Recovery { stable_seq, .. } => stable_seq,
        };
        let cut = if bug(Bug::CutOffByOne) && kind == CheckpointKind::Background {
            cut + 1
        } else {
            cut
        };
        self.map.cut();
        journal.checkpoint = Checkpoint {
            phase: CheckpointPhase::Pages,
            kind,
            cut,
            ..Checkpoint::idle(journal.header)
        };
        if bug(Bug::SpaceFreedEarly) {
            journal.stable_seq = cut;
        }
        self.stats.checkpoints += 1;
        self.advance_checkpoint();
    }

    /// Moves the checkpoint on while nothing is in flight for it.
    pub(crate) fn advance_checkpoint(&mut self) {
        // Each turn sends an operation, moves to the next phase, or ends.
        for _ in 0..8 {
            let state = self.journal.checkpoint;
            if state.in_flight || state.is_idle() || self.journal.poisoned {
                return;
            }
            match state.phase {
                CheckpointPhase::Idle => return,
                CheckpointPhase::Pages => {
                    if !self.send_pages() {
                        self.enter(CheckpointPhase::Sums);
                    }
                }
                CheckpointPhase::Sums => {
                    if !self.send_sums() {
                        self.enter(CheckpointPhase::PagesFlush);
                        self.flush_pages();
                    }
                }
                CheckpointPhase::PagesFlush if self.map.loose => return self.end_checkpoint(),
                CheckpointPhase::PagesFlush => {
                    self.enter(CheckpointPhase::Header);
                    self.send_header(false);
                }
                CheckpointPhase::Header => {
                    self.enter(CheckpointPhase::HeaderFlush);
                    self.flush_header();
                }
                CheckpointPhase::HeaderFlush => {
                    self.settle_header();
                    if state.kind != CheckpointKind::Close {
                        return self.end_checkpoint();
                    }
                    self.enter(CheckpointPhase::SecondHeader);
                    self.send_header(true);
                }
                CheckpointPhase::SecondHeader => {
                    self.enter(CheckpointPhase::SecondFlush);
                    self.checkpoint_flush();
                }
                CheckpointPhase::SecondFlush => {
                    self.settle_header();
                    return self.end_checkpoint();
                }
            }
        }
    }

    fn enter(&mut self, phase: CheckpointPhase) {
        self.journal.checkpoint.phase = phase;
    }

    fn end_checkpoint(&mut self) {
        self.enter(CheckpointPhase::Idle);
        self.work.insert(Work::RETRY);
    }

    /// Stages and writes the next run of adjacent pages. False if there is none left.
    fn send_pages(&mut self) -> bool {
        let (map, journal) = (&mut self.map, &mut self.journal);
        if bug(Bug::RecoveryWithoutPages)
            && matches!(journal.checkpoint.kind, CheckpointKind::Recovery { .. })
        {
            return false;
        }
        let Some(first) = map.dirty.next_old(journal.checkpoint.next_page) else {
            return false;
        };
        let Some((kind, page)) = map.counts.locate(first) else {
            return false;
        };
        let most = (journal.page_memory.bytes() / PAGE_BYTES_U64) as u32;
        let live = bug(Bug::StageLivePages);
        let mut count = 0;
        for number in first..first.saturating_add(most) {
            let same_kind = map
                .counts
                .locate(number)
                .is_some_and(|(other, _)| other == kind);
            if !same_kind || map.dirty.next_old(number) != Some(number) {
                break;
            }
            let Some(buffer) = journal.page.first_chunk_mut::<PAGE_BYTES>() else {
                break;
            };
            if !map.stage_page(number, buffer, live) {
                break;
            }
            if !journal
                .page_memory
                .copy_in(u64::from(count) * PAGE_BYTES_U64, buffer)
            {
                break;
            }
            let sum = page_checksum(&journal.header.image_id, number, buffer);
            map.sum_staged(number, sum);
            map.dirty.clear_old(number);
            count += 1;
        }
        let region = match kind {
            PageKind::Table => journal.header.core.table,
            PageKind::Bitmap => journal.header.core.bitmap,
        };
        journal.checkpoint.next_page = first.saturating_add(count);
        journal.checkpoint.wrote_pages = true;
        let offset = region.offset + u64::from(page) * PAGE_BYTES_U64;
        self.stats.pages_written += u64::from(count);
        self.send_staged(offset, u64::from(count) * PAGE_BYTES_U64)
    }

    /// Writes the next part of the checksum array. False if all is written, or nothing changed.
    fn send_sums(&mut self) -> bool {
        let (map, journal) = (&self.map, &mut self.journal);
        let state = &journal.checkpoint;
        let done = state.sums_done;
        if !state.wrote_pages || done >= journal.header.checksum_bytes {
            return false;
        }
        let array = if bug(Bug::ChecksumsInPlace) {
            journal.header.checksum_active
        } else {
            journal.header.checksum_active.other()
        };
        let len = (journal.header.checksum_bytes - done).min(journal.page_memory.bytes());
        let Some(bytes) = map.sums.get(done as usize..(done + len) as usize) else {
            return false;
        };
        if !journal.page_memory.copy_in(0, bytes) {
            return false;
        }
        journal.checkpoint.sums_done = done + len;
        let offset = journal.header.checksum_region(array).offset + done;
        self.send_staged(offset, len)
    }

    /// Sends the first `len` bytes of page memory.
    fn send_staged(&mut self, offset: u64, len: u64) -> bool {
        let tag = Tag::checkpoint().word();
        let head = Head::new(OpKind::Write, offset, len).with_tag(tag);
        let journal = &mut self.journal;
        match journal.page_memory.send(&mut journal.ops, head, len) {
            Some(op) => {
                journal.checkpoint.in_flight = true;
                self.stats.metadata_writes += 1;
                self.send(Role::Metadata, op);
            }
            None => self.poison(),
        }
        true
    }

    fn checkpoint_flush(&mut self) {
        let tag = Tag::checkpoint().word();
        let head = Head::new(OpKind::Flush, 0, 0).with_tag(tag);
        match self.journal.ops.take(head) {
            Some(op) => {
                self.journal.checkpoint.in_flight = true;
                self.send(Role::Metadata, op);
            }
            None => self.poison(),
        }
    }

    /// Pages and checksums become durable before a header relies on them.
    fn flush_pages(&mut self) {
        let recovery = matches!(
            self.journal.checkpoint.kind,
            CheckpointKind::Recovery { .. }
        );
        let skipped = if self.map.loose {
            Bug::OldPagesNotFlushed
        } else if recovery {
            Bug::RecoveryPagesNotFlushed
        } else {
            Bug::CheckpointPagesNotFlushed
        };
        if self.journal.checkpoint.wrote_pages && !bug(skipped) {
            self.checkpoint_flush();
        }
    }

    fn flush_header(&mut self) {
        let recovery = matches!(
            self.journal.checkpoint.kind,
            CheckpointKind::Recovery { .. }
        );
        if !(recovery && bug(Bug::RecoveryHeaderNotFlushed)) {
            self.checkpoint_flush();
        }
    }

    /// Writes the header, newest floor and size included, over the older slot.
    fn send_header(&mut self, second: bool) {
        let floor = self.alloc.durable_floor();
        let exact = self.alloc.fresh_next();
        let has_table = self.map.has_table;
        let journal = &mut self.journal;
        let state = &journal.checkpoint;
        let mut header = journal.header;
        header.generation = header.generation.saturating_add(1);
        if !second {
            header.core.stable_seq = if bug(Bug::CutAtEnd) {
                journal.next_seq.max(state.cut)
            } else {
                state.cut
            };
            if state.wrote_pages && header.checksum_bytes != 0 && !bug(Bug::ChecksumsInPlace) {
                header.checksum_active = header.checksum_active.other();
            }
            header.core.clean_shutdown = state.kind == CheckpointKind::Close;
            if has_table && !bug(Bug::FloorNotInHeader) {
                header.zero_floor_chunk = u64::from(match state.kind {
                    CheckpointKind::Background => floor,
                    CheckpointKind::Recovery { floor, .. } => floor,
                    CheckpointKind::Close => exact,
                });
            }
        }
        let slot = self.next_header_slot();
        let journal = &mut self.journal;
        journal.checkpoint.header = header;
        let Some(buffer) = journal.page.first_chunk_mut::<SLOT_BYTES>() else {
            return self.poison();
        };
        let encoded = header.encode(buffer).is_ok();
        if !encoded || !journal.page_memory.copy_in(0, buffer) {
            return self.poison();
        }
        self.send_staged(slot.offset(), SLOT_BYTES as u64);
    }

    fn next_header_slot(&self) -> SlotIndex {
        if bug(Bug::OneHeaderSlot) {
            SlotIndex::First
        } else if bug(Bug::NewerSlotOverwritten) {
            self.journal.slot
        } else {
            self.journal.slot.other()
        }
    }

    /// The header is durable: what it no longer needs is free.
    fn settle_header(&mut self) {
        let slot = self.next_header_slot();
        if bug(Bug::OneDirtySet) {
            self.map.dirty.clear_current();
        }
        let journal = &mut self.journal;
        // A commit may have recorded a larger size meanwhile; the journal still holds that record.
        let store_bytes = journal
            .header
            .store_bytes
            .max(journal.checkpoint.header.store_bytes);
        journal.header = Header {
            store_bytes,
            ..journal.checkpoint.header
        };
        journal.slot = slot;
        journal.stable_seq = journal.header.core.stable_seq;
        if let CheckpointKind::Recovery { stable_seq, floor } = journal.checkpoint.kind {
            journal.next_seq = stable_seq;
            journal.durable_seq = stable_seq;
            self.alloc.raise_floor(floor);
        }
    }

    /// An operation of the checkpoint came home.
    pub(crate) fn on_checkpoint_op(&mut self, op: Op) {
        let result = op.status();
        let journal = &mut self.journal;
        let home = if op.kind() == OpKind::Write {
            journal.page_memory.receive(&mut journal.ops, op)
        } else {
            journal.ops.put(op).is_ok()
        };
        journal.checkpoint.in_flight = false;
        let ignored = match journal.checkpoint.phase {
            CheckpointPhase::Pages => bug(Bug::FailedPageIgnored),
            CheckpointPhase::Header => bug(Bug::FailedHeaderIgnored),
            _ => false,
        };
        if (result != Status::Done && !ignored) || !home {
            let recovering = matches!(journal.checkpoint.kind, CheckpointKind::Recovery { .. });
            if let (true, Status::Failed(error)) = (recovering, result) {
                self.open_op.fail(error);
            }
            return self.poison();
        }
        self.work.insert(Work::READY);
    }
}
