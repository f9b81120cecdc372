//! Writes that the fast path can not take: admission and reservation.

use crate::alloc::Shortage;
use crate::device::DeviceError;
use crate::format::table::TableEntry;
use crate::meta::{Mapping, NONE};
use crate::seeded::{Bug, bug};
use crate::stores::Stores;
use crate::units::{ChunkIndex, GuestOffset};

use super::poll::Step;
use super::{Disk, REQUEST_CHUNKS_MAX, State, places};

/// What admission sees of one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) chunk: ChunkIndex,
    pub(super) live: Mapping,
    /// Whether it has no place in the store although the disk has a table.
    pub(super) unmapped: bool,
    /// Its entry in the pending table, or [`NONE`].
    pub(super) entry: u16,
}

impl Seen {
    /// What is known to be lost takes no writes.
    pub(super) fn check_readable(&self) -> Result<(), DeviceError> {
        match self.live.entry {
            TableEntry::Unreadable | TableEntry::Split(_) => Err(DeviceError::Unreadable),
            TableEntry::Unmapped | TableEntry::Chunk(_) => Ok(()),
        }
    }
}

/// What a write needs before its data can go out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Needs {
    /// Bit `i`: the mapping of the `i`-th chunk will change.
    pub(super) changes: u64,
    /// The last of these chunks, mostly the only one: it is not looked up again.
    pub(super) last: Option<Seen>,
    /// Entries of the pending table that are not there yet.
    pub(super) entries: usize,
    /// Store chunks to reserve.
    pub(super) chunks: u32,
    /// Whether a dirty chunk among them must be zeroed first.
    pub(super) zeroing: bool,
    /// What the data writes cover.
    pub(super) extent_start: u64,
    pub(super) extent_end: u64,
}

impl Needs {
    /// Nothing yet, for data writes over a range.
    pub(super) fn over(extent_start: u64, extent_end: u64) -> Needs {
        Needs {
            changes: 0,
            last: None,
            entries: 0,
            chunks: 0,
            zeroing: false,
            extent_start,
            extent_end,
        }
    }
}

impl<S: Stores> Disk<S> {
    #[inline(never)]
    pub(super) fn admit_write(&mut self, index: u16) -> Step {
        let Some(slot) = self.slots.get(index) else {
            return Step::InFlight;
        };
        let (start, end) = (slot.start(), slot.end());
        let mut needs = Needs::over(self.fill_start(start), self.fill_end(end));
        if let Err(error) = self.count_writes(&mut needs) {
            return self.finish(index, Err(error));
        }
        let fills = needs.extent_start < start || needs.extent_end > end;
        let (mut guard_start, mut guard_end) = (needs.extent_start, needs.extent_end);
        if needs.zeroing {
            (guard_start, guard_end) = self.map.shape.whole_chunks(guard_start, guard_end);
        }
        let exclusive = fills || needs.zeroing;
        if self.set_guard(index, guard_start, guard_end, exclusive) {
            return Step::Wait;
        }
        match self.reserve(index, &needs) {
            Ok(true) => {}
            Ok(false) => return Step::Wait,
            Err(error) => return self.finish(index, Err(error)),
        }
        let Some(slot) = self.slots.get_mut(index) else {
            return Step::InFlight;
        };
        slot.extent_start = needs.extent_start;
        slot.extent_end = needs.extent_end;
        self.try_eager(index);
        self.enter_first_write_state(index)
    }

    /// After admission: zero dirty chunks, then fill partial blocks, if there are any.
    pub(super) fn enter_first_write_state(&mut self, index: u16) -> Step {
        let Some(slot) = self.slots.get_mut(index) else {
            return Step::InFlight;
        };
        slot.cursor = 0;
        if slot.to_zero != 0 {
            slot.state = State::ZeroingChunks;
        } else if slot.extent_start < slot.start() || slot.extent_end > slot.end() {
            slot.state = State::Filling;
        } else {
            return self.enter_data_state(index);
        }
        Step::Again
    }

    /// Notes the guard of a request. Returns whether it must wait for another one.
    pub(super) fn set_guard(&mut self, index: u16, start: u64, end: u64, exclusive: bool) -> bool {
        if let Some(slot) = self.slots.get_mut(index) {
            slot.guard_start = start;
            slot.guard_end = end;
        }
        self.set_exclusive(index, exclusive);
        self.conflicts(index, start, end, exclusive)
    }

    /// Chunks that `[start, end)` touches, with their place in the request.
    pub(super) fn chunks_of(
        &self,
        start: u64,
        end: u64,
    ) -> impl Iterator<Item = (u32, ChunkIndex)> + use<S> {
        let first = self.map.shape.chunk_of(GuestOffset(start)).0;
        let last = self
            .map
            .shape
            .chunk_of(GuestOffset(end.saturating_sub(1)))
            .0;
        let count = last
            .saturating_sub(first)
            .saturating_add(1)
            .min(REQUEST_CHUNKS_MAX as u32);
        (0..count).map(move |place| (place, ChunkIndex(first.saturating_add(place))))
    }

    /// Counts what a write needs.
    fn count_writes(&self, needs: &mut Needs) -> Result<(), DeviceError> {
        let (start, end) = (needs.extent_start, needs.extent_end);
        for (place, chunk) in self.chunks_of(start, end) {
            self.count_write(needs, place, chunk)?;
        }
        needs.zeroing = needs.chunks > self.alloc.fresh_available() && self.shows_store(start, end);
        Ok(())
    }

