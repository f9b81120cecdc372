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
use std::sync::{Mutex, PoisonError};

use fvd::buffer::Op;
use fvd::device::{DeviceError, OpFlags, OpKind};
use fvd::units::SECTOR_BYTES;

use super::sys::{self, Direction, ZeroMode};

/// Bytes of zeros written at once where a file system can not zero a range itself.
const ZEROES_BYTES: usize = 64 << 10;
static ZEROES: [u8; ZEROES_BYTES] = [0; ZEROES_BYTES];

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
    flush_failed: AtomicBool,
    no_punch: AtomicBool,
    no_zero_range: AtomicBool,
}

impl Target {
    /// A file of `len` bytes that counts as `capacity` bytes long.
    pub(super) fn new(file: File, read_only: bool, len: u64, capacity: u64) -> Target {
        Target {
            file,
            read_only,
            tail: len..capacity,
            len: Mutex::new(capacity),
            flush_failed: AtomicBool::new(false),
            no_punch: AtomicBool::new(false),
            no_zero_range: AtomicBool::new(false),
        }
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
            OpKind::Discard => self.zero(head.offset, head.len, true),
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
        let mut done = 0;
        while done < op.bytes() {
            match sys::transfer_some(&self.file, op, direction, done) {
                Ok(0) if direction == Direction::Read => {
                    return self.read_past_end(op, done);
                }
                Ok(0) => return Err(DeviceError::Io),
                Ok(moved) => done += moved,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(device_error(&error)),
            }
        }
        Ok(())
    }

    /// The rest of a read that met the end of the file: zeros in the last, partial sector, an error
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
        if self.flush_failed.load(Ordering::Acquire) {
            return Err(DeviceError::Io);
        }
        loop {
            match self.file.sync_data() {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // Some read-only file systems and devices refuse to sync; there is nothing to lose.
                Err(_) if self.read_only => return Ok(()),
                Err(_) => {
                    self.flush_failed.store(true, Ordering::Release);
                    return Err(DeviceError::Io);
                }
            }
        }
    }

    /// Makes a range read zeros, by the cheapest way that the file system has.
    fn zero(&self, offset: u64, len: u64, may_unmap: bool) -> Result<(), DeviceError> {
        let ways = [
            (ZeroMode::PunchHole, &self.no_punch, may_unmap),
            (ZeroMode::ZeroRange, &self.no_zero_range, true),
        ];
        for (mode, known_missing, allowed) in ways {
            if !allowed || known_missing.load(Ordering::Relaxed) {
                continue;
            }
            match retry(|| sys::zero_range(&self.file, mode, offset, len)) {
                Ok(()) => return Ok(()),
                Err(error) if is_unsupported(&error) => {
                    known_missing.store(true, Ordering::Relaxed)
                }
                Err(error) => return Err(device_error(&error)),
            }
        }
        self.write_zeroes(offset, len)
    }

    fn write_zeroes(&self, offset: u64, len: u64) -> Result<(), DeviceError> {
        let mut done = 0;
        while done < len {
            let piece = (len - done).min(ZEROES_BYTES as u64) as usize;
            match self.file.write_at(&ZEROES[..piece], offset + done) {
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
        let bytes = whole_sectors(bytes);
        let mut len = self.len.lock().unwrap_or_else(PoisonError::into_inner);
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

/// `bytes`, rounded up to whole sectors.
pub(super) fn whole_sectors(bytes: u64) -> u64 {
    bytes
        .checked_next_multiple_of(SECTOR_BYTES)
        .unwrap_or(u64::MAX)
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
fn device_error(error: &io::Error) -> DeviceError {
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
        let target = Target::new(file, false, 0, 0);
        assert_eq!(target.flush(), Ok(()));
        target.flush_failed.store(true, Ordering::Release);
        assert_eq!(target.flush(), Err(DeviceError::Io));
    }

    #[test]
    fn zeros_are_written_where_the_file_system_can_not_make_them() {
        let file = tempfile::tempfile().expect("temporary file");
        let bytes = vec![7u8; 3 * ZEROES_BYTES];
        file.write_all_at(&bytes, 0).expect("write");
        let target = Target::new(file, false, bytes.len() as u64, bytes.len() as u64);
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
