//! Units of place and size, and the only conversions between them.
//!
//! Every integer that names a place carries its unit in its type, so that a guest offset can not
//! be handed to a store by mistake. Sizes stay plain integers with the unit in the name
//! (`chunk_bytes`).
//!
//! Invariants:
//! 1. `Shape` is only made by [`Shape::new`] or [`Shape::loose`], so its sizes are in their legal
//!    range and no conversion below can overflow, divide by zero or panic.
//! 2. Lossy conversions round down (`chunk_of`), lossless ones go the other way (`chunk_start`).

/// Bytes in the smallest unit that a guest may address.
pub const SECTOR_BYTES: u64 = 512;

/// Most chunks a disk can have: chunk numbers are 31 bits on disk (SPEC.md §6).
pub const CHUNK_COUNT_MAX: u64 = 1 << 31;

/// Largest block and largest chunk, bytes.
const SIZE_MAX: u64 = 1 << 31;

/// A byte offset in the disk that the guest sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct GuestOffset(pub u64);

/// A byte offset on a store device (metadata store or data store).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct StoreOffset(pub u64);

/// Index of a copy-on-write block of the guest's disk, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct BlockIndex(pub u64);

/// Index of a chunk of the guest's disk, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ChunkIndex(pub u32);

/// Index of a chunk of the data store, from 0 at `data_offset`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct StoreChunk(pub u32);

/// A moment in the caller's clock, in microseconds from an origin that the caller chooses.
///
/// The crate never reads a clock: a run is a function of its inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant {
    /// Microseconds since the caller's origin.
    pub micros: u64,
}

impl Instant {
    /// The origin of the caller's clock.
    pub const ZERO: Instant = Instant { micros: 0 };

    /// A moment `micros` microseconds after the origin.
    #[must_use]
    pub const fn from_micros(micros: u64) -> Instant {
        Instant { micros }
    }

    /// This moment, `micros` microseconds later; the end of time saturates.
    #[must_use]
    pub const fn after_micros(self, micros: u64) -> Instant {
        Instant {
            micros: self.micros.saturating_add(micros),
        }
    }
}

/// A size to divide by: of any value, but fast where it is a power of two.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Size {
    /// Never 0.
    bytes: u64,
    /// The power of two, or [`Size::NO_SHIFT`].
    shift: u32,
}

impl Size {
    const NO_SHIFT: u32 = 64;

    const fn new(bytes: u64) -> Size {
        let shift = if bytes.is_power_of_two() {
            bytes.trailing_zeros()
        } else {
            Size::NO_SHIFT
        };
        Size { bytes, shift }
    }

    /// How many whole ones fit `bytes`.
    const fn count(self, bytes: u64) -> u64 {
        if self.shift < Size::NO_SHIFT {
            return bytes >> self.shift;
        }
        match bytes.checked_div(self.bytes) {
            Some(count) => count,
            None => 0,
        }
    }

    /// What is left of `bytes` behind the last whole one.
    const fn rest(self, bytes: u64) -> u64 {
        if self.shift < Size::NO_SHIFT {
            return bytes & (self.bytes - 1);
        }
        match bytes.checked_rem(self.bytes) {
            Some(rest) => rest,
            None => 0,
        }
    }

    /// How many are needed to cover `bytes`.
    const fn cover(self, bytes: u64) -> u64 {
        self.count(bytes) + if self.rest(bytes) != 0 { 1 } else { 0 }
    }
}

/// Sizes of a disk and the conversions that follow from them.
///
/// In version 2, blocks and chunks are powers of two and chunks are 1 to 16 whole blocks (SPEC.md
/// §3): [`Shape::new`]. The dialects of 2011 allow any multiples of a sector, in either order, so
/// that a block may lie in several chunks: [`Shape::loose`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    virtual_bytes: u64,
    block: Size,
    chunk: Size,
}

