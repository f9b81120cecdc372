//! What the caller decides about a session.

use crate::format::Limits;

/// Options of a session. [`OpenOptions::DEFAULT`] suits a unikernel with a few megabytes to spare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OpenOptions {
    /// Write nothing at all: the journal is replayed in memory only.
    pub read_only: bool,
    /// Guest requests in flight, at least 1.
    pub queue_depth: u16,
    /// Op records for requests that take several device operations, at least 4. With too few, such
    /// a request sends its operations in several rounds.
    pub part_ops: u16,
    /// Mappings that can be on their way to the journal, at least 66 to allow requests of any legal
    /// size. Rounded down to what one commit holds.
    pub pending_max: u16,
    /// Blocks of memory for copies of partly written blocks, at least 2. None are taken for a disk
    /// that has no base or is read-only.
    pub scratch_blocks: u16,
    /// Zeroed memory for devices without write-zeroes, bytes, a multiple of 4096.
    pub zero_memory_bytes: u32,
    /// Microseconds after which pending mappings are committed without being asked.
    pub commit_delay_micros: u64,
    /// After how many flushes in a row that covered one new mapping each a first write sends its
    /// journal unit along with its data, so that write and flush take one round trip less (eager
    /// commit, docs/DESIGN.md §4). 0 = from the first write on, 255 = never.
    pub eager_after_flushes: u8,
    /// Chunks by which the zero floor is raised ahead of need, at least 64 for speed. A request that
    /// needs more raises it as far as it needs.
    pub floor_step_chunks: u32,
    /// Identity of the base that is given: an FVD base's image id, or 16 bytes of the user's. `None`
    /// = do not check.
    pub base_id: Option<[u8; 16]>,
    /// Accept a base of another size or identity than the one on record.
    pub accept_base: bool,
    /// Promise that the data device reads zeros where it was never written. Some images without a
    /// table rely on it (`need_zero_init`) and are refused otherwise.
    pub store_reads_zeros: bool,
    /// A number that tells this session from others, from a source of randomness; 0 = none.
    pub owner_nonce: u64,
    /// Bounds on what an image may ask for.
    pub limits: Limits,
}

impl OpenOptions {
    /// Depth 64, about 0.75 MiB of working memory, 0.25 MiB without a base, beside the image's metadata (docs/MEMORY.md).
    pub const DEFAULT: OpenOptions = OpenOptions {
        read_only: false,
        queue_depth: 64,
        part_ops: 256,
        pending_max: 1024,
        scratch_blocks: 8,
        zero_memory_bytes: 64 << 10,
        commit_delay_micros: 5_000_000,
        eager_after_flushes: 2,
        floor_step_chunks: 256,
        base_id: None,
        accept_base: false,
        store_reads_zeros: false,
        owner_nonce: 0,
        limits: Limits::FORMAT,
    };

    /// The options with every value brought into its range.
    pub(crate) fn clamped(mut self) -> OpenOptions {
        self.queue_depth = self.queue_depth.clamp(1, u16::MAX - 1);
        self.part_ops = self.part_ops.max(4);
        self.pending_max = self.pending_max.clamp(2, 8192);
        self.scratch_blocks = self.scratch_blocks.max(2);
        self.zero_memory_bytes = self.zero_memory_bytes.max(4096).next_multiple_of(4096);
        self.floor_step_chunks = self.floor_step_chunks.max(1);
        self
    }
}

impl Default for OpenOptions {
    fn default() -> OpenOptions {
        OpenOptions::DEFAULT
    }
}
