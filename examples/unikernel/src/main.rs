//! The kernel as a program: its entry, and what a program without std must define itself. All else
//! is in the library.

#![no_std]
#![no_main]

#[cfg(not(bare_metal))]
compile_error!("a kernel for x86_64: build it with `--target x86_64-unknown-none` on other hosts");

use core::panic::PanicInfo;
use unikernel::StartInfo;

// AT&T syntax, as the assembler has no Intel spelling of the far jump into long mode that all
// versions accept.
#[cfg(bare_metal)]
core::arch::global_asm!(include_str!("arch/boot.s"), options(att_syntax));

/// Called by boot.s on a fresh stack, in long mode, with the loader's start information.
// SAFETY: the name is this program's own; only boot.s refers to it.
#[unsafe(no_mangle)]
extern "C" fn kernel_main(start: *const StartInfo) -> ! {
    // SAFETY: boot.s passes on what the loader left, once, before anything else can use memory or
    // command line.
    unsafe { unikernel::run(start) }
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    unikernel::fail(info)
}
