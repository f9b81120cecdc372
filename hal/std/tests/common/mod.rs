//! What the tests of devices share: operations, buffers and repeatable noise.
#![allow(dead_code, unreachable_pub)] // each test file is a crate of its own and uses a part of this

pub mod cli;

use std::path::{Path, PathBuf};
use std::process::Command;

use fvd::buffer::{Arena, Head, Loan, Op, OpPool};
use fvd::device::{BlockDevice, OpKind, Status};
use fvd_std::arena::leak_arena;
use fvd_std::drive::Driver;
use fvd_std::file::{Aio, Cache, FileDevice, FileOptions, OpenError};
use tempfile::TempDir;

/// How a file is used as a device.
#[derive(Clone, Copy, Debug, Default)]
pub struct How {
    pub aio: Aio,
    pub cache: Cache,
    /// The file lies in a file system in memory.
    pub in_memory: bool,
}

/// Where Linux keeps one.
const IN_MEMORY: &str = "/dev/shm";

impl How {
    pub fn options(self) -> FileOptions {
        FileOptions {
            aio: self.aio,
            cache: self.cache,
            ..FileOptions::default()
        }
    }

    /// A folder to make files in.
    pub fn folder(self) -> TempDir {
        let folder = if self.in_memory {
            tempfile::tempdir_in(IN_MEMORY)
        } else {
            tempfile::tempdir()
        };
        folder.expect("temporary folder")
    }

    /// False, and says so, where the system does not offer that at the place of temporary files.
    pub fn is_possible(self) -> bool {
        if self.in_memory && !is_in_memory() {
            println!("SKIP: {IN_MEMORY} is not a file system in memory");
            return false;
        }
        let folder = self.folder();
        let file = tempfile::tempfile_in(&folder).expect("temporary file");
        file.set_len(1 << 20).expect("length");
        let device = match FileDevice::from_file(file, &self.options()) {
            Ok(device) => device,
            Err(OpenError::NoIoUring(error)) => {
                println!("SKIP: the kernel refuses io_uring: {error}");
                return false;
            }
            Err(error) => panic!("{error}"),
        };
        let direct = self.cache == Cache::Direct;
        if direct && (!device.is_direct() || device.geometry().logical_block_bytes != 512) {
            println!("SKIP: no direct I/O in sectors for temporary files");
            return false;
        }
        match self.aio {
            Aio::Threads => assert!(!device.is_io_uring()),
            Aio::IoUring => assert!(device.is_io_uring()),
            _ => {}
        }
        true
    }
}

fn is_in_memory() -> bool {
    let mounts = std::fs::read_to_string("/proc/mounts").unwrap_or_default();
    let mut kinds = mounts.lines().filter_map(|line| {
        let mut words = line.split(' ').skip(1);
        (words.next() == Some(IN_MEMORY)).then(|| words.next())?
    });
    kinds.any(|kind| kind == "tmpfs")
}

/// Runs tests, which are functions of [`How`], by threads and by the kernel, through the page cache
/// and around it.
#[macro_export]
macro_rules! on_every_adapter {
    ($($test:ident),* $(,)?) => {
        $crate::on_every_adapter!(@ threads, Threads, Buffered, $($test),*);
        $crate::on_every_adapter!(@ io_uring, IoUring, Buffered, $($test),*);
        $crate::on_every_adapter!(@ threads_direct, Threads, Direct, $($test),*);
        $crate::on_every_adapter!(@ io_uring_direct, IoUring, Direct, $($test),*);
    };
    (in memory too: $($test:ident),* $(,)?) => {
        $crate::on_every_adapter!($($test),*);
        $crate::on_every_adapter!(in memory: $($test),*);
    };
    (in memory: $($test:ident),* $(,)?) => {
        $crate::on_every_adapter!(@ in_memory, Auto, Buffered, $($test),*);
        $crate::on_every_adapter!(@ in_memory_direct, Auto, Direct, $($test),*);
    };
    (@ $how:ident, $aio:ident, $cache:ident, $($test:ident),*) => {
        mod $how {
            use $crate::common::How;
            use fvd_std::file::{Aio, Cache};

            $(
                #[test]
                fn $test() {
                    let how = How {
                        aio: Aio::$aio,
                        cache: Cache::$cache,
                        in_memory: stringify!($how).starts_with("in_memory"),
                    };
                    if how.is_possible() {
                        super::$test(how);
                    }
                }
            )*
        }
    };
}

/// Operations of a [`Bench`].
const OPS: usize = 160;

/// Operations to submit, and a driver to wait with.
pub struct Bench {
    pub pool: OpPool,
    pub driver: Driver,
}

impl Bench {
    pub fn new() -> Bench {
        let memory = leak_arena(OpPool::arena_bytes(OPS)).expect("memory");
        let mut arena = Arena::new(memory).expect("aligned");
        Bench {
            pool: OpPool::carve(&mut arena, OPS as u32).expect("room"),
            driver: Driver::new(),
        }
    }

    pub fn op(&mut self, kind: OpKind, offset: u64, len: u64) -> Op {
        self.pool.take(head(kind, offset, len)).expect("a free op")
    }

