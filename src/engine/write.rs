//! Writes that the fast path can not take: admission, reservation, data.

use crate::alloc::Shortage;
use crate::buffer::{Head, Op};
use crate::device::{DeviceError, OpFlags, OpKind};
use crate::format::table::TableEntry;
use crate::meta::NONE;
use crate::seeded::{Bug, bug};
use crate::stores::{Role, Stores};
use crate::units::{ChunkIndex, GuestOffset};

use super::poll::Step;
use super::{Disk, Held, Purpose, REQUEST_CHUNKS_MAX, State, Tag, places};

/// What a write needs before its data can go out.
#[derive(Clone, Copy, Debug)]
pub(super) struct Needs {
    /// Bit `i`: the mapping of the `i`-th chunk will change.
    pub(super) changes: u64,
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

impl<S: Stores> Disk<S> {
    pub(super) fn admit_write(&mut self, index: u16) -> Step {
        let Some(slot) = self.slots.get(index) else {
            return Step::InFlight;
        };
        let (start, end) = (slot.start(), slot.end());
        let needs = match self.write_needs(start, end) {
            Ok(needs) => needs,
            Err(error) => return self.finish(index, Err(error)),
        };
        let fills = needs.extent_start < start || needs.extent_end > end;
        let (mut guard_start, mut guard_end) = (needs.extent_start, needs.extent_end);
        if needs.zeroing {
            let shape = &self.map.shape;
            guard_start = shape
                .chunk_start(shape.chunk_of(GuestOffset(guard_start)))
                .0;
            let last = shape.chunk_of(GuestOffset(guard_end.saturating_sub(1)));
            guard_end = shape.chunk_end(last).0;
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
        slot.state = if slot.to_zero != 0 {
            State::ZeroingChunks
        } else {
            State::Filling
        };
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

    fn write_needs(&self, start: u64, end: u64) -> Result<Needs, DeviceError> {
        let mut needs = Needs {
            changes: 0,
            entries: 0,
            chunks: 0,
            zeroing: false,
            extent_start: self.fill_start(start),
            extent_end: self.fill_end(end),
        };
        let mut covered = true;
        let (start, end) = (needs.extent_start, needs.extent_end);
        for (place, chunk) in self.chunks_of(start, end) {
            let mapping = self.map.mapping(chunk);
            if matches!(mapping.entry, TableEntry::Unreadable | TableEntry::Split(_)) {
                return Err(DeviceError::Unreadable);
            }
            let unmapped = self.map.has_table && mapping.entry == TableEntry::Unmapped;
            let sets = self.map.shows_base(chunk, start, end);
            if unmapped || sets {
                self.count_change(&mut needs, place, chunk, unmapped);
                covered &= !unmapped || self.validity_covers(chunk);
            }
        }
        needs.zeroing = needs.chunks > self.alloc.fresh_available() && !covered;
        Ok(needs)
    }

    /// Adds the change of one chunk's mapping to what a request needs.
    pub(super) fn count_change(
        &self,
        needs: &mut Needs,
        place: u32,
        chunk: ChunkIndex,
        unmapped: bool,
    ) {
        needs.changes |= 1 << (place & 63);
        let found = self
            .map
            .pending
            .find(chunk.0)
            .and_then(|index| self.map.pending.get(index));
        needs.entries += usize::from(found.is_none());
        needs.chunks += u32::from(unmapped && found.is_none_or(|entry| entry.reserved == u32::MAX));
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
        let mut to_zero = 0u64;
        for place in places(needs.changes) {
            let chunk = ChunkIndex(first.saturating_add(place));
            if self.hold(chunk) {
                to_zero |= 1 << place;
            }
        }
        if needs.chunks != 0 {
            self.journal.commit_wanted |= self.floor_runs_low();
            self.grow_early();
        }
        if let Some(slot) = self.slots.get_mut(index) {
            slot.holds = needs.changes;
            slot.to_zero = if bug(Bug::DirtyChunkNotZeroed) {
                0
            } else {
                to_zero
            };
        }
        Ok(true)
    }

    /// Holds the pending entry of a chunk, with a store chunk if it needs one. Returns whether that
    /// store chunk must be zeroed first.
    fn hold(&mut self, chunk: ChunkIndex) -> bool {
        let live = self.map.mapping(chunk);
        let unmapped = self.map.has_table && live.entry == TableEntry::Unmapped;
        let found = self.map.pending.find(chunk.0);
        // Without an entry the live value is durable (invariant 2 of the map).
        let index = found
            .or_else(|| self.map.pending.insert(chunk.0, live))
            .unwrap_or(NONE);
        let Some(entry) = self.map.pending.get_mut(index) else {
            return false;
        };
        entry.holders += 1;
        if !unmapped || entry.reserved != u32::MAX {
            return false;
        }
        let Some(reserved) = self.alloc.reserve() else {
            return false;
        };
        entry.reserved = reserved.chunk.0;
        entry.fresh = reserved.fresh;
        self.stats.chunks_reserved += 1;
        !reserved.fresh && !self.validity_covers(chunk)
    }

    /// Sends the data writes that were not sent yet; publishes when all came home.
    pub(super) fn continue_write(&mut self, index: u16) -> Step {
        let Some(slot) = self.slots.get(index) else {
            return Step::InFlight;
        };
        let pieces = (slot.extent_end.saturating_sub(slot.extent_start)) >> 9;
        for _ in 0..=pieces {
            let Some(slot) = self.slots.get(index) else {
                return Step::InFlight;
            };
            if slot.cursor >= slot.extent_end || slot.error.is_some() {
                break;
            }
            match self.send_write(index) {
                Ok(0) => {
                    if let Some(slot) = self.slots.get_mut(index) {
                        slot.fail(DeviceError::Protocol);
                    }
                }
                Ok(sent) => {
                    if let Some(slot) = self.slots.get_mut(index) {
                        slot.cursor += sent;
                    }
                }
                Err(()) => return Step::Wait,
            }
        }
        let Some(slot) = self.slots.get(index) else {
            return Step::InFlight;
        };
        if bug(Bug::PublishBeforeData) && slot.error.is_none() {
            self.publish(index);
        }
        let Some(slot) = self.slots.get(index) else {
            return Step::InFlight;
        };
        if slot.outstanding != 0 {
            Step::InFlight
        } else {
            self.end_write(index)
        }
    }

    /// Where `at` lies in the store and how many bytes follow it without a break, up to `end`.
    pub(super) fn store_run(&self, at: u64, end: u64) -> Option<(u64, u64)> {
        let shape = &self.map.shape;
        let chunk = shape.chunk_of(GuestOffset(at));
        let first = self.map.store_chunk(chunk)?;
        let inside = shape.within_chunk(GuestOffset(at));
        let offset = self.map.data_offset + shape.store_chunk_start(first) + inside;
        let mut bytes = shape.chunk_bytes() - inside;
        for step in 1..REQUEST_CHUNKS_MAX as u32 {
            if at + bytes >= end {
                break;
            }
            let next = self
                .map
                .store_chunk(ChunkIndex(chunk.0.saturating_add(step)));
            if next.map(|next| next.0) != first.0.checked_add(step) {
                break;
            }
            bytes += shape.chunk_bytes();
        }
        Some((offset, bytes.min(end.saturating_sub(at))))
    }

    /// Sends one data write from the cursor on. Returns the bytes that it covers; an error if there
    /// is no op record for it now.
    fn send_write(&mut self, index: u16) -> Result<u64, ()> {
        let Some(slot) = self.slots.get(index) else {
            return Ok(0);
        };
        let (at, end) = (slot.cursor, slot.extent_end);
        let Some((offset, run)) = self.store_run(at, end) else {
            return Ok(0);
        };
        let whole = slot.extent_start == slot.start() && end == slot.end() && at == slot.start();
        let run = run.min(self.limits.data_bytes);
        if whole && run == end - at && matches!(slot.held, Held::Whole(_)) {
            return Ok(self.forward_write(index, offset, run));
        }
        let tag = Tag::request(Purpose::Part, Role::Data, index, slot.generation).word();
        let head = Head::new(OpKind::Write, offset, 0).with_tag(tag);
        let Some(mut op) = self.parts.take(head) else {
            return Err(());
        };
        let len = self.collect(index, &mut op, at, run);
        if len == 0 {
            let _ = self.parts.put(op);
            return Ok(0);
        }
        op.set_head(Head { len, ..head });
        if let Some(slot) = self.slots.get_mut(index) {
            slot.outstanding += 1;
        }
        self.stats.parts += 1;
        self.send(Role::Data, op);
        Ok(len)
    }

    /// The whole request in the guest's own op.
    fn forward_write(&mut self, index: u16, offset: u64, run: u64) -> u64 {
        let Some(slot) = self.slots.get_mut(index) else {
            return 0;
        };
        let Held::Whole(mut op) = core::mem::replace(&mut slot.held, Held::Out) else {
            return 0;
        };
        let tag = Tag::request(Purpose::Forward, Role::Data, index, slot.generation).word();
        slot.print = op.fingerprint();
        slot.outstanding += 1;
        op.set_head(Head {
            flags: OpFlags::NONE,
            ..op.head()
        });
        op.retarget(offset, tag);
        self.stats.forwarded += 1;
        self.send(Role::Data, op);
        run
    }

    /// Puts the leases for `[at, at + run)` into an op: copied head, guest data, copied tail. Returns
    /// the bytes collected, fewer where the op takes no more leases.
    fn collect(&mut self, index: u16, op: &mut Op, at: u64, run: u64) -> u64 {
        let Some(slot) = self.slots.get_mut(index) else {
            return 0;
        };
        let (start, end, extent_start) = (slot.start(), slot.end(), slot.extent_start);
        slot.held = match core::mem::replace(&mut slot.held, Held::Out) {
            Held::Whole(op) => Held::Lent(op.lend()),
            Held::Lent(lent) => Held::Lent(lent),
            Held::Out => return 0,
        };
        let stop = at + run;
        let mut pos = at;
        for _ in 0..self.limits.data_segments {
            if pos >= stop {
                break;
            }
            let [before, after] = &mut slot.scratch;
            let segment = u64::from(self.limits.segment_bytes);
            let part = if pos < start {
                before
                    .as_mut()
                    .and_then(|memory| memory.cut_from(pos - extent_start, start.min(stop) - pos))
            } else if pos < end {
                match &mut slot.held {
                    Held::Lent(lent) => lent.cut((end.min(stop) - pos).min(segment) as usize),
                    Held::Whole(_) | Held::Out => None,
                }
            } else {
                after
                    .as_mut()
                    .and_then(|memory| memory.cut_from(pos - end, stop - pos))
            };
            let Some(part) = part else { break };
            pos += part.len() as u64;
            if op.push(part).is_err() {
                break;
            }
        }
        pos - at
    }
}
