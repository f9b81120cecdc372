//! Commit, checkpoint, replay: the only module that decides where barriers go.
//!
//! | file | job |
//! | --- | --- |
//! | `commit.rs` | pending mappings -> journal units -> durable; completes guest flushes |
//! | `eager.rs` | the unit of a single first write, sent along with its data |
//! | `checkpoint.rs` | durable mappings -> their pages in place -> header; frees journal space |
//! | `in_place.rs` | the same for the dialects of 2011, without a journal |
//! | `replay.rs` | what recovery reads back from the journal |
//!
//! Laws that live here (docs/DESIGN.md numbers them):
//! 1. A unit is written only after the data it exposes is durable, but for *exempt* mappings.
//! 2. One commit at a time, and none beside an eager unit in flight. A flush that arrives during one waits for the next.
//! 3. Pages in place hold only values whose units are known durable.
//! 4. Journal space is free only when a header that no longer needs it is known durable.
//! 5. After a failed metadata write or a failed flush nothing is acknowledged any more.

mod checkpoint;
mod commit;
mod eager;
mod in_place;
pub(crate) mod replay;
#[cfg(test)]
mod tests;

pub(crate) use checkpoint::{Checkpoint, CheckpointKind};
pub(crate) use commit::Commit;
pub(crate) use eager::Eager;
pub(crate) use in_place::InPlace;

use crate::buffer::{Arena, OpPool, Part};
use crate::engine::Staging;
use crate::format::journal::{
    StoreRecord, UnitFlags, UnitWriter, commit_units_max, records_per_unit, slot_of,
};
use crate::format::{Header, PAGE_BYTES, SlotIndex};
use crate::seeded::{Bug, bug};
use crate::units::Instant;

/// Ops that journal, checkpoint and growth can have in flight together, with room to spare: two
/// journal writes or flushes, one page write or flush, one growth step.
pub(crate) const JOURNAL_OPS: u32 = 8;

/// Everything that moves mappings to the disk.
pub(crate) struct Journal {
    /// The newest durable header.
    pub(crate) header: Header,
    /// The slot it is in; the next one goes to the other.
    pub(crate) slot: SlotIndex,
    /// Journal units; 0 without a journal.
    pub(crate) units: u64,
    pub(crate) unit_bytes: u32,
    /// Sequence number of the next unit.
    pub(crate) next_seq: u64,
    /// Units below are in place, and a header that says so is durable.
    pub(crate) stable_seq: u64,
    /// Units below are known durable.
    pub(crate) durable_seq: u64,
    pub(crate) commit: Commit,
    pub(crate) in_place: InPlace,
    /// The unit that went out with its data and is not known durable.
    pub(crate) eager: Option<Eager>,
    /// Commits in a row that carried one exempt mapping each; stays below 255, which is "never".
    pub(crate) single_mappings: u8,
    pub(crate) checkpoint: Checkpoint,
    /// Number of the newest commit that was sealed, and of the newest that is durable.
    pub(crate) commits_sealed: u64,
    pub(crate) commits_durable: u64,
    /// A commit should start although no limit asks for it.
    pub(crate) commit_wanted: bool,
    /// A checkpoint should start although the journal is not half full.
    pub(crate) checkpoint_wanted: bool,
    /// Chunks that a request waits for above the zero floor, which the next commit should raise.
    pub(crate) floor_wanted: u32,
    /// Size of the store, flushed but not recorded yet; 0 = nothing to record.
    pub(crate) grown_to: u64,
    /// When the oldest pending mapping got dirty.
    pub(crate) dirty_since: Option<Instant>,
    /// A metadata write or a flush failed.
    pub(crate) poisoned: bool,
    pub(crate) commit_memory: Staging,
    pub(crate) page_memory: Staging,
    /// One page, to put a unit, a page or a header together.
    pub(crate) page: Part<u8>,
    /// Ops that nobody else can take, so that the journal always moves.
    pub(crate) ops: OpPool,
}

/// Sizes of the journal's own memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct JournalSize {
    pub(crate) commit_bytes: u32,
    pub(crate) page_bytes: u32,
}

