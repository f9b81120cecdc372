//! Many requests at once: overwrites known extents of the disk through `submit`, and reads them
//! back the same way.
//!
//! ```text
//! Slot (at rest: op and buffer) ── lend the buffer, submit ──► the disk has op and lease
//!   ▲                                                             │
//!   └──────────── redeem the lease, look at the outcome ◄── poll ─┘
//! ```
//!
//! Invariants:
//! 1. The requests of one round touch disjoint sectors: fvd, like any disk, says nothing about the
//!    order of requests that overlap.
//! 2. A round ends with nothing in flight.

use crate::agreed::Pattern;
use crate::disk::{self, Disk};
use crate::platform::memory;
use core::fmt;
use core::time::Duration;
use fvd::buffer::{ARENA_ALIGN, Arena, Head, Loan, Op, OpPool};
use fvd::device::{BlockDevice, DeviceError, OpKind, Status};
use fvd::units::SECTOR_BYTES;
use heapless::Vec;

/// Slots with a buffer: the largest depth there can be.
pub(crate) const DEPTH_MAX: usize = 64;

/// Sizes of the slots' buffers, and so of requests: single sectors, parts of a copy-on-write block
/// that begin and end anywhere, whole blocks, several.
const SIZES: [usize; 8] = [512, 4096, 1536, 65_536, 16_384, 7_680, 131_072, 33_280];

/// So many requests apart a flush is sent among the others.
const FLUSH_INTERVAL: u64 = 48;

/// The tag of flushes, which have no buffer. Other tags are indices of slots.
const FLUSH_TAG: u64 = DEPTH_MAX as u64;

pub(crate) const EXTENT_COUNT_MAX: usize = 8;

/// A part of a file on the disk.
#[derive(Clone, Copy)]
pub(crate) struct Extent {
    /// First byte on the disk.
    pub(crate) offset: u64,
    /// A multiple of a sector.
    pub(crate) bytes: u64,
}

/// The parts of a file, in its order.
pub(crate) type Extents = Vec<Extent, EXTENT_COUNT_MAX>;

/// What a round does with the extents.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Task {
    Write,
    /// Reads, and checks what comes.
    Verify,
}

/// One pass over all extents.
#[derive(Clone, Copy)]
pub(crate) struct Round {
    pub(crate) task: Task,
    pub(crate) depth: usize,
    pub(crate) pattern: Pattern,
}

/// What a round did.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) requests: u64,
    pub(crate) flushes: u64,
    pub(crate) bytes: u64,
    /// Most requests that the disk had in flight at once.
    pub(crate) in_flight_max: usize,
    /// Most operations that the image's virtio disk had.
    pub(crate) device_in_flight_max: usize,
    pub(crate) elapsed: Duration,
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} requests, {} flushes, {} bytes in {} us; at most {} in flight, {} at the device",
            self.requests,
            self.flushes,
            self.bytes,
            self.elapsed.as_micros(),
            self.in_flight_max,
            self.device_in_flight_max
        )
    }
}

/// A request at rest, or what stays here of one that the disk has.
struct Slot {
    op: Option<Op>,
    buffer: Option<&'static mut [u8]>,
    loan: Option<Loan<&'static mut [u8]>>,
    size: usize,
    /// Where in the file the request is.
    position: u64,
}

/// Sends requests, and takes them back.
pub(crate) struct Load<'l, 'd> {
    disk: &'l mut Disk<'d>,
    slots: Vec<Slot, DEPTH_MAX>,
    flush: Option<Op>,
    random: u64,
}

impl<'l, 'd> Load<'l, 'd> {
    /// Takes memory for [`DEPTH_MAX`] requests.
    ///
    /// # Panics
    ///
    /// If there is none.
    pub(crate) fn new(disk: &'l mut Disk<'d>, seed: u64) -> Load<'l, 'd> {
        let bytes = OpPool::arena_bytes(DEPTH_MAX + 1).next_multiple_of(ARENA_ALIGN);
        let pool = Arena::new(disk::region(bytes))
            .ok()
            .and_then(|mut arena| OpPool::carve(&mut arena, DEPTH_MAX as u32 + 1));
        let Some(mut pool) = pool else {
            panic!("{bytes} bytes are too few for the requests");
        };
        let mut slots = Vec::new();
        for index in 0..DEPTH_MAX {
            let size = SIZES[index % SIZES.len()];
            let slot = Slot {
                op: pool.take(head(OpKind::Flush, 0, 0, 0)),
                buffer: memory::take_zeroed(size),
                loan: None,
                size,
                position: 0,
            };
            assert!(slot.buffer.is_some(), "no memory left for requests");
            // It has as many places as the loop has turns.
            let _ = slots.push(slot);
        }
        Load {
            disk,
            slots,
            flush: pool.take(head(OpKind::Flush, 0, 0, FLUSH_TAG)),
            random: seed | 1,
        }
    }

