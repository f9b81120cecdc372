//! What a session's memory is for.

use crate::alloc::Allocator;
use crate::buffer::{Arena, OpPool};
use crate::engine::Slots;
use crate::format::PAGE_BYTES;
use crate::journal::JOURNAL_OPS;
use crate::meta::{DirtyPages, PendingTable};

use super::layout::Layout;

/// Bytes of arena by what they are for (docs/MEMORY.md). Made by [`Layout::memory`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct MemoryParts {
    /// The lookup table: 4 bytes per chunk of the disk.
    pub table: usize,
    /// The base bitmap: a bit per block of the base.
    pub bitmap: usize,
    /// In the old dialects, table and bitmap as they may be written in place: a second copy of both.
    pub sealed: usize,
    /// Checksums of table and bitmap pages, and which of these pages changed.
    pub checksums: usize,
    /// Which chunks of the store are free: a bit per chunk that it has or may grow to.
    pub free_map: usize,
    /// Mappings that are on their way to the journal.
    pub pending: usize,
    /// What devices read and write on the disk's own behalf: journal units, pages, zeros, copies of
    /// partly written blocks.
    pub staging: usize,
    /// One per guest request in flight.
    pub slots: usize,
    /// Records of the disk's own device operations.
    pub ops: usize,
}

impl MemoryParts {
    /// All of it.
    #[must_use]
    pub const fn total(&self) -> usize {
        self.table
            .saturating_add(self.bitmap)
            .saturating_add(self.sealed)
            .saturating_add(self.checksums)
            .saturating_add(self.free_map)
            .saturating_add(self.pending)
            .saturating_add(self.staging)
            .saturating_add(self.slots)
            .saturating_add(self.ops)
    }
}

/// Bytes of a device as bytes of memory; `usize::MAX` if no memory is that large.
const fn in_memory(bytes: u64) -> usize {
    if bytes > usize::MAX as u64 {
        usize::MAX
    } else {
        bytes as usize
    }
}

impl Layout {
    /// Bytes of arena that [`Opening::new`](super::Opening::new) needs, exactly. The arena must
    /// start at a multiple of 4096.
    #[must_use]
    pub const fn arena_bytes(&self) -> usize {
        self.memory().total()
    }

    /// What these bytes are for.
    #[must_use]
    pub const fn memory(&self) -> MemoryParts {
        let (map, options) = (&self.map, &self.options);
        // Both hold whole pages, the table's first.
        let table = map
            .page_bytes
            .saturating_sub(in_memory(self.header.core.bitmap.bytes));
        let scratch = Arena::staging_bytes(in_memory(self.shape.block_bytes()))
            .saturating_mul(self.scratch_blocks() as usize);
        let holders = OpPool::arena_bytes(self.holder_count() as usize);
        MemoryParts {
            table,
            bitmap: map.page_bytes - table,
            sealed: Arena::part_bytes::<u8>(map.sealed_bytes),
            checksums: Arena::part_bytes::<u8>(map.sum_bytes)
                .saturating_add(DirtyPages::arena_bytes(map.page_count)),
            free_map: Allocator::arena_bytes(self.store_chunks_max),
            pending: PendingTable::arena_bytes(map.pending),
            staging: scratch
                .saturating_add(self.journal.staging_bytes())
                .saturating_add(Arena::staging_bytes(options.zero_memory_bytes as usize))
                .saturating_add(Arena::part_bytes::<u8>(PAGE_BYTES)),
            slots: Slots::arena_bytes(options.queue_depth),
            // Those that hold staging memory come first and are padded to where it starts.
            ops: Arena::staging_bytes(holders)
                .saturating_add(OpPool::arena_bytes(options.part_ops as usize))
                .saturating_add(OpPool::arena_bytes(JOURNAL_OPS as usize)),
        }
    }
}
