//! The engine: guest requests in, device operations out.
//!
//! One guest write, from call to completion:
//!
//! ```text
//! submit ── mapped, one run, nothing overlaps ──► the same op goes on to the data device
//!    │                                                          │
//!    └─► slot: Queued ─► [ZeroingChunks] ─► [Filling] ─► Writing ─► publish ─► [Commit] ─► done
//!         admission,      only a dirty      only a partly written   mapping    only FUA
//!         reservation     chunk             block over the base     is live
//! ```
//!
//! | file | job |
//! | --- | --- |
//! | `slots.rs` | the request table |
//! | `tag.rs`, `staging.rs` | names and memory of the engine's own operations |
//! | `submit.rs` | validation, the fast path, cancel |
//! | `poll.rs` | completions, phases, sending |
//! | `overlap.rs` | who waits for whom |
//! | `read.rs`, `write.rs`, `fill.rs`, `data.rs`, `zero.rs`, `flush.rs` | one kind of request or step each |
//! | `publish.rs` | makes a finished write's mapping live, or gives its reservation back |
//! | `growth.rs` | more space: growing the store |
//! | `close.rs` | drain, close, abandon |
//!
//! Invariants:
//! 1. Nothing waits inside a call, and every loop has a bound.
//! 2. Completions are only recorded in `poll.rs`; what follows from them happens in the phase that
//!    owns it, so no state machine is entered twice at once.
//! 3. Admission takes everything a request needs or nothing, so waiting requests hold nothing.

mod close;
mod data;
mod fill;
mod flush;
mod growth;
mod overlap;
mod poll;
mod publish;
mod read;
mod slots;
mod staging;
mod stats;
mod submit;
mod tag;
#[cfg(test)]
mod tests;
mod write;
mod zero;

pub use close::{Closed, Closing};
pub use slots::RequestId;
pub use stats::Stats;
pub use submit::{CancelOutcome, StaleRequest};

pub(crate) use growth::Growth;
pub(crate) use slots::{Held, SlotList, Slots, State};
pub(crate) use staging::Staging;
pub(crate) use tag::{Purpose, Tag};

use crate::alloc::Allocator;
use crate::buffer::{Arena, OpPool, OpQueue};
use crate::device::Geometry;
use crate::journal::Journal;
use crate::meta::Map;
use crate::open::{OpenOp, OpenOptions};
use crate::stores::Stores;

/// Most chunks that one request may touch: it remembers them in a 64-bit set.
pub(crate) const REQUEST_CHUNKS_MAX: u64 = 64;

/// The chunks of a request that a set names, by their place in it.
pub(crate) fn places(set: u64) -> impl Iterator<Item = u32> {
    let mut left = set;
    core::iter::from_fn(move || {
        let place = left.trailing_zeros();
        left &= left.wrapping_sub(1);
        (place < 64).then_some(place)
    })
}

/// Work that the next poll has to look at: a set.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Work(u8);

impl Work {
    pub(crate) const NONE: Work = Work(0);
    /// Something was freed or became durable: waiting requests may go on.
    pub(crate) const RETRY: Work = Work(1);
    /// A request got somewhere: look at the ready list.
    pub(crate) const READY: Work = Work(2);
    /// Operations were sent and the devices not notified yet.
    pub(crate) const NOTIFY: Work = Work(4);

    pub(crate) fn insert(&mut self, other: Work) {
        self.0 |= other.0;
    }

    pub(crate) fn take(&mut self, other: Work) -> bool {
        let set = self.0 & other.0 != 0;
        self.0 &= !other.0;
        set
    }

    pub(crate) fn is_none(self) -> bool {
        self.0 == 0
    }
}