impl Shape {
    /// Checks the sizes of a disk. `None` if a size is not a power of two, if a chunk is smaller
    /// than a block or holds more than 16 of them, or if the disk needs 2^31 chunks or more.
    #[must_use]
    pub const fn new(virtual_bytes: u64, block_bytes: u64, chunk_bytes: u64) -> Option<Shape> {
        if !block_bytes.is_power_of_two() || !chunk_bytes.is_power_of_two() {
            return None;
        }
        if chunk_bytes < block_bytes || chunk_bytes >> 4 > block_bytes {
            return None;
        }
        Shape::loose(virtual_bytes, block_bytes, chunk_bytes)
    }

    /// Checks the sizes of a disk of 2011. `None` if a size is no multiple of 512, 0, or more than
    /// 2 GiB, or if the disk needs 2^31 chunks or more.
    #[must_use]
    pub const fn loose(virtual_bytes: u64, block_bytes: u64, chunk_bytes: u64) -> Option<Shape> {
        let whole = virtual_bytes.is_multiple_of(SECTOR_BYTES)
            && block_bytes.is_multiple_of(SECTOR_BYTES)
            && chunk_bytes.is_multiple_of(SECTOR_BYTES);
        let in_range = block_bytes != 0
            && chunk_bytes != 0
            && block_bytes <= SIZE_MAX
            && chunk_bytes <= SIZE_MAX
            && virtual_bytes <= i64::MAX as u64;
        if !whole || !in_range {
            return None;
        }
        let shape = Shape {
            virtual_bytes,
            block: Size::new(block_bytes),
            chunk: Size::new(chunk_bytes),
        };
        if shape.chunk.cover(virtual_bytes) >= CHUNK_COUNT_MAX {
            return None;
        }
        Some(shape)
    }

    /// Size of the guest's disk in bytes.
    #[must_use]
    pub const fn virtual_bytes(&self) -> u64 {
        self.virtual_bytes
    }

    /// Bytes per copy-on-write block.
    #[must_use]
    pub const fn block_bytes(&self) -> u64 {
        self.block.bytes
    }

    /// Bytes per allocation chunk.
    #[must_use]
    pub const fn chunk_bytes(&self) -> u64 {
        self.chunk.bytes
    }

    /// Blocks per chunk where chunks are whole blocks, 1 to 16 in version 2; otherwise rounded down.
    #[must_use]
    pub const fn blocks_per_chunk(&self) -> u32 {
        self.block.count(self.chunk.bytes) as u32
    }

    /// Whether every chunk is 1 to 16 whole blocks, as in version 2.
    #[must_use]
    pub const fn is_grouped(&self) -> bool {
        Shape::new(self.virtual_bytes, self.block.bytes, self.chunk.bytes).is_some()
    }

    /// Chunks of the guest's disk, the last one possibly partial.
    #[must_use]
    pub const fn chunk_count(&self) -> u32 {
        self.chunk.cover(self.virtual_bytes) as u32
    }

    /// Blocks that a base of `base_bytes` touches.
    #[must_use]
    pub const fn blocks_covering(&self, base_bytes: u64) -> u64 {
        self.block.cover(base_bytes)
    }

    /// The chunk that holds `offset`; rounds down.
    #[must_use]
    pub const fn chunk_of(&self, offset: GuestOffset) -> ChunkIndex {
        ChunkIndex(self.chunk.count(offset.0) as u32)
    }

    /// The block that holds `offset`; rounds down.
    #[must_use]
    pub const fn block_of(&self, offset: GuestOffset) -> BlockIndex {
        BlockIndex(self.block.count(offset.0))
    }

    /// First byte of a chunk.
    #[must_use]
    pub const fn chunk_start(&self, chunk: ChunkIndex) -> GuestOffset {
        // Less than 2^32 chunks of at most 2^31 bytes.
        GuestOffset(chunk.0 as u64 * self.chunk.bytes)
    }

    /// One past the last byte of a chunk, which may be beyond the end of the disk.
    #[must_use]
    pub const fn chunk_end(&self, chunk: ChunkIndex) -> GuestOffset {
        GuestOffset(self.chunk_start(chunk).0 + self.chunk.bytes)
    }

