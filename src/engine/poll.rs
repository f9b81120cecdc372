//! Completions in, phases, operations out.

use core::task::Waker;

use crate::buffer::{Head, LentOp, Op, SEGMENTS_MAX};
use crate::device::{BlockDevice, DeviceError, Geometry, OpKind, Status, When};
use crate::seeded::{Bug, bug};
use crate::stores::{Role, Stores};
use crate::units::Instant;

use super::{Disk, Held, Purpose, RequestId, State, Tag, Work};

/// Completions taken from the devices in one poll.
const REAP_MAX: usize = 256;

/// Polls that may return a completion straight away before the phases run again.
const STRAIGHT_POLLS_MAX: u8 = 32;

/// How a request's next step ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// It is in another state; look again.
    Again,
    /// Device operations are in flight for it, or it ended.
    InFlight,
    /// Something else must happen first.
    Wait,
}

impl<S: Stores> BlockDevice for Disk<S> {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn submit(&mut self, op: Op) -> Result<(), Op> {
        self.start(op).map(|_| ())
    }

    fn notify(&mut self) {
        if self.work.take(Work::NOTIFY) {
            self.stores.notify();
        }
    }

    #[inline]
    fn poll(&mut self, now: Instant) -> Option<Op> {
        if let Some(op) = self.done.pop_front() {
            return Some(op);
        }
        self.notify();
        if self.polls < STRAIGHT_POLLS_MAX {
            for _ in 0..REAP_MAX {
                let Some(op) = self.stores.poll(now) else {
                    break;
                };
                if let Some(op) = self.on_completion(op) {
                    self.polls += 1;
                    return Some(op);
                }
            }
        }
        self.polls = 0;
        self.run(now);
        self.done.pop_front()
    }

    fn poll_at(&self) -> When {
        if !self.done.is_empty() || !self.work.is_none() || !self.refused.is_empty() {
            return When::Now;
        }
        let timer = match self.commit_deadline() {
            Some(at) if !self.journal.poisoned => When::At(at),
            _ => When::Event,
        };
        self.stores.poll_at().min(timer)
    }

    fn set_waker(&mut self, waker: &Waker) -> bool {
        self.stores.set_waker(waker)
    }
}

impl<S: Stores> Disk<S> {
    /// Runs every phase once; completions wait for [`Disk::reap`]. Bounded by the number of slots.
    pub fn run(&mut self, now: Instant) {
        // Phase 1: device completions.
        for _ in 0..REAP_MAX {
            let Some(op) = self.refused.pop_front().or_else(|| self.stores.poll(now)) else {
                break;
            };
            if let Some(op) = self.on_completion(op) {
                self.done.push_back(op);
            }
        }
        self.unpark();
        // Phase 2: the journal, so that requests waiting for it can go on.
        if !self.journal.commit.is_idle() {
            self.advance_commit();
        }
        if !self.journal.checkpoint.is_idle() {
            self.advance_checkpoint();
        }
        self.advance_growth();
        // Phase 3: requests.
        if self.work.take(Work::RETRY) {
            self.retry_waiting();
        }
        self.work.take(Work::READY);
        for _ in 0..self.slots.capacity() {
            let Some(index) = self.ready.pop(&mut self.slots) else {
                break;
            };
            self.advance(index);
        }
        if !self.ready.is_empty() {
            self.work.insert(Work::READY);
        }
        // Phase 4: commit, checkpoint, growth.
        if self.has_unsaved() && self.journal.dirty_since.is_none() {
            self.journal.dirty_since = Some(now);
        }
        if !self.options.read_only {
            self.start_commit(now);
            self.start_due_checkpoint();
            self.start_due_growth();
        }
        // Phase 5: out.
        self.unpark();
        self.notify();
    }

    /// The next finished request, in any order.
    pub fn reap(&mut self) -> Option<Op> {
        self.done.pop_front()
    }

    fn retry_waiting(&mut self) {
        for _ in 0..self.slots.capacity() {
            let Some(index) = self.waiting.pop(&mut self.slots) else {
                break;
            };
            self.ready.push(&mut self.slots, index);
        }
    }

    /// Moves a request on until it waits for something.
    fn advance(&mut self, index: u16) {
        // No state is entered twice, so the number of states bounds the turns.
        for _ in 0..8 {
            let Some(slot) = self.slots.get(index) else {
                return;
            };
            let step = match slot.state {
                State::Free | State::Forwarded => Step::InFlight,
                State::Queued => self.admit(index),
                State::Reading => self.continue_read(index),
                State::ZeroingChunks => self.zero_chunks(index),
                State::Filling => self.continue_fill(index),
                State::Writing => self.continue_write(index),
                State::Zeroing => self.continue_zero(index),
                State::Commit(number) => self.await_commit(index, number),
                State::DeviceFlush => self.await_device_flush(index),
            };
            match step {
                Step::Again => {}
                Step::InFlight => return,
                Step::Wait => return self.waiting.push(&mut self.slots, index),
            }
        }
        self.ready.push(&mut self.slots, index);
        self.work.insert(Work::READY);
    }

