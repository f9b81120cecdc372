//! Carries out one operation on a file, on the thread that calls it.
//!
//! Invariants:
//! 1. Short transfers are continued and interrupted ones repeated; what is still missing then is an
//!    error, never silence.
//! 2. `NoSpace` says that the file system is full, also where it noticed halfway through a write: what
//!    the range holds then is undefined between old and new, as after every failed write.
//! 3. Once a flush has failed, every later one fails: the kernel reports a lost page once and then
//!    forgets it, so a second flush that succeeds would prove nothing.

use core::ops::Range;
use core::sync::atomic::{AtomicBool, Ordering};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use fvd::buffer::Op;
use fvd::device::{DeviceError, Geometry, OpFlags, OpKind};

use super::sys::{self, DirectAlign, Direction, ZeroMode};
use crate::aligned::AlignedBuffer;

/// Bytes of zeros written at once where a file system can not zero a range itself.
const ZEROES_BYTES: usize = 64 << 10;

/// Aligned as direct I/O needs it.
#[repr(align(4096))]
struct Zeroes([u8; ZEROES_BYTES]);
static ZEROES: Zeroes = Zeroes([0; ZEROES_BYTES]);

/// Memory through which direct I/O goes whose own memory is not aligned, bytes.
const BOUNCE_BYTES: usize = 256 << 10;

/// What transfers around the page cache need.
#[derive(Debug)]
struct Direct {
    align: DirectAlign,
    /// Where data pass through whose own memory is not aligned.
    bounce: Mutex<AlignedBuffer>,
}

/// A file that operations are carried out on, from any number of threads.
#[derive(Debug)]
pub(super) struct Target {
    /// The file or block device.
    pub(super) file: File,
    /// Nothing is ever written, so a flush has nothing to lose.
    read_only: bool,
    /// Bytes from the end of the file at open to the capacity, if that is more; they read zeros.
    tail: Range<u64>,
    /// Length of the file, changed by growth only.
    len: Mutex<u64>,
    /// Steps in which it grows, bytes.
    step: u64,
    /// Set if transfers go around the page cache.
    direct: Option<Direct>,
    is_block: bool,
    flush_failed: AtomicBool,
    no_punch: AtomicBool,
    no_zero_range: AtomicBool,
}

impl Target {
    /// A file of `len` bytes that counts as `geometry` says.
    pub(super) fn new(file: File, len: u64, geometry: &Geometry, is_block: bool) -> Target {
        Target {
            file,
            read_only: geometry.read_only,
            tail: len..geometry.capacity_bytes,
            len: Mutex::new(geometry.capacity_bytes),
            step: u64::from(geometry.logical_block_bytes),
            direct: None,
            is_block,
            flush_failed: AtomicBool::new(false),
            no_punch: AtomicBool::new(false),
            no_zero_range: AtomicBool::new(false),
        }
    }

    /// Says that the file was opened for direct I/O. `None` if there is no memory.
    pub(super) fn with_direct(self, align: DirectAlign) -> Option<Target> {
        let bounce = Mutex::new(AlignedBuffer::new(BOUNCE_BYTES)?);
        let direct = Some(Direct { align, bounce });
        Some(Target { direct, ..self })
    }

    pub(super) fn is_block(&self) -> bool {
        self.is_block
    }

    pub(super) fn is_direct(&self) -> bool {
        self.direct.is_some()
    }

    /// Whether the memory of `op` can not be named to the kernel as it is.
    pub(super) fn is_misfit(&self, op: &Op) -> bool {
        self.direct
            .as_ref()
            .is_some_and(|direct| !sys::is_aligned(op, direct.align))
    }

    /// Whether the rest of a transfer that stopped there can go on as it began.
    pub(super) fn can_go_on(&self, offset: u64) -> bool {
        let align = self.direct.as_ref().map_or(1, |direct| direct.align.offset);
        offset.is_multiple_of(u64::from(align))
    }

    /// Bytes in the file when it was opened.
    pub(super) fn len_at_open(&self) -> u64 {
        self.tail.start
    }

