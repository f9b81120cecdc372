//! Table entries of 2011: a chunk number in 31 bits, and one bit that says "not saved yet".

use crate::format::table::{TableEntry, UNMAPPED};
use crate::units::StoreChunk;

/// Set in copies of entries whose mapping was not safe yet when they were made.
const DIRTY: u32 = 0x8000_0000;

/// Reads an entry; every value has a meaning.
#[must_use]
pub const fn decode_old_entry(raw: u32) -> TableEntry {
    match raw {
        UNMAPPED => TableEntry::Unmapped,
        raw => TableEntry::Chunk(StoreChunk(raw & !DIRTY)),
    }
}

/// Turns the first `count` entries of a table into those of version 2, in place.
pub fn mask_old_entries(table: &mut [u8], count: u32) {
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    for bytes in table.as_chunks_mut::<4>().0.iter_mut().take(count) {
        *bytes = decode_old_entry(u32::from_le_bytes(*bytes))
            .encode()
            .to_le_bytes();
    }
}
