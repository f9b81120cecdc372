//! What the kernel does: opens the disk, works on it through a file system and beside it, closes
//! it, and says what was done. Nothing in here is particular to a CPU or a bus.

use crate::agreed::{GREETING, LAST_TARGET_ROUND, REPORT, TARGET, option, target_pattern};
use crate::arch::exit::{Exit, exit};
use crate::arch::{exceptions, serial, stack, time};
use crate::count;
use crate::disk::{self, Disk};
use crate::endure;
use crate::files::{self, Buffers, Tally};
use crate::overwrite::{DEPTH_MAX, Extent, Extents, Load, Outcome, Round, Task};
use crate::platform::{self, BlockDevices, memory, start_info};
use core::cell::RefCell;
use core::panic::PanicInfo;
use fvd::device::BlockDevice;
use fvd::units::SECTOR_BYTES;

const MIB: usize = 1024 * 1024;
const MANIFEST_BYTES_MAX: usize = 64 * 1024;
const PIECE_BYTES: usize = 16 * 1024;

/// Does everything and ends the machine.
///
/// # Safety
///
/// `start` is the loader's start information; nothing has used memory or command line yet; called
/// once.
pub unsafe fn run(start: *const start_info::StartInfo) -> ! {
    serial::init();
    exceptions::init();
    time::init();
    println!(
        "{GREETING} {}: no operating system below",
        env!("CARGO_PKG_VERSION")
    );

    // SAFETY: the caller's promise.
    unsafe { platform::init(start) };
    work();

    println!(
        "done after {} ms; {} KiB of stack used at most",
        time::now().as_millis(),
        stack::used_bytes_max() / 1024
    );
    exit(Exit::Success)
}

/// Says why the kernel cannot go on and ends the machine.
pub fn fail(info: &PanicInfo<'_>) -> ! {
    println!("\n{info}");
    exit(Exit::Failure)
}

fn work() {
    println!("command line: {}", start_info::cmdline());
    println!("memory: {} MiB free", memory::free_bytes() / MIB);
    let devices = platform::take_block_devices();
    list(&devices);
    let Some(seed) = start_info::options(option::SEED)
        .next()
        .and_then(|seed| seed.parse().ok())
    else {
        panic!(
            "no {}=NUMBER on the command line: boot me with `cargo boot`",
            option::SEED
        );
    };
    match endure::wanted() {
        _ if count::is_wanted() => count::run(devices),
        Some(numbers) => endure::run(devices, seed, numbers),
        None => work_on_disk(devices, seed),
    }
}

/// Works on files, and beside them.
fn work_on_disk(devices: BlockDevices, seed: u64) {
    let extents = extents();
    let mut devices = disk::start(devices);
    let start = time::now();
    let disk = disk::open(&mut devices);
    print_disk(&disk, (time::now() - start).as_micros());
    let disk = RefCell::new(disk::waiting(disk));

    let (checked, written) = work_on_files(&disk, seed);
    let mut disk = disk.into_inner();
    let outcome = overwrite(disk.device_mut(), &extents, seed);

    let start = time::now();
    if let Err(error) = disk.flush() {
        panic!("cannot flush: {error}");
    }
    let (disk, _memory) = disk.into_parts();
    disk::close(disk);
    println!(
        "flushed and closed in {} us",
        (time::now() - start).as_micros()
    );
    disk::print_counts("image", &devices.image);
    disk::print_counts("base", &devices.base);
    println!(
        "{REPORT} files_checked={} bytes_checked={} files_written={} bytes_written={} \
         bytes_overwritten={} in_flight_max={}",
        checked.files,
        checked.bytes,
        written.files,
        written.bytes,
        outcome.bytes,
        outcome.in_flight_max
    );
}

fn list(devices: &BlockDevices) {
    for (index, device) in devices.iter().enumerate() {
        match device.capacity_bytes() {
            Ok(bytes) => println!("disk {index}: {}, {bytes} bytes", device.location),
            Err(error) => panic!(
                "disk {index}: {}: cannot read its capacity: {error}",
                device.location
            ),
        }
    }
}

fn print_disk(disk: &Disk<'_>, open_micros: u128) {
    let header = disk.header();
    println!(
        "image: opened in {open_micros} us; {} bytes, table {}, base of {} bytes, {} requests at \
         once",
        disk.geometry().capacity_bytes,
        if header.has_table() { "on" } else { "off" },
        header.core.base_bytes,
        disk.geometry().queue_depth
    );
}

/// Checks and writes files. Returns what was checked and what was written.
fn work_on_files(disk: &RefCell<disk::WaitingDisk<'_>>, seed: u64) -> (Tally, Tally) {
    let (Some(manifest), Some(piece)) = (
        memory::take_zeroed(MANIFEST_BYTES_MAX),
        memory::take_zeroed(PIECE_BYTES),
    ) else {
        panic!("no memory left for files");
    };
    let start = time::now();
    let (checked, written) = match files::run(disk, seed, &mut Buffers { manifest, piece }) {
        Ok(tallies) => tallies,
        Err(error) => panic!("the file system: {error}"),
    };
    println!(
        "files: {} checked ({} bytes), {} written ({} bytes), in {} ms",
        checked.files,
        checked.bytes,
        written.files,
        written.bytes,
        (time::now() - start).as_millis()
    );
    (checked, written)
}

/// Overwrites the extents twice, with other contents and at another depth each time, and reads them
/// back. Returns the sum of the writes.
fn overwrite(disk: &mut Disk<'_>, extents: &Extents, seed: u64) -> Outcome {
    let last = target_pattern(seed, LAST_TARGET_ROUND);
    let rounds = [
        (Task::Write, 8, target_pattern(seed, 1)),
        (Task::Write, 32, last),
        (Task::Verify, DEPTH_MAX, last),
    ];
    let mut sum = Outcome::default();
    let mut load = Load::new(disk, seed);
    for (task, depth, pattern) in rounds {
        let round = Round {
            task,
            depth,
            pattern,
        };
        let verb = match task {
            Task::Write => "overwritten",
            Task::Verify => "read back",
        };
        let outcome = match load.run(extents, &round) {
            Ok(outcome) => outcome,
            Err(error) => panic!("{TARGET}, at depth {depth}: {error}"),
        };
        println!("{TARGET}: {verb} at depth {depth}: {outcome}");
        assert!(
            outcome.in_flight_max == depth,
            "the depth was not reached: there is too little to do"
        );
        if task == Task::Write {
            sum.bytes += outcome.bytes;
        }
        sum.in_flight_max = sum.in_flight_max.max(outcome.in_flight_max);
    }
    sum
}

/// The extents named on the command line.
fn extents() -> Extents {
    let mut extents = Extents::new();
    for value in start_info::options(option::EXTENT) {
        let parsed = value.split_once('+').and_then(|(offset, bytes)| {
            let (offset, bytes) = (offset.parse().ok()?, bytes.parse().ok()?);
            Some(Extent { offset, bytes })
        });
        let whole = parsed.filter(|extent| {
            extent.bytes > 0 && (extent.offset | extent.bytes) % SECTOR_BYTES == 0
        });
        match whole.map(|extent| extents.push(extent)) {
            Some(Ok(())) => {}
            Some(Err(_)) => panic!("too many extents on the command line"),
            None => panic!("not an extent of whole sectors: {value}"),
        }
    }
    assert!(!extents.is_empty(), "no extent on the command line");
    extents
}
