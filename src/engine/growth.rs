//! More space: extends a growing store.
//!
//! Extend -> flush -> record {size, floor} in a commit -> first write. The record must never name
//! space that a crash could take away again (PROTOCOL row 22).

use core::num::NonZeroU64;

use crate::buffer::{Head, Op};
use crate::device::{DeviceError, OpKind, Status};
use crate::seeded::{Bug, bug};
use crate::stores::{Role, Stores};

use super::{Disk, Tag, Work};

/// What the growth under way waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Idle,
    /// The device, to be extended.
    Extending,
    /// The flush that makes the extension durable.
    Flushing,
}

/// Growing the store.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Growth {
    phase: Phase,
    in_flight: bool,
    /// Size asked for, bytes.
    target: u64,
    /// Requests with a smaller ticket have seen the device say no.
    refused_before: u64,
    wanted_chunks: u32,
    /// Chunks that are left when the next growth begins although nobody waits for it yet.
    early_chunks: u32,
}

impl Growth {
    pub(crate) const IDLE: Growth = Growth {
        phase: Phase::Idle,
        in_flight: false,
        target: 0,
        refused_before: 0,
        wanted_chunks: 0,
        early_chunks: 0,
    };

    pub(crate) fn is_idle(&self) -> bool {
        self.phase == Phase::Idle
    }
}

impl<S: Stores> Disk<S> {
    /// Asks for `chunks` more chunks on behalf of request `ticket`. `Ok` = wait for them.
    pub(super) fn want_space(&mut self, chunks: u32, ticket: u64) -> Result<(), DeviceError> {
        if self.journal.grown_to != 0 || !self.growth.is_idle() {
            return Ok(());
        }
        if ticket < self.growth.refused_before || self.growth_target(chunks).is_none() {
            return Err(DeviceError::NoSpace);
        }
        self.growth.wanted_chunks = self.growth.wanted_chunks.max(chunks);
        Ok(())
    }

    /// Grows while an eighth of what the last one added is left, so that nobody has to wait for the next one. A
    /// device that refused once is asked only for those who do.
    pub(super) fn grow_early(&mut self) {
        let left = self.alloc.chunks().saturating_sub(self.alloc.fresh_next());
        if left < self.growth.early_chunks && self.growth.refused_before == 0 {
            // If there is nothing to be had, whoever needs it will be told.
            let _ = self.want_space(1, self.next_ticket);
        }
    }

    /// Size that the data device should have for `chunks` more chunks; `None` if it can not.
    fn growth_target(&self, chunks: u32) -> Option<u64> {
        let geometry = self.stores.geometry(Role::Data)?;
        let limits = geometry.growth.filter(|limits| limits.zeroed)?;
        let header = &self.journal.header;
        let chunk_bytes = self.map.shape.chunk_bytes().max(1);
        let unit = header
            .core
            .grow_bytes
            .map_or(0, NonZeroU64::get)
            .max(limits.unit_bytes)
            .max(chunk_bytes);
        let most = self.alloc.chunks_max();
        let have = self.alloc.chunks();
        let wanted = u64::from(chunks).checked_mul(chunk_bytes)?.max(unit) / chunk_bytes;
        let total = u64::from(have).saturating_add(wanted).min(u64::from(most));
        if total < u64::from(have).saturating_add(u64::from(chunks)) {
            return None;
        }
        let target = header
            .core
            .data_offset
            .checked_add(total.checked_mul(chunk_bytes)?)?;
        (target <= limits.max_bytes).then_some(target)
    }

    /// Starts a growth if requests wait for one, or if space runs short.
    pub(crate) fn start_due_growth(&mut self) {
        // Asked for in this very run, when no growth was under way.
        let wanted = core::mem::take(&mut self.growth.wanted_chunks);
        if wanted == 0 || self.journal.poisoned {
            return;
        }
        let Some(target) = self.growth_target(wanted) else {
            return;
        };
        self.growth.phase = Phase::Extending;
        self.growth.target = target;
        let chunks = self.journal.header.chunks_in(target);
        let spare = chunks
            .saturating_sub(self.alloc.chunks())
            .saturating_sub(wanted);
        self.growth.early_chunks = spare / 8;
        self.stats.growths += 1;
        self.send_growth(OpKind::Grow, target);
    }

    fn send_growth(&mut self, kind: OpKind, len: u64) {
        let tag = Tag::growth().word();
        let head = Head::new(kind, 0, len).with_tag(tag);
        match self.journal.ops.take(head) {
            Some(op) => {
                self.growth.in_flight = true;
                self.send(Role::Data, op);
            }
            None => self.poison(),
        }
    }

    /// An operation of the growth came home.
    pub(super) fn on_growth_op(&mut self, op: Op) {
        let result = op.status();
        let home = self.journal.ops.put(op).is_ok();
        self.growth.in_flight = false;
        let ignored = self.growth.phase == Phase::Flushing && bug(Bug::FailedGrowthFlushIgnored);
        if (result == Status::Done || ignored) && home {
            self.work.insert(Work::READY);
            return;
        }
        if self.growth.phase == Phase::Flushing || !home {
            return self.poison();
        }
        self.refuse_growth();
    }

    /// The device can not grow now. Whoever waits gets `NoSpace`; a later request asks again.
    fn refuse_growth(&mut self) {
        self.growth.phase = Phase::Idle;
        self.growth.refused_before = self.next_ticket;
        self.work.insert(Work::RETRY);
    }

    /// Moves the growth on while nothing is in flight for it.
    pub(crate) fn advance_growth(&mut self) {
        if self.growth.in_flight || self.journal.poisoned {
            return;
        }
        match self.growth.phase {
            Phase::Idle => {}
            Phase::Extending => {
                // What the device says it did is looked up, not believed.
                let capacity = self
                    .stores
                    .geometry(Role::Data)
                    .map_or(0, |data| data.capacity_bytes);
                if capacity < self.growth.target {
                    return self.refuse_growth();
                }
                self.growth.phase = Phase::Flushing;
                if bug(Bug::GrowthNotFlushed) {
                    return self.advance_growth_recorded();
                }
                self.send_growth(OpKind::Flush, 0);
            }
            Phase::Flushing => self.advance_growth_recorded(),
        }
    }

    /// The new size is durable: the next commit records it.
    fn advance_growth_recorded(&mut self) {
        self.growth.phase = Phase::Idle;
        if self.map.loose {
            // The size of the file is all that these dialects record.
            let header = &mut self.journal.header;
            header.store_bytes = self.growth.target;
            self.alloc.grow(header.chunks_in(self.growth.target));
            self.work.insert(Work::RETRY);
            return;
        }
        self.journal.grown_to = self.growth.target;
        self.journal.commit_wanted = true;
    }
}
