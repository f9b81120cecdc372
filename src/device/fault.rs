//! A device that misbehaves on purpose, within the contract.
//!
//! A [`FaultPlan`] decides for each operation what goes wrong. Every fault here is one that a
//! correct caller must survive: an error, a refusal, a device that never answers, completions in
//! another order. What a *broken* device does (wrong tag, dropped lease) is not offered.
//!
//! Invariants:
//! 1. An op in `held` was accepted, was never sent on and never completes by itself.
//! 2. An op in `late` has its final status; it leaves only when nothing else does.

use core::task::Waker;

use super::{BlockDevice, DeviceError, Geometry, OpKind, When, refuse};
use crate::buffer::{Head, Op, OpQueue};
use crate::units::Instant;

/// What to do with an operation that is being submitted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Send it on.
    Pass,
    /// Refuse it; `Busy` tells the caller to poll and try again.
    Refuse(DeviceError),
    /// Accept it, do nothing, and complete it with this error.
    Fail(DeviceError),
    /// Accept it and never complete it, until [`Fault::take_held`] or [`Fault::fail_held`].
    Hold,
}

/// How to hand out an operation that came back from the device below.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// As it is, now.
    Now,
    /// As it is, but behind everything else that is ready.
    Late,
    /// With this error, although it was done: the caller must take the range as undefined.
    Fail(DeviceError),
}

/// Decides the faults. Any `FnMut(&Head) -> Verdict` is a plan that meddles with submissions only.
pub trait FaultPlan {
    /// Judges an operation on its way in.
    fn on_submit(&mut self, head: &Head) -> Verdict;

    /// Judges an operation on its way out.
    fn on_complete(&mut self, head: &Head) -> Delivery {
        let _ = head;
        Delivery::Now
    }
}

impl<F: FnMut(&Head) -> Verdict> FaultPlan for F {
    fn on_submit(&mut self, head: &Head) -> Verdict {
        self(head)
    }
}

/// The plan to loop over: the `nth` operation of a kind fails, once or from then on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FailNth {
    /// Kind that is counted; `None` counts all.
    pub kind: Option<OpKind>,
    /// Operations that pass first.
    pub pass_count: u64,
    /// Whether every later operation of the kind fails too.
    pub sticky: bool,
    /// What they fail with.
    pub error: DeviceError,
    /// Operations of the kind seen so far; start it at 0. `seen > pass_count` tells that the fault
    /// has struck, so a loop over `pass_count` knows when to end.
    pub seen: u64,
}

impl FailNth {
    /// Fails one operation with `Io` after `pass_count` others.
    #[must_use]
    pub const fn once(kind: Option<OpKind>, pass_count: u64) -> FailNth {
        FailNth {
            kind,
            pass_count,
            sticky: false,
            error: DeviceError::Io,
            seen: 0,
        }
    }

    /// Fails every operation with `Io` after `pass_count` others.
    #[must_use]
    pub const fn sticky(kind: Option<OpKind>, pass_count: u64) -> FailNth {
        let mut plan = FailNth::once(kind, pass_count);
        plan.sticky = true;
        plan
    }

    /// Whether the fault has struck.
    #[must_use]
    pub const fn has_struck(&self) -> bool {
        self.seen > self.pass_count
    }
}

impl FaultPlan for FailNth {
    fn on_submit(&mut self, head: &Head) -> Verdict {
        if self.kind.is_some_and(|kind| kind != head.kind) {
            return Verdict::Pass;
        }
        let index = self.seen;
        self.seen = self.seen.saturating_add(1);
        if index == self.pass_count || (self.sticky && index > self.pass_count) {
            Verdict::Fail(self.error)
        } else {
            Verdict::Pass
        }
    }
}

/// A device with faults.
pub struct Fault<D, P> {
    inner: D,
    plan: P,
    held: OpQueue,
    late: OpQueue,
    waker: Option<Waker>,
}

