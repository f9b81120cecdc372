//! The bytes of a virtio-blk request (virtio 1.2 §5.2.6), and the memory in which they wait.
//!
//! Each request owns one *control block* of DMA memory, found by the request's head descriptor:
//!
//! ```text
//!  0               16              32 33            64
//!  +---------------+---------------+--+-------------+
//!  | header        | range         |st| unused      |
//!  | type, sector  | discard, zero |  |             |
//!  +---------------+---------------+--+-------------+
//! ```
//!
//! Invariant: a block is written only while its request is not in flight, and of what is read back
//! only the status byte is used.

use fvd::device::DeviceError;
use virtio_drivers::Hal;

use crate::queue::Piece;
use crate::region::Region;

/// `VIRTIO_BLK_T_IN`: device to driver.
pub(crate) const TYPE_READ: u32 = 0;
/// `VIRTIO_BLK_T_OUT`: driver to device.
pub(crate) const TYPE_WRITE: u32 = 1;
/// `VIRTIO_BLK_T_FLUSH`.
pub(crate) const TYPE_FLUSH: u32 = 4;
/// `VIRTIO_BLK_T_DISCARD`.
pub(crate) const TYPE_DISCARD: u32 = 11;
/// `VIRTIO_BLK_T_WRITE_ZEROES`.
pub(crate) const TYPE_WRITE_ZEROES: u32 = 13;

/// Written into the status byte before the device gets the request. No device has a reason to
/// write this value, so finding it again means that the device has not finished the request.
pub(crate) const STATUS_UNWRITTEN: u8 = 0xff;

const HEADER_LEN: u32 = 16;
const RANGE_LEN: u32 = 16;
const RANGE_AT: usize = 16;
const STATUS_AT: usize = 32;
const BLOCK_LEN: usize = 64;

/// What a status byte means.
pub(crate) fn status_result(status: u8) -> Result<(), DeviceError> {
    match status {
        0 => Ok(()),
        1 => Err(DeviceError::Io),
        2 => Err(DeviceError::Unsupported),
        _ => Err(DeviceError::Protocol),
    }
}

/// A range to discard or to fill with zeros, in sectors of 512 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) sector: u64,
    pub(crate) sector_count: u32,
    pub(crate) may_unmap: bool,
}

/// A request without its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    /// One of the `TYPE_` constants.
    pub(crate) kind: u32,
    /// First sector, for reads and writes; otherwise 0.
    pub(crate) sector: u64,
    /// For discard and write-zeroes.
    pub(crate) range: Option<Range>,
}

/// The control blocks of all requests.
pub(crate) struct ControlBlocks<H: Hal> {
    memory: Region<H>,
}

impl<H: Hal> ControlBlocks<H> {
    /// Blocks for `count` requests. `None` if the platform has no memory.
    pub(crate) fn alloc(count: u16) -> Option<ControlBlocks<H>> {
        let memory = Region::alloc(usize::from(count) * BLOCK_LEN)?;
        Some(ControlBlocks { memory })
    }

    /// Frees the blocks.
    ///
    /// # Safety
    /// The device must not access memory of the driver any more.
    pub(crate) unsafe fn free(&mut self) {
        // SAFETY: the caller's promise covers this memory.
        unsafe { self.memory.free() };
    }

    /// Writes everything but the data of a request that is about to start.
    pub(crate) fn prepare(&self, head: u16, request: &Request) {
        let block = block_at(head);
        // The second word of the header is reserved: 0.
        self.memory.write(block, u64::from(request.kind));
        self.memory.write(block + 8, request.sector);
        if let Some(range) = &request.range {
            let flags = u64::from(range.may_unmap);
            let count_and_flags = u64::from(range.sector_count) | (flags << 32);
            self.memory.write(block + RANGE_AT, range.sector);
            self.memory.write(block + RANGE_AT + 8, count_and_flags);
        }
        self.memory.write(block + STATUS_AT, STATUS_UNWRITTEN);
    }

    /// What the device wrote into the status byte.
    pub(crate) fn status(&self, head: u16) -> u8 {
        self.memory.read(block_at(head) + STATUS_AT)
    }

    pub(crate) fn header_piece(&self, head: u16) -> Piece {
        Piece::readable(self.memory.address(block_at(head)), HEADER_LEN)
    }

    pub(crate) fn range_piece(&self, head: u16) -> Piece {
        Piece::readable(self.memory.address(block_at(head) + RANGE_AT), RANGE_LEN)
    }

    pub(crate) fn status_piece(&self, head: u16) -> Piece {
        Piece::writable(self.memory.address(block_at(head) + STATUS_AT), 1)
    }
}

fn block_at(head: u16) -> usize {
    usize::from(head) * BLOCK_LEN
}
