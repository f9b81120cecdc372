//! Discard and write-zeroes.
//!
//! | block | write-zeroes | discard |
//! | --- | --- | --- |
//! | in the store | zeros on the store | unmapping zeros if the store has them, else nothing |
//! | unmapped, base hidden or absent | nothing: reads zeros already | nothing |
//! | in the base, whole, chunk unmapped | bit set: "unmapped and hidden" reads zeros | likewise |
//! | in the base, whole, chunk mapped or no table | zeros on the store, then bit set | nothing |
//! | in the base, partly | copied to the store with zeros over the range, then bit set | nothing |
//!
//! In the old dialects a mapping never goes, and unmapped blocks can not be hidden by a bit alone: there
//! discard does nothing, and write-zeroes writes wherever the base shows.
//!
//! Both are exclusive over whole blocks. Changes that need no I/O are made at admission, so that no
//! other request can get between the decision and the change. Chunks are not given back yet.

use crate::buffer::Head;
use crate::device::{DeviceError, OpFlags, OpKind};
use crate::format::table::TableEntry;
use crate::meta::{NONE, Source};
use crate::seeded::{Bug, bug};
use crate::stores::{Role, Stores};
use crate::units::{ChunkIndex, GuestOffset};

use super::poll::Step;
use super::write::Needs;
use super::{Disk, Purpose, REQUEST_CHUNKS_MAX, Tag};

impl<S: Stores> Disk<S> {
    #[inline(never)]
    pub(super) fn admit_zero(&mut self, index: u16) -> Step {
        let Some(slot) = self.slots.get(index) else {
            return Step::InFlight;
        };
        let (start, end, kind) = (slot.start(), slot.end(), slot.head.kind);
        let shape = self.map.shape;
        let zeroes = kind == OpKind::WriteZeroes;
        if self.map.loose && !zeroes {
            return self.finish(index, Ok(()));
        }
        // Whole chunks, since a dirty one may have to be zeroed; these requests are rare.
        let (guard_start, guard_end) =
            shape.whole_chunks(self.fill_start(start), self.fill_end(end));
        if self.set_guard(index, guard_start, guard_end, true) && !bug(Bug::ZeroOverlapIgnored) {
            return Step::Wait;
        }
        let needs = match self.zero_needs(start, end, zeroes) {
            Ok(Some(needs)) => needs,
            Ok(None) => {
                self.journal.commit_wanted |= self.map.pending.dirty_count() > 0;
                return Step::Wait;
            }
            Err(error) => return self.finish(index, Err(error)),
        };
        match self.reserve(index, &needs) {
            Ok(true) => {}
            Ok(false) => return Step::Wait,
            Err(error) => return self.finish(index, Err(error)),
        }
        self.hide_base(start, end);
        let Some(slot) = self.slots.get_mut(index) else {
            return Step::InFlight;
        };
        slot.extent_start = needs.extent_start;
        slot.extent_end = needs.extent_end;
        self.enter_first_write_state(index)
    }

    /// What a request needs; `None` if the pending table has no room for its changes now.
    fn zero_needs(&self, start: u64, end: u64, zeroes: bool) -> Result<Option<Needs>, DeviceError> {
        let mut needs = if zeroes {
            Needs::over(self.fill_start(start), self.fill_end(end))
        } else {
            Needs::over(start, end)
        };
        let mut hidden_entries = 0;
        for (place, chunk) in self.chunks_of(needs.extent_start, needs.extent_end) {
            let seen = self.see(chunk);
            seen.check_readable()?;
            let unmapped = seen.unmapped;
            if self.map.loose {
                let extent = (needs.extent_start, needs.extent_end);
                if self.map.shows_base(chunk, extent.0, extent.1) {
                    self.count_change(&mut needs, place, seen, unmapped);
                }
                continue;
            }
            let in_base = self.map.touched_bits(chunk, start, end) & !seen.live.bits;
            if in_base == 0 {
                continue;
            }
            let whole = self.whole_bits(chunk, start, end) & in_base;
            if zeroes && (in_base != whole || !unmapped) {
                self.count_change(&mut needs, place, seen, unmapped && in_base != whole);
            } else if unmapped && seen.entry == NONE {
                hidden_entries += 1;
            }
        }
        let fits = needs.entries + hidden_entries <= self.map.pending.free_count();
        Ok(fits.then_some(needs))
    }

