//! The clients of a server: `fio`, `nbdcopy`, `qemu-img bench`.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use super::fio::{self, Burst, Job, Kind};
use super::tools;
use crate::failure::{Doing, Failure};

/// A program and what it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Client {
    Fio(Job),
    /// `nbdcopy`: the whole disk, to nowhere.
    CopyOut,
    /// `nbdcopy`: a file in memory, into the disk, and a flush.
    CopyIn,
    /// `qemu-img bench`: 4 KiB each, one after the other.
    Img {
        writes: bool,
        depth: u32,
    },
}

const IMG_BLOCK_BYTES: u32 = 4096;

impl Client {
    /// Why it can not be used here.
    pub(super) fn missing(self) -> Option<String> {
        match self {
            Client::Fio(_) => None,
            Client::CopyOut | Client::CopyIn => tools::missing(&["nbdcopy"]),
            Client::Img { .. } => tools::missing(&["qemu-img"]),
        }
    }

    /// Whether it does as many operations as it is told; else all of the disk is one.
    pub(super) fn counts(self) -> bool {
        !matches!(self, Client::CopyOut | Client::CopyIn)
    }

    pub(super) fn block_bytes(self) -> u32 {
        match self {
            Client::Fio(job) => job.block_bytes,
            _ => IMG_BLOCK_BYTES,
        }
    }

    /// Whether it writes in no order.
    pub(super) fn scatters(self) -> bool {
        matches!(self, Client::Fio(job) if job.kind == Kind::RandomWrite)
    }

    /// Operations per second on the disk of a server.
    ///
    /// # Errors
    /// The client fails, or the server.
    pub(super) fn run(
        self,
        uri: &str,
        burst: &Burst,
        source: Option<&Path>,
    ) -> Result<f64, Failure> {
        match self {
            Client::Fio(job) => fio::run(uri, job, burst),
            Client::CopyOut | Client::CopyIn => {
                let mut command = Command::new("nbdcopy");
                match source {
                    Some(source) => command.arg("--flush").arg(source).arg(uri),
                    None => command.args([uri, "null:"]),
                };
                let start = Instant::now();
                tools::run(&mut command)?;
                Ok(1.0 / start.elapsed().as_secs_f64())
            }
            Client::Img { writes, depth } => {
                let mut command = Command::new("qemu-img");
                command.args(["bench", "-f", "raw"]);
                command.args(["-c", &burst.operations.to_string()]);
                command.args(["-d", &depth.to_string()]);
                command.args(["-s", &IMG_BLOCK_BYTES.to_string()]);
                if writes {
                    command.arg("-w");
                }
                let printed = tools::run(command.arg(uri))?;
                let seconds = seconds(&printed).doing(|| "cannot understand qemu-img bench")?;
                Ok(burst.operations as f64 / seconds)
            }
        }
    }
}

/// From `Run completed in 0.013 seconds.`
fn seconds(printed: &str) -> Result<f64, String> {
    let words = printed.split_once("completed in ").map(|(_, words)| words);
    let number = words.and_then(|words| words.split(' ').next()?.parse().ok());
    number
        .filter(|seconds| *seconds > 0.0)
        .ok_or_else(|| format!("no time in {printed:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_read_from_the_last_line() {
        let printed =
            "Sending 1000 read requests, 4096 bytes each\nRun completed in 0.125 seconds.\n";
        assert_eq!(seconds(printed), Ok(0.125));
        assert!(seconds("Run completed in 0.000 seconds.").is_err());
        assert!(seconds("Sending").is_err());
    }
}
