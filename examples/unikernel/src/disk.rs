//! The disk: an FVD image on the first virtio disk, over its base on the second.
//!
//! Below fvd each device counts what is asked of it.

use crate::arch::time;
use crate::platform::dma::KernelHal;
use crate::platform::{self, BlockDevices, memory};
use fvd::Stats;
use fvd::blocking::{self, Blocking};
use fvd::device::{BlockDevice, Counting, Counts, When};
use fvd::open::OpenOptions;
use fvd::stores::{One, WithBase};
use fvd::units::Instant;
use fvd_virtio::{Options, VirtioBlk};
use virtio_drivers::transport::SomeTransport;

/// Room in the queue for every request of a disk at depth 64, and for its own beside them.
const QUEUE_SIZE: usize = 128;

/// Memory for the disk: its requests, its journal and all of its metadata.
const ARENA_BYTES: usize = 4 << 20;

/// Memory through which plain reads and writes go.
const BOUNCE_BYTES: u32 = 256 << 10;

/// A virtio disk whose traffic is counted.
pub(crate) type Device = Counting<VirtioBlk<KernelHal, SomeTransport<'static>, QUEUE_SIZE>>;

/// The devices below the disk. They stay where they are made: a driver holds its whole queue, and
/// the disk is moved several times while it is opened.
pub(crate) struct Devices {
    pub(crate) image: Device,
    pub(crate) base: Device,
}

/// The disk that the file system is on.
pub(crate) type Disk<'d> = fvd::Disk<WithBase<One<&'d mut Device>, &'d mut Device>>;

/// The disk, for plain reads and writes one at a time.
pub(crate) type WaitingDisk<'d> = Blocking<Disk<'d>, fn(When) -> Instant>;

/// What to do while nothing can be done: nothing. A kernel with other work would do it here; one
/// with interrupts would halt the CPU until [`When`] it is to be back.
pub(crate) fn idle(_until: When) -> Instant {
    core::hint::spin_loop();
    now()
}

/// The time, for fvd.
pub(crate) fn now() -> Instant {
    Instant::from_micros(time::now().as_micros() as u64)
}

/// Takes the first two disks into use.
///
/// # Panics
///
/// If one is missing or unsuitable.
pub(crate) fn start(found: BlockDevices) -> Devices {
    let mut devices = found.into_iter().map(device);
    let (Some(image), Some(base)) = (devices.next(), devices.next()) else {
        panic!("two disks are needed: an FVD image, and its base");
    };
    assert!(
        base.geometry().read_only,
        "the base is not protected: give it to the machine as a read-only disk"
    );
    Devices { image, base }
}

/// Takes one disk into use.
///
/// # Panics
///
/// If it is unsuitable.
pub(crate) fn device(found: platform::BlockDevice) -> Device {
    let location = found.location;
    match VirtioBlk::new(found.transport, Options::default()) {
        Ok(device) => Counting::new(device),
        Err(error) => panic!("{location}: {error}"),
    }
}

/// Opens the image over its base, with the options that fvd has by itself.
///
/// # Panics
///
/// If there is no sound image.
pub(crate) fn open(devices: &mut Devices) -> Disk<'_> {
    open_with(devices, OpenOptions::DEFAULT)
}

/// Opens the image over its base.
///
/// # Panics
///
/// If there is no sound image.
pub(crate) fn open_with(devices: &mut Devices, options: OpenOptions) -> Disk<'_> {
    let stores = WithBase::new(One(&mut devices.image), &mut devices.base);
    let options = OpenOptions {
        // Clocks differ from run to run, which is all that is asked of it.
        owner_nonce: time::now().as_nanos() as u64,
        ..options
    };
    match blocking::open(stores, options, region(ARENA_BYTES), idle) {
        Ok(disk) => disk,
        Err(failure) => panic!("cannot open the image: {}", failure.error),
    }
}

/// Makes a disk one that can be waited for.
pub(crate) fn waiting(disk: Disk<'_>) -> WaitingDisk<'_> {
    let memory = region(blocking::blocking_arena_bytes(BOUNCE_BYTES));
    match Blocking::new(disk, memory, idle as fn(When) -> Instant) {
        Ok(disk) => disk,
        Err(_) => panic!("{BOUNCE_BYTES} bytes are too few to read and write through"),
    }
}

/// Closes the disk and prints what it did.
///
/// # Panics
///
/// If the image is not clean now, or if memory that the disk had borrowed is missing.
pub(crate) fn close(disk: Disk<'_>) {
    let closed = blocking::close(disk, idle, |op| panic!("{op:?} was still in flight"));
    if let Err(error) = closed.result {
        panic!("cannot close the image: {error}");
    }
    assert!(
        closed.memory.is_some(),
        "a device kept memory that it had been lent"
    );
    print_stats(&closed.stats);
}

/// Prints what was asked of a device, and checks that it was done.
///
/// # Panics
///
/// If an operation failed or did not come back, or if the device's own counts are others.
pub(crate) fn print_counts(name: &str, device: &Device) {
    let counts: Counts = device.counts();
    println!(
        "{name}: {} reads ({} bytes), {} writes ({} bytes), {} flushes, {} discards, \
         {} write-zeroes ({} bytes), {} refusals",
        counts.reads,
        counts.read_bytes,
        counts.writes,
        counts.write_bytes,
        counts.flushes,
        counts.discards,
        counts.write_zeroes,
        counts.write_zeroes_bytes,
        counts.refusals
    );
    let virtio = device.inner().stats();
    println!(
        "{name}: {} virtio requests, {} notifications ({} saved)",
        virtio.requests, virtio.notifications, virtio.notifications_saved
    );
    assert_eq!(counts.in_flight(), 0, "operations did not come back");
    assert_eq!(counts.failed, 0, "operations failed");
    assert_eq!(
        virtio.requests, virtio.completions,
        "requests did not come back"
    );
}

fn print_stats(stats: &Stats) {
    println!(
        "disk: {} requests, {} of them one device operation each, {} parts of others",
        stats.requests, stats.forwarded, stats.parts
    );
    println!(
        "disk: {} blocks filled from the base, {} chunks taken ({} zeroed first)",
        stats.fills, stats.chunks_reserved, stats.chunks_zeroed
    );
    println!(
        "disk: {} commits, {} journal writes, {} checkpoints, {} metadata pages written",
        stats.commits, stats.journal_writes, stats.checkpoints, stats.pages_written
    );
    assert_eq!(
        stats.protocol_errors, 0,
        "devices answered what was not asked"
    );
}

/// Takes memory that must be there.
pub(crate) fn region(bytes: usize) -> &'static mut [core::mem::MaybeUninit<u8>] {
    match memory::take_region(bytes) {
        Some(region) => region,
        None => panic!("no {bytes} bytes left; give the machine more memory"),
    }
}