    fn admit(&mut self, index: u16) -> Step {
        let Some(slot) = self.slots.get(index) else {
            return Step::InFlight;
        };
        if slot.cancelled {
            return self.finish(index, Err(DeviceError::Cancelled));
        }
        let kind = slot.head.kind;
        if kind != OpKind::Read
            && let Err(error) = self.check_poison()
        {
            return self.finish(index, Err(error));
        }
        match kind {
            OpKind::Read => self.admit_read(index),
            OpKind::Write => self.admit_write(index),
            OpKind::Flush => self.admit_flush(index),
            OpKind::Discard | OpKind::WriteZeroes => self.admit_zero(index),
            OpKind::Grow => self.finish(index, Err(DeviceError::Unsupported)),
        }
    }

    /// What a request is answered that ended with `status`.
    #[inline]
    fn answer(&self, kind: OpKind, status: Status) -> Status {
        if self.journal.poisoned {
            return answer_poisoned(kind, status);
        }
        status
    }

    /// Ends a request: its op goes to the caller, its slot is free.
    pub(super) fn finish(&mut self, index: u16, result: Result<(), DeviceError>) -> Step {
        self.set_exclusive(index, false);
        let Some(slot) = self.slots.get_mut(index) else {
            return Step::InFlight;
        };
        let head = slot.head;
        let op = match core::mem::replace(&mut slot.held, Held::Out) {
            Held::Whole(op) => Some(op),
            Held::Lent(lent) => lent.try_whole().ok(),
            Held::Out => None,
        };
        let status = match result {
            Ok(()) => self.answer(head.kind, Status::Done),
            Err(error) => Status::Failed(error),
        };
        match op {
            Some(mut op) => {
                op.set_head(Head { status, ..head });
                self.done.push_back(op);
            }
            // A layer kept a part of the guest's memory: leak it rather than hand it out early.
            None => self.stats.protocol_errors += 1,
        }
        if !(result.is_err() && bug(Bug::FailedSlotLeaked)) {
            self.slots.release(index);
        }
        self.work.insert(Work::RETRY);
        Step::InFlight
    }

    /// Sends an operation; one that the device has no room for waits its turn. An abandoned disk
    /// sends nothing.
    #[inline(never)]
    pub(crate) fn send(&mut self, role: Role, op: Op) {
        self.send_now(role, op);
    }

    /// The same, for the way that has to be short.
    #[inline(always)]
    pub(super) fn send_now(&mut self, role: Role, op: Op) {
        if self.abandoned {
            return self.take_back(op);
        }
        if !self.parked.is_empty() {
            return self.parked.push_back(op);
        }
        self.work.insert(Work::NOTIFY);
        if let Err(op) = self.stores.submit(role, op) {
            self.on_refusal(op, false);
        }
    }

    /// Fails an operation that no device has, because the disk was abandoned.
    #[cold]
    pub(super) fn take_back(&mut self, mut op: Op) {
        op.complete(Err(DeviceError::Poisoned));
        self.refused.push_back(op);
        self.work.insert(Work::READY);
    }

    /// Returns whether the device is full.
    fn on_refusal(&mut self, mut op: Op, front: bool) -> bool {
        if op.status() != Status::Failed(DeviceError::Busy) {
            self.refused.push_back(op);
            self.work.insert(Work::READY);
            return false;
        }
        op.set_head(Head {
            status: Status::Pending,
            ..op.head()
        });
        if front {
            self.parked.push_front(op)
        } else {
            self.parked.push_back(op)
        }
        true
    }

    /// Sends what the devices had no room for, oldest first.
    #[inline]
    fn unpark(&mut self) {
        if !self.parked.is_empty() {
            self.send_parked();
        }
    }

    #[cold]
    fn send_parked(&mut self) {
        for _ in 0..self.parked.len() {
            let Some(op) = self.parked.pop_front() else {
                return;
            };
            let role = Tag::parse(op.tag()).map_or(Role::Data, |tag| tag.role);
            self.work.insert(Work::NOTIFY);
            if let Err(op) = self.stores.submit(role, op)
                && self.on_refusal(op, true)
            {
                return;
            }
        }
    }

    /// Records a completion. Returns the guest's op if that ends its request.
    #[inline]
    pub(super) fn on_completion(&mut self, op: Op) -> Option<Op> {
        match Tag::parse_forward(op.tag()) {
            Some(id) => self.on_forwarded(id, op),
            None => {
                self.on_own(op);
                None
            }
        }
    }

    /// Records a completion of an operation of the engine's own.
    #[inline(never)] // so that the way of a forwarded op stays short
    fn on_own(&mut self, mut op: Op) {
        if op.status() == Status::Pending {
            op.complete(Err(DeviceError::Protocol));
        }
        let Some(tag) = Tag::parse(op.tag()) else {
            return self.stray(op);
        };
        match tag.purpose {
            Purpose::Part | Purpose::Fill(_) | Purpose::ZeroMemory => self.on_part(tag, op),
            Purpose::Eager => self.on_eager_op(op),
            Purpose::Commit => self.on_commit_op(op),
            Purpose::Checkpoint => self.on_checkpoint_op(op),
            Purpose::Growth => self.on_growth_op(op),
            Purpose::Open => self.on_open_op(op),
            Purpose::Forward => self.stray(op),
        }
    }

