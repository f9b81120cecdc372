//! Tables without a server: the engine on a file, driven from this process.

use std::fs::OpenOptions;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use fvd::buffer::{Arena, Head, Loan, Op, OpPool};
use fvd::device::{BlockDevice, DeviceError, OpKind, Status, When};
use fvd_std::aligned::AlignedBuffer;
use fvd_std::arena::leak_arena;
use fvd_std::drive::{Driver, Step};
use fvd_std::file::{Cache, FileDevice, FileOptions};
use fvd_std::image::{Access, Image, Parts};

use super::arm::{Arm, Format, Front, Ground, IMAGO, NO_TABLE, QCOW2_RS, RAW, RAW_JOURNAL, TABLE};
use super::control::JournalControl;
use super::nbd::{chunk_operations_max, remove};
use super::results::{ArmOf, Heading, Table};
use super::rounds::{self, Limits, Turn};
use super::workload::{BARS_090, BARS_097, BARS_FLUSH_32, BARS_FLUSH_EACH, Bar};
use super::{Bench, tools};
use crate::failure::{Doing, Failure};

const BLOCK_BYTES: usize = 4096;

/// `pwrite` and `fdatasync`: the least that a program can do.
const PLAIN: Arm = Arm {
    name: "pwrite",
    front: Front::Fvd,
    format: Format::Raw,
};

/// First writes at random places of a new disk.
pub(super) struct Local {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    depth: usize,
    /// A flush after so many writes; 0 = none.
    flush_every: u64,
    pub(super) arms: &'static [Arm],
    bars: &'static [Bar],
}

pub(super) const ALL: [Local; 4] = [
    Local {
        name: "local-fresh-qd1",
        title: "without a server: first 4 KiB writes, random, QD1",
        depth: 1,
        flush_every: 0,
        arms: &[PLAIN, TABLE, NO_TABLE, IMAGO, QCOW2_RS],
        bars: BARS_097,
    },
    Local {
        name: "local-fresh-qd32",
        title: "without a server: first 4 KiB writes, random, QD32",
        depth: 32,
        flush_every: 0,
        arms: &[TABLE, NO_TABLE, IMAGO, QCOW2_RS],
        bars: BARS_090,
    },
    Local {
        name: "local-flush-each",
        title: "without a server: first 4 KiB write + flush, random",
        depth: 1,
        flush_every: 1,
        arms: &[PLAIN, RAW_JOURNAL, TABLE, NO_TABLE, IMAGO, QCOW2_RS],
        bars: BARS_FLUSH_EACH,
    },
    Local {
        name: "local-flush-32",
        title: "without a server: first 4 KiB writes, random, a flush after every 32",
        depth: 1,
        flush_every: 32,
        arms: &[PLAIN, RAW_JOURNAL, TABLE, NO_TABLE, IMAGO, QCOW2_RS],
        bars: BARS_FLUSH_32,
    },
];

pub(super) fn measure(bench: &Bench<'_>, local: &Local, limits: Limits) -> Result<Table, Failure> {
    let wanted = local.arms.iter().filter(|arm| bench.wants(arm.name));
    let (arms, skipped): (Vec<Arm>, Vec<Arm>) =
        wanted.partition(|arm| missing(bench, arm).is_none());
    let scale = &bench.scale;
    let operations_max = chunk_operations_max(scale.disk_bytes);
    let mut client = Client::new(local.depth)?;
    let mut operations = None;
    let samples = rounds::measure(arms.len(), limits, |turn, round| {
        let arm = match turn {
            Turn::Reference => &RAW,
            Turn::Arm(index) => arms.get(index).unwrap_or(&RAW),
        };
        bench.begin(local.title, arm.name, round)?;
        let mut rate = |operations, seed| {
            let places = places(scale.disk_bytes, operations, seed);
            once(bench, arm, &mut client, local, &places)
        };
        let operations = match operations {
            Some(operations) => operations,
            None => {
                let wanted = (rate(scale.tries, 0)? * scale.burst.as_secs_f64()) as u64;
                *operations.insert(wanted.clamp(scale.tries, operations_max))
            }
        };
        rate(operations, round + 1)
    })?;
    let heading = Heading {
        name: local.name,
        title: local.title,
        reference: RAW.name,
        bars: local.bars,
    };
    let names = arms.iter().map(|arm| ArmOf {
        name: arm.name,
        own_raw: None,
    });
    let mut table = Table::of(heading, samples, &names.collect::<Vec<_>>());
    for arm in skipped {
        table.skip(arm.name, missing(bench, &arm).unwrap_or_default());
    }
    Ok(table)
}

