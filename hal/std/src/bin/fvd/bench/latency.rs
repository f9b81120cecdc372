//! How long reads take while something else goes on: first writes and flushes elsewhere on the disk, with
//! so small a journal that it is emptied by a checkpoint all the time.

use super::Bench;
use super::arm::{Arm, How, NO_TABLE, QCOW2, RAW, Shape, TABLE};
use super::course::Measure;
use super::fio::{self, Job, Kind, Watch};
use super::nbd::{fill, served};
use super::plan::{Plan, What};
use crate::failure::Failure;

/// So large that all measurements together write to a small part of it.
const DISK_BYTES: u64 = 1 << 40;

/// The start of it, which is written before and read.
const READ_BYTES: u64 = 64 << 20;

const JOURNAL_BYTES: u64 = 64 << 10;

/// The other work: one write, one flush, and so on.
const WRITES: Job = Job {
    kind: Kind::RandomWrite,
    block_bytes: 4096,
    depth: 1,
    flush_every: 1,
};

/// What a measurement yields: ends of the names and titles of its tables.
pub(super) const VALUES: [(&str, &str); 2] = [("-p50", ": median"), ("-p99", ": 99th percentile")];

/// An arm that has nothing else to do, and the same under load.
static IDLE: [(Arm, Arm); 4] = [
    (idle("raw idle", RAW), RAW),
    (idle("fvd idle", TABLE), TABLE),
    (idle("fvd --table off idle", NO_TABLE), NO_TABLE),
    (idle("qcow2 idle", QCOW2), QCOW2),
];

pub(super) const PLAN: Plan = Plan {
    name: "latency",
    title: "reads of 4 KiB while first writes are flushed, QD1; 1 / latency",
    what: What::Latency,
    reference: RAW,
    arms: &[
        IDLE[0].0, TABLE, IDLE[1].0, NO_TABLE, IDLE[2].0, QCOW2, IDLE[3].0,
    ],
    bars: &[],
};

const fn idle(name: &'static str, arm: Arm) -> Arm {
    Arm { name, ..arm }
}

/// The arm that does the same under load, if `arm` is idle.
pub(super) fn under_load(arm: &Arm) -> Option<&'static Arm> {
    let pair = IDLE.iter().find(|(idle, _)| idle == arm);
    pair.map(|(_, loaded)| loaded)
}

/// Nothing: the images are kept by the bench.
pub(super) struct Session;

impl Measure for Session {
    /// One over the latency, for each of [`VALUES`].
    fn measure(&mut self, bench: &Bench<'_>, arm: &Arm, round: u32) -> Result<Vec<f64>, Failure> {
        let ground = &bench.ground;
        let loaded = under_load(arm);
        let area_bytes = READ_BYTES.min(bench.scale.written_bytes);
        let name = format!("latency_{}.image", loaded.unwrap_or(arm).file_name());
        let image = bench.keep(ground.path(&name), |image| {
            let shape = Shape {
                bytes: DISK_BYTES,
                journal_bytes: Some(JOURNAL_BYTES),
                ..Shape::default()
            };
            arm.create(ground, image, &shape)?;
            fill(arm, ground, image, area_bytes)
        })?;
        bench.settle(ground)?;
        let watch = Watch {
            area_bytes,
            writes: loaded.is_none().then_some((WRITES, DISK_BYTES)),
            // Of some thousand reads, one in a hundred is enough to tell.
            time: 2 * bench.scale.burst,
            seed: round + 1,
        };
        let nanoseconds = served(arm, ground, &image, &How::default(), |server| {
            fio::watch(&server.uri(), &watch)
        })?;
        Ok(nanoseconds.map(|nanoseconds| 1e9 / nanoseconds).to_vec())
    }
}
