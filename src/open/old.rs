//! Recovery of the dialects of 2011.
//!
//! ```text
//! table, bitmap -> [journal -> page with the mark] -> checks -> [pages in place -> flush -> mark -> flush]
//! ```
//!
//! What stands in brackets happens unless the image was closed cleanly, and nothing is written before
//! the last read. The page with the mark waits in commit memory, which nobody else uses until then.
//!
//! Sectors of their journals prove nothing and old ones stay behind, so all are applied, in any order:
//! that is right because mappings never change once they exist. Every page that a record names is
//! written, also one that says it already: an earlier recovery may have been cut off while it wrote
//! that page, which may then read otherwise next time. What can not be right (an index outside the
//! table, a second place for a chunk, a record that does not fit) is left out, and a journal that held
//! such a thing is erased, so that it can not come true later.
//!
//! From then on the image is marked as closed, even while it is open: what this crate writes is at
//! every moment a state that needs no recovery (`journal/in_place.rs`).

use crate::device::OpKind;
use crate::format::old::{
    CleanMark, OldRecord, OldRecords, SECTOR_LEN, decode_old_entry, mask_old_entries,
};
use crate::format::table::TableEntry;
use crate::format::{Dialect, Field, FormatError, Header, PAGE_BYTES_U64};
use crate::journal::CheckpointKind;
use crate::meta::Map;
use crate::seeded::{Bug, bug};
use crate::stores::{Role, Stores};
use crate::units::ChunkIndex;

use super::error::OpenError;
use super::recovery::{Body, Opening, Step};
use super::survey::Purpose;

/// What a journal is erased with. A sector that was erased in part must not say anything new, and
/// with zeros it could: a record of which the second half is zeros speaks of the start of the disk.
/// Ones are no type, no place and more than fits.
const ERASED: u8 = 0xFF;

/// What the journal of an old dialect left to say.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct OldReplay {
    /// Records that were left out.
    refused: u64,
    /// The epoch after the highest one that was seen.
    epoch: u64,
}

impl OldReplay {
    /// Applies a journal sector. Returns how many records it held.
    fn take_sector(&mut self, sector: &[u8], map: &mut Map, header: &Header) -> u64 {
        let mut count = 0;
        let mut records = OldRecords::new(sector, header.dialect);
        for record in &mut records {
            let legal = match record {
                OldRecord::Bitmap {
                    first_sector,
                    sectors,
                } => apply_bits(map, first_sector, sectors),
                OldRecord::Table {
                    first_chunk,
                    entries,
                    epoch,
                } => {
                    self.epoch = self.epoch.max(epoch.saturating_add(1));
                    // What is older is in place; it may be applied again, but need not.
                    let old = header.dialect == Dialect::Spec2011 && epoch < header.core.stable_seq;
                    old || apply_entries(map, first_chunk, entries)
                }
            };
            self.refused += u64::from(!legal);
            count += 1;
        }
        self.refused += u64::from(records.is_broken());
        count
    }
}

/// Hides the base behind sectors, as far as it reaches. A range behind its end is usual.
fn apply_bits(map: &mut Map, first_sector: i64, sectors: u32) -> bool {
    let start = u64::try_from(first_sector).ok();
    let Some(start) = start.and_then(|first| first.checked_mul(512)) else {
        return false;
    };
    map.hide_range(start, start.saturating_add(u64::from(sectors) * 512));
    true
}

/// Sets entries that are not set yet.
fn apply_entries(map: &mut Map, first_chunk: u32, entries: &[[u8; 4]]) -> bool {
    let count = u64::from(map.shape.chunk_count());
    let end = u64::from(first_chunk).saturating_add(entries.len() as u64);
    if !map.has_table || end > count {
        return false;
    }
    let mut legal = true;
    for (chunk, raw) in (first_chunk..).map(ChunkIndex).zip(entries) {
        let entry = decode_old_entry(u32::from_le_bytes(*raw));
        match (map.entry(chunk), entry) {
            (_, TableEntry::Unmapped) => {}
            (found, entry) if found == entry && bug(Bug::NamedPagesTrusted) => {}
            (found, entry)
                if found == TableEntry::Unmapped
                    || found == entry
                    || bug(Bug::SecondPlaceBelieved) =>
            {
                map.set_loose_entry(chunk, entry);
            }
            _ => legal = false,
        }
    }
    legal
}

impl<S: Stores> Opening<S> {
    /// Reads the next part of the journal; what the last operation read is applied first.
    pub(super) fn read_old_journal(&mut self, done: u64) {
        let Body::Disk(disk) = &mut self.body else {
            return;
        };
        let header = disk.journal.header;
        let have = core::mem::take(&mut self.reading);
        if done == 0 && have == 0 {
            let chunks = disk.map.shape.chunk_count();
            mask_old_entries(disk.map.table_mut(), chunks);
        }
        for index in 0..have / SECTOR_LEN as u64 {
            let journal = &mut disk.journal;
            let Some(sector) = journal.page.get_mut(..SECTOR_LEN) else {
                break;
            };
            journal
                .page_memory
                .copy_out(index * SECTOR_LEN as u64, sector);
            self.replay.records += self.old.take_sector(sector, &mut disk.map, &header);
        }
        let region = header.core.journal;
        let done = done + have;
        if header.core.clean_shutdown || done >= region.bytes {
            self.step = if header.core.clean_shutdown || disk.options.read_only {
                Step::Verify
            } else {
                Step::Mark(MarkStep::Read)
            };
            return;
        }
        self.reading = disk.open_read(region.offset + done, region.bytes - done);
        self.step = Step::Journal(done);
    }

