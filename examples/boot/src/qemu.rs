//! The virtual machines, and one run of one of them.
//!
//! Always software emulation (TCG): a boot takes a tenth of a second with it, and it works the same
//! everywhere, while hardware virtualisation may be there and not work (nested, in containers).

use core::time::Duration;
use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Instant;

/// QEMU's exit status when the kernel ends with success: it writes 0x10 to `isa-debug-exit`, which
/// ends QEMU with `0x10 * 2 + 1`. An ordinary status of 0 or 1 thus never looks like success.
pub(crate) const EXIT_SUCCESS: i32 = 33;

/// QEMU's exit status when the kernel ends with failure, after a panic or an exception: it writes
/// 0x11.
pub(crate) const EXIT_FAILURE: i32 = 35;

const MEMORY_MIB: u32 = 256;

#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Machine {
    /// No PCI: disks are virtio-mmio. The firmware only loads the kernel.
    Microvm,
    /// A PC with PCI Express: disks are virtio-pci.
    Q35,
}

impl fmt::Display for Machine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Microvm => "microvm",
            Self::Q35 => "q35",
        })
    }
}

/// A disk image in raw format, as QEMU sees it: a file of sectors.
pub(crate) struct Disk {
    pub(crate) path: PathBuf,
    pub(crate) read_only: bool,
}

/// A machine about to be booted.
pub(crate) struct Boot<'a> {
    pub(crate) qemu: &'a Path,
    pub(crate) machine: Machine,
    pub(crate) kernel: &'a Path,
    /// In the order in which the kernel finds them.
    pub(crate) disks: &'a [Disk],
    /// Words for the kernel. `microvm` adds some of its own.
    pub(crate) cmdline: &'a str,
    /// Let a nanosecond of the machine's time pass with each instruction, and spare the host's disk:
    /// flushes stay in QEMU.
    pub(crate) counts_instructions: bool,
    pub(crate) timeout: Duration,
    /// Show the output while it comes.
    pub(crate) verbose: bool,
}

/// A run that came to an end.
pub(crate) struct Outcome {
    /// `None` if a signal ended QEMU.
    pub(crate) status: Option<i32>,
    /// What the kernel printed, with plain line ends.
    pub(crate) output: String,
    pub(crate) elapsed: Duration,
}

impl Outcome {
    /// A fault that was found, with what the kernel printed.
    pub(crate) fn explain(&self, fault: String) -> String {
        let output = self.output.trim_end();
        format!("{fault}\n--- the kernel printed:\n{output}\n---")
    }
}

