//! virtio-pci devices on the root bus, as on QEMU's `q35` and `pc`. Buses behind bridges are not
//! searched.
//!
//! The firmware, which runs before the kernel on these machines, has given the devices their
//! addresses.

use super::dma::KernelHal;
use super::{BlockDevices, Location, add};
use crate::arch::port;
use virtio_drivers::transport::DeviceType;
use virtio_drivers::transport::pci::bus::{Command, ConfigurationAccess, DeviceFunction, PciRoot};
use virtio_drivers::transport::pci::{PciTransport, virtio_device_type};

const CONFIG_ADDRESS: u16 = 0xcf8;
const CONFIG_DATA: u16 = 0xcfc;

/// The PC's port access to configuration space, present on every machine with PCI. On a machine
/// without, all reads are ones.
struct Ports;

impl Ports {
    fn select(function: DeviceFunction, offset: u8) {
        let address = 1 << 31
            | u32::from(function.bus) << 16
            | u32::from(function.device) << 11
            | u32::from(function.function) << 8
            | u32::from(offset & !3);
        // SAFETY: only says what the data port stands for.
        unsafe { port::write_u32(CONFIG_ADDRESS, address) };
    }
}

// No lock around the two steps of an access: one CPU and no interrupts.
impl ConfigurationAccess for Ports {
    fn read_word(&self, function: DeviceFunction, offset: u8) -> u32 {
        Self::select(function, offset);
        // SAFETY: reading configuration space has no side effects on memory.
        unsafe { port::read_u32(CONFIG_DATA) }
    }

    fn write_word(&mut self, function: DeviceFunction, offset: u8, data: u32) {
        Self::select(function, offset);
        // SAFETY: only `find` and the virtio transport write, to probe BARs (with decoding switched
        // off) and to set the command register. Bus mastering alone starts no DMA: a virtio device
        // touches only the queues it is given.
        unsafe { port::write_u32(CONFIG_DATA, data) };
    }

    unsafe fn unsafe_clone(&self) -> Self {
        Self
    }
}

/// Adds the disks on the root bus, and says whether there is such a bus.
///
/// # Safety
///
/// Called once, so that no device gets two transports.
pub(super) unsafe fn find(devices: &mut BlockDevices) -> bool {
    let mut root = PciRoot::new(Ports);
    let mut found_any = false;
    for (function, info) in root.enumerate_bus(0) {
        found_any = true;
        if virtio_device_type(&info) != Some(DeviceType::Block) {
            continue;
        }
        // The kernel polls, so interrupts stay off.
        root.set_command(
            function,
            Command::MEMORY_SPACE | Command::BUS_MASTER | Command::INTERRUPT_DISABLE,
        );
        match PciTransport::new::<KernelHal, _>(&mut root, function) {
            Ok(transport) => add(devices, Location::Pci(function), transport.into()),
            Err(error) => println!("virtio-pci at {function}: ignored: {error}"),
        }
    }
    found_any
}
