//! Tables through NBD: one server, one client, the same bytes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::Bench;
use super::arm::{Arm, Format, Front, Ground, How, QEMU_RAW};
use super::fio::{self, Burst, Job, Kind};
use super::results::{ArmOf, Heading, Table};
use super::rounds::{self, Limits, Turn};
use super::server::Server;
use super::workload::{Disk, Workload};
use crate::failure::{Doing, Failure};

/// Operations of a measurement, at least: fewer say nothing.
const OPERATIONS_MIN: u64 = 64;

/// Writes at random after which a disk is not fresh any more: to a quarter of the chunks of an image of
/// ours, whose chunks are larger than anybody else's.
pub(super) fn chunk_operations_max(disk_bytes: u64) -> u64 {
    ((disk_bytes >> 20) / 4).max(OPERATIONS_MIN)
}

/// Measures one table.
pub(super) fn measure(
    bench: &Bench<'_>,
    workload: &Workload,
    limits: Limits,
) -> Result<Table, Failure> {
    let (arms, missing): (Vec<Arm>, Vec<Arm>) = workload
        .arms
        .iter()
        .filter(|arm| bench.wants(arm.name))
        .partition(|arm| arm.missing().is_none());
    let mut session = Session::new(bench, workload)?;
    let samples = rounds::measure(arms.len(), limits, |turn, round| {
        let arm = match turn {
            Turn::Reference => &workload.reference,
            Turn::Arm(index) => arms.get(index).unwrap_or(&workload.reference),
        };
        bench.begin(workload.title, arm.name, round)?;
        session.rate(arm, round)
    })?;
    let arm_of = |arm: &Arm| {
        let is_format = !matches!(arm.format, Format::Raw);
        ArmOf {
            name: arm.name,
            own_raw: (arm.front == Front::Qemu && is_format).then_some(QEMU_RAW.name),
        }
    };
    let heading = Heading {
        name: workload.name,
        title: workload.title,
        reference: workload.reference.name,
        bars: workload.bars,
    };
    let mut table = Table::of(
        heading,
        samples,
        &arms.iter().map(arm_of).collect::<Vec<_>>(),
    );
    for arm in missing {
        table.skip(arm.name, arm.missing().unwrap_or_default());
    }
    Ok(table)
}

/// What one table needs again and again.
struct Session<'a> {
    bench: &'a Bench<'a>,
    workload: &'a Workload,
    ground: &'a Ground,
    base: Option<PathBuf>,
    /// Operations of a measurement: so many that the reference takes the time of a burst.
    operations: Option<u64>,
    /// Disks that are kept from round to round.
    kept: Vec<PathBuf>,
}

