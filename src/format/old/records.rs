//! Journal sectors of 2011: to read, since what this crate writes needs no journal (DIALECTS.md §4).
//!
//! Each sector of 512 bytes stands for itself. Records follow each other from its first byte; the
//! first four bytes that are no known type end it, and what lies behind them is not looked at (the
//! reference leaves uninitialised memory there). Nothing in a sector proves that it is whole or new.

use crate::format::slots::Dialect;

/// Bytes of a journal sector.
pub const SECTOR_LEN: usize = 512;

/// Table entries of the reference that fit a sector together with a bitmap record.
pub(super) const ENTRIES_BESIDE_BITMAP: u64 = 121;

const BITMAP_RECORD: u32 = 0x3F2A_B8ED;
const TABLE_RECORD: u32 = 0xB4E6_F7AC;

/// What one record says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OldRecord<'a> {
    /// Blocks that these sectors of the disk touch are not in the base any more.
    Bitmap {
        /// First sector; may be negative in a damaged image.
        first_sector: i64,
        /// Sectors.
        sectors: u32,
    },
    /// Table entries, as they were stored.
    Table {
        /// Index of the first entry.
        first_chunk: u32,
        /// Four bytes each.
        entries: &'a [[u8; 4]],
        /// `journal_epoch`; 0 in the reference's dialect, which has none.
        epoch: u64,
    },
}

/// The records of one journal sector.
#[derive(Clone, Debug)]
pub struct OldRecords<'a> {
    rest: &'a [u8],
    dialect: Dialect,
    /// Whether a record began that does not fit its sector.
    broken: bool,
}

impl<'a> OldRecords<'a> {
    /// Reads a sector of an image of this dialect. Bytes beyond 512 are not looked at.
    #[must_use]
    pub fn new(sector: &'a [u8], dialect: Dialect) -> OldRecords<'a> {
        OldRecords {
            rest: sector.get(..SECTOR_LEN).unwrap_or(sector),
            dialect,
            broken: false,
        }
    }

    /// Whether the sector ended in a record that does not fit it: damage, or half a sector.
    #[must_use]
    pub const fn is_broken(&self) -> bool {
        self.broken
    }

    fn take<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (bytes, rest) = self.rest.split_first_chunk::<N>()?;
        self.rest = rest;
        Some(*bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.take().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take().map(u64::from_le_bytes)
    }

    fn bitmap(&mut self) -> Option<OldRecord<'a>> {
        let sectors = self.u32()?;
        let first_sector = self.take().map(i64::from_le_bytes)?;
        Some(OldRecord::Bitmap {
            first_sector,
            sectors,
        })
    }

    /// The reference puts the index first; the specification an epoch, then the count.
    fn table(&mut self) -> Option<OldRecord<'a>> {
        let (epoch, first_chunk, count) = if self.dialect == Dialect::Spec2011 {
            let (epoch, count) = (self.u64()?, self.u32()?);
            (epoch, self.u32()?, count)
        } else {
            (0, self.u32()?, self.u32()?)
        };
        let bytes = usize::try_from(count).ok()?.checked_mul(4)?;
        let (entries, rest) = self.rest.split_at_checked(bytes)?;
        self.rest = rest;
        Some(OldRecord::Table {
            first_chunk,
            entries: entries.as_chunks().0,
            epoch,
        })
    }
}

impl<'a> Iterator for OldRecords<'a> {
    type Item = OldRecord<'a>;

    fn next(&mut self) -> Option<OldRecord<'a>> {
        let record = match self.u32() {
            Some(BITMAP_RECORD) => self.bitmap(),
            Some(TABLE_RECORD) => self.table(),
            _ => {
                self.rest = &[];
                return None;
            }
        };
        if record.is_none() {
            self.broken = true;
            self.rest = &[];
        }
        record
    }
}
