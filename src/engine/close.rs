//! Ends of a session: a clean close, or none.

use core::mem::MaybeUninit;
use core::task::Poll;

use crate::buffer::Op;
use crate::device::{BlockDevice, DeviceError, When};
use crate::journal::CheckpointKind;
use crate::stores::Stores;
use crate::units::Instant;

use super::{Disk, Stats, Work};

/// How far a close is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// Requests in flight.
    Draining,
    /// The last commit.
    Committing,
    /// The last checkpoint, which writes both headers.
    Checkpointing,
    /// Done.
    Ended,
}

/// A disk that is being closed: poll it until it is ready, reaping the requests that still complete.
pub struct Closing<S: Stores> {
    disk: Disk<S>,
    phase: Phase,
}

/// What a closed disk leaves.
pub struct Closed<S> {
    /// The devices.
    pub stores: S,
    /// The arena's memory, unless a device kept a part of it.
    pub memory: Option<&'static mut [MaybeUninit<u8>]>,
    /// Whether everything acknowledged is durable and the image clean. `Poisoned` if a metadata
    /// write or a flush failed: what was flushed before is safe, and recovery will find it.
    pub result: Result<(), DeviceError>,
    /// What the disk did from opening to the end, the close included.
    pub stats: Stats,
}

impl<S: Stores> Disk<S> {
    /// Starts a clean close: requests in flight end, pending mappings are committed and written in
    /// place, both headers say "clean". New requests are refused as `Removed`.
    pub fn close(mut self) -> Closing<S> {
        self.closing = true;
        Closing {
            disk: self,
            phase: Phase::Draining,
        }
    }

    /// Ends without sending anything more, as a power cut would, but waits for operations in flight
    /// to come home so that the memory can be given back. Requests that have anything left to send
    /// end as `Poisoned`. It does not wait for a device to have room: operations that it refused as
    /// `Busy` are taken back.
    pub fn abandon(mut self) -> Closing<S> {
        self.give_up();
        Closing {
            disk: self,
            phase: Phase::Draining,
        }
    }

    /// From now on nothing is sent; what no device has is taken back, and fails.
    fn give_up(&mut self) {
        self.closing = true;
        self.abandoned = true;
        self.poison();
        for _ in 0..self.parked.len() {
            let Some(op) = self.parked.pop_front() else {
                return;
            };
            self.take_back(op);
        }
    }
}

impl<S: Stores> Closing<S> {
    /// Moves the close on. Ready when [`Closing::finish`] can be called.
    pub fn poll(&mut self, now: Instant) -> Poll<()> {
        let disk = &mut self.disk;
        disk.run(now);
        let journal_at_rest = disk.journal.commit.is_idle()
            && !disk.journal.is_eager_in_flight()
            && disk.journal.checkpoint.is_idle()
            && disk.growth.is_idle();
        if disk.slots.used() != 0 {
            return Poll::Pending;
        }
        if disk.journal.poisoned {
            self.phase = Phase::Ended;
            return if disk.journal_ops_home() {
                Poll::Ready(())
            } else {
                Poll::Pending
            };
        }
        if !journal_at_rest {
            return Poll::Pending;
        }
        match self.phase {
            Phase::Draining if disk.options.read_only => {
                self.phase = Phase::Ended;
                Poll::Ready(())
            }
            Phase::Draining | Phase::Committing => {
                let unsaved = disk.has_unsaved() || disk.journal.grown_to != 0;
                // The headers' flush covers the metadata device only, so a data device of its own
                // needs one more, which a commit brings even if it maps nothing. Old dialects write
                // no header.
                let flush = !S::SHARED || disk.map.loose;
                if unsaved || (self.phase == Phase::Draining && flush) {
                    self.phase = Phase::Committing;
                    disk.journal.commit_wanted = true;
                    disk.work.insert(Work::RETRY);
                } else {
                    self.phase = Phase::Checkpointing;
                    disk.start_checkpoint(CheckpointKind::Close);
                    disk.notify();
                }
                Poll::Pending
            }
            Phase::Checkpointing | Phase::Ended => {
                self.phase = Phase::Ended;
                Poll::Ready(())
            }
        }
    }

    /// Gives up a close that takes too long, as [`Disk::abandon`] does.
    pub fn abandon(self) -> Closing<S> {
        if self.phase == Phase::Ended {
            return self;
        }
        self.disk.abandon()
    }

    /// The next request that ended, in any order.
    pub fn reap(&mut self) -> Option<Op> {
        self.disk.reap()
    }

    /// When to poll next.
    pub fn poll_at(&self) -> When {
        self.disk.poll_at()
    }

    /// The disk's devices, to wake or to reset.
    pub fn stores_mut(&mut self) -> &mut S {
        &mut self.disk.stores
    }

    /// Gives everything back.
    ///
    /// # Errors
    /// Gives itself back before [`Closing::poll`] was ready, and while completions are not reaped.
    #[allow(clippy::result_large_err)] // the error is the disk itself, still closing
    pub fn finish(self) -> Result<Closed<S>, Closing<S>> {
        if self.phase != Phase::Ended || !self.disk.done.is_empty() || !self.disk.journal_ops_home()
        {
            return Err(self);
        }
        let result = self.disk.check_poison();
        let stats = self.disk.stats;
        let (stores, memory) = self.disk.dismantle();
        Ok(Closed {
            stores,
            memory,
            result,
            stats,
        })
    }
}

impl<S: Stores> Disk<S> {
    /// Whether no operation of the journal is in flight.
    fn journal_ops_home(&self) -> bool {
        self.journal.ops.free_count() == crate::journal::JOURNAL_OPS as usize
    }

    /// Takes a disk apart that never opened.
    pub(crate) fn dismantle_unopened(mut self) -> (S, Option<&'static mut [MaybeUninit<u8>]>) {
        self.give_up();
        for _ in 0..self.refused.len() {
            if let Some(op) = self.refused.pop_front() {
                let _ = self.on_completion(op);
            }
        }
        self.dismantle()
    }

    /// Takes the disk apart. The memory is `None` if a device kept a part of it.
    pub(crate) fn dismantle(self) -> (S, Option<&'static mut [MaybeUninit<u8>]>) {
        let Disk {
            stores,
            mut arena,
            slots,
            parts,
            mut scratch,
            mut holders,
            zero_memory,
            map,
            alloc,
            journal,
            ..
        } = self;
        // What a device kept is missing from the arena's count, and only that is looked at.
        slots.reclaim(&mut arena);
        for _ in 0..scratch.len() {
            if let Some(op) = scratch.pop_front() {
                super::Staging::Whole(op).reclaim(&mut arena, &mut holders);
            }
        }
        for block in [zero_memory, journal.commit_memory, journal.page_memory] {
            block.reclaim(&mut arena, &mut holders);
        }
        let _ = arena.reclaim(journal.page);
        for pool in [journal.ops, parts, holders] {
            let _ = pool.reclaim(&mut arena);
        }
        map.reclaim(&mut arena);
        alloc.reclaim(&mut arena);
        (stores, arena.finish().ok())
    }
}
