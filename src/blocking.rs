//! For callers who want to wait: opening, closing and plain reads and writes, one at a time.
//!
//! Every function here drives a poll-driven thing until it is done and calls `idle` in between.
//! `idle` is given when to poll next and returns the time: it may spin, sleep, halt the processor or
//! run other work. It is the only place where waiting happens.

use core::mem::MaybeUninit;
use core::task::Poll;

use crate::buffer::{Arena, Head, Op, OpPool};
use crate::check::Inspection;
use crate::create::{Create, Created};
use crate::device::{BlockDevice, DeviceError, OpFlags, OpKind, Status, When};
use crate::engine::{Closed, Closing, Disk, Staging};
use crate::format::Header;
use crate::open::{Layout, OpenError, OpenFailure, OpenOptions, Opening, Probe, Purpose};
use crate::repair::{Repair, RepairError, Repaired};
use crate::stores::Stores;
use crate::units::Instant;

/// Writes a new image; see [`Create`].
pub fn create<D: BlockDevice>(
    device: D,
    header: Header,
    zeroed: bool,
    memory: &'static mut [MaybeUninit<u8>],
    mut idle: impl FnMut(When) -> Instant,
) -> Created<D> {
    let mut create = Create::new(device, header, zeroed, memory);
    let mut now = idle(When::Now);
    while create.poll(now) == Poll::Pending {
        now = idle(create.poll_at());
    }
    create.finish()
}

/// A probed image, and the memory for what follows.
struct Prepared<S> {
    stores: S,
    layout: Layout,
    memory: &'static mut [MaybeUninit<u8>],
}

/// The first step of opening, for whatever purpose.
fn probe<S: Stores>(
    stores: S,
    options: OpenOptions,
    memory: &'static mut [MaybeUninit<u8>],
    purpose: Purpose,
    idle: &mut impl FnMut(When) -> Instant,
) -> Result<Prepared<S>, OpenFailure<S>> {
    let mut probe = Probe::for_purpose(stores, memory, options, purpose);
    let mut now = idle(When::Now);
    while probe.poll(now) == Poll::Pending {
        now = idle(probe.poll_at());
    }
    let probed = probe.finish().map_err(|failure| OpenFailure {
        stores: failure.stores,
        memory: failure.memory,
        error: failure.error,
    })?;
    match probed.memory {
        Some(memory) => Ok(Prepared {
            stores: probed.stores,
            layout: probed.layout,
            memory,
        }),
        // A device kept a part of the memory, although its read came home.
        None => Err(OpenFailure {
            stores: probed.stores,
            memory: None,
            error: OpenError::Device {
                role: crate::stores::Role::Metadata,
                error: DeviceError::Protocol,
            },
        }),
    }
}

/// Opens an image in one block of memory, which serves the probe first and the disk then.
///
/// # Errors
/// As [`Probe`] and [`Opening`]. If the memory is too small, the error says how much is needed.
pub fn open<S: Stores>(
    stores: S,
    options: OpenOptions,
    memory: &'static mut [MaybeUninit<u8>],
    mut idle: impl FnMut(When) -> Instant,
) -> Result<Disk<S>, OpenFailure<S>> {
    let probed = probe(stores, options, memory, Purpose::Use, &mut idle)?;
    let mut opening = Opening::new(probed.stores, probed.layout, probed.memory);
    let mut now = idle(When::Now);
    while opening.poll(now) == Poll::Pending {
        now = idle(opening.poll_at());
    }
    opening.finish()
}

/// Reads an image to look at it; see [`Inspection`]. Nothing is written. The memory is as for
/// [`open`].
///
/// # Errors
/// As [`Probe`]: without a header nothing can be looked at. What is wrong behind it is no error.
pub fn inspect<S: Stores>(
    stores: S,
    options: OpenOptions,
    memory: &'static mut [MaybeUninit<u8>],
    mut idle: impl FnMut(When) -> Instant,
) -> Result<Inspection<S>, OpenFailure<S>> {
    let options = OpenOptions {
        read_only: true,
        ..options
    };
    let probed = probe(stores, options, memory, Purpose::Inspect, &mut idle)?;
    let mut opening = Opening::new(probed.stores, probed.layout, probed.memory);
    let mut now = idle(When::Now);
    while opening.poll(now) == Poll::Pending {
        now = idle(opening.poll_at());
    }
    let (disk, survey) = opening.finish_survey()?;
    Ok(Inspection::new(disk, survey))
}

