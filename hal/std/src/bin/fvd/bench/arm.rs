//! The arms: a format, and who serves it.

use std::fs::{self, File};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use super::control::AREA_BYTES;
use super::tools;
use crate::failure::{Doing, Failure};
use crate::output::Shown;

/// Who serves an image over NBD.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Front {
    /// `fvd serve`
    Fvd,
    /// `qemu-nbd`
    Qemu,
    /// The same with io_uring instead of native AIO.
    QemuUring,
    /// Nobody: a crate writes to it in a process of its own.
    Crate,
}

/// What an image is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    /// The bytes of the disk and nothing else.
    Raw,
    /// The same, and one page more is written for each flush: what any journal costs at least.
    RawJournal,
    /// FVD, with or without a table; with a base it is an overlay.
    Fvd { table: bool },
    /// What `qemu-img create -f FORMAT -o OPTIONS` makes.
    Qemu {
        format: &'static str,
        options: &'static str,
    },
}

/// One of those that are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Arm {
    pub(super) name: &'static str,
    pub(super) front: Front,
    pub(super) format: Format,
}

const fn fvd(name: &'static str, format: Format) -> Arm {
    Arm {
        name,
        front: Front::Fvd,
        format,
    }
}

const fn qemu(name: &'static str, format: &'static str, options: &'static str) -> Arm {
    Arm {
        name,
        front: Front::Qemu,
        format: Format::Qemu { format, options },
    }
}

/// Raw through our own server: the reference, so that a fast server makes no format look fast.
pub(super) const RAW: Arm = fvd("raw", Format::Raw);
/// Crates for qcow2, which write to what QEMU makes.
pub(super) const IMAGO: Arm = Arm {
    name: "imago",
    front: Front::Crate,
    ..QCOW2
};
pub(super) const QCOW2_RS: Arm = Arm {
    name: "qcow2-rs",
    front: Front::Crate,
    ..QCOW2
};
pub(super) const RAW_JOURNAL: Arm = fvd("raw+J", Format::RawJournal);
pub(super) const TABLE: Arm = fvd("fvd", Format::Fvd { table: true });
pub(super) const NO_TABLE: Arm = fvd("fvd --table off", Format::Fvd { table: false });
pub(super) const QEMU_RAW: Arm = Arm {
    name: "qemu raw",
    front: Front::Qemu,
    format: Format::Raw,
};
pub(super) const QEMU_RAW_URING: Arm = Arm {
    name: "qemu raw io_uring",
    front: Front::QemuUring,
    format: Format::Raw,
};
pub(super) const QCOW2: Arm = qemu("qcow2", "qcow2", "");
pub(super) const EXTENDED: Arm = qemu(
    "qcow2 extended_l2",
    "qcow2",
    "extended_l2=on,cluster_size=128k",
);
pub(super) const PREALLOCATED: Arm = qemu("qcow2 preallocated", "qcow2", "preallocation=metadata");
pub(super) const LAZY: Arm = qemu("qcow2 lazy", "qcow2", "lazy_refcounts=on");
pub(super) const QED: Arm = qemu("qed", "qed", "");

const QEMU: [&str; 2] = ["qemu-img", "qemu-nbd"];

/// How many clients a server of QEMU takes at a time.
const CLIENTS: &str = "8";

/// Where images lie, and how they are opened.
#[derive(Clone, Debug)]
pub(super) struct Ground {
    /// The `fvd` that is measured.
    pub(super) program: PathBuf,
    pub(super) folder: PathBuf,
    /// Whether files there can be used around the page cache.
    pub(super) direct: bool,
}

impl Ground {
    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

impl Arm {
    /// Why this arm can not be measured here.
    pub(super) fn missing(&self) -> Option<String> {
        match self.front {
            Front::Fvd => None,
            Front::Qemu => tools::missing(&QEMU),
            Front::QemuUring => tools::missing(&QEMU).or_else(no_uring),
            Front::Crate => tools::missing(&["qemu-img"]),
        }
    }

    /// Whether the data lie in the image as they do on the disk.
    pub(super) fn is_raw(&self) -> bool {
        matches!(self.format, Format::Raw | Format::RawJournal)
    }

    /// Part of a name of a file.
    pub(super) fn file_name(&self) -> String {
        self.name.replace([' ', '-'], "_")
    }

