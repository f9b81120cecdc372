//! What can be served: images, and raw files and block devices.

use fvd::check::ExtentState;

use super::{Allocation, Disk};
use crate::file::FileDevice;
use crate::image::Image;

impl Disk for Image {
    fn extent_at(&self, offset: u64) -> Option<(u64, Allocation)> {
        let extent = Image::extent_at(self, offset)?;
        let allocation = match extent.state {
            ExtentState::Zero => Allocation::Hole,
            // What the base holds is content to a client, which sees no base.
            ExtentState::Image { .. } | ExtentState::Base { .. } | ExtentState::Unreadable => {
                Allocation::Data
            }
        };
        Some((extent.bytes, allocation))
    }
}

impl Disk for FileDevice {
    fn extent_at(&self, offset: u64) -> Option<(u64, Allocation)> {
        use fvd::device::BlockDevice;

        let end = self.geometry().capacity_bytes;
        let left = end.checked_sub(offset).filter(|left| *left != 0)?;
        match self.next_data(offset) {
            Ok(Some(data)) if data.start > offset => Some((data.start - offset, Allocation::Hole)),
            Ok(Some(data)) => Some((data.end - offset, Allocation::Data)),
            Ok(None) => Some((left, Allocation::Hole)),
            // A file system that does not know may hold anything anywhere.
            Err(_) => Some((left, Allocation::Data)),
        }
    }
}
