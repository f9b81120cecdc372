//! [`VirtioBlk`]: ops in, requests out, completions back.
//!
//! Invariants:
//! 1. `slots[head].op` is the op whose chain has the head descriptor `head`, and is filled exactly
//!    while that chain is in flight. So an op is out of reach, with all its leases, from before the
//!    device can see its memory until the device is done with it.
//! 2. The device is done with an op when (a) its chain came back on the used ring, valid, with its
//!    status byte written, or (b) the transport reported that the device confirmed a reset. Nothing
//!    else ends an op.
//! 3. `life` moves one way: `Alive`, `Resetting`, `Reset`. Only an alive device gets requests or is
//!    believed; in `Resetting` it may still write, so nothing is returned or freed.
//! 4. Memory that the device may know is freed or given to a bounce pool only under 2.

use core::marker::PhantomData;
use core::mem::ManuallyDrop;
use core::ptr::NonNull;
use core::task::Waker;

use fvd::buffer::{Op, OpQueue, SEGMENTS_MAX};
use fvd::device::{BlockDevice, DeviceError, Geometry, OpKind, When, refuse};
use fvd::units::Instant;
use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{BufferDirection, Hal, PhysAddr};

use crate::fault::{Fault, InitError};
use crate::options::{Options, Stats};
use crate::queue::Queue;
use crate::setup::{self, Features};
use crate::wire::ControlBlocks;

mod complete;
mod submit;

/// Index of the one queue that we use.
const REQUEST_QUEUE: u16 = 0;

/// Whether the device may be used, and whether it may still write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Life {
    /// In use.
    Alive,
    /// Told to reset, not confirmed: it may still write.
    Resetting,
    /// Reset: it does nothing any more.
    Reset,
}

/// One request in flight.
struct Slot {
    op: Option<Op>,
    /// What `Hal::share` returned for each lease; `Hal::unshare` wants it back. Kept here, since
    /// the copy in the descriptor table is within the device's reach.
    addresses: [PhysAddr; SEGMENTS_MAX],
}

impl Slot {
    const FREE: Slot = Slot {
        op: None,
        addresses: [0; SEGMENTS_MAX],
    };
}

/// A virtio block device: see the [crate documentation](crate).
///
/// `Q` is the largest queue size to use, a power of two from 4 to 1024; a device with a shorter
/// queue gets a shorter one. `size_of` is about `75 * Q` bytes.
pub struct VirtioBlk<H: Hal, T: Transport, const Q: usize> {
    /// Not dropped if the device does not reset: a transport's `Drop` may wait for that for ever.
    transport: ManuallyDrop<T>,
    queue: Queue<H, Q>,
    control: ControlBlocks<H>,
    slots: [Slot; Q],
    in_flight: u16,
    /// Ops that needed no request.
    finished: OpQueue,
    geometry: Geometry,
    options: Options,
    life: Life,
    fault: Option<Fault>,
    /// Slots below this one were emptied after a reset.
    reset_cursor: usize,
    fruitless_polls: u32,
    last_poll: Instant,
    waker: Option<Waker>,
    stats: Stats,
    hal: PhantomData<fn() -> H>,
}

// A raw pointer in a field would take `Send` away silently, and with it `spin::Mutex<Disk>`. The
// pointers live in `Region`, which argues why it is `Send`; everything else must be so by itself.
const _: () = {
    const fn assert_send<S: Send>() {}
    #[allow(dead_code)]
    const fn is_send_with_its_transport<H: Hal, T: Transport + Send, const Q: usize>() {
        assert_send::<VirtioBlk<H, T, Q>>();
    }
};

impl<H: Hal, T: Transport, const Q: usize> VirtioBlk<H, T, Q> {
    const QUEUE_LEGAL: () = assert!(
        Q.is_power_of_two() && Q >= 4 && Q <= 1024,
        "Q must be a power of two from 4 to 1024"
    );

