//! What the numbers of a campaign were measured on, and the time that a thread was given.

use std::fs;
use std::process::Command;

use serde::Serialize;

/// A machine, a compiler, a state of the sources, and a day.
#[derive(Clone, Debug, Serialize)]
pub struct Machine {
    /// Model of the processor.
    pub processor: String,
    /// Processors that may be used.
    pub cores: usize,
    /// Memory, GiB.
    pub memory_gib: u64,
    /// Kernel.
    pub kernel: String,
    /// Compiler.
    pub rustc: String,
    /// Commit of the sources, with `+` if they were changed.
    pub commit: String,
    /// Day and time, UTC.
    pub date: String,
}

impl Machine {
    /// This one, now. What can not be found out is "unknown".
    #[must_use]
    pub fn here() -> Machine {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let kibibytes = field("/proc/meminfo", "MemTotal").and_then(|text| {
            let number = text.split_whitespace().next()?;
            number.parse::<u64>().ok()
        });
        let changed = said("git", &["status", "--porcelain"]).is_some();
        let commit = said("git", &["rev-parse", "--short", "HEAD"])
            .map(|commit| commit + if changed { "+" } else { "" });
        Machine {
            processor: known(field("/proc/cpuinfo", "model name")),
            cores,
            memory_gib: (kibibytes.unwrap_or(0) + (1 << 19)) >> 20,
            kernel: known(said("uname", &["-sr"])),
            rustc: known(said("rustc", &["--version"])),
            commit: known(commit),
            date: known(said("date", &["-u", "+%Y-%m-%d %H:%M UTC"])),
        }
    }
}

fn known(text: Option<String>) -> String {
    text.unwrap_or_else(|| "unknown".into())
}

/// The value after `name :` in a file of such lines.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().into())
}

/// What a command prints, if it works and prints anything.
fn said(program: &str, args: &[&str]) -> Option<String> {
    let output = Command::new(program).args(args).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    let text = text.trim();
    (output.status.success() && !text.is_empty()).then(|| text.into())
}

/// Seconds that the calling thread has spent on a processor, as far as the kernel tells.
#[must_use]
pub(super) fn processor_seconds() -> Option<f64> {
    let text = fs::read_to_string("/proc/thread-self/schedstat").ok()?;
    let nanoseconds: u64 = text.split_whitespace().next()?.parse().ok()?;
    Some(nanoseconds as f64 / 1e9)
}