    /// The range `[start, end)`, not empty, widened to whole chunks.
    #[must_use]
    #[inline(never)]
    pub(crate) fn whole_chunks(&self, start: u64, end: u64) -> (u64, u64) {
        let last = self.chunk_of(GuestOffset(end.saturating_sub(1)));
        let first = self.chunk_of(GuestOffset(start));
        (self.chunk_start(first).0, self.chunk_end(last).0)
    }

    /// First byte of a block. Blocks past the end of any legal disk saturate.
    #[must_use]
    pub const fn block_start(&self, block: BlockIndex) -> GuestOffset {
        GuestOffset(block.0.saturating_mul(self.block.bytes))
    }

    /// First block that begins in or before a chunk: the chunk's own where chunks are whole blocks.
    #[must_use]
    pub const fn first_block(&self, chunk: ChunkIndex) -> BlockIndex {
        self.block_of(self.chunk_start(chunk))
    }

    /// Bytes between the start of its chunk and `offset`.
    #[must_use]
    pub const fn within_chunk(&self, offset: GuestOffset) -> u64 {
        self.chunk.rest(offset.0)
    }

    /// Bytes between the start of its block and `offset`.
    #[must_use]
    pub const fn within_block(&self, offset: GuestOffset) -> u64 {
        self.block.rest(offset.0)
    }

    /// First byte of a store chunk, counted from `data_offset`.
    #[must_use]
    pub const fn store_chunk_start(&self, chunk: StoreChunk) -> u64 {
        chunk.0 as u64 * self.chunk.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shape_refuses_what_the_format_can_not_hold() {
        assert!(Shape::new(1 << 40, 64 << 10, 1 << 20).is_some());
        for (disk, block, chunk) in [
            (1 << 40, 0, 1 << 20),
            (1 << 40, 7680, 1 << 20),
            (1 << 40, 256, 4096),
            (1 << 40, 8192, 4096),
            (1 << 40, 4096, 1 << 20),
            ((1 << 40) + 1, 65536, 1 << 20),
            (1 << 62, 65536, 1 << 20),
            (!511, 65536, 1 << 20),
        ] {
            assert!(
                Shape::new(disk, block, chunk).is_none(),
                "{disk} {block} {chunk}"
            );
        }
    }

    #[test]
    fn loose_shapes_divide_where_they_can_not_shift() {
        let shape = Shape::loose(10 << 20, 7680, 12288).expect("legal");
        let offset = GuestOffset(7680 * 100 + 512);
        assert_eq!(shape.block_of(offset), BlockIndex(100));
        assert_eq!(shape.within_block(offset), 512);
        assert_eq!(shape.chunk_of(offset), ChunkIndex(62));
        assert_eq!(shape.within_chunk(offset), 7680 * 100 + 512 - 62 * 12288);
        assert_eq!(shape.first_block(ChunkIndex(62)), BlockIndex(99));
        assert_eq!(shape.blocks_covering(7681), 2);
        assert!(!shape.is_grouped());
        assert!(Shape::loose(1 << 40, 65536, 16384).is_some());
        for (disk, block, chunk) in [
            (1 << 40, 0, 4096),
            (1 << 40, 4096, 0),
            (1 << 40, 700, 4096),
            (1 << 40, 4096, 700),
            (1 << 40, 4096, 1 << 32),
            (1 << 62, 4096, 4096),
            (700, 4096, 4096),
        ] {
            assert!(
                Shape::loose(disk, block, chunk).is_none(),
                "{disk} {block} {chunk}"
            );
        }
    }

    #[test]
    fn conversions_round_down_and_back() {
        let shape = Shape::new(10 << 20, 64 << 10, 1 << 20).expect("legal");
        let offset = GuestOffset((3 << 20) + (2 << 16) + 512);
        assert_eq!(shape.chunk_of(offset), ChunkIndex(3));
        assert_eq!(shape.block_of(offset), BlockIndex(3 * 16 + 2));
        assert_eq!(shape.first_block(ChunkIndex(3)), BlockIndex(48));
        assert_eq!(shape.within_block(offset), 512);
        assert_eq!(shape.chunk_start(ChunkIndex(3)), GuestOffset(3 << 20));
        assert_eq!(shape.chunk_count(), 10);
        assert_eq!(shape.blocks_covering((64 << 10) + 1), 2);
    }
}
