//! Creation of small files in a file system on an image, as the paper of 2011 measured it.
//!
//! ```text
//! PostMark ─► ext4 ─► loop device ─► file of qemu-storage-daemon (FUSE) ─► NBD ─► server ─► image
//! ```
//!
//! Everything but the server and the image is the same for all arms.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use super::arm::{Arm, EXTENDED, Ground, How, NO_TABLE, QCOW2, QED, QEMU_RAW, RAW, TABLE};
use super::results::{ArmOf, Heading, Table};
use super::rounds::{self, Limits, Turn};
use super::server::Server;
use super::workload::Bar;
use super::{Bench, scratch, tools, workload};
use crate::failure::{Doing, Failure};

/// Where the image is.
pub(super) struct Files {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    /// On a block device instead of in a file.
    on_device: bool,
}

pub(super) const ALL: [Files; 2] = [
    Files {
        name: "files",
        title: "small files in ext4 (PostMark), image in a file",
        on_device: false,
    },
    Files {
        name: "files-device",
        title: "small files in ext4 (PostMark), image on a block device",
        on_device: true,
    },
];

pub(super) const ARMS: &[Arm] = &[QEMU_RAW, TABLE, NO_TABLE, QCOW2, EXTENDED, QED];
const BARS: &[Bar] = workload::BARS_097;

/// Programs on the way, beside the servers.
const PROGRAMS: [&str; 6] = [
    "postmark",
    "qemu-storage-daemon",
    "losetup",
    "mke2fs",
    "mount",
    "umount",
];

/// Why this can not be measured here.
pub(super) fn missing() -> Option<String> {
    tools::missing(&PROGRAMS).or_else(|| {
        let root = rustix::process::geteuid().is_root();
        let fuse = Path::new("/dev/fuse").exists() && Path::new("/dev/loop-control").exists();
        match (root, fuse) {
            (true, true) => None,
            (false, _) => Some("only root can mount a file system".into()),
            (_, false) => Some("there is no /dev/fuse or no /dev/loop-control".into()),
        }
    })
}

pub(super) fn measure(bench: &Bench<'_>, files: &Files, limits: Limits) -> Result<Table, Failure> {
    let heading = Heading {
        name: files.name,
        title: files.title,
        reference: RAW.name,
        bars: BARS,
    };
    let wanted = || ARMS.iter().filter(|arm| bench.wants(arm.name));
    if let Some(why) = missing() {
        let mut table = Table::of(heading, rounds::Samples::default(), &[]);
        for arm in wanted() {
            table.skip(arm.name, why.clone());
        }
        return Ok(table);
    }
    let (skipped, arms): (Vec<Arm>, Vec<Arm>) =
        wanted().partition(|arm| files.on_device && **arm == QED);
    let samples = rounds::measure(arms.len(), limits, |turn, round| {
        let arm = match turn {
            Turn::Reference => &RAW,
            Turn::Arm(index) => arms.get(index).unwrap_or(&RAW),
        };
        bench.begin(files.title, arm.name, round)?;
        if files.on_device {
            on_device(bench, arm, round)
        } else {
            in_file(bench, arm, round)
        }
    })?;
    let names = arms.iter().map(|arm| ArmOf {
        name: arm.name,
        own_raw: None,
    });
    let mut table = Table::of(heading, samples, &names.collect::<Vec<_>>());
    for arm in skipped {
        table.skip(
            arm.name,
            "an image of it has to grow, a device can not".into(),
        );
    }
    Ok(table)
}

fn in_file(bench: &Bench<'_>, arm: &Arm, round: u32) -> Result<f64, Failure> {
    let image = bench.ground.path("files.image");
    let rate = on_image(bench, arm, &image, round);
    // It may not have come so far.
    let _ = fs::remove_file(&image);
    rate
}

