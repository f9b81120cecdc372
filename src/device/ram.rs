//! A device in memory that the caller lends.
//!
//! Its one job: be the simplest device that keeps its promises, for tests, examples and disks that
//! need not outlive the program. It does each operation inside `submit` and hands the completions
//! out first in, first out.
//!
//! Invariants:
//! 1. An op in `ready` has been done (or has failed) and its status is set.
//! 2. The capacity is the memory rounded down to whole 512-byte sectors, and never changes.
//!
//! What it does not do: it has no cache to lose, so completion is durability as far as a device
//! that forgets everything at power loss can speak of it.

use core::task::Waker;

use super::{
    BlockDevice, DeviceError, DiscardLimits, Geometry, OpKind, When, WriteZeroesLimits, refuse,
};
use crate::buffer::{Op, OpQueue};
use crate::units::{Instant, SECTOR_BYTES};

/// A RAM disk over `'static` memory.
///
/// ```
/// use fvd::device::{BlockDevice, Ram};
///
/// let memory: &'static mut [u8] = Box::leak(vec![0u8; 64 << 10].into_boxed_slice());
/// let disk = Ram::new(memory).with_write_zeroes().with_discard();
/// assert_eq!(disk.geometry().capacity_bytes, 64 << 10);
/// ```
pub struct Ram {
    memory: &'static mut [u8],
    geometry: Geometry,
    ready: OpQueue,
    waker: Option<Waker>,
}

impl Ram {
    /// Makes a device over `memory`. A tail shorter than a sector stays unused.
    #[must_use]
    pub fn new(memory: &'static mut [u8]) -> Ram {
        let capacity_bytes = memory.len() as u64 & !(SECTOR_BYTES - 1);
        let geometry = Geometry {
            volatile_cache: false,
            fua: true,
            ..Geometry::basic(capacity_bytes)
        };
        Ram {
            memory,
            geometry,
            ready: OpQueue::new(),
            waker: None,
        }
    }

    /// The same device, which also takes `WriteZeroes`.
    #[must_use]
    pub fn with_write_zeroes(mut self) -> Ram {
        self.geometry.write_zeroes = Some(WriteZeroesLimits {
            max_bytes: self.geometry.capacity_bytes,
            may_unmap: true,
        });
        self
    }

    /// The same device, which also takes `Discard`; a discarded range reads zeros.
    #[must_use]
    pub fn with_discard(mut self) -> Ram {
        self.geometry.discard = Some(DiscardLimits {
            granularity_bytes: SECTOR_BYTES as u32,
            max_bytes: self.geometry.capacity_bytes,
            zeroes_after: true,
        });
        self
    }

    /// The same device, which refuses every change.
    #[must_use]
    pub fn read_only(mut self) -> Ram {
        self.geometry.read_only = true;
        self
    }

    /// Gives the memory back.
    ///
    /// # Errors
    /// Gives the device back while completions wait in it: poll them out first.
    #[allow(clippy::result_large_err)] // there is no heap to box the device in
    pub fn into_memory(self) -> Result<&'static mut [u8], Ram> {
        if self.ready.is_empty() {
            Ok(self.memory)
        } else {
            Err(self)
        }
    }

    /// The bytes that `op` names. `check` has found them in range; the lookup is checked all the
    /// same, since a panic inside a device takes the whole machine down.
    fn range(&mut self, op: &Op) -> Option<&mut [u8]> {
        let start = usize::try_from(op.offset()).ok()?;
        let end = start.checked_add(usize::try_from(op.len()).ok()?)?;
        self.memory.get_mut(start..end)
    }

    fn perform(&mut self, op: &mut Op) -> Result<(), DeviceError> {
        let kind = op.kind();
        if matches!(kind, OpKind::Flush) {
            return Ok(());
        }
        let bytes = self.range(op).ok_or(DeviceError::Invalid)?;
        match kind {
            OpKind::Read => {
                op.copy_in(0, bytes);
            }
            OpKind::Write => {
                op.copy_out(0, bytes);
            }
            OpKind::Discard | OpKind::WriteZeroes => bytes.fill(0),
            OpKind::Flush => {}
            OpKind::Grow => return Err(DeviceError::Unsupported),
        }
        Ok(())
    }
}