    /// Carries out `op` and sets its status.
    pub(super) fn execute(&self, op: &mut Op) {
        let head = op.head();
        let result = match head.kind {
            OpKind::Read => self.transfer(op, Direction::Read),
            OpKind::Write => self.transfer(op, Direction::Write),
            OpKind::Flush => self.flush(),
            OpKind::Discard => self.discard(head.offset, head.len),
            OpKind::WriteZeroes => {
                let may_unmap = head.flags.contains(OpFlags::MAY_UNMAP);
                self.zero(head.offset, head.len, may_unmap)
            }
            OpKind::Grow => self.grow(head.len),
            _ => Err(DeviceError::Unsupported),
        };
        op.complete(result);
    }

    fn transfer(&self, op: &mut Op, direction: Direction) -> Result<(), DeviceError> {
        if let Some(direct) = self.direct.as_ref().filter(|_| self.is_misfit(op)) {
            return self.transfer_by_bounce(op, direction, direct);
        }
        let mut done = 0;
        while done < op.bytes() {
            let result = retry(|| sys::transfer_some(&self.file, op, direction, done));
            let moved = result.map_err(|error| self.transfer_error(op, &error))?;
            done += moved;
            let stuck = moved == 0 || !self.can_go_on(op.offset() + done);
            if let Some(result) = self.end_of_transfer(op, done, stuck) {
                return result;
            }
        }
        Ok(())
    }

    /// What a transfer came to that did not fail and moved `done` bytes in all. `None` if it can go
    /// on; `stuck` if it can not: nothing moved, or direct I/O stopped inside a block.
    pub(super) fn end_of_transfer(
        &self,
        op: &mut Op,
        done: u64,
        stuck: bool,
    ) -> Option<Result<(), DeviceError>> {
        if done >= op.bytes() {
            Some(Ok(()))
        } else if !stuck {
            None
        } else if op.kind() == OpKind::Read {
            Some(self.read_past_end(op, done))
        } else {
            Some(Err(DeviceError::Io))
        }
    }

    /// The error for a transfer that failed. A write that was to be durable is a flush too.
    pub(super) fn transfer_error(&self, op: &Op, error: &io::Error) -> DeviceError {
        if op.flags().contains(OpFlags::FUA) {
            self.flush_failed.store(true, Ordering::Release);
        }
        device_error(error)
    }

    /// A transfer by way of aligned memory, since its own is not.
    fn transfer_by_bounce(
        &self,
        op: &mut Op,
        direction: Direction,
        direct: &Direct,
    ) -> Result<(), DeviceError> {
        let mut bounce = lock(&direct.bounce);
        let mut done = 0;
        while done < op.bytes() {
            let piece = (op.bytes() - done).min(BOUNCE_BYTES as u64) as usize;
            let part = &mut bounce[..piece];
            let at = op.offset() + done;
            let moved = match direction {
                Direction::Read => retry(|| self.file.read_at(part, at)),
                Direction::Write => {
                    op.copy_out(done, part);
                    retry(|| self.file.write_at(part, at))
                }
            };
            let moved = moved.map_err(|error| self.transfer_error(op, &error))?;
            if direction == Direction::Read {
                op.copy_in(done, &part[..moved]);
            }
            done += moved as u64;
            let stuck = moved == 0 || !self.can_go_on(at + moved as u64);
            if let Some(result) = self.end_of_transfer(op, done, stuck) {
                result?;
                break;
            }
        }
        drop(bounce);
        if op.flags().contains(OpFlags::FUA) {
            return self.flush();
        }
        Ok(())
    }

    /// The rest of a read that met the end of the file: zeros in the last, partial block, an error
    /// anywhere else, since a file that became shorter has lost its content.
    fn read_past_end(&self, op: &mut Op, done: u64) -> Result<(), DeviceError> {
        let rest = op.bytes() - done;
        let missing = op.offset() + done..op.offset() + op.bytes();
        if missing.start < self.tail.start || missing.end > self.tail.end {
            return Err(DeviceError::Io);
        }
        op.fill(done, rest, 0);
        Ok(())
    }

    fn flush(&self) -> Result<(), DeviceError> {
        if self.has_failed_flush() {
            return Err(DeviceError::Io);
        }
        self.end_of_flush(retry(|| self.file.sync_data()))
    }

    /// Whether a flush can not succeed any more (invariant 3).
    pub(super) fn has_failed_flush(&self) -> bool {
        self.flush_failed.load(Ordering::Acquire)
    }