impl JournalSize {
    /// What a header asks for.
    pub(crate) fn new(header: &Header) -> JournalSize {
        let units = commit_units_max(header.journal_units(), header.atomic_unit);
        let least = if header.dialect.is_old() {
            in_place::STAGING_BYTES
        } else {
            PAGE_BYTES as u32
        };
        // Replay keeps an eager unit in front of the commit behind it.
        let commit_bytes = units
            .saturating_add(1)
            .saturating_mul(header.atomic_unit)
            .max(least);
        JournalSize {
            commit_bytes,
            page_bytes: 64 << 10,
        }
    }

    /// Staging memory; carved first.
    pub(crate) const fn staging_bytes(&self) -> usize {
        Arena::staging_bytes(self.commit_bytes as usize)
            .saturating_add(Arena::staging_bytes(self.page_bytes as usize))
    }
}

impl Journal {
    /// The journal of an image as its header describes it; nothing replayed yet.
    pub(crate) fn new(
        header: Header,
        slot: SlotIndex,
        commit_memory: Staging,
        page_memory: Staging,
        page: Part<u8>,
        ops: OpPool,
    ) -> Journal {
        let stable_seq = header.core.stable_seq;
        Journal {
            header,
            slot,
            units: header.journal_units(),
            unit_bytes: header.atomic_unit,
            next_seq: stable_seq,
            stable_seq,
            durable_seq: stable_seq,
            commit: Commit::IDLE,
            in_place: InPlace::IDLE,
            eager: None,
            single_mappings: 0,
            checkpoint: Checkpoint::idle(header),
            commits_sealed: 0,
            commits_durable: 0,
            commit_wanted: false,
            checkpoint_wanted: false,
            floor_wanted: 0,
            grown_to: 0,
            dirty_since: None,
            poisoned: false,
            commit_memory,
            page_memory,
            page,
            ops,
        }
    }

    /// Free units.
    pub(crate) fn room(&self) -> u64 {
        self.units
            .saturating_sub(self.next_seq.saturating_sub(self.stable_seq))
    }

    /// Map records that one commit holds, beside a store record.
    pub(crate) fn commit_records_max(&self) -> usize {
        let units = commit_units_max(self.units, self.unit_bytes);
        let records = units.saturating_mul(records_per_unit(self.unit_bytes));
        records.saturating_sub(2) as usize
    }

    /// Whether half of the journal is in use and a checkpoint would free some of it.
    pub(crate) fn half_full(&self) -> bool {
        let used = self.next_seq.saturating_sub(self.stable_seq);
        used.saturating_mul(2) >= self.units && self.durable_seq > self.stable_seq
    }

    /// Where on the metadata device the unit `seq` lives.
    fn unit_offset(&self, seq: u64) -> u64 {
        let slot = slot_of(seq, self.units);
        self.header.core.journal.offset + slot * u64::from(self.unit_bytes)
    }

    /// Puts the next unit into commit memory, as the `index`-th there. `fill` adds its records and
    /// says its flags. False if the memory is elsewhere.
    fn put_unit(
        &mut self,
        index: u32,
        fill: impl FnOnce(&mut UnitWriter<'_>) -> UnitFlags,
    ) -> bool {
        let unit_bytes = self.unit_bytes as usize;
        let stable = match self.checkpoint.cut_in_progress() {
            Some(cut) if bug(Bug::StableSeqEarly) => cut,
            _ => self.stable_seq,
        };
        let page = self.page.get_mut(..unit_bytes);
        let Some(mut writer) = page.and_then(UnitWriter::new) else {
            return false;
        };
        let flags = fill(&mut writer);
        writer.seal(self.next_seq, stable, flags, &self.header.image_id);
        let at = u64::from(index) * unit_bytes as u64;
        let bytes = self.page.get(..unit_bytes).unwrap_or(&[]);
        let put = self.commit_memory.copy_in(at, bytes);
        self.next_seq += 1;
        put
    }

    /// Size and floor as replay must find them.
    pub(crate) fn store_record(floor: u32, store_bytes: u64) -> StoreRecord {
        StoreRecord {
            zero_floor_chunk: floor,
            store_bytes,
        }
    }
}
