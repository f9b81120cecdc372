//! A look at a whole image that stops at nothing: every fault is found, not only the first.
//!
//! Opening refuses an image at its first fault, which is what a user of the image needs. Whoever has
//! to decide what to do with a damaged one needs all of them. So the image is read as by an opening
//! that notes faults instead of refusing them, and everything that an opening checks is then checked
//! piece by piece. Nothing is written.

use core::mem::MaybeUninit;

use crate::engine::Disk;
use crate::format::page::PageKind;
use crate::format::table::{self, ENTRIES_PER_PAGE, ENTRY_BYTES, TableEntry, read_entry};
use crate::format::{Field, FormatError, Header, PAGE_BYTES, PAGE_BYTES_U64, bitmap};
use crate::open::Survey;
use crate::stores::Stores;
use crate::units::{BlockIndex, ChunkIndex, StoreChunk};

use super::Usage;
use super::finding::{Finding, GuestRange, Place, Problem, Severity};

/// Shared chunks whose other owner is looked for, which takes a walk through the table each.
const OWNERS_LOOKED_FOR: u32 = 64;

/// Who hears of each finding.
type Sink<'a> = &'a mut dyn FnMut(Finding);

/// An image that was read to be looked at.
pub struct Inspection<S: Stores> {
    disk: Disk<S>,
    survey: Survey,
}

/// What the walk through the table adds up.
#[derive(Clone, Copy, Debug, Default)]
struct Tally {
    shared: u32,
    above_floor: u64,
    lost: u64,
}

impl<S: Stores> Inspection<S> {
    pub(crate) fn new(disk: Disk<S>, survey: Survey) -> Inspection<S> {
        Inspection { disk, survey }
    }

    /// The header that counts.
    #[must_use]
    pub fn header(&self) -> &Header {
        &self.disk.journal.header
    }

