//! One block of DMA memory, reached only through checked volatile accesses.
//!
//! The device may change every byte of it at any moment, also bytes that it has no business with.
//! So nothing here hands out a reference, and nothing that is read back is believed.
//!
//! Invariants:
//! 1. `base` points to `pages` pages that one call of `Hal::dma_alloc` returned and that have not
//!    been given back since. By the contract of `Hal` they are aligned to a page, zeroed, and
//!    alias nothing else in the program.
//! 2. Every access goes through [`Region::place`], which checks range and alignment. An access out
//!    of range does nothing and reads zeros: a bug then costs a request, not memory.
//! 3. No Rust reference to the memory exists, but for the moment of an access to an [`AtomicU16`],
//!    which allows others to write.
//! 4. The memory is never freed by itself. [`Region::free`] has the one condition that only the
//!    adapter can know: the device has stopped.

use core::marker::PhantomData;
use core::ptr::NonNull;
use core::sync::atomic::{AtomicU16, Ordering};

use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

/// An integer as it lies in memory that the device sees: little-endian (virtio 1.2 §1.4).
pub(crate) trait Word: Copy {
    const ZERO: Self;
    fn swap_if_big(self) -> Self;
}

macro_rules! words {
    ($($word:ty),*) => {$(
        impl Word for $word {
            const ZERO: Self = 0;
            fn swap_if_big(self) -> Self {
                self.to_le()
            }
        }
    )*};
}
words!(u8, u16, u32, u64);

/// Pages of DMA memory that one owner shares with the device.
pub(crate) struct Region<H: Hal> {
    base: NonNull<u8>,
    address: PhysAddr,
    /// 0 once freed, so that every later access falls out of range.
    pages: usize,
    hal: PhantomData<fn() -> H>,
}

// SAFETY:
// 1. the region is the only path to its memory inside the program (invariant 1);
// 2. `Hal` has no notion of a thread: its functions are static and safe to call from any.
unsafe impl<H: Hal> Send for Region<H> {}

impl<H: Hal> Region<H> {
    /// Takes zeroed memory of at least `bytes` from the platform. `None` if it has none.
    pub(crate) fn alloc(bytes: usize) -> Option<Region<H>> {
        let pages = bytes.div_ceil(PAGE_SIZE).max(1);
        let (address, base) = H::dma_alloc(pages, BufferDirection::Both);
        // Physical address 0 is how a `Hal` says that it has no memory.
        (address != 0).then_some(Region {
            base,
            address,
            pages,
            hal: PhantomData,
        })
    }

    /// Gives the memory back to the platform. Accesses after it do nothing.
    ///
    /// # Safety
    /// The device must not access the memory any more.
    pub(crate) unsafe fn free(&mut self) {
        let pages = core::mem::take(&mut self.pages);
        if pages == 0 {
            return;
        }
        // SAFETY:
        // 1. address, pointer and pages are those of one `dma_alloc` of the same `Hal` (invariant
        //    1), and `pages` was not 0, so they have not been given back before;
        // 2. the device is done with the memory (the caller's promise), and the program reaches it
        //    only through this region, which has no pages from here on.
        let refused = unsafe { H::dma_dealloc(self.address, self.base, pages) } != 0;
        // A platform that does not take its memory back has leaked it; there is nothing to mend.
        debug_assert!(!refused, "the platform refused its own DMA memory");
    }

    /// The address of byte `offset` as the device sees it.
    pub(crate) fn address(&self, offset: usize) -> PhysAddr {
        self.address.wrapping_add(offset as PhysAddr)
    }

    fn place<W>(&self, offset: usize) -> Option<NonNull<W>> {
        let end = offset.checked_add(size_of::<W>())?;
        let fits = end <= self.pages * PAGE_SIZE && offset.is_multiple_of(align_of::<W>());
        debug_assert!(fits || self.pages == 0, "offset {offset} is out of bounds");
        if !fits {
            return None;
        }
        // SAFETY: `offset` lies inside the allocation (checked above, invariant 1).
        let place = unsafe { self.base.byte_add(offset) };
        Some(place.cast())
    }

    /// Writes one word.
    pub(crate) fn write<W: Word>(&self, offset: usize, value: W) {
        if let Some(place) = self.place::<W>(offset) {
            // SAFETY: in range and aligned (`place`), and memory that no reference covers
            // (invariant 3). Volatile, since the device reads it behind the compiler's back.
            unsafe { place.write_volatile(value.swap_if_big()) };
        }
    }

    /// Reads one word. Whatever the device put there is a valid `W`.
    pub(crate) fn read<W: Word>(&self, offset: usize) -> W {
        match self.place::<W>(offset) {
            // SAFETY: in range and aligned (`place`), initialised since `dma_alloc` zeroed it, and
            // an integer has no invalid bits. Volatile, since the device may change it.
            Some(place) => unsafe { place.read_volatile() }.swap_if_big(),
            None => W::ZERO,
        }
    }

    /// Writes a ring index or flag, after everything written before it.
    pub(crate) fn publish(&self, offset: usize, value: u16) {
        if let Some(index) = self.index(offset) {
            index.store(value.to_le(), Ordering::Release);
        }
    }

    /// Reads a ring index or flag, before everything read after it.
    pub(crate) fn observe(&self, offset: usize) -> u16 {
        self.index(offset)
            .map_or(0, |index| u16::from_le(index.load(Ordering::Acquire)))
    }

    fn index(&self, offset: usize) -> Option<&AtomicU16> {
        let place = self.place::<u16>(offset)?;
        // SAFETY:
        // 1. in range and aligned (`place`), and valid for as long as `self` has pages, which
        //    `free(&mut self)` can not take away while the reference lives;
        // 2. an atomic may change under its reference, and the program makes no other kind of
        //    access to a ring index at the same time (this type is not `Sync`).
        Some(unsafe { AtomicU16::from_ptr(place.as_ptr()) })
    }
}
