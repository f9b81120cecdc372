//! Small files in a file system on an image, as the paper of 2011 measured them.
//!
//! ```text
//! PostMark ─► ext4 ─► loop device ─► file of qemu-storage-daemon (FUSE) ─► NBD ─► server ─► image
//! ```
//!
//! Everything but the server and the image is the same for all arms. PostMark knows no `fsync`; where
//! each file is to be durable before the next, this process creates them.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use super::arm::{Arm, EXTENDED, Ground, How, NO_TABLE, QCOW2, QED, QEMU_RAW, RAW, Shape, TABLE};
use super::course::Measure;
use super::noise::Noise;
use super::plan::{BARS_095, BARS_097, Bar, Plan, What};
use super::server::Server;
use super::{Bench, scratch, tools};
use crate::failure::{Doing, Failure};

/// What is done to which files.
#[derive(Clone, Copy, Debug)]
pub(super) struct Load {
    place: Place,
    work: Work,
}

/// Where the image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Place {
    File,
    /// On a block device instead of in a file.
    Device,
    /// In a file, above a base that has the file system and files of before.
    Overlay,
}

#[derive(Clone, Copy, Debug)]
enum Work {
    /// PostMark: creates, reads, appends, deletes; timed until all is on the disk.
    PostMark,
    /// Creates, with an `fsync` of each file.
    Fsync,
}

const ARMS: &[Arm] = &[QEMU_RAW, TABLE, NO_TABLE, QCOW2, EXTENDED, QED];

/// Sizes of files, in bytes.
const FILE_BYTES: (u64, u64) = (500, 10_000);

pub(super) const PLANS: [Plan; 5] = [
    plan(
        "files",
        "small files in ext4 (PostMark), image in a file",
        (Place::File, Work::PostMark),
        BARS_097,
    ),
    plan(
        "files-device",
        "small files in ext4 (PostMark), image on a block device",
        (Place::Device, Work::PostMark),
        BARS_097,
    ),
    plan(
        "files-overlay",
        "small files in ext4 (PostMark), overlay on a base with the file system",
        (Place::Overlay, Work::PostMark),
        BARS_095,
    ),
    plan(
        "files-fsync",
        "small files in ext4, each created with an fsync",
        (Place::File, Work::Fsync),
        BARS_097,
    ),
    plan(
        "files-fsync-overlay",
        "small files in ext4, each created with an fsync, overlay on a base with the file system",
        (Place::Overlay, Work::Fsync),
        BARS_095,
    ),
];

const fn plan(
    name: &'static str,
    title: &'static str,
    (place, work): (Place, Work),
    bars: &'static [Bar],
) -> Plan {
    Plan {
        name,
        title,
        what: What::Files(Load { place, work }),
        reference: RAW,
        arms: ARMS,
        bars,
    }
}

/// Programs on the way, beside the servers.
const PROGRAMS: [&str; 5] = [
    "qemu-storage-daemon",
    "losetup",
    "mke2fs",
    "mount",
    "umount",
];

impl Load {
    /// Why an arm can not be measured here, beside what its server needs.
    pub(super) fn missing(self, arm: &Arm) -> Option<String> {
        let root = rustix::process::geteuid().is_root();
        let fuse = Path::new("/dev/fuse").exists() && Path::new("/dev/loop-control").exists();
        let why = match (root, fuse) {
            _ if self.place == Place::Device && *arm == QED => {
                "an image of it has to grow, a device can not"
            }
            (false, _) => "only root can mount a file system",
            (_, false) => "there is no /dev/fuse or no /dev/loop-control",
            (true, true) => {
                let client = match self.work {
                    Work::PostMark => tools::missing(&["postmark"]),
                    Work::Fsync => None,
                };
                return client.or_else(|| tools::missing(&PROGRAMS));
            }
        };
        Some(why.into())
    }

    /// Makes an image with a file system, works on it, and returns the seconds.
    fn run(self, bench: &Bench<'_>, arm: &Arm, image: &Path, seed: u32) -> Result<f64, Failure> {
        let ground = &bench.ground;
        let bytes = bench.scale.files_disk_bytes;
        let base = match self.place {
            Place::Overlay => Some(base(bench)?),
            _ => None,
        };
        match &base {
            // The same bytes in the same places of a disk that can be written to.
            Some(base) if arm.is_raw() => copy(base, image)?,
            base => {
                let shape = Shape {
                    bytes,
                    base: base.as_deref(),
                    ..Shape::default()
                };
                arm.create(ground, image, &shape)?;
            }
        }
        bench.settle(ground)?;
        let socket = ground.path("socket");
        let how = How {
            base: base.as_deref(),
            threads: false,
        };
        let server = Server::start(&mut arm.server(ground, image, &socket, &how), &socket)?;
        // In this order they end: each thing before what it stands on.
        let (seconds, storage) = {
            let (storage, disk) = export(ground, &socket, bytes)?;
            let device = Loop::attach(&disk, false)?;
            if base.is_none() {
                // Raw on a block device is as large as that.
                make_file_system(&device.0, bytes, None)?;
            }
            let mount = Mount::new(&device.0, ground.path("mounted"))?;
            let seconds = match self.work {
                Work::PostMark => postmark(&mount.0, bench.scale.files, seed)?,
                Work::Fsync => fsync(&mount.0, bench.scale.fsync_files, seed)?,
            };
            drop(mount);
            drop(device);
            (seconds, storage)
        };
        storage.stop()?;
        server.stop()?;
        Ok(seconds)
    }
}

