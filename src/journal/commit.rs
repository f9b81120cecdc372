//! Group commit.
//!
//! ```text
//! strict   seal -> data flush -> units -> flush             a crash between the last two finds the
//! exempt   seal ---------------> units -> flush             mapping with or without its data
//! empty    seal -------------------------> flush
//! ```
//!
//! A commit is *strict* unless every mapping in it is *exempt*: a mapping from "unmapped, and zeros
//! were read there" to a chunk that reads zeros itself. For those, losing the data after the mapping
//! landed shows the old zeros, which is what the guest saw before. With metadata and data on two
//! devices, a strict commit's data flush is the data device's only one, and an exempt commit flushes
//! both devices at its end, in parallel.

use crate::buffer::Head;
use crate::device::{DeviceError, OpKind, Status};
use crate::engine::{Disk, Tag, Work};
use crate::format::journal::{StoreRecord, UnitFlags, commit_units_max, slot_of, units_for};
use crate::format::table::TableEntry;
use crate::meta::{Mapping, NONE, Pending};
use crate::seeded::{Bug, bug};
use crate::stores::{Role, Stores};
use crate::units::{ChunkIndex, Instant};

use super::Journal;

/// What the commit under way waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum CommitPhase {
    /// No commit.
    Idle,
    /// The data flush of a strict commit.
    DataFlush,
    /// Its journal units.
    Units,
    /// Its last flush, on one or both devices.
    LastFlush,
    /// What `in_place.rs` keeps track of.
    InPlace,
}

/// The commit under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Commit {
    pub(super) phase: CommitPhase,
    /// Device operations in flight for the phase.
    outstanding: u8,
    strict: bool,
    first_seq: u64,
    units: u32,
    /// Units handed to the device.
    sent: u32,
    store: Option<StoreRecord>,
}

impl Commit {
    pub(crate) const IDLE: Commit = Commit {
        phase: CommitPhase::Idle,
        outstanding: 0,
        strict: false,
        first_seq: 0,
        units: 0,
        sent: 0,
        store: None,
    };

    /// A commit that `in_place.rs` carries out.
    pub(super) const IN_PLACE: Commit = Commit {
        phase: CommitPhase::InPlace,
        ..Commit::IDLE
    };

    /// Whether there is no commit.
    pub(crate) fn is_idle(&self) -> bool {
        self.phase == CommitPhase::Idle
    }

    /// Whether a device operation is in flight for it.
    pub(super) fn is_waiting(&self) -> bool {
        self.outstanding != 0
    }

    /// Counts a device operation that was sent for it.
    pub(super) fn count_sent(&mut self) {
        self.outstanding += 1;
    }
}

/// Whether a mapping is exempt: it may become durable as `next` before its data (law 1).
pub(super) fn keeps_zeros(pending: &Pending, next: &Mapping) -> bool {
    let was_zero = pending.durable.entry == TableEntry::Unmapped;
    let hides_nothing = pending.durable.bits == next.bits || bug(Bug::HidingBitExempt);
    was_zero && hides_nothing && (pending.fresh || bug(Bug::AllFreeIsZero))
}

