//! What the CPU and the chipset need, and nothing about disks: entry, port I/O, serial line, exit,
//! time, exceptions, and the few symbols compiled code expects.

#[macro_use]
pub(crate) mod serial;
pub(crate) mod counter;
pub(crate) mod exceptions;
pub(crate) mod exit;
mod mem;
pub(crate) mod port;
pub(crate) mod stack;
pub(crate) mod time;

/// Physical addresses below this one are mapped at the same virtual address (`page_map` in boot.s).
pub(crate) const IDENTITY_MAPPED_BYTES: u64 = 1 << 40;
