//! Ends the run and tells the host how it went, through QEMU's `isa-debug-exit` device.

use super::port;
use core::arch::asm;

/// The port given to QEMU as `-device isa-debug-exit,iobase=0xf4,iosize=4`.
const DEBUG_EXIT: u16 = 0xf4;

/// How the run went. QEMU ends with exit status `code * 2 + 1`, so no code can look like its own
/// success (0) or its usual failure (1).
#[derive(Clone, Copy)]
pub(crate) enum Exit {
    /// Exit status 33.
    Success = 0x10,
    /// Exit status 35.
    Failure = 0x11,
}

/// Ends the virtual machine. Where there is no such device, stops the CPU for good.
pub(crate) fn exit(how: Exit) -> ! {
    // SAFETY: the device ends the machine; where it is missing nothing listens at this port.
    unsafe { port::write_u32(DEBUG_EXIT, how as u32) };
    loop {
        // SAFETY: waiting for an interrupt touches no memory; interrupts are off, so it waits for
        // ever.
        unsafe { asm!("hlt", options(nomem, nostack, preserves_flags)) };
    }
}
