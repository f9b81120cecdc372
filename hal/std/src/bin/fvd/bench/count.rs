//! Exact counts: what a server asks of its host for each operation of its client.
//!
//! The system calls of the server are traced, once with some operations and once with more of them. The
//! difference is what those cost, without opening and closing.
//! Threads carry them out, in all servers: a ring shared with the kernel hides them.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use super::arm::{
    Arm, EXTENDED, Front, How, IMAGO, LAZY, NO_TABLE, PREALLOCATED, QCOW2, QCOW2_RS, QED, QEMU_RAW,
    RAW, RAW_JOURNAL, Shape, TABLE,
};
use super::fio::{self, Burst, Job, Kind};
use super::nbd::{remove, served};
use super::results::{CountRow, CountTable, Counted};
use super::server::Server;
use super::{Bench, local, tools};
use crate::failure::{Doing, Failure};

/// Something that is counted.
pub(super) struct Count {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    load: Load,
    pub(super) arms: &'static [Arm],
}

/// 4 KiB each, in no order.
#[derive(Clone, Copy)]
enum Load {
    /// First writes, with a flush after every so many.
    Writes { overlay: bool, flush_every: u32 },
    /// Reads of what was written before the image was opened. The disk is so large that metadata of all
    /// of it are more than others keep in memory.
    Reads,
}

/// A disk for reads.
const READ_DISK_BYTES: u64 = 1 << 40;

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
    IMAGO,
    QCOW2_RS,
];

