//! `cargo boot`: makes a disk with a file system, an FVD image on it, boots the example kernel on
//! both in QEMU, and verifies what it did.
//!
//! The story is here:
//!
//! - `setup` gets what it needs: QEMU, the kernel, the `fvd` command.
//! - `base` makes the disk, `fat` its file system, `fvd` the image.
//! - `trial` is one run of one machine, `qemu` knows the machines.
//! - `verify` looks at what a run leaves.

#[path = "../../unikernel/src/agreed.rs"]
mod agreed;
mod base;
mod fat;
mod fvd;
mod qemu;
mod setup;
mod trial;
mod verify;
mod work_directory;

use base::Base;
use clap::{Parser, ValueEnum};
use fvd::Fvd;
use qemu::Machine;
use std::path::PathBuf;
use std::process::ExitCode;
use trial::Trial;
use work_directory::WorkDirectory;

#[derive(Parser)]
#[command(name = "cargo boot", version, about)]
struct Args {
    /// The virtual machine to boot: microvm has virtio-mmio disks, q35 has virtio-pci disks
    #[arg(long, value_name = "NAME", value_enum, default_value_t = MachineChoice::All)]
    machine: MachineChoice,

    /// Whether the image allocates its own storage (on) or keeps data as in a raw file (off)
    #[arg(long, value_name = "on|off|all", value_enum, default_value_t = TableChoice::All)]
    table: TableChoice,

    /// What all generated contents are derived from
    #[arg(long, value_name = "NUMBER", default_value_t = 2011)]
    seed: u64,

    /// Work in this directory and leave the disk images there
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,

    /// Show what the kernel and the `fvd` command print
    #[arg(long)]
    verbose: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum MachineChoice {
    Microvm,
    Q35,
    All,
}

impl MachineChoice {
    fn machines(self) -> &'static [Machine] {
        match self {
            Self::Microvm => &[Machine::Microvm],
            Self::Q35 => &[Machine::Q35],
            Self::All => &[Machine::Microvm, Machine::Q35],
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum TableChoice {
    On,
    Off,
    All,
}

impl TableChoice {
    /// As the `fvd` command spells them.
    fn tables(self) -> &'static [&'static str] {
        match self {
            Self::On => &["on"],
            Self::Off => &["off"],
            Self::All => &["on", "off"],
        }
    }
}

fn main() -> ExitCode {
    match run(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            eprintln!("cargo boot: {message}");
            ExitCode::FAILURE
        }
    }
}

/// Boots the kernel on each machine and kind of image asked for.
///
/// # Errors
///
/// What went wrong and what to do about it, for people.
fn run(args: &Args) -> Result<(), String> {
    let qemu = setup::find_qemu()?;
    let kernel = setup::build_kernel()?;
    let fvd = Fvd {
        program: setup::build_fvd()?,
        verbose: args.verbose,
    };
    let directory = WorkDirectory::new(args.keep.as_deref())?;
    let base = Base::make(&directory.path().join("base.raw"), args.seed)?;
    println!(
        "base: {} bytes, {} files in its {}; seed {}",
        base.bytes,
        base.listed,
        agreed::MANIFEST,
        args.seed
    );
    for &machine in args.machine.machines() {
        for &table in args.table.tables() {
            let trial = Trial {
                qemu: &qemu,
                kernel: &kernel,
                fvd: &fvd,
                base: &base,
                directory: directory.path(),
                keep: args.keep.is_some(),
                machine,
                table,
                seed: args.seed,
                verbose: args.verbose,
            };
            let success = trial
                .run()
                .map_err(|fault| format!("{machine}, table {table}: {fault}"))?;
            println!("{machine}, table {table}: {success}");
        }
    }
    if args.keep.is_some() {
        println!("kept: {}", directory.path().display());
    }
    Ok(())
}
