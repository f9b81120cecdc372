//! Counters.

/// What a disk did since it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Guest requests accepted.
    pub requests: u64,
    /// Requests that went on as one device operation, in the guest's own op.
    pub forwarded: u64,
    /// Device operations for parts of requests.
    pub parts: u64,
    /// Blocks filled from the base because a guest wrote a part of them.
    pub fills: u64,
    /// Store chunks reserved.
    pub chunks_reserved: u64,
    /// Chunks that had to be zeroed before their first write.
    pub chunks_zeroed: u64,
    /// Commits, and those of them that flushed data first.
    pub commits: u64,
    /// Commits that flushed data first.
    pub strict_commits: u64,
    /// Journal units, and the writes that carried them.
    pub journal_units: u64,
    /// First writes whose unit went out along with their data.
    pub eager_units: u64,
    /// Writes to the journal.
    pub journal_writes: u64,
    /// Checkpoints started.
    pub checkpoints: u64,
    /// Metadata pages written in place.
    pub pages_written: u64,
    /// Writes of pages, checksums and headers.
    pub metadata_writes: u64,
    /// Times the store was extended.
    pub growths: u64,
    /// Completions that no operation was waiting for, or that came home changed.
    pub protocol_errors: u64,
}