    /// Does one round over the extents.
    ///
    /// # Errors
    ///
    /// The first error of a request.
    ///
    /// # Panics
    ///
    /// If something else was read than the pattern.
    pub(crate) fn run(&mut self, extents: &Extents, round: &Round) -> Result<Outcome, DeviceError> {
        let start = disk::now();
        let mut todo = Todo::new(extents);
        let mut outcome = Outcome::default();
        loop {
            while self.disk.in_flight() < round.depth
                && self.send(&mut todo, round, &mut outcome)?
            {
                outcome.in_flight_max = outcome.in_flight_max.max(self.disk.in_flight());
            }
            self.disk.notify();
            let at_device = self.disk.stores().parts().0.0.counts().in_flight() as usize;
            outcome.device_in_flight_max = outcome.device_in_flight_max.max(at_device);
            // Not `in_flight() == 0`: completions that nobody took yet do not count there.
            let home = self.slots.iter().all(|slot| slot.op.is_some());
            if home && self.flush.is_some() {
                break;
            }
            match self.disk.poll(disk::now()) {
                Some(op) => self.receive(op, round)?,
                None => {
                    disk::idle(self.disk.poll_at());
                }
            }
        }
        let micros = disk::now().micros - start.micros;
        outcome.elapsed = Duration::from_micros(micros);
        Ok(outcome)
    }

    /// Sends one more request. False if there is nothing to send, or nothing can be sent now.
    fn send(
        &mut self,
        todo: &mut Todo,
        round: &Round,
        outcome: &mut Outcome,
    ) -> Result<bool, DeviceError> {
        let due = outcome.requests / FLUSH_INTERVAL > outcome.flushes;
        if due && let Some(op) = self.flush.take() {
            let sent = self.submit(op)?;
            outcome.flushes += u64::from(sent);
            return Ok(sent);
        }
        let from_front = self.next_random() & 1 == 0;
        let room = todo.room(from_front);
        let Some(index) = self.find_slot(room) else {
            return Ok(false);
        };
        let kind = match round.task {
            Task::Write => OpKind::Write,
            Task::Verify => OpKind::Read,
        };
        let slot = &mut self.slots[index];
        let (Some(mut op), Some(buffer)) = (slot.op.take(), slot.buffer.take()) else {
            return Ok(false);
        };
        let (offset, position) = todo.place(from_front, slot.size as u64);
        if round.task == Task::Write {
            round.pattern.fill(position, buffer);
        }
        let Ok((loan, lease)) = Loan::new(buffer) else {
            panic!("a buffer that cannot be lent");
        };
        slot.loan = Some(loan);
        slot.position = position;
        op.set_head(head(kind, offset, slot.size as u64, index as u64));
        if op.push(lease).is_err() {
            panic!("an op at rest had leases");
        }
        let size = slot.size as u64;
        if !self.submit(op)? {
            return Ok(false);
        }
        todo.take(from_front, size);
        outcome.requests += 1;
        outcome.bytes += size;
        Ok(true)
    }

    /// Hands an op to the disk. False if it has no room: then the op is at rest again.
    fn submit(&mut self, op: Op) -> Result<bool, DeviceError> {
        match self.disk.submit(op) {
            Ok(()) => Ok(true),
            Err(op) if op.status() == Status::Failed(DeviceError::Busy) => {
                self.rest(op);
                Ok(false)
            }
            Err(op) => match op.status() {
                Status::Failed(error) => Err(error),
                Status::Pending | Status::Done => Err(DeviceError::Protocol),
            },
        }
    }

