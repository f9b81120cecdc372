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
use crate::device::{DeviceError, OpFlags, OpKind, Status};
use crate::engine::{Disk, Tag, Work};
use crate::format::journal::{
    MapRecord, StoreRecord, UnitFlags, UnitWriter, commit_units_max, slot_of, units_for,
};
use crate::format::table::TableEntry;
use crate::meta::{NONE, Pending};
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
}

/// The commit under way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Commit {
    pub(crate) phase: CommitPhase,
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

    /// Sequence number of its first unit, while a commit is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.phase == CommitPhase::Idle
    }
}

/// Whether a sealed mapping may become durable before its data.
fn is_exempt(pending: &Pending) -> bool {
    let was_zero = pending.durable.entry == TableEntry::Unmapped;
    let hides_nothing = pending.durable.bits == pending.in_commit.bits || bug(Bug::HidingBitExempt);
    was_zero && hides_nothing && (pending.fresh || bug(Bug::AllFreeIsZero))
}

impl<S: Stores> Disk<S> {
    /// Starts a commit if one is due and there is room for it.
    pub(crate) fn start_commit(&mut self, now: Instant) {
        if !self.journal.commit.is_idle() || self.journal.poisoned || !self.commit_is_due(now) {
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
        let journal = &mut self.journal;
        journal.commits_sealed += 1;
        journal.commit_wanted = false;
        journal.floor_wanted = false;
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
        if !self.write_units(store) {
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
            || (pending.dirty_count() > 0 && timer)
    }

    /// When pending mappings are committed at the latest.
    pub(crate) fn commit_deadline(&self) -> Option<Instant> {
        self.journal
            .dirty_since
            .map(|since| since.after_micros(self.options.commit_delay_micros))
    }

    /// The record of size and floor, if the next commit should carry one.
    fn store_record_due(&self) -> Option<StoreRecord> {
        if self.journal.units == 0 || !self.map.has_table {
            return None;
        }
        let bytes = self.journal.grown_to.max(self.journal.header.store_bytes);
        let chunks = self.journal.header.chunks_in(bytes);
        let target = self.floor_target(chunks);
        let due = self.journal.grown_to != 0
            || (target > self.alloc.durable_floor()
                && (self.journal.floor_wanted
                    || self.alloc.fresh_available() < self.floor_step() / 2));
        due.then(|| Journal::store_record(target.max(self.alloc.durable_floor()), bytes))
    }

    /// Chunks by which the zero floor is raised.
    pub(crate) fn floor_step(&self) -> u32 {
        self.options.floor_step_chunks.max(1)
    }

    /// Where the floor should be, in a store of `chunks` chunks.
    pub(crate) fn floor_target(&self, chunks: u32) -> u32 {
        self.alloc
            .fresh_next()
            .saturating_add(self.floor_step())
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
            strict |= map.pending.get(index).is_none_or(|entry| !is_exempt(entry));
        }
        strict
    }

    /// Puts the sealed mappings into units, in commit memory.
    fn write_units(&mut self, store: Option<StoreRecord>) -> bool {
        let (map, journal) = (&self.map, &mut self.journal);
        let unit_bytes = journal.unit_bytes as usize;
        let (has_table, image_id) = (map.has_table, journal.header.image_id);
        let stable = match journal.checkpoint.cut_in_progress() {
            Some(cut) if bug(Bug::StableSeqEarly) => cut,
            _ => journal.stable_seq,
        };
        let mut next = map.pending.sealed_head();
        let mut store = store;
        let most = commit_units_max(journal.units, journal.unit_bytes);
        for unit in 0..most {
            if next == NONE && store.is_none() {
                return true;
            }
            let Some(bytes) = journal.page.get_mut(..unit_bytes) else {
                return false;
            };
            let Some(mut writer) = UnitWriter::new(bytes) else {
                return false;
            };
            if let Some(record) = store
                && writer.push_store(&record)
            {
                store = None;
            }
            for _ in 0..unit_bytes {
                let Some(entry) = map.pending.get(next) else {
                    break;
                };
                let chunk = ChunkIndex(entry.chunk);
                let record = MapRecord {
                    chunk,
                    entry: has_table.then_some(entry.in_commit.entry),
                    bits: (map.group_len(chunk) != 0).then_some(entry.in_commit.bits),
                };
                if !writer.push_map(&record) {
                    break;
                }
                next = map.pending.sealed_next(next);
            }
            let last = next == NONE && store.is_none();
            let flags = UnitFlags {
                last,
                earlier_unsure: false,
                index: unit as u16,
            };
            writer.seal(journal.next_seq, stable, flags, &image_id);
            let Some(bytes) = journal.page.get(..unit_bytes) else {
                return false;
            };
            if !journal
                .commit_memory
                .copy_in(u64::from(unit) * unit_bytes as u64, bytes)
            {
                return false;
            }
            journal.next_seq += 1;
            self.stats.journal_units += 1;
        }
        next == NONE && store.is_none()
    }

    fn commit_flush(&mut self, role: Role) {
        let head = Head {
            kind: OpKind::Flush,
            flags: OpFlags::NONE,
            status: Status::Pending,
            offset: 0,
            len: 0,
            tag: Tag::commit(role).word(),
        };
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
                CommitPhase::DataFlush => {
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
        if !empty {
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
            let slot = slot_of(commit.first_seq + u64::from(commit.sent), journal.units);
            let run = u64::from(left).min(journal.units - slot);
            let unit_bytes = u64::from(journal.unit_bytes);
            let head = Head {
                kind: OpKind::Write,
                flags: OpFlags::NONE,
                status: Status::Pending,
                offset: journal.header.core.journal.offset + slot * unit_bytes,
                len: run * unit_bytes,
                tag: Tag::commit(Role::Metadata).word(),
            };
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
    fn settle_commit(&mut self) {
        let commit = core::mem::replace(&mut self.journal.commit, Commit::IDLE);
        self.journal.durable_seq = self
            .journal
            .durable_seq
            .max(commit.first_seq + u64::from(commit.units));
        for _ in 0..self.map.pending.capacity() {
            let Some((index, chunk)) = self.map.pending.settle_next() else {
                break;
            };
            self.map.mark_dirty(ChunkIndex(chunk));
            self.map.pending.remove_if_idle(index);
        }
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
