//! Answers to requests.
//!
//! A client that agreed to structured replies gets reads and block status as chunks and may get
//! anything else as a simple reply; any other client gets simple replies only. A simple reply to a
//! read is followed by its data; so is [`data_header`].

use crate::wire::{Bytes, SIMPLE_REPLY_MAGIC, STRUCTURED_REPLY_MAGIC, chunk};

/// What a request failed with, as the protocol numbers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Errno {
    /// The export is read-only.
    Perm = 1,
    /// The disk failed.
    Io = 5,
    /// No memory for the request.
    NoMem = 12,
    /// The request makes no sense.
    Inval = 22,
    /// It goes beyond the end of the disk, or the disk is full.
    NoSpc = 28,
    /// The server does not do this.
    NotSup = 95,
    /// The server is going away.
    Shutdown = 108,
}

/// Bytes of a simple reply.
pub const SIMPLE_BYTES: usize = 16;

/// Bytes before the data of a structured reply to a read.
pub const DATA_HEADER_BYTES: usize = 28;

/// Bytes of one extent in a block status reply.
pub const EXTENT_BYTES: usize = 8;

/// Bytes before the extents of a block status reply.
pub const STATUS_HEADER_BYTES: usize = 24;

/// Identifies `base:allocation` in block status replies.
pub(crate) const CONTEXT_ID: u32 = 1;

/// A simple reply; `None` = success. The data of a read that succeeded follow.
#[must_use]
pub fn simple(cookie: u64, error: Option<Errno>) -> [u8; SIMPLE_BYTES] {
    Bytes::new()
        .u32(SIMPLE_REPLY_MAGIC)
        .u32(error.map_or(0, |error| error as u32))
        .u64(cookie)
        .whole()
}

fn structured<const N: usize>(cookie: u64, kind: u16, payload_bytes: u32) -> Bytes<N> {
    Bytes::new()
        .u32(STRUCTURED_REPLY_MAGIC)
        .u16(chunk::DONE)
        .u16(kind)
        .u64(cookie)
        .u32(payload_bytes)
}

/// The whole of a structured reply to a read: its `len` bytes of data from `offset` follow.
#[must_use]
pub fn data_header(cookie: u64, offset: u64, len: u32) -> [u8; DATA_HEADER_BYTES] {
    structured(cookie, chunk::OFFSET_DATA, len.saturating_add(8))
        .u64(offset)
        .whole()
}

/// A structured reply without content: success of a request that has nothing to say.
#[must_use]
pub fn done(cookie: u64) -> [u8; 20] {
    structured(cookie, chunk::NONE, 0).whole()
}

/// A structured reply that says what went wrong, without words.
#[must_use]
pub fn error(cookie: u64, error: Errno) -> [u8; 26] {
    structured(cookie, chunk::ERROR, 6)
        .u32(error as u32)
        .u16(0)
        .whole()
}

/// What is known of a range without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Bytes, at least 1.
    pub bytes: u32,
    /// Whether the disk has set no storage aside for it.
    pub hole: bool,
    /// Whether it reads zeros.
    pub zero: bool,
}

/// The start of a block status reply with `extents` extents.
#[must_use]
pub fn status_header(cookie: u64, extents: u32) -> [u8; STATUS_HEADER_BYTES] {
    let bytes = extents.saturating_mul(EXTENT_BYTES as u32);
    structured(cookie, chunk::BLOCK_STATUS, bytes.saturating_add(4))
        .u32(CONTEXT_ID)
        .whole()
}

/// One extent of a block status reply.
#[must_use]
pub fn status_extent(extent: Extent) -> [u8; EXTENT_BYTES] {
    let flags = u32::from(extent.hole) | u32::from(extent.zero) << 1;
    Bytes::new().u32(extent.bytes).u32(flags).whole()
}