    /// Takes a completed request back and looks at its outcome.
    fn receive(&mut self, op: Op, round: &Round) -> Result<(), DeviceError> {
        let (kind, status) = (op.kind(), op.status());
        let slot = self.rest(op);
        match status {
            Status::Done => {}
            Status::Failed(error) => return Err(error),
            Status::Pending => return Err(DeviceError::Protocol),
        }
        if kind == OpKind::Read
            && let Some(slot) = slot
            && let Some(buffer) = &self.slots[slot].buffer
        {
            let position = self.slots[slot].position;
            if let Some(at) = find_difference(round.pattern, position, buffer) {
                panic!("the byte at {at} of the file is not what was written there");
            }
        }
        Ok(())
    }

    /// Puts an op to rest with its buffer. Returns the slot, unless it is the flush.
    fn rest(&mut self, mut op: Op) -> Option<usize> {
        if op.tag() == FLUSH_TAG {
            self.flush = Some(op);
            return None;
        }
        let index = op.tag() as usize;
        let slot = &mut self.slots[index];
        let buffer = match (slot.loan.take(), op.pop()) {
            (Some(loan), Some(lease)) => loan.redeem(lease).ok(),
            _ => None,
        };
        assert!(buffer.is_some(), "a request came home without its buffer");
        slot.buffer = buffer;
        slot.op = Some(op);
        Some(index)
    }

    /// A slot at rest whose buffer fits, from a random one on.
    fn find_slot(&mut self, room: u64) -> Option<usize> {
        let first = self.next_random() as usize;
        (0..DEPTH_MAX)
            .map(|step| first.wrapping_add(step) % DEPTH_MAX)
            .find(|&index| {
                let slot = &self.slots[index];
                slot.op.is_some() && slot.size as u64 <= room
            })
    }

    /// Xorshift: enough to mix sizes and ends, and the same for every run with the same seed.
    fn next_random(&mut self) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random >> 16
    }
}

fn head(kind: OpKind, offset: u64, len: u64, tag: u64) -> Head {
    Head::new(kind, offset, len).with_tag(tag)
}

/// The first position from `position` on at which `bytes` are not the pattern.
fn find_difference(pattern: Pattern, position: u64, bytes: &[u8]) -> Option<u64> {
    let mut expected = [0; SECTOR_BYTES as usize];
    let mut at = position;
    for sector in bytes.chunks(expected.len()) {
        pattern.fill(at, &mut expected);
        if let Some(index) = sector.iter().zip(&expected).position(|(a, b)| a != b) {
            return Some(at + index as u64);
        }
        at += SECTOR_BYTES;
    }
    None
}

/// What is left of the extents: they are used up from both ends, so that requests are not in
/// order.
struct Todo {
    /// With their positions in the file.
    left: Vec<(Extent, u64), EXTENT_COUNT_MAX>,
}

impl Todo {
    fn new(extents: &Extents) -> Todo {
        let mut position = 0;
        let left = extents.iter().map(|&extent| {
            let start = position;
            position += extent.bytes;
            (extent, start)
        });
        Todo {
            left: left.collect(),
        }
    }

    fn end(&self, front: bool) -> Option<&(Extent, u64)> {
        if front {
            self.left.first()
        } else {
            self.left.last()
        }
    }

    /// Bytes that one request can take at an end.
    fn room(&self, front: bool) -> u64 {
        self.end(front).map_or(0, |(extent, _)| extent.bytes)
    }

    /// Place on the disk and in the file of the next `bytes` at an end, which has that room.
    fn place(&self, front: bool, bytes: u64) -> (u64, u64) {
        let Some((extent, position)) = self.end(front) else {
            return (0, 0);
        };
        let skip = if front { 0 } else { extent.bytes - bytes };
        (extent.offset + skip, position + skip)
    }

    /// Uses up `bytes` at an end.
    fn take(&mut self, front: bool, bytes: u64) {
        let index = if front {
            0
        } else {
            self.left.len().saturating_sub(1)
        };
        let Some((extent, position)) = self.left.get_mut(index) else {
            return;
        };
        extent.bytes -= bytes;
        if front {
            extent.offset += bytes;
            *position += bytes;
        }
        if extent.bytes == 0 {
            self.left.remove(index);
        }
    }
}