/// Why an arm can not be measured here.
fn missing(bench: &Bench<'_>, arm: &Arm) -> Option<String> {
    let no_crates = arm.front == Front::Crate && bench.args.peers.is_none();
    match no_crates {
        true => Some("--peers does not say where the program of tests/peers is".into()),
        false => arm.missing(),
    }
}

/// Where to write: the same places for the same seed.
fn places(disk_bytes: u64, operations: u64, seed: u32) -> Vec<u64> {
    let mut state = 0x9E37_79B9_7F4A_7C15 ^ (u64::from(seed) << 32);
    let blocks = disk_bytes / BLOCK_BYTES as u64;
    let place = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % blocks * BLOCK_BYTES as u64
    };
    (0..operations).map(place).collect()
}

/// One measurement on a new image. Returns writes per second.
fn once(
    bench: &Bench<'_>,
    arm: &Arm,
    client: &mut Client,
    local: &Local,
    places: &[u64],
) -> Result<f64, Failure> {
    let ground = &bench.ground;
    let image = ground.path("local.image");
    arm.create(ground, &image, bench.scale.disk_bytes, None)?;
    bench.settle(ground)?;
    let flush_every = local.flush_every;
    let seconds = match &bench.args.peers {
        Some(program) if arm.front == Front::Crate => {
            by_crate(program, arm, &image, local, places)?
        }
        _ if *arm == PLAIN => plain(ground, &image, flush_every, places)?,
        _ => on_device(arm, ground, &image, client, flush_every, places)?,
    };
    remove(&image)?;
    Ok(places.len() as f64 / seconds)
}

/// By the arm's device.
fn on_device(
    arm: &Arm,
    ground: &Ground,
    image: &Path,
    client: &mut Client,
    flush_every: u64,
    places: &[u64],
) -> Result<f64, Failure> {
    let cannot = || format!("cannot use an image of {}", arm.name);
    let mut driver = Driver::new();
    let cache = if ground.direct {
        Cache::Direct
    } else {
        Cache::Buffered
    };
    if let Format::Fvd { .. } = arm.format {
        let parts = Parts {
            cache,
            ..Parts::default()
        };
        let mut disk = Image::open(&mut driver, image, Access::ReadWrite, &parts).doing(cannot)?;
        let seconds = client
            .run(&driver, &mut disk, flush_every, places)
            .doing(cannot);
        disk.close(&mut driver).doing(cannot)?;
        return seconds;
    }
    let options = FileOptions {
        cache,
        ..FileOptions::default()
    };
    let mut disk = FileDevice::open(image, &options).doing(cannot)?;
    driver.attach(&mut disk);
    let seconds = if arm.format == Format::RawJournal {
        let mut disk = JournalControl::new(disk).doing(cannot)?;
        client.run(&driver, &mut disk, flush_every, places)
    } else {
        client.run(&driver, &mut disk, flush_every, places)
    };
    seconds.doing(cannot)
}

/// By a crate, which tells the seconds without opening and closing.
fn by_crate(
    program: &Path,
    arm: &Arm,
    image: &Path,
    local: &Local,
    places: &[u64],
) -> Result<f64, Failure> {
    let mut command = Command::new(program);
    command.arg(arm.name).arg(image);
    command.args([local.depth.to_string(), local.flush_every.to_string()]);
    let lines: String = places.iter().map(|place| format!("{place}\n")).collect();
    let printed = tools::run_with(&mut command, lines.as_bytes())?;
    printed
        .trim()
        .parse()
        .doing(|| "cannot understand the program of tests/peers")
}

/// By system calls and nothing else.
fn plain(ground: &Ground, image: &Path, flush_every: u64, places: &[u64]) -> Result<f64, Failure> {
    let cannot = || "cannot write to a file";
    let flags = if ground.direct { libc::O_DIRECT } else { 0 };
    let file = OpenOptions::new()
        .write(true)
        .custom_flags(flags)
        .open(image)
        .doing(cannot)?;
    let buffer = AlignedBuffer::new(BLOCK_BYTES).ok_or_else(no_memory)?;
    let start = Instant::now();
    for (count, at) in (1..).zip(places) {
        file.write_all_at(&buffer, *at).doing(cannot)?;
        if flush_every != 0 && u64::is_multiple_of(count, flush_every) {
            file.sync_data().doing(cannot)?;
        }
    }
    Ok(start.elapsed().as_secs_f64())
}

