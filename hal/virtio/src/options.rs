//! What the caller decides about a device, and what the adapter counts.

use virtio_drivers::PhysAddr;

use crate::fault::InitError;

/// Choices that only the platform can make. [`Options::default`] suits a polled device over
/// identity-mapped or otherwise physically contiguous memory.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Most operations in flight, at least 1. A platform that bounces sizes its pool by this times
    /// [`transfer_max_bytes`](Options::transfer_max_bytes). Default: as many as the queue holds.
    pub queue_depth_max: u16,
    /// Longest read or write to advertise, bytes; the device's limits lower it further. Default 4
    /// MiB: long enough that the cost of a request vanishes, short enough that one does not hold up
    /// the others for long.
    pub transfer_max_bytes: u32,
    /// Longest lease to advertise, bytes; the device's `size_max` lowers it further. Default: no
    /// limit. Longer leases are refused.
    pub segment_max_bytes: u32,
    /// Alignment to advertise for leases, a power of two; virtio asks for none. Default 1. With
    /// 4096 here and in [`segment_max_bytes`](Options::segment_max_bytes), a platform whose pages
    /// lie scattered sees leases within one page, wherever the layers above can arrange it.
    pub memory_align_bytes: u32,
    /// Unit to advertise as never torn by power loss, bytes: a power of two from 512. Default 512,
    /// whatever the device says about its blocks.
    ///
    /// virtio-blk has no field that promises anything about power loss. Its block sizes are hints
    /// for speed: a hypervisor can report 4096 over a medium that tears at 512, and the reverse.
    /// That sectors of 512 bytes are written whole is what every file system assumes. Raise this
    /// only if whoever runs the host promises more (`awun`/`awupf` of an NVMe namespace, say); do
    /// raise it where the host's medium has 4096-byte physical blocks behind 512-byte sectors,
    /// since there a torn write can damage the neighbours in its block.
    pub atomic_write_bytes: u32,
    /// The platform routes the device's interrupt and calls
    /// [`on_interrupt`](crate::VirtioBlk::on_interrupt). Default false: interrupts are suppressed,
    /// [`set_waker`](fvd::device::BlockDevice::set_waker) answers false and
    /// [`poll_at`](fvd::device::BlockDevice::poll_at) asks to be polled.
    pub interrupts: bool,
    /// Without interrupts: how long after a poll the next one is due, microseconds. Default 0: at
    /// once, for as long as something is in flight.
    pub poll_interval_micros: u32,
    /// Use indirect descriptors where the device has them. Default true. A request then takes one
    /// queue entry instead of three to ten.
    pub indirect: bool,
    /// Whether an address that `Hal::share` returned belongs to a bounce buffer, for
    /// [`Stats::bounced_segments`]. `Hal` has no way to say so itself. Default: never.
    pub is_bounced: fn(PhysAddr) -> bool,
}

fn never_bounced(_: PhysAddr) -> bool {
    false
}

impl Default for Options {
    fn default() -> Options {
        Options {
            queue_depth_max: u16::MAX,
            transfer_max_bytes: 4 << 20,
            segment_max_bytes: u32::MAX,
            memory_align_bytes: 1,
            atomic_write_bytes: 512,
            interrupts: false,
            poll_interval_micros: 0,
            indirect: true,
            is_bounced: never_bounced,
        }
    }
}

impl Options {
    pub(crate) fn check(&self) -> Result<(), InitError> {
        let legal = self.queue_depth_max != 0
            && self.transfer_max_bytes != 0
            && self.segment_max_bytes != 0
            && self.memory_align_bytes.is_power_of_two()
            && self.atomic_write_bytes.is_power_of_two()
            && self.atomic_write_bytes >= 512;
        if legal {
            Ok(())
        } else {
            Err(InitError::BadOptions)
        }
    }
}

/// Counters since the device was taken into use. They wrap.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Requests given to the device.
    pub requests: u64,
    /// Requests that came back from it.
    pub completions: u64,
    /// Times the device was notified, once per batch at most. Each is a VM exit.
    pub notifications: u64,
    /// Times it had asked not to be notified.
    pub notifications_saved: u64,
    /// Leases that went through a bounce buffer ([`Options::is_bounced`]): one copy each.
    pub bounced_segments: u64,
    /// Bytes of those leases.
    pub bounced_bytes: u64,
    /// Reads for which the device reported success and fewer bytes than asked; failed with `Io`.
    pub short_reads: u64,
}
