//! From the used ring to a finished op, and what happens when the device can not be believed.

use fvd::buffer::Op;
use fvd::device::{DeviceError, OpKind};
use virtio_drivers::Hal;
use virtio_drivers::transport::{DeviceStatus, Transport};

use super::{Life, VirtioBlk, direction_of, segment};
use crate::fault::Fault;
use crate::queue::Used;
use crate::wire;

/// Fruitless polls between two looks at the status register, which costs a VM exit.
const POLLS_PER_STATUS_READ: u32 = 1 << 12;

impl<H: Hal, T: Transport, const Q: usize> VirtioBlk<H, T, Q> {
    /// The next op that the device finished. Condemns the device if it claims what can not be.
    pub(super) fn poll_alive(&mut self) -> Option<Op> {
        let used = match self.queue.peek() {
            Ok(Some(used)) => used,
            Ok(None) => {
                self.count_fruitless_poll();
                return None;
            }
            Err(fault) => {
                self.condemn(fault);
                return None;
            }
        };
        self.fruitless_polls = 0;
        let status = self.control.status(used.head);
        if status == wire::STATUS_UNWRITTEN {
            self.condemn(Fault::StatusUnwritten);
            return None;
        }
        self.queue.pop(used);
        let mut op = self.take(usize::from(used.head))?;
        op.complete(self.outcome(&op, used, status));
        self.stats.completions += 1;
        Some(op)
    }

    fn outcome(&mut self, op: &Op, used: Used, status: u8) -> Result<(), DeviceError> {
        wire::status_result(status)?;
        // The used length should count the status byte too, but devices exist that count only the
        // data. It is believed only where it admits to less: stale bytes of a buffer must not pass
        // for data.
        if op.kind() == OpKind::Read && u64::from(used.len) < op.bytes() {
            self.stats.short_reads += 1;
            return Err(DeviceError::Io);
        }
        Ok(())
    }

    /// Takes an op out of its slot and its memory back from the device, which is done with it.
    pub(super) fn take(&mut self, index: usize) -> Option<Op> {
        let slot = self.slots.get_mut(index)?;
        let op = slot.op.take()?;
        let direction = direction_of(op.kind());
        for (index, address) in (0..op.segment_count()).zip(slot.addresses) {
            let Some(buffer) = segment(&op, index) else {
                break;
            };
            // SAFETY:
            // 1. the same buffer, direction and address as in `start`: a slot holds one op from
            //    there to here, and an op's leases can not change while it lies in the slot;
            // 2. nobody else accesses it meanwhile: the device is done (invariant 2), and we own
            //    the op.
            unsafe { H::unshare(address, buffer, direction) };
        }
        self.in_flight -= 1;
        Some(op)
    }

    /// Tells the device to reset, without waiting. What is in flight stays where it is.
    pub(super) fn condemn(&mut self, fault: Fault) {
        if self.life == Life::Alive {
            self.life = Life::Resetting;
            self.fault = Some(fault);
            self.transport.set_status(DeviceStatus::empty());
        }
    }

    /// A device that met an error stops answering and says so in a register that nobody reads, so
    /// look there now and then while it is silent.
    fn count_fruitless_poll(&mut self) {
        if self.in_flight == 0 {
            return;
        }
        self.fruitless_polls += 1;
        if self.fruitless_polls >= POLLS_PER_STATUS_READ {
            self.fruitless_polls = 0;
            self.check_status();
        }
    }

    pub(super) fn check_status(&mut self) {
        let status = self.transport.get_status();
        if self.life == Life::Alive && status.contains(DeviceStatus::DEVICE_NEEDS_RESET) {
            self.condemn(Fault::NeedsReset);
        }
    }

    /// The next op of a device that was given up, once the device can not write any more.
    pub(super) fn poll_condemned(&mut self) -> Option<Op> {
        if self.life == Life::Resetting && self.transport.get_status() == DeviceStatus::empty() {
            self.life = Life::Reset;
        }
        if self.life != Life::Reset {
            return None;
        }
        while self.reset_cursor < Q {
            let taken = self.take(self.reset_cursor);
            self.reset_cursor += 1;
            if let Some(mut op) = taken {
                op.complete(Err(DeviceError::Removed));
                return Some(op);
            }
        }
        None
    }
}
