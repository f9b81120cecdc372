//! What recovery has read is written again before anything in place relies on it.
//!
//! A sector whose write power loss cut short may read old at one time and new at another, until it is
//! written again. The contract of [`crate::device`] rules that out; real media do it all the same. So
//! recovery gives everything that could be such a sector, and that it is about to build on, one
//! content for good:
//!
//! ```text
//! last commit, slot of the header -> flush -> pages, checksums -> flush -> header, other slot -> flush
//! ```
//!
//! * **The last commit**, and an eager unit before it, unless something proves that they were durable.
//!   Else pages in place could show half of a commit that the next recovery does not find.
//! * **The slot that counts**, if the other one is valid too: either may be the one in doubt, and the
//!   other is about to be overwritten. If it is not valid, it is the one, and is overwritten anyway.
//!
//! Both are written with the bytes that they hold. A write that changes nothing loses nothing,
//! whatever part of it lands.
//!
//! All else needs nothing. A unit beyond the run has its number burnt. A page that was being written
//! is named by units, so replay writes it again. Of the checksum array that was being written, which
//! the other slot may yet turn out to name, only entries of such pages change.

use crate::device::OpKind;
use crate::engine::Disk;
use crate::format::journal::slot_of;
use crate::format::{Header, SLOT_BYTES};
use crate::journal::CheckpointKind;
use crate::seeded::{Bug, bug};
use crate::stores::{Role, Stores};

use super::recovery::{Body, Opening, Step};

/// What verification has found, for the header that ends recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Found {
    pub(super) store_bytes: u64,
    pub(super) first_seq: u64,
    pub(super) floor: u32,
}

/// What is to be written next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The last commit; units written so far.
    Commit(u32),
    /// The slot that counts.
    Slot,
    /// The flush of both.
    Flush,
    /// Nothing: the checkpoint that ends recovery begins.
    Checkpoint,
}

/// How far writing again has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Rewrite {
    found: Found,
    phase: Phase,
    wrote: bool,
}

impl Rewrite {
    pub(super) fn first(found: Found) -> Rewrite {
        Rewrite {
            found,
            phase: Phase::Commit(0),
            wrote: false,
        }
    }
}

impl<S: Stores> Opening<S> {
    /// Starts the next write or flush, if there is one to start in this phase, and names the next.
    pub(super) fn rewrite(&mut self, mut state: Rewrite) {
        let Body::Disk(disk) = &mut self.body else {
            return;
        };
        state.phase = match state.phase {
            Phase::Commit(done) => {
                let (first_seq, count) = self.replay.doubtful_units();
                if done < count && !bug(Bug::LastCommitTrusted) {
                    state.wrote = true;
                    Phase::Commit(done + disk.resend_units(first_seq, done, count - done))
                } else {
                    Phase::Slot
                }
            }
            Phase::Slot => {
                state.wrote |= self.doubtful_slot.is_some_and(|crc| disk.resend_slot(crc));
                Phase::Flush
            }
            Phase::Flush => {
                if state.wrote && !bug(Bug::RewriteNotFlushed) {
                    disk.open_send(Role::Metadata, OpKind::Flush, 0, 0);
                }
                Phase::Checkpoint
            }
            Phase::Checkpoint => {
                disk.end_recovery(&state.found);
                self.step = Step::Settle;
                return;
            }
        };
        self.step = Step::Rewrite(state);
    }
}

impl<S: Stores> Disk<S> {
    /// Writes units of the last commit again, from the memory that it was kept aside in. Returns how
    /// many of the `count` that are left.
    fn resend_units(&mut self, first_seq: u64, done: u32, count: u32) -> u32 {
        let journal = &mut self.journal;
        let unit_bytes = u64::from(journal.unit_bytes);
        let slot = slot_of(first_seq.saturating_add(u64::from(done)), journal.units);
        let room = journal.page_memory.bytes().checked_div(unit_bytes);
        let run = u64::from(count)
            .min(journal.units.saturating_sub(slot))
            .min(room.unwrap_or(0))
            .max(1);
        for index in 0..run {
            let Some(unit) = journal.page.get_mut(..unit_bytes as usize) else {
                break;
            };
            let from = (u64::from(done) + index) * unit_bytes;
            journal.commit_memory.copy_out(from, unit);
            journal.page_memory.copy_in(index * unit_bytes, unit);
        }
        let offset = journal.header.core.journal.offset + slot * unit_bytes;
        self.open_send(Role::Metadata, OpKind::Write, offset, run * unit_bytes);
        run as u32
    }

    /// Writes the slot that counts again, if the header makes the very bytes that it holds: those of a
    /// later version may not come back, and a slot must not be changed where it is.
    fn resend_slot(&mut self, crc: u32) -> bool {
        let (header, slot) = (self.journal.header, self.journal.slot);
        if bug(Bug::NewerSlotTrusted) || !self.stage_slot(&header) {
            return false;
        }
        let mut stored = [0; 4];
        let end = SLOT_BYTES as u64 - 4;
        if !self.journal.page_memory.copy_out(end, &mut stored) || u32::from_le_bytes(stored) != crc
        {
            return false;
        }
        self.open_send(
            Role::Metadata,
            OpKind::Write,
            slot.offset(),
            SLOT_BYTES as u64,
        );
        true
    }

    fn stage_slot(&mut self, header: &Header) -> bool {
        let journal = &mut self.journal;
        let Some(buffer) = journal.page.first_chunk_mut::<SLOT_BYTES>() else {
            return false;
        };
        header.encode(buffer).is_ok() && journal.page_memory.copy_in(0, buffer)
    }

    /// Makes what was found the state of the session.
    pub(super) fn adopt(&mut self, found: &Found) {
        let journal = &mut self.journal;
        journal.header.store_bytes = found.store_bytes;
        journal.next_seq = found.first_seq;
        journal.durable_seq = found.first_seq;
    }

    /// Starts the checkpoint that ends recovery.
    fn end_recovery(&mut self, found: &Found) {
        self.adopt(found);
        if self.options.owner_nonce != 0 {
            self.journal.header.owner_nonce = self.options.owner_nonce;
        }
        self.start_checkpoint(CheckpointKind::Recovery {
            stable_seq: found.first_seq,
            floor: found.floor,
        });
    }
}