impl<'a> Session<'a> {
    fn new(bench: &'a Bench<'a>, workload: &'a Workload) -> Result<Session<'a>, Failure> {
        let overlay = matches!(workload.disk, Disk::Overlay | Disk::FreshOverlay);
        let ground = match workload.disk {
            Disk::Memory => &bench.memory,
            _ => &bench.ground,
        };
        Ok(Session {
            bench,
            workload,
            ground,
            base: overlay.then(|| bench.base()).transpose()?,
            operations: None,
            kept: Vec::new(),
        })
    }

    /// Bytes of the disk, and those at its start that the client uses.
    fn sizes(&self) -> (u64, u64) {
        let scale = &self.bench.scale;
        match self.workload.disk {
            Disk::Fresh => (scale.disk_bytes, scale.disk_bytes),
            Disk::FreshOverlay | Disk::Overlay => (scale.base_bytes, scale.base_bytes),
            Disk::Written | Disk::Memory => (scale.written_bytes, scale.written_bytes),
        }
    }

    /// Operations per second of `arm`.
    fn rate(&mut self, arm: &Arm, round: u32) -> Result<f64, Failure> {
        let operations = match self.operations {
            Some(operations) => operations,
            None => {
                let rate = self.once(arm, self.bench.scale.tries, 0)?;
                let wanted = (rate * self.bench.scale.burst.as_secs_f64()) as u64;
                *self
                    .operations
                    .insert(wanted.clamp(OPERATIONS_MIN, self.operations_max()))
            }
        };
        self.once(arm, operations, round + 1)
    }

    /// A fresh disk must stay fresh: only a part of it may be written before the end.
    fn operations_max(&self) -> u64 {
        let (_, area) = self.sizes();
        let random = matches!(self.workload.job.kind, Kind::RandomWrite);
        match self.workload.disk {
            Disk::Fresh if random => return chunk_operations_max(area),
            // A quarter of its blocks.
            Disk::FreshOverlay if random => (area >> 16) / 4,
            Disk::Fresh => area / u64::from(self.workload.job.block_bytes),
            _ => u64::MAX,
        }
        .max(OPERATIONS_MIN)
    }

    /// One measurement.
    fn once(&mut self, arm: &Arm, operations: u64, seed: u32) -> Result<f64, Failure> {
        let image = self.image(arm)?;
        let base = self.base.clone();
        let how = How {
            base: base.as_deref(),
            threads: false,
        };
        self.bench.settle(self.ground)?;
        let burst = Burst {
            area_bytes: self.sizes().1,
            operations,
            time_max: 4 * self.bench.scale.burst,
            seed,
        };
        let job = self.workload.job;
        let rate = served(arm, self.ground, &image, &how, |server| {
            fio::run(&server.uri(), job, &burst)
        })?;
        if matches!(self.workload.disk, Disk::Fresh | Disk::FreshOverlay) {
            remove(&image)?;
        }
        Ok(rate)
    }

    /// The image to measure.
    fn image(&mut self, arm: &Arm) -> Result<PathBuf, Failure> {
        let raw = matches!(arm.format, Format::Raw | Format::RawJournal);
        if let (Disk::Overlay, true, Some(base)) = (self.workload.disk, raw, &self.base) {
            // The same bytes in the same places of the same disk.
            return Ok(base.clone());
        }
        let name = format!("{}.image", arm.name.replace([' ', '-'], "_"));
        let image = self.ground.path(&name);
        if self.kept.contains(&image) {
            return Ok(image);
        }
        let (size, area) = self.sizes();
        // A base is written to only through the overlay above it.
        let base = self.base.as_deref().filter(|_| !raw);
        arm.create(self.ground, &image, size, base)?;
        match self.workload.disk {
            Disk::Fresh | Disk::FreshOverlay => return Ok(image),
            Disk::Overlay => {}
            Disk::Written | Disk::Memory => fill(arm, self.ground, &image, area)?,
        }
        self.kept.push(image.clone());
        Ok(image)
    }
}

impl Drop for Session<'_> {
    fn drop(&mut self) {
        for image in &self.kept {
            // The whole folder goes at the end anyway.
            let _ = fs::remove_file(image);
        }
    }
}

/// Serves an image while `work` runs.
pub(super) fn served<T>(
    arm: &Arm,
    ground: &Ground,
    image: &Path,
    how: &How<'_>,
    work: impl FnOnce(&Server) -> Result<T, Failure>,
) -> Result<T, Failure> {
    let socket = ground.path("socket");
    let server = Server::start(&mut arm.server(ground, image, &socket, how), &socket)?;
    let result = work(&server)?;
    server.stop()?;
    Ok(result)
}

/// Writes the start of a disk, in order.
pub(super) fn fill(arm: &Arm, ground: &Ground, image: &Path, bytes: u64) -> Result<(), Failure> {
    const PIECE: u32 = 1 << 20;
    let job = Job {
        kind: Kind::Write,
        block_bytes: PIECE,
        depth: 4,
        flush_every: 0,
    };
    let burst = Burst {
        area_bytes: bytes,
        operations: bytes / u64::from(PIECE),
        time_max: Duration::from_secs(600),
        seed: 1,
    };
    served(arm, ground, image, &How::default(), |server| {
        fio::run(&server.uri(), job, &burst).map(drop)
    })
}

pub(super) fn remove(path: &Path) -> Result<(), Failure> {
    fs::remove_file(path).doing(|| format!("cannot remove {}", path.display()))
}
