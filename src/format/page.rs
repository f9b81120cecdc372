//! Metadata pages and their checksums (SPEC.md §8).
//!
//! Pages are numbered over both regions: the table's first, then the bitmap's. The checksum starts
//! with the image id and that number, so that a page from another image, or from another place of
//! this one, fails although its bytes are intact.

use super::crc32c::{self, Crc32c};
use super::error::{Field, FormatError};
use super::table::ENTRIES_PER_PAGE;
use super::{ImageId, PAGE_BYTES};

/// Bytes of one page checksum.
pub const CHECKSUM_BYTES: u64 = 4;

/// One of the two checksum arrays, which checkpoints write in turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum ChecksumArray {
    /// The array at `checksum_offset[0]`.
    #[default]
    A,
    /// The array at `checksum_offset[1]`.
    B,
}

impl ChecksumArray {
    /// The array that the next checkpoint writes while this one holds.
    #[must_use]
    pub const fn other(self) -> ChecksumArray {
        match self {
            ChecksumArray::A => ChecksumArray::B,
            ChecksumArray::B => ChecksumArray::A,
        }
    }

    /// Reads `checksum_active`.
    pub(super) fn decode(raw: u32) -> Result<ChecksumArray, FormatError> {
        match raw {
            0 => Ok(ChecksumArray::A),
            1 => Ok(ChecksumArray::B),
            other => Err(FormatError::corrupt(
                Field::ChecksumActive,
                u64::from(other),
            )),
        }
    }

    /// The array as `checksum_active` stores it.
    pub(super) const fn encode(self) -> u32 {
        match self {
            ChecksumArray::A => 0,
            ChecksumArray::B => 1,
        }
    }
}

/// What a metadata page holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PageKind {
    /// 1,024 lookup-table entries.
    Table,
    /// 32,768 bits of the base bitmap.
    Bitmap,
}

/// How many pages of each kind an image has; gives every page its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct PageCounts {
    /// Pages of the table; 0 without a table.
    pub table_pages: u32,
    /// Pages of the bitmap; 0 without one.
    pub bitmap_pages: u32,
}

impl PageCounts {
    /// All pages, and so all checksums.
    #[must_use]
    pub const fn total(&self) -> u32 {
        self.table_pages.saturating_add(self.bitmap_pages)
    }

    /// The number of page `page` of its region, or `None` past the region's end.
    #[must_use]
    pub fn number(&self, kind: PageKind, page: u32) -> Option<u32> {
        match kind {
            PageKind::Table if page < self.table_pages => Some(page),
            PageKind::Bitmap if page < self.bitmap_pages => self.table_pages.checked_add(page),
            PageKind::Table | PageKind::Bitmap => None,
        }
    }

    /// The region and the page in it that a number names, or `None` past the last page.
    #[must_use]
    pub fn locate(&self, number: u32) -> Option<(PageKind, u32)> {
        match number.checked_sub(self.table_pages) {
            None => Some((PageKind::Table, number)),
            Some(page) if page < self.bitmap_pages => Some((PageKind::Bitmap, page)),
            Some(_) => None,
        }
    }
}

/// The checksum of metadata page number `number` of the image.
#[must_use]
pub fn page_checksum(image_id: &ImageId, number: u32, page: &[u8; PAGE_BYTES]) -> u32 {
    Crc32c::new()
        .and(&image_id.0)
        .and(&number.to_le_bytes())
        .and(page)
        .finish()
}

/// What the checksum of any page changes by, under exclusive or, when word `word` of the page (4 bytes,
/// little-endian, from 0 to 1023) changes by `change`, under exclusive or.
#[must_use]
pub fn checksum_change(word: u32, change: u32) -> u32 {
    // A table entry is a word.
    let behind = ENTRIES_PER_PAGE.saturating_sub(word.saturating_add(1));
    crc32c::difference(change, behind)
}

/// Reads checksum `number` from the bytes of a checksum array, or `None` past their end.
#[must_use]
pub fn read_checksum(array: &[u8], number: u32) -> Option<u32> {
    let start = usize::try_from(u64::from(number).checked_mul(CHECKSUM_BYTES)?).ok()?;
    Some(u32::from_le_bytes(*array.get(start..)?.first_chunk()?))
}

/// Writes checksum `number` into the bytes of a checksum array; `false` past their end.
#[must_use]
pub fn write_checksum(array: &mut [u8], number: u32, checksum: u32) -> bool {
    let start = u64::from(number)
        .checked_mul(CHECKSUM_BYTES)
        .and_then(|n| usize::try_from(n).ok());
    let bytes = start
        .and_then(|start| array.get_mut(start..))
        .and_then(<[u8]>::first_chunk_mut);
    match bytes {
        Some(bytes) => {
            *bytes = checksum.to_le_bytes();
            true
        }
        None => false,
    }
}
