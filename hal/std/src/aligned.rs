//! Buffers that any device can take as they are: aligned to a page.
//!
//! Invariant: an [`AlignedBuffer`] owns its block alone, and the block is initialised and stays where
//! it is until the buffer is dropped.
#![allow(unsafe_code)]

use core::alloc::Layout;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;
use std::alloc::{alloc_zeroed, dealloc};

use fvd::buffer::IoBuffer;

/// Alignment of every buffer, bytes; no device asks for more than a page.
pub const BUFFER_ALIGN: usize = 4096;

/// A block of memory on the heap that starts on a page.
///
/// ```
/// use fvd_std::aligned::AlignedBuffer;
///
/// let mut buffer = AlignedBuffer::new(10_000).expect("10 kB");
/// assert_eq!(buffer.as_ptr() as usize % 4096, 0);
/// buffer[9_999] = 7;
/// assert_eq!(buffer.iter().map(|byte| u32::from(*byte)).sum::<u32>(), 7);
/// ```
#[derive(Debug)]
pub struct AlignedBuffer {
    start: NonNull<u8>,
    len: usize,
}

// SAFETY: the buffer is the only owner of its block (invariant), so it can move between threads.
unsafe impl Send for AlignedBuffer {}
// SAFETY: `&AlignedBuffer` gives shared reads only.
unsafe impl Sync for AlignedBuffer {}

impl AlignedBuffer {
    /// A buffer of `len` bytes, all zero. `None` for no bytes, or if there is not so much memory.
    #[must_use]
    pub fn new(len: usize) -> Option<AlignedBuffer> {
        let layout = AlignedBuffer::layout(len)?;
        // SAFETY: the layout's size is not 0.
        let start = NonNull::new(unsafe { alloc_zeroed(layout) })?;
        Some(AlignedBuffer { start, len })
    }

    fn layout(len: usize) -> Option<Layout> {
        if len == 0 {
            return None;
        }
        Layout::from_size_align(len, BUFFER_ALIGN).ok()
    }
}

impl Drop for AlignedBuffer {
    fn drop(&mut self) {
        if let Some(layout) = AlignedBuffer::layout(self.len) {
            // SAFETY: the block was allocated with this layout, and its only owner is gone.
            unsafe { dealloc(self.start.as_ptr(), layout) };
        }
    }
}

impl Deref for AlignedBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY: `len` initialised bytes, and `&self` keeps writers away.
        unsafe { core::slice::from_raw_parts(self.start.as_ptr(), self.len) }
    }
}

impl DerefMut for AlignedBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: `len` initialised bytes, and `&mut self` is exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.start.as_ptr(), self.len) }
    }
}

// SAFETY: the block is initialised, does not move with the buffer, and leaks when that is forgotten.
unsafe impl IoBuffer for AlignedBuffer {
    fn region(&mut self) -> (NonNull<u8>, usize) {
        (self.start, self.len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fvd::buffer::Loan;

    #[test]
    fn a_buffer_comes_home_with_what_was_put_into_it() {
        let mut buffer = AlignedBuffer::new(8192).expect("memory");
        buffer[4096] = 9;
        let (loan, lease) = Loan::new(buffer).expect("not empty");
        let buffer = loan.redeem(lease).unwrap_or_else(|_| panic!("its own"));
        assert_eq!((buffer.len(), buffer[4096]), (8192, 9));
    }

    #[test]
    fn no_bytes_and_too_many_are_none() {
        assert!(AlignedBuffer::new(0).is_none());
        assert!(AlignedBuffer::new(usize::MAX).is_none());
    }
}
