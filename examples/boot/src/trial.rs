//! One run: an image on the base, the kernel on both, and then everything looked at.

use crate::agreed::{GREETING, option};
use crate::base::{Base, DISK_BYTES};
use crate::qemu::{self, Disk, Outcome};
use crate::setting::Setting;
use crate::verify::{self, Report};
use core::fmt;
use core::time::Duration;
use std::fs;
use std::time::Instant;

/// A run takes seconds. What takes this long hangs.
const TIMEOUT: Duration = Duration::from_secs(180);

/// What a run needs.
pub(crate) struct Trial<'a> {
    pub(crate) setting: Setting<'a>,
    pub(crate) base: &'a Base,
    /// Leave the images where they are.
    pub(crate) keep: bool,
}

/// What a run did.
pub(crate) struct Success {
    report: Report,
    files_verified: usize,
    boot: Duration,
    all: Duration,
}

impl fmt::Display for Success {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let report = &self.report;
        write!(
            f,
            "{} files checked ({}), {} written ({}), {} overwritten with up to {} requests in \
             flight; image clean, {} files verified, base unchanged ({:.1} s, {:.1} s of them in \
             QEMU)",
            report.files_checked,
            Mebibytes(report.bytes_checked),
            report.files_written,
            Mebibytes(report.bytes_written),
            Mebibytes(report.bytes_overwritten),
            report.in_flight_max,
            self.files_verified,
            self.all.as_secs_f64(),
            self.boot.as_secs_f64()
        )
    }
}

struct Mebibytes(u64);

impl fmt::Display for Mebibytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} MiB", self.0 as f64 / (1 << 20) as f64)
    }
}

impl Trial<'_> {
    /// Does it all.
    ///
    /// # Errors
    ///
    /// The first thing that went wrong, with what the kernel printed if it was running by then.
    pub(crate) fn run(&self) -> Result<Success, String> {
        let start = Instant::now();
        let image = self.setting.path("", "fvd");
        let raw = self.setting.path("", "raw");
        // What an earlier run has left in a directory that is kept.
        for old in [&image, &raw] {
            if old.exists() {
                fs::remove_file(old)
                    .map_err(|error| format!("cannot remove {}: {error}", old.display()))?;
            }
        }
        let shape = ["--table", self.setting.table];
        self.setting
            .fvd
            .create(&self.base.path, &image, DISK_BYTES, &shape)?;

        let disks = [
            Disk {
                path: image.clone(),
                read_only: false,
            },
            Disk {
                path: self.base.path.clone(),
                read_only: true,
            },
        ];
        let outcome = self.boot(&disks)?;
        let printed = |fault| outcome.explain(fault);
        judge(&outcome).map_err(printed)?;
        let report = Report::find(&outcome.output).map_err(printed)?;
        report.check(self.base).map_err(printed)?;

        self.setting.fvd.check(&self.base.path, &image)?;
        self.setting.fvd.to_raw(&self.base.path, &image, &raw)?;
        let files_verified =
            verify::verify_disk(&raw, self.base, self.setting.seed).map_err(printed)?;
        verify::verify_base(self.base)?;
        if !self.keep {
            // Space for the next run; what stays goes with the directory.
            let _ = fs::remove_file(&image);
            let _ = fs::remove_file(&raw);
        }
        Ok(Success {
            report,
            files_verified,
            boot: outcome.elapsed,
            all: start.elapsed(),
        })
    }

    fn boot(&self, disks: &[Disk]) -> Result<Outcome, String> {
        let mut words = vec![format!("{}={}", option::SEED, self.setting.seed)];
        for extent in &self.base.extents {
            let (offset, bytes) = (extent.offset, extent.bytes);
            words.push(format!("{}={offset}+{bytes}", option::EXTENT));
        }
        let cmdline = words.join(" ");
        self.setting.boot(disks, &cmdline, TIMEOUT).run()
    }
}

/// Finds fault with how a run ended.
pub(crate) fn judge(outcome: &Outcome) -> Result<(), String> {
    let mut lines = outcome.output.lines();
    if !lines.any(|line| line.starts_with(GREETING)) {
        return Err("the kernel did not start".to_owned());
    }
    match outcome.status {
        Some(qemu::EXIT_SUCCESS) => Ok(()),
        Some(qemu::EXIT_FAILURE) => Err("the kernel failed".to_owned()),
        Some(status) => Err(format!(
            "the kernel did not exit; QEMU's status is {status}"
        )),
        None => Err("something killed QEMU".to_owned()),
    }
}
