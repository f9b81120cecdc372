//! What recovery reads back: the run of durable commits, and proof that nothing durable is missing.
//!
//! The journal is read once, slot by slot in the order of sequence numbers:
//!
//! ```text
//! slot of stable_seq ──► unit, unit, unit, ✗ gap ──► old units, torn units, units that overtook ──► end
//!                        └── commits: applied ┘      └── must not prove that durable data is lost ┘
//! ```
//!
//! A commit is kept aside, unit by unit, until its last unit was read, and applied whole or not at
//! all. Nothing is read twice, so a unit that reads differently each time (a write that power loss
//! left half done) is either applied or skipped. A skipped one is never looked at again, since its
//! number is burnt. Only the end of the run can have an applied one, since a commit is durable before
//! the next but one begins; it is written again before anything in place relies on it
//! (`open/rewrite.rs`).

use crate::buffer::Part;
use crate::engine::Staging;
use crate::format::journal::{
    Record, RecordBounds, UnitView, commit_units_max, parse_unit, slot_of,
};
use crate::format::{Field, FormatError, Header, ImageId, SEQ_MAX};
use crate::meta::Map;
use crate::seeded::{Bug, bug};
use crate::units::ChunkIndex;

/// Recovery's state while it reads the journal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Replay {
    image_id: ImageId,
    units: u64,
    unit_bytes: u32,
    /// `stable_seq` of the header: older units are in place.
    stable_seq: u64,
    /// Sequence number of the next unit of the run.
    expected: u64,
    /// Sequence number at which the run ended.
    gap: Option<u64>,
    /// One more than the highest sequence number of any valid unit.
    beyond: u64,
    /// Units of the commit that is being read.
    aside: u32,
    /// Sequence number after the last commit that was applied.
    applied: u64,
    /// Units up to there that are still kept aside: nothing read so far proves them durable.
    doubtful: u32,
    /// Those of them that the commit that is being read is kept behind.
    held: u32,
    /// Newest floor and size of the store.
    pub(crate) floor: u64,
    pub(crate) store_bytes: u64,
    /// Records that were applied.
    pub(crate) records: u64,
}

impl Replay {
    pub(crate) fn new(header: &Header) -> Replay {
        let stable_seq = header.core.stable_seq;
        Replay {
            image_id: header.image_id,
            units: header.journal_units(),
            unit_bytes: header.atomic_unit,
            stable_seq,
            expected: stable_seq,
            gap: None,
            beyond: 0,
            aside: 0,
            applied: stable_seq,
            doubtful: 0,
            held: 0,
            floor: header.zero_floor_chunk,
            store_bytes: header.store_bytes,
            records: 0,
        }
    }

    /// The slot to read first.
    pub(crate) fn first_slot(&self) -> u64 {
        slot_of(self.stable_seq, self.units)
    }

    /// Takes one unit, as it was at `slot`.
    ///
    /// # Errors
    /// `Corrupt` for a unit that proves lost data, or for records that the image can not have.
    pub(crate) fn take_unit(
        &mut self,
        slot: u64,
        page: &mut Part<u8>,
        aside: &mut Staging,
        map: &mut Map,
        header: &Header,
    ) -> Result<(), FormatError> {
        let unit = page.get(..self.unit_bytes as usize).unwrap_or(&[]);
        let Some(view) = parse_unit(unit, &self.image_id, slot, self.units) else {
            self.end_run();
            return Ok(());
        };
        if view.stable_seq > self.stable_seq && !bug(Bug::SeqIgnored) {
            // A header that is newer than the one found was durable once (FORMAT decision 2).
            return Err(FormatError::corrupt(Field::StableSeq, view.stable_seq));
        }
        view.commit_start()?;
        self.beyond = self.beyond.max(view.seq.saturating_add(1));
        if bug(Bug::ReplayPastGap) && view.seq > self.expected {
            (self.expected, self.gap) = (view.seq, None);
        }
        let next = view.seq == self.expected || bug(Bug::SeqIgnored);
        if self.gap.is_some() || !next {
            self.end_run();
            return self.check_beyond_gap(&view);
        }
        let most = commit_units_max(self.units, self.unit_bytes);
        if u32::from(view.index()) != self.aside || self.aside >= most {
            return Err(FormatError::corrupt(
                Field::UnitIndex,
                u64::from(view.index()),
            ));
        }
        let last = view.last() || bug(Bug::SplitAndLastIgnored);
        if self.aside == 0 {
            self.begin_commit(&view, aside);
        }
        if !aside.copy_in(self.place_aside(self.aside), unit) {
            return Err(FormatError::corrupt(
                Field::UnitIndex,
                u64::from(self.aside),
            ));
        }
        self.aside += 1;
        self.expected += 1;
        if last {
            self.apply(page, aside, map, header)
        } else {
            Ok(())
        }
    }

    /// Ends the run, and drops the commit that was being read.
    pub(crate) fn stop(&mut self) {
        self.end_run();
        self.aside = 0;
    }

    fn end_run(&mut self) {
        self.gap = self.gap.or(Some(self.expected));
    }