    /// Bits of the blocks of `chunk` that `[start, end)` covers whole, within the base.
    fn whole_bits(&self, chunk: ChunkIndex, start: u64, end: u64) -> u16 {
        let shape = &self.map.shape;
        let from = start.next_multiple_of(shape.block_bytes().max(1));
        let to = if end >= shape.virtual_bytes() {
            end
        } else {
            end - shape.within_block(GuestOffset(end))
        };
        self.map.touched_bits(chunk, from, to)
    }

    /// Hides whole base blocks of unmapped chunks: from now on they read zeros. No I/O, and legal
    /// before completion, since a request in flight may have happened already.
    fn hide_base(&mut self, start: u64, end: u64) {
        if self.map.loose {
            return;
        }
        for (_, chunk) in self.chunks_of(start, end) {
            let old = self.map.mapping(chunk);
            let found = self.map.pending.find(chunk.0);
            let reserved = found
                .and_then(|at| self.map.pending.get(at))
                .is_some_and(|entry| entry.reserved != u32::MAX);
            let bits = self.whole_bits(chunk, start, end) & !old.bits;
            // A chunk that was just reserved for this request gets its bits when it is published.
            if !self.map.has_table || old.entry != TableEntry::Unmapped || bits == 0 || reserved {
                continue;
            }
            let Some(at) = found.or_else(|| self.map.pending.insert(chunk.0, old)) else {
                continue;
            };
            let mut new = old;
            new.bits |= bits;
            self.change(chunk, at, old, new);
        }
    }