impl<S: Stores> Disk<S> {
    /// Starts a commit if one is due and there is room for it.
    pub(crate) fn start_commit(&mut self, now: Instant) {
        if !self.journal.commit.is_idle() || self.journal.poisoned || !self.commit_is_due(now) {
            return;
        }
        if self.map.loose {
            return self.start_in_place();
        }
        // What its last flush makes durable must not depend on when an eager unit lands.
        if self.journal.is_eager_in_flight() && !bug(Bug::FlushBesideEager) {
            return;
        }
        let store = self.store_record_due();
        let dirty = self.map.pending.dirty_count();
        let most = self.journal.commit_records_max();
        let records = dirty.min(most) as u32 + if store.is_some() { 2 } else { 0 };
        let unit_bytes = self.journal.unit_bytes;
        let units =
            units_for(records, unit_bytes).min(commit_units_max(self.journal.units, unit_bytes));
        if u64::from(units) > self.journal.room() && !bug(Bug::NoRoomCheck) {
            self.journal.checkpoint_wanted = true;
            return;
        }
        let strict = self.seal(most);
        self.count_mappings(dirty.min(most), strict);
        let journal = &mut self.journal;
        journal.commits_sealed += 1;
        journal.commit_wanted = false;
        journal.floor_wanted = 0;
        journal.commit = Commit {
            phase: CommitPhase::DataFlush,
            outstanding: 0,
            strict,
            first_seq: journal.next_seq,
            units: 0,
            sent: 0,
            store,
        };
        self.stats.commits += 1;
        if self.map.pending.dirty_count() == 0 {
            self.journal.dirty_since = None;
        }
        // On one device the data flush of a strict commit covers an eager unit as well.
        let earlier_unsure = self.journal.eager.is_some() && !(strict && S::SHARED);
        if !self.write_units(store, earlier_unsure && !bug(Bug::EagerGapUnflagged)) {
            return self.poison();
        }
        self.journal.commit.units = (self.journal.next_seq - self.journal.commit.first_seq) as u32;
        if strict && !bug(Bug::StrictWithoutDataFlush) {
            self.stats.strict_commits += 1;
            self.commit_flush(Role::Data);
        }
        self.advance_commit();
    }

    fn commit_is_due(&self, now: Instant) -> bool {
        let pending = &self.map.pending;
        let timer = self.commit_deadline().is_some_and(|at| now >= at);
        self.journal.commit_wanted
            || pending.dirty_count() * 2 >= pending.capacity().max(1)
            || (self.has_unsaved() && timer)
    }

    /// Whether first writes will soon have to wait for a commit that raises the floor.
    pub(crate) fn floor_runs_low(&self) -> bool {
        self.alloc.fresh_available() < self.floor_step() / 4 && self.store_record_due().is_some()
    }

    /// Whether a completed write has a mapping that the next flush must make durable.
    pub(crate) fn has_unsaved(&self) -> bool {
        self.map.pending.dirty_count() != 0 || self.journal.eager.is_some()
    }

    /// Learns how many mappings a commit carries, its eager one included.
    fn count_mappings(&mut self, sealed: usize, strict: bool) {
        let journal = &mut self.journal;
        let in_a_row = match sealed + usize::from(journal.eager.is_some()) {
            0 => journal.single_mappings,
            1 if !strict => journal.single_mappings.saturating_add(1),
            _ => 0,
        };
        journal.single_mappings = in_a_row.min(u8::MAX - 1);
    }

    /// When pending mappings are committed at the latest.
    pub(crate) fn commit_deadline(&self) -> Option<Instant> {
        self.journal
            .dirty_since
            .map(|since| since.after_micros(self.options.commit_delay_micros))
    }

    /// The record of size and floor, if the next commit should carry one.
    #[inline(never)]
    fn store_record_due(&self) -> Option<StoreRecord> {
        if !self.map.has_table {
            return None;
        }
        let bytes = self.journal.grown_to.max(self.journal.header.store_bytes);
        let chunks = self.journal.header.chunks_in(bytes);
        let target = self.floor_target(chunks);
        let due = self.journal.grown_to != 0
            || (target > self.alloc.durable_floor()
                && (self.journal.floor_wanted != 0
                    || self.alloc.fresh_available() < self.floor_step() / 2));
        due.then(|| Journal::store_record(target.max(self.alloc.durable_floor()), bytes))
    }

    /// Chunks by which the zero floor is raised.
    pub(crate) fn floor_step(&self) -> u32 {
        self.options.floor_step_chunks.max(1)
    }

    /// Where the floor should be, in a store of `chunks` chunks: a step ahead, or as far as one
    /// request needs.
    pub(crate) fn floor_target(&self, chunks: u32) -> u32 {
        self.alloc
            .fresh_next()
            .saturating_add(self.floor_step().max(self.journal.floor_wanted))
            .min(chunks)
    }

