//! A kernel for x86_64 virtual machines whose only purpose is to run fvd without an operating
//! system.
//!
//! It is an ordinary package built by the ordinary toolchain (see build.rs). That it links at all
//! shows that everything it uses works without std. `cargo boot` builds it, runs it in QEMU and
//! judges the outcome.
//!
//! - `arch`: the CPU and the chipset.
//! - `platform`: what the virtual machine brings: command line, memory, disks.
//! - `kernel`: what is done with them.

#![cfg_attr(bare_metal, no_std, no_main)]

#[cfg(bare_metal)]
#[macro_use]
mod arch;
#[cfg(bare_metal)]
mod kernel;
#[cfg(bare_metal)]
mod platform;

/// On hosts that cannot build the kernel for themselves (see build.rs) the package is this, so that
/// `cargo test --workspace` works there too.
#[cfg(not(bare_metal))]
fn main() {
    eprintln!("A kernel for x86_64: start it with `cargo boot`.");
}
