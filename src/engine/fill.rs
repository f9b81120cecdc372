//! Fills: what the base holds around a partial write of a block, and zeros on dirty chunks.

use crate::buffer::Head;
use crate::device::{DeviceError, OpFlags, OpKind};
use crate::format::bitmap;
use crate::seeded::{Bug, bug};
use crate::stores::{Role, Stores};
use crate::units::{BlockIndex, ChunkIndex, GuestOffset};

use super::poll::Step;
use super::{Disk, Purpose, Staging, State, Tag};

impl<S: Stores> Disk<S> {
    /// Whether a block still shows the base.
    pub(super) fn in_base(&self, block: BlockIndex) -> bool {
        block.0 < self.map.bitmap_blocks && !bitmap::read_bit(self.map.bitmap(), block.0)
    }

    /// Where data writes for a request from `start` begin: at `start`, or at the start of its block
    /// if the base's bytes before it must be copied.
    pub(super) fn fill_start(&self, start: u64) -> u64 {
        if self.map.bitmap_blocks == 0 {
            return start;
        }
        let shape = &self.map.shape;
        let block = shape.block_of(GuestOffset(start));
        if start < self.map.cover_bytes && self.in_base(block) {
            shape.block_start(block).0
        } else {
            start
        }
    }

    /// Where data writes for a request up to `end` end.
    pub(super) fn fill_end(&self, end: u64) -> u64 {
        if self.map.bitmap_blocks == 0 {
            return end;
        }
        let shape = &self.map.shape;
        let block = shape.block_of(GuestOffset(end.saturating_sub(1)));
        if self.in_base(block) {
            self.block_end(block).max(end)
        } else {
            end
        }
    }

    /// One past the last byte of a block, within the disk and what the bitmap covers.
    fn block_end(&self, block: BlockIndex) -> u64 {
        let begin = self.map.shape.block_start(block).0;
        begin
            .saturating_add(self.map.shape.block_bytes())
            .min(self.map.shape.virtual_bytes())
            .min(self.map.cover_bytes)
    }

    /// The guest range of copy `which` (0 = before, 1 = after) of a request; empty if it has none.
    ///
    /// A write copies what surrounds its data. A write-zeroes copies whole blocks, to put zeros over
    /// its range in memory.
    pub(super) fn fill_range(&self, index: u16, which: usize) -> (u64, u64) {
        let Some(slot) = self.slots.get(index) else {
            return (0, 0);
        };
        let (start, end) = (slot.start(), slot.end());
        let (from, to) = (slot.extent_start, slot.extent_end);
        if slot.head.kind == OpKind::Write {
            return if which == 0 { (from, start) } else { (end, to) };
        }
        let shape = &self.map.shape;
        let first = shape.block_of(GuestOffset(start));
        let last = shape.block_of(GuestOffset(end.saturating_sub(1)));
        let one_block = first == last;
        if which == 0 && (from < start || (one_block && to > end)) {
            (shape.block_start(first).0, self.block_end(first))
        } else if which == 1 && to > end && !one_block {
            (shape.block_start(last).0, self.block_end(last))
        } else {
            (0, 0)
        }
    }

    /// Reads the copies that a request needs.
    #[inline(never)]
    pub(super) fn continue_fill(&mut self, index: u16) -> Step {
        let ranges = [self.fill_range(index, 0), self.fill_range(index, 1)];
        let needed = ranges.iter().filter(|(from, to)| from < to).count();
        if needed == 0 {
            return self.enter_data_state(index);
        }
        for (which, (from, to)) in ranges.into_iter().enumerate() {
            let Some(slot) = self.slots.get_mut(index) else {
                return Step::InFlight;
            };
            if slot.cursor != which as u64 || slot.error.is_some() {
                continue;
            }
            if from < to {
                // Both blocks of memory at once, or requests could wait for each other.
                if slot.scratch.iter().all(Option::is_none) && self.scratch.len() < needed {
                    return Step::Wait;
                }
                if !self.start_fill(index, which, from, to) {
                    return Step::Wait;
                }
            }
            if let Some(slot) = self.slots.get_mut(index) {
                slot.cursor += 1;
            }
        }
        let Some(slot) = self.slots.get_mut(index) else {
            return Step::InFlight;
        };
        if slot.outstanding != 0 {
            return Step::InFlight;
        }
        if slot.error.is_some() {
            return self.end_write(index);
        }
        self.enter_data_state(index)
    }

    pub(super) fn enter_data_state(&mut self, index: u16) -> Step {
        let Some(slot) = self.slots.get_mut(index) else {
            return Step::InFlight;
        };
        slot.cursor = slot.extent_start;
        slot.state = if slot.head.kind == OpKind::Write {
            State::Writing
        } else {
            State::Zeroing
        };
        Step::Again
    }