    /// Makes an image.
    pub(super) fn create(
        &self,
        ground: &Ground,
        image: &Path,
        shape: &Shape<'_>,
    ) -> Result<(), Failure> {
        let size_text = shape.bytes.to_string();
        let mut command = match self.format {
            Format::Raw => return create_raw(image, shape.bytes),
            Format::RawJournal => return create_raw(image, shape.bytes + AREA_BYTES),
            Format::Fvd { table } => {
                let mut command = Command::new(&ground.program);
                let table = if table { "on" } else { "off" };
                command.args(["create", "--force", "--table", table]);
                if let Some(base) = shape.base {
                    command.arg("--base").arg(base);
                }
                if let Some(bytes) = shape.journal_bytes {
                    command.args(["--journal-size", &bytes.to_string()]);
                }
                command.arg(image).arg(&size_text);
                command
            }
            Format::Qemu { format, options } => {
                let mut command = Command::new("qemu-img");
                command.args(["create", "-q", "-f", format]);
                if !options.is_empty() {
                    command.args(["-o", options]);
                }
                if let Some(base) = shape.base {
                    command.args(["-F", "raw", "-b"]).arg(base);
                }
                command.arg(image).arg(&size_text);
                command
            }
        };
        tools::run(&mut command).map(drop)
    }

    /// The command that serves an image on a socket.
    pub(super) fn server(
        &self,
        ground: &Ground,
        image: &Path,
        socket: &Path,
        how: &How<'_>,
    ) -> Command {
        let direct = ground.direct && !how.threads;
        match self.front {
            Front::Fvd => {
                let mut command = Command::new(&ground.program);
                let format = match self.format {
                    Format::Fvd { .. } => "fvd",
                    _ => "raw",
                };
                command.args(["serve", "-f", format, "--cache"]);
                command.arg(if ground.direct { "none" } else { "writeback" });
                command.args(["--aio", if how.threads { "threads" } else { "auto" }]);
                if let (Format::Fvd { .. }, Some(base)) = (self.format, how.base) {
                    command.arg("--base").arg(base);
                }
                if self.format == Format::RawJournal {
                    command.arg("--journal-control");
                }
                command.arg("--socket").arg(socket).arg(image);
                command
            }
            Front::Qemu | Front::QemuUring | Front::Crate => {
                let mut command = Command::new("qemu-nbd");
                let format = match self.format {
                    Format::Qemu { format, .. } => format,
                    _ => "raw",
                };
                // `native` is for files that are used around the page cache only.
                let aio = match (self.front, direct) {
                    (Front::QemuUring, _) if !how.threads => "io_uring",
                    (_, true) => "native",
                    (_, false) => "threads",
                };
                let cache = if ground.direct { "none" } else { "writeback" };
                command.args(["--persistent", "--shared", CLIENTS]);
                command.args(["--format", format, "--aio", aio]);
                command.args(["--cache", cache, "--discard", "unmap", "--socket"]);
                command.arg(socket).arg(image);
                command
            }
        }
    }
}

/// A raw image is there already on a block device, which has its own size.
fn create_raw(image: &Path, size: u64) -> Result<(), Failure> {
    let is_device = fs::metadata(image).is_ok_and(|found| found.file_type().is_block_device());
    if is_device {
        return Ok(());
    }
    let created = File::create(image).and_then(|file| file.set_len(size));
    created.doing(|| format!("cannot make {}", Shown(image)))
}

/// Why QEMU can not use io_uring: it says so itself.
fn no_uring() -> Option<String> {
    static WHY: OnceLock<Option<String>> = OnceLock::new();
    let why = || {
        let some_file = tools::own(None).ok()?;
        let mut command = Command::new("qemu-img");
        command.args(["bench", "-f", "raw", "-i", "io_uring", "-c", "1"]);
        tools::run(command.arg(some_file))
            .err()
            .map(|failure| failure.to_string())
    };
    WHY.get_or_init(why).clone()
}

/// What an image is like.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Shape<'a> {
    pub(super) bytes: u64,
    /// It is an overlay on this raw image.
    pub(super) base: Option<&'a Path>,
    /// Of a journal, where the format has one; else it is as large as usual.
    pub(super) journal_bytes: Option<u64>,
}

/// How an image is served.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct How<'a> {
    /// The base of an overlay.
    pub(super) base: Option<&'a Path>,
    /// Operations are carried out by threads, whose system calls can be counted.
    pub(super) threads: bool,
}
