//! What every run needs, on one machine and with one kind of image.

use crate::fvd::Fvd;
use crate::qemu::{Boot, Disk, Machine};
use core::fmt;
use core::time::Duration;
use std::path::{Path, PathBuf};

#[derive(Clone, Copy)]
pub(crate) struct Setting<'a> {
    pub(crate) qemu: &'a Path,
    pub(crate) kernel: &'a Path,
    pub(crate) fvd: &'a Fvd,
    /// Where the images go.
    pub(crate) directory: &'a Path,
    pub(crate) machine: Machine,
    /// `on` or `off`: whether the image allocates its storage itself.
    pub(crate) table: &'static str,
    pub(crate) seed: u64,
    pub(crate) verbose: bool,
}

impl Setting<'_> {
    /// A file that belongs to this setting alone; `work` begins its name.
    pub(crate) fn path(&self, work: &str, name: &str) -> PathBuf {
        let (machine, table) = (self.machine, self.table);
        self.directory
            .join(format!("{work}{machine}-table-{table}.{name}"))
    }

    /// A machine about to be booted on these disks, with these words for the kernel.
    pub(crate) fn boot<'b>(
        &'b self,
        disks: &'b [Disk],
        cmdline: &'b str,
        timeout: Duration,
    ) -> Boot<'b> {
        Boot {
            qemu: self.qemu,
            machine: self.machine,
            kernel: self.kernel,
            disks,
            cmdline,
            counts_instructions: false,
            timeout,
            verbose: self.verbose,
        }
    }
}

impl fmt::Display for Setting<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, table {}", self.machine, self.table)
    }
}
