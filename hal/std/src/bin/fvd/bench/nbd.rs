//! Tables through NBD: one server, one client, the same bytes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::arm::{Arm, Ground, How, Shape};
use super::client::Client;
use super::course::Measure;
use super::fio::{self, Burst, Job, Kind};
use super::plan::Disk;
use super::server::Server;
use super::{Bench, Scale};
use crate::failure::{Doing, Failure};

/// Operations of a measurement, at least: fewer say nothing.
const OPERATIONS_MIN: u64 = 64;

/// Writes at random after which a disk is not fresh any more: to a quarter of the chunks of an image of
/// ours, whose chunks are larger than anybody else's.
pub(super) fn chunk_operations_max(disk_bytes: u64) -> u64 {
    ((disk_bytes >> 20) / 4).max(OPERATIONS_MIN)
}

/// What one table keeps.
pub(super) struct Session {
    disk: Disk,
    client: Client,
    /// Operations of a measurement: so many that the reference takes the time of a burst.
    operations: Option<u64>,
}

impl Session {
    pub(super) fn new(disk: Disk, client: Client) -> Session {
        Session {
            disk,
            client,
            operations: (!client.counts()).then_some(1),
        }
    }

    fn ground<'b>(&self, bench: &'b Bench<'_>) -> &'b Ground {
        match self.disk {
            Disk::Memory => &bench.memory,
            _ => &bench.ground,
        }
    }

    /// Bytes of the disk, and those at its start that the client uses.
    fn sizes(&self, scale: &Scale) -> (u64, u64) {
        match self.disk {
            Disk::Fresh => (scale.disk_bytes, scale.disk_bytes),
            Disk::FreshOverlay | Disk::Overlay => (scale.base_bytes, scale.base_bytes),
            Disk::Written | Disk::Memory => (scale.written_bytes, scale.written_bytes),
        }
    }

    /// A fresh disk must stay fresh: only a part of it may be written before the end.
    fn operations_max(&self, scale: &Scale) -> u64 {
        let (_, area) = self.sizes(scale);
        match self.disk {
            Disk::Fresh if self.client.scatters() => return chunk_operations_max(area),
            // A quarter of its blocks.
            Disk::FreshOverlay => (area >> 16) / 4,
            Disk::Fresh => area / u64::from(self.client.block_bytes()),
            _ => u64::MAX,
        }
        .max(OPERATIONS_MIN)
    }

    /// One measurement.
    fn once(
        &self,
        bench: &Bench<'_>,
        arm: &Arm,
        operations: u64,
        seed: u32,
    ) -> Result<f64, Failure> {
        let base = match self.disk {
            Disk::FreshOverlay | Disk::Overlay => Some(bench.base()?),
            _ => None,
        };
        let source = match self.client {
            Client::CopyIn => Some(bench.source()?),
            _ => None,
        };
        let ground = self.ground(bench);
        let image = self.image(bench, arm, base.as_deref())?;
        let how = How {
            base: base.as_deref(),
            threads: false,
        };
        bench.settle(ground)?;
        let burst = Burst {
            area_bytes: self.sizes(&bench.scale).1,
            operations,
            // Who is that much slower is not waited for.
            time_max: 2 * bench.scale.burst,
            seed,
        };
        let rate = served(arm, ground, &image, &how, |server| {
            self.client.run(&server.uri(), &burst, source.as_deref())
        })?;
        if matches!(self.disk, Disk::Fresh | Disk::FreshOverlay) {
            remove(&image)?;
        }
        Ok(rate)
    }

    /// The image to measure.
    fn image(&self, bench: &Bench<'_>, arm: &Arm, base: Option<&Path>) -> Result<PathBuf, Failure> {
        if let (Disk::Overlay, true, Some(base)) = (self.disk, arm.is_raw(), base) {
            // The same bytes in the same places of the same disk.
            return Ok(base.to_path_buf());
        }
        let ground = self.ground(bench);
        let (bytes, area) = self.sizes(&bench.scale);
        let shape = Shape {
            bytes,
            // A base is written to only through the overlay above it.
            base: base.filter(|_| !arm.is_raw()),
            ..Shape::default()
        };
        let named = |kind: &str| ground.path(&format!("{kind}_{}.image", arm.file_name()));
        match self.disk {
            Disk::Fresh | Disk::FreshOverlay => {
                let image = named("fresh");
                arm.create(ground, &image, &shape)?;
                Ok(image)
            }
            Disk::Overlay => {
                bench.keep(named("overlay"), |image| arm.create(ground, image, &shape))
            }
            Disk::Written | Disk::Memory => bench.keep(named("written"), |image| {
                arm.create(ground, image, &shape)?;
                fill(arm, ground, image, area)
            }),
        }
    }
}

impl Measure for Session {
    /// Operations per second.
    fn measure(&mut self, bench: &Bench<'_>, arm: &Arm, round: u32) -> Result<Vec<f64>, Failure> {
        let operations = match self.operations {
            Some(operations) => operations,
            None => {
                let rate = self.once(bench, arm, bench.scale.tries, 0)?;
                let wanted = (rate * bench.scale.burst.as_secs_f64()) as u64;
                let most = self.operations_max(&bench.scale);
                *self.operations.insert(wanted.clamp(OPERATIONS_MIN, most))
            }
        };
        Ok(vec![self.once(bench, arm, operations, round + 1)?])
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
