//! A virtio-blk guest driver as an [`fvd`] block device: polled, scatter-gather, without an
//! operating system and without a heap.
//!
//! [`VirtioBlk`] implements [`fvd::device::BlockDevice`] over the transports of [`virtio_drivers`]
//! (MMIO and PCI) and the platform's [`virtio_drivers::Hal`]. The queue is this crate's own: up to
//! `Q` requests in flight, each with up to eight leases, completed in any order.
//!
//! ```
//! use fvd::buffer::Op;
//! use fvd::device::BlockDevice;
//! use fvd::units::Instant;
//! use fvd_virtio::{InitError, Options, VirtioBlk};
//! use virtio_drivers::{Hal, transport::Transport};
//!
//! /// Sends one op to the disk behind `transport`, and polls until it is back.
//! fn example<H: Hal, T: Transport>(transport: T, op: Op) -> Result<Op, InitError> {
//!     let mut disk = VirtioBlk::<H, T, 128>::new(transport, Options::default())?;
//!     if let Err(refused) = disk.submit(op) {
//!         return Ok(refused); // its status says why
//!     }
//!     disk.notify(); // once per batch
//!     loop {
//!         // A real caller passes its clock, and sleeps as `poll_at` allows.
//!         if let Some(op) = disk.poll(Instant::ZERO) {
//!             return Ok(op);
//!         }
//!     }
//! }
//! ```
//!
//! # Choosing `Q`
//!
//! `Q` is the largest queue that the driver will use. The device's own limit lowers it: 256 entries
//! are common, 128 occur. With indirect descriptors (QEMU and most others) a request takes one
//! entry, so 64 suffice for 64 requests. Without them (Firecracker, for one) a request takes one
//! entry for each lease and two more: 256 entries hold 85 requests of one lease.
//! [`Geometry::queue_depth`](fvd::device::Geometry::queue_depth) says what came out.
//!
//! | `Q` | `VirtioBlk` itself | DMA memory, indirect | DMA memory, direct |
//! | --- | --- | --- | --- |
//! | 64 | 6 KiB | 16 KiB | 8 KiB |
//! | 128 | 10 KiB | 32 KiB | 12 KiB |
//! | 256 | 20 KiB | 64 KiB | 24 KiB |
//!
//! [`VirtioBlk::new`] returns the driver by value: leave as much stack, or build it in the place
//! where it stays. DMA memory comes from two calls of `Hal::dma_alloc` and goes back when the
//! driver is dropped.
//!
//! # Memory of requests
//!
//! `Hal::share` is called once for each lease of each op, and `Hal::unshare` when the op is done.
//! One lease becomes one descriptor, so the platform must answer with *one* device address for the
//! whole lease:
//! * Identity-mapped or otherwise physically contiguous memory: the answer is arithmetic, nothing
//!   is copied.
//! * Memory whose pages lie scattered: map the lease through an IOMMU, or copy it to a contiguous
//!   place and back (bounce). [`Options::segment_max_bytes`] and [`Options::memory_align_bytes`]
//!   tell the layers above what travels without that; [`Options::is_bounced`] and [`Stats`] count
//!   what did not.
//! * A share can not fail in `virtio_drivers`. A bouncing platform sizes its pool for
//!   [`Options::queue_depth_max`] times [`Options::transfer_max_bytes`].
//!
//! This crate only passes lease addresses on: it never reads or writes lease memory and never forms
//! a Rust reference to it. Leases over memory that is shared with others, such as the virtual CPUs
//! of a nested guest, are therefore as sound here as the platform's `share` is; the identity
//! mapping does not touch the memory either.
//!
//! # Waking up
//!
//! `poll` never waits, `notify` kicks the device once per batch and not at all while it is known to
//! be looking.
//! * [`Options::interrupts`] false (default): the device is asked for no interrupts, `set_waker`
//!   answers false, and `poll_at` is `Now` while anything is in flight, or `At` with
//!   [`Options::poll_interval_micros`].
//! * True: the platform routes the interrupt and calls [`VirtioBlk::on_interrupt`], which wakes the
//!   stored waker. `poll_at` is `Event` unless a completion waits already. On PCI this is the
//!   level-triggered INTx line: the transport of [`virtio_drivers`] sets up no MSI-X vector.
//!
//! # Power loss
//!
//! `VIRTIO_BLK_F_FLUSH` means a volatile cache, and a `Flush` op is a flush request. Devices should
//! always offer it (virtio 1.2 §5.2.5.2). One that does not is taken as every driver takes it:
//! without a cache, so that a `Flush` op is complete at once. By the letter no write to it is ever
//! certain to be durable (§5.2.6.2), and some hypervisors mean just that: Firecracker leaves the
//! feature out unless the drive's `cache_type` is `Writeback`. Look at
//! [`Geometry::volatile_cache`](fvd::device::Geometry::volatile_cache) if it matters.
//!
//! There is no FUA in virtio-blk. The atomic unit is 512 bytes unless the caller knows better: see
//! [`Options::atomic_write_bytes`].
//!
//! # What is not believed
//!
//! Everything that the device writes is checked against the driver's own records before it has any
//! effect: ring index, request ids, status bytes, lengths, every number of the configuration.
//! Descriptors are never read back. One request can fail alone: status 1 is `Io`, 2 `Unsupported`,
//! anything else `Protocol`, and a read that is shorter than it should be is `Io`.
//!
//! A device that claims the impossible is given up ([`Fault`]): an id that is not in flight, a
//! used index beyond the requests, a finished request whose status byte was never written (which is
//! how an old id looks whose place was taken again), or `DEVICE_NEEDS_RESET`. Then:
//! 1. it is told to reset, at once and without waiting, and every `submit` is refused with
//!    `Removed`;
//! 2. ops in flight stay in the driver for as long as the device may still write to their leases.
//!    The device is done with them only when its status register reads 0;
//! 3. then `poll` returns them with `Removed`. What a write has done is unknown. If the device
//!    never confirms, they never return: leaked memory is better than memory that changes.
//!
//! A device can still write where it likes at any time unless an IOMMU stops it. What is promised
//! is that the driver itself never acts on a lie.
//!
//! Dropping the driver resets the device too, and waits for that within a bound; see
//! [`VirtioBlk`]'s `Drop`. [`VirtioBlk::stop`] is the same without waiting.
//!
//! # Left out
//!
//! Legacy devices (see [`InitError::Legacy`]), several queues, `EVENT_IDX` (one kick per batch is
//! few enough), packed rings, zoned devices and secure erase.
#![no_std]
// Library code of a kernel does not panic, whatever a device says.
#![cfg_attr(
    not(test),
    deny(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic
    )
)]

mod blk;
mod fault;
mod options;
mod queue;
mod region;
mod setup;
mod wire;

pub use blk::VirtioBlk;
pub use fault::{Fault, InitError};
pub use options::{Options, Stats};
