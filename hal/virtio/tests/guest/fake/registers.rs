//! The transport: registers that panic when the driver uses them out of order.

use std::cell::RefCell;
use std::rc::Rc;

use virtio_drivers::transport::{DeviceStatus, DeviceType, InterruptStatus, Transport};
use virtio_drivers::{Error, PhysAddr, Result};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::device::{Device, Rings};

/// What the driver did, in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Event {
    Status(u32),
    ReadFeatures,
    WriteFeatures(u64),
    ReadConfig(usize),
    SetQueue(u32),
}

/// How the device answers to a reset.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reset {
    Prompt,
    /// After so many reads of the status register.
    After(u32),
    Never,
}

/// The part of the device that the registers show.
pub(crate) struct Registers {
    pub(crate) device_type: DeviceType,
    pub(crate) offered: u64,
    pub(crate) accepted: Option<u64>,
    pub(crate) refuse_features: bool,
    pub(crate) status: u32,
    pub(crate) reset: Reset,
    /// Status reads until a reset under way is confirmed.
    pub(crate) reset_pending: Option<u32>,
    pub(crate) queue_size_max: u32,
    pub(crate) queue_busy: bool,
    pub(crate) config: Vec<u8>,
    pub(crate) config_generation: u32,
    /// The configuration changes at every look.
    pub(crate) config_unstable: bool,
    pub(crate) interrupts: u32,
    pub(crate) kicks: u64,
    pub(crate) dropped: bool,
    pub(crate) events: Vec<Event>,
}

const ACKNOWLEDGE: u32 = 1;
const DRIVER: u32 = 2;
const DRIVER_OK: u32 = 4;
const FEATURES_OK: u32 = 8;
pub(crate) const NEEDS_RESET: u32 = 64;
pub(crate) const FAILED: u32 = 128;

/// A handle on the device, for the driver and for the test.
#[derive(Clone)]
pub(crate) struct Handle(pub(crate) Rc<RefCell<Device>>);

pub(crate) struct FakeTransport(pub(crate) Handle);

impl FakeTransport {
    fn with<R>(&self, f: impl FnOnce(&mut Device) -> R) -> R {
        f(&mut self.0.0.borrow_mut())
    }
}

impl Device {
    fn begin_reset(&mut self) {
        // Whatever the status was, it reads 0 only when the reset is done.
        self.registers.status |= ACKNOWLEDGE;
        match self.registers.reset {
            Reset::Prompt => self.finish_reset(),
            Reset::After(reads) => self.registers.reset_pending = Some(reads),
            Reset::Never => self.registers.reset_pending = Some(u32::MAX),
        }
    }

    fn finish_reset(&mut self) {
        self.registers.status = 0;
        self.registers.accepted = None;
        self.registers.reset_pending = None;
        self.forget_queue();
    }

    fn change_status(&mut self, new: u32) {
        self.registers.events.push(Event::Status(new));
        if new == 0 {
            return self.begin_reset();
        }
        assert!(self.registers.reset_pending.is_none(), "wrote during reset");
        let old = self.registers.status;
        if new & FAILED != 0 {
            self.registers.status |= FAILED;
            return;
        }
        assert_eq!(old & !NEEDS_RESET & !new, 0, "took back a status bit");
        let legal = match new & !old {
            ACKNOWLEDGE => old == 0,
            DRIVER => old == ACKNOWLEDGE,
            FEATURES_OK => old == ACKNOWLEDGE | DRIVER && self.registers.accepted.is_some(),
            DRIVER_OK => old & FEATURES_OK != 0 && self.rings.is_some(),
            _ => false,
        };
        assert!(legal, "status {old:#x} to {new:#x} is out of order");
        self.registers.status = new;
        if new & !old == FEATURES_OK && self.registers.refuse_features {
            self.registers.status = old;
        }
    }

    fn read_status(&mut self) -> u32 {
        match self.registers.reset_pending {
            Some(0) => self.finish_reset(),
            Some(left) if self.registers.reset != Reset::Never => {
                self.registers.reset_pending = Some(left - 1);
            }
            _ => {}
        }
        self.registers.status
    }

    fn config_feature(offset: usize) -> u64 {
        match offset {
            0..8 => 1 << 32,
            8..12 => 1 << 1,
            12..16 => 1 << 2,
            20..24 => 1 << 6,
            24..32 => 1 << 10,
            36..48 => 1 << 13,
            48..60 => 1 << 14,
            _ => panic!("nothing of ours is at {offset} in the configuration"),
        }
    }
}

impl Transport for FakeTransport {
    fn device_type(&self) -> DeviceType {
        self.with(|device| device.registers.device_type)
    }