    /// Seals up to `most` mappings. Returns whether the commit must be strict.
    fn seal(&mut self, most: usize) -> bool {
        let (pending, strict) = (
            self.map.pending.dirty_count().min(most),
            self.journal.grown_to != 0,
        );
        let mut strict = strict && !bug(Bug::GrowthNotFlushed);
        for _ in 0..pending {
            let map = &mut self.map;
            // The live value is read before the table of pending mappings is borrowed.
            let Some(chunk) = map.pending.dirty_head_chunk() else {
                break;
            };
            let live = map.mapping(ChunkIndex(chunk));
            let Some(index) = map.pending.seal_next(live) else {
                break;
            };
            let entry = map.pending.get(index);
            strict |= entry.is_none_or(|entry| !keeps_zeros(entry, &live));
        }
        strict
    }

    /// Puts the sealed mappings into units, in commit memory.
    fn write_units(&mut self, store: Option<StoreRecord>, earlier_unsure: bool) -> bool {
        let (map, journal) = (&self.map, &mut self.journal);
        let mut next = map.pending.sealed_head();
        let mut store = store;
        let most = commit_units_max(journal.units, journal.unit_bytes);
        let records_max = journal.unit_bytes;
        let split = bug(Bug::SplitAndLastIgnored) || bug(Bug::SplitAndNoBurning);
        for unit in 0..most {
            if next == NONE && store.is_none() {
                return true;
            }
            let put = journal.put_unit(unit, |writer| {
                if let Some(record) = store
                    && writer.push_store(&record)
                {
                    store = None;
                }
                for _ in 0..records_max {
                    let Some(entry) = map.pending.get(next) else {
                        break;
                    };
                    let chunk = ChunkIndex(entry.chunk);
                    let mut record = map.record(chunk, entry.told, entry.in_commit);
                    if split && unit == 0 {
                        record.bits = None;
                    } else if split {
                        record.entry = None;
                    }
                    if !record.is_empty() && !writer.push_map(&record) {
                        break;
                    }
                    next = map.pending.sealed_next(next);
                }
                if split && unit == 0 {
                    next = map.pending.sealed_head();
                }
                UnitFlags {
                    last: next == NONE && store.is_none(),
                    earlier_unsure,
                    index: if bug(Bug::SplitAndLastIgnored) {
                        0
                    } else {
                        unit as u16
                    },
                }
            });
            if !put {
                return false;
            }
            self.stats.journal_units += 1;
        }
        next == NONE && store.is_none()
    }

    pub(super) fn commit_flush(&mut self, role: Role) {
        let head = Head::new(OpKind::Flush, 0, 0).with_tag(Tag::commit(role).word());
        match self.journal.ops.take(head) {
            Some(op) => {
                self.journal.commit.outstanding += 1;
                self.send(role, op);
            }
            None => self.poison(),
        }
    }

    /// Moves the commit on while nothing is in flight for it.
    pub(crate) fn advance_commit(&mut self) {
        // At most one turn per phase.
        for _ in 0..3 {
            let commit = self.journal.commit;
            if commit.outstanding != 0 || self.journal.poisoned {
                return;
            }
            match commit.phase {
                CommitPhase::Idle => return,
                CommitPhase::InPlace => return self.advance_in_place(),
                CommitPhase::DataFlush => {
                    if bug(Bug::SealedAfterDataFlush) && commit.strict {
                        self.seal(self.journal.commit_records_max());
                        self.journal.next_seq = commit.first_seq;
                        self.write_units(commit.store, false);
                        let units = self.journal.next_seq - commit.first_seq;
                        self.journal.commit.units = units as u32;
                    }
                    self.journal.commit.phase = CommitPhase::Units;
                    self.send_units();
                }
                CommitPhase::Units => {
                    self.journal.commit.phase = CommitPhase::LastFlush;
                    if bug(Bug::FlushBeforeLastFlush) {
                        self.journal.commits_durable = self.journal.commits_sealed;
                        self.work.insert(Work::RETRY);
                    }
                    self.last_flushes(commit.units == 0, commit.strict);
                }
                CommitPhase::LastFlush => return self.settle_commit(),
            }
        }
    }

