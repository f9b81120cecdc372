//! The client: `fio` with its NBD engine.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use super::tools;
use crate::failure::{Doing, Failure};

/// What the client does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Job {
    pub(super) kind: Kind,
    pub(super) block_bytes: u32,
    pub(super) depth: u32,
    /// A flush after so many writes; 0 = none.
    pub(super) flush_every: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    RandomRead,
    RandomWrite,
    Read,
    Write,
}

impl Kind {
    const fn word(self) -> &'static str {
        match self {
            Kind::RandomRead => "randread",
            Kind::RandomWrite => "randwrite",
            Kind::Read => "read",
            Kind::Write => "write",
        }
    }

    const fn is_read(self) -> bool {
        matches!(self, Kind::RandomRead | Kind::Read)
    }
}

/// How much of a job is done in one go.
#[derive(Clone, Copy, Debug)]
pub(super) struct Burst {
    /// Bytes of the disk, from its start, that are touched.
    pub(super) area_bytes: u64,
    pub(super) operations: u64,
    /// It ends after this time at the latest.
    pub(super) time_max: Duration,
    /// The same seed leads to the same places.
    pub(super) seed: u32,
}

/// Runs a job. Returns reads or writes per second.
///
/// # Errors
/// The client fails, or the server.
pub(super) fn run(uri: &str, job: Job, burst: &Burst) -> Result<f64, Failure> {
    let mut command = Command::new("fio");
    command.args(["--name=bench", "--ioengine=nbd", "--output-format=json"]);
    let bytes = burst.operations * u64::from(job.block_bytes);
    command.args([
        format!("--uri={uri}"),
        format!("--rw={}", job.kind.word()),
        format!("--bs={}", job.block_bytes),
        format!("--iodepth={}", job.depth),
        format!("--size={}", burst.area_bytes),
        format!("--io_size={bytes}"),
        format!("--randseed={}", burst.seed),
        // Without the unit, fractions of a second count as none.
        format!("--runtime={}ms", burst.time_max.as_millis()),
    ]);
    if job.flush_every != 0 {
        command.arg(format!("--fsync={}", job.flush_every));
    }
    let printed = tools::run(&mut command)?;
    rate(&printed, job.kind).doing(|| "cannot understand fio")
}

/// Operations per second, from fio's report.
fn rate(printed: &str, kind: Kind) -> Result<f64, String> {
    // Warnings may come before it.
    let report = printed.find('{').map_or("", |start| &printed[start..]);
    let report: Value = serde_json::from_str(report).map_err(|error| error.to_string())?;
    let job = &report["jobs"][0];
    if job["error"] != 0 {
        return Err(format!("error {}", job["error"]));
    }
    let side = &job[if kind.is_read() { "read" } else { "write" }];
    let number = |key: &str| side[key].as_f64().ok_or_else(|| format!("no {key}"));
    let (operations, milliseconds) = (number("total_ios")?, number("runtime")?);
    if operations == 0.0 || milliseconds == 0.0 {
        return Err("it did nothing".into());
    }
    Ok(operations / milliseconds * 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_read_from_behind_warnings() {
        let report = r#"note: both iodepth >= 1 and synchronous I/O
            {"jobs": [{"error": 0, "write": {"total_ios": 500, "runtime": 250},
                       "read": {"total_ios": 0, "runtime": 0}}]}"#;
        assert_eq!(rate(report, Kind::RandomWrite), Ok(2000.0));
        assert!(rate(report, Kind::Read).is_err());
        assert!(rate(&report.replace("\"error\": 0", "\"error\": 5"), Kind::Write).is_err());
        assert!(rate("fio: bad option", Kind::Write).is_err());
    }
}
