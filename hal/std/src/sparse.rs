//! Devices that know where they hold nothing but zeros.

use core::ops::Range;
use std::io;

use fvd::device::BlockDevice;

use crate::file::FileDevice;

/// A device that can tell zeros without being read.
pub trait SparseDevice: BlockDevice {
    /// The first range at or after `from` that may hold something else than zeros. `None` if only
    /// zeros follow. Does not see operations in flight.
    ///
    /// # Errors
    /// What the system says, or that a range is known to be lost.
    fn next_data(&self, from: u64) -> io::Result<Option<Range<u64>>>;
}

impl SparseDevice for FileDevice {
    fn next_data(&self, from: u64) -> io::Result<Option<Range<u64>>> {
        FileDevice::next_data(self, from)
    }
}
