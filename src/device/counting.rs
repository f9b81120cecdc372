//! Counts what goes to a device.
//!
//! "Device operations per guest operation" is the figure this project leads with, and it is exact,
//! so tests pin it. [`Counting`] sits between an engine and its store and keeps the totals; it
//! changes nothing on the way.

use core::task::Waker;

use super::{BlockDevice, Geometry, OpFlags, OpKind, Status, When};
use crate::buffer::{Head, Op};
use crate::units::Instant;

/// Totals since the device was wrapped or [`Counting::take`] was last called.
///
/// Operations are counted when the device accepts them, so a refusal that is retried counts once in
/// `refusals` for each try and once here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Reads accepted.
    pub reads: u64,
    /// Writes accepted, those with FUA included.
    pub writes: u64,
    /// Writes accepted with [`OpFlags::FUA`].
    pub fua_writes: u64,
    /// Flushes accepted.
    pub flushes: u64,
    /// Discards accepted.
    pub discards: u64,
    /// Write-zeroes accepted.
    pub write_zeroes: u64,
    /// Grow operations accepted.
    pub grows: u64,
    /// Bytes asked of reads.
    pub read_bytes: u64,
    /// Bytes sent by writes.
    pub write_bytes: u64,
    /// Bytes named by discards.
    pub discard_bytes: u64,
    /// Bytes named by write-zeroes.
    pub write_zeroes_bytes: u64,
    /// Operations that the device refused, for any reason.
    pub refusals: u64,
    /// Operations that came back done.
    pub done: u64,
    /// Operations that came back failed.
    pub failed: u64,
}

impl Counts {
    /// Operations accepted, of all kinds.
    #[must_use]
    pub const fn operations(&self) -> u64 {
        self.of(OpKind::Read)
            + self.of(OpKind::Write)
            + self.of(OpKind::Flush)
            + self.of(OpKind::Discard)
            + self.of(OpKind::WriteZeroes)
            + self.of(OpKind::Grow)
    }

    /// Operations accepted of one kind.
    #[must_use]
    pub const fn of(&self, kind: OpKind) -> u64 {
        match kind {
            OpKind::Read => self.reads,
            OpKind::Write => self.writes,
            OpKind::Flush => self.flushes,
            OpKind::Discard => self.discards,
            OpKind::WriteZeroes => self.write_zeroes,
            OpKind::Grow => self.grows,
        }
    }

    /// Operations accepted that have not come back yet.
    #[must_use]
    pub const fn in_flight(&self) -> u64 {
        self.operations() - (self.done + self.failed)
    }

    /// Adds an operation that a device accepted, for whoever counts without a [`Counting`].
    pub fn accept(&mut self, head: &Head) {
        match head.kind {
            OpKind::Read => {
                self.reads += 1;
                self.read_bytes += head.len;
            }
            OpKind::Write => {
                self.writes += 1;
                self.write_bytes += head.len;
                self.fua_writes += u64::from(head.flags.contains(OpFlags::FUA));
            }
            OpKind::Flush => self.flushes += 1,
            OpKind::Discard => {
                self.discards += 1;
                self.discard_bytes += head.len;
            }
            OpKind::WriteZeroes => {
                self.write_zeroes += 1;
                self.write_zeroes_bytes += head.len;
            }
            OpKind::Grow => self.grows += 1,
        }
    }
}

/// A device whose traffic is counted.
pub struct Counting<D> {
    inner: D,
    counts: Counts,
}

impl<D: BlockDevice> Counting<D> {
    /// Wraps a device, with all counts at 0.
    pub fn new(inner: D) -> Counting<D> {
        Counting {
            inner,
            counts: Counts::default(),
        }
    }

    /// The totals.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.counts
    }

    /// The totals, which start at 0 again. Call it while nothing is in flight, or
    /// [`Counts::in_flight`] of the next totals means nothing.
    pub fn take(&mut self) -> Counts {
        core::mem::take(&mut self.counts)
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

    /// Unwraps the device.
    pub fn into_inner(self) -> D {
        self.inner
    }
}

impl<D: BlockDevice> BlockDevice for Counting<D> {
    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn submit(&mut self, op: Op) -> Result<(), Op> {
        let head = op.head();
        let answer = self.inner.submit(op);
        match &answer {
            Ok(()) => self.counts.accept(&head),
            Err(_) => self.counts.refusals += 1,
        }
        answer
    }

    fn notify(&mut self) {
        self.inner.notify();
    }

    fn poll(&mut self, now: Instant) -> Option<Op> {
        let op = self.inner.poll(now)?;
        match op.status() {
            Status::Done => self.counts.done += 1,
            // An op that comes back pending breaks the contract; it has come back all the same.
            Status::Failed(_) | Status::Pending => self.counts.failed += 1,
        }
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
    use crate::device::Null;
    use crate::device::testing::{Bench, write};

    #[test]
    fn each_kind_is_counted_with_its_bytes() {
        let (mut bench, mut disk) = (Bench::new(), Counting::new(Null::new(1 << 20)));
        bench.write(&mut disk, 0, &[1; 1024]);
        bench.read(&mut disk, 0, 512);
        bench.run(&mut disk, OpKind::Flush, 0, 0);
        bench.run(&mut disk, OpKind::Discard, 0, 2048);
        bench.run(&mut disk, OpKind::WriteZeroes, 0, 4096);
        assert!(
            disk.submit(bench.op(write(0, 512).flagged(OpFlags::FUA)))
                .is_ok()
        );
        let counts = disk.counts();
        assert_eq!((counts.reads, counts.read_bytes), (1, 512));
        assert_eq!((counts.writes, counts.write_bytes), (2, 1536));
        assert_eq!((counts.fua_writes, counts.flushes), (1, 1));
        assert_eq!(
            (counts.discard_bytes, counts.write_zeroes_bytes),
            (2048, 4096)
        );
        assert_eq!((counts.operations(), counts.in_flight()), (6, 1));
        assert_eq!(disk.take(), counts);
        assert_eq!(disk.counts(), Counts::default());
    }

    #[test]
    fn a_refusal_is_not_an_operation() {
        let (mut bench, mut disk) = (Bench::new(), Counting::new(Null::new(4096)));
        bench.run(&mut disk, OpKind::Read, 4096, 512);
        let counts = disk.counts();
        assert_eq!((counts.refusals, counts.operations()), (1, 0));
    }
}
