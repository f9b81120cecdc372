//! The one block of memory that a caller lends, and what is carved from it.

use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use super::{ARENA_ALIGN, Lease};

/// Alignment of every typed part of an arena: one cache line on the targets we care about.
const PART_ALIGN: usize = 64;

/// Typed memory from an arena, owned by whoever holds this. Has no `Drop`: dropping it leaks.
pub struct Part<T> {
    pub(super) ptr: NonNull<T>,
    pub(super) len: usize,
    pub(super) owns: PhantomData<T>,
}

// SAFETY: a part owns its elements exclusively, like a boxed slice.
unsafe impl<T: Send> Send for Part<T> {}
// SAFETY: sharing a part only shares its elements.
unsafe impl<T: Sync> Sync for Part<T> {}

impl<T> Deref for Part<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `len` initialised elements that this part owns; `'static` arena memory.
        unsafe { core::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for Part<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and `&mut self` is exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) }
    }
}

impl<T> Part<T> {
    /// A part of no elements.
    #[must_use]
    pub const fn empty() -> Part<T> {
        Part {
            ptr: NonNull::dangling(),
            len: 0,
            owns: PhantomData,
        }
    }
}

/// The one block of memory that a caller lends to a disk.
///
/// Everything a disk needs is carved from it front to back; [`Arena::finish`] gives it back when all
/// parts have returned.
pub struct Arena {
    start: NonNull<u8>,
    len: usize,
    used: usize,
    returned: usize,
}

// SAFETY: the arena is the only owner of the bytes that it has not handed out.
unsafe impl Send for Arena {}

const fn rounded_up(bytes: usize, unit: usize) -> usize {
    match bytes.checked_next_multiple_of(unit) {
        Some(bytes) => bytes,
        None => usize::MAX,
    }
}

impl Arena {
    /// Takes memory that starts at a multiple of [`ARENA_ALIGN`].
    ///
    /// # Errors
    /// Gives the memory back if it is not aligned so.
    pub fn new(
        memory: &'static mut [MaybeUninit<u8>],
    ) -> Result<Arena, &'static mut [MaybeUninit<u8>]> {
        if !(memory.as_ptr() as usize).is_multiple_of(ARENA_ALIGN) {
            return Err(memory);
        }
        let len = memory.len();
        Ok(Arena {
            start: NonNull::from(memory).cast(),
            len,
            used: 0,
            returned: 0,
        })
    }

    /// Bytes that a part of `count` elements takes; `usize::MAX` if no memory is that large.
    #[must_use]
    pub const fn part_bytes<T>(count: usize) -> usize {
        rounded_up(size_of::<T>().saturating_mul(count), PART_ALIGN)
    }

    /// Bytes that a staging lease takes; `usize::MAX` if no memory is that large.
    #[must_use]
    pub const fn staging_bytes(len: usize) -> usize {
        rounded_up(len, ARENA_ALIGN)
    }

    /// Bytes not handed out yet.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.len - self.used
    }

    fn take(&mut self, bytes: usize) -> Option<NonNull<u8>> {
        if bytes > self.remaining() {
            return None;
        }
        // SAFETY: `used + bytes` <= `len`.
        let ptr = unsafe { self.start.add(self.used) };
        self.used += bytes;
        Some(ptr)
    }

    /// Carves `count` elements, each made by `make(index)`. `None` if there is too little room.
    #[must_use]
    pub fn carve_with<T>(
        &mut self,
        count: usize,
        mut make: impl FnMut(usize) -> T,
    ) -> Option<Part<T>> {
        const { assert!(align_of::<T>() <= PART_ALIGN) }
        if count == 0 {
            return Some(Part::empty());
        }
        if size_of::<T>()
            .checked_mul(count)
            .is_none_or(|bytes| bytes > self.remaining())
        {
            return None;
        }
        let ptr = self.take(Arena::part_bytes::<T>(count))?.cast::<T>();
        for index in 0..count {
            // SAFETY: the range is ours, `count` elements long, and aligned: the arena starts at a
            // multiple of 4096 and every part is a multiple of `PART_ALIGN` long.
            unsafe { ptr.add(index).write(make(index)) };
        }
        Some(Part {
            ptr,
            len: count,
            owns: PhantomData,
        })
    }

    /// Carves `count` copies of `value`. `None` if there is too little room.
    #[must_use]
    pub fn carve<T: Copy>(&mut self, count: usize, value: T) -> Option<Part<T>> {
        self.carve_with(count, |_| value)
    }

    /// Passes over bytes up to the next multiple of [`ARENA_ALIGN`], so that staging memory can be
    /// carved. `None` if there is too little room.
    #[must_use]
    pub fn align_staging(&mut self) -> Option<()> {
        let padding = self.used.next_multiple_of(ARENA_ALIGN) - self.used;
        self.take(padding)?;
        self.returned += padding;
        Some(())
    }

    /// Carves zeroed staging memory that devices can work on. `None` if there is too little room or
    /// `len` is 0. Carve staging memory first: it takes multiples of [`ARENA_ALIGN`].
    #[must_use]
    pub fn carve_lease(&mut self, len: u32) -> Option<Lease> {
        if len == 0 || !self.used.is_multiple_of(ARENA_ALIGN) {
            return None;
        }
        let ptr = self.take(Arena::staging_bytes(len as usize))?;
        // The padding is never handed out, so it counts as returned at once; the lease counts to the
        // byte, whole or in parts.
        self.returned += Arena::staging_bytes(len as usize) - len as usize;
        // SAFETY: the range is ours and at least `len` bytes long.
        unsafe { ptr.write_bytes(0, len as usize) };
        Some(Lease { ptr, len, mark: 0 })
    }

    /// Takes a part back.
    ///
    /// # Errors
    /// Gives back a part of another arena.
    pub fn reclaim<T>(&mut self, part: Part<T>) -> Result<(), Part<T>> {
        if part.len == 0 {
            return Ok(());
        }
        let bytes = Arena::part_bytes::<T>(part.len);
        if !self.holds(part.ptr.as_ptr() as usize, bytes) {
            return Err(part);
        }
        self.returned += bytes;
        Ok(())
    }

    /// Takes a staging lease back, whole or in parts.
    ///
    /// # Errors
    /// Gives back a lease of other memory.
    pub fn reclaim_lease(&mut self, lease: Lease) -> Result<(), Lease> {
        if !self.holds(lease.address(), lease.len()) {
            return Err(lease);
        }
        self.returned += lease.len();
        Ok(())
    }

    fn holds(&self, address: usize, bytes: usize) -> bool {
        let start = self.start.as_ptr() as usize;
        address >= start
            && address - start <= self.used
            && bytes <= self.used - (address - start)
            && bytes <= self.used - self.returned
    }

    /// The memory, when every part is back.
    ///
    /// # Errors
    /// Gives the arena back while parts are out.
    pub fn finish(self) -> Result<&'static mut [MaybeUninit<u8>], Arena> {
        if self.returned != self.used {
            return Err(self);
        }
        // SAFETY: `start` and `len` are those of the `'static` exclusive slice given to `new`, and no
        // token for any byte of it exists any more (invariant 3). `MaybeUninit` allows any content.
        Ok(unsafe { core::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.len) })
    }
}

impl core::fmt::Debug for Arena {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Arena({} of {} bytes used)", self.used, self.len)
    }
}
