//! What requests are counted, and where they go: known to the kernel and to the host runner, which
//! compiles this same file.
//!
//! ```text
//! chunk 0       BASE_CHUNKS           + MAPPED_CHUNKS                  DISK_CHUNKS
//! ╰─ over the base ─╯╰─ mapped beforehand ─╯╰─ one for each first write ─╯
//! ```

/// Requests of each row, a multiple of every batch.
pub(crate) const REQUESTS: u64 = 256;

/// Requests before them that do not count: what was learned from the row before is forgotten then.
pub(crate) const WARM_UP: u64 = 32;

/// Requests that are in flight together.
pub(crate) const BATCHES: [u64; 2] = [1, 32];

pub(crate) const REQUEST_BYTES: u64 = 4096;
pub(crate) const BLOCK_BYTES: u64 = 64 << 10;
pub(crate) const CHUNK_BYTES: u64 = 1 << 20;

pub(crate) const ROW: u64 = WARM_UP + REQUESTS;
pub(crate) const ROWS_OF_CASE: u64 = BATCHES.len() as u64;

/// A block for each copy.
pub(crate) const BASE_CHUNKS: u64 = ROWS_OF_CASE * ROW * BLOCK_BYTES / CHUNK_BYTES;
pub(crate) const MAPPED_CHUNKS: u64 = 256;
/// First writes are in two cases.
pub(crate) const DISK_CHUNKS: u64 = BASE_CHUNKS + MAPPED_CHUNKS + 2 * ROWS_OF_CASE * ROW;

/// A kind of request, each of [`REQUEST_BYTES`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Case {
    /// Reads what only the base has.
    BaseRead,
    MappedRead,
    MappedWrite,
    /// The first write to a chunk, beyond the base.
    FirstWrite,
    /// The same, and a flush after each batch.
    FirstWriteFlush,
    /// The first write to a block of the base, and a flush after each batch.
    CopyFlush,
}

impl Case {
    /// In the order in which they are counted: what is read from the base is copied later.
    pub(crate) const ALL: [Case; 6] = [
        Case::BaseRead,
        Case::MappedRead,
        Case::MappedWrite,
        Case::FirstWrite,
        Case::FirstWriteFlush,
        Case::CopyFlush,
    ];

    /// A word for the kernel's report.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            Case::BaseRead => "base-read",
            Case::MappedRead => "mapped-read",
            Case::MappedWrite => "mapped-write",
            Case::FirstWrite => "first-write",
            Case::FirstWriteFlush => "first-write-flush",
            Case::CopyFlush => "copy-flush",
        }
    }

    pub(crate) const fn flushes(self) -> bool {
        matches!(self, Case::FirstWriteFlush | Case::CopyFlush)
    }

    pub(crate) const fn reads(self) -> bool {
        matches!(self, Case::BaseRead | Case::MappedRead)
    }
}