fn no_memory() -> Failure {
    Failure::Failed("there is no memory".into())
}

/// Keeps a number of writes in flight.
struct Client {
    /// Writes with their data, at home.
    writes: Vec<Op>,
    flush: Option<Op>,
    /// Keep the memory of the data.
    _loans: Vec<Loan<AlignedBuffer>>,
}

impl Client {
    /// Its memory stays for as long as the process.
    fn new(depth: usize) -> Result<Client, Failure> {
        Client::carve(depth).ok_or_else(no_memory)
    }

    fn carve(depth: usize) -> Option<Client> {
        let memory = leak_arena(OpPool::arena_bytes(depth + 1))?;
        let mut arena = Arena::new(memory).ok()?;
        let mut pool = OpPool::carve(&mut arena, u32::try_from(depth + 1).ok()?)?;
        let (mut writes, mut loans) = (Vec::new(), Vec::new());
        for _ in 0..depth {
            let mut op = pool.take(write(0))?;
            let (loan, lease) = Loan::new(AlignedBuffer::new(BLOCK_BYTES)?).ok()?;
            op.push(lease).ok()?;
            writes.push(op);
            loans.push(loan);
        }
        Some(Client {
            writes,
            flush: pool.take(FLUSH),
            _loans: loans,
        })
    }

    /// Writes to all places, with a flush after every so many writes. Returns the seconds it took.
    fn run<D: BlockDevice>(
        &mut self,
        driver: &Driver,
        disk: &mut D,
        flush_every: u64,
        places: &[u64],
    ) -> Result<f64, DeviceError> {
        let depth = self.writes.len();
        let mut left = places.iter();
        let (mut written, mut failed) = (0, None);
        let mut flush_due = false;
        let start = Instant::now();
        driver.run(|now| {
            // A flush waits for all writes before it, and those behind it wait for its end.
            while self.flush.is_some() {
                let idle = self.writes.len() == depth;
                let next = if flush_due {
                    self.flush.take_if(|_| idle)
                } else {
                    self.next_write(&mut left)
                };
                let Some(op) = next else {
                    break;
                };
                let is_flush = op.kind() == OpKind::Flush;
                if let Err(op) = disk.submit(op) {
                    failed = Some(op.status());
                    self.take_home(op);
                    break;
                }
                flush_due = !is_flush && flush_every != 0;
                if !is_flush {
                    written += 1;
                    flush_due &= u64::is_multiple_of(written, flush_every);
                }
            }
            disk.notify();
            while let Some(op) = disk.poll(now) {
                if op.status() != Status::Done {
                    failed = Some(op.status());
                }
                self.take_home(op);
            }
            let idle = self.writes.len() == depth && self.flush.is_some();
            let ended = left.len() == 0 && !flush_due || failed.is_some();
            match (idle, ended) {
                (true, true) => Step::Done(()),
                (true, false) => Step::Wait(When::Now),
                (false, _) => Step::Wait(disk.poll_at()),
            }
        });
        match failed {
            None => Ok(start.elapsed().as_secs_f64()),
            Some(Status::Failed(error)) => Err(error),
            Some(_) => Err(DeviceError::Protocol),
        }
    }

    fn next_write<'p>(&mut self, left: &mut impl Iterator<Item = &'p u64>) -> Option<Op> {
        let mut op = self.writes.pop()?;
        let Some(at) = left.next() else {
            self.writes.push(op);
            return None;
        };
        op.set_head(write(*at));
        Some(op)
    }

    fn take_home(&mut self, mut op: Op) {
        if op.kind() == OpKind::Flush {
            op.set_head(FLUSH);
            self.flush = Some(op);
        } else {
            self.writes.push(op);
        }
    }
}

const FLUSH: Head = Head::new(OpKind::Flush, 0, 0);

const fn write(at: u64) -> Head {
    Head::new(OpKind::Write, at, BLOCK_BYTES as u64)
}
