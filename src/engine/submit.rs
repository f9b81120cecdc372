//! Requests in: validation, the fast path, cancel.

use crate::buffer::Op;
use crate::device::{DeviceError, OpFlags, OpKind};
use crate::meta::Source;
use crate::stores::{Role, Stores};

use super::{Disk, Purpose, RequestId, State, Tag, Work};

/// What became of a cancelled request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CancelOutcome {
    /// It had not started and completes as `Cancelled` without effect.
    Cancelled,
    /// It is under way; its real completion will come.
    UnderWay,
}

/// The id names a request that completed already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StaleRequest;

impl core::fmt::Display for StaleRequest {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str("the request completed already")
    }
}

impl core::error::Error for StaleRequest {}

impl<S: Stores> Disk<S> {
    /// Starts a guest request.
    ///
    /// # Errors
    /// The refused op: `Busy` when all slots are taken (poll, then submit again), `Invalid` for a
    /// range outside the disk, a misaligned one, or leases that are no multiples of the logical
    /// block, `ReadOnly`, `Unsupported`, `Poisoned`.
    #[inline]
    pub fn start(&mut self, mut op: Op) -> Result<RequestId, Op> {
        if let Err(error) = self.check_request(&op) {
            op.complete(Err(error));
            return Err(op);
        }
        match self.fast_run(&op) {
            Some((role, offset)) => self.forward(role, offset, op),
            None => self.queue(op),
        }
    }

    /// Sends a request on as it is, in its own op.
    #[inline]
    fn forward(&mut self, role: Role, offset: u64, mut op: Op) -> Result<RequestId, Op> {
        let Some((id, slot)) = self.slots.take(op.head()) else {
            return Err(refused_busy(op));
        };
        slot.state = State::Forwarded;
        slot.print = op.fingerprint();
        let tag = Tag::request(Purpose::Forward, role, id.slot, id.generation);
        op.retarget(offset, tag.word());
        self.stats.requests += 1;
        self.stats.forwarded += 1;
        self.send_now(role, op);
        Ok(id)
    }

    /// Puts a request on the ready list.
    #[inline(never)] // so that the way of a forwarded op stays short
    fn queue(&mut self, op: Op) -> Result<RequestId, Op> {
        let Some((id, slot)) = self.slots.take(op.head()) else {
            return Err(refused_busy(op));
        };
        slot.queue(op, self.next_ticket);
        self.next_ticket += 1;
        self.stats.requests += 1;
        self.ready.push(&mut self.slots, id.slot);
        self.work.insert(Work::READY);
        Ok(id)
    }

    /// Where a request can go as it is, in its own op: one run, no order to keep.
    #[inline]
    fn fast_run(&self, op: &Op) -> Option<(Role, u64)> {
        let (kind, flags) = (op.kind(), op.flags());
        let fit = match kind {
            // Flags mean nothing for a read, and a device may refuse one that it does not know.
            OpKind::Read => flags == OpFlags::NONE,
            // A FUA write may need its mapping made durable, but for a raw-like disk.
            OpKind::Write => {
                let plain = flags == OpFlags::NONE
                    || (flags == OpFlags::FUA && self.is_raw() && self.limits.fua);
                plain && self.nothing_exclusive()
            }
            _ => false,
        };
        if !fit {
            return None;
        }
        let (start, len) = (op.offset(), op.len());
        let end = start.wrapping_add(len);
        match self.map.one_chunk(start, end) {
            Some(Source::Store(at)) => Some((Role::Data, at)),
            Some(_) => None,
            None => match self.map.whole_of_pieces(start, end)? {
                Source::Store(at) => Some((Role::Data, at)),
                Source::Base(at) if kind == OpKind::Read => Some((Role::Base, at)),
                _ => None,
            },
        }
    }

    /// Whether the disk has neither table nor live bitmap: guest bytes lie like on a raw disk.
    pub(super) fn is_raw(&self) -> bool {
        self.map.plain
    }

    #[inline]
    fn check_request(&self, op: &Op) -> Result<(), DeviceError> {
        self.geometry.check(op)?;
        if self.closing {
            return Err(DeviceError::Removed);
        }
        if op.kind() != OpKind::Read {
            self.check_poison()?;
        }
        if op.segment_count() > 1 {
            let mask = self.geometry.logical_block_bytes as usize - 1;
            let ragged = (0..op.segment_count()).any(|index| op.segment_len(index) & mask != 0);
            if ragged {
                return Err(DeviceError::Invalid);
            }
        }
        Ok(())
    }

    /// Asks for a request to be dropped. One that has not started completes as `Cancelled`; for any
    /// other the real completion comes.
    ///
    /// # Errors
    /// [`StaleRequest`] if the request completed already.
    pub fn cancel(&mut self, id: RequestId) -> Result<CancelOutcome, StaleRequest> {
        let slot = self.slots.get_mut(id.slot).ok_or(StaleRequest)?;
        if slot.generation != id.generation || slot.state == State::Free {
            return Err(StaleRequest);
        }
        if slot.state != State::Queued {
            return Ok(CancelOutcome::UnderWay);
        }
        slot.cancelled = true;
        self.work.insert(Work::RETRY);
        Ok(CancelOutcome::Cancelled)
    }
}

#[cold]
fn refused_busy(mut op: Op) -> Op {
    op.complete(Err(DeviceError::Busy));
    op
}
