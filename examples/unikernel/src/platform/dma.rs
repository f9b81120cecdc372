//! Memory for virtqueues, and the bridge between virtio-drivers and this kernel.
//!
//! Physical and virtual addresses are the same (boot.s), there is no IOMMU, and x86 keeps caches
//! coherent with devices: so sharing a buffer is naming its address.

use crate::arch::IDENTITY_MAPPED_BYTES;
use core::cell::UnsafeCell;
use core::mem::MaybeUninit;
use core::ptr::NonNull;
use spin::Mutex;
use virtio_drivers::{BufferDirection, Hal, PAGE_SIZE, PhysAddr};

/// 1 MiB: the queues of eight disks at a depth of 1024.
const POOL_PAGES: usize = 256;

#[repr(C, align(4096))]
struct Pool(UnsafeCell<MaybeUninit<[u8; POOL_PAGES * PAGE_SIZE]>>);

// SAFETY: the bytes are only reached through the pages that `IN_USE` gives to one owner at a time.
unsafe impl Sync for Pool {}

static POOL: Pool = Pool(UnsafeCell::new(MaybeUninit::uninit()));

/// Which pages of the pool have an owner.
static IN_USE: Mutex<[bool; POOL_PAGES]> = Mutex::new([false; POOL_PAGES]);

/// This kernel, as virtio-drivers sees it.
pub(crate) struct KernelHal;

/// Marks the first run of free pages as used and returns its index.
fn reserve(pages: usize) -> Option<usize> {
    let mut in_use = IN_USE.lock();
    if pages == 0 {
        return None;
    }
    let first = in_use.windows(pages).position(|run| !run.contains(&true))?;
    in_use[first..first + pages].fill(true);
    Some(first)
}

fn pool_start() -> NonNull<u8> {
    NonNull::from(&POOL).cast()
}

// SAFETY: see each function.
unsafe impl Hal for KernelHal {
    // Implementation safety: the pages are aligned (the pool is, and they are whole pages of it),
    // zeroed here, and nobody else's until they are given back (`reserve`).
    fn dma_alloc(pages: usize, _direction: BufferDirection) -> (PhysAddr, NonNull<u8>) {
        let Some(first) = reserve(pages) else {
            // The physical address 0 is how virtio-drivers wants to hear of it.
            return (0, NonNull::dangling());
        };
        // SAFETY: `reserve` only returns runs that lie in the pool.
        let start = unsafe { pool_start().byte_add(first * PAGE_SIZE) };
        // SAFETY: the pages lie in the pool, are valid for writes (`UnsafeCell`), and have no other
        // owner (`reserve`).
        unsafe { start.write_bytes(0, pages * PAGE_SIZE) };
        (start.expose_provenance().get() as PhysAddr, start)
    }

    unsafe fn dma_dealloc(_address: PhysAddr, start: NonNull<u8>, pages: usize) -> i32 {
        let first = (start.addr().get() - pool_start().addr().get()) / PAGE_SIZE;
        IN_USE.lock()[first..first + pages].fill(false);
        0
    }

    // Implementation safety: mapped as checked, and registers are no Rust objects, so there is
    // nothing to alias. The caller asks for BARs of the device it is making its one transport for.
    unsafe fn mmio_phys_to_virt(address: PhysAddr, bytes: usize) -> NonNull<u8> {
        let end = address.checked_add(bytes as u64);
        assert!(
            end.is_some_and(|end| end <= IDENTITY_MAPPED_BYTES),
            "device registers at {address:#x} are outside of the kernel's memory map"
        );
        let start = core::ptr::with_exposed_provenance_mut(address as usize);
        NonNull::new(start).expect("a BAR without an address")
    }

    unsafe fn share(buffer: NonNull<[u8]>, _direction: BufferDirection) -> PhysAddr {
        buffer.cast::<u8>().expose_provenance().get() as PhysAddr
    }

    unsafe fn unshare(_address: PhysAddr, _buffer: NonNull<[u8]>, _direction: BufferDirection) {}
}