    /// A unit beyond the gap whose commit began after it, written when every earlier commit was
    /// known durable, proves that the gap swallowed a durable commit.
    fn check_beyond_gap(&self, view: &UnitView<'_>) -> Result<(), FormatError> {
        let gap = self.gap.unwrap_or(self.expected);
        if bug(Bug::GapRuleWithoutIndex) && view.seq > gap && !view.earlier_unsure() {
            return Err(FormatError::corrupt(Field::UnitSeq, view.seq));
        }
        if view.seq <= gap || view.earlier_unsure() {
            return Ok(());
        }
        if view.commit_start()? > gap {
            return Err(FormatError::corrupt(Field::UnitSeq, view.seq));
        }
        Ok(())
    }

    /// Applies the commit that was kept aside.
    fn apply(
        &mut self,
        page: &mut Part<u8>,
        aside: &Staging,
        map: &mut Map,
        header: &Header,
    ) -> Result<(), FormatError> {
        let first = self.expected - u64::from(self.aside);
        for index in 0..self.aside {
            let Some(unit) = page.get_mut(..self.unit_bytes as usize) else {
                break;
            };
            aside.copy_out(self.place_aside(index), unit);
            let seq = if bug(Bug::SeqIgnored) {
                stored_seq(unit)
            } else {
                first + u64::from(index)
            };
            let slot = slot_of(seq, self.units);
            let Some(view) = parse_unit(unit, &self.image_id, slot, self.units) else {
                return Err(FormatError::corrupt(
                    Field::UnitSeq,
                    first + u64::from(index),
                ));
            };
            self.apply_unit(&view, map, header)?;
        }
        self.doubtful = self.held + core::mem::take(&mut self.aside);
        self.applied = self.expected;
        Ok(())
    }

    /// A commit begins. When its units were written every earlier one was durable, but for an eager
    /// unit that they say may not be: then that one is kept in front of them.
    fn begin_commit(&mut self, view: &UnitView<'_>, aside: &Staging) {
        let most = commit_units_max(self.units, self.unit_bytes);
        let needed = u64::from(self.doubtful.saturating_add(most)) * u64::from(self.unit_bytes);
        if !view.earlier_unsure() || needed > aside.bytes() {
            self.doubtful = 0;
        }
        self.held = self.doubtful;
    }

    /// Where a unit of the commit that is being read is kept.
    fn place_aside(&self, index: u32) -> u64 {
        u64::from(self.held.saturating_add(index)) * u64::from(self.unit_bytes)
    }

    /// The units at the end of the run that nothing proves durable: the first sequence number and how
    /// many there are. They lie at the start of the memory that commits are kept aside in.
    pub(crate) fn doubtful_units(&self) -> (u64, u32) {
        let first = self.applied.saturating_sub(u64::from(self.doubtful));
        (first, self.doubtful)
    }

    /// Takes a unit that can not be read: one that power loss left half written.
    pub(crate) fn take_unreadable(&mut self) {
        self.end_run();
    }

    fn apply_unit(
        &mut self,
        view: &UnitView<'_>,
        map: &mut Map,
        header: &Header,
    ) -> Result<(), FormatError> {
        let bounds = RecordBounds::new(header);
        for record in view.records() {
            let record = record?;
            bounds.check(&record, header.chunks_in(self.store_bytes))?;
            self.records += 1;
            match record {
                Record::Map(record) => {
                    let chunk = ChunkIndex(record.chunk.0);
                    let mut value = map.mapping(chunk);
                    value.entry = record.entry.unwrap_or(value.entry);
                    value.bits |= record.bits.unwrap_or(0);
                    map.set_mapping(chunk, value);
                    map.mark_dirty(chunk);
                    map.sum_replayed(&record);
                }
                Record::Store(record) => {
                    self.store_bytes = self.store_bytes.max(record.store_bytes);
                    if !bug(Bug::FloorNotReplayed) {
                        self.floor = self.floor.max(u64::from(record.zero_floor_chunk));
                    }
                }
            }
        }
        Ok(())
    }

    /// First sequence number that this session may use: beyond every unit that was ever written, and
    /// a whole journal further, so that no old or torn unit can ever join a later run.
    ///
    /// # Errors
    /// `Corrupt` if the image's sequence numbers are used up.
    pub(crate) fn first_seq(&self) -> Result<u64, FormatError> {
        let burns = !bug(Bug::NoBurning) && !bug(Bug::SplitAndNoBurning);
        if !burns {
            return Ok(self.applied);
        }
        let seen = if bug(Bug::BurnReplayedOnly) {
            0
        } else {
            self.beyond
        };
        let burnt = if bug(Bug::BurnReplayedOnly) {
            1
        } else {
            self.units
        };
        let next = self
            .stable_seq
            .max(self.applied)
            .max(seen)
            .saturating_add(burnt);
        if next > SEQ_MAX {
            Err(FormatError::corrupt(Field::StableSeq, self.stable_seq))
        } else {
            Ok(next)
        }
    }
}

/// Only for seeded bugs: the sequence number that a unit claims.
fn stored_seq(unit: &[u8]) -> u64 {
    let at = unit
        .len()
        .saturating_sub(crate::format::journal::TRAILER_BYTES - 8);
    unit.get(at..)
        .and_then(<[u8]>::first_chunk)
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}