    #[inline]
    fn on_forwarded(&mut self, id: RequestId, mut op: Op) -> Option<Op> {
        let slot = self
            .slots
            .get_mut(id.slot)
            .filter(|slot| slot.generation == id.generation && slot.print == op.fingerprint());
        let Some(slot) = slot else {
            self.stray(op);
            return None;
        };
        if slot.state != State::Forwarded {
            self.on_forwarded_step(id.slot, op);
            return None;
        }
        let status = outcome(&op);
        // As it was submitted.
        let kind = slot.head.kind;
        op.set_head(slot.head);
        self.slots.release(id.slot);
        if !self.waiting.is_empty() {
            self.work.insert(Work::RETRY);
        }
        if status != Status::Done {
            self.on_failure(kind);
        }
        let status = self.answer(kind, status);
        op.set_head(Head {
            status,
            ..op.head()
        });
        Some(op)
    }

    /// A device operation failed.
    #[cold]
    fn on_failure(&mut self, kind: OpKind) {
        if kind == OpKind::Flush {
            self.poison();
        }
    }

    /// The guest's own op came home, but its request has more to do.
    #[inline(never)]
    fn on_forwarded_step(&mut self, index: u16, op: Op) {
        let slot = self.slots.get_mut(index);
        let Some(slot) = slot.filter(|slot| matches!(slot.held, Held::Out)) else {
            return self.stray(op);
        };
        slot.outstanding = slot.outstanding.saturating_sub(1);
        if let Status::Failed(error) = outcome(&op) {
            slot.fail(error);
        }
        slot.held = Held::Whole(op);
        self.wake_slot(index);
    }

    fn on_part(&mut self, tag: Tag, op: Op) {
        let status = outcome(&op);
        let kind = op.kind();
        let Some(slot) = self
            .slots
            .get_mut(tag.slot)
            .filter(|slot| slot.generation == tag.generation && slot.outstanding > 0)
        else {
            return self.stray(op);
        };
        slot.outstanding -= 1;
        if bug(Bug::PartErrorOverwritten) {
            slot.error = None;
        }
        if let Status::Failed(error) = status {
            slot.fail(error);
        }
        let home = match tag.purpose {
            Purpose::ZeroMemory => self.zero_memory.receive(&mut self.parts, op),
            Purpose::Fill(which) => match slot.scratch.get_mut(usize::from(which)) {
                Some(Some(memory)) => memory.receive(&mut self.parts, op),
                _ => false,
            },
            _ => {
                let mut op = op;
                let mut home = true;
                for _ in 0..SEGMENTS_MAX {
                    let Some(part) = op.pop() else { break };
                    home &= give_part(&mut slot.held, &mut slot.scratch, part);
                }
                home & self.parts.put(op).is_ok()
            }
        };
        if !home {
            self.stats.protocol_errors += 1;
            slot.fail(DeviceError::Protocol);
        }
        if status != Status::Done {
            self.on_failure(kind);
        }
        self.wake_slot(tag.slot);
    }

    /// Looks at a request again, and at those that wait for op records or memory.
    pub(crate) fn wake_slot(&mut self, index: u16) {
        self.ready.push(&mut self.slots, index);
        self.work.insert(Work::READY);
        if !self.waiting.is_empty() {
            self.work.insert(Work::RETRY);
        }
    }

    /// A completion that nothing waits for. It is counted and leaked: whose memory it carries is
    /// unknown.
    #[cold]
    pub(crate) fn stray(&mut self, op: Op) {
        self.stats.protocol_errors += 1;
        drop(op);
    }
}

/// Credits a part of a request to whoever lent it.
fn give_part(
    held: &mut Held,
    scratch: &mut [Option<super::Staging>; 2],
    part: crate::buffer::Lease,
) -> bool {
    let mut part = part;
    if let Held::Lent(lent) = held {
        match LentOp::give(lent, part) {
            Ok(()) => return true,
            Err(back) => part = back,
        }
    }
    for memory in scratch.iter_mut().flatten() {
        match memory.give(part) {
            Ok(()) => return true,
            Err(back) => part = back,
        }
    }
    false
}

/// Law 5 of the journal holds for requests in flight too: a flush that ran beside a failed one says
/// nothing about what that one lost.
#[cold]
fn answer_poisoned(kind: OpKind, status: Status) -> Status {
    let stands = kind == OpKind::Read || bug(Bug::AcknowledgedBesideFailedFlush);
    if status == Status::Done && !stands {
        return Status::Failed(DeviceError::Poisoned);
    }
    status
}

/// What a completed operation says.
#[inline]
fn outcome(op: &Op) -> Status {
    match op.status() {
        Status::Pending => Status::Failed(DeviceError::Protocol),
        status => status,
    }
}
