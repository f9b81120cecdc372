//! What a random fill leaves behind: extents of the image, and the rate of reads in order.

use std::fs;
use std::mem;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::arm::{Arm, EXTENDED, How, NO_TABLE, QCOW2, QED, QEMU_RAW, RAW, Shape, TABLE};
use super::course::Measure;
use super::fio::{self, Burst, Job, Kind};
use super::nbd::served;
use super::plan::{Plan, What};
use super::results::{FragmentRow, FragmentTable, Report, Table};
use super::{Bench, scratch, tools};
use crate::failure::{Doing, Failure};

pub(super) const PLAN: Plan = Plan {
    name: "fragments",
    title: "reads in order, 1 MiB, QD4, after a random fill",
    what: What::Fragments,
    reference: RAW,
    arms: &[QEMU_RAW, TABLE, NO_TABLE, QCOW2, EXTENDED, QED],
    bars: &[],
};

const FILL: Job = Job {
    kind: Kind::RandomWrite,
    block_bytes: 4096,
    depth: 32,
    flush_every: 0,
};
const READ: Job = Job {
    kind: Kind::Read,
    block_bytes: 1 << 20,
    depth: 4,
    flush_every: 0,
};

/// What the fill left behind.
#[derive(Default)]
pub(super) struct Session {
    written_bytes: u64,
    rows: Vec<FragmentRow>,
}

impl Measure for Session {
    /// Reads per second.
    fn measure(&mut self, bench: &Bench<'_>, arm: &Arm, _: u32) -> Result<Vec<f64>, Failure> {
        let ground = &bench.ground;
        let bytes = bench.scale.fragmented_bytes;
        self.written_bytes = bytes;
        let name = format!("filled_{}.image", arm.file_name());
        let image = bench.keep(ground.path(&name), |image| {
            self.rows.push(fill(bench, arm, image, bytes)?);
            Ok(())
        })?;
        bench.settle(ground)?;
        let burst = Burst {
            area_bytes: bytes,
            operations: bytes / u64::from(READ.block_bytes),
            time_max: Duration::from_secs(60),
            seed: 1,
        };
        let rate = served(arm, ground, &image, &How::default(), |server| {
            fio::run(&server.uri(), READ, &burst)
        });
        Ok(vec![rate?])
    }

    fn tell(&mut self, tables: Vec<Table>, report: &mut Report) {
        let rows = mem::take(&mut self.rows);
        report.fragments = tables.into_iter().next().map(|reads| FragmentTable {
            written_bytes: self.written_bytes,
            reads,
            rows,
        });
    }
}

fn fill(bench: &Bench<'_>, arm: &Arm, image: &Path, bytes: u64) -> Result<FragmentRow, Failure> {
    let shape = Shape {
        bytes,
        ..Shape::default()
    };
    arm.create(&bench.ground, image, &shape)?;
    let burst = Burst {
        area_bytes: bytes,
        operations: bytes / u64::from(FILL.block_bytes),
        time_max: Duration::from_secs(600),
        seed: 1,
    };
    served(arm, &bench.ground, image, &How::default(), |server| {
        fio::run(&server.uri(), FILL, &burst)
    })?;
    scratch::settle(&bench.ground.folder)?;
    let found = fs::metadata(image).doing(|| "cannot look at an image")?;
    Ok(FragmentRow {
        arm: arm.name.into(),
        extents: extents(image),
        allocated_bytes: found.blocks() * 512,
    })
}

/// As `filefrag` counts them: `image: 12 extents found`.
fn extents(image: &Path) -> Option<u64> {
    let printed = tools::run(Command::new("filefrag").arg(image)).ok()?;
    let (_, count) = printed.rsplit_once(": ")?;
    count.split_whitespace().next()?.parse().ok()
}
