//! Exact counts: what a server asks of its host for each operation of its client.
//!
//! The system calls of the server are traced, once with so many operations and once with twice as many
//! on another new disk. The difference is what the operations cost, without opening and closing.
//! Threads carry them out, in all servers: a ring shared with the kernel hides them.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::arm::{
    Arm, EXTENDED, Format, How, LAZY, NO_TABLE, PREALLOCATED, QCOW2, QED, QEMU_RAW, RAW,
    RAW_JOURNAL, TABLE,
};
use super::fio::{self, Burst, Job, Kind};
use super::nbd::remove;
use super::results::{CountRow, CountTable, Counted};
use super::server::Server;
use super::{Bench, tools};
use crate::failure::{Doing, Failure};

/// Something that is counted.
pub(super) struct Count {
    pub(super) name: &'static str,
    title: &'static str,
    overlay: bool,
    flush_every: u32,
    arms: &'static [Arm],
}

const FLUSHED: &[Arm] = &[
    RAW,
    RAW_JOURNAL,
    TABLE,
    NO_TABLE,
    QEMU_RAW,
    QCOW2,
    EXTENDED,
    PREALLOCATED,
    LAZY,
    QED,
];

pub(super) const ALL: [Count; 3] = [
    Count {
        name: "count-flush",
        title: "host I/O for each first 4 KiB write + flush, random",
        overlay: false,
        flush_every: 1,
        arms: FLUSHED,
    },
    Count {
        name: "count-flush-32",
        title: "host I/O for each first 4 KiB write, random, a flush after every 32",
        overlay: false,
        flush_every: 32,
        arms: FLUSHED,
    },
    Count {
        name: "count-cow",
        title: "host I/O for each first 4 KiB write to an overlay, random, a flush after every 32",
        overlay: true,
        flush_every: 32,
        arms: &[TABLE, NO_TABLE, QCOW2, EXTENDED, QED],
    },
];

/// Calls that write data, read data, make them durable, and change what takes space.
const WRITES: [&str; 3] = ["pwrite64", "pwritev", "pwritev2"];
const READS: [&str; 3] = ["pread64", "preadv", "preadv2"];
const SYNCS: [&str; 2] = ["fdatasync", "fsync"];
const FALLOCATES: [&str; 1] = ["fallocate"];

pub(super) fn measure(bench: &Bench<'_>, count: &Count) -> Result<CountTable, Failure> {
    let mut rows = Vec::new();
    for arm in count.arms.iter().filter(|arm| bench.wants(arm.name)) {
        bench.begin(count.title, arm.name, 0)?;
        let missing = tools::missing(&["strace"]).or_else(|| arm.missing());
        let counted = match missing {
            Some(why) => Err(format!("SKIP: {why}")),
            None => one(bench, count, arm).map_err(|failure| format!("FAILED: {failure}")),
        };
        rows.push(CountRow {
            arm: arm.name.into(),
            counted,
        });
    }
    Ok(CountTable {
        name: count.name.into(),
        title: count.title.into(),
        rows,
    })
}

/// Counts one arm.
fn one(bench: &Bench<'_>, count: &Count, arm: &Arm) -> Result<Counted, Failure> {
    let operations = bench.scale.counted;
    let few = traced(bench, count, arm, operations)?;
    let many = traced(bench, count, arm, 2 * operations)?;
    let each = |few: u64, many: u64| (many as f64 - few as f64) / operations as f64;
    Ok(Counted {
        writes: each(few.writes, many.writes),
        written_bytes: each(few.written_bytes, many.written_bytes),
        reads: each(few.reads, many.reads),
        read_bytes: each(few.read_bytes, many.read_bytes),
        syncs: each(few.syncs, many.syncs),
        fallocates: each(few.fallocates, many.fallocates),
    })
}