impl Boot<'_> {
    /// Boots the machine and waits until it ends.
    ///
    /// # Errors
    ///
    /// If QEMU cannot be run, or if it does not end in time; then it has been killed.
    pub(crate) fn run(&self) -> Result<Outcome, String> {
        self.run_until(|_| None)
    }

    /// Boots the machine and waits until it ends. `watch` sees each line that the kernel prints, and
    /// has QEMU killed after a while by saying so.
    ///
    /// # Errors
    ///
    /// If QEMU cannot be run, or if it does not end in time; then it has been killed.
    pub(crate) fn run_until(
        &self,
        mut watch: impl FnMut(&str) -> Option<Duration>,
    ) -> Result<Outcome, String> {
        let start = Instant::now();
        let deadline = start + self.timeout;
        let mut child = Killed(
            self.command()
                .spawn()
                .map_err(|error| format!("cannot run {}: {error}", self.qemu.display()))?,
        );
        let lines = self.forward(child.0.stdout.take());
        // QEMU says little; a pipe holds it all until it has ended.
        let mut stderr = child.0.stderr.take();

        let mut output = String::new();
        // Ends when QEMU does, or when it is late.
        while let Ok(line) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now()))
        {
            if let Some(delay) = line.strip_suffix('\n').and_then(&mut watch) {
                thread::sleep(delay);
                // Fails only if it has ended.
                let _ = child.0.kill();
            }
            output.push_str(&line);
        }
        let status = child.wait(deadline);
        drop(child);
        output.extend(lines);
        let mut complaint = String::new();
        if let Some(stderr) = &mut stderr {
            // What cannot be read cannot be shown either; the status tells enough.
            let _ = stderr.read_to_string(&mut complaint);
        }
        if !complaint.trim().is_empty() {
            eprintln!("{}", complaint.trim_end());
        }

        match status {
            Err(error) => Err(format!("cannot wait for QEMU: {error}")),
            Ok(None) => Err(format!(
                "{}: no end after {} s, so QEMU was killed; the kernel printed:\n{}",
                self.machine,
                self.timeout.as_secs(),
                output.trim_end()
            )),
            Ok(Some(status)) => Ok(Outcome {
                status: status.code(),
                output,
                elapsed: start.elapsed(),
            }),
        }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.qemu);
        command.args([
            "-machine",
            self.machine_options(),
            "-accel",
            "tcg",
            "-cpu",
            "max",
        ]);
        command.arg("-m").arg(MEMORY_MIB.to_string());
        // Nothing but what is asked for here, whatever this host's QEMU is configured to add.
        command.args(["-no-user-config", "-nodefaults", "-display", "none"]);
        command.args(["-serial", "stdio", "-no-reboot"]);
        command.args(["-device", "isa-debug-exit,iobase=0xf4,iosize=4"]);
        // Modern virtio (1.0 and later) on both buses.
        command.args(["-global", "virtio-mmio.force-legacy=off"]);
        command
            .arg("-kernel")
            .arg(self.kernel)
            .arg("-append")
            .arg(self.cmdline);
        let cache = if self.counts_instructions {
            // A processor that has nothing to do does not wait, and so its time does not jump.
            command.args(["-icount", "shift=0,sleep=off"]);
            "unsafe"
        } else {
            // Writes go to the host's page cache and flushes to its disk: what QEMU was told to
            // flush stays, whatever becomes of QEMU.
            "writeback"
        };
        for (index, disk) in self.disks.iter().enumerate() {
            command.arg("-drive").arg(drive_option(index, disk, cache));
            command.arg("-device").arg(self.device_option(index));
        }
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command
    }

    fn machine_options(&self) -> &'static str {
        match self.machine {
            // Without the timers and interrupt controllers of a PC: the kernel needs none. Without
            // ACPI the disks are named on the kernel's command line instead.
            Machine::Microvm => "microvm,acpi=off,rtc=off,pic=off,pit=off,isa-serial=on",
            Machine::Q35 => "q35",
        }
    }

    /// The device of a disk, on a slot of its own: the order of the command line alone decides
    /// nothing.
    fn device_option(&self, index: usize) -> String {
        match self.machine {
            Machine::Microvm => {
                format!("virtio-blk-device,drive=disk{index},bus=virtio-mmio-bus.{index}")
            }
            // Slot 0 is the host bridge.
            Machine::Q35 => {
                format!(
                    "virtio-blk-pci,drive=disk{index},disable-legacy=on,addr={:#x}",
                    index + 1
                )
            }
        }
    }

    /// Hands on what the kernel prints, line by line with their ends, and shows it if asked to.
    fn forward(&self, stdout: Option<impl Read + Send + 'static>) -> mpsc::Receiver<String> {
        let (sender, receiver) = mpsc::channel();
        let prefix = self.verbose.then(|| format!("{} | ", self.machine));
        thread::spawn(move || {
            let Some(stdout) = stdout else { return };
            let mut stdout = BufReader::new(stdout);
            let mut bytes = Vec::new();
            // A read error is the end too: the exit status says whether the run was complete.
            while let Ok(1..) = stdout.read_until(b'\n', &mut bytes) {
                // Byte by byte and not as UTF-8: the kernel prints ASCII.
                let chars = bytes.drain(..).map(char::from);
                let line: String = chars.filter(|&c| c != '\r').collect();
                if let Some(prefix) = &prefix {
                    println!("{prefix}{}", line.trim_end());
                }
                // Nobody listens any more if the run was given up.
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        receiver
    }
}

fn drive_option(index: usize, disk: &Disk, cache: &str) -> String {
    // In QEMU's option lists a comma is written twice.
    let path = disk.path.display().to_string().replace(',', ",,");
    let read_only = if disk.read_only { "on" } else { "off" };
    format!("if=none,id=disk{index},format=raw,cache={cache},read-only={read_only},file={path}")
}

/// A child process that does not outlive this value.
struct Killed(Child);

impl Killed {
    /// Waits for the end, or until `deadline`: then `None`.
    fn wait(&mut self, deadline: Instant) -> std::io::Result<Option<ExitStatus>> {
        loop {
            if let Some(status) = self.0.try_wait()? {
                return Ok(Some(status));
            }
            if Instant::now() >= deadline {
                return Ok(None);
            }
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        // Both fail only if it has ended and been waited for, which is the aim.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
