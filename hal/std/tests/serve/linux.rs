//! A Linux kernel in a virtual machine, with a first process of our own.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use crate::common::cli::Folder;
use crate::common::{missing, outside};
use crate::files::Plan;

/// How long the guest may take for anything, emulated on a busy machine.
const PATIENCE: Duration = Duration::from_secs(240);
/// Drivers of the disk and what they need, as far as they are not part of the kernel.
const MODULES: [&str; 6] = [
    "virtio",
    "virtio_ring",
    "virtio_pci",
    "virtio_pci_legacy_dev",
    "virtio_pci_modern_dev",
    "virtio_blk",
];

/// What a guest is made of, apart from what it shall do.
pub(crate) struct Linux {
    qemu: PathBuf,
    kernel: PathBuf,
    /// Names and bytes of the files that each guest has.
    files: Vec<(String, Vec<u8>)>,
}

impl Linux {
    /// `None`, and says so, if something is missing.
    pub(crate) fn find() -> Option<Linux> {
        if !cfg!(target_arch = "x86_64") {
            println!("SKIP: the guest takes mke2fs from this machine, and is one for x86-64");
            return None;
        }
        let qemu = outside("qemu-system-x86_64")?;
        let mke2fs = outside("mke2fs")?;
        let build = Path::new(env!("CARGO_TARGET_TMPDIR"))
            .parent()
            .expect("target");
        let root = build.join("linux");
        if !root.is_dir() {
            missing("no kernel in target/linux (`.ci/run setup` fetches one)");
            return None;
        }
        let mut files = vec![
            ("init".to_owned(), include_bytes!("init.sh").to_vec()),
            ("bin/busybox".to_owned(), bytes(&root.join("bin/busybox"))),
        ];
        files.extend(with_libraries(&mke2fs));
        let modules = root.join("lib/modules");
        files.extend(MODULES.iter().flat_map(|name| module(&modules, name)));
        Some(Linux {
            qemu,
            kernel: starting_with(&root.join("boot"), "vmlinuz-"),
            files,
        })
    }

    /// Boots with the disk that is served at `socket`.
    pub(crate) fn boot(&self, folder: &Folder, socket: &Path, job: &str, plan: &Plan) -> Guest {
        let mut archive = Archive::default();
        for name in ["bin", "dev", "mnt", "modules", "proc", "sys"] {
            archive.folder(name);
        }
        let plan = [
            ("noise", plan.noise.as_slice()),
            ("steps", plan.steps.as_bytes()),
            ("wanted", &plan.wanted().into_bytes()),
        ];
        let fixed = self.files.iter();
        let fixed = fixed.map(|(name, bytes)| (name.as_str(), bytes.as_slice()));
        for (name, bytes) in fixed.chain(plan) {
            archive.file(name, bytes);
        }
        folder.write("initramfs", &archive.finish());
        let drive = format!(
            "driver=nbd,server.type=unix,server.path={},if=none,id=disk,discard=unmap",
            socket.display()
        );
        let mut qemu = Command::new(&self.qemu)
            .current_dir(folder.path(""))
            .args("-accel tcg -machine q35 -m 256 -nodefaults -display none -no-reboot".split(' '))
            .args("-serial file:log -serial stdio -initrd initramfs -kernel".split(' '))
            .arg(&self.kernel)
            .args([
                "-append",
                &format!("console=ttyS0 panic=-1 quiet job={job}"),
            ])
            .args(["-drive", &drive, "-device", "virtio-blk-pci,drive=disk"])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("QEMU runs");
        let said = BufReader::new(qemu.stdout.take().expect("piped"));
        let (sender, lines) = mpsc::channel();
        std::thread::spawn(move || {
            // Nobody may listen any more.
            said.lines()
                .map_while(Result::ok)
                .try_for_each(|line| sender.send(line))
        });
        Guest {
            qemu,
            lines,
            log: folder.path("log"),
        }
    }
}

/// A virtual machine that runs.
pub(crate) struct Guest {
    qemu: Child,
    lines: Receiver<String>,
    log: PathBuf,
}

