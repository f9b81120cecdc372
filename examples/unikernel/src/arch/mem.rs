//! Symbols that compiled code and the prebuilt `core` refer to, which a C library and the unwinder
//! supply elsewhere.
//!
//! The memory functions are string instructions, not loops in Rust: the compiler recognises a loop
//! that copies, fills or measures memory and replaces it by a call of the very function it is in.

use core::arch::asm;
use core::ffi::{c_char, c_int, c_void};

/// Copies 8 bytes a step, which software emulation rewards, then the last few.
///
/// # Safety
///
/// As C's `memcpy`: `source` is readable and `target` writable for `len` bytes, and they do not
/// overlap - except that `target` may overlap the *front* of `source`, as the copy goes upwards.
unsafe fn copy_forward(target: *mut u8, source: *const u8, len: usize) {
    // SAFETY: writes `len` bytes at `target` from `source`, which the caller vouches for; the
    // direction flag is clear in all compiled code (System V ABI) and stays so.
    unsafe {
        asm!(
            "rep movsq",
            "mov ecx, {tail:e}",
            "rep movsb",
            tail = in(reg) len % 8,
            inout("rcx") len / 8 => _,
            inout("rdi") target => _,
            inout("rsi") source => _,
            options(nostack, preserves_flags)
        )
    };
}

/// Copies `len` bytes between areas that do not overlap.
///
/// # Safety
///
/// As C's `memcpy`.
// SAFETY: the C function of this name, with its meaning; no other definition is linked.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcpy(target: *mut c_void, source: *const c_void, len: usize) -> *mut c_void {
    // SAFETY: the caller keeps to the contract of memcpy, which is that of `copy_forward`.
    unsafe { copy_forward(target.cast(), source.cast(), len) };
    target
}

/// Copies `len` bytes between areas that may overlap.
///
/// # Safety
///
/// As C's `memmove`.
// SAFETY: the C function of this name, with its meaning; no other definition is linked.
#[unsafe(no_mangle)]
unsafe extern "C" fn memmove(
    target: *mut c_void,
    source: *const c_void,
    len: usize,
) -> *mut c_void {
    // True too when `target` is below `source`, where the subtraction wraps.
    if target.addr().wrapping_sub(source.addr()) >= len {
        // SAFETY: both areas are valid (caller), and `target` does not begin inside `source`, so
        // going upwards no byte is overwritten before it is read.
        unsafe { copy_forward(target.cast(), source.cast(), len) };
    } else {
        // SAFETY: both areas are valid (caller); `target` begins inside `source`, so going
        // downwards no byte is overwritten before it is read. `len` is not 0 here, and the
        // direction flag is cleared again.
        unsafe {
            asm!(
                "std",
                "rep movsb",
                "cld",
                inout("rcx") len => _,
                inout("rdi") target.cast::<u8>().wrapping_add(len - 1) => _,
                inout("rsi") source.cast::<u8>().wrapping_add(len - 1) => _,
                options(nostack)
            )
        };
    }
    target
}

/// Fills `len` bytes with the low byte of `value`.
///
/// # Safety
///
/// As C's `memset`.
// SAFETY: the C function of this name, with its meaning; no other definition is linked.
#[unsafe(no_mangle)]
unsafe extern "C" fn memset(target: *mut c_void, value: c_int, len: usize) -> *mut c_void {
    let pattern = u64::from(value as u8) * 0x0101_0101_0101_0101;
    // SAFETY: writes `len` bytes at `target`, which the caller vouches for; the direction flag is
    // clear.
    unsafe {
        asm!(
            "rep stosq",
            "mov ecx, {tail:e}",
            "rep stosb",
            tail = in(reg) len % 8,
            inout("rcx") len / 8 => _,
            inout("rdi") target => _,
            in("rax") pattern,
            options(nostack, preserves_flags)
        )
    };
    target
}

/// Compares `len` bytes: 0 when equal, else the sign of the first difference.
///
/// # Safety
///
/// As C's `memcmp`.
// SAFETY: the C function of this name, with its meaning; no other definition is linked.
#[unsafe(no_mangle)]
unsafe extern "C" fn memcmp(left: *const c_void, right: *const c_void, len: usize) -> c_int {
    let (above, below): (u8, u8);
    // SAFETY: reads at most `len` bytes of each, which the caller vouches for; the direction flag
    // is clear. With `len` 0 nothing is compared, so the flags are first made to say "equal".
    unsafe {
        asm!(
            "cmp eax, eax",
            "repe cmpsb",
            "seta {above}",
            "setb {below}",
            above = lateout(reg_byte) above,
            below = lateout(reg_byte) below,
            inout("rcx") len => _,
            inout("rsi") left => _,
            inout("rdi") right => _,
            options(nostack, readonly)
        )
    };
    c_int::from(above) - c_int::from(below)
}

/// Compares `len` bytes: 0 when equal, else anything but 0.
///
/// # Safety
///
/// As `memcmp`.
// SAFETY: the compiler's own name for a memcmp whose sign it does not need; no other definition is
// linked.
#[unsafe(no_mangle)]
unsafe extern "C" fn bcmp(left: *const c_void, right: *const c_void, len: usize) -> c_int {
    // SAFETY: the same contract.
    unsafe { memcmp(left, right, len) }
}

/// Counts the bytes before the first NUL.
///
/// # Safety
///
/// As C's `strlen`.
// SAFETY: the C function of this name, with its meaning; no other definition is linked.
#[unsafe(no_mangle)]
unsafe extern "C" fn strlen(text: *const c_char) -> usize {
    let left: usize;
    // SAFETY: reads up to and including the NUL, which the caller promises is there; the direction
    // flag is clear.
    unsafe {
        asm!(
            "repne scasb",
            inout("rcx") usize::MAX => left,
            inout("rdi") text => _,
            in("al") 0u8,
            options(nostack, readonly)
        )
    };
    // The counter went down once for each byte, the NUL included.
    usize::MAX - left - 1
}

/// Named by the prebuilt `core`, which was compiled to unwind. Never called: this program aborts.
// SAFETY: the name is reserved for the language's runtime, and this program is its own.
#[unsafe(no_mangle)]
extern "C" fn rust_eh_personality() {}

/// As `rust_eh_personality`.
// SAFETY: the unwinder's name; no unwinder is linked.
#[unsafe(no_mangle)]
extern "C" fn _Unwind_Resume() -> ! {
    super::exit::exit(super::exit::Exit::Failure)
}
