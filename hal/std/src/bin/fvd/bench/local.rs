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

use super::args::BenchArgs;
use super::arm::{
    Arm, Format, Front, Ground, IMAGO, NO_TABLE, QCOW2_RS, RAW, RAW_JOURNAL, Shape, TABLE,
};
use super::control::JournalControl;
use super::course::Measure;
use super::nbd::{chunk_operations_max, remove};
use super::noise::Noise;
use super::plan::{BARS_090, BARS_097, BARS_FLUSH_32, BARS_FLUSH_EACH, Plan, What};
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
#[derive(Clone, Copy)]
pub(super) struct Load {
    depth: usize,
    /// A flush after so many writes; 0 = none.
    flush_every: u64,
}

pub(super) const PLANS: [Plan; 4] = [
    Plan {
        name: "local-fresh-qd1",
        title: "without a server: first 4 KiB writes, random, QD1",
        what: load(1, 0),
        reference: RAW,
        arms: &[PLAIN, TABLE, NO_TABLE, IMAGO, QCOW2_RS],
        bars: BARS_097,
    },
    Plan {
        name: "local-fresh-qd32",
        title: "without a server: first 4 KiB writes, random, QD32",
        what: load(32, 0),
        reference: RAW,
        arms: &[TABLE, NO_TABLE, IMAGO, QCOW2_RS],
        bars: BARS_090,
    },
    Plan {
        name: "local-flush-each",
        title: "without a server: first 4 KiB write + flush, random",
        what: load(1, 1),
        reference: RAW,
        arms: FLUSHED,
        bars: BARS_FLUSH_EACH,
    },
    Plan {
        name: "local-flush-32",
        title: "without a server: first 4 KiB writes, random, a flush after every 32",
        what: load(1, 32),
        reference: RAW,
        arms: FLUSHED,
        bars: BARS_FLUSH_32,
    },
];

const FLUSHED: &[Arm] = &[PLAIN, RAW_JOURNAL, TABLE, NO_TABLE, IMAGO, QCOW2_RS];

const fn load(depth: usize, flush_every: u64) -> What {
    What::Local(Load { depth, flush_every })
}

/// What one table keeps.
pub(super) struct Session {
    load: Load,
    client: Client,
    /// Writes of a measurement.
    operations: Option<u64>,
}

impl Session {
    pub(super) fn new(load: Load) -> Result<Session, Failure> {
        Ok(Session {
            load,
            client: Client::new(load.depth)?,
            operations: None,
        })
    }
}

impl Measure for Session {
    /// Writes per second.
    fn measure(&mut self, bench: &Bench<'_>, arm: &Arm, round: u32) -> Result<Vec<f64>, Failure> {
        let scale = &bench.scale;
        let mut rate = |operations, seed| {
            let places = places(scale.disk_bytes, operations, seed);
            once(bench, arm, &mut self.client, self.load, &places)
        };
        let operations = match self.operations {
            Some(operations) => operations,
            None => {
                let wanted = (rate(scale.tries, 0)? * scale.burst.as_secs_f64()) as u64;
                let most = chunk_operations_max(scale.disk_bytes);
                *self.operations.insert(wanted.clamp(scale.tries, most))
            }
        };
        Ok(vec![rate(operations, round + 1)?])
    }
}

/// Why an arm can not be measured here, beside what its server needs.
pub(super) fn missing(args: &BenchArgs, arm: &Arm) -> Option<String> {
    let no_crates = arm.front == Front::Crate && args.peers.is_none();
    no_crates.then(|| "--peers does not say where the program of tests/peers is".into())
}

/// Where to write: the same places for the same seed.
pub(super) fn places(disk_bytes: u64, operations: u64, seed: u32) -> Vec<u64> {
    let mut noise = Noise::new(seed);
    let blocks = disk_bytes / BLOCK_BYTES as u64;
    let place = |_| noise.next() % blocks * BLOCK_BYTES as u64;
    (0..operations).map(place).collect()
}

/// One measurement on a new image. Returns writes per second.
fn once(
    bench: &Bench<'_>,
    arm: &Arm,
    client: &mut Client,
    load: Load,
    places: &[u64],
) -> Result<f64, Failure> {
    let ground = &bench.ground;
    let image = ground.path("local.image");
    let shape = Shape {
        bytes: bench.scale.disk_bytes,
        ..Shape::default()
    };
    arm.create(ground, &image, &shape)?;
    bench.settle(ground)?;
    let flush_every = load.flush_every;
    let seconds = match &bench.args.peers {
        Some(program) if arm.front == Front::Crate => by_crate(program, arm, &image, load, places)?,
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
    load: Load,
    places: &[u64],
) -> Result<f64, Failure> {
    let mut command = Command::new(program);
    command.arg(arm.name).arg(image);
    command.args([load.depth.to_string(), load.flush_every.to_string()]);
    let printed = tools::run_with(&mut command, lines(places).as_bytes())?;
    printed
        .trim()
        .parse()
        .doing(|| "cannot understand the program of tests/peers")
}

/// Places as the program of tests/peers reads them.
pub(super) fn lines(places: &[u64]) -> String {
    places.iter().map(|place| format!("{place}\n")).collect()
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
