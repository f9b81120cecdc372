//! A kernel for x86_64 virtual machines whose only purpose is to run fvd without an operating
//! system.
//!
//! It is an ordinary package built by the ordinary toolchain (see build.rs). That it links at all
//! shows that everything it uses works without std. `cargo boot` builds it, runs it in QEMU and
//! judges the outcome.
//!
//! - `arch`: the CPU and the chipset.
//! - `platform`: what the virtual machine brings: command line, memory, disks.
//! - `disk`: an FVD image on two of them.
//! - `files`: a FAT file system on that, and work on its files.
//! - `overwrite`: many requests at once, beside the file system.
//! - `endure`: the other work, for machines that are killed in the middle of it.
//! - `count`: instructions and device operations of requests, by kind.
//! - `kernel`: the story.
//! - `agreed`, `cases`, `promise`: what the host runner knows too.
//!
//! All of this is a library, and the program (main.rs) only adds the entry and the panic handler,
//! for the sake of builds of the whole workspace. There every crate gets the features that all
//! members together ask for, std too. A library compiles with that, and so is checked like any
//! other; a program that brings its own panic handler does not, and so is built by itself
//! (feature `bare-metal`).

#![no_std]
// Where the kernel cannot be built (see build.rs) there is nothing here.
#![cfg(bare_metal)]

#[macro_use]
mod arch;
mod agreed;
mod cases;
mod count;
mod disk;
mod endure;
mod files;
mod kernel;
mod overwrite;
mod platform;
mod promise;

pub use kernel::{fail, run};
pub use platform::start_info::StartInfo;
