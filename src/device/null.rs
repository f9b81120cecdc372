//! A device that does nothing, fast.
//!
//! Its one job: be the floor under instruction counts. It accepts up to [`Null::DEPTH`] operations,
//! touches no leased memory, and completes them first in, first out; so what a layer above it
//! costs is what the layer itself costs. Reads leave whatever the buffer held.

use super::{BlockDevice, DeviceError, DiscardLimits, Geometry, When, WriteZeroesLimits, refuse};
use crate::buffer::{Op, OpQueue};
use crate::units::Instant;

/// A device of any size that completes everything without doing it.
pub struct Null {
    geometry: Geometry,
    ready: OpQueue,
}

impl Null {
    /// Operations that wait in the device before it answers `Busy`.
    pub const DEPTH: usize = 64;

    /// Makes a device that claims to hold `capacity_bytes`.
    #[must_use]
    pub const fn new(capacity_bytes: u64) -> Null {
        Null {
            geometry: Geometry {
                queue_depth: Null::DEPTH as u16,
                fua: true,
                discard: Some(DiscardLimits {
                    granularity_bytes: 512,
                    max_bytes: u64::MAX,
                    zeroes_after: false,
                }),
                write_zeroes: Some(WriteZeroesLimits {
                    max_bytes: u64::MAX,
                    may_unmap: true,
                }),
                ..Geometry::basic(capacity_bytes)
            },
            ready: OpQueue::new(),
        }
    }
}

impl BlockDevice for Null {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn submit(&mut self, mut op: Op) -> Result<(), Op> {
        if self.ready.len() >= Null::DEPTH {
            return refuse(op, DeviceError::Busy);
        }
        if let Err(error) = self.geometry.check(&op) {
            return refuse(op, error);
        }
        op.complete(Ok(()));
        self.ready.push_back(op);
        Ok(())
    }

    fn poll(&mut self, _now: Instant) -> Option<Op> {
        self.ready.pop_front()
    }

    fn poll_at(&self) -> When {
        if self.ready.is_empty() {
            When::Event
        } else {
            When::Now
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::testing::{Bench, write};
    use crate::device::{OpKind, Status};

    #[test]
    fn the_sixty_fifth_operation_is_told_to_wait() {
        let (mut bench, mut disk) = (Bench::new(), Null::new(1 << 20));
        for _ in 0..Null::DEPTH {
            assert!(disk.submit(bench.op(write(0, 512))).is_ok());
        }
        let refused = disk.submit(bench.op(write(0, 512))).expect_err("full");
        assert_eq!(refused.status(), Status::Failed(DeviceError::Busy));
        bench.put(disk.poll(Instant::ZERO).expect("all are done"));
        assert!(disk.submit(refused).is_ok());
    }

    #[test]
    fn every_kind_is_done_and_no_memory_touched() {
        let (mut bench, mut disk) = (Bench::new(), Null::new(1 << 20));
        for kind in [OpKind::Discard, OpKind::WriteZeroes] {
            assert_eq!(bench.run(&mut disk, kind, 512, 512), Status::Done);
        }
        assert_eq!(bench.run(&mut disk, OpKind::Flush, 0, 0), Status::Done);
        bench.write(&mut disk, 0, &[5; 512]);
        assert_eq!(bench.read(&mut disk, 0, 512), [Bench::CANARY; 512]);
    }
}