    /// Resets the device, negotiates with it, and sets up its queue.
    ///
    /// Waits for the device's reset, at most about a second. Takes DMA memory from `H`: see the
    /// crate documentation for how much.
    ///
    /// # Errors
    /// See [`InitError`]. The device is then reset, the transport dropped and the memory given
    /// back, but for `ResetTimeout`, which leaks the transport.
    pub fn new(transport: T, options: Options) -> Result<Self, InitError> {
        let () = Self::QUEUE_LEGAL;
        let mut transport = ManuallyDrop::new(transport);
        let error = match Self::bring_up(&mut transport, &options) {
            Ok((queue, control, geometry)) => {
                return Ok(VirtioBlk {
                    transport,
                    queue,
                    control,
                    slots: [const { Slot::FREE }; Q],
                    in_flight: 0,
                    finished: OpQueue::new(),
                    geometry,
                    options,
                    life: Life::Alive,
                    fault: None,
                    reset_cursor: 0,
                    fruitless_polls: 0,
                    last_poll: Instant::ZERO,
                    waker: None,
                    stats: Stats::default(),
                    hal: PhantomData,
                });
            }
            Err(error) => error,
        };
        match error {
            InitError::ResetTimeout => {}
            InitError::NotBlock | InitError::BadOptions => {
                drop(ManuallyDrop::into_inner(transport))
            }
            _ => {
                transport.set_status(DeviceStatus::FAILED);
                drop(ManuallyDrop::into_inner(transport));
            }
        }
        Err(error)
    }

    #[allow(clippy::type_complexity)] // three parts of `Self`, named nowhere else
    fn bring_up(
        transport: &mut T,
        options: &Options,
    ) -> Result<(Queue<H, Q>, ControlBlocks<H>, Geometry), InitError> {
        if transport.device_type() != DeviceType::Block {
            return Err(InitError::NotBlock);
        }
        options.check()?;
        let features = setup::negotiate(transport, options)?;
        let config = setup::read_config(transport, features)?;
        if transport.queue_used(REQUEST_QUEUE) {
            return Err(InitError::NoQueue);
        }
        let size = transport.max_queue_size(REQUEST_QUEUE).min(Q as u32) as u16;
        if size < 4 {
            return Err(InitError::NoQueue);
        }
        let size = 1 << size.ilog2();
        let geometry = setup::geometry(&config, features, size, options)?;

        let indirect = features.has(Features::INDIRECT);
        let queue = Queue::alloc(size, indirect, options.interrupts);
        let mut queue = queue.ok_or(InitError::NoMemory)?;
        let Some(control) = ControlBlocks::alloc(size) else {
            // SAFETY: no device has been told about this memory yet.
            unsafe { queue.free() };
            return Err(InitError::NoMemory);
        };
        let at = queue.addresses();
        transport.queue_set(
            REQUEST_QUEUE,
            u32::from(queue.size()),
            at.descriptors,
            at.available,
            at.used,
        );
        transport.set_status(
            DeviceStatus::ACKNOWLEDGE
                | DeviceStatus::DRIVER
                | DeviceStatus::FEATURES_OK
                | DeviceStatus::DRIVER_OK,
        );
        Ok((queue, control, geometry))
    }

    /// Why the device was given up, if it was.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        self.fault
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// Operations that have been accepted and not come back from `poll`.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        usize::from(self.in_flight) + self.finished.len()
    }

    /// Operations that [`poll`](BlockDevice::poll) has yet to return and for which the device need not
    /// do any more. Equal to [`in_flight`](VirtioBlk::in_flight) when it has nothing left to do, so
    /// that a measurement can leave out the time of waiting.
    #[must_use]
    pub fn completions_waiting(&self) -> usize {
        usize::from(self.queue.used_waiting()) + self.finished.len()
    }

    /// Stops the device for good: it is reset without waiting, and refuses everything from here on.
    /// What is in flight comes back from [`poll`](BlockDevice::poll) with `Removed` once the device
    /// has confirmed the reset. Drain the device first to lose nothing.
    pub fn stop(&mut self) {
        self.condemn(Fault::Stopped);
    }

    /// To be called after the device's interrupt: acknowledges it, and wakes whoever called
    /// `set_waker`. Returns what the interrupt was about; empty means that it was not this device's.
    ///
    /// It needs the device exclusively. A handler that may interrupt the owner can not have that:
    /// there, let the handler set a flag and mask the line, and call this, then unmask, outside.
    pub fn on_interrupt(&mut self) -> InterruptStatus {
        let cause = self.transport.ack_interrupt();
        if cause.contains(InterruptStatus::DEVICE_CONFIGURATION_INTERRUPT) {
            self.check_status();
        }
        if cause != InterruptStatus::empty()
            && let Some(waker) = &self.waker
        {
            waker.wake_by_ref();
        }
        cause
    }

    /// Reads the capacity again, as after an interrupt about the configuration, and returns it in
    /// bytes. A device that shrank keeps its old capacity here and fails what it no longer has.
    pub fn refresh_capacity(&mut self) -> u64 {
        let logical = self.geometry.logical_block_bytes;
        if self.life == Life::Alive
            && let Ok(sectors) = setup::read_capacity(&*self.transport)
            && let Ok(bytes) = setup::capacity_bytes(sectors, logical)
        {
            self.geometry.capacity_bytes = self.geometry.capacity_bytes.max(bytes);
        }
        self.geometry.capacity_bytes
    }
}

