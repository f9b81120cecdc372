//! What the crate asks of a block device, and what a `Disk` is in turn.
//!
//! # The power-loss contract
//!
//! What may be true of each *atomic unit* ([`Geometry::atomic_write_bytes`], at a multiple of its
//! size) after power is lost:
//!
//! | operation on the unit | not submitted | submitted, not completed | completed, no later flush completed | a flush submitted after its completion has completed |
//! | --- | --- | --- | --- | --- |
//! | `Write` | old | old or new | old or new | new |
//! | `Write` with FUA | old | old or new | new | new |
//! | `WriteZeroes` | old | old or zeros | old or zeros | zeros |
//! | `Discard` | old | anything the unit ever held, or zeros | likewise | zeros if `zeroes_after`, else one stable but unknown value |
//!
//! * Units are independent of each other, also those of one write.
//! * A unit with several unflushed writes holds any one of them, or what it held before.
//! * A unit that no unflushed operation touches keeps its value. Where a device can damage
//!   neighbours (4 KiB physical blocks behind 512-byte sectors), it must declare the larger size as
//!   its atomic unit.
//! * `Flush` covers every operation that **completed before the flush was submitted**, no other.
//! * Without [`Geometry::volatile_cache`], completion is durability.
//! * Completions come in any order. Reads that run beside a write to the same unit see the old or
//!   the new content.
//! * After a failed `Flush` the state of every unflushed unit is unknown.
//!
//! An adapter advertises a feature only if every layer below has it.

mod counting;
mod fault;
mod null;
mod ram;
#[cfg(test)]
pub(crate) mod testing;
mod trace;

use core::task::Waker;

use crate::buffer::{Head, Op};
use crate::units::Instant;

pub use counting::{Counting, Counts};
pub use fault::{Delivery, FailNth, Fault, FaultPlan, Verdict};
pub use null::Null;
pub use ram::Ram;
pub use trace::{Trace, TraceEvent, TraceSink};

/// What an operation does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum OpKind {
    /// Device to leases.
    Read,
    /// Leases to device.
    Write,
    /// Makes durable what completed before. Length 0.
    Flush,
    /// The content is not needed any more; advisory.
    Discard,
    /// The range reads zeros afterwards.
    WriteZeroes,
    /// Extends the device so that it holds at least `len` bytes (`offset` is 0). Only where
    /// [`Geometry::growth`] is set. The new size is in the geometry when the operation completes,
    /// and is durable after a flush.
    Grow,
}

/// How an operation is done: a set of flags.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct OpFlags(u8);

impl OpFlags {
    /// No flag.
    pub const NONE: OpFlags = OpFlags(0);
    /// Force unit access: completion means durable. Only where [`Geometry::fua`] is set.
    pub const FUA: OpFlags = OpFlags(1);
    /// A `WriteZeroes` may give the space back to the layer below.
    pub const MAY_UNMAP: OpFlags = OpFlags(2);

    /// Whether every flag of `other` is set.
    #[must_use]
    pub const fn contains(self, other: OpFlags) -> bool {
        self.0 & other.0 == other.0
    }

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: OpFlags) -> OpFlags {
        OpFlags(self.0 | other.0)
    }

    /// The flags of `self` that are not in `other`.
    #[must_use]
    pub const fn without(self, other: OpFlags) -> OpFlags {
        OpFlags(self.0 & !other.0)
    }
}

/// Outcome of an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Status {
    /// Not completed.
    Pending,
    /// Completed.
    Done,
    /// Completed or refused with an error.
    Failed(DeviceError),
}

/// Why a device failed or refused an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DeviceError {
    /// No room for another operation now: poll, then submit again. Only as a refusal.
    Busy,
    /// The device could not do it; the range is undefined between old and new.
    Io,
    /// Out of range, misaligned, too long, of length 0, or leases and length disagree. Only as a
    /// refusal: nothing was done.
    Invalid,
    /// The device does not know this operation or flag.
    Unsupported,
    /// The device is read-only.
    ReadOnly,
    /// No space left. The range of a write is undefined between old and new; a refused growth
    /// changed nothing.
    NoSpace,
    /// Cancelled before it had an effect.
    Cancelled,
    /// Metadata could not be made durable earlier in this session; see `Disk`. Reopen to recover.
    Poisoned,
    /// The content of this range is known to be lost (set by repair).
    Unreadable,
    /// The device is gone.
    Removed,
    /// A layer broke the contract: wrong tag, missing lease, impossible completion.
    Protocol,
}

