//! How much of the stack was ever used.
//!
//! There is no guard page below it, so running out would destroy data in silence. The stack begins
//! as zeros (boot.s); what is not zero any more was used.

use core::ptr;

unsafe extern "C" {
    /// The lowest address of the stack (boot.s).
    safe static stack_bottom: u8;
    /// The first address above it (boot.s).
    safe static stack_top: u8;
}

/// Closer to the end than this the answer is "too much": a frame that leaves zeros at its low end
/// can be larger than it looks.
const MARGIN_BYTES: usize = 64 * 1024;

/// The most bytes that were in use at any time.
///
/// # Panics
///
/// If so little was left that the stack may have overflowed.
pub(crate) fn used_bytes_max() -> usize {
    let bottom = (&raw const stack_bottom).addr();
    let bytes = (&raw const stack_top).addr() - bottom;
    let unused = (0..bytes).step_by(8).find(|&offset| {
        let word = ptr::with_exposed_provenance::<u64>(bottom + offset);
        // SAFETY:
        // 1. The word is inside the stack, which is mapped, aligned to 16 and a multiple of 8 long
        //    (boot.s).
        // 2. Volatile, as the compiler may not reason about what lies in its own stack; whatever
        //    is read is a number.
        unsafe { word.read_volatile() != 0 }
    });
    let unused = unused.unwrap_or(bytes);
    assert!(
        unused >= MARGIN_BYTES,
        "the stack of {bytes} bytes is too small: {unused} were never used"
    );
    bytes - unused
}
