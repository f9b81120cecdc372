//! Opening to look instead of to use: what is wrong is noted, and nothing is written.

use heapless::Vec;

use crate::engine::Disk;
use crate::format::FormatError;
use crate::stores::{Role, Stores};

use super::recovery::{OpenFailure, Opening, Step};

/// What an image is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To be used: anything wrong refuses it.
    Use,
    /// To be looked at: the map is filled with what is there, checked or not, and never used.
    Inspect,
    /// To be mended: what can be mended without a guess is, and anything else refuses it.
    Repair,
}

/// Faults of a journal that are kept; further ones are counted.
const FAULTS_MAX: usize = 16;

/// Something wrong in the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct JournalFault {
    /// Slot of the unit; `None` if no single one is to blame.
    pub(crate) slot: Option<u64>,
    pub(crate) error: FormatError,
}

/// The first faults of a journal, and how many there are.
#[derive(Clone, Debug, Default)]
pub(crate) struct JournalFaults {
    pub(crate) first: Vec<JournalFault, FAULTS_MAX>,
    pub(crate) count: u64,
}

impl JournalFaults {
    pub(super) fn note(&mut self, slot: Option<u64>, error: FormatError) {
        self.count = self.count.saturating_add(1);
        // A full list leaves the count.
        let _ = self.first.push(JournalFault { slot, error });
    }
}

/// What is known of an image that was read without refusing anything, beside its map.
#[derive(Clone, Debug)]
pub(crate) struct Survey {
    pub(crate) faults: JournalFaults,
    /// Records that recovery would replay.
    pub(crate) records: u64,
    /// Zero floor and size of the store after them.
    pub(crate) floor: u64,
    pub(crate) store_bytes: u64,
    /// Size of the data device.
    pub(crate) capacity_bytes: u64,
    /// Whether the header that does not count is whole too.
    pub(crate) other_slot_valid: bool,
}

impl<S: Stores> Opening<S> {
    /// Ends the reading of an image that is only looked at.
    pub(super) fn end_survey(&mut self) {
        if let Err(error) = self.replay.first_seq() {
            self.faults.note(None, error);
        }
        self.step = Step::Ready;
    }

    /// What was read, for a look at it. The disk is read-only and must not be used.
    ///
    /// # Errors
    /// As [`Opening::finish`].
    pub(crate) fn finish_survey(self) -> Result<(Disk<S>, Survey), OpenFailure<S>> {
        let mut survey = Survey {
            faults: self.faults.clone(),
            records: self.replay.records,
            floor: self.replay.floor,
            store_bytes: self.replay.store_bytes,
            capacity_bytes: 0,
            other_slot_valid: self.doubtful_slot.is_some(),
        };
        let disk = self.finish()?;
        let data = disk.stores.geometry(Role::Data);
        survey.capacity_bytes = data.map_or(0, |data| data.capacity_bytes);
        Ok((disk, survey))
    }
}