    /// Starts one copy. False if there is no memory or op record for it now.
    fn start_fill(&mut self, index: u16, which: usize, from: u64, to: u64) -> bool {
        let Some(slot) = self.slots.get_mut(index) else {
            return false;
        };
        let Some(place) = slot.scratch.get_mut(which) else {
            return false;
        };
        if place.is_none() {
            let Some(op) = self.scratch.pop_front() else {
                return false;
            };
            *place = Some(Staging::Whole(op));
        }
        let Some(memory) = place else { return false };
        let skipped = which == 1 && bug(Bug::PartialBlockZeroFilled);
        let have = if skipped {
            0
        } else {
            self.map.base_bytes.min(to).saturating_sub(from)
        };
        if !memory.fill(0, to - from, 0) {
            slot.fail(DeviceError::Protocol);
            return true;
        }
        if have == 0 {
            return true;
        }
        let tag = Tag::request(
            Purpose::Fill(which as u8),
            Role::Base,
            index,
            slot.generation,
        )
        .word();
        let head = Head::new(OpKind::Read, from, have).with_tag(tag);
        let Some(op) = memory.send(&mut self.parts, head, have) else {
            return false;
        };
        slot.outstanding += 1;
        self.stats.fills += 1;
        self.send(Role::Base, op);
        true
    }

    /// Gives the memory of a request's copies back.
    #[inline(never)]
    pub(super) fn release_scratch(&mut self, index: u16) {
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        for place in &mut slot.scratch {
            match place.take() {
                Some(Staging::Whole(op)) => self.scratch.push_back(op),
                None => {}
                // A layer kept a part: the block of memory is leaked.
                Some(Staging::Lent(_) | Staging::Lost) => self.stats.protocol_errors += 1,
            }
        }
    }

    /// Zeros the dirty chunks that were reserved for a request.
    #[inline(never)]
    pub(super) fn zero_chunks(&mut self, index: u16) -> Step {
        let chunk_bytes = self.map.shape.chunk_bytes();
        // Each turn sends one operation or passes one place of the 64-bit set. What was sent brings the
        // request back here.
        for _ in 0..256 {
            let Some(slot) = self.slots.get_mut(index) else {
                return Step::InFlight;
            };
            let (place, done) = (slot.cursor >> 32, slot.cursor & 0xFFFF_FFFF);
            if place >= 64 || slot.error.is_some() {
                break;
            }
            if slot.to_zero >> place & 1 == 0 || done >= chunk_bytes {
                self.stats.chunks_zeroed += slot.to_zero >> place & 1;
                slot.cursor = (place + 1) << 32;
                continue;
            }
            let first = self.map.first_chunk(slot.extent_start);
            let chunk = ChunkIndex(first.saturating_add(place as u32));
            let Some(target) = self.map.store_chunk(chunk, slot.entry) else {
                slot.fail(DeviceError::Protocol);
                break;
            };
            let offset = self.map.data_offset + self.map.shape.store_chunk_start(target) + done;
            match self.send_zeros(index, offset, chunk_bytes - done, false) {
                Some(sent) => {
                    if let Some(slot) = self.slots.get_mut(index) {
                        slot.cursor += sent;
                    }
                }
                None => return Step::Wait,
            }
        }
        let Some(slot) = self.slots.get_mut(index) else {
            return Step::InFlight;
        };
        if slot.outstanding != 0 {
            return Step::InFlight;
        }
        if slot.error.is_some() {
            return self.end_write(index);
        }
        if bug(Bug::ZeroedCountsAsExempt) {
            self.mark_held_fresh(index);
        }
        let Some(slot) = self.slots.get_mut(index) else {
            return Step::InFlight;
        };
        slot.to_zero = 0;
        slot.state = State::Filling;
        slot.cursor = 0;
        Step::Again
    }

    /// Most bytes that one operation can zero.
    fn zero_step(&self) -> u64 {
        if self.limits.zero_bytes != 0 {
            self.limits.zero_bytes
        } else {
            // Its op record is what tells whether it is at rest; its size never changes.
            u64::from(self.options.zero_memory_bytes).min(self.limits.data_bytes)
        }
    }

    /// Sends one operation that zeroes at most `bytes` from `offset` of the data device. Returns the
    /// bytes that it covers; `None` if there is no op record or zero memory for it now.
    pub(super) fn send_zeros(
        &mut self,
        index: u16,
        offset: u64,
        bytes: u64,
        unmap: bool,
    ) -> Option<u64> {
        let len = bytes.min(self.zero_step());
        let slot = self.slots.get_mut(index)?;
        let generation = slot.generation;
        let head = |kind, flags, purpose| {
            Head::new(kind, offset, len)
                .with_flags(flags)
                .with_tag(Tag::request(purpose, Role::Data, index, generation).word())
        };
        let op = if self.limits.zero_bytes != 0 {
            let flags = if unmap && self.limits.zero_unmaps {
                OpFlags::MAY_UNMAP
            } else {
                OpFlags::NONE
            };
            self.parts
                .take(head(OpKind::WriteZeroes, flags, Purpose::Part))?
        } else {
            // The device takes no write-zeroes: one write at a time from memory that holds zeros.
            if !matches!(self.zero_memory, Staging::Whole(_)) {
                return None;
            }
            let head = head(OpKind::Write, OpFlags::NONE, Purpose::ZeroMemory);
            self.zero_memory.send(&mut self.parts, head, len)?
        };
        slot.outstanding += 1;
        self.stats.parts += 1;
        self.send(Role::Data, op);
        Some(len)
    }
}