impl core::fmt::Display for DeviceError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.write_str(match self {
            DeviceError::Busy => "the device has no room for another operation; poll and retry",
            DeviceError::Io => "input/output error",
            DeviceError::Invalid => "invalid operation: out of range, misaligned, or wrong length",
            DeviceError::Unsupported => "operation not supported by the device",
            DeviceError::ReadOnly => "the device is read-only",
            DeviceError::NoSpace => "no space left",
            DeviceError::Cancelled => "cancelled",
            DeviceError::Poisoned => "an earlier metadata write or flush failed; reopen to recover",
            DeviceError::Unreadable => "the content of this range is known to be lost",
            DeviceError::Removed => "the device is gone",
            DeviceError::Protocol => "a device layer broke the completion contract",
        })
    }
}

impl core::error::Error for DeviceError {}

/// What a device can discard.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiscardLimits {
    /// Ranges are rounded inwards to multiples of this, bytes.
    pub granularity_bytes: u32,
    /// Longest range in one operation, bytes.
    pub max_bytes: u64,
    /// Whether a discarded range is guaranteed to read zeros.
    pub zeroes_after: bool,
}

/// What a device can zero without being sent the zeros.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WriteZeroesLimits {
    /// Longest range in one operation, bytes.
    pub max_bytes: u64,
    /// Whether [`OpFlags::MAY_UNMAP`] is honoured.
    pub may_unmap: bool,
}

/// How a device can grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Growth {
    /// Step in which to ask for space, bytes.
    pub unit_bytes: u64,
    /// Largest size to ask for, bytes.
    pub max_bytes: u64,
    /// Whether space added by [`OpKind::Grow`] is guaranteed to read zeros.
    pub zeroed: bool,
}

/// What a device is like. Constant while the device is open, but for a capacity that may grow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Geometry {
    /// Size in bytes, a multiple of the logical block.
    pub capacity_bytes: u64,
    /// Smallest addressable unit, bytes: a power of two, at least 512. Offsets and lengths are
    /// multiples of it.
    pub logical_block_bytes: u32,
    /// Unit the medium works in, bytes: a power of two, at least the logical block.
    pub physical_block_bytes: u32,
    /// Aligned writes of this many bytes are never torn by power loss: a power of two, at least 512.
    pub atomic_write_bytes: u32,
    /// Alignment that leases should have to travel without a copy, bytes; 1 = any.
    pub memory_align_bytes: u32,
    /// Longest read or write, bytes.
    pub transfer_max_bytes: u32,
    /// Most leases in one operation, 1 to [`SEGMENTS_MAX`](crate::buffer::SEGMENTS_MAX).
    pub segments_max: u16,
    /// Longest lease, bytes.
    pub segment_max_bytes: u32,
    /// Operations that can usefully be in flight.
    pub queue_depth: u16,
    /// Refuses everything that changes it.
    pub read_only: bool,
    /// Completed writes may be lost until a flush.
    pub volatile_cache: bool,
    /// Honours [`OpFlags::FUA`].
    pub fua: bool,
    /// Honours [`OpKind::Discard`], within these limits.
    pub discard: Option<DiscardLimits>,
    /// Honours [`OpKind::WriteZeroes`], within these limits.
    pub write_zeroes: Option<WriteZeroesLimits>,
    /// Honours [`OpKind::Grow`], within these limits.
    pub growth: Option<Growth>,
}

impl Geometry {
    /// A device of `capacity_bytes` with 512-byte sectors, a volatile cache and no extra features.
    #[must_use]
    pub const fn basic(capacity_bytes: u64) -> Geometry {
        Geometry {
            capacity_bytes,
            logical_block_bytes: 512,
            physical_block_bytes: 512,
            atomic_write_bytes: 512,
            memory_align_bytes: 1,
            transfer_max_bytes: 1 << 30,
            segments_max: crate::buffer::SEGMENTS_MAX as u16,
            segment_max_bytes: 1 << 30,
            queue_depth: 64,
            read_only: false,
            volatile_cache: true,
            fua: false,
            discard: None,
            write_zeroes: None,
            growth: None,
        }
    }

    /// Checks one operation against this geometry, as every device should before it starts one.
    ///
    /// # Errors
    /// The refusal to answer with: `Invalid`, `Unsupported` or `ReadOnly`.
    #[inline]
    pub fn check(&self, op: &Op) -> Result<(), DeviceError> {
        let head = op.head();
        let write = !matches!(head.kind, OpKind::Read | OpKind::Flush);
        if self.read_only && write {
            return Err(DeviceError::ReadOnly);
        }
        if head.flags.contains(OpFlags::FUA) && !self.fua && self.volatile_cache {
            return Err(DeviceError::Unsupported);
        }
        if matches!(head.kind, OpKind::Read | OpKind::Write) {
            self.check_range(&head, u64::from(self.transfer_max_bytes))?;
            return self.check_leases(&head, op);
        }
        if op.bytes() != 0 {
            return Err(DeviceError::Invalid);
        }
        match head.kind {
            OpKind::Flush if head.len == 0 => Ok(()),
            OpKind::Read | OpKind::Write | OpKind::Flush => Err(DeviceError::Invalid),
            OpKind::Grow => {
                let limits = self.growth.ok_or(DeviceError::Unsupported)?;
                if head.len <= limits.max_bytes {
                    Ok(())
                } else {
                    Err(DeviceError::NoSpace)
                }
            }
            OpKind::Discard => {
                let limits = self.discard.ok_or(DeviceError::Unsupported)?;
                self.check_range(&head, limits.max_bytes)
            }
            OpKind::WriteZeroes => {
                let limits = self.write_zeroes.ok_or(DeviceError::Unsupported)?;
                self.check_range(&head, limits.max_bytes)
            }
        }
    }