impl BlockDevice for Ram {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn submit(&mut self, mut op: Op) -> Result<(), Op> {
        if let Err(error) = self.geometry.check(&op) {
            return refuse(op, error);
        }
        let result = self.perform(&mut op);
        op.complete(result);
        self.ready.push_back(op);
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
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

    fn set_waker(&mut self, waker: &Waker) -> bool {
        self.waker = Some(waker.clone());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::testing::{Bench, read, write};
    use crate::device::{OpFlags, Status};

    extern crate std;
    use std::vec;

    fn ram(sectors: usize) -> Ram {
        Ram::new(vec![0u8; sectors * 512].leak())
    }

    #[test]
    fn a_write_is_read_back() {
        let (mut bench, mut disk) = (Bench::new(), ram(8));
        bench.write(&mut disk, 512, &[7; 1024]);
        assert_eq!(bench.read(&mut disk, 0, 2048)[..512], [0; 512]);
        assert_eq!(bench.read(&mut disk, 512, 1024), [7; 1024]);
    }

    #[test]
    fn completions_come_first_in_first_out() {
        let (mut bench, mut disk) = (Bench::new(), ram(8));
        for tag in 0..3 {
            let op = bench.op(write(512 * tag, 512).tagged(tag));
            assert!(disk.submit(op).is_ok());
        }
        assert_eq!(disk.poll_at(), When::Now);
        for tag in 0..3 {
            let op = disk.poll(Instant::ZERO).expect("three are ready");
            assert_eq!((op.tag(), op.status()), (tag, Status::Done));
            bench.put(op);
        }
        assert_eq!(disk.poll_at(), When::Event);
    }

    #[test]
    fn zeroes_and_discards_read_zeros() {
        let (mut bench, disk) = (Bench::new(), ram(8));
        let mut disk = disk.with_write_zeroes().with_discard();
        bench.write(&mut disk, 0, &[9; 2048]);
        assert_eq!(
            bench.run(&mut disk, OpKind::WriteZeroes, 0, 512),
            Status::Done
        );
        assert_eq!(
            bench.run(&mut disk, OpKind::Discard, 1024, 512),
            Status::Done
        );
        assert_eq!(bench.run(&mut disk, OpKind::Flush, 0, 0), Status::Done);
        assert_eq!(bench.read(&mut disk, 0, 512), [0; 512]);
        assert_eq!(bench.read(&mut disk, 512, 512), [9; 512]);
        assert_eq!(bench.read(&mut disk, 1024, 512), [0; 512]);
    }

    #[test]
    fn what_the_geometry_does_not_offer_is_refused() {
        let (mut bench, mut disk) = (Bench::new(), ram(8));
        let refused = |error| Status::Failed(error);
        let run = |bench: &mut Bench, disk: &mut Ram, kind, offset, len| {
            bench.run(disk, kind, offset, len)
        };
        assert_eq!(
            run(&mut bench, &mut disk, OpKind::Discard, 0, 512),
            refused(DeviceError::Unsupported)
        );
        assert_eq!(
            run(&mut bench, &mut disk, OpKind::Grow, 0, 8192),
            refused(DeviceError::Unsupported)
        );
        assert_eq!(
            run(&mut bench, &mut disk, OpKind::Write, 8 * 512, 512),
            refused(DeviceError::Invalid)
        );
        assert_eq!(
            run(&mut bench, &mut disk, OpKind::Read, 1, 512),
            refused(DeviceError::Invalid)
        );
        let mut disk = disk.read_only();
        assert_eq!(
            run(&mut bench, &mut disk, OpKind::Write, 0, 512),
            refused(DeviceError::ReadOnly)
        );
        assert!(disk.geometry().fua && !disk.geometry().volatile_cache);
        let op = bench.op(read(0, 512).flagged(OpFlags::FUA));
        assert!(
            disk.submit(op).is_ok(),
            "FUA is free where nothing is cached"
        );
    }

    #[test]
    fn memory_comes_back_only_when_nothing_waits() {
        let (mut bench, mut disk) = (Bench::new(), ram(2));
        assert!(disk.submit(bench.op(write(0, 512))).is_ok());
        let Err(mut disk) = disk.into_memory() else {
            panic!("a completion waits");
        };
        bench.put(disk.poll(Instant::ZERO).expect("ready"));
        assert_eq!(
            disk.into_memory().ok().map(|memory| memory.len()),
            Some(1024)
        );
    }
}