pub(super) const ALL: [Count; 4] = [
    Count {
        name: "count-flush",
        title: "host I/O for each first 4 KiB write + flush, random",
        load: Load::Writes {
            overlay: false,
            flush_every: 1,
        },
        arms: FLUSHED,
    },
    Count {
        name: "count-flush-32",
        title: "host I/O for each first 4 KiB write, random, a flush after every 32",
        load: Load::Writes {
            overlay: false,
            flush_every: 32,
        },
        arms: FLUSHED,
    },
    Count {
        name: "count-cow",
        title: "host I/O for each first 4 KiB write to an overlay, random, a flush after every 32",
        load: Load::Writes {
            overlay: true,
            flush_every: 32,
        },
        arms: &[TABLE, NO_TABLE, QCOW2, EXTENDED, QED],
    },
    Count {
        name: "count-read",
        title: "host I/O for each 4 KiB read of what was written, random, 1 TiB, after open",
        load: Load::Reads,
        arms: &[RAW, TABLE, NO_TABLE, QEMU_RAW, QCOW2, EXTENDED, QED],
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
        let missing = tools::missing(&["strace"])
            .or_else(|| arm.missing())
            .or_else(|| local::missing(bench.args, arm));
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
    let scale = &bench.scale;
    let (few, many, operations) = match count.load {
        Load::Writes {
            overlay,
            flush_every,
        } => {
            let operations = scale.counted;
            let calls = |operations| writes(bench, arm, overlay, flush_every, operations);
            (calls(operations)?, calls(2 * operations)?, operations)
        }
        Load::Reads => {
            let operations = scale.counted_reads;
            let (one, all) = reads(bench, arm, operations)?;
            (one, all, operations - 1)
        }
    };
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

/// So many first writes to a new disk.
fn writes(
    bench: &Bench<'_>,
    arm: &Arm,
    overlay: bool,
    flush_every: u32,
    operations: u64,
) -> Result<Calls, Failure> {
    let ground = &bench.ground;
    let base = overlay.then(|| bench.base()).transpose()?;
    let shape = Shape {
        bytes: match overlay {
            true => bench.scale.base_bytes,
            false => bench.scale.disk_bytes,
        },
        base: base.as_deref().filter(|_| !arm.is_raw()),
        ..Shape::default()
    };
    let image = ground.path("counted.image");
    arm.create(ground, &image, &shape)?;
    let calls = match &bench.args.peers {
        Some(program) if arm.front == Front::Crate => {
            let places = local::places(shape.bytes, operations, 1);
            by_crate(bench, program, arm, &image, flush_every, &places)?
        }
        _ => {
            let work = (job(Kind::RandomWrite, flush_every), shape.bytes, operations);
            by_server(bench, arm, &image, shape.base, work)?
        }
    };
    remove(&image)?;
    Ok(calls)
}

/// One read of what was written before, and so many.
fn reads(bench: &Bench<'_>, arm: &Arm, operations: u64) -> Result<(Calls, Calls), Failure> {
    let ground = &bench.ground;
    let image = ground.path("counted.image");
    let shape = Shape {
        bytes: READ_DISK_BYTES,
        ..Shape::default()
    };
    arm.create(ground, &image, &shape)?;
    // The same places as those that are read: the seed is the same.
    let burst = burst(READ_DISK_BYTES, operations);
    served(arm, ground, &image, &How::default(), |server| {
        fio::run(&server.uri(), job(Kind::RandomWrite, 0), &burst)
    })?;
    let calls = |operations| {
        let work = (job(Kind::RandomRead, 0), READ_DISK_BYTES, operations);
        by_server(bench, arm, &image, None, work)
    };
    let (one, all) = (calls(1)?, calls(operations)?);
    remove(&image)?;
    Ok((one, all))
}

const fn job(kind: Kind, flush_every: u32) -> Job {
    Job {
        kind,
        block_bytes: 4096,
        depth: 1,
        flush_every,
    }
}

const fn burst(area_bytes: u64, operations: u64) -> Burst {
    Burst {
        area_bytes,
        operations,
        time_max: Duration::from_secs(120),
        seed: 1,
    }
}

/// Traces a server while its client does so many operations on so many bytes.
fn by_server(
    bench: &Bench<'_>,
    arm: &Arm,
    image: &Path,
    base: Option<&Path>,
    (job, area_bytes, operations): (Job, u64, u64),
) -> Result<Calls, Failure> {
    let ground = &bench.ground;
    let (log, socket) = (ground.path("calls"), ground.path("socket"));
    let how = How {
        base,
        threads: true,
    };
    // `-D`: the server stays our child, so that it gets the signal that ends it.
    let mut strace = strace(&log, &["-D"], &arm.server(ground, image, &socket, &how));
    let server = Server::start(&mut strace, &socket)?;
    let id = server.id();
    fio::run(&server.uri(), job, &burst(area_bytes, operations))?;
    server.stop()?;
    let calls = read_log(&log, id)?;
    remove(&log)?;
    Ok(calls)
}

/// Traces the program of a crate. It uses system calls there, too, one after the other.
fn by_crate(
    bench: &Bench<'_>,
    program: &Path,
    arm: &Arm,
    image: &Path,
    flush_every: u32,
    places: &[u64],
) -> Result<Calls, Failure> {
    let log = bench.ground.path("calls");
    let mut command = Command::new(program);
    command.arg(arm.name).arg(image);
    command.args(["1", &flush_every.to_string(), "--calls"]);
    let mut strace = strace(&log, &[], &command);
    tools::run_with(&mut strace, local::lines(places).as_bytes())?;
    let text = fs::read_to_string(&log).doing(|| "cannot read what strace wrote")?;
    remove(&log)?;
    Ok(Calls::of(&text))
}

/// The command that runs `command` and writes the calls that count to `log`.
fn strace(log: &Path, options: &[&str], command: &Command) -> Command {
    let names = [&WRITES[..], &READS, &SYNCS, &FALLOCATES];
    let mut strace = Command::new("strace");
    strace.args(["-f", "-s", "0", "-e"]);
    strace.arg(format!("trace={}", names.concat().join(",")));
    strace.args(options).arg("-o").arg(log);
    strace.arg(command.get_program()).args(command.get_args());
    strace
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
