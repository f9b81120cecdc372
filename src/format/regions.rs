//! Where everything lies on the devices, proved disjoint (SPEC.md §2).
//!
//! Invariants:
//! 1. A [`Regions`] value exists only for a header whose metadata regions are aligned, start
//!    behind the header slots, end inside the device and overlap neither each other nor the data.
//! 2. So a write to a store chunk below `store_chunks` can not touch metadata.

use super::HEADER_BYTES;
use super::PAGE_BYTES_U64;
use super::error::{Field, FormatError};
use super::header::Header;
use super::page::ChecksumArray;
use crate::units::SECTOR_BYTES;

/// A run of bytes on the metadata device; `bytes == 0` means that it does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct Region {
    /// First byte, from the start of the device.
    pub offset: u64,
    /// Length in bytes.
    pub bytes: u64,
}

impl Region {
    /// A region that does not exist.
    pub const NONE: Region = Region {
        offset: 0,
        bytes: 0,
    };

    /// Whether there is a region.
    #[must_use]
    pub const fn exists(&self) -> bool {
        self.bytes != 0
    }

    /// One past the last byte, or `None` if that is 2^64 or more.
    #[must_use]
    pub const fn end(&self) -> Option<u64> {
        self.offset.checked_add(self.bytes)
    }

    /// Whole pages in the region.
    #[must_use]
    pub fn pages(&self) -> u32 {
        u32::try_from(self.bytes.div_ceil(PAGE_BYTES_U64)).unwrap_or(u32::MAX)
    }
}

/// The chunks' part of the data device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct DataArea {
    /// First byte of chunk 0.
    pub offset: u64,
    /// Whether it is on a device of its own.
    pub external: bool,
    /// Whole chunks inside the recorded `store_bytes`: no table entry may reach beyond them.
    pub store_chunks: u32,
}

/// The regions of one image, checked against the devices they lie on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Regions {
    /// The lookup table.
    pub table: Option<Region>,
    /// The base bitmap.
    pub bitmap: Option<Region>,
    /// The checksum array that holds.
    pub checksums_active: Option<Region>,
    /// The checksum array that the next checkpoint writes.
    pub checksums_idle: Option<Region>,
    /// The journal.
    pub journal: Option<Region>,
    /// The chunks.
    pub data: DataArea,
}

/// A region with the field that an error about its offset names.
type Placed = (Region, Field);

/// Implements [`Header::validate`].
pub(super) fn place(
    header: &Header,
    metadata_capacity: u64,
    data_capacity: Option<u64>,
) -> Result<Regions, FormatError> {
    if metadata_capacity < HEADER_BYTES {
        return Err(FormatError::corrupt(Field::HeaderSlot, metadata_capacity));
    }
    let placed = [
        (header.core.table, Field::TableOffset),
        (header.core.bitmap, Field::BitmapOffset),
        (
            header.checksum_region(ChecksumArray::A),
            Field::ChecksumOffsetA,
        ),
        (
            header.checksum_region(ChecksumArray::B),
            Field::ChecksumOffsetB,
        ),
        (header.core.journal, Field::JournalOffset),
    ];
    for (region, field) in placed.into_iter().filter(|(region, _)| region.exists()) {
        check_place(header, region, field, metadata_capacity)?;
    }
    check_overlaps(&placed)?;
    check_data(header, &placed, metadata_capacity, data_capacity)?;

    let some = |region: Region| region.exists().then_some(region);
    Ok(Regions {
        table: some(header.core.table),
        bitmap: some(header.core.bitmap),
        checksums_active: some(header.checksum_region(header.checksum_active)),
        checksums_idle: some(header.checksum_region(header.checksum_active.other())),
        journal: some(header.core.journal),
        data: DataArea {
            offset: header.core.data_offset,
            external: header.has_external_data(),
            store_chunks: header.chunks_in(header.store_bytes),
        },
    })
}

/// Aligned, behind the header, inside the device.
fn check_place(
    header: &Header,
    region: Region,
    field: Field,
    capacity: u64,
) -> Result<(), FormatError> {
    let inside = region.end().is_some_and(|end| end <= capacity);
    let alignment = if header.dialect.is_old() {
        SECTOR_BYTES
    } else {
        PAGE_BYTES_U64
    };
    if region.offset < HEADER_BYTES || !region.offset.is_multiple_of(alignment) || !inside {
        return Err(FormatError::corrupt(field, region.offset));
    }
    Ok(())
}

/// Every pair of metadata regions is disjoint; five regions make ten pairs.
fn check_overlaps(placed: &[Placed]) -> Result<(), FormatError> {
    let mut rest = placed;
    while let Some(((region, _), others)) = rest.split_first() {
        for (other, field) in others {
            if overlap(*region, *other) {
                return Err(FormatError::corrupt(*field, other.offset));
            }
        }
        rest = others;
    }
    Ok(())
}

/// The data area is clear of the metadata and inside its device.
///
/// With a table it may grow, so it owns everything from `data_offset` on. Without one it is just
/// the disk, and metadata may lie behind it.
fn check_data(
    header: &Header,
    placed: &[Placed],
    metadata_capacity: u64,
    data_capacity: Option<u64>,
) -> Result<(), FormatError> {
    let offset = header.core.data_offset;
    let capacity = if header.has_external_data() {
        data_capacity
    } else {
        let bytes = if header.has_table() {
            u64::MAX.saturating_sub(offset)
        } else {
            header.core.virtual_bytes
        };
        let data = Region { offset, bytes };
        let hit = placed.iter().any(|(region, _)| overlap(*region, data));
        let aligned = offset.is_multiple_of(SECTOR_BYTES);
        if offset < HEADER_BYTES || !aligned || hit {
            let field = if header.dialect.is_old() {
                Field::OldDataOffset
            } else {
                Field::DataOffset
            };
            return Err(FormatError::corrupt(field, offset));
        }
        Some(metadata_capacity)
    };
    match capacity {
        // A device that shrank has lost chunks that the table may name.
        Some(capacity) if capacity < header.store_bytes => {
            Err(FormatError::corrupt(Field::StoreBytes, header.store_bytes))
        }
        _ => Ok(()),
    }
}

/// Whether two regions share a byte. Ends that would wrap count as "to the end of the device".
fn overlap(one: Region, other: Region) -> bool {
    let end = |region: Region| region.end().unwrap_or(u64::MAX);
    one.exists() && other.exists() && one.offset < end(other) && other.offset < end(one)
}