    /// How much is used. Damaged entries count as unreadable.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.disk.usage()
    }

    /// Tells `sink` of everything that is wrong.
    pub fn findings(&mut self, sink: Sink<'_>) {
        self.header_findings(sink);
        self.journal_findings(sink);
        let mut tally = Tally::default();
        // Where each store chunk's first owner is noted. Nothing else is asked of it here.
        let chunks = self.recorded_chunks();
        self.disk.alloc.begin(chunks, chunks);
        if !self.disk.map.loose {
            self.tail_findings(sink);
        }
        for number in 0..self.disk.map.counts.total() {
            self.page_findings(number, &mut tally, sink);
        }
        self.store_findings(&tally, sink);
    }

    /// Ends the look: the devices, and the memory unless a device kept a part of it.
    pub fn finish(self) -> (S, Option<&'static mut [MaybeUninit<u8>]>) {
        self.disk.dismantle()
    }

    fn recorded_chunks(&self) -> u32 {
        self.header().chunks_in(self.survey.store_bytes)
    }

    /// Chunks that are on record and there.
    fn present_chunks(&self) -> u32 {
        let bytes = self.survey.store_bytes.min(self.survey.capacity_bytes);
        self.header().chunks_in(bytes)
    }

    fn header_findings(&self, sink: Sink<'_>) {
        let header = self.header();
        // A new image has one header; the first session writes the other.
        if !self.survey.other_slot_valid && header.generation > 1 {
            let place = Place::Header(Some(self.disk.journal.slot.other()));
            let finding = Finding::new(Problem::LostHeader, Severity::Note, place);
            sink(finding.at(Field::HeaderSlot, 0));
        }
        if !header.core.clean_shutdown {
            let place = Place::Header(Some(self.disk.journal.slot));
            let finding = Finding::new(Problem::UnfinishedSession, Severity::Note, place);
            sink(finding.at(Field::StableSeq, self.survey.records));
        }
    }

    fn journal_findings(&self, sink: Sink<'_>) {
        let journal = &self.disk.journal;
        for fault in &self.survey.faults.first {
            let offset =
                |slot| journal.header.core.journal.offset + slot * u64::from(journal.unit_bytes);
            let slot = fault.slot.map(|slot| (slot, offset(slot)));
            let finding = Finding::new(Problem::Journal, Severity::Damage, Place::Unit { slot });
            sink(finding.at(fault.error.field, fault.error.value));
        }
        let more = self.survey.faults.count - self.survey.faults.first.len() as u64;
        for _ in 0..more {
            let finding = Finding::new(
                Problem::Journal,
                Severity::Damage,
                Place::Unit { slot: None },
            );
            sink(finding.at(Field::UnitSeq, 0));
        }
    }

    /// What stands behind the last entry or bit. No checksum covers it, and nothing else looks there.
    fn tail_findings(&mut self, sink: Sink<'_>) {
        let map = &self.disk.map;
        let chunk_count = map.shape.chunk_count();
        for (_, kind, index, page) in self.disk.pages() {
            let (problem, result) = match kind {
                PageKind::Table => (
                    Problem::TableTail,
                    table::check_tail(page, index, chunk_count),
                ),
                PageKind::Bitmap => (
                    Problem::BitmapTail,
                    bitmap::check_page(page, index, map.bitmap_blocks),
                ),
            };
            if let Err(error) = result {
                let place = self.place_of_page(kind, index);
                // It means nothing, so clearing it loses nothing.
                let finding = Finding::new(problem, Severity::Repairable, place);
                sink(finding.at(error.field, error.value));
            }
        }
        self.disk.map.clear_tails();
    }

    fn place_of_page(&self, kind: PageKind, page: u32) -> Place {
        let core = &self.header().core;
        let in_region = u64::from(page) * PAGE_BYTES_U64;
        match kind {
            PageKind::Table => Place::TablePage {
                page,
                offset: core.table.offset + in_region,
            },
            PageKind::Bitmap => Place::BitmapPage {
                page,
                offset: core.bitmap.offset + in_region,
            },
        }
    }

    fn page_findings(&mut self, number: u32, tally: &mut Tally, sink: Sink<'_>) {
        let map = &self.disk.map;
        let (Some((kind, index)), Some(page)) = (map.counts.locate(number), map.page(number))
        else {
            return;
        };
        if kind == PageKind::Bitmap && map.bitmap_blocks == 0 {
            // Left over from a base that is not needed any more; nothing is read from it.
            return;
        }
        if let Some((recorded, found)) = self.disk.sums_of(number, page)
            && recorded != found
        {
            // What the page says is not to be trusted, so nobody looks.
            return sink(Finding {
                wanted: Some(u64::from(recorded)),
                guest: self.guest_of_page(kind, index),
                ..Finding::new(
                    Problem::PageChecksum,
                    Severity::Damage,
                    self.place_of_page(kind, index),
                )
                .at(Field::PageChecksum, u64::from(found))
            });
        }
        if kind == PageKind::Table {
            self.entry_findings(number, index, tally, sink);
        }
    }

    fn entry_findings(&mut self, number: u32, index: u32, tally: &mut Tally, sink: Sink<'_>) {
        let chunk_count = self.disk.map.shape.chunk_count();
        for within in 0..ENTRIES_PER_PAGE {
            let Some(entry) = self
                .disk
                .map
                .page(number)
                .and_then(|page| read_entry(page, ChunkIndex(within)))
            else {
                return;
            };
            let chunk = index
                .saturating_mul(ENTRIES_PER_PAGE)
                .saturating_add(within);
            if chunk < chunk_count {
                self.entry_finding(ChunkIndex(chunk), entry, tally, sink);
            }
        }
    }

    fn entry_finding(
        &mut self,
        chunk: ChunkIndex,
        entry: Result<TableEntry, FormatError>,
        tally: &mut Tally,
        sink: Sink<'_>,
    ) {
        let at = match entry {
            Ok(TableEntry::Chunk(at)) => at,
            Ok(TableEntry::Unmapped | TableEntry::Unreadable) => return,
            Ok(TableEntry::Split(_)) => return,
            Err(error) => {
                return sink(
                    self.of_entry(Problem::TableEntry, chunk)
                        .at(error.field, error.value),
                );
            }
        };
        let value = u64::from(at.0);
        let (recorded, present) = (self.recorded_chunks(), self.present_chunks());
        if at.0 >= recorded || at.0 >= present {
            let (problem, bound) = if at.0 >= recorded {
                (Problem::TableEntry, recorded)
            } else {
                tally.lost += 1;
                (Problem::LostChunk, present)
            };
            return sink(Finding {
                wanted: Some(u64::from(bound)),
                ..self.of_entry(problem, chunk).at(Field::TableEntry, value)
            });
        }
        if !self.disk.alloc.adopt(at) {
            tally.shared += 1;
            let with = (tally.shared <= OWNERS_LOOKED_FOR)
                .then(|| self.owner_before(chunk, at))
                .flatten();
            let finding = self.of_entry(Problem::SharedChunk { with }, chunk);
            sink(finding.at(Field::TableEntry, value));
        }
        tally.above_floor += u64::from(value >= self.survey.floor);
    }

    /// The first chunk before `chunk` that has the store chunk `at`.
    fn owner_before(&self, chunk: ChunkIndex, at: StoreChunk) -> Option<ChunkIndex> {
        let owns = |other: &ChunkIndex| self.disk.map.entry(*other) == TableEntry::Chunk(at);
        (0..chunk.0).map(ChunkIndex).find(owns)
    }

    fn of_entry(&self, problem: Problem, chunk: ChunkIndex) -> Finding {
        let offset = self.header().core.table.offset + u64::from(chunk.0) * ENTRY_BYTES;
        let shape = &self.disk.map.shape;
        Finding {
            guest: self.guest(shape.chunk_start(chunk).0, shape.chunk_bytes()),
            ..Finding::new(problem, Severity::Damage, Place::Entry { chunk, offset })
        }
    }

    fn store_findings(&self, tally: &Tally, sink: Sink<'_>) {
        let (recorded, found) = (self.survey.store_bytes, self.survey.capacity_bytes);
        let has_table = self.disk.map.has_table;
        let of_store = |problem, severity, field, value, wanted| Finding {
            wanted: Some(wanted),
            ..Finding::new(problem, severity, Place::Store).at(field, value)
        };
        if found < recorded {
            let data_offset = self.header().core.data_offset;
            let spare = has_table && tally.lost == 0 && found >= data_offset;
            let severity = if spare {
                Severity::Repairable
            } else {
                Severity::Damage
            };
            let first = found.saturating_sub(data_offset);
            let gone = self.guest(first, recorded - data_offset - first);
            sink(Finding {
                guest: gone.filter(|_| !has_table),
                ..of_store(
                    Problem::ShortStore,
                    severity,
                    Field::StoreBytes,
                    found,
                    recorded,
                )
            });
        } else if has_table && found > recorded {
            let problem = Problem::GrownStore;
            sink(of_store(
                problem,
                Severity::Note,
                Field::StoreBytes,
                found,
                recorded,
            ));
        }
        if tally.above_floor != 0 {
            let (floor, problem) = (self.survey.floor, Problem::ZeroFloor);
            let (severity, field) = (Severity::Repairable, Field::ZeroFloorChunk);
            sink(of_store(problem, severity, field, floor, tally.above_floor));
        }
    }

    /// What of the guest's disk a page of table or bitmap speaks of.
    fn guest_of_page(&self, kind: PageKind, index: u32) -> Option<GuestRange> {
        let shape = &self.disk.map.shape;
        let index = u64::from(index);
        match kind {
            PageKind::Table => {
                let bytes = shape
                    .chunk_bytes()
                    .saturating_mul(u64::from(ENTRIES_PER_PAGE));
                self.guest(index.saturating_mul(bytes), bytes)
            }
            PageKind::Bitmap => {
                let blocks = PAGE_BYTES as u64 * 8;
                let first = index.saturating_mul(blocks);
                let last = first
                    .saturating_add(blocks)
                    .min(self.disk.map.bitmap_blocks);
                let start = shape.block_start(BlockIndex(first)).0;
                let end = shape.block_start(BlockIndex(last)).0;
                self.guest(start, end.saturating_sub(start))
            }
        }
    }

    /// A range of the guest's disk, as much of it as there is.
    fn guest(&self, start: u64, bytes: u64) -> Option<GuestRange> {
        let left = self.disk.map.shape.virtual_bytes().checked_sub(start)?;
        let bytes = bytes.min(left);
        (bytes != 0).then_some(GuestRange { start, bytes })
    }
}