    fn last_flushes(&mut self, empty: bool, strict: bool) {
        if S::SHARED {
            return self.commit_flush(Role::Metadata);
        }
        // An empty commit has nothing on the metadata device, unless an eager unit went there.
        let eager = self.journal.eager.is_some() && !bug(Bug::EagerFlushesDataOnly);
        if !empty || eager {
            self.commit_flush(Role::Metadata);
        }
        let data = if empty {
            true
        } else {
            !strict && !bug(Bug::ExemptFlushesMetadataOnly)
        };
        if data {
            self.commit_flush(Role::Data);
        }
    }

    /// Sends the units: one sequential write, or two where they wrap around the journal's end.
    fn send_units(&mut self) {
        for _ in 0..2 {
            let commit = self.journal.commit;
            let left = commit.units.saturating_sub(commit.sent);
            if left == 0 {
                return;
            }
            let journal = &mut self.journal;
            let first = commit.first_seq + u64::from(commit.sent);
            let slot = slot_of(first, journal.units);
            let run = u64::from(left).min(journal.units - slot);
            let unit_bytes = u64::from(journal.unit_bytes);
            let head = Head::new(OpKind::Write, journal.unit_offset(first), run * unit_bytes)
                .with_tag(Tag::commit(Role::Metadata).word());
            let Some(op) = journal
                .commit_memory
                .send(&mut journal.ops, head, run * unit_bytes)
            else {
                return self.poison();
            };
            journal.commit.sent += run as u32;
            journal.commit.outstanding += 1;
            self.stats.journal_writes += 1;
            self.send(Role::Metadata, op);
        }
    }

    /// An operation of the commit came home.
    pub(crate) fn on_commit_op(&mut self, op: crate::buffer::Op) {
        let result = op.status();
        let journal = &mut self.journal;
        let home = if op.kind() == OpKind::Write {
            // Two writes share the memory where a commit wraps; the second makes it whole.
            let whole = journal.commit_memory.receive(&mut journal.ops, op);
            whole || journal.commit.outstanding > 1
        } else {
            journal.ops.put(op).is_ok()
        };
        journal.commit.outstanding = journal.commit.outstanding.saturating_sub(1);
        if result != Status::Done || !home {
            if bug(Bug::NoPoison) {
                journal.commit.phase = CommitPhase::Idle;
                journal.commits_durable = journal.commits_sealed;
                return;
            }
            return self.poison();
        }
        self.work.insert(Work::READY);
    }

    /// The commit is durable.
    pub(super) fn settle_commit(&mut self) {
        let commit = core::mem::replace(&mut self.journal.commit, Commit::IDLE);
        self.journal.durable_seq = self
            .journal
            .durable_seq
            .max(commit.first_seq + u64::from(commit.units));
        for _ in 0..self.map.pending.capacity() {
            let Some(index) = self.map.pending.take_sealed() else {
                break;
            };
            self.map.settle(index);
        }
        self.settle_eager();
        if let Some(store) = commit.store {
            self.alloc.raise_floor(store.zero_floor_chunk);
            let chunks = self.journal.header.chunks_in(store.store_bytes);
            self.alloc.grow(chunks);
            self.journal.header.store_bytes =
                self.journal.header.store_bytes.max(store.store_bytes);
            if self.journal.grown_to <= store.store_bytes {
                self.journal.grown_to = 0;
            }
        }
        self.journal.commits_durable = self.journal.commits_sealed;
        self.work.insert(Work::RETRY);
    }

    /// Law 5: nothing is acknowledged from now on. Reads go on.
    pub(crate) fn poison(&mut self) {
        self.journal.poisoned = true;
        self.work.insert(Work::RETRY);
    }

    /// What a write or flush is answered once the disk is poisoned.
    pub(crate) fn check_poison(&self) -> Result<(), DeviceError> {
        if self.journal.poisoned {
            Err(DeviceError::Poisoned)
        } else {
            Ok(())
        }
    }
}
