//! `cargo boot`: makes a disk with a file system, an FVD image on it, boots the example kernel on
//! both in QEMU, and verifies what it did.
//!
//! The story is here:
//!
//! - `setup` gets what it needs: QEMU, the kernel, the `fvd` command.
//! - `base` makes the disk, `fat` its file system, `fvd` the image.
//! - `trial` is one run of one machine, `qemu` knows the machines.
//! - `verify` looks at what a run leaves.
//! - `kill` has machines killed in the middle of their work, `said` keeps what they told until then,
//!   `promise` knows what must be left.
//! - `count` has instructions and device operations counted, request by request (`cases`).

#[path = "../../unikernel/src/agreed.rs"]
mod agreed;
mod base;
#[path = "../../unikernel/src/cases.rs"]
mod cases;
mod count;
mod fat;
mod fvd;
mod kill;
#[path = "../../unikernel/src/promise.rs"]
mod promise;
mod qemu;
mod said;
mod setting;
mod setup;
mod trial;
mod verify;
mod work_directory;

use base::Base;
use clap::{Parser, ValueEnum};
use fvd::Fvd;
use kill::Killing;
use qemu::Machine;
use setting::Setting;
use std::path::{Path, PathBuf};
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

    /// Instead of one run to its end, kill the machine so many times (without a number: 10) while it
    /// opens the image, writes, or closes it, and verify all that it had flushed
    #[arg(long, value_name = "ROUNDS", num_args = 0..=1, default_missing_value = "10")]
    kill: Option<u32>,

    /// Instead of one run, count what reads, writes and flushes take, on the image and on a bare virtio
    /// disk: instructions of the processor, and operations of the devices, which must be exactly so
    /// many
    #[arg(long, conflicts_with = "kill")]
    count: bool,

    /// Print what was counted as JSON
    #[arg(long, requires = "count")]
    json: bool,

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
    let setting = |machine, table| Setting {
        qemu: &qemu,
        kernel: &kernel,
        fvd: &fvd,
        directory: directory.path(),
        machine,
        table,
        seed: args.seed,
        verbose: args.verbose,
    };
    let machines = args.machine.machines().iter();
    let settings: Vec<Setting<'_>> = machines
        .flat_map(|&machine| {
            let tables = args.table.tables().iter();
            tables.map(move |&table| setting(machine, table))
        })
        .collect();
    match args.kill {
        _ if args.count => run_counted(args, &settings)?,
        Some(rounds) => run_killed(args, rounds, &settings)?,
        None => run_whole(args, directory.path(), &settings)?,
    }
    if args.keep.is_some() {
        eprintln!("kept: {}", directory.path().display());
    }
    Ok(())
}

/// In every setting, to the end of the kernel's work.
fn run_whole(args: &Args, directory: &Path, settings: &[Setting<'_>]) -> Result<(), String> {
    let base = Base::make(&directory.join("base.raw"), args.seed)?;
    println!(
        "base: {} bytes, {} files in its {}; seed {}",
        base.bytes,
        base.listed,
        agreed::MANIFEST,
        args.seed
    );
    for &setting in settings {
        let trial = Trial {
            setting,
            base: &base,
            keep: args.keep.is_some(),
        };
        let success = trial.run().map_err(|fault| format!("{setting}: {fault}"))?;
        println!("{setting}: {success}");
    }
    Ok(())
}

/// In every setting, killed again and again.
fn run_killed(args: &Args, rounds: u32, settings: &[Setting<'_>]) -> Result<(), String> {
    println!("seed {}", args.seed);
    for &setting in settings {
        let killing = Killing { setting, rounds };
        let sum = killing
            .run()
            .map_err(|fault| format!("{setting}: {fault}"))?;
        println!("{setting}: {sum}");
    }
    Ok(())
}

/// In every setting, to count what requests take.
fn run_counted(args: &Args, settings: &[Setting<'_>]) -> Result<(), String> {
    let mut lines = Vec::new();
    for setting in settings {
        let counted = count::run(setting).map_err(|fault| format!("{setting}: {fault}"))?;
        lines.extend(counted);
    }
    if args.json {
        println!("{}", count::json(&lines));
    } else {
        print!("{}", count::table(&lines));
    }
    Ok(())
}