    /// Writes copies and zeros that were not sent yet; ends the request when all came home.
    #[inline(never)]
    pub(super) fn continue_zero(&mut self, index: u16) -> Step {
        for which in 0..2 {
            let Some(slot) = self.slots.get(index) else {
                return Step::InFlight;
            };
            if slot.error.is_none() && !self.write_copy(index, which) {
                return Step::Wait;
            }
        }
        let Some(slot) = self.slots.get(index) else {
            return Step::InFlight;
        };
        let (start, end) = (slot.start(), slot.end());
        let turns = (slot.head.len >> 9) + 1;
        for _ in 0..turns {
            let Some(slot) = self.slots.get_mut(index) else {
                return Step::InFlight;
            };
            slot.cursor = slot.cursor.max(start);
            let at = slot.cursor;
            if at >= end || slot.error.is_some() {
                break;
            }
            let Some(sent) = self.zero_next(index, at, end) else {
                return Step::Wait;
            };
            if let Some(slot) = self.slots.get_mut(index) {
                slot.cursor = at + sent.max(1);
            }
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

    /// Writes one block that was read from the base, with zeros over the request's range: whole, or in
    /// as many pieces as it has chunks apart from each other. False if there is no op record for one
    /// now.
    fn write_copy(&mut self, index: u16, which: usize) -> bool {
        let (from, to) = self.fill_range(index, which);
        for _ in 0..REQUEST_CHUNKS_MAX {
            let Some(slot) = self.slots.get_mut(index) else {
                return true;
            };
            let (start, end) = (slot.start(), slot.end());
            // What was sent tells a copy that is out, or home again, from one that still rests.
            let Some(sent) = slot.copies_sent.get(which).copied().map(u64::from) else {
                return true;
            };
            if from.saturating_add(sent) >= to {
                return true;
            }
            if sent == 0 {
                let Some(Some(memory)) = slot.scratch.get_mut(which) else {
                    return true;
                };
                let (zero_from, zero_to) = (start.max(from), end.min(to));
                if !memory.fill(zero_from - from, zero_to.saturating_sub(zero_from), 0) {
                    slot.fail(DeviceError::Protocol);
                    return true;
                }
            }
            match self.send_copy(index, which, from + sent, to) {
                Some(0) => return true,
                Some(run) => {
                    let slot = self.slots.get_mut(index);
                    let sent = slot.and_then(|slot| slot.copies_sent.get_mut(which));
                    if let Some(sent) = sent {
                        // A block is at most 2 GiB.
                        *sent += run as u32;
                    }
                }
                None => return false,
            }
        }
        true
    }

    /// Sends the part of a copy that lies in one run of the store. `None` if there is no op record for
    /// it now.
    fn send_copy(&mut self, index: u16, which: usize, from: u64, to: u64) -> Option<u64> {
        let slot = self.slots.get(index)?;
        let Some((offset, run)) = self.store_run(from, to, slot.entry) else {
            return Some(0);
        };
        let tag = Tag::request(Purpose::Part, Role::Data, index, slot.generation).word();
        let head = Head::new(OpKind::Write, offset, run).with_tag(tag);
        let slot = self.slots.get_mut(index)?;
        let Some(Some(memory)) = slot.scratch.get_mut(which) else {
            return Some(0);
        };
        let mut op = self.parts.take(head)?;
        let pushed = memory
            .cut_from(slot.copies_sent.get(which).copied()?.into(), run)
            .is_some_and(|part| op.push(part).is_ok());
        if !pushed {
            let _ = self.parts.put(op);
            slot.fail(DeviceError::Protocol);
            return Some(0);
        }
        slot.outstanding += 1;
        self.stats.parts += 1;
        self.send(Role::Data, op);
        Some(run)
    }

    /// Zeros the run at `at`, if it needs to be. Returns the bytes passed; `None` = not now.
    fn zero_next(&mut self, index: u16, at: u64, end: u64) -> Option<u64> {
        let slot = self.slots.get(index)?;
        let zeroes = slot.head.kind == OpKind::WriteZeroes;
        let unmap = slot.head.flags.contains(OpFlags::MAY_UNMAP);
        let run = self.map.run(at, end);
        match run.source {
            // Beyond the base's end, but in a block whose bit this request sets.
            Source::Zero if zeroes && self.in_base(self.map.shape.block_of(GuestOffset(at))) => {
                self.zero_base_run(index, at, at + run.bytes, unmap)
            }
            Source::Zero | Source::Unreadable => Some(run.bytes),
            Source::Store(offset) if zeroes => self.send_zeros(index, offset, run.bytes, unmap),
            Source::Store(offset) => self.discard_run(index, offset, run.bytes),
            Source::Base(_) if !zeroes => Some(run.bytes),
            Source::Base(_) => self.zero_base_run(index, at, at + run.bytes, unmap),
        }
    }

    /// Zeros the store behind base blocks whose bits this request sets when it ends. Blocks that are
    /// partly covered were copied whole by [`Disk::write_copy`].
    fn zero_base_run(&mut self, index: u16, at: u64, end: u64, unmap: bool) -> Option<u64> {
        let copied = (0..2)
            .map(|which| self.fill_range(index, which))
            .find(|(from, to)| (*from..*to).contains(&at));
        if let Some((_, to)) = copied {
            return Some(to.min(end) - at);
        }
        let (next_copy, _) = self.fill_range(index, 1);
        let end = if next_copy > at {
            end.min(next_copy)
        } else {
            end
        };
        if bug(Bug::ZeroBitWithoutZeros) {
            return Some(end - at);
        }
        let guess = self.slots.get(index)?.entry;
        match self.store_run(at, end, guess) {
            Some((offset, bytes)) => self.send_zeros(index, offset, bytes, unmap),
            None => Some(end - at),
        }
    }

    /// Unmaps a mapped run where that leaves zeros or what was there; otherwise leaves it alone, which
    /// is legal. Never by the device's own discard: until a flush covers it, it may bring back anything
    /// that the store ever held there, such as data of an earlier owner.
    fn discard_run(&mut self, index: u16, offset: u64, bytes: u64) -> Option<u64> {
        if self.limits.zero_bytes != 0 && self.limits.zero_unmaps {
            self.send_zeros(index, offset, bytes, true)
        } else {
            Some(bytes)
        }
    }
}