impl Guest {
    /// What the guest says next; `None` once it is off.
    pub(crate) fn line(&self) -> Option<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(line.trim_end().to_owned()),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => panic!("the guest hangs: {}", self.log()),
        }
    }

    /// Waits until it is off. Returns what it said; the last word must be that it is done.
    pub(crate) fn finish(mut self) -> Vec<String> {
        let mut said: Vec<String> = std::iter::from_fn(|| self.line()).collect();
        let status = self.qemu.wait().expect("a child");
        let last = said.pop();
        assert!(status.success(), "{status}: {}", self.log());
        assert_eq!(last.as_deref(), Some("DONE"), "{said:?} {}", self.log());
        said
    }

    /// Ends it at once. Returns what it had said.
    pub(crate) fn kill(mut self) -> Vec<String> {
        self.qemu.kill().expect("a child");
        std::iter::from_fn(|| self.line()).collect()
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap_or_default()).into_owned()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.qemu.kill();
        let _ = self.qemu.wait();
    }
}

/// An initramfs: an archive as `cpio -H newc` makes it.
#[derive(Default)]
struct Archive {
    bytes: Vec<u8>,
    entries: u32,
    folders: Vec<String>,
}

impl Archive {
    fn folder(&mut self, name: &str) {
        self.folders.push(name.to_owned());
        self.entry(name, 0o040_755, &[]);
    }

    /// A program, as far as modes go, and the folders on the way to it.
    fn file(&mut self, name: &str, bytes: &[u8]) {
        for (at, _) in name.match_indices('/') {
            if !self.folders.iter().any(|folder| *folder == name[..at]) {
                self.folder(&name[..at]);
            }
        }
        self.entry(name, 0o100_755, bytes);
    }

    fn entry(&mut self, name: &str, mode: u32, bytes: &[u8]) {
        self.entries += 1;
        let len = |bytes: usize| u32::try_from(bytes).expect("less than 4 GiB");
        // Number, mode, user, group, links, time, length, four numbers of devices, name, checksum.
        let mut fields = [0; 13];
        fields[0] = self.entries;
        fields[1] = mode;
        fields[4] = 1;
        fields[6] = len(bytes.len());
        fields[11] = len(name.len() + 1);
        self.bytes.extend(b"070701");
        for field in fields {
            self.bytes.extend(format!("{field:08x}").bytes());
        }
        self.bytes.extend(name.bytes());
        self.bytes.push(0);
        self.align();
        self.bytes.extend(bytes);
        self.align();
    }

    fn align(&mut self) {
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
    }

    fn finish(mut self) -> Vec<u8> {
        self.entry("TRAILER!!!", 0, &[]);
        self.bytes
    }
}

/// A program of this machine and all libraries that it loads, at the places where it looks for them.
fn with_libraries(program: &Path) -> Vec<(String, Vec<u8>)> {
    let ldd = Command::new("ldd").arg(program).output().expect("ldd runs");
    let said = String::from_utf8(ldd.stdout).expect("text");
    let libraries = said
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(|path| (path[1..].to_owned(), bytes(Path::new(path))));
    let program = ("sbin/mke2fs".to_owned(), bytes(program));
    libraries.chain([program]).collect()
}

/// A module of the kernel, compressed or not. None if it is a part of the kernel itself.
fn module(folder: &Path, name: &str) -> Option<(String, Vec<u8>)> {
    fs::read_dir(folder).expect("a folder").find_map(|entry| {
        let path = entry.expect("an entry").path();
        let file = path.file_name()?.to_str()?.to_owned();
        if path.is_dir() {
            module(&path, name)
        } else if file.split('.').next() == Some(name) && file.contains(".ko") {
            Some((format!("modules/{file}"), bytes(&path)))
        } else {
            None
        }
    })
}

fn starting_with(folder: &Path, start: &str) -> PathBuf {
    let mut paths = fs::read_dir(folder)
        .expect("a folder")
        .map(|entry| entry.expect("an entry").path());
    paths
        .find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(start))
        })
        .unwrap_or_else(|| panic!("no {start} in {}", folder.display()))
}

fn bytes(path: &Path) -> Vec<u8> {
    // What is fetched before a change to `.ci/run` may lack something.
    fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}
