//! Units of place and size, and the only conversions between them.
//!
//! Every integer that names a place carries its unit in its type, so that a guest offset can not
//! be handed to a store by mistake. Sizes stay plain integers with the unit in the name
//! (`chunk_bytes`).
//!
//! Invariants:
//! 1. `Shape` is only made by [`Shape::new`], so its sizes are powers of two in their legal range
//!    and no conversion below can overflow, divide by zero or panic.
//! 2. Lossy conversions round down (`chunk_of`), lossless ones go the other way (`chunk_start`).

/// Bytes in the smallest unit that a guest may address.
pub const SECTOR_BYTES: u64 = 512;

/// Most chunks a disk can have: chunk numbers are 31 bits on disk (SPEC.md §6).
pub const CHUNK_COUNT_MAX: u64 = 1 << 31;

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

/// Sizes of a disk and the conversions that follow from them.
///
/// Blocks and chunks are powers of two here, which holds for every version-2 image (SPEC.md §3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    virtual_bytes: u64,
    block_shift: u32,
    chunk_shift: u32,
}

impl Shape {
    /// Checks the sizes of a disk. `None` if a size is not a power of two, if a chunk is smaller
    /// than a block or holds more than 16 of them, or if the disk needs 2^31 chunks or more.
    #[must_use]
    pub const fn new(virtual_bytes: u64, block_bytes: u64, chunk_bytes: u64) -> Option<Shape> {
        if !block_bytes.is_power_of_two() || !chunk_bytes.is_power_of_two() {
            return None;
        }
        let (block_shift, chunk_shift) =
            (block_bytes.trailing_zeros(), chunk_bytes.trailing_zeros());
        if block_shift < 9 || chunk_shift > 31 || chunk_shift < block_shift {
            return None;
        }
        if chunk_shift - block_shift > 4 || !virtual_bytes.is_multiple_of(SECTOR_BYTES) {
            return None;
        }
        let shape = Shape {
            virtual_bytes,
            block_shift,
            chunk_shift,
        };
        if virtual_bytes > i64::MAX as u64 || shape.chunk_count_wide() >= CHUNK_COUNT_MAX {
            return None;
        }
        Some(shape)
    }

    const fn chunk_count_wide(&self) -> u64 {
        let whole = self.virtual_bytes >> self.chunk_shift;
        let rest = self.virtual_bytes & (self.chunk_bytes() - 1);
        whole + if rest != 0 { 1 } else { 0 }
    }

    /// Size of the guest's disk in bytes.
    #[must_use]
    pub const fn virtual_bytes(&self) -> u64 {
        self.virtual_bytes
    }

    /// Bytes per copy-on-write block.
    #[must_use]
    pub const fn block_bytes(&self) -> u64 {
        1 << (self.block_shift & 63)
    }

    /// Bytes per allocation chunk.
    #[must_use]
    pub const fn chunk_bytes(&self) -> u64 {
        1 << (self.chunk_shift & 63)
    }

    /// Blocks per chunk, 1 to 16.
    #[must_use]
    pub const fn blocks_per_chunk(&self) -> u32 {
        1 << ((self.chunk_shift - self.block_shift) & 31)
    }

    /// Chunks of the guest's disk, the last one possibly partial.
    #[must_use]
    pub const fn chunk_count(&self) -> u32 {
        self.chunk_count_wide() as u32
    }

    /// Blocks that a base of `base_bytes` touches.
    #[must_use]
    pub const fn blocks_covering(&self, base_bytes: u64) -> u64 {
        let whole = base_bytes >> self.block_shift;
        let rest = base_bytes & (self.block_bytes() - 1);
        whole + if rest != 0 { 1 } else { 0 }
    }

    /// The chunk that holds `offset`; rounds down.
    #[must_use]
    pub const fn chunk_of(&self, offset: GuestOffset) -> ChunkIndex {
        ChunkIndex((offset.0 >> self.chunk_shift) as u32)
    }

    /// The block that holds `offset`; rounds down.
    #[must_use]
    pub const fn block_of(&self, offset: GuestOffset) -> BlockIndex {
        BlockIndex(offset.0 >> self.block_shift)
    }

    /// First byte of a chunk.
    #[must_use]
    pub const fn chunk_start(&self, chunk: ChunkIndex) -> GuestOffset {
        GuestOffset((chunk.0 as u64) << self.chunk_shift)
    }

    /// First byte of a block. Blocks past the end of any legal disk saturate.
    #[must_use]
    pub const fn block_start(&self, block: BlockIndex) -> GuestOffset {
        GuestOffset(block.0.saturating_mul(self.block_bytes()))
    }

    /// First block of a chunk.
    #[must_use]
    pub const fn first_block(&self, chunk: ChunkIndex) -> BlockIndex {
        BlockIndex((chunk.0 as u64) << ((self.chunk_shift - self.block_shift) & 63))
    }

    /// Bytes between the start of its chunk and `offset`.
    #[must_use]
    pub const fn within_chunk(&self, offset: GuestOffset) -> u64 {
        offset.0 & (self.chunk_bytes() - 1)
    }

    /// Bytes between the start of its block and `offset`.
    #[must_use]
    pub const fn within_block(&self, offset: GuestOffset) -> u64 {
        offset.0 & (self.block_bytes() - 1)
    }

    /// First byte of a store chunk, counted from `data_offset`.
    #[must_use]
    pub const fn store_chunk_start(&self, chunk: StoreChunk) -> u64 {
        (chunk.0 as u64) << self.chunk_shift
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
