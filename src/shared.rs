//! One disk for several cores: a spin lock, and completions that find their way home.
//!
//! Each core (or each user) takes a [`Port`]. Whoever polls drives the disk for everybody;
//! completions of other ports are put aside for them. Not for interrupt handlers: the lock spins.

use core::task::Waker;

use spin::Mutex;

use crate::buffer::{Op, OpQueue};
use crate::device::{BlockDevice, DeviceError, Geometry, Status, When, refuse};
use crate::units::Instant;

/// Bits of a tag that belong to the user; the rest names the port while an op is out.
const TAG_BITS: u32 = 56;

struct Inner<D, const PORTS: usize> {
    device: D,
    arrived: [OpQueue; PORTS],
}

/// A device that up to `PORTS` users share.
pub struct Shared<D, const PORTS: usize> {
    inner: Mutex<Inner<D, PORTS>>,
}

impl<D: BlockDevice, const PORTS: usize> Shared<D, PORTS> {
    /// Shares a device. `PORTS` is at most 256.
    pub const fn new(device: D) -> Shared<D, PORTS> {
        const { assert!(PORTS >= 1 && PORTS <= 256) }
        let arrived = [const { OpQueue::new() }; PORTS];
        Shared {
            inner: Mutex::new(Inner { device, arrived }),
        }
    }

    /// One user's view; `None` if there is no such port. Two users of one port see each other's
    /// completions.
    pub fn port(&self, index: u8) -> Option<Port<'_, D, PORTS>> {
        (usize::from(index) < PORTS).then_some(Port {
            shared: self,
            index,
        })
    }

    /// Gives the device back. Completions that nobody took are leaked.
    pub fn into_inner(self) -> D {
        self.inner.into_inner().device
    }

    /// Runs `f` on the device, such as to look at its counters.
    pub fn with<R>(&self, f: impl FnOnce(&mut D) -> R) -> R {
        f(&mut self.inner.lock().device)
    }
}

/// One user's view of a shared device. Tags must fit 56 bits.
pub struct Port<'a, D, const PORTS: usize> {
    shared: &'a Shared<D, PORTS>,
    index: u8,
}

impl<D: BlockDevice, const PORTS: usize> BlockDevice for Port<'_, D, PORTS> {
    fn geometry(&self) -> Geometry {
        self.shared.inner.lock().device.geometry()
    }

    fn submit(&mut self, mut op: Op) -> Result<(), Op> {
        let tag = op.tag();
        if tag >> TAG_BITS != 0 {
            return refuse(op, DeviceError::Invalid);
        }
        op.set_tag(tag | u64::from(self.index) << TAG_BITS);
        self.shared
            .inner
            .lock()
            .device
            .submit(op)
            .map_err(|mut op| {
                op.set_tag(tag);
                op
            })
    }

    fn notify(&mut self) {
        self.shared.inner.lock().device.notify();
    }

    fn poll(&mut self, now: Instant) -> Option<Op> {
        let mut inner = self.shared.inner.lock();
        let own = usize::from(self.index);
        if let Some(op) = inner.arrived.get_mut(own)?.pop_front() {
            return Some(op);
        }
        // Bounded, so that one port does not hold the lock for ever while others complete.
        for _ in 0..64 {
            let mut op = inner.device.poll(now)?;
            let port = (op.tag() >> TAG_BITS) as usize;
            op.set_tag(op.tag() & ((1 << TAG_BITS) - 1));
            if port == own {
                return Some(op);
            }
            match inner.arrived.get_mut(port) {
                Some(queue) => queue.push_back(op),
                // The device changed the tag: nobody knows whose it is, so it is leaked.
                None => debug_assert_eq!(op.status(), Status::Pending, "a tag came home changed"),
            }
        }
        None
    }

    fn poll_at(&self) -> When {
        let inner = self.shared.inner.lock();
        match inner.arrived.get(usize::from(self.index)) {
            Some(queue) if !queue.is_empty() => When::Now,
            _ => inner.device.poll_at(),
        }
    }

    /// One waker serves the whole device: the last one to register is woken.
    fn set_waker(&mut self, waker: &Waker) -> bool {
        self.shared.inner.lock().device.set_waker(waker)
    }
}
