//! Shows what goes to a device, event by event.
//!
//! Two uses: log a run for people, and pin the exact order of operations in a test ("the flush comes
//! before the header"). The sink gets heads by value and never sees the data.

use core::task::Waker;

use super::{BlockDevice, Geometry, When};
use crate::buffer::{Head, Op};
use crate::units::Instant;

/// What happened to an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum TraceEvent {
    /// It is about to be submitted. Always the first event of an operation.
    Submitted,
    /// The device handed it back at once; the head's status says why.
    Refused,
    /// It came back; the head's status says how.
    Completed,
}

/// Receives the events of a [`Trace`]. Any `FnMut(TraceEvent, Head)` is one.
pub trait TraceSink {
    /// Takes note of one event.
    fn event(&mut self, event: TraceEvent, head: Head);
}

impl<F: FnMut(TraceEvent, Head)> TraceSink for F {
    fn event(&mut self, event: TraceEvent, head: Head) {
        self(event, head);
    }
}

/// A device whose operations are shown to a sink.
pub struct Trace<D, S> {
    inner: D,
    sink: S,
}

impl<D: BlockDevice, S: TraceSink> Trace<D, S> {
    /// Wraps a device.
    pub fn new(inner: D, sink: S) -> Trace<D, S> {
        Trace { inner, sink }
    }

    /// The sink.
    pub fn sink_mut(&mut self) -> &mut S {
        &mut self.sink
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

    /// Unwraps the device and the sink.
    pub fn into_parts(self) -> (D, S) {
        (self.inner, self.sink)
    }
}

impl<D: BlockDevice, S: TraceSink> BlockDevice for Trace<D, S> {
    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn submit(&mut self, op: Op) -> Result<(), Op> {
        // Before the device sees it, so that whatever the device does inside comes after.
        self.sink.event(TraceEvent::Submitted, op.head());
        let answer = self.inner.submit(op);
        if let Err(op) = &answer {
            self.sink.event(TraceEvent::Refused, op.head());
        }
        answer
    }

    fn notify(&mut self) {
        self.inner.notify();
    }

    fn poll(&mut self, now: Instant) -> Option<Op> {
        let op = self.inner.poll(now)?;
        self.sink.event(TraceEvent::Completed, op.head());
        Some(op)
    }

    fn poll_at(&self) -> When {
        self.inner.poll_at()
    }

    fn set_waker(&mut self, waker: &Waker) -> bool {
        self.inner.set_waker(waker)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::testing::Bench;
    use crate::device::{DeviceError, Null, OpKind, Status};

    extern crate std;
    use std::vec::Vec;

    #[test]
    fn submission_refusal_and_completion_are_shown_in_order() {
        let mut bench = Bench::new();
        let mut events = Vec::new();
        let mut disk = Trace::new(Null::new(4096), |event, head: Head| {
            events.push((event, head.kind, head.status));
        });
        bench.run(&mut disk, OpKind::Flush, 0, 0);
        bench.run(&mut disk, OpKind::Read, 4096, 512);
        assert_eq!(
            events,
            [
                (TraceEvent::Submitted, OpKind::Flush, Status::Pending),
                (TraceEvent::Completed, OpKind::Flush, Status::Done),
                (TraceEvent::Submitted, OpKind::Read, Status::Pending),
                (
                    TraceEvent::Refused,
                    OpKind::Read,
                    Status::Failed(DeviceError::Invalid)
                ),
            ]
        );
    }
}