    #[inline]
    fn check_range(&self, head: &Head, longest: u64) -> Result<(), DeviceError> {
        let mask = u64::from(self.logical_block_bytes).wrapping_sub(1);
        let in_range =
            head.offset <= self.capacity_bytes && head.len <= self.capacity_bytes - head.offset;
        let aligned = (head.offset | head.len) & mask == 0;
        if !in_range || !aligned || head.len == 0 || head.len > longest {
            return Err(DeviceError::Invalid);
        }
        Ok(())
    }

    #[inline]
    fn check_leases(&self, head: &Head, op: &Op) -> Result<(), DeviceError> {
        if op.bytes() != head.len || op.segment_count() > usize::from(self.segments_max) {
            return Err(DeviceError::Invalid);
        }
        let longest = self.segment_max_bytes as usize;
        // All of them together may be short enough, and mostly are.
        let together = head.len <= u64::from(self.segment_max_bytes);
        if !together && (0..op.segment_count()).any(|index| op.segment_len(index) > longest) {
            return Err(DeviceError::Invalid);
        }
        Ok(())
    }
}

/// When a device wants to be polled next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum When {
    /// There is work to do now.
    Now,
    /// At this moment, unless an event comes first. Later harms only latency.
    At(Instant),
    /// After the next event. A device that answers this must be able to wake
    /// ([`BlockDevice::set_waker`] returned true), or an operation of its caller must be what it
    /// waits for.
    Event,
}

impl When {
    /// The earlier of two.
    #[must_use]
    pub fn min(self, other: When) -> When {
        match (self, other) {
            (When::Now, _) | (_, When::Now) => When::Now,
            (When::At(a), When::At(b)) => When::At(if a < b { a } else { b }),
            (When::At(a), When::Event) | (When::Event, When::At(a)) => When::At(a),
            (When::Event, When::Event) => When::Event,
        }
    }
}

/// A block device: operations go in, completions come out in any order.
///
/// See the [module documentation](self) for the power-loss contract. The trait is safe and object
/// safe; a wrong implementation can lose data or never answer, but can not break memory safety.
///
/// Rules for implementors:
/// 1. Every op accepted by `submit` comes back from `poll` exactly once, with its leases, its tag and
///    its record unchanged and its status set by [`Op::complete`].
/// 2. A refused op comes back from `submit` at once, unchanged but for its status. `Busy` means
///    "full, poll and try again"; everything else is final.
/// 3. Neither call waits.
pub trait BlockDevice {
    /// What the device is like.
    fn geometry(&self) -> Geometry;

    /// Starts one operation.
    ///
    /// # Errors
    /// The refused op, with [`Status::Failed`] and the reason.
    fn submit(&mut self, op: Op) -> Result<(), Op>;

    /// Tells the hardware that operations were submitted; once per batch.
    fn notify(&mut self) {}

    /// The next completion, if there is one.
    fn poll(&mut self, now: Instant) -> Option<Op>;

    /// When to poll next.
    fn poll_at(&self) -> When;

    /// Registers whom to wake when `poll` has something. Returns false if the device can not wake
    /// ("poll me"). Register before polling, or a wake-up may be lost.
    fn set_waker(&mut self, waker: &Waker) -> bool {
        let _ = waker;
        false
    }
}

impl<D: BlockDevice + ?Sized> BlockDevice for &mut D {
    fn geometry(&self) -> Geometry {
        (**self).geometry()
    }

    fn submit(&mut self, op: Op) -> Result<(), Op> {
        (**self).submit(op)
    }

    fn notify(&mut self) {
        (**self).notify();
    }

    fn poll(&mut self, now: Instant) -> Option<Op> {
        (**self).poll(now)
    }

    fn poll_at(&self) -> When {
        (**self).poll_at()
    }

    fn set_waker(&mut self, waker: &Waker) -> bool {
        (**self).set_waker(waker)
    }
}

/// Refuses an op for a reason: what a device's `submit` ends with.
///
/// # Errors
/// Always the op, with its status set.
pub fn refuse(mut op: Op, error: DeviceError) -> Result<(), Op> {
    op.complete(Err(error));
    Err(op)
}