    /// Runs an operation without data to its end.
    pub fn run(&mut self, device: &mut dyn BlockDevice, kind: OpKind, at: u64, len: u64) -> Status {
        let op = self.op(kind, at, len);
        self.finish(device, op)
    }

    pub fn finish(&mut self, device: &mut dyn BlockDevice, op: Op) -> Status {
        self.driver.attach(device);
        let op = self.driver.run_op(device, op);
        let status = op.status();
        self.pool.put(op).expect("an op of this pool");
        status
    }

    pub fn write(&mut self, device: &mut dyn BlockDevice, at: u64, data: &[u8]) -> Status {
        let (op, loan) = self.with_data(OpKind::Write, at, data.to_vec());
        self.transfer(device, op, loan).0
    }

    pub fn read(
        &mut self,
        device: &mut dyn BlockDevice,
        at: u64,
        len: usize,
    ) -> Result<Vec<u8>, Status> {
        // Filled with noise, so that bytes which were never read do not look like zeros.
        let (op, loan) = self.with_data(OpKind::Read, at, vec![0xEE; len]);
        match self.transfer(device, op, loan) {
            (Status::Done, data) => Ok(data),
            (status, _) => Err(status),
        }
    }

    /// Runs an operation of 4 KiB at each of these offsets, all at once. Reads and writes noise.
    pub fn batch(
        &mut self,
        device: &mut dyn BlockDevice,
        kind: OpKind,
        offsets: impl Iterator<Item = u64>,
    ) {
        let mut loans = Vec::new();
        for offset in offsets {
            let (op, loan) = self.with_data(kind, offset, vec![offset as u8 ^ 0xEE; 4096]);
            assert!(device.submit(op).is_ok(), "refused");
            // Kept until its lease is back.
            loans.push(loan);
        }
        device.notify();
        self.driver.attach(device);
        for _ in 0..loans.len() {
            let mut op = loop {
                match device.poll(self.driver.now()) {
                    Some(op) => break op,
                    None => self.driver.wait(device.poll_at()),
                }
            };
            assert_eq!(op.status(), Status::Done);
            drop(op.pop().expect("the lease came home"));
            self.pool.put(op).expect("an op of this pool");
        }
    }

    /// An operation that carries `data`.
    pub fn with_data(&mut self, kind: OpKind, at: u64, data: Vec<u8>) -> (Op, Loan<Box<[u8]>>) {
        let mut op = self.op(kind, at, data.len() as u64);
        let (loan, lease) = lend(data);
        op.push(lease).expect("a free segment");
        (op, loan)
    }

    fn transfer(
        &mut self,
        device: &mut dyn BlockDevice,
        op: Op,
        loan: Loan<Box<[u8]>>,
    ) -> (Status, Vec<u8>) {
        self.driver.attach(device);
        let mut op = self.driver.run_op(device, op);
        let status = op.status();
        let lease = op.pop().expect("the lease came home");
        self.pool.put(op).expect("an op of this pool");
        let data = loan.redeem(lease).expect("the whole loan");
        (status, data.into_vec())
    }
}

pub fn lend(data: Vec<u8>) -> (Loan<Box<[u8]>>, fvd::buffer::Lease) {
    Loan::new(data.into_boxed_slice()).expect("not empty")
}

pub fn head(kind: OpKind, offset: u64, len: u64) -> Head {
    Head::new(kind, offset, len)
}

/// Repeatable noise (xorshift64*).
pub struct Noise(u64);

impl Noise {
    pub fn new(seed: u64) -> Noise {
        Noise(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    pub fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| (self.next() >> 32) as u8).collect()
    }
}

/// A loop device over a file of `len` bytes; detached at the end.
pub struct LoopDevice {
    pub path: PathBuf,
    losetup: PathBuf,
}

impl LoopDevice {
    /// `None` if there is no tool for it, or if that is not allowed.
    pub fn new(file: &Path) -> Option<LoopDevice> {
        let losetup = outside("losetup")?;
        let attach = Command::new(&losetup)
            .args(["--find", "--show"])
            .arg(file)
            .output()
            .ok()?;
        if !attach.status.success() {
            println!("SKIP: not allowed to make a loop device");
            return None;
        }
        let path = String::from_utf8(attach.stdout).ok()?.trim().into();
        Some(LoopDevice { path, losetup })
    }
}

impl Drop for LoopDevice {
    fn drop(&mut self) {
        let _ = Command::new(&self.losetup)
            .arg("--detach")
            .arg(&self.path)
            .status();
    }
}

/// Looks for a tool that a test needs. One that is missing is said, and fails the test where `CI` is
/// `true`.
pub fn outside(tool: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // Debian keeps the tools for file systems out of the path of ordinary users.
    let more = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    let places = std::env::split_paths(&path).chain(more);
    let found = places
        .map(|folder| folder.join(tool))
        .find(|place| place.is_file());
    if found.is_none() {
        missing(&format!("{tool} is not installed"));
    }
    found
}

/// Says why a test does nothing, and fails it where `CI` is `true`.
pub fn missing(reason: &str) {
    println!("SKIP: {reason}");
    let ci = std::env::var("CI");
    assert_ne!(ci.as_deref(), Ok("true"), "{reason}");
}