    /// What a sync came to.
    pub(super) fn end_of_flush(&self, result: io::Result<()>) -> Result<(), DeviceError> {
        match result {
            Ok(()) => Ok(()),
            // Some read-only file systems and devices refuse to sync; there is nothing to lose.
            Err(_) if self.read_only => Ok(()),
            Err(_) => {
                self.flush_failed.store(true, Ordering::Release);
                Err(DeviceError::Io)
            }
        }
    }

    /// Tells a block device that a range is not needed; a file gives the space back.
    fn discard(&self, offset: u64, len: u64) -> Result<(), DeviceError> {
        if self.is_block {
            let result = retry(|| sys::discard_blocks(&self.file, offset, len));
            return result.map_err(|error| device_error(&error));
        }
        self.zero(offset, len, true)
    }

    /// Makes a range read zeros, by the cheapest way that the file system has.
    fn zero(&self, offset: u64, len: u64, may_unmap: bool) -> Result<(), DeviceError> {
        // Each way that is missing is noted, so that this ends.
        while let Some(mode) = self.zero_mode(may_unmap) {
            let result = retry(|| sys::zero_range(&self.file, mode, offset, len));
            if let Some(result) = self.end_of_zero(mode, result) {
                return result;
            }
        }
        self.write_zeroes(offset, len)
    }

    /// The cheapest way to zero a range that is not known to be missing.
    pub(super) fn zero_mode(&self, may_unmap: bool) -> Option<ZeroMode> {
        let ways = [
            (ZeroMode::PunchHole, may_unmap),
            (ZeroMode::ZeroRange, true),
        ];
        let has = |mode| !self.is_missing(mode).load(Ordering::Relaxed);
        ways.into_iter()
            .find(|(mode, allowed)| *allowed && has(*mode))
            .map(|(mode, _)| mode)
    }

    fn is_missing(&self, mode: ZeroMode) -> &AtomicBool {
        match mode {
            ZeroMode::PunchHole => &self.no_punch,
            ZeroMode::ZeroRange => &self.no_zero_range,
        }
    }

    /// What zeroing by `mode` came to; `None` if there is no such way here.
    pub(super) fn end_of_zero(
        &self,
        mode: ZeroMode,
        result: io::Result<()>,
    ) -> Option<Result<(), DeviceError>> {
        match result {
            Err(error) if is_unsupported(&error) => {
                self.is_missing(mode).store(true, Ordering::Relaxed);
                None
            }
            result => Some(result.map_err(|error| device_error(&error))),
        }
    }

    fn write_zeroes(&self, offset: u64, len: u64) -> Result<(), DeviceError> {
        let mut done = 0;
        while done < len {
            let piece = (len - done).min(ZEROES_BYTES as u64) as usize;
            match self.file.write_at(&ZEROES.0[..piece], offset + done) {
                Ok(0) => return Err(DeviceError::Io),
                Ok(moved) => done += moved as u64,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(device_error(&error)),
            }
        }
        Ok(())
    }

    /// Extends the file. The lock keeps two growths from undoing each other: `set_len` also shrinks.
    fn grow(&self, bytes: u64) -> Result<(), DeviceError> {
        let bytes = whole_blocks(bytes, self.step);
        let mut len = lock(&self.len);
        if bytes <= *len {
            return Ok(());
        }
        retry(|| self.file.set_len(bytes)).map_err(|error| device_error(&error))?;
        *len = bytes;
        Ok(())
    }

    /// Whether the file system can give space back. Asks by a hole beyond the end of the file, where
    /// there is nothing to lose.
    pub(super) fn can_punch(&self, beyond: u64) -> bool {
        retry(|| sys::zero_range(&self.file, ZeroMode::PunchHole, beyond, 4096)).is_ok()
    }
}

/// `bytes`, rounded up to whole blocks.
pub(super) fn whole_blocks(bytes: u64, block: u64) -> u64 {
    bytes.checked_next_multiple_of(block).unwrap_or(u64::MAX)
}

