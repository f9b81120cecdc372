//! The end of a write: its mapping becomes live, or what it held is given back.

use crate::device::OpFlags;
use crate::format::table::TableEntry;
use crate::meta::{Mapping, NONE, Pending};
use crate::seeded::{Bug, bug};
use crate::stores::Stores;
use crate::units::{ChunkIndex, StoreChunk};

use super::poll::Step;
use super::{Disk, State, places};

impl<S: Stores> Disk<S> {
    /// Ends a write or write-zeroes whose device operations all came home.
    pub(super) fn end_write(&mut self, index: u16) -> Step {
        let Some(slot) = self.slots.get(index) else {
            return Step::InFlight;
        };
        if slot.scratch.iter().any(Option::is_some) {
            self.release_scratch(index);
        }
        let Some(slot) = self.slots.get(index) else {
            return Step::InFlight;
        };
        let (error, head) = (slot.error, slot.head);
        let stands = slot.unit_sent && !bug(Bug::EagerFailureGivesBack);
        self.set_exclusive(index, false);
        if let Some(error) = error {
            if stands {
                // Recovery may find the mapping, so the chunk is taken whatever became of the data.
                self.publish(index);
            } else {
                self.give_back(index);
            }
            return self.finish(index, Err(error));
        }
        self.publish(index);
        if head.flags.contains(OpFlags::FUA) && !bug(Bug::FuaWithoutMapping) {
            return self.make_durable(index);
        }
        self.finish(index, Ok(()))
    }

    /// A FUA write ends when its data and its mapping are durable, whoever mapped it.
    #[inline(never)]
    fn make_durable(&mut self, index: u16) -> Step {
        if let Err(error) = self.check_poison() {
            return self.finish(index, Err(error));
        }
        let Some(slot) = self.slots.get(index) else {
            return Step::InFlight;
        };
        let (start, end) = (slot.extent_start, slot.extent_end);
        let unsaved = self.chunks_of(start, end).any(|(_, chunk)| {
            let entry = self
                .map
                .pending
                .find(chunk.0)
                .and_then(|at| self.map.pending.get(at));
            entry.is_some_and(|entry| {
                entry.dirty || (entry.sealed && !bug(Bug::EagerNotCoveredByFua))
            })
        });
        let number = self.journal.commits_sealed + 1;
        let Some(slot) = self.slots.get_mut(index) else {
            return Step::InFlight;
        };
        slot.cursor = 0;
        if unsaved {
            slot.state = State::Commit(number);
            self.journal.commit_wanted = true;
        } else {
            slot.state = State::DeviceFlush;
        }
        self.work.insert(crate::engine::Work::RETRY);
        Step::Again
    }

    /// Chunks whose pending entry a request holds, as a set that counts from the first one, and where
    /// one of the entries is. Empty from the second call on.
    fn take_holds(&mut self, index: u16) -> (u64, u32, u16) {
        let Some(slot) = self.slots.get_mut(index) else {
            return (0, 0, NONE);
        };
        let holds = core::mem::replace(&mut slot.holds, 0);
        let first = self.map.first_chunk(slot.extent_start);
        (holds, first, slot.entry)
    }

    /// Makes the mappings that a request wrote under live. Only now may a guest see the new place:
    /// earlier, a read could find it before the data (PROTOCOL row 13).
    pub(super) fn publish(&mut self, index: u16) {
        let Some(slot) = self.slots.get(index) else {
            return;
        };
        let (from, to) = (slot.extent_start, slot.extent_end);
        let (holds, first, guess) = self.take_holds(index);
        for place in places(holds) {
            let chunk = ChunkIndex(first.saturating_add(place));
            if let Some(at) = self.map.pending.find_near(guess, chunk.0) {
                self.publish_chunk(chunk, at, from, to);
            }
        }
    }

    #[inline(never)]
    fn publish_chunk(&mut self, chunk: ChunkIndex, at: u16, from: u64, to: u64) {
        let old = self.map.mapping(chunk);
        let Some(entry) = self.map.pending.get_mut(at) else {
            return;
        };
        entry.holders = entry.holders.saturating_sub(1);
        let mut new = old;
        // Who comes first maps the chunk for all who hold it.
        if entry.reserved != u32::MAX {
            new.entry = TableEntry::Chunk(StoreChunk(entry.reserved));
            entry.reserved = u32::MAX;
        }
        new.bits |= self.map.touched_bits(chunk, from, to);
        if self.map.hide(chunk, from, to) {
            self.map.pending.mark_dirty(at);
        }
        self.change(chunk, at, old, new);
    }

    /// Changes a live mapping that has a pending entry.
    pub(super) fn change(&mut self, chunk: ChunkIndex, at: u16, old: Mapping, new: Mapping) {
        if new != old {
            self.map.set_mapping(chunk, new);
            let recorded = self.map.pending.get(at).map(Pending::recorded);
            if recorded != Some(new) {
                self.map.pending.mark_dirty(at);
            }
        }
        self.map.pending.remove_if_idle(at);
    }

    /// Gives back what a failed request held. A store chunk goes back, dirty, only when no other
    /// request writes to it and none made it live (PROTOCOL rows 20 and 21).
    #[inline(never)]
    fn give_back(&mut self, index: u16) {
        let (holds, first, guess) = self.take_holds(index);
        for place in places(holds) {
            let chunk = first.saturating_add(place);
            let Some(at) = self.map.pending.find_near(guess, chunk) else {
                continue;
            };
            let Some(entry) = self.map.pending.get_mut(at) else {
                continue;
            };
            entry.holders = entry.holders.saturating_sub(1);
            if !bug(Bug::FailedChunkStaysFresh) {
                entry.fresh = false;
            }
            let alone = entry.holders == 0 || bug(Bug::SharedChunkGivenBack);
            if alone && entry.reserved != u32::MAX {
                let reserved = core::mem::replace(&mut entry.reserved, u32::MAX);
                if !bug(Bug::FailedReservationLeaked) {
                    self.alloc.give_back(StoreChunk(reserved));
                }
            }
            self.map.pending.remove_if_idle(at);
        }
    }

    /// Only for seeded bugs: what was zeroed but not flushed counts as fresh.
    pub(super) fn mark_held_fresh(&mut self, index: u16) {
        let Some(slot) = self.slots.get(index) else {
            return;
        };
        let (holds, first) = (slot.holds, self.map.first_chunk(slot.extent_start));
        for place in places(holds) {
            if let Some(at) = self.map.pending.find(first.saturating_add(place))
                && let Some(entry) = self.map.pending.get_mut(at)
            {
                entry.fresh = true;
            }
        }
    }
}