    #[inline(never)] // so that the loop around it keeps few values
    fn count_write(
        &self,
        needs: &mut Needs,
        place: u32,
        chunk: ChunkIndex,
    ) -> Result<(), DeviceError> {
        let seen = self.see(chunk);
        seen.check_readable()?;
        let (start, end) = (needs.extent_start, needs.extent_end);
        if seen.unmapped || self.map.shows_base(chunk, start, end) {
            self.count_change(needs, place, seen, seen.unmapped);
        }
        Ok(())
    }

    /// Whether a chunk of `[start, end)` would show what its place in the store held before.
    #[inline(never)]
    fn shows_store(&self, start: u64, end: u64) -> bool {
        self.chunks_of(start, end)
            .map(|(_, chunk)| self.see(chunk))
            .any(|seen| seen.unmapped && !self.validity_covers(seen.chunk))
    }

    /// Looks at a chunk that a request writes to.
    #[inline]
    pub(super) fn see(&self, chunk: ChunkIndex) -> Seen {
        let live = self.map.mapping(chunk);
        Seen {
            chunk,
            live,
            unmapped: self.map.has_table && live.entry == TableEntry::Unmapped,
            entry: self.map.pending.find(chunk.0).unwrap_or(NONE),
        }
    }

    /// Adds the change of one chunk's mapping to what a request needs. `placed`: it needs a place in
    /// the store.
    pub(super) fn count_change(&self, needs: &mut Needs, place: u32, seen: Seen, placed: bool) {
        needs.changes |= 1 << (place & 63);
        needs.last = Some(seen);
        let found = self.map.pending.get(seen.entry);
        needs.entries += usize::from(found.is_none());
        needs.chunks += u32::from(placed && found.is_none_or(|entry| entry.reserved == u32::MAX));
    }

    /// Whether every block of an unmapped chunk is still in the base, so that no byte of a new store
    /// chunk shows before it is written.
    pub(super) fn validity_covers(&self, chunk: ChunkIndex) -> bool {
        if self.map.loose {
            return self.map.is_all_base(chunk);
        }
        let covered = self.map.group_len(chunk);
        if covered == 0 {
            return false;
        }
        let shape = &self.map.shape;
        let first = shape.first_block(chunk).0;
        let disk_blocks = shape
            .blocks_covering(shape.virtual_bytes())
            .saturating_sub(first);
        let own = u64::from(shape.blocks_per_chunk()).min(disk_blocks);
        u64::from(covered) >= own && self.map.bits(chunk) == 0
    }

    /// Takes pending entries and store chunks for a request: all or nothing. `Ok(false)` = not now.
    pub(super) fn reserve(&mut self, index: u16, needs: &Needs) -> Result<bool, DeviceError> {
        if needs.entries > self.map.pending.free_count() {
            self.journal.commit_wanted |= self.map.pending.dirty_count() > 0;
            return Ok(false);
        }
        if needs.chunks != 0 {
            match self.alloc.can_reserve(needs.chunks) {
                Ok(()) => {}
                Err(Shortage::Floor) => {
                    self.journal.floor_wanted = self.journal.floor_wanted.max(needs.chunks);
                    self.journal.commit_wanted = true;
                    return Ok(false);
                }
                Err(Shortage::Space) => {
                    let ticket = self.slots.get(index).map_or(0, |slot| slot.ticket);
                    return self.want_space(needs.chunks, ticket).map(|()| false);
                }
            }
        }
        let first = self.map.first_chunk(needs.extent_start);
        let (mut to_zero, mut entry) = (0u64, NONE);
        for place in places(needs.changes) {
            let chunk = ChunkIndex(first.saturating_add(place));
            let seen = match needs.last {
                Some(last) if last.chunk == chunk => last,
                _ => self.see(chunk),
            };
            debug_assert_eq!(seen, self.see(chunk), "nothing ran in between");
            let (held, zeroes) = self.hold(&seen);
            entry = held;
            to_zero |= u64::from(zeroes) << place;
        }
        if needs.chunks != 0 {
            self.journal.commit_wanted |= self.floor_runs_low();
            self.grow_early();
        }
        if let Some(slot) = self.slots.get_mut(index) {
            slot.holds = needs.changes;
            slot.entry = entry;
            slot.to_zero = if bug(Bug::DirtyChunkNotZeroed) {
                0
            } else {
                to_zero
            };
        }
        Ok(true)
    }

    /// Holds the pending entry of a chunk, with a store chunk if it needs one. Returns the entry, and
    /// whether that store chunk must be zeroed first.
    #[inline(never)]
    fn hold(&mut self, seen: &Seen) -> (u16, bool) {
        let mut index = seen.entry;
        if index == NONE {
            // Without an entry the live value is durable (invariant 2 of the map).
            let inserted = self.map.pending.insert(seen.chunk.0, seen.live);
            index = inserted.unwrap_or(NONE);
        }
        let Some(entry) = self.map.pending.get_mut(index) else {
            return (index, false);
        };
        entry.holders += 1;
        if !seen.unmapped || entry.reserved != u32::MAX {
            return (index, false);
        }
        let Some(reserved) = self.alloc.reserve() else {
            return (index, false);
        };
        entry.reserved = reserved.chunk.0;
        entry.fresh = reserved.fresh;
        self.stats.chunks_reserved += 1;
        let zeroes = !reserved.fresh && !self.validity_covers(seen.chunk);
        (index, zeroes)
    }
}
