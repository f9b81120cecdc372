//! What an image looks like inside: extents for `map`, totals for `info`, every fault for `check`.
//!
//! Opening proves the structure of an image: every page, every entry, one owner per chunk, nothing
//! above the zero floor. What is left to say of an open one is how much is used. An
//! [`Inspection`] looks at one that can not be opened, and says all that is wrong with it.

mod finding;
mod inspection;

pub use finding::{Finding, GuestRange, Place, Problem, Severity};
pub use inspection::Inspection;

use crate::engine::Disk;
use crate::format::bitmap;
use crate::format::table::TableEntry;
use crate::meta::Source;
use crate::stores::Stores;
use crate::units::{BlockIndex, ChunkIndex, GuestOffset};

/// Where a guest extent lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExtentState {
    /// On the data device, from this byte.
    Image {
        /// First byte on the data device.
        offset: u64,
    },
    /// In the base, from this byte.
    Base {
        /// First byte in the base.
        offset: u64,
    },
    /// Nowhere: it reads zeros.
    Zero,
    /// Known to be lost: reads fail.
    Unreadable,
}

/// A run of guest bytes with one answer to "where".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Bytes, at least 1.
    pub bytes: u64,
    /// Where.
    pub state: ExtentState,
}

/// Totals over an open image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Usage {
    /// Chunks of the disk that have a chunk of the store. Without a table, 0.
    pub chunks_mapped: u64,
    /// Chunks of the disk that are known to be lost.
    pub chunks_unreadable: u64,
    /// Chunks that the store has now. Without a table, 0.
    pub chunks_in_store: u64,
    /// Free chunks of the store that may hold old data and are zeroed before use.
    pub chunks_free_used: u64,
    /// Blocks of the disk that the bitmap covers, and those of them that hide the base.
    pub blocks_covered: u64,
    /// Covered blocks whose content is not the base's any more.
    pub blocks_hidden: u64,
    /// Bytes of the store that hold guest data.
    pub allocated_bytes: u64,
}

impl<S: Stores> Disk<S> {
    /// The extent that starts at `offset`, at most up to the end of the disk or 1 GiB. `None` at or
    /// beyond the end.
    #[must_use]
    pub fn extent_at(&self, offset: GuestOffset) -> Option<Extent> {
        let end = self.map.shape.virtual_bytes();
        if offset.0 >= end {
            return None;
        }
        let run = self
            .map
            .run(offset.0, end.min(offset.0.saturating_add(1 << 30)));
        let state = match run.source {
            Source::Store(offset) => ExtentState::Image { offset },
            Source::Base(offset) => ExtentState::Base { offset },
            Source::Zero => ExtentState::Zero,
            Source::Unreadable => ExtentState::Unreadable,
        };
        Some(Extent {
            bytes: run.bytes,
            state,
        })
    }

    /// Counts what is used. Looks at every chunk and block once.
    #[must_use]
    pub fn usage(&self) -> Usage {
        let map = &self.map;
        let mut usage = Usage {
            blocks_covered: map.bitmap_blocks,
            ..Usage::default()
        };
        if map.loose {
            usage.blocks_hidden = bitmap::count_set(map.bitmap(), map.bitmap_blocks);
        }
        for chunk in 0..map.shape.chunk_count() {
            let chunk = ChunkIndex(chunk);
            usage.blocks_hidden += u64::from(map.bits(chunk).count_ones());
            if map.has_table {
                match map.entry(chunk) {
                    TableEntry::Chunk(_) => usage.chunks_mapped += 1,
                    TableEntry::Unreadable | TableEntry::Split(_) => usage.chunks_unreadable += 1,
                    TableEntry::Unmapped => {}
                }
            }
        }
        if map.has_table {
            usage.chunks_in_store = u64::from(self.alloc.chunks());
            usage.chunks_free_used = u64::from(self.alloc.dirty_free());
            usage.allocated_bytes = usage.chunks_mapped.saturating_mul(map.shape.chunk_bytes());
        } else if map.bitmap_blocks != 0 {
            let beyond = map
                .shape
                .virtual_bytes()
                .saturating_sub(map.shape.block_start(BlockIndex(map.bitmap_blocks)).0);
            let hidden = usage.blocks_hidden.saturating_mul(map.shape.block_bytes());
            usage.allocated_bytes = hidden.saturating_add(beyond);
        } else {
            usage.allocated_bytes = map.shape.virtual_bytes();
        }
        usage
    }
}
