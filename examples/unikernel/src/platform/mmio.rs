//! virtio-mmio devices, as on QEMU's `microvm` and Firecracker.
//!
//! The host names them on the kernel's command line (`virtio_mmio.device=512@0xfeb02e00:12`, the
//! form Linux reads). Where it does not, the window in which `microvm` places them is searched.

use super::{BlockDevices, Location, add, start_info};
use crate::arch::IDENTITY_MAPPED_BYTES;
use core::ptr::{self, NonNull};
use heapless::Vec;
use virtio_drivers::transport::mmio::{MmioError, MmioTransport, VirtIOHeader};

/// Registers and configuration of one device.
const SLOT_BYTES: usize = 512;
/// `microvm`: VIRTIO_MMIO_BASE and, with a second interrupt controller, the number of slots.
const WINDOW_START: usize = 0xfeb0_0000;
const SLOT_COUNT_MAX: usize = 24;

/// Adds the disks in all slots, lowest address first.
///
/// # Safety
///
/// Called once, so that no device gets two transports. There is no PCI, whose devices may be in the
/// window.
pub(super) unsafe fn find(devices: &mut BlockDevices) {
    let mut slots = named_slots();
    if slots.is_empty() {
        slots.extend((0..SLOT_COUNT_MAX).map(|slot| WINDOW_START + slot * SLOT_BYTES));
    }
    for address in slots {
        // SAFETY: the host says that there is a slot at this address; or, as there is no PCI, the
        // window holds virtio-mmio slots or nothing, and reading where there is nothing is
        // harmless. Each address is probed once: none is in the list twice, and this function runs
        // once (caller).
        unsafe { probe(devices, address) };
    }
}

/// The slots on the command line in ascending order, which is not that of `microvm`; each once.
fn named_slots() -> Vec<usize, SLOT_COUNT_MAX> {
    let mut slots = Vec::new();
    for address in start_info::options("virtio_mmio.device").filter_map(parse_address) {
        if !slots.contains(&address) && slots.push(address).is_err() {
            println!("virtio-mmio at {address:#x}: ignored, there are {SLOT_COUNT_MAX} others");
        }
    }
    slots.sort_unstable();
    slots
}

/// The address in `<size>@<address>:<interrupt>`, if the kernel has it mapped and it can be a
/// slot's.
fn parse_address(value: &str) -> Option<usize> {
    let (_size, rest) = value.split_once('@')?;
    let address = rest.split(':').next()?.strip_prefix("0x")?;
    let address = u64::from_str_radix(address, 16).ok()?;
    let end = address.checked_add(SLOT_BYTES as u64)?;
    // Whole slots, so that no two can overlap.
    let aligned = address != 0 && address % SLOT_BYTES as u64 == 0;
    let plausible = aligned && end <= IDENTITY_MAPPED_BYTES;
    plausible.then_some(address as usize)
}

/// Adds the disk in a slot, if there is one.
///
/// # Safety
///
/// `address` is that of a slot or of nothing, is mapped and aligned, and is probed once.
unsafe fn probe(devices: &mut BlockDevices, address: usize) {
    let Some(header) = NonNull::new(ptr::with_exposed_provenance_mut::<VirtIOHeader>(address))
    else {
        return;
    };
    // SAFETY: mapped for the whole run, aligned, and used through this transport only (caller).
    let transport = unsafe { MmioTransport::new(header, SLOT_BYTES) };
    match transport {
        Ok(transport) => add(devices, Location::Mmio { address }, transport.into()),
        // An empty slot has device id 0; where there is no slot, the magic number is missing.
        Err(MmioError::InvalidDeviceID(_) | MmioError::BadMagic(_)) => {}
        Err(error) => println!("virtio-mmio at {address:#x}: ignored: {error}"),
    }
}
