//! A regular file or block device as a [`BlockDevice`].
//!
//! Operations are carried out by a few threads with positioned vectored I/O straight between the
//! lent memory and the page cache, so that many are in flight on one file and complete in any order.
//!
//! What it promises, in the terms of the [power-loss contract](fvd::device):
//!
//! * The page cache is a **volatile cache**; a flush is `fdatasync`. After one flush failed, all
//!   later ones fail, because the kernel reports a lost page only once.
//! * **Atomic unit.** Nobody promises much here: a file system may put a page anywhere, and a medium
//!   with 4096-byte physical blocks behind 512-byte sectors can damage the neighbours of a sector
//!   when power fails during a write. A torn unit is found by its checksum, a damaged neighbour may
//!   not be missed by anybody, so the larger unit is the safe one to declare: 4096 bytes for a file,
//!   the physical block for a block device, unless [`FileOptions::atomic_write_bytes`] knows better.
//! * A file whose length is no multiple of 512 counts as rounded up; the missing bytes read zeros.
//!   Anything else that is missing is an I/O error: the file was cut short while it was open.
//! * **Zeroes** are made by the file system if it can (a hole with `MAY_UNMAP`, else an unwritten
//!   range), and written otherwise. **Discard** punches holes, which read zeros; it is offered for
//!   regular files on file systems that can. **Growth** extends a regular file, sparsely.
//!
//! Invariants:
//! 1. An accepted op is owned by this device until its system calls have returned, also when the
//!    device is dropped: its threads are joined first.
//! 2. Whoever opens a file holds an advisory lock (`flock`) on it: exclusive for writing, shared for
//!    reading. It ends with the device.

mod execute;
mod open;
mod pool;
mod sys;
mod unnamed;

use core::ops::Range;
use core::task::Waker;
use std::fs::File;
use std::io;
use std::path::Path;

use fvd::buffer::{Op, OpQueue};
use fvd::device::{BlockDevice, Geometry, OpKind, Status, When, refuse};
use fvd::units::Instant;

pub use execute::reserve;
pub(crate) use open::open_path;
pub use open::{FileId, FileOptions, OpenError};
use pool::Pool;
pub use unnamed::{create_unnamed, give_name, rename_to_free};

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
    pool: Pool,
    geometry: Geometry,
    id: FileId,
    /// Bytes in the file when it was opened.
    len_bytes: u64,
    /// Submitted, and not yet handed to the threads: one hand-over per batch.
    staged: OpQueue,
    /// Completed, and collected from the threads.
    done: OpQueue,
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
        let (target, geometry, id) = open::prepare(file, options)?;
        let len_bytes = target.len_at_open();
        Ok(FileDevice {
            pool: Pool::start(target, options.threads)?,
            geometry,
            id,
            len_bytes,
            staged: OpQueue::new(),
            done: OpQueue::new(),
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
        self.len_bytes
    }

    /// The first range at or after `from` that may hold something else than zeros, as far as the file
    /// system knows holes. `None` if only zeros follow. Does not see writes in flight.
    ///
    /// # Errors
    /// What the system says.
    pub fn next_data(&self, from: u64) -> io::Result<Option<Range<u64>>> {
        sys::next_data(&self.pool.target().file, from, self.geometry.capacity_bytes)
    }

    /// Carries out everything submitted, ends the threads and gives all completions that were not
    /// polled, so that the memory they carry can go home. Waits for the disk.
    pub fn close(mut self) -> OpQueue {
        self.pool.hand_over(&mut self.staged);
        self.pool.stop();
        let mut all = core::mem::take(&mut self.done);
        let mut rest = self.pool.collect();
        while let Some(op) = rest.pop_front() {
            all.push_back(op);
        }
        all
    }

    fn next_done(&mut self) -> Option<Op> {
        if self.done.is_empty() && self.pool.done_count() > 0 {
            self.done = self.pool.collect();
        }
        self.done.pop_front()
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
        if !self.staged.is_empty() {
            self.pool.hand_over(&mut self.staged);
        }
    }

    fn poll(&mut self, _now: Instant) -> Option<Op> {
        // For callers that forgot to notify: without it they would wait for ever.
        self.notify();
        let op = self.next_done()?;
        if op.kind() == OpKind::Grow && op.status() == Status::Done {
            let grown = execute::whole_sectors(op.len());
            self.geometry.capacity_bytes = self.geometry.capacity_bytes.max(grown);
        }
        Some(op)
    }

    fn poll_at(&self) -> When {
        let work = !self.done.is_empty() || !self.staged.is_empty() || self.pool.done_count() > 0;
        if work { When::Now } else { When::Event }
    }

    fn set_waker(&mut self, waker: &Waker) -> bool {
        self.pool.set_waker(waker);
        true
    }
}

impl Drop for FileDevice {
    /// Carries out what was submitted and waits until the threads have let go of all lent memory, then
    /// leaks what was not polled.
    fn drop(&mut self) {
        self.pool.hand_over(&mut self.staged);
        self.pool.stop();
    }
}
