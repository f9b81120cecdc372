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

/// Without it, the speed of the processor's own clock is found out first, again and again.
const CLOCK: &str = "--clocksource=clock_gettime";

/// Runs a job. Returns reads or writes per second.
///
/// # Errors
/// The client fails, or the server.
pub(super) fn run(uri: &str, job: Job, burst: &Burst) -> Result<f64, Failure> {
    let mut command = client(uri, burst.seed, burst.time_max);
    let bytes = burst.operations * u64::from(job.block_bytes);
    command.arg("--name=bench").args(words(job));
    command.args([
        format!("--size={}", burst.area_bytes),
        format!("--io_size={bytes}"),
    ]);
    let printed = tools::run(&mut command)?;
    rate(&printed, job.kind).doing(|| "cannot understand fio")
}

/// Random reads of 4 KiB, one at a time, and what else goes on meanwhile.
#[derive(Clone, Copy, Debug)]
pub(super) struct Watch {
    /// Bytes at the start of the disk that are read.
    pub(super) area_bytes: u64,
    /// Writes in no order, behind that, up to so many bytes of the disk.
    pub(super) writes: Option<(Job, u64)>,
    pub(super) time: Duration,
    pub(super) seed: u32,
}

/// Runs such a job. Returns nanoseconds: the median of a read, and what 1 % of the reads exceed.
///
/// # Errors
/// As [`run`].
pub(super) fn watch(uri: &str, watch: &Watch) -> Result<[f64; 2], Failure> {
    const READ: Job = Job {
        kind: Kind::RandomRead,
        block_bytes: 4096,
        depth: 1,
        flush_every: 0,
    };
    let area = watch.area_bytes;
    let mut command = client(uri, watch.seed, watch.time);
    command.args(["--time_based", "--name=reads"]);
    command.args(words(READ)).arg(format!("--size={area}"));
    if let Some((job, end)) = watch.writes {
        command.arg("--name=writes").args(words(job));
        command.args([
            format!("--offset={area}"),
            format!("--size={}", end.saturating_sub(area)),
        ]);
    }
    let printed = tools::run(&mut command)?;
    percentiles(&printed).doing(|| "cannot understand fio")
}

/// What all jobs have in common.
fn client(uri: &str, seed: u32, time: Duration) -> Command {
    let mut command = Command::new("fio");
    command.args(["--ioengine=nbd", "--output-format=json", CLOCK]);
    command.args([
        format!("--uri={uri}"),
        format!("--randseed={seed}"),
        // Without the unit, fractions of a second count as none.
        format!("--runtime={}ms", time.as_millis()),
    ]);
    command
}

fn words(job: Job) -> Vec<String> {
    let mut words = vec![
        format!("--rw={}", job.kind.word()),
        format!("--bs={}", job.block_bytes),
        format!("--iodepth={}", job.depth),
    ];
    if job.flush_every != 0 {
        words.push(format!("--fsync={}", job.flush_every));
    }
    words
}

/// Operations per second, from fio's report.
fn rate(printed: &str, kind: Kind) -> Result<f64, String> {
    let job = first_job(printed)?;
    let side = &job[if kind.is_read() { "read" } else { "write" }];
    let number = |key: &str| side[key].as_f64().ok_or_else(|| format!("no {key}"));
    let (operations, milliseconds) = (number("total_ios")?, number("runtime")?);
    if operations == 0.0 || milliseconds == 0.0 {
        return Err("it did nothing".into());
    }
    Ok(operations / milliseconds * 1000.0)
}

/// Median and 99th percentile of the reads of the first job.
fn percentiles(printed: &str) -> Result<[f64; 2], String> {
    let job = first_job(printed)?;
    let all = &job["read"]["clat_ns"]["percentile"];
    let one = |key: &str| {
        let nanoseconds = all[key].as_f64().filter(|found| *found > 0.0);
        nanoseconds.ok_or_else(|| format!("no percentile {key}"))
    };
    Ok([one("50.000000")?, one("99.000000")?])
}

/// The first job in a report in which none failed.
fn first_job(printed: &str) -> Result<Value, String> {
    // Warnings may come before it.
    let report = printed.find('{').map_or("", |start| &printed[start..]);
    let mut report: Value = serde_json::from_str(report).map_err(|error| error.to_string())?;
    let jobs = report["jobs"].as_array().map_or(&[][..], Vec::as_slice);
    if let Some(job) = jobs.iter().find(|job| job["error"] != 0) {
        return Err(format!("error {}", job["error"]));
    }
    Ok(report["jobs"][0].take())
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

    #[test]
    fn percentiles_are_those_of_the_first_job() {
        let report = r#"{"jobs": [
            {"error": 0, "read": {"clat_ns": {"percentile": {"50.000000": 90, "99.000000": 700}}}},
            {"error": 0, "read": {"clat_ns": {}}}]}"#;
        assert_eq!(percentiles(report), Ok([90.0, 700.0]));
        let other_failed =
            report.replace("\"error\": 0, \"read\": {\"clat_ns\": {}}", "\"error\": 5");
        assert!(percentiles(&other_failed).is_err());
        assert!(percentiles(&report.replace("700", "0")).is_err());
    }
}
