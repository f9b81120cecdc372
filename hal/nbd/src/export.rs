//! What a server offers.

use crate::wire::transmission;

/// Bytes of the longest name that the protocol allows.
pub const NAME_BYTES_MAX: usize = 4096;

/// One disk that clients can ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Export<'a> {
    /// Its name, UTF-8, at most [`NAME_BYTES_MAX`] bytes. Clients that name none get the first export.
    pub name: &'a str,
    /// A line for people, at most [`NAME_BYTES_MAX`] bytes; may be empty.
    pub description: &'a str,
    /// Size of the disk, bytes.
    pub size_bytes: u64,
    /// Whether writes are refused.
    pub read_only: bool,
    /// Whether trim is offered.
    pub trim: bool,
    /// Alignment of offsets and lengths, bytes, a power of two from 1 to 65,536.
    pub block_bytes_min: u32,
    /// Alignment that works best, bytes, a power of two, at least the minimum.
    pub block_bytes_preferred: u32,
    /// Most bytes that one read or write may carry, a multiple of the minimum.
    pub payload_bytes_max: u32,
}

impl Export<'_> {
    /// The transmission flags of the protocol.
    ///
    /// Several connections may be offered whenever one flush covers the completed writes of all of
    /// them, which holds for every server that puts one disk behind all connections.
    pub(crate) fn flags(&self) -> u16 {
        let mut flags = transmission::HAS_FLAGS
            | transmission::SEND_FLUSH
            | transmission::SEND_DF
            | transmission::SEND_CACHE
            | transmission::CAN_MULTI_CONN;
        if self.read_only {
            flags |= transmission::READ_ONLY;
        } else {
            flags |= transmission::SEND_FUA | transmission::SEND_WRITE_ZEROES;
            if self.trim {
                flags |= transmission::SEND_TRIM;
            }
        }
        flags
    }
}