impl Measure for Load {
    /// Runs per second.
    fn measure(&mut self, bench: &Bench<'_>, arm: &Arm, round: u32) -> Result<Vec<f64>, Failure> {
        let ground = &bench.ground;
        let path = ground.path("files.image");
        let seconds = if self.place == Place::Device {
            // A file, too, with room for all that any format adds.
            let bytes = 2 * bench.scale.files_disk_bytes;
            let file = File::create(&path).and_then(|file| file.set_len(bytes));
            file.doing(|| "cannot make a file")?;
            let device = Loop::attach(&path, ground.direct)?;
            self.run(bench, arm, &device.0, round + 1)
        } else {
            self.run(bench, arm, &path, round + 1)
        };
        // It may not have come so far.
        let _ = fs::remove_file(&path);
        Ok(vec![1.0 / seconds?])
    }
}

/// The base of overlays: a raw image of a file system with some files.
fn base(bench: &Bench<'_>) -> Result<PathBuf, Failure> {
    bench.keep(bench.ground.path("files-base.raw"), |image| {
        let folder = bench.ground.path("old");
        fs::create_dir(&folder).doing(|| "cannot make a folder")?;
        create_files(&folder, bench.scale.files, 0, |_| Ok(()))?;
        let bytes = bench.scale.files_disk_bytes;
        let file = File::create(image).and_then(|file| file.set_len(bytes));
        file.doing(|| "cannot make a file")?;
        make_file_system(image, bytes, Some(&folder))?;
        fs::remove_dir_all(&folder).doing(|| "cannot remove a folder")
    })
}

/// Holes stay holes.
fn copy(from: &Path, to: &Path) -> Result<(), Failure> {
    let mut command = Command::new("cp");
    command.arg("--sparse=always").arg(from).arg(to);
    tools::run(&mut command).map(drop)
}

fn make_file_system(device: &Path, bytes: u64, files: Option<&Path>) -> Result<(), Failure> {
    let mut command = Command::new("mke2fs");
    command.args(["-q", "-F", "-t", "ext4"]);
    if let Some(files) = files {
        command.arg("-d").arg(files);
    }
    command.arg(device).arg(format!("{}k", bytes >> 10));
    tools::run(&mut command).map(drop)
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
fn postmark(folder: &Path, files: u32, seed: u32) -> Result<f64, Failure> {
    let orders = format!(
        "set location {}\nset number {files}\nset transactions {files}\nset size {} {}\n\
         set seed {seed}\nset report terse\nrun\nquit\n",
        folder.display(),
        FILE_BYTES.0,
        FILE_BYTES.1,
    );
    let start = Instant::now();
    tools::run_with(&mut Command::new("postmark"), orders.as_bytes())?;
    scratch::settle(folder)?;
    Ok(start.elapsed().as_secs_f64())
}

/// Creates small files, each durable before the next. Returns the seconds.
fn fsync(folder: &Path, files: u32, seed: u32) -> Result<f64, Failure> {
    let start = Instant::now();
    create_files(folder, files, seed, |file| {
        file.sync_all().doing(|| "cannot sync a file")
    })?;
    Ok(start.elapsed().as_secs_f64())
}

fn create_files(
    folder: &Path,
    files: u32,
    seed: u32,
    finish: impl Fn(&File) -> Result<(), Failure>,
) -> Result<(), Failure> {
    let (shortest, longest) = FILE_BYTES;
    let mut noise = Noise::new(seed);
    let mut content = vec![0; longest as usize];
    noise.fill(&mut content);
    for number in 0..files {
        let bytes = shortest + noise.next() % (longest - shortest + 1);
        let cannot = || "cannot create a file";
        let mut file = File::create(folder.join(number.to_string())).doing(cannot)?;
        file.write_all(&content[..bytes as usize]).doing(cannot)?;
        finish(&file)?;
    }
    Ok(())
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
        let mut command = Command::new("mount");
        // Else the kernel writes the tables of inodes in the background.
        command.args(["-o", "noinit_itable"]).arg(device);
        tools::run(command.arg(&folder))?;
        Ok(Mount(folder))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        // Nothing can be done if it stays.
        let _ = tools::run(Command::new("umount").arg(&self.0));
    }
}
