//! A regular file or block device as a [`BlockDevice`].
//!
//! Operations are carried out by the kernel, told of a whole batch in one system call (`io_uring`), or
//! by a few threads where it refuses that. Either way data move straight between the lent memory and
//! the page cache, or the medium if [`FileOptions::cache`] says so; many operations are in flight on
//! one file and complete in any order. Short transfers of a file in memory (tmpfs) are carried out at
//! once, unless [`FileOptions::aio`] says by whom: they are done when `notify` returns.
//!
//! | file | its one job |
//! | --- | --- |
//! | `open` | what is accepted, the lock, the geometry |
//! | `backend` | who carries out operations |
//! | `ring`, `alarm` | the kernel; whom to wake then |
//! | `pool` | threads |
//! | `execute` | one operation, on the thread that calls it |
//! | `sys` | system calls |
//! | `unnamed` | files that appear whole or not at all |
//!
//! What it promises, in the terms of the [power-loss contract](fvd::device):
//!
//! * The page cache is a **volatile cache**; a flush is `fdatasync`, and a write with FUA one that the
//!   kernel makes durable (`RWF_DSYNC`). After one of these failed, all later flushes fail, because
//!   the kernel reports a lost page only once.
//! * **Atomic unit.** Nobody promises much here: a file system may put a page anywhere, and a medium
//!   with 4096-byte physical blocks behind 512-byte sectors can damage the neighbours of a sector
//!   when power fails during a write. A torn unit is found by its checksum, a damaged neighbour may
//!   not be missed by anybody, so the larger unit is the safe one to declare: 4096 bytes for a file,
//!   the physical block for a block device, unless [`FileOptions::atomic_write_bytes`] knows better.
//! * A file whose length is no multiple of 512 counts as rounded up; the missing bytes read zeros.
//!   Anything else that is missing is an I/O error: the file was cut short while it was open.
//! * **Zeroes** are made by the file system if it can (a hole with `MAY_UNMAP`, else an unwritten
//!   range), and written otherwise. **Discard** punches holes, which read zeros, on file systems that
//!   can, and is passed on by block devices that say they can, with nothing promised of what is read
//!   afterwards. **Growth** extends a regular file, sparsely.
//!
//! Invariants:
//! 1. An accepted op is owned by this device until the kernel is done with it, also when the device
//!    is dropped: it waits for that first.
//! 2. Whoever opens a file holds an advisory lock (`flock`) on it: exclusive for writing, shared for
//!    reading. It ends with the device; where the process was killed, as soon as the kernel is done with
//!    its requests, for which opening waits up to [`LOCK_PATIENCE`].

mod alarm;
mod backend;
mod execute;
mod open;
mod pool;
mod ring;
mod sys;
mod unnamed;

use core::ops::Range;
use core::task::Waker;
use std::fs::File;
use std::io;
use std::path::Path;
use std::sync::Arc;

use fvd::buffer::{Op, OpQueue};
use fvd::device::{BlockDevice, Geometry, OpKind, Status, When, refuse};
use fvd::units::Instant;

use backend::Backend;
use execute::Target;
pub use execute::reserve;
pub(crate) use open::open_path;
pub use open::{Aio, Cache, FileId, FileOptions, LOCK_PATIENCE, OpenError};
pub use unnamed::{create_unnamed, give_name, rename_to_free};

/// Longest transfer that is short, bytes.
const SHORT_BYTES: u64 = 64 << 10;

/// A file or block device with many operations in flight.
///
/// ```
/// use fvd::device::BlockDevice;
/// use fvd_std::file::{FileDevice, FileOptions};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let folder = tempfile::tempdir()?;
/// let path = folder.path().join("disk.raw");
/// std::fs::File::create(&path)?.set_len(1 << 20)?;
///
/// let device = FileDevice::open(&path, &FileOptions::default())?;
/// assert_eq!(device.geometry().capacity_bytes, 1 << 20);
///
/// let second = FileDevice::open(&path, &FileOptions::default());
/// assert!(second.is_err(), "the file is locked");
/// # Ok(())
/// # }
/// ```
pub struct FileDevice {
    backend: Backend,
    target: Arc<Target>,
    geometry: Geometry,
    id: FileId,
    /// Submitted, and not yet handed over: once per batch.
    staged: OpQueue,
    /// Completed, and collected.
    done: OpQueue,
    /// Short transfers are carried out where they are handed over.
    at_once: bool,
}

const _: () = {
    const fn assert_send<T: Send>() {}
    assert_send::<FileDevice>();
};

impl FileDevice {
    /// Opens a file or block device that exists.
    ///
    /// # Errors
    /// See [`OpenError`]; notably [`OpenError::Locked`].
    pub fn open(path: &Path, options: &FileOptions) -> Result<FileDevice, OpenError> {
        FileDevice::from_file(open_path(path, options.read_only)?, options)
    }