    /// Checks everything that was read; then, unless read-only, begins to write it back.
    pub(super) fn verify_old(&mut self) -> Result<(), OpenError> {
        let Body::Disk(disk) = &mut self.body else {
            return Ok(());
        };
        let data = disk.stores.geometry(Role::Data);
        let capacity = data.map_or(0, |data| data.capacity_bytes);
        let header = &mut disk.journal.header;
        header.store_bytes = capacity;
        let chunks = header.chunks_in(capacity);
        let needed = header
            .core
            .data_offset
            .saturating_add(header.core.virtual_bytes);
        if self.purpose == Purpose::Inspect {
            // Nothing of this is recorded, so there is nothing that it could differ from.
            self.replay.store_bytes = capacity;
            self.replay.floor = u64::from(u32::MAX);
            self.step = Step::Ready;
            return Ok(());
        }
        // What lies behind the last used chunk may have been written by a session that was cut off,
        // so everything free counts as used before, and is zeroed before it is used.
        disk.alloc.begin(chunks, chunks);
        disk.alloc.raise_floor(u32::MAX);
        disk.adopt_chunks(chunks)?;
        let short = !disk.map.has_table && capacity < needed;
        if disk.options.read_only {
            if short {
                let offset = disk.map.data_offset;
                disk.map.plain = false;
                disk.map.store_limit = capacity.saturating_sub(offset);
            }
            self.step = Step::Ready;
            return Ok(());
        }
        for number in 0..disk.map.counts.total() {
            disk.map.seal_page(number);
        }
        if short {
            let grows = data.and_then(|data| data.growth);
            if !grows.is_some_and(|growth| growth.zeroed && needed <= growth.max_bytes) {
                // A device that can not be extended is too small for the disk.
                return Err(FormatError::corrupt(Field::StoreBytes, capacity).into());
            }
            disk.open_send(Role::Data, OpKind::Grow, 0, needed);
        }
        self.step = Step::Extended;
        Ok(())
    }

    /// The store reaches to the end of the disk. If the image was not closed, what was replayed is
    /// written back now.
    pub(super) fn write_back_old(&mut self) -> Result<(), OpenError> {
        let Body::Disk(disk) = &mut self.body else {
            return Ok(());
        };
        if disk.journal.header.core.clean_shutdown {
            self.step = Step::Ready;
            return Ok(());
        }
        disk.start_checkpoint(CheckpointKind::Recovery {
            stable_seq: 0,
            floor: 0,
        });
        self.step = Step::Settle;
        Ok(())
    }

    /// What was replayed is in place: erases the journal if it must be, then marks the image.
    pub(super) fn erase_old_journal(&mut self, done: u64) {
        let Body::Disk(disk) = &mut self.body else {
            return;
        };
        let region = disk.journal.header.core.journal;
        if self.old.refused == 0 || done >= region.bytes {
            self.step = Step::Mark(MarkStep::Write);
            if done != 0 {
                disk.open_send(Role::Metadata, OpKind::Flush, 0, 0);
            }
            return;
        }
        let len = (region.bytes - done).min(disk.journal.page_memory.bytes());
        let ones = if bug(Bug::ErasedWithZeros) { 0 } else { ERASED };
        disk.journal.page_memory.fill(0, len, ones);
        disk.open_send(Role::Metadata, OpKind::Write, region.offset + done, len);
        self.step = Step::Erase(done + len);
    }

    /// Marks the image as one that needs no recovery: one sector changes, the rest of its page stays
    /// as it was read before recovery wrote anything.
    pub(super) fn mark_clean(&mut self, step: MarkStep) {
        let Body::Disk(disk) = &mut self.body else {
            return;
        };
        let header = &mut disk.journal.header;
        let Some(mark) = header.clean_mark() else {
            self.step = Step::Ready;
            return;
        };
        let CleanMark { page_offset, .. } = mark;
        match step {
            MarkStep::Read => {
                disk.open_read(page_offset, PAGE_BYTES_U64);
                self.step = Step::Mark(MarkStep::Keep);
            }
            MarkStep::Keep => {
                let journal = &mut disk.journal;
                journal.page_memory.copy_out(0, &mut journal.page);
                journal.commit_memory.copy_in(0, &journal.page);
                self.step = Step::Verify;
            }
            MarkStep::Write => {
                header.core.clean_shutdown = true;
                header.core.stable_seq = header.core.stable_seq.max(self.old.epoch);
                let epoch = header.core.stable_seq;
                let journal = &mut disk.journal;
                journal.commit_memory.copy_out(0, &mut journal.page);
                mark.write(&mut journal.page, epoch);
                journal.page_memory.copy_in(0, &journal.page);
                disk.open_send(Role::Metadata, OpKind::Write, page_offset, PAGE_BYTES_U64);
                self.step = Step::Mark(MarkStep::Flush);
            }
            MarkStep::Flush => {
                disk.open_send(Role::Metadata, OpKind::Flush, 0, 0);
                self.step = Step::Ready;
            }
        }
    }
}

/// Where marking an image as closed is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum MarkStep {
    /// The page is read,
    Read,
    /// kept while the rest is checked and put in place,
    Keep,
    /// written,
    Write,
    /// and made durable.
    Flush,
}
