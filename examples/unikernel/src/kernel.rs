//! What the kernel does: greets, lists what the machine has, and exits. Nothing in here is
//! particular to a CPU or a bus.

use crate::arch::exceptions;
use crate::arch::exit::{Exit, exit};
use crate::arch::{serial, time};
use crate::platform::{self, memory, start_info};
use core::panic::PanicInfo;

const MIB: usize = 1024 * 1024;

/// Called by boot.s on a fresh stack, in long mode, with the loader's start information.
// SAFETY: the name is this program's own; only boot.s refers to it.
#[unsafe(no_mangle)]
extern "C" fn kernel_main(start: *const start_info::StartInfo) -> ! {
    serial::init();
    exceptions::init();
    time::init();
    // The host runner waits for this line; keep its beginning.
    println!(
        "fvd unikernel {}: no operating system below",
        env!("CARGO_PKG_VERSION")
    );

    // SAFETY: boot.s passes on what the loader left, once, before anything else can use memory or
    // command line.
    unsafe { platform::init(start) };
    run();

    println!("done after {} us", time::now().as_micros());
    exit(Exit::Success)
}

fn run() {
    println!("command line: {}", start_info::cmdline());
    println!("memory: {} MiB free", memory::free_bytes() / MIB);
    let devices = platform::take_block_devices();
    for (index, device) in devices.iter().enumerate() {
        match device.capacity_bytes() {
            Ok(bytes) => println!("disk {index}: {}, {bytes} bytes", device.location),
            Err(error) => panic!(
                "disk {index}: {}: cannot read its capacity: {error}",
                device.location
            ),
        }
    }
    println!("disks: {}", devices.len());

    let bytes = 64 * MIB;
    match memory::take_region(bytes) {
        Some(region) => println!("arena: {} MiB at {:p}", region.len() / MIB, region.as_ptr()),
        None => panic!("no {bytes} bytes left for an arena; give the machine more memory"),
    }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    println!("\n{info}");
    exit(Exit::Failure)
}
