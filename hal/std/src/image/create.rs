//! Writing a new image to a device.

use fvd::blocking;
use fvd::create::{CREATE_ARENA_BYTES, CreateError};
use fvd::device::BlockDevice;
use fvd::format::page::ChecksumArray;
use fvd::format::{HEADER_BYTES, Header};

use super::error::ImageError;
use super::session::{allocate, free};
use crate::drive::Driver;

/// Bytes that the metadata of a new image take on their device, from its start.
#[must_use]
pub fn metadata_bytes(header: &Header) -> u64 {
    let core = &header.core;
    let regions = [
        core.table,
        core.bitmap,
        core.journal,
        header.checksum_region(ChecksumArray::A),
        header.checksum_region(ChecksumArray::B),
    ];
    let ends = regions.iter().filter_map(|region| region.end());
    ends.fold(HEADER_BYTES, u64::max)
}

/// Bytes of a store that can hold every chunk of the disk, from the start of its device.
#[must_use]
pub fn whole_store_bytes(header: &Header) -> u64 {
    let core = &header.core;
    let chunks = core.virtual_bytes.div_ceil(core.chunk_bytes);
    let content = if header.has_table() {
        chunks.saturating_mul(core.chunk_bytes)
    } else {
        // The last chunk may be cut short.
        core.virtual_bytes
    };
    core.data_offset.saturating_add(content)
}

/// Writes the image that `header` describes to its metadata device. `zeroed` promises that the device
/// reads zeros everywhere.
///
/// # Errors
/// What the device says. There is no image on it then.
pub fn create<D: BlockDevice>(
    driver: &mut Driver,
    mut device: D,
    header: Header,
    zeroed: bool,
) -> Result<(), ImageError> {
    driver.attach(&mut device);
    let (heap, memory) = allocate(CREATE_ARENA_BYTES)?;
    let created = blocking::create(device, header, zeroed, memory, driver.idle());
    free(heap, created.memory);
    created.result.map_err(|error| match error {
        CreateError::Format(error) => ImageError::Format(error),
        CreateError::Device(error) => ImageError::Device(error),
        // The memory was just made to measure.
        _ => ImageError::NoMemory(CREATE_ARENA_BYTES),
    })
}