/// Traces the server of a new disk while its client does so many operations.
fn traced(bench: &Bench<'_>, count: &Count, arm: &Arm, operations: u64) -> Result<Calls, Failure> {
    let ground = &bench.ground;
    let base = count.overlay.then(|| bench.base()).transpose()?;
    let base = base.as_deref().filter(|_| !is_raw(arm));
    let size = if count.overlay {
        bench.scale.base_bytes
    } else {
        bench.scale.disk_bytes
    };
    let (image, log, socket) = (
        ground.path("counted.image"),
        ground.path("calls"),
        ground.path("socket"),
    );
    arm.create(ground, &image, size, base)?;
    let how = How {
        base,
        threads: true,
    };
    let server = arm.server(ground, &image, &socket, &how);
    let names = [&WRITES[..], &READS, &SYNCS, &FALLOCATES]
        .concat()
        .join(",");
    let mut strace = Command::new("strace");
    // `-D`: the server stays our child, so that it gets the signal that ends it.
    strace.args(["-f", "-D", "-s", "0", "-e", &format!("trace={names}"), "-o"]);
    strace
        .arg(&log)
        .arg(server.get_program())
        .args(server.get_args());
    let server = Server::start(&mut strace, &socket)?;
    let id = server.id();
    let job = Job {
        kind: Kind::RandomWrite,
        block_bytes: 4096,
        depth: 1,
        flush_every: count.flush_every,
    };
    let burst = Burst {
        area_bytes: size,
        operations,
        time_max: Duration::from_secs(120),
        seed: 1,
    };
    fio::run(&server.uri(), job, &burst)?;
    server.stop()?;
    let calls = read_log(&log, id)?;
    remove(&image)?;
    remove(&log)?;
    Ok(calls)
}

fn is_raw(arm: &Arm) -> bool {
    matches!(arm.format, Format::Raw | Format::RawJournal)
}

/// The log, once the tracer has written all of it.
fn read_log(log: &Path, id: u32) -> Result<Calls, Failure> {
    let end = format!("{id} ");
    let start = Instant::now();
    loop {
        let text = fs::read_to_string(log).doing(|| "cannot read what strace wrote")?;
        let ended = |line: &str| line.starts_with(&end) && line.contains("+++");
        if text.lines().next_back().is_some_and(ended) {
            return Ok(Calls::of(&text));
        }
        if start.elapsed() > Duration::from_secs(10) {
            return Err(Failure::Failed("strace does not end".into()));
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Totals of a trace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Calls {
    writes: u64,
    written_bytes: u64,
    reads: u64,
    read_bytes: u64,
    syncs: u64,
    fallocates: u64,
}

impl Calls {
    fn of(log: &str) -> Calls {
        let mut calls = Calls::default();
        for (name, result) in log.lines().filter_map(call) {
            if WRITES.contains(&name) {
                calls.writes += 1;
                calls.written_bytes += result;
            } else if READS.contains(&name) {
                calls.reads += 1;
                calls.read_bytes += result;
            } else if SYNCS.contains(&name) {
                calls.syncs += 1;
            } else if FALLOCATES.contains(&name) {
                calls.fallocates += 1;
            }
        }
        calls
    }
}

/// Name and result of a call that succeeded: `12 name(..) = 4096`, or the second half of one that was
/// logged in two: `12 <... name resumed>..) = 4096`.
fn call(line: &str) -> Option<(&str, u64)> {
    let (_, line) = line.trim_start().split_once(' ')?;
    let line = line.trim_start();
    let name = match line.strip_prefix("<... ") {
        Some(resumed) => resumed.split(' ').next()?,
        None => line.split_once('(')?.0,
    };
    let (_, result) = line.rsplit_once(" = ")?;
    Some((name, result.trim().parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_read_from_a_trace() {
        let log = "\
10 pwrite64(7, \"\"..., 4096, 0)           = 4096
11 pwritev2(7, [{iov_base=\"\"..., iov_len=8192}], 1, 4096, 0 <unfinished ...>
10 fdatasync(7)                      = 0
11 <... pwritev2 resumed>)           = 8192
10 preadv(7, [{iov_base=\"\"..., iov_len=512}], 1, 0) = 512
10 fallocate(7, 0, 0, 65536)         = -1 EOPNOTSUPP (Operation not supported)
10 fallocate(7, 0, 0, 65536)         = 0
10 --- SIGTERM {si_signo=SIGTERM} ---
10 +++ exited with 0 +++
";
        let calls = Calls {
            writes: 2,
            written_bytes: 12_288,
            reads: 1,
            read_bytes: 512,
            syncs: 1,
            fallocates: 1,
        };
        assert_eq!(Calls::of(log), calls);
    }
}