/// Takes space for the first `len` bytes of a new file, so that writing there can not fail for want of
/// space. Where the file system can not do that, the file just becomes so long.
///
/// # Errors
/// What the system says; notably that there is no such space.
pub fn reserve(file: &File, len: u64) -> io::Result<()> {
    if len == 0 {
        return Ok(());
    }
    match retry(|| sys::preallocate(file, len)) {
        Err(error) if is_unsupported(&error) => {
            let longer = file.metadata()?.len() < len;
            if longer { file.set_len(len) } else { Ok(()) }
        }
        result => result,
    }
}

/// No code panics while it holds a lock.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EOPNOTSUPP | libc::ENOSYS | libc::EINVAL | libc::ENODEV)
    )
}

/// The device error for a failed call.
pub(super) fn device_error(error: &io::Error) -> DeviceError {
    match error.raw_os_error() {
        Some(libc::ENOSPC | libc::EDQUOT | libc::EFBIG) => DeviceError::NoSpace,
        Some(libc::ENXIO | libc::ENODEV) => DeviceError::Removed,
        Some(libc::EROFS) => DeviceError::ReadOnly,
        _ => DeviceError::Io,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn os(code: i32) -> io::Error {
        io::Error::from_raw_os_error(code)
    }

    #[test]
    fn errors_of_the_system_keep_their_kind() {
        for (code, expected) in [
            (libc::ENOSPC, DeviceError::NoSpace),
            (libc::EDQUOT, DeviceError::NoSpace),
            (libc::EFBIG, DeviceError::NoSpace),
            (libc::EIO, DeviceError::Io),
            (libc::ENXIO, DeviceError::Removed),
            (libc::EROFS, DeviceError::ReadOnly),
        ] {
            assert_eq!(device_error(&os(code)), expected, "{code}");
        }
    }

    #[test]
    fn interrupted_calls_are_repeated() {
        let mut calls = 0;
        let result = retry(|| {
            calls += 1;
            if calls < 3 {
                Err(os(libc::EINTR))
            } else {
                Ok(calls)
            }
        });
        assert_eq!(result.expect("at last"), 3);
    }

    #[test]
    fn reserved_space_is_taken_and_reads_zeros() {
        use std::os::unix::fs::MetadataExt;
        let file = tempfile::tempfile().expect("temporary file");
        file.write_all_at(b"kept", 0).expect("write");
        reserve(&file, 1 << 20).expect("space");
        let metadata = file.metadata().expect("metadata");
        assert_eq!(metadata.len(), 1 << 20);
        assert!(
            metadata.blocks() * 512 >= 1 << 20,
            "{} blocks",
            metadata.blocks()
        );
        let mut bytes = [1; 8];
        file.read_exact_at(&mut bytes, 0).expect("read");
        assert_eq!(&bytes, b"kept\0\0\0\0");
        reserve(&file, 4096).expect("there already");
        assert_eq!(file.metadata().expect("metadata").len(), 1 << 20);
    }

    #[test]
    fn a_flush_after_a_failed_flush_fails() {
        let file = tempfile::tempfile().expect("temporary file");
        let target = Target::new(file, 0, &Geometry::basic(0), false);
        assert_eq!(target.flush(), Ok(()));
        target.flush_failed.store(true, Ordering::Release);
        assert_eq!(target.flush(), Err(DeviceError::Io));
    }

    #[test]
    fn zeros_are_written_where_the_file_system_can_not_make_them() {
        let file = tempfile::tempfile().expect("temporary file");
        let bytes = vec![7u8; 3 * ZEROES_BYTES];
        file.write_all_at(&bytes, 0).expect("write");
        let len = bytes.len() as u64;
        let target = Target::new(file, len, &Geometry::basic(len), false);
        target.no_punch.store(true, Ordering::Relaxed);
        target.no_zero_range.store(true, Ordering::Relaxed);
        target
            .zero(512, 2 * ZEROES_BYTES as u64, true)
            .expect("zeros");
        let mut back = vec![0u8; bytes.len()];
        target.file.read_exact_at(&mut back, 0).expect("read");
        let end = 512 + 2 * ZEROES_BYTES;
        assert!(back[..512].iter().all(|&byte| byte == 7));
        assert!(back[512..end].iter().all(|&byte| byte == 0));
        assert!(back[end..].iter().all(|&byte| byte == 7));
    }
}