impl<D: BlockDevice, P: FaultPlan> Fault<D, P> {
    /// Wraps a device.
    pub fn new(inner: D, plan: P) -> Fault<D, P> {
        Fault {
            inner,
            plan,
            held: OpQueue::new(),
            late: OpQueue::new(),
            waker: None,
        }
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &P {
        &self.plan
    }

    /// The plan.
    pub fn plan_mut(&mut self) -> &mut P {
        &mut self.plan
    }

    /// The device below.
    #[must_use]
    pub fn inner(&self) -> &D {
        &self.inner
    }

    /// The device below.
    pub fn inner_mut(&mut self) -> &mut D {
        &mut self.inner
    }

    /// Operations on hold.
    #[must_use]
    pub fn held_count(&self) -> usize {
        self.held.len()
    }

    /// Takes the longest-held op out, so that a test can give its memory back.
    pub fn take_held(&mut self) -> Option<Op> {
        self.held.pop_front()
    }

    /// Ends every hold: the ops complete with `error`, as when a stuck device is reset.
    pub fn fail_held(&mut self, error: DeviceError) {
        while let Some(mut op) = self.held.pop_front() {
            op.complete(Err(error));
            self.push_late(op);
        }
    }

    /// Unwraps the device.
    ///
    /// # Errors
    /// Gives itself back while operations wait or are held in this layer.
    pub fn into_inner(self) -> Result<D, Fault<D, P>> {
        if self.held.is_empty() && self.late.is_empty() {
            Ok(self.inner)
        } else {
            Err(self)
        }
    }

    fn push_late(&mut self, op: Op) {
        self.late.push_back(op);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl<D: BlockDevice, P: FaultPlan> BlockDevice for Fault<D, P> {
    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn submit(&mut self, mut op: Op) -> Result<(), Op> {
        match self.plan.on_submit(&op.head()) {
            Verdict::Pass => self.inner.submit(op),
            Verdict::Refuse(error) => refuse(op, error),
            Verdict::Fail(error) => {
                op.complete(Err(error));
                self.push_late(op);
                Ok(())
            }
            Verdict::Hold => {
                self.held.push_back(op);
                Ok(())
            }
        }
    }

    fn notify(&mut self) {
        self.inner.notify();
    }

    fn poll(&mut self, now: Instant) -> Option<Op> {
        // Bounded: every turn but the last takes an op from the device below, which holds finitely
        // many.
        while let Some(mut op) = self.inner.poll(now) {
            match self.plan.on_complete(&op.head()) {
                Delivery::Now => return Some(op),
                Delivery::Late => self.late.push_back(op),
                Delivery::Fail(error) => {
                    op.complete(Err(error));
                    return Some(op);
                }
            }
        }
        self.late.pop_front()
    }

    fn poll_at(&self) -> When {
        if self.late.is_empty() {
            self.inner.poll_at()
        } else {
            When::Now
        }
    }

    fn set_waker(&mut self, waker: &Waker) -> bool {
        // Kept here too: a failure that this layer makes is no event of the device below.
        self.waker = Some(waker.clone());
        self.inner.set_waker(waker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::testing::{Bench, read, write};
    use crate::device::{Null, Ram, Status};

    extern crate std;
    use std::vec;

    const FAILED: Status = Status::Failed(DeviceError::Io);

    #[test]
    fn the_nth_write_fails_once_and_leaves_no_trace() {
        let mut bench = Bench::new();
        let ram = Ram::new(vec![0u8; 4096].leak());
        let mut disk = Fault::new(ram, FailNth::once(Some(OpKind::Write), 1));
        for (index, expected) in [Status::Done, FAILED, Status::Done].into_iter().enumerate() {
            let status = bench.run(&mut disk, OpKind::Write, index as u64 * 512, 512);
            assert_eq!(status, expected, "write {index}");
            assert_eq!(bench.run(&mut disk, OpKind::Flush, 0, 0), Status::Done);
        }
        assert!(disk.plan().has_struck());
        assert_eq!(bench.read(&mut disk, 512, 512), [0; 512]);
    }

    #[test]
    fn a_sticky_fault_stays() {
        let mut bench = Bench::new();
        let mut disk = Fault::new(Null::new(4096), FailNth::sticky(None, 1));
        assert_eq!(bench.run(&mut disk, OpKind::Flush, 0, 0), Status::Done);
        for _ in 0..3 {
            assert_eq!(bench.run(&mut disk, OpKind::Flush, 0, 0), FAILED);
        }
    }

    #[test]
    fn a_refusal_hands_the_op_back() {
        let mut bench = Bench::new();
        let busy = |_: &Head| Verdict::Refuse(DeviceError::Busy);
        let mut disk = Fault::new(Null::new(4096), busy);
        let op = disk
            .submit(bench.op(write(0, 512).tagged(5)))
            .expect_err("busy");
        assert_eq!(
            (op.tag(), op.status()),
            (5, Status::Failed(DeviceError::Busy))
        );
        bench.put(op);
    }

    #[test]
    fn a_held_op_never_completes_and_others_do() {
        let mut bench = Bench::new();
        let hold_reads = |head: &Head| match head.kind {
            OpKind::Read => Verdict::Hold,
            _ => Verdict::Pass,
        };
        let mut disk = Fault::new(Null::new(4096), hold_reads);
        assert!(disk.submit(bench.op(read(0, 512))).is_ok());
        assert_eq!(bench.run(&mut disk, OpKind::Write, 0, 512), Status::Done);
        assert!(disk.poll(Instant::ZERO).is_none());
        assert_eq!((disk.held_count(), disk.poll_at()), (1, When::Event));
        disk.fail_held(DeviceError::Removed);
        let op = disk.poll(Instant::ZERO).expect("released");
        assert_eq!(op.status(), Status::Failed(DeviceError::Removed));
        bench.put(op);
        assert!(disk.into_inner().is_ok());
    }

    struct Shuffle;

    impl FaultPlan for Shuffle {
        fn on_submit(&mut self, _: &Head) -> Verdict {
            Verdict::Pass
        }

        fn on_complete(&mut self, head: &Head) -> Delivery {
            match head.tag {
                0 => Delivery::Late,
                1 => Delivery::Fail(DeviceError::Io),
                _ => Delivery::Now,
            }
        }
    }

    #[test]
    fn completions_can_be_late_or_fail_after_the_fact() {
        let mut bench = Bench::new();
        let mut disk = Fault::new(Null::new(4096), Shuffle);
        for tag in 0..3 {
            assert!(disk.submit(bench.op(write(0, 512).tagged(tag))).is_ok());
        }
        for expected in [(1, FAILED), (2, Status::Done), (0, Status::Done)] {
            let op = disk.poll(Instant::ZERO).expect("three are out");
            assert_eq!((op.tag(), op.status()), expected);
            bench.put(op);
        }
        assert!(disk.poll(Instant::ZERO).is_none());
    }
}