/// Repairs an image; see [`Repair`]. The memory is as for [`open`].
pub fn repair<S: Stores>(
    stores: S,
    options: OpenOptions,
    memory: &'static mut [MaybeUninit<u8>],
    mut idle: impl FnMut(When) -> Instant,
) -> Repaired<S> {
    let probed = match probe(stores, options, memory, Purpose::Repair, &mut idle) {
        Ok(probed) => probed,
        Err(failure) => {
            return Repaired {
                stores: failure.stores,
                memory: failure.memory,
                result: Err(RepairError::Open(failure.error)),
            };
        }
    };
    let mut repair = Repair::new(probed.stores, probed.layout, probed.memory);
    let mut now = idle(When::Now);
    loop {
        while repair.poll(now) == Poll::Pending {
            now = idle(repair.poll_at());
        }
        match repair.finish() {
            Ok(repaired) => return repaired,
            Err(again) => repair = again,
        }
    }
}

/// Closes a disk cleanly; see [`Disk::close`]. Requests in flight are completed and handed to
/// `reaped`.
pub fn close<S: Stores>(
    disk: Disk<S>,
    mut idle: impl FnMut(When) -> Instant,
    mut reaped: impl FnMut(Op),
) -> Closed<S> {
    let mut closing: Closing<S> = disk.close();
    let mut now = idle(When::Now);
    loop {
        let ready = closing.poll(now) == Poll::Ready(());
        while let Some(op) = closing.reap() {
            reaped(op);
        }
        if ready {
            match closing.finish() {
                Ok(closed) => return closed,
                Err(again) => closing = again,
            }
        }
        now = idle(closing.poll_at());
    }
}

/// Starts `op` and waits for it. `foreign` is handed what completes in between and is not `op`.
pub fn execute<D: BlockDevice + ?Sized>(
    device: &mut D,
    op: Op,
    mut idle: impl FnMut(When) -> Instant,
    mut foreign: impl FnMut(Op),
) -> Op {
    let print = op.fingerprint();
    let mut waiting = Some(op);
    let mut now = idle(When::Now);
    loop {
        if let Some(op) = waiting.take() {
            match device.submit(op) {
                Ok(()) => device.notify(),
                Err(op) if op.status() == Status::Failed(DeviceError::Busy) => waiting = Some(op),
                Err(op) => return op,
            }
        }
        match device.poll(now) {
            Some(op) if op.fingerprint() == print => return op,
            Some(op) => foreign(op),
            None => now = idle(device.poll_at()),
        }
    }
}

/// Bytes of memory that a [`Blocking`] with a bounce buffer of `bounce_bytes` needs.
#[must_use]
pub const fn blocking_arena_bytes(bounce_bytes: u32) -> usize {
    Arena::staging_bytes(OpPool::arena_bytes(2)) + Arena::staging_bytes(bounce_bytes as usize)
}

/// A device for callers who wait, with ordinary slices.
///
/// A slice can not be lent to a device that works on after the call, so everything is copied through
/// a bounce buffer. Use leases and [`BlockDevice::submit`] where that matters.
pub struct Blocking<D, I> {
    device: D,
    idle: I,
    arena: Arena,
    pool: OpPool,
    bounce: Staging,
    bounce_bytes: u64,
}

impl<D: BlockDevice, I: FnMut(When) -> Instant> Blocking<D, I> {
    /// Wraps a device nobody else uses. `memory` starts at a multiple of 4096; all of it beyond a
    /// little bookkeeping becomes the bounce buffer, which must hold at least one logical block.
    ///
    /// # Errors
    /// Gives the device back if the memory is too small or misaligned.
    pub fn new(
        device: D,
        memory: &'static mut [MaybeUninit<u8>],
        idle: I,
    ) -> Result<Blocking<D, I>, D> {
        let geometry = device.geometry();
        let room = memory.len().saturating_sub(blocking_arena_bytes(0));
        let longest = u64::from(geometry.transfer_max_bytes.min(geometry.segment_max_bytes));
        let bounce_bytes = (room as u64).min(longest) & !4095;
        let made = Arena::new(memory).ok().and_then(|mut arena| {
            let mut pool = OpPool::carve(&mut arena, 2)?;
            arena.align_staging()?;
            let bounce = Staging::carve(&mut arena, &mut pool, u32::try_from(bounce_bytes).ok()?)?;
            Some((arena, pool, bounce))
        });
        match made {
            Some((arena, pool, bounce)) => Ok(Blocking {
                device,
                idle,
                arena,
                pool,
                bounce,
                bounce_bytes,
            }),
            None => Err(device),
        }
    }

