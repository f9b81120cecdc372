//! x86 port input and output.

use core::arch::asm;

/// Reads a byte from a port.
///
/// # Safety
///
/// Reading `port` must not make a device do what breaks memory safety.
pub(crate) unsafe fn read_u8(port: u16) -> u8 {
    let value;
    // SAFETY: `in` touches no memory of ours; its effect on the device is the caller's promise.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nostack, preserves_flags)) };
    value
}

/// Reads a 32-bit word from a port.
///
/// # Safety
///
/// As for [`read_u8`].
pub(crate) unsafe fn read_u32(port: u16) -> u32 {
    let value;
    // SAFETY: `in` touches no memory of ours; its effect on the device is the caller's promise.
    unsafe {
        asm!("in eax, dx", in("dx") port, out("eax") value, options(nostack, preserves_flags))
    };
    value
}

/// Writes a byte to a port.
///
/// # Safety
///
/// Writing `value` to `port` must not make a device do what breaks memory safety, such as DMA into
/// memory in use.
pub(crate) unsafe fn write_u8(port: u16, value: u8) {
    // SAFETY: `out` touches no memory of ours; its effect on the device is the caller's promise.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nostack, preserves_flags)) };
}

/// Writes a 32-bit word to a port.
///
/// # Safety
///
/// As for [`write_u8`].
pub(crate) unsafe fn write_u32(port: u16, value: u32) {
    // SAFETY: `out` touches no memory of ours; its effect on the device is the caller's promise.
    unsafe {
        asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack, preserves_flags))
    };
}