    fn read_device_features(&mut self) -> u64 {
        self.with(|device| {
            assert_eq!(device.registers.status, ACKNOWLEDGE | DRIVER);
            device.registers.events.push(Event::ReadFeatures);
            device.registers.offered
        })
    }

    fn write_driver_features(&mut self, features: u64) {
        self.with(|device| {
            let registers = &mut device.registers;
            assert_eq!(registers.status, ACKNOWLEDGE | DRIVER);
            assert!(registers.accepted.is_none(), "chose features twice");
            assert!(registers.events.contains(&Event::ReadFeatures));
            assert_eq!(features & !registers.offered, 0, "not offered");
            assert_ne!(features & (1 << 32), 0, "VERSION_1 must be accepted");
            registers.accepted = Some(features);
            registers.events.push(Event::WriteFeatures(features));
        });
    }

    fn max_queue_size(&mut self, queue: u16) -> u32 {
        assert_eq!(queue, 0);
        self.with(|device| device.registers.queue_size_max)
    }

    fn notify(&mut self, queue: u16) {
        assert_eq!(queue, 0);
        self.with(|device| {
            assert_ne!(device.registers.status & DRIVER_OK, 0, "notified too early");
            assert!(device.registers.reset_pending.is_none());
            device.registers.kicks += 1;
            device.kicked = true;
        });
    }

    fn get_status(&self) -> DeviceStatus {
        self.with(|device| DeviceStatus::from_bits_truncate(device.read_status()))
    }

    fn set_status(&mut self, status: DeviceStatus) {
        self.with(|device| device.change_status(status.bits()));
    }

    fn set_guest_page_size(&mut self, _bytes: u32) {
        panic!("for legacy devices only");
    }

    fn requires_legacy_layout(&self) -> bool {
        false
    }

    fn queue_set(
        &mut self,
        queue: u16,
        size: u32,
        descriptors: PhysAddr,
        driver_area: PhysAddr,
        device_area: PhysAddr,
    ) {
        assert_eq!(queue, 0);
        self.with(|device| {
            assert_ne!(device.registers.status & FEATURES_OK, 0, "queue too early");
            assert_eq!(device.registers.status & DRIVER_OK, 0, "queue too late");
            assert!(size.is_power_of_two() && size <= device.registers.queue_size_max);
            device.registers.events.push(Event::SetQueue(size));
            device.rings = Some(Rings::new(
                size as u16,
                descriptors,
                driver_area,
                device_area,
            ));
        });
    }

    fn queue_unset(&mut self, _queue: u16) {
        panic!("not part of the driver's protocol");
    }

    fn queue_used(&mut self, queue: u16) -> bool {
        assert_eq!(queue, 0);
        self.with(|device| device.registers.queue_busy || device.rings.is_some())
    }

    fn ack_interrupt(&mut self) -> InterruptStatus {
        self.with(|device| {
            let cause = std::mem::take(&mut device.registers.interrupts);
            InterruptStatus::from_bits_truncate(cause)
        })
    }

    fn read_config_generation(&self) -> u32 {
        self.with(|device| {
            if device.registers.config_unstable {
                device.registers.config_generation += 1;
            }
            device.registers.config_generation
        })
    }

    fn read_config_space<V: FromBytes + IntoBytes>(&self, offset: usize) -> Result<V> {
        self.with(|device| {
            let registers = &mut device.registers;
            let accepted = registers.accepted.unwrap_or(0);
            let feature = Device::config_feature(offset);
            assert_ne!(registers.status & FEATURES_OK, 0, "config too early");
            assert_ne!(accepted & feature, 0, "config at {offset} without feature");
            assert!(align_of::<V>() <= 4 && offset.is_multiple_of(align_of::<V>()));
            registers.events.push(Event::ReadConfig(offset));
            let bytes = registers.config.get(offset..offset + size_of::<V>());
            let bytes = bytes.ok_or(Error::ConfigSpaceTooSmall)?;
            Ok(V::read_from_bytes(bytes).expect("the right size"))
        })
    }

    fn write_config_space<V: IntoBytes + Immutable>(
        &mut self,
        _offset: usize,
        _value: V,
    ) -> Result<()> {
        panic!("nothing in the configuration is ours to write");
    }
}

impl Drop for FakeTransport {
    /// As the PCI transport: resets the device and waits for that, without a bound.
    fn drop(&mut self) {
        if std::thread::panicking() {
            return;
        }
        self.set_status(DeviceStatus::empty());
        for _ in 0..1_000_000 {
            if self.get_status() == DeviceStatus::empty() {
                self.with(|device| device.registers.dropped = true);
                return;
            }
        }
        panic!("the transport's drop would hang");
    }
}