/// The device is a file, too, with room for all that any format adds.
fn on_device(bench: &Bench<'_>, arm: &Arm, round: u32) -> Result<f64, Failure> {
    let path = bench.ground.path("device");
    let bytes = 2 * bench.scale.files_disk_bytes;
    let file = File::create(&path).and_then(|file| file.set_len(bytes));
    file.doing(|| "cannot make a file")?;
    let device = Loop::attach(&path, bench.ground.direct)?;
    let rate = on_image(bench, arm, &device.0, round);
    drop(device);
    // It goes with the folder at the latest.
    let _ = fs::remove_file(&path);
    rate
}

/// Makes an image with a file system, works on it, and returns its speed: runs per second.
fn on_image(bench: &Bench<'_>, arm: &Arm, image: &Path, round: u32) -> Result<f64, Failure> {
    let ground = &bench.ground;
    let bytes = bench.scale.files_disk_bytes;
    arm.create(ground, image, bytes, None)?;
    bench.settle(ground)?;
    let socket = ground.path("socket");
    let mut command = arm.server(ground, image, &socket, &How::default());
    let server = Server::start(&mut command, &socket)?;
    // In this order they end: each thing before what it stands on.
    let (seconds, storage) = {
        let (storage, disk) = export(ground, &socket, bytes)?;
        let device = Loop::attach(&disk, false)?;
        let mut format = Command::new("mke2fs");
        format.args(["-q", "-t", "ext4"]).arg(&device.0);
        // Raw on a block device is as large as that.
        tools::run(format.arg(format!("{}k", bytes >> 10)))?;
        let mount = Mount::new(&device.0, ground.path("mounted"))?;
        let seconds = postmark(&mount.0, bench.scale.files, round)?;
        drop(mount);
        drop(device);
        (seconds, storage)
    };
    storage.stop()?;
    server.stop()?;
    Ok(1.0 / seconds)
}

/// Offers the disk behind a socket as a file.
fn export(ground: &Ground, socket: &Path, bytes: u64) -> Result<(Server, PathBuf), Failure> {
    let disk = ground.path("disk");
    File::create(&disk).doing(|| "cannot make a file")?;
    let mut command = Command::new("qemu-storage-daemon");
    command.arg("--blockdev").arg(format!(
        "driver=nbd,node-name=disk,server.type=unix,server.path={}",
        socket.display()
    ));
    command.arg("--export").arg(format!(
        "type=fuse,id=export,node-name=disk,mountpoint={},writable=on",
        disk.display()
    ));
    let is_there = || fs::metadata(&disk).is_ok_and(|disk| disk.len() >= bytes);
    Ok((Server::start_until(&mut command, is_there)?, disk))
}

/// Creates, reads, appends to and deletes small files. Returns the seconds until all is on the disk.
fn postmark(folder: &Path, files: u32, round: u32) -> Result<f64, Failure> {
    let orders = format!(
        "set location {}\nset number {files}\nset transactions {files}\nset size 500 10000\n\
         set seed {}\nset report terse\nrun\nquit\n",
        folder.display(),
        round + 1,
    );
    let start = Instant::now();
    tools::run_with(&mut Command::new("postmark"), orders.as_bytes())?;
    scratch::settle(folder)?;
    Ok(start.elapsed().as_secs_f64())
}

/// A loop device over a file, until it is dropped.
struct Loop(PathBuf);

impl Loop {
    fn attach(file: &Path, direct: bool) -> Result<Loop, Failure> {
        let mut command = Command::new("losetup");
        let direct = if direct { "on" } else { "off" };
        command.args(["--find", "--show", &format!("--direct-io={direct}")]);
        command.arg(file);
        let name = tools::run(&mut command)?;
        Ok(Loop(name.trim().into()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        // Nothing can be done if it stays.
        let _ = tools::run(Command::new("losetup").arg("--detach").arg(&self.0));
    }
}

/// A mounted file system, until it is dropped.
struct Mount(PathBuf);

impl Mount {
    fn new(device: &Path, folder: PathBuf) -> Result<Mount, Failure> {
        fs::create_dir_all(&folder).doing(|| "cannot make a folder")?;
        tools::run(Command::new("mount").arg(device).arg(&folder))?;
        Ok(Mount(folder))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Nothing can be done if it stays.
        let _ = tools::run(Command::new("umount").arg(&self.0));
    }
}
