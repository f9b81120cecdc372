//! Data writes: the whole request in the guest's own op, or parts of it with copies around them.

use crate::buffer::{Head, Op};
use crate::device::{DeviceError, OpFlags, OpKind};
use crate::meta::NONE;
use crate::seeded::{Bug, bug};
use crate::stores::{Role, Stores};
use crate::units::{ChunkIndex, GuestOffset, StoreChunk};

use super::poll::Step;
use super::slots::Slot;
use super::{Disk, Held, Purpose, REQUEST_CHUNKS_MAX, Tag};

impl<S: Stores> Disk<S> {
    /// Sends the data writes that were not sent yet; publishes when all came home.
    #[inline(never)]
    pub(super) fn continue_write(&mut self, index: u16) -> Step {
        let Some(slot) = self.slots.get(index) else {
            return Step::InFlight;
        };
        if slot.cursor < slot.extent_end && slot.error.is_none() && !self.send_writes(index) {
            return Step::Wait;
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

    /// Sends the data writes that were not sent yet: the whole request in the guest's own op, or parts
    /// of it. False if there is no op record for one now.
    fn send_writes(&mut self, index: u16) -> bool {
        let Some(slot) = self.slots.get(index) else {
            return true;
        };
        match self.forward_place(slot) {
            Some(offset) => {
                self.forward_write(index, offset);
                true
            }
            None => self.send_parts(index),
        }
    }

    /// Where a request goes that one device operation can serve, without copies.
    fn forward_place(&self, slot: &Slot) -> Option<u64> {
        let (start, end) = (slot.start(), slot.end());
        let whole = slot.extent_start == start && slot.extent_end == end && slot.cursor == start;
        if !whole || !matches!(slot.held, Held::Whole(_)) || slot.head.len > self.limits.data_bytes
        {
            return None;
        }
        let (offset, run) = self.store_run(start, end, slot.entry)?;
        (run == slot.head.len).then_some(offset)
    }

    /// The whole request in the guest's own op.
    fn forward_write(&mut self, index: u16, offset: u64) {
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        let Held::Whole(mut op) = core::mem::replace(&mut slot.held, Held::Out) else {
            return;
        };
        let tag = Tag::request(Purpose::Forward, Role::Data, index, slot.generation).word();
        slot.print = op.fingerprint();
        slot.outstanding += 1;
        slot.cursor = slot.extent_end;
        op.set_head(Head {
            flags: OpFlags::NONE,
            ..op.head()
        });
        op.retarget(offset, tag);
        self.stats.forwarded += 1;
        self.send(Role::Data, op);
    }

    /// Sends parts until all went out, or one failed. False if there is no op record for one now.
    #[inline(never)] // so that a write that goes out whole gets past it quickly
    fn send_parts(&mut self, index: u16) -> bool {
        let pieces = self.slots.get(index).map_or(0, |slot| {
            // Each turn sends a sector at least.
            slot.extent_end.saturating_sub(slot.extent_start) >> 9
        });
        for _ in 0..=pieces {
            let Some(slot) = self.slots.get(index) else {
                return true;
            };
            if slot.cursor >= slot.extent_end || slot.error.is_some() {
                return true;
            }
            let Ok(sent) = self.send_part(index) else {
                return false;
            };
            let Some(slot) = self.slots.get_mut(index) else {
                return true;
            };
            slot.cursor += sent;
            if sent == 0 {
                slot.fail(DeviceError::Protocol);
            }
        }
        true
    }

    /// Sends one part, from the cursor on, in an op of the engine's. Returns the bytes that it covers;
    /// an error if there is no op record for it now.
    fn send_part(&mut self, index: u16) -> Result<u64, ()> {
        let Some(slot) = self.slots.get(index) else {
            return Ok(0);
        };
        let at = slot.cursor;
        let Some((offset, run)) = self.store_run(at, slot.extent_end, slot.entry) else {
            return Ok(0);
        };
        let run = run.min(self.limits.data_bytes);
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

    /// Where `at` lies in the store and how many bytes follow it without a break, up to `end`. `guess`
    /// is where a pending entry of it probably is.
    pub(super) fn store_run(&self, at: u64, end: u64, guess: u16) -> Option<(u64, u64)> {
        let shape = &self.map.shape;
        let chunk = shape.chunk_of(GuestOffset(at));
        let first = self.map.store_chunk(chunk, guess)?;
        let inside = shape.within_chunk(GuestOffset(at));
        let offset = self.map.data_offset + shape.store_chunk_start(first) + inside;
        let (left, own) = (end.saturating_sub(at), shape.chunk_bytes() - inside);
        if left <= own {
            return Some((offset, left));
        }
        Some((
            offset,
            left.min(own + self.chunks_behind(chunk, first, left - own)),
        ))
    }

    /// Bytes of the whole chunks behind `chunk` that lie behind `first` in the store as well, at least
    /// `wanted` if there are as many.
    #[inline(never)] // so that a write within a chunk gets past it quickly
    fn chunks_behind(&self, chunk: ChunkIndex, first: StoreChunk, wanted: u64) -> u64 {
        let mut bytes = 0;
        for step in 1..REQUEST_CHUNKS_MAX as u32 {
            let next = ChunkIndex(chunk.0.saturating_add(step));
            let next = self.map.store_chunk(next, NONE);
            if bytes >= wanted || next.map(|next| next.0) != first.0.checked_add(step) {
                break;
            }
            bytes += self.map.shape.chunk_bytes();
        }
        bytes
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