    /// Makes a device of an open file. It must be open for writing unless `options` say read-only.
    ///
    /// # Errors
    /// See [`OpenError`]; notably [`OpenError::Locked`].
    pub fn from_file(file: File, options: &FileOptions) -> Result<FileDevice, OpenError> {
        let (target, mut geometry, id) = open::prepare(file, options)?;
        let target = Arc::new(target);
        let backend = Backend::start(&target, options.aio, options.threads)?;
        if backend.is_ring() {
            geometry.queue_depth = ring::DEPTH;
        }
        Ok(FileDevice {
            backend,
            geometry,
            id,
            staged: OpQueue::new(),
            done: OpQueue::new(),
            at_once: options.aio == Aio::Auto && sys::is_in_memory(&target.file),
            target,
        })
    }

    /// What tells this file from others.
    #[must_use]
    pub fn id(&self) -> FileId {
        self.id
    }

    /// Bytes in the file when it was opened; the capacity is this in whole sectors.
    #[must_use]
    pub fn len_at_open(&self) -> u64 {
        self.target.len_at_open()
    }

    /// Whether the kernel carries out operations by itself (`io_uring`).
    #[must_use]
    pub fn is_io_uring(&self) -> bool {
        self.backend.is_ring()
    }

    /// Whether data go around the page cache.
    #[must_use]
    pub fn is_direct(&self) -> bool {
        self.target.is_direct()
    }

    /// The first range at or after `from` that may hold something else than zeros, as far as the file
    /// system knows holes. `None` if only zeros follow. Does not see writes in flight.
    ///
    /// # Errors
    /// What the system says.
    pub fn next_data(&self, from: u64) -> io::Result<Option<Range<u64>>> {
        sys::next_data(&self.target.file, from, self.geometry.capacity_bytes)
    }

    /// Carries out everything submitted, waits for it and gives all completions that were not
    /// polled, so that the memory they carry can go home.
    pub fn close(mut self) -> OpQueue {
        self.notify();
        self.backend.stop();
        let mut all = core::mem::take(&mut self.done);
        let mut rest = self.backend.collect();
        while let Some(op) = rest.pop_front() {
            all.push_back(op);
        }
        all
    }

    /// A file in memory has nothing to wait for: copying a few pages takes less than another thread
    /// to wake, of this process or of the kernel, which has no other way to such a file either.
    fn carry_out_short(&mut self) {
        for _ in 0..self.staged.len() {
            let Some(mut op) = self.staged.pop_front() else {
                return;
            };
            if is_short(&op) {
                self.target.execute(&mut op);
                self.done.push_back(op);
            } else {
                self.staged.push_back(op);
            }
        }
    }

    fn next_done(&mut self) -> Option<Op> {
        if self.done.is_empty() && self.backend.has_work() {
            self.done = self.backend.collect();
        }
        self.done.pop_front()
    }
}

/// Whether carrying it out is only to copy a little.
fn is_short(op: &Op) -> bool {
    match op.kind() {
        OpKind::Read | OpKind::Write => op.bytes() <= SHORT_BYTES,
        OpKind::Flush => true,
        _ => false,
    }
}

impl core::fmt::Debug for FileDevice {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("FileDevice")
            .field("id", &self.id)
            .field("geometry", &self.geometry)
            .finish_non_exhaustive()
    }
}

impl BlockDevice for FileDevice {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn submit(&mut self, op: Op) -> Result<(), Op> {
        if let Err(error) = self.geometry.check(&op) {
            return refuse(op, error);
        }
        self.staged.push_back(op);
        Ok(())
    }

    fn notify(&mut self) {
        if self.at_once {
            self.carry_out_short();
        }
        if !self.staged.is_empty() {
            self.backend.hand_over(&mut self.staged);
        }
    }

    fn poll(&mut self, _now: Instant) -> Option<Op> {
        // For callers that forgot to notify: without it they would wait for ever.
        self.notify();
        let op = self.next_done()?;
        if op.kind() == OpKind::Grow && op.status() == Status::Done {
            let grown =
                execute::whole_blocks(op.len(), u64::from(self.geometry.logical_block_bytes));
            self.geometry.capacity_bytes = self.geometry.capacity_bytes.max(grown);
        }
        Some(op)
    }

    fn poll_at(&self) -> When {
        let work = !self.done.is_empty() || !self.staged.is_empty() || self.backend.has_work();
        if work { When::Now } else { When::Event }
    }

    fn set_waker(&mut self, waker: &Waker) -> bool {
        self.backend.set_waker(waker)
    }
}

impl Drop for FileDevice {
    /// Carries out what was submitted and waits until nobody uses lent memory any more, then
    /// leaks what was not polled.
    fn drop(&mut self) {
        self.notify();
        self.backend.stop();
    }
}
