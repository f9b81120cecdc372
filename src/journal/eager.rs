//! Eager commit: the journal unit of a first write goes out together with its data.
//!
//! ```text
//! ordinary   data ──► acknowledged      flush: unit ──► flush ──► acknowledged
//! eager      data ──► acknowledged      flush: flush ──► acknowledged
//!            unit ──────────────────────────┘
//! ```
//!
//! Both cost two writes and one flush; eager saves the round trip of the unit for a guest that flushes
//! after each write. It is legal for an exempt mapping only (law 1), and tried only while each of the
//! last flushes covered one such mapping: a guest that writes more between flushes is better served
//! by one unit for all.
//!
//! Rules (docs/DESIGN.md §5):
//! * At most one eager unit is not known durable, and none is in flight beside a commit. So the next
//!   commit's last flush covers it, and the unit itself never needs the flag "earlier units unsure".
//! * The write is acknowledged when its data landed; a flush waits for the unit, which mostly lands while
//!   the guest still makes up its mind. If the unit fails, the flush does, as all that follows.
//! * From the moment the unit is sent its mapping may be found by recovery. If the data write fails,
//!   the mapping stands and the chunk is not given back.

use crate::buffer::{Head, Op};
use crate::device::{OpKind, Status};
use crate::engine::{Disk, Tag, Work};
use crate::format::journal::UnitFlags;
use crate::format::table::TableEntry;
use crate::meta::Mapping;
use crate::seeded::{Bug, bug};
use crate::stores::{Role, Stores};
use crate::units::{ChunkIndex, StoreChunk};

use super::Journal;
use super::commit::keeps_zeros;

/// The eager unit that is not known durable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Eager {
    /// Its entry in the table of pending mappings.
    entry: u16,
    /// Whether its own write has not come home yet.
    pub(crate) in_flight: bool,
}

impl Journal {
    /// Whether the write of an eager unit has not come home yet.
    pub(crate) fn is_eager_in_flight(&self) -> bool {
        self.eager.is_some_and(|eager| eager.in_flight)
    }
}

impl<S: Stores> Disk<S> {
    /// Sends the unit of a first write that was just admitted, if that is legal and worth it.
    #[inline]
    pub(crate) fn try_eager(&mut self, index: u16) {
        if self.journal.single_mappings >= self.options.eager_after_flushes {
            self.send_eager(index);
        }
    }

    #[inline(never)] // so that a guest that flushes seldom gets past it quickly
    fn send_eager(&mut self, index: u16) {
        let Some((eager, target)) = self.eager_target(index) else {
            return;
        };
        let Some(entry) = self.map.pending.get_mut(eager.entry) else {
            return;
        };
        entry.seal(target);
        let (chunk, told) = (ChunkIndex(entry.chunk), entry.told);
        let record = self.map.record(chunk, told, target);
        let offset = self.journal.unit_offset(self.journal.next_seq);
        let put = self.journal.put_unit(0, |writer| UnitFlags {
            last: writer.push_map(&record),
            earlier_unsure: false,
            index: 0,
        });
        let (journal, slot) = (&mut self.journal, self.slots.get_mut(index));
        let (true, Some(slot)) = (put, slot) else {
            return self.poison();
        };
        let unit_bytes = u64::from(journal.unit_bytes);
        let head = Head::new(OpKind::Write, offset, unit_bytes).with_tag(Tag::eager().word());
        let sent = journal
            .commit_memory
            .send(&mut journal.ops, head, unit_bytes);
        let Some(op) = sent else {
            return self.poison();
        };
        slot.unit_sent = true;
        journal.eager = Some(eager);
        self.stats.eager_units += 1;
        self.stats.journal_units += 1;
        self.stats.journal_writes += 1;
        self.send(Role::Metadata, op);
    }

    /// What the unit of a request would say: one exempt mapping, and nothing else that waits for a
    /// commit.
    fn eager_target(&self, index: u16) -> Option<(Eager, Mapping)> {
        let journal = &self.journal;
        if !journal.commit.is_idle() || self.has_unsaved() || journal.room() == 0 {
            return None;
        }
        let slot = self.slots.get(index)?;
        if slot.holds.count_ones() != 1 {
            return None;
        }
        let first = self.map.first_chunk(slot.extent_start);
        let chunk = ChunkIndex(first.checked_add(slot.holds.trailing_zeros())?);
        let at = self.map.pending.find_near(slot.entry, chunk.0)?;
        let entry = self.map.pending.get(at)?;
        if entry.reserved == u32::MAX || entry.holders != 1 {
            return None;
        }
        let touched = self
            .map
            .touched_bits(chunk, slot.extent_start, slot.extent_end);
        let target = Mapping {
            entry: TableEntry::Chunk(StoreChunk(entry.reserved)),
            bits: entry.durable.bits | touched,
        };
        let exempt = keeps_zeros(entry, &target) || bug(Bug::EagerNotExempt);
        let eager = Eager {
            entry: at,
            in_flight: true,
        };
        exempt.then_some((eager, target))
    }

    /// An eager unit came home.
    pub(crate) fn on_eager_op(&mut self, op: Op) {
        let status = op.status();
        let journal = &mut self.journal;
        let Some(eager) = journal.eager.as_mut().filter(|eager| eager.in_flight) else {
            return self.stray(op);
        };
        eager.in_flight = false;
        let home = journal.commit_memory.receive(&mut journal.ops, op);
        if status != Status::Done || !home {
            return self.poison();
        }
        if bug(Bug::EagerDurableOnCompletion) {
            self.journal.durable_seq = self.journal.next_seq;
            self.settle_eager();
        }
        // A commit may wait for it.
        self.work.insert(Work::READY);
    }

    /// A flush that was sent after the eager unit landed is done: its mapping is durable.
    pub(super) fn settle_eager(&mut self) {
        let Some(eager) = self.journal.eager.take() else {
            return;
        };
        // If the mapping changed once more, this very commit has settled the newer value already, and
        // nothing else was sealed since.
        let entry = self.map.pending.get(eager.entry);
        if entry.is_some_and(|entry| entry.sealed) {
            self.map.settle(eager.entry);
        }
    }
}