    /// The device.
    pub fn device(&self) -> &D {
        &self.device
    }

    /// The device, to use it directly; it must be idle when this borrow ends.
    pub fn device_mut(&mut self) -> &mut D {
        &mut self.device
    }

    /// Gives device and memory back.
    pub fn into_parts(self) -> (D, Option<&'static mut [MaybeUninit<u8>]>) {
        let Blocking {
            device,
            mut arena,
            mut pool,
            bounce,
            ..
        } = self;
        let home = bounce.reclaim(&mut arena, &mut pool) & pool.reclaim(&mut arena).is_ok();
        (device, if home { arena.finish().ok() } else { None })
    }

    fn run(
        &mut self,
        kind: OpKind,
        flags: OpFlags,
        offset: u64,
        len: u64,
        data: bool,
    ) -> Result<(), DeviceError> {
        let head = Head::new(kind, offset, len).with_flags(flags);
        let op = if data {
            self.bounce.send(&mut self.pool, head, len)
        } else {
            self.pool.take(head)
        };
        let op = op.ok_or(DeviceError::Protocol)?;
        let op = execute(&mut self.device, op, &mut self.idle, drop);
        let result = match op.status() {
            Status::Done => Ok(()),
            Status::Failed(error) => Err(error),
            Status::Pending => Err(DeviceError::Protocol),
        };
        let home = if data {
            self.bounce.receive(&mut self.pool, op)
        } else {
            self.pool.put(op).is_ok()
        };
        if home {
            result
        } else {
            Err(DeviceError::Protocol)
        }
    }

    /// Reads `target.len()` bytes from byte `offset`, both multiples of the logical block.
    ///
    /// # Errors
    /// What the device answers; `target` may then be partly filled.
    pub fn read_at(&mut self, offset: u64, target: &mut [u8]) -> Result<(), DeviceError> {
        let step = self.bounce_bytes.max(1) as usize;
        let mut at = offset;
        for piece in target.chunks_mut(step) {
            self.run(OpKind::Read, OpFlags::NONE, at, piece.len() as u64, true)?;
            self.bounce.copy_out(0, piece);
            at = at.saturating_add(piece.len() as u64);
        }
        Ok(())
    }

    /// Writes `source` at byte `offset`; length and offset are multiples of the logical block.
    ///
    /// # Errors
    /// What the device answers; the range may then be partly written.
    pub fn write_at(&mut self, offset: u64, source: &[u8]) -> Result<(), DeviceError> {
        let step = self.bounce_bytes.max(1) as usize;
        let mut at = offset;
        for piece in source.chunks(step) {
            self.bounce.copy_in(0, piece);
            self.run(OpKind::Write, OpFlags::NONE, at, piece.len() as u64, true)?;
            at = at.saturating_add(piece.len() as u64);
        }
        Ok(())
    }

    /// Makes every completed write durable.
    ///
    /// # Errors
    /// What the device answers.
    pub fn flush(&mut self) -> Result<(), DeviceError> {
        self.run(OpKind::Flush, OpFlags::NONE, 0, 0, false)
    }

    /// Makes a range read zeros, in steps that the device takes.
    ///
    /// # Errors
    /// What the device answers; `Unsupported` if it has no write-zeroes.
    pub fn write_zeroes_at(&mut self, offset: u64, len: u64) -> Result<(), DeviceError> {
        let limits = self
            .device
            .geometry()
            .write_zeroes
            .ok_or(DeviceError::Unsupported)?;
        self.stepwise(OpKind::WriteZeroes, limits.max_bytes, offset, len)
    }

    /// Says that a range is not needed any more, in steps that the device takes.
    ///
    /// # Errors
    /// What the device answers; `Unsupported` if it has no discard.
    pub fn discard_at(&mut self, offset: u64, len: u64) -> Result<(), DeviceError> {
        let limits = self
            .device
            .geometry()
            .discard
            .ok_or(DeviceError::Unsupported)?;
        self.stepwise(OpKind::Discard, limits.max_bytes, offset, len)
    }

    fn stepwise(
        &mut self,
        kind: OpKind,
        longest: u64,
        offset: u64,
        len: u64,
    ) -> Result<(), DeviceError> {
        let block = u64::from(self.device.geometry().logical_block_bytes);
        let longest = (longest & !(block.wrapping_sub(1))).max(block);
        let (mut at, mut left) = (offset, len);
        while left > 0 {
            let step = left.min(longest);
            self.run(kind, OpFlags::NONE, at, step, false)?;
            at = at.saturating_add(step);
            left -= step;
        }
        Ok(())
    }
}
