//! The whole core behind functions that nobody calls, with a panic handler that nobody can link.
//!
//! If any panic path of the core survives optimisation, the panic handler is kept and with it the
//! undefined symbol `fvd_can_panic`, which `nm` shows (tests/panic_free.rs). If none does, the
//! optimiser has proved that no input whatsoever makes the core panic.
//!
//! Every entry is a function pointer that must be kept, so that the optimiser knows nothing about
//! the arguments: not even that a `Disk` was made by `Opening`. Devices are trait objects, that is,
//! they may answer anything.
#![no_std]
#![allow(clippy::type_complexity)] // types of functions are what this is about

/// Keeps values, such as pointers to functions, and so everything that they lead to.
macro_rules! keep {
    ($($type:ty = $value:expr;)*) => { $(
        const _: () = {
            #[used]
            static KEPT: $type = $value;
        };
    )* };
}

#[cfg(feature = "alloc")]
mod boxes;
#[cfg(feature = "buffer")]
mod buffer;
#[cfg(feature = "devices")]
mod devices;
mod engine;
#[cfg(feature = "format")]
mod format;
mod layers;
#[cfg(feature = "mending")]
mod mending;
#[cfg(feature = "small")]
mod small;
#[cfg(feature = "text")]
mod text;

use fvd::device::BlockDevice;

/// A device of which nothing is known.
type Unknown = &'static mut dyn BlockDevice;

unsafe extern "C" {
    /// Defined nowhere.
    safe fn fvd_can_panic() -> !;
}

#[panic_handler]
fn on_panic(_: &core::panic::PanicInfo<'_>) -> ! {
    fvd_can_panic()
}

/// What the check must find when it is there.
#[cfg(feature = "planted")]
const _: () = {
    fn unchecked(bytes: &[u8], index: usize) -> u8 {
        bytes[index]
    }
    keep! { fn(&[u8], usize) -> u8 = unchecked; }
};
