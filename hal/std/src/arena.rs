//! Heap memory for an [`Arena`](fvd::buffer::Arena): lent for ever, or until it is given back.
//!
//! Invariants:
//! 1. Memory is freed only by the drop of a [`Returned`], which only [`HeapArena::redeem`] makes, for
//!    the exact exclusive slice that came with the arena. Safe code can not make a second
//!    `&'static mut` of the same address and length, so nobody else can reach the memory then.
//! 2. Dropping a [`HeapArena`] leaks, as for every lender of this project.
#![allow(unsafe_code)]

use core::alloc::Layout;
use core::mem::MaybeUninit;
use core::ptr::NonNull;
use std::alloc::{alloc, dealloc};

use fvd::buffer::ARENA_ALIGN;

/// Memory of a disk, aligned to [`ARENA_ALIGN`].
pub type Memory = &'static mut [MaybeUninit<u8>];

/// Allocates `bytes` for a disk and never frees them. `None` if there is not so much memory.
///
/// ```
/// let memory = fvd_std::arena::leak_arena(10_000).expect("10 kB");
/// assert_eq!(memory.len(), 10_000);
/// assert_eq!(memory.as_ptr() as usize % 4096, 0);
/// ```
#[must_use]
pub fn leak_arena(bytes: usize) -> Option<Memory> {
    HeapArena::new(bytes).map(|(_, memory)| memory)
}

/// Remembers how to free one block of memory that is lent to a disk.
///
/// ```
/// use fvd_std::arena::HeapArena;
///
/// let (heap, memory) = HeapArena::new(1 << 20).expect("1 MiB");
/// // ... a disk borrows `memory`, and gives it back when it is closed ...
/// drop(heap.redeem(memory).expect("all of it"));
/// ```
#[must_use = "dropping this leaks the memory; give it back with `redeem`"]
#[derive(Debug)]
pub struct HeapArena {
    start: NonNull<u8>,
    len: usize,
    layout: Layout,
}

// SAFETY: the arena never reads or writes its memory; it only compares the address.
unsafe impl Send for HeapArena {}

impl HeapArena {
    /// Allocates `bytes`, and returns what can free them beside the memory itself. `None` if there is
    /// not so much memory.
    #[must_use]
    pub fn new(bytes: usize) -> Option<(HeapArena, Memory)> {
        // An allocation has at least 1 byte.
        let layout = Layout::from_size_align(bytes.max(1), ARENA_ALIGN).ok()?;
        // SAFETY: the layout's size is not 0.
        let start = NonNull::new(unsafe { alloc(layout) })?;
        let heap = HeapArena {
            start,
            len: bytes,
            layout,
        };
        // SAFETY:
        // 1. `start` is valid for `bytes` reads and writes until it is freed, which needs this very
        //    slice (invariant 1);
        // 2. nobody else reads or writes through a pointer to it;
        // 3. `MaybeUninit` needs no initialisation.
        let memory = unsafe { core::slice::from_raw_parts_mut(start.as_ptr().cast(), bytes) };
        Some((heap, memory))
    }

    /// Bytes that were allocated.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.len
    }

    /// Takes the memory back; it is freed when the result is dropped.
    ///
    /// It is not freed in here, because a reference must stay valid for as long as the call that it
    /// was passed to.
    ///
    /// # Errors
    /// Gives both back if `memory` is not the whole slice that came with this arena.
    pub fn redeem(self, memory: Memory) -> Result<Returned, (HeapArena, Memory)> {
        let whole = memory.as_ptr().cast() == self.start.as_ptr().cast_const();
        if !whole || memory.len() != self.len {
            return Err((self, memory));
        }
        Ok(Returned {
            start: self.start,
            layout: self.layout,
        })
    }
}

/// Memory that came back; dropping this frees it.
#[derive(Debug)]
pub struct Returned {
    start: NonNull<u8>,
    layout: Layout,
}

// SAFETY: a block that nobody else can reach can be freed from any thread.
unsafe impl Send for Returned {}

impl Drop for Returned {
    fn drop(&mut self) {
        // SAFETY:
        // 1. `start` was allocated with `layout`;
        // 2. `redeem` consumed the arena and the only right to the range, so that this is the one
        //    place that frees it and nobody can reach it (invariant 1).
        unsafe { dealloc(self.start.as_ptr(), self.layout) };
    }
}

#[cfg(test)]
mod tests {
    use fvd::buffer::Arena;

    use super::*;

    #[test]
    fn memory_is_aligned_and_as_long_as_asked() {
        for bytes in [0, 1, 4095, 4096, 4097, 1 << 20] {
            let (heap, memory) = HeapArena::new(bytes).expect("memory");
            assert_eq!(memory.len(), bytes);
            assert_eq!(memory.as_ptr() as usize % ARENA_ALIGN, 0);
            assert!(heap.redeem(memory).is_ok());
        }
    }

    #[test]
    fn memory_that_a_core_arena_gave_back_is_freed() {
        let (heap, memory) = HeapArena::new(1 << 16).expect("memory");
        let mut arena = Arena::new(memory).expect("aligned");
        let part = arena.carve(100, 7u32).expect("room");
        assert!(arena.reclaim(part).is_ok());
        let memory = arena.finish().expect("all parts are back");
        assert!(heap.redeem(memory).is_ok());
    }

    #[test]
    fn foreign_memory_is_refused() {
        let (heap, memory) = HeapArena::new(8192).expect("memory");
        let (other, other_memory) = HeapArena::new(8192).expect("memory");
        let (heap, other_memory) = heap.redeem(other_memory).expect_err("not its own");
        assert!(heap.redeem(memory).is_ok());
        assert!(other.redeem(other_memory).is_ok());
    }

    #[test]
    fn half_of_the_memory_is_refused() {
        let (heap, memory) = HeapArena::new(8192).expect("memory");
        let (front, _back) = memory.split_at_mut(4096);
        assert!(heap.redeem(front).is_err());
    }

    #[test]
    fn too_much_memory_is_none() {
        assert!(HeapArena::new(usize::MAX).is_none());
        // An allocation that nobody looks at may be optimised away, and then always succeeds.
        let bytes = core::hint::black_box(isize::MAX as usize - 4095);
        assert!(core::hint::black_box(leak_arena(bytes)).is_none());
    }
}
