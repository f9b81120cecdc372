//! What the virtual machine brings: its command line, its memory and its disks.

pub(crate) mod dma;
pub(crate) mod memory;
mod mmio;
mod pci;
pub(crate) mod start_info;

use core::fmt;
use core::sync::atomic::{AtomicBool, Ordering};
use heapless::Vec;
use virtio_drivers::transport::pci::bus::DeviceFunction;
use virtio_drivers::transport::{DeviceType, SomeTransport, Transport};

/// More disks than any set-up of this example needs.
pub(crate) const BLOCK_DEVICE_COUNT_MAX: usize = 8;

pub(crate) type BlockDevices = Vec<BlockDevice, BLOCK_DEVICE_COUNT_MAX>;

/// A virtio block device nobody drives yet. Dropping it resets the device.
pub(crate) struct BlockDevice {
    pub(crate) location: Location,
    pub(crate) transport: SomeTransport<'static>,
}

/// Where a device was found.
#[derive(Clone, Copy)]
pub(crate) enum Location {
    Mmio { address: usize },
    Pci(DeviceFunction),
}

impl fmt::Display for Location {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Mmio { address } => write!(f, "virtio-mmio at {address:#x}"),
            Self::Pci(function) => write!(f, "virtio-pci at {function}"),
        }
    }
}

impl BlockDevice {
    /// The size of the disk, from the `capacity` field, in 512-byte units, of the device's
    /// configuration (virtio 1.2 §5.2.4).
    pub(crate) fn capacity_bytes(&self) -> virtio_drivers::Result<u64> {
        // The field is wider than the reads the transport guarantees, so a resize could come in
        // between: read again until the generation stays the same.
        let sectors = self.transport.read_consistent(|| {
            let low: u32 = self.transport.read_config_space(0)?;
            let high: u32 = self.transport.read_config_space(4)?;
            Ok(u64::from(high) << 32 | u64::from(low))
        })?;
        Ok(sectors * 512)
    }
}

/// Takes over what the loader left.
///
/// # Safety
///
/// `start` is the loader's start information or null; nothing uses memory outside the kernel's
/// image yet; called once.
pub(crate) unsafe fn init(start: *const start_info::StartInfo) {
    // SAFETY: the caller's promise.
    let info = unsafe { start_info::init(start) };
    // SAFETY: memory outside the image is unused and this is the only call (caller); `info` is what
    // the loader said.
    unsafe { memory::init(info) };
}

/// Finds all virtio block devices, in the order of their slots on the bus. Gives each device out
/// once: later calls return none.
pub(crate) fn take_block_devices() -> BlockDevices {
    static TAKEN: AtomicBool = AtomicBool::new(false);

    let mut devices = Vec::new();
    if TAKEN.swap(true, Ordering::Relaxed) {
        return devices;
    }
    // SAFETY: the first and only call, for both buses.
    let has_pci = unsafe { pci::find(&mut devices) };
    // A machine with PCI has other devices' registers at the addresses that a search for
    // virtio-mmio would read.
    if !has_pci {
        // SAFETY: the first and only call, on a machine without PCI.
        unsafe { mmio::find(&mut devices) };
    }
    devices
}

/// Keeps a device if it is a disk and there is room.
fn add(devices: &mut BlockDevices, location: Location, transport: SomeTransport<'static>) {
    if transport.device_type() != DeviceType::Block {
        return;
    }
    if devices
        .push(BlockDevice {
            location,
            transport,
        })
        .is_err()
    {
        println!("{location}: ignored, there are already {BLOCK_DEVICE_COUNT_MAX} disks");
    }
}