/// The memory of one lease. Not a slice: the memory may be shared with others.
fn segment(op: &Op, index: usize) -> Option<NonNull<[u8]>> {
    // SAFETY: the pointer is used only while the adapter owns the op: `start` puts the op into its
    // slot before the device learns the address, and `take` ends the device's access (invariant 2)
    // before it gives the op away.
    let (start, len) = unsafe { op.segment_raw(index) }?;
    Some(NonNull::slice_from_raw_parts(start, len))
}

fn direction_of(kind: OpKind) -> BufferDirection {
    match kind {
        OpKind::Read => BufferDirection::DeviceToDriver,
        _ => BufferDirection::DriverToDevice,
    }
}

impl<H: Hal, T: Transport, const Q: usize> BlockDevice for VirtioBlk<H, T, Q> {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn submit(&mut self, mut op: Op) -> Result<(), Op> {
        let request = match self.plan(&op) {
            Ok(Some(request)) => request,
            Ok(None) => {
                op.complete(Ok(()));
                self.finished.push_back(op);
                return Ok(());
            }
            Err(error) => return refuse(op, error),
        };
        let pieces = 2 + usize::from(request.range.is_some()) + op.segment_count();
        if self.in_flight >= self.geometry.queue_depth || !self.queue.has_room(pieces) {
            return refuse(op, DeviceError::Busy);
        }
        self.start(op, &request);
        Ok(())
    }

    fn notify(&mut self) {
        if self.life != Life::Alive {
            return;
        }
        match self.queue.take_kick() {
            Some(true) => {
                self.transport.notify(REQUEST_QUEUE);
                self.stats.notifications += 1;
            }
            Some(false) => self.stats.notifications_saved += 1,
            None => {}
        }
    }

    fn poll(&mut self, now: Instant) -> Option<Op> {
        self.last_poll = now;
        if let Some(op) = self.finished.pop_front() {
            return Some(op);
        }
        if self.life == Life::Alive
            && let Some(op) = self.poll_alive()
        {
            return Some(op);
        }
        match self.life {
            Life::Alive => None,
            Life::Resetting | Life::Reset => self.poll_condemned(),
        }
    }

    /// With interrupts: `Now` while a completion waits, else `Event`. Without: `Event` only while
    /// nothing is in flight, else `Now`, or `At` after the interval of the options.
    fn poll_at(&self) -> When {
        if !self.finished.is_empty() {
            return When::Now;
        }
        if self.in_flight == 0 {
            return When::Event;
        }
        match self.life {
            Life::Reset => return When::Now,
            Life::Alive if self.queue.has_used() => return When::Now,
            Life::Alive if self.options.interrupts => return When::Event,
            // No interrupt tells of a finished reset.
            Life::Alive | Life::Resetting => {}
        }
        match self.options.poll_interval_micros {
            0 => When::Now,
            micros => When::At(self.last_poll.after_micros(u64::from(micros))),
        }
    }

    /// True if [`Options::interrupts`] is set; then [`VirtioBlk::on_interrupt`] wakes it.
    fn set_waker(&mut self, waker: &Waker) -> bool {
        if self.options.interrupts {
            match &mut self.waker {
                Some(own) => own.clone_from(waker),
                none => *none = Some(waker.clone()),
            }
        }
        self.options.interrupts
    }
}

/// Resets the device and waits for that, at most about a second. Then the queue memory goes back to
/// the platform, and the leases in flight are forgotten: their owners never see them again. If the
/// device does not confirm, everything it may still write to is leaked, the transport included.
impl<H: Hal, T: Transport, const Q: usize> Drop for VirtioBlk<H, T, Q> {
    fn drop(&mut self) {
        if self.life != Life::Reset && !setup::reset(&mut *self.transport) {
            return;
        }
        self.life = Life::Reset;
        for index in 0..Q {
            // Lets a bouncing platform have its buffers back. An op that is dropped leaks its leases.
            let _leaked = self.take(index);
        }
        // SAFETY: the device confirmed its reset, so it does not access memory of the driver.
        unsafe { self.queue.free() };
        // SAFETY: likewise.
        unsafe { self.control.free() };
        // SAFETY: `transport` is dropped here only, and nothing uses it after `drop`.
        unsafe { ManuallyDrop::drop(&mut self.transport) };
    }
}
