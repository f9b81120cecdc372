//! What an inspection finds: one small value per fault, with its place and what it costs.

use core::fmt;

use crate::format::{Field, FormatError, SlotIndex};
use crate::units::ChunkIndex;

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Severity {
    /// Legal, and mended by the next session that may write.
    Note,
    /// The image can not be opened; a repair mends it without losing or guessing anything.
    Repairable,
    /// The image can not be opened, and mending it would mean to guess.
    Damage,
}

impl Severity {
    /// One word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Severity::Note => "note",
            Severity::Repairable => "repairable",
            Severity::Damage => "damage",
        }
    }
}

/// What is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Problem {
    /// The last session did not end cleanly; the value is the number of records to replay.
    UnfinishedSession,
    /// One of the two headers is torn or gone. The other one counts.
    LostHeader,
    /// The store has grown, and the header does not say so yet; the value is the size found.
    GrownStore,
    /// A header breaks a rule, or none is whole.
    Header,
    /// A unit of the journal breaks a rule, or proves that something durable is gone.
    Journal,
    /// A page of table or bitmap does not match its checksum. The value is the checksum found.
    PageChecksum,
    /// A table entry means nothing, or names a chunk that the store never had.
    TableEntry,
    /// A table entry names a chunk that another one names too.
    SharedChunk {
        /// A chunk of the disk that has it too; `None` if nobody looked, because there are many.
        with: Option<ChunkIndex>,
    },
    /// Something stands behind the last entry of the table.
    TableTail,
    /// Something stands behind the last bit of the bitmap.
    BitmapTail,
    /// Entries lie at or above the zero floor, where nothing was ever written. The value is the floor.
    ZeroFloor,
    /// The store is shorter than recorded. The value is the size found.
    ShortStore,
    /// A table entry names a chunk in the part of the store that is gone.
    LostChunk,
}

impl Problem {
    /// A name that stays the same from release to release.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Problem::UnfinishedSession => "unfinished-session",
            Problem::LostHeader => "lost-header",
            Problem::GrownStore => "grown-store",
            Problem::Header => "header",
            Problem::Journal => "journal",
            Problem::PageChecksum => "page-checksum",
            Problem::TableEntry => "table-entry",
            Problem::SharedChunk { .. } => "shared-chunk",
            Problem::TableTail => "table-tail",
            Problem::BitmapTail => "bitmap-tail",
            Problem::ZeroFloor => "zero-floor",
            Problem::ShortStore => "short-store",
            Problem::LostChunk => "lost-chunk",
        }
    }
}

/// Where it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// A header slot, or the header if there is no telling which.
    Header(Option<SlotIndex>),
    /// A unit of the journal, or all of it if no single one is to blame.
    Unit {
        /// Slot of the unit, and its first byte on the metadata device.
        slot: Option<(u64, u64)>,
    },
    /// A page of the table.
    TablePage {
        /// The how-manieth.
        page: u32,
        /// Its first byte on the metadata device.
        offset: u64,
    },
    /// A page of the bitmap.
    BitmapPage {
        /// The how-manieth.
        page: u32,
        /// Its first byte on the metadata device.
        offset: u64,
    },
    /// A table entry.
    Entry {
        /// Chunk of the disk.
        chunk: ChunkIndex,
        /// First byte of the entry on the metadata device.
        offset: u64,
    },
    /// The data device.
    Store,
}

/// Bytes of the guest's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestRange {
    /// The first one.
    pub start: u64,
    /// How many.
    pub bytes: u64,
}

/// One thing that is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Finding {
    /// What.
    pub problem: Problem,
    /// How bad.
    pub severity: Severity,
    /// Where.
    pub place: Place,
    /// The field, by the name that SPEC.md gives it.
    pub field: Field,
    /// The value found.
    pub value: u64,
    /// The value on record, or the bound that the value breaks, where there is one.
    pub wanted: Option<u64>,
    /// What of the guest's disk it concerns; `None` if that is not known, or nothing.
    pub guest: Option<GuestRange>,
}

impl Finding {
    pub(super) const fn new(problem: Problem, severity: Severity, place: Place) -> Finding {
        Finding {
            problem,
            severity,
            place,
            field: Field::HeaderSlot,
            value: 0,
            wanted: None,
            guest: None,
        }
    }

    pub(super) const fn at(self, field: Field, value: u64) -> Finding {
        Finding {
            field,
            value,
            ..self
        }
    }

    /// The damage that a header which can not be read is.
    #[must_use]
    pub const fn of_header(slot: Option<SlotIndex>, error: FormatError) -> Finding {
        Finding::new(Problem::Header, Severity::Damage, Place::Header(slot))
            .at(error.field, error.value)
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Place::Header(None) => f.write_str("header"),
            Place::Header(Some(SlotIndex::First)) => f.write_str("header slot 0"),
            Place::Header(Some(SlotIndex::Second)) => f.write_str("header slot 1"),
            Place::Unit { slot: None } => f.write_str("journal"),
            Place::Unit {
                slot: Some((slot, offset)),
            } => write!(f, "journal slot {slot} at byte {offset}"),
            Place::TablePage { page, offset } => write!(f, "table page {page} at byte {offset}"),
            Place::BitmapPage { page, offset } => write!(f, "bitmap page {page} at byte {offset}"),
            Place::Entry { chunk, offset } => {
                write!(f, "table entry {} at byte {offset}", chunk.0)
            }
            Place::Store => f.write_str("data area"),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (place, value, field) = (self.place, self.value, self.field);
        let wanted = self.wanted.unwrap_or(0);
        match self.problem {
            Problem::UnfinishedSession => {
                write!(
                    f,
                    "{place}: the last session was cut off; {value} records to replay"
                )
            }
            Problem::LostHeader => write!(f, "{place}: torn or gone; the other header counts"),
            Problem::GrownStore => {
                write!(
                    f,
                    "{place}: {value} bytes, more than the {wanted} on record"
                )
            }
            Problem::Header | Problem::Journal => {
                let (name, rule) = (field.name(), field.rule());
                write!(f, "{place}: field `{name}` is {value}, {rule}")
            }
            Problem::PageChecksum => {
                write!(
                    f,
                    "{place}: checksum {value:08x}, on record is {wanted:08x}"
                )
            }
            Problem::TableEntry if self.wanted.is_some() => {
                write!(f, "{place}: names chunk {value} of a store of {wanted}")
            }
            Problem::TableEntry => write!(f, "{place}: {value:#010x} means nothing"),
            Problem::SharedChunk { with: Some(other) } => {
                let other = other.0;
                write!(f, "{place}: names chunk {value}, as entry {other} does")
            }
            Problem::SharedChunk { with: None } => {
                write!(f, "{place}: names chunk {value}, as another entry does")
            }
            Problem::TableTail => write!(f, "{place}: {value:#x} behind the last entry"),
            Problem::BitmapTail => write!(f, "{place}: {value:#x} behind the last bit"),
            Problem::ZeroFloor => {
                write!(
                    f,
                    "{place}: the zero floor is {value}, and {wanted} entries are above"
                )
            }
            Problem::ShortStore => {
                write!(
                    f,
                    "{place}: {value} bytes, less than the {wanted} on record"
                )
            }
            Problem::LostChunk => {
                write!(f, "{place}: names chunk {value}; there are {wanted} left")
            }
        }
    }
}
