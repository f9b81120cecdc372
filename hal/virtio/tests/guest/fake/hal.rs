//! A platform whose device addresses are unrelated to pointers.
//!
//! State is per thread, as `Hal` has no `self`; [`Platform::restart`] begins each test.

use std::alloc::{Layout, alloc_zeroed, dealloc};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashSet};
use std::ptr::NonNull;

use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

/// Shared buffers that were copied to another place have addresses from here.
const BOUNCE_FROM: PhysAddr = 1 << 46;

#[derive(Clone, Copy)]
struct Mapping {
    /// Where the device reads and writes.
    memory: *mut u8,
    len: usize,
    direction: BufferDirection,
    /// What the driver shared, or the DMA memory itself.
    owner: *mut u8,
    dma: bool,
}

#[derive(Default)]
pub(crate) struct Platform {
    mappings: BTreeMap<PhysAddr, Mapping>,
    /// Start of every buffer that is shared.
    shared: HashSet<*mut u8>,
    next: PhysAddr,
    next_bounce: PhysAddr,
    /// `share` copies, as on a platform that can not let the device at all memory.
    pub(crate) bounce: bool,
    /// Allocations of DMA memory that succeed before one fails.
    pub(crate) allocations_left: Option<u32>,
}

thread_local! {
    static PLATFORM: RefCell<Platform> = RefCell::new(Platform::default());
}

fn with<R>(f: impl FnOnce(&mut Platform) -> R) -> R {
    PLATFORM.with(|platform| f(&mut platform.borrow_mut()))
}

impl Platform {
    /// Forgets everything of an earlier test on this thread.
    pub(crate) fn restart() {
        with(|platform| {
            *platform = Platform {
                next: 0x10_0000,
                next_bounce: BOUNCE_FROM,
                ..Platform::default()
            }
        });
    }

    pub(crate) fn set(f: impl FnOnce(&mut Platform)) {
        with(f);
    }

    pub(crate) fn dma_blocks() -> usize {
        with(|platform| platform.mappings.values().filter(|m| m.dma).count())
    }

    pub(crate) fn dma_bytes() -> usize {
        with(|platform| {
            let blocks = platform.mappings.values().filter(|m| m.dma);
            blocks.map(|m| m.len).sum()
        })
    }

    pub(crate) fn shares() -> usize {
        with(|platform| platform.mappings.values().filter(|m| !m.dma).count())
    }

    /// Where the device finds `len` bytes at `address`. Panics if it has no right to them.
    pub(crate) fn device_pointer(address: PhysAddr, len: usize, write: bool) -> *mut u8 {
        with(|platform| {
            let (start, mapping) = platform
                .mappings
                .range(..=address)
                .next_back()
                .unwrap_or_else(|| panic!("the device was given {address:#x}: nothing there"));
            let offset = (address - start) as usize;
            assert!(
                offset + len <= mapping.len,
                "the device was given {address:#x}+{len}: not shared"
            );
            let legal = match mapping.direction {
                BufferDirection::DriverToDevice => !write,
                BufferDirection::DeviceToDriver => write,
                BufferDirection::Both => true,
            };
            assert!(legal, "{address:#x} is shared for the other direction");
            mapping.memory.wrapping_add(offset)
        })
    }

    fn place(&mut self, len: usize, low_bits: usize, bounce: bool) -> PhysAddr {
        let next = if bounce {
            &mut self.next_bounce
        } else {
            &mut self.next
        };
        let address = *next + low_bits as PhysAddr;
        // An unmapped page between any two, so that running over an end shows.
        *next += ((low_bits + len).next_multiple_of(PAGE_SIZE) + PAGE_SIZE) as PhysAddr;
        address
    }
}

pub(crate) struct FakeHal;

impl FakeHal {
    pub(crate) fn is_bounced(address: PhysAddr) -> bool {
        address >= BOUNCE_FROM
    }
}

fn pages_layout(bytes: usize) -> Layout {
    Layout::from_size_align(bytes, PAGE_SIZE).expect("a legal size")
}

// SAFETY: memory comes from the allocator, aligned and zeroed, and goes back to it once.
unsafe impl Hal for FakeHal {
    fn dma_alloc(pages: usize, direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let refused = with(|platform| match &mut platform.allocations_left {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        });
        if refused {
            return (0, NonNull::dangling());
        }
        let len = pages * PAGE_SIZE;
        // SAFETY: the size is not 0.
        let memory = unsafe { alloc_zeroed(pages_layout(len)) };
        let address = with(|platform| {
            let address = platform.place(len, 0, false);
            let mapping = Mapping {
                memory,
                len,
                direction,
                owner: memory,
                dma: true,
            };
            platform.mappings.insert(address, mapping);
            address
        });
        (address, NonNull::new(memory).expect("memory"))
    }

    unsafe fn dma_dealloc(address: PhysAddr, start: NonNull<u8>, pages: usize) -> i32 {
        let mapping = with(|platform| platform.mappings.remove(&address));
        let mapping = mapping.expect("freed memory that was not allocated");
        assert!(mapping.dma && mapping.memory == start.as_ptr());
        assert_eq!(mapping.len, pages * PAGE_SIZE);
        // SAFETY: allocated with this layout, and no longer in the map.
        unsafe { dealloc(mapping.memory, pages_layout(mapping.len)) };
        0
    }

    unsafe fn mmio_phys_to_virt(_address: PhysAddr, _bytes: usize) -> NonNull<u8> {
        unreachable!("the fake transport has no registers in memory")
    }

    unsafe fn share(buffer: NonNull<[u8]>, direction: BufferDirection) -> PhysAddr {
        let (owner, len) = (buffer.cast::<u8>().as_ptr(), buffer.len());
        assert_ne!(len, 0, "shared an empty buffer");
        with(|platform| {
            assert!(platform.shared.insert(owner), "shared a buffer twice");
            let memory = if platform.bounce {
                // SAFETY: the size is not 0.
                let copy = unsafe { alloc_zeroed(pages_layout(len)) };
                if direction == BufferDirection::DriverToDevice {
                    // SAFETY: the caller's buffer is valid for `len` bytes; so is the copy.
                    unsafe { copy.copy_from_nonoverlapping(owner, len) };
                }
                copy
            } else {
                owner
            };
            let low_bits = owner as usize % PAGE_SIZE;
            let address = platform.place(len, low_bits, platform.bounce);
            let mapping = Mapping {
                memory,
                len,
                direction,
                owner,
                dma: false,
            };
            platform.mappings.insert(address, mapping);
            address
        })
    }

    unsafe fn unshare(address: PhysAddr, buffer: NonNull<[u8]>, direction: BufferDirection) {
        let mapping = with(|platform| {
            platform.shared.remove(&buffer.cast::<u8>().as_ptr());
            platform.mappings.remove(&address)
        });
        let mapping = mapping.expect("unshared what was not shared");
        assert!(!mapping.dma && mapping.owner == buffer.cast::<u8>().as_ptr());
        assert_eq!(mapping.len, buffer.len());
        assert_eq!(mapping.direction, direction);
        if mapping.memory != mapping.owner {
            if direction == BufferDirection::DeviceToDriver {
                // SAFETY: both are valid for `len` bytes, and apart.
                unsafe {
                    mapping
                        .owner
                        .copy_from_nonoverlapping(mapping.memory, mapping.len)
                };
            }
            // SAFETY: allocated with this layout in `share`.
            unsafe { dealloc(mapping.memory, pages_layout(mapping.len)) };
        }
    }
}
