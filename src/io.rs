//! A byte stream over a disk: `embedded-io` Read, Write and Seek, at any byte.
//!
//! What does not fall on block boundaries is merged through one block of memory that the caller
//! lends: read, change, write back.

use embedded_io::{ErrorKind, ErrorType, Read, Seek, SeekFrom, Write};

use crate::blocking::Blocking;
use crate::device::{BlockDevice, DeviceError, When};
use crate::units::Instant;

impl embedded_io::Error for DeviceError {
    fn kind(&self) -> ErrorKind {
        match self {
            DeviceError::Invalid => ErrorKind::InvalidInput,
            DeviceError::Unsupported => ErrorKind::Unsupported,
            DeviceError::ReadOnly => ErrorKind::PermissionDenied,
            DeviceError::NoSpace => ErrorKind::OutOfMemory,
            DeviceError::Cancelled => ErrorKind::Interrupted,
            DeviceError::Removed => ErrorKind::NotConnected,
            DeviceError::Unreadable => ErrorKind::InvalidData,
            _ => ErrorKind::Other,
        }
    }
}

/// A position in a device, and one block to merge partial blocks in.
pub struct Stream<'a, D, I> {
    device: Blocking<D, I>,
    block: &'a mut [u8],
    position: u64,
}

impl<'a, D: BlockDevice, I: FnMut(When) -> Instant> Stream<'a, D, I> {
    /// A stream at position 0. `block` holds exactly one logical block of the device.
    ///
    /// # Errors
    /// Gives the device back if `block` has another size.
    pub fn new(
        device: Blocking<D, I>,
        block: &'a mut [u8],
    ) -> Result<Stream<'a, D, I>, Blocking<D, I>> {
        if block.len() as u64 != u64::from(device.device().geometry().logical_block_bytes) {
            return Err(device);
        }
        Ok(Stream {
            device,
            block,
            position: 0,
        })
    }

    /// Gives the device back.
    pub fn into_inner(self) -> Blocking<D, I> {
        self.device
    }

    fn end(&self) -> u64 {
        self.device.device().geometry().capacity_bytes
    }

    /// Bytes from the start of its block to the position.
    fn inside(&self) -> usize {
        (self.position & (self.block.len() as u64).wrapping_sub(1)) as usize
    }

    /// How the next `len` bytes begin: whole blocks (true) or a part of one (false), and how many.
    fn next_piece(&self, len: usize) -> (bool, usize) {
        let (inside, size) = (self.inside(), self.block.len());
        let left = self.end().saturating_sub(self.position);
        let len = usize::try_from(left).unwrap_or(usize::MAX).min(len);
        if inside == 0 && len >= size {
            (true, len & !(size.wrapping_sub(1)))
        } else {
            (false, len.min(size.saturating_sub(inside)))
        }
    }
}

impl<D, I> ErrorType for Stream<'_, D, I> {
    type Error = DeviceError;
}

impl<D: BlockDevice, I: FnMut(When) -> Instant> Read for Stream<'_, D, I> {
    fn read(&mut self, target: &mut [u8]) -> Result<usize, DeviceError> {
        let (whole, len) = self.next_piece(target.len());
        let target = target.get_mut(..len).unwrap_or_default();
        if whole {
            self.device.read_at(self.position, target)?;
        } else if len > 0 {
            let inside = self.inside();
            self.device
                .read_at(self.position - inside as u64, self.block)?;
            if let Some(source) = self.block.get(inside..inside + len) {
                copy(target, source);
            }
        }
        self.position = self.position.saturating_add(len as u64);
        Ok(len)
    }
}

impl<D: BlockDevice, I: FnMut(When) -> Instant> Write for Stream<'_, D, I> {
    fn write(&mut self, source: &[u8]) -> Result<usize, DeviceError> {
        let (whole, len) = self.next_piece(source.len());
        if len == 0 && !source.is_empty() {
            return Err(DeviceError::NoSpace);
        }
        let source = source.get(..len).unwrap_or_default();
        if whole {
            self.device.write_at(self.position, source)?;
        } else if len > 0 {
            let inside = self.inside();
            let start = self.position - inside as u64;
            self.device.read_at(start, self.block)?;
            if let Some(target) = self.block.get_mut(inside..inside + len) {
                copy(target, source);
            }
            self.device.write_at(start, self.block)?;
        }
        self.position = self.position.saturating_add(len as u64);
        Ok(len)
    }

    fn flush(&mut self) -> Result<(), DeviceError> {
        self.device.flush()
    }
}

impl<D: BlockDevice, I: FnMut(When) -> Instant> Seek for Stream<'_, D, I> {
    fn seek(&mut self, target: SeekFrom) -> Result<u64, DeviceError> {
        let position = match target {
            SeekFrom::Start(position) => Some(position),
            SeekFrom::End(distance) => self.end().checked_add_signed(distance),
            SeekFrom::Current(distance) => self.position.checked_add_signed(distance),
        };
        self.position = position.ok_or(DeviceError::Invalid)?;
        Ok(self.position)
    }
}

/// Copies slices whose lengths are equal by construction, without a panic if they were not.
fn copy(target: &mut [u8], source: &[u8]) {
    for (to, from) in target.iter_mut().zip(source) {
        *to = *from;
    }
}
