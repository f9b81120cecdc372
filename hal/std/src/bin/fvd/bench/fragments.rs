//! What a random fill leaves behind: extents of the image, and the rate of reads in order.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::arm::{Arm, EXTENDED, How, NO_TABLE, QCOW2, QED, QEMU_RAW, RAW, TABLE};
use super::fio::{self, Burst, Job, Kind};
use super::nbd::{remove, served};
use super::results::{ArmOf, FragmentRow, FragmentTable, Heading, Table};
use super::rounds::{self, Limits, Turn};
use super::{Bench, scratch, tools};
use crate::failure::{Doing, Failure};

pub(super) const NAME: &str = "fragments";
const TITLE: &str = "reads in order, 1 MiB, QD4, after a random fill";

/// The first is the reference.
const ARMS: [Arm; 7] = [RAW, QEMU_RAW, TABLE, NO_TABLE, QCOW2, EXTENDED, QED];

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

pub(super) fn measure(bench: &Bench<'_>, limits: Limits) -> Result<FragmentTable, Failure> {
    let bytes = bench.scale.fragmented_bytes;
    let (mut rows, mut filled, mut missing) = (Vec::new(), Vec::new(), Vec::new());
    for arm in ARMS {
        if arm != RAW && !bench.wants(arm.name) {
            continue;
        }
        if let Some(why) = arm.missing() {
            missing.push((arm.name, why));
            continue;
        }
        bench.begin("random fill", arm.name, 0)?;
        let image = bench.ground.path(&format!("filled{}.image", filled.len()));
        rows.push(fill(bench, &arm, &image, bytes)?);
        filled.push((arm, image));
    }
    let (reference, arms) = filled
        .split_first()
        .ok_or_else(|| Failure::Failed("no reference".into()))?;
    let samples = rounds::measure(arms.len(), limits, |turn, round| {
        let measured = match turn {
            Turn::Reference => reference,
            Turn::Arm(index) => arms.get(index).unwrap_or(reference),
        };
        bench.begin(TITLE, measured.0.name, round)?;
        read(bench, measured, bytes)
    })?;
    let heading = Heading {
        name: NAME,
        title: TITLE,
        reference: RAW.name,
        bars: &[],
    };
    let names = arms.iter().map(|(arm, _)| ArmOf {
        name: arm.name,
        own_raw: None,
    });
    let mut reads = Table::of(heading, samples, &names.collect::<Vec<_>>());
    for (name, why) in missing {
        reads.skip(name, why);
    }
    for (_, image) in &filled {
        remove(image)?;
    }
    Ok(FragmentTable {
        written_bytes: bytes,
        reads,
        rows,
    })
}

fn fill(bench: &Bench<'_>, arm: &Arm, image: &Path, bytes: u64) -> Result<FragmentRow, Failure> {
    arm.create(&bench.ground, image, bytes, None)?;
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

fn read(bench: &Bench<'_>, (arm, image): &(Arm, PathBuf), bytes: u64) -> Result<f64, Failure> {
    let burst = Burst {
        area_bytes: bytes,
        operations: bytes / u64::from(READ.block_bytes),
        time_max: Duration::from_secs(60),
        seed: 1,
    };
    served(arm, &bench.ground, image, &How::default(), |server| {
        fio::run(&server.uri(), READ, &burst)
    })
}

/// As `filefrag` counts them: `image: 12 extents found`.
fn extents(image: &Path) -> Option<u64> {
    let printed = tools::run(Command::new("filefrag").arg(image)).ok()?;
    let (_, count) = printed.rsplit_once(": ")?;
    count.split_whitespace().next()?.parse().ok()
}
