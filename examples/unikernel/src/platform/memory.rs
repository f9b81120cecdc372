//! The memory that is left, given out in large pieces for ever.
//!
//! There is no heap. fvd takes all its memory from one arena that the caller lends, and this is
//! where the kernel gets arenas and buffers from. Addresses are physical and virtual at once, so
//! any piece may be used for DMA.
//!
//! Invariants:
//! 1. `FREE` holds RAM that nothing uses: not the image, not the loader's tables, not a piece given
//!    out.
//! 2. It only shrinks.

use super::start_info::{KIND_RAM, StartInfo};
use crate::arch::IDENTITY_MAPPED_BYTES;
use core::mem::MaybeUninit;
use core::ops::Range;
use core::ptr;
use core::slice;
use spin::Mutex;

const PAGE_BYTES: usize = 4096;

static FREE: Mutex<Range<usize>> = Mutex::new(0..0);

unsafe extern "C" {
    /// The first address after the kernel (image.ld).
    safe static image_end: u8;
}

/// Bytes that [`take_region`] still has.
pub(crate) fn free_bytes() -> usize {
    FREE.lock().len()
}

/// Takes a region of at least 4 KiB alignment, or nothing if not so much is left. Its contents are
/// undefined.
pub(crate) fn take_region(bytes: usize) -> Option<&'static mut [MaybeUninit<u8>]> {
    let mut free = FREE.lock();
    // A page granularity keeps two regions from sharing a page, and each aligned for any device.
    let start = free.start;
    let end = start
        .checked_add(bytes)?
        .checked_next_multiple_of(PAGE_BYTES)?;
    if end > free.end {
        return None;
    }
    free.start = end;
    let start = ptr::with_exposed_provenance_mut(start);
    // SAFETY:
    // 1. Valid and writable for the rest of the run: RAM, identity mapped (`init`). It need not
    //    hold values.
    // 2. Not aliased: nothing else uses what is in `FREE` (invariant 1), and it has just left it
    //    for good (2).
    // 3. Not null, and far from the end of the address space: above the image, below 1 TiB.
    Some(unsafe { slice::from_raw_parts_mut(start, bytes) })
}

/// Takes a region as [`take_region`] does, filled with zeros.
pub(crate) fn take_zeroed(bytes: usize) -> Option<&'static mut [u8]> {
    let region = take_region(bytes)?;
    region.fill(MaybeUninit::new(0));
    // SAFETY: every byte has just been written.
    Some(unsafe { region.assume_init_mut() })
}

/// Learns what memory there is: the range of RAM that the kernel is in, from its end on.
///
/// # Safety
///
/// `info` describes this machine; memory outside of the kernel's image and of the loader's tables
/// is unused; called once.
pub(super) unsafe fn init(info: &StartInfo) {
    let kernel_end = (&raw const image_end).addr() as u64;
    let end = info
        .memory_map()
        .iter()
        .filter(|range| range.kind == KIND_RAM && range.start < kernel_end)
        .map(|range| range.start.saturating_add(range.bytes))
        .max()
        .unwrap_or(0)
        .min(info.first_use_above(kernel_end).unwrap_or(u64::MAX))
        .min(IDENTITY_MAPPED_BYTES);

    let start = (kernel_end as usize).next_multiple_of(PAGE_BYTES);
    let end = end as usize / PAGE_BYTES * PAGE_BYTES;
    *FREE.lock() = start..end.max(start);
}