/// A virtual disk on its stores.
///
/// Made by [`Opening`](crate::open::Opening). Itself a [`BlockDevice`](crate::device::BlockDevice),
/// so that disks chain: one can be the base of another.
///
/// The disk acts like a disk with a volatile write cache: a completed write may be lost until a
/// flush completes (or the write was FUA). After a failed metadata write or a failed flush it is
/// *poisoned*: writes and flushes answer [`DeviceError::Poisoned`](crate::device::DeviceError) until
/// it is opened again, reads go on.
///
/// Dropping a disk does no I/O and leaks what is in flight, like a power cut. Use
/// [`Disk::close`] to end cleanly and get the memory back.
pub struct Disk<S: Stores> {
    pub(crate) stores: S,
    pub(crate) arena: Arena,
    pub(crate) options: OpenOptions,
    pub(crate) geometry: Geometry,
    pub(crate) limits: TransferLimits,
    pub(crate) slots: Slots,
    pub(crate) ready: slots::SlotList,
    pub(crate) waiting: slots::SlotList,
    /// Ops for parts of requests.
    pub(crate) parts: OpPool,
    /// Blocks of staging memory for copies of base blocks, at rest.
    pub(crate) scratch: OpQueue,
    /// Ops that hold staging memory come from here.
    pub(crate) holders: OpPool,
    pub(crate) zero_memory: Staging,
    pub(crate) map: Map,
    pub(crate) alloc: Allocator,
    pub(crate) journal: Journal,
    pub(crate) growth: Growth,
    /// Completions that the caller has not taken.
    pub(crate) done: OpQueue,
    /// Operations that a device had no room for.
    pub(crate) parked: OpQueue,
    /// Operations that a device refused for good; handled like completions.
    pub(crate) refused: OpQueue,
    pub(crate) work: Work,
    pub(crate) next_ticket: u64,
    /// Exclusive requests, waiting for admission or past it.
    pub(crate) exclusive_count: u16,
    /// No request is accepted any more.
    pub(crate) closing: bool,
    /// No operation is sent any more.
    pub(crate) abandoned: bool,
    /// Polls that returned a completion straight away since the phases last ran.
    pub(crate) polls: u8,
    pub(crate) open_op: OpenOp,
    pub(crate) stats: Stats,
}

/// What one device operation may carry, per role.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TransferLimits {
    pub(crate) data_bytes: u64,
    pub(crate) base_bytes: u64,
    pub(crate) data_segments: u16,
    pub(crate) base_segments: u16,
    pub(crate) segment_bytes: u32,
    /// Longest write-zeroes that the data device takes; 0 = it takes none.
    pub(crate) zero_bytes: u64,
    /// Whether it may unmap.
    pub(crate) zero_unmaps: bool,
    /// Whether the data device honours FUA.
    pub(crate) fua: bool,
}

impl<S: Stores> Disk<S> {
    /// What was done so far, in numbers.
    pub fn stats(&self) -> Stats {
        self.stats
    }

    /// The devices.
    pub fn stores(&self) -> &S {
        &self.stores
    }

    /// The devices, to change their settings. Submitting to them directly corrupts the image.
    pub fn stores_mut(&mut self) -> &mut S {
        &mut self.stores
    }

    /// The header as of the last durable change.
    pub fn header(&self) -> &crate::format::Header {
        &self.journal.header
    }

    /// Whether a failed metadata write or flush ended the session's promises.
    pub fn is_poisoned(&self) -> bool {
        self.journal.poisoned
    }

    /// Guest requests that have not completed. Completions that nobody took yet do not count, so 0 does
    /// not say that every op is home.
    pub fn in_flight(&self) -> usize {
        usize::from(self.slots.used())
    }

    /// Bytes of the arena that the disk has no use for: what was given beyond
    /// [`Layout::arena_bytes`](crate::open::Layout::arena_bytes).
    pub fn arena_unused_bytes(&self) -> usize {
        self.arena.remaining()
    }

    /// Asks for a checkpoint as soon as one can start. It runs in the background, driven by polls.
    pub fn request_checkpoint(&mut self) {
        self.journal.checkpoint_wanted = true;
        self.work.insert(Work::RETRY);
    }
}
