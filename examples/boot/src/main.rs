//! `cargo boot`: builds the example kernel, boots it in QEMU with disks, and judges the outcome.
//!
//! The story is here; `setup` gets what it needs, `qemu` knows the machines.

mod qemu;
mod setup;

use clap::{Parser, ValueEnum};
use core::time::Duration;
use qemu::{Boot, Disk, Machine};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What the kernel says first (examples/unikernel/src/kernel.rs).
const GREETING: &str = "fvd unikernel";

/// Emulation boots in a tenth of a second. What takes this long hangs.
const TIMEOUT: Duration = Duration::from_secs(60);

/// Different sizes, so that the kernel's report shows that the disks arrive in the order given
/// here.
const SCRATCH_BYTES: [u64; 2] = [64 << 20, 32 << 20];

#[derive(Parser)]
#[command(name = "cargo boot", version, about)]
struct Args {
    /// The virtual machine to boot: microvm has virtio-mmio disks, q35 has virtio-pci disks
    #[arg(long, value_enum, default_value_t = Choice::Microvm)]
    machine: Choice,

    /// Work in this directory and keep the disk images
    #[arg(long, value_name = "DIR")]
    keep: Option<PathBuf>,

    /// Show what the kernel prints
    #[arg(long)]
    verbose: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Choice {
    Microvm,
    Q35,
    All,
}

impl Choice {
    fn machines(self) -> &'static [Machine] {
        match self {
            Self::Microvm => &[Machine::Microvm],
            Self::Q35 => &[Machine::Q35],
            Self::All => &[Machine::Microvm, Machine::Q35],
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

/// Boots the kernel on each machine asked for.
///
/// # Errors
///
/// What went wrong and what to do about it, for people.
fn run(args: &Args) -> Result<(), String> {
    let qemu = setup::find_qemu()?;
    let kernel = setup::build_kernel()?;
    let directory = WorkDirectory::new(args.keep.as_deref())?;
    for &machine in args.machine.machines() {
        let disks = make_disks(directory.path(), machine)?;
        let boot = Boot {
            qemu: &qemu,
            machine,
            kernel: &kernel,
            disks: &disks,
            cmdline: "",
            timeout: TIMEOUT,
            verbose: args.verbose,
        };
        let outcome = boot.run()?;
        judge(&outcome, &disks).map_err(|fault| {
            let output = outcome.output.trim_end();
            format!("{machine}: {fault}\n--- the kernel printed:\n{output}\n---")
        })?;
        let seconds = outcome.elapsed.as_secs_f64();
        println!(
            "{machine}: the kernel saw {} disks and exited with success ({seconds:.2} s)",
            disks.len()
        );
    }
    if args.keep.is_some() {
        println!("kept: {}", directory.path().display());
    }
    Ok(())
}

/// Makes the disks of one machine: for now, empty ones.
fn make_disks(directory: &Path, machine: Machine) -> Result<Vec<Disk>, String> {
    let mut disks = Vec::new();
    for (index, bytes) in SCRATCH_BYTES.into_iter().enumerate() {
        let path = directory.join(format!("{machine}-scratch{index}.img"));
        File::create(&path)
            .and_then(|file| file.set_len(bytes))
            .map_err(|error| format!("cannot make the disk {}: {error}", path.display()))?;
        // The second stands for a base image: the kernel shall see that it is read-only.
        disks.push(Disk {
            path,
            read_only: index > 0,
        });
    }
    Ok(disks)
}

/// Finds fault with a run that ended by itself.
fn judge(outcome: &qemu::Outcome, disks: &[Disk]) -> Result<(), String> {
    if !outcome
        .output
        .lines()
        .any(|line| line.starts_with(GREETING))
    {
        return Err("the kernel did not start".to_owned());
    }
    match outcome.status {
        Some(qemu::EXIT_SUCCESS) => {}
        Some(qemu::EXIT_FAILURE) => return Err("the kernel failed".to_owned()),
        Some(status) => {
            return Err(format!(
                "the kernel did not exit; QEMU's status is {status}"
            ));
        }
        None => return Err("something killed QEMU".to_owned()),
    }
    for (index, disk) in disks.iter().enumerate() {
        let bytes = fs::metadata(&disk.path)
            .map_err(|error| format!("cannot look at the disk {}: {error}", disk.path.display()))?
            .len();
        let (start, end) = (format!("disk {index}: "), format!(", {bytes} bytes"));
        if !outcome
            .output
            .lines()
            .any(|line| line.starts_with(&start) && line.ends_with(&end))
        {
            return Err(format!(
                "the kernel did not report disk {index} with its {bytes} bytes"
            ));
        }
    }
    Ok(())
}

/// Where the images are: a directory of the user's choice, which stays, or one that goes when the
/// run is over.
enum WorkDirectory {
    Kept(PathBuf),
    Temporary(PathBuf),
}

impl WorkDirectory {
    fn new(keep: Option<&Path>) -> Result<Self, String> {
        let fault = |path: &Path, error: io::Error| {
            format!("cannot make the directory {}: {error}", path.display())
        };
        match keep {
            Some(path) => {
                fs::create_dir_all(path).map_err(|error| fault(path, error))?;
                Ok(Self::Kept(path.to_owned()))
            }
            None => {
                let path = std::env::temp_dir().join(format!("fvd-boot-{}", std::process::id()));
                // Not `create_dir_all`: what is already there is somebody else's, and would be
                // removed at the end.
                fs::create_dir(&path).map_err(|error| fault(&path, error))?;
                Ok(Self::Temporary(path))
            }
        }
    }

    fn path(&self) -> &Path {
        match self {
            Self::Kept(path) | Self::Temporary(path) => path,
        }
    }
}

impl Drop for WorkDirectory {
    fn drop(&mut self) {
        if let Self::Temporary(path) = self
            && let Err(error) = fs::remove_dir_all(&*path)
        {
            eprintln!("cargo boot: cannot remove {}: {error}", path.display());
        }
    }
}
