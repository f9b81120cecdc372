//! System calls that the standard library does not offer, each behind a safe function.
//!
//! Memory of an operation is named to the kernel by raw pointers only: it may be shared with a
//! guest's processors, and no Rust reference may exist to such memory.
#![allow(unsafe_code)]

use core::ops::Range;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use fvd::buffer::{Op, SEGMENTS_MAX};
use fvd::device::OpFlags;

/// Which way a transfer goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    /// File to leases.
    Read,
    /// Leases to file.
    Write,
}

/// Moves bytes between the file and the leases of `op`, both from `done` bytes into the operation.
/// With FUA a write is durable when it returns.
///
/// Returns the bytes moved, often fewer than asked for: 0 from a read is the end of the file.
pub(super) fn transfer_some(
    file: &File,
    op: &mut Op,
    direction: Direction,
    done: u64,
) -> io::Result<u64> {
    let mut vectors = [const { EMPTY_VECTOR }; SEGMENTS_MAX];
    let count = fill_vectors(op, done, &mut vectors);
    let offset = signed(op.offset().saturating_add(done))?;
    let (fd, count) = (file.as_raw_fd(), count as libc::c_int);
    let durable = op.flags().contains(OpFlags::FUA);
    let moved = match direction {
        // SAFETY:
        // 1. `vectors[..count]` are initialised and outlive the call;
        // 2. each names memory of a lease in `op`, valid for reads and writes of its length for as
        //    long as `op` is owned, which `&mut op` proves for the whole call;
        // 3. the call is over when it returns: the kernel keeps no pointer to the memory.
        Direction::Read => unsafe { libc::preadv64(fd, vectors.as_ptr(), count, offset) },
        // SAFETY: as above.
        Direction::Write if durable => unsafe {
            libc::pwritev2(fd, vectors.as_ptr(), count, offset, libc::RWF_DSYNC)
        },
        // SAFETY: as above.
        Direction::Write => unsafe { libc::pwritev64(fd, vectors.as_ptr(), count, offset) },
    };
    u64::try_from(moved).map_err(|_| io::Error::last_os_error())
}

pub(super) const EMPTY_VECTOR: libc::iovec = libc::iovec {
    iov_base: core::ptr::null_mut(),
    iov_len: 0,
};

/// Names the memory of `op` after its first `skip` bytes. Returns the number of vectors, which may be
/// used for as long as `op` is owned.
pub(super) fn fill_vectors(
    op: &mut Op,
    skip: u64,
    vectors: &mut [libc::iovec; SEGMENTS_MAX],
) -> usize {
    let (mut skip, mut count) = (skip, 0);
    for index in 0..op.segment_count() {
        // SAFETY: nothing here uses the pointer. Those who hand it to the kernel own `op` until the
        // kernel is done with it.
        let Some((start, len)) = (unsafe { op.segment_raw(index) }) else {
            break;
        };
        if skip >= len as u64 {
            skip -= len as u64;
            continue;
        }
        // `skip` < `len`, so it fits a usize, and the result lies inside the lease.
        let inside = skip as usize;
        if let Some(vector) = vectors.get_mut(count) {
            vector.iov_base = start.as_ptr().wrapping_add(inside).cast();
            vector.iov_len = len - inside;
            count += 1;
        }
        skip = 0;
    }
    count
}

/// Whether direct I/O takes all memory of `op` as it is.
pub(super) fn is_aligned(op: &Op, align: DirectAlign) -> bool {
    (0..op.segment_count()).all(|index| {
        // SAFETY: only the address is looked at.
        let segment = unsafe { op.segment_raw(index) };
        segment.is_none_or(|(start, len)| {
            (start.as_ptr() as usize).is_multiple_of(align.memory as usize)
                && len.is_multiple_of(align.offset as usize)
        })
    })
}

/// Whether the file system of `file` lies in memory (tmpfs, ramfs).
pub(super) fn is_in_memory(file: &File) -> bool {
    const TMPFS_MAGIC: rustix::fs::FsWord = 0x0102_1994;
    const RAMFS_MAGIC: rustix::fs::FsWord = 0x8584_58f6;
    let found = rustix::fs::fstatfs(file);
    found.is_ok_and(|found| matches!(found.f_type, TMPFS_MAGIC | RAMFS_MAGIC))
}

/// How a range is made to read zeros without writing them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ZeroMode {
    /// Gives the space back.
    PunchHole,
    /// Keeps the space.
    ZeroRange,
}

impl ZeroMode {
    /// The mode of `fallocate`.
    pub(super) const fn flags(self) -> libc::c_int {
        libc::FALLOC_FL_KEEP_SIZE
            | match self {
                ZeroMode::PunchHole => libc::FALLOC_FL_PUNCH_HOLE,
                ZeroMode::ZeroRange => libc::FALLOC_FL_ZERO_RANGE,
            }
    }
}

/// Makes `offset..offset + len` read zeros. Never changes the length of the file.
pub(super) fn zero_range(file: &File, mode: ZeroMode, offset: u64, len: u64) -> io::Result<()> {
    let (offset, len) = (signed(offset)?, signed(len)?);
    // SAFETY: takes no pointers; the descriptor is open for as long as `file` is borrowed.
    let result = unsafe { libc::fallocate64(file.as_raw_fd(), mode.flags(), offset, len) };
    check(result)
}

/// Tells a block device that `offset..offset + len` is not needed any more.
pub(super) fn discard_blocks(file: &File, offset: u64, len: u64) -> io::Result<()> {
    let range = [offset, len];
    // SAFETY: BLKDISCARD reads two 64-bit numbers from the pointer, which is valid for the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), BLKDISCARD, range.as_ptr()) })
}

/// `_IO(0x12, 119)`, which libc does not have.
const BLKDISCARD: libc::Ioctl = 0x1277;

/// Alignments that direct I/O needs, bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct DirectAlign {
    /// Of memory.
    pub(super) memory: u32,
    /// Of offsets and lengths in the file.
    pub(super) offset: u32,
}

/// Has transfers of `file` wait for what they need, as a ring expects it of files that are opened
/// without waiting.
pub(super) fn set_blocking(file: &File) -> io::Result<()> {
    let flags = status_flags(file)?;
    set_status_flags(file, flags & !libc::O_NONBLOCK)
}

/// Has transfers of `file` go around the page cache. `None` if the file system can not do that.
pub(super) fn set_direct(file: &File) -> io::Result<Option<DirectAlign>> {
    let flags = status_flags(file)?;
    match set_status_flags(file, flags | libc::O_DIRECT) {
        Ok(()) => Ok(Some(direct_align(file))),
        Err(error) if error.raw_os_error() == Some(libc::EINVAL) => Ok(None),
        Err(error) => Err(error),
    }
}

fn status_flags(file: &File) -> io::Result<libc::c_int> {
    // SAFETY: takes no pointers; the descriptor is open for as long as `file` is borrowed.
    let flags = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETFL) };
    if flags < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(flags)
}

fn set_status_flags(file: &File, flags: libc::c_int) -> io::Result<()> {
    // SAFETY: takes no pointers; the descriptor is open for as long as `file` is borrowed.
    check(unsafe { libc::fcntl(file.as_raw_fd(), libc::F_SETFL, flags) })
}

/// What the kernel says of alignments; a page where it says nothing.
fn direct_align(file: &File) -> DirectAlign {
    const PAGE: u32 = 4096;
    let mut answer = core::mem::MaybeUninit::<libc::statx>::zeroed();
    let (fd, flags) = (file.as_raw_fd(), libc::AT_EMPTY_PATH);
    let mask = libc::STATX_DIOALIGN;
    // SAFETY: the path is a string that ends in a zero byte, and the answer has room for a `statx`.
    let result = unsafe { libc::statx(fd, c"".as_ptr(), flags, mask, answer.as_mut_ptr()) };
    // SAFETY: all zeros is a valid `statx`, and the kernel writes nothing but valid ones.
    let answer = unsafe { answer.assume_init() };
    let sane = |bytes: u32| (bytes.is_power_of_two() && bytes <= PAGE).then_some(bytes);
    let known = result == 0 && answer.stx_mask & mask != 0;
    let of = |bytes: u32| sane(bytes).filter(|_| known).unwrap_or(PAGE);
    DirectAlign {
        memory: of(answer.stx_dio_mem_align),
        offset: of(answer.stx_dio_offset_align).max(512),
    }
}

/// Takes space for the first `len` bytes of the file, which becomes at least so long. What was not
/// written before reads zeros.
pub(super) fn preallocate(file: &File, len: u64) -> io::Result<()> {
    let len = signed(len)?;
    // SAFETY: takes no pointers; the descriptor is open for as long as `file` is borrowed.
    check(unsafe { libc::fallocate64(file.as_raw_fd(), 0, 0, len) })
}

/// The first range of the file at or after `from` that may hold something else than zeros. `None` if
/// only zeros follow. `end` is the length of the file.
pub(super) fn next_data(file: &File, from: u64, end: u64) -> io::Result<Option<Range<u64>>> {
    if from >= end {
        return Ok(None);
    }
    match seek(file, from, libc::SEEK_DATA) {
        Ok(start) => {
            let stop = seek(file, start, libc::SEEK_HOLE)?;
            Ok((start < end).then(|| start..stop.min(end)))
        }
        Err(error) => match error.raw_os_error() {
            Some(libc::ENXIO) => Ok(None),
            // Block devices and some file systems know no holes: all of it may be data.
            Some(libc::EINVAL | libc::EOPNOTSUPP | libc::ENOSYS) => Ok(Some(from..end)),
            _ => Err(error),
        },
    }
}

/// Asks where data or a hole starts. Moves the file position, which nothing here uses.
fn seek(file: &File, from: u64, whence: libc::c_int) -> io::Result<u64> {
    let from = signed(from)?;
    // SAFETY: takes no pointers; the descriptor is open for as long as `file` is borrowed.
    let found = unsafe { libc::lseek64(file.as_raw_fd(), from, whence) };
    u64::try_from(found).map_err(|_| io::Error::last_os_error())
}

/// Logical and physical block size of a block device, bytes.
pub(super) fn block_sizes(file: &File) -> io::Result<(u32, u32)> {
    let (mut logical, mut physical) = (0 as libc::c_int, 0 as libc::c_uint);
    // SAFETY: BLKSSZGET writes one int to the pointer, which is valid for the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::BLKSSZGET, &raw mut logical) })?;
    // SAFETY: BLKPBSZGET writes one unsigned int to the pointer, which is valid for the call.
    check(unsafe { libc::ioctl(file.as_raw_fd(), libc::BLKPBSZGET, &raw mut physical) })?;
    let logical = u32::try_from(logical).map_err(|_| invalid("negative block size"))?;
    Ok((logical, physical))
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

fn signed(value: u64) -> io::Result<libc::off64_t> {
    libc::off64_t::try_from(value).map_err(|_| invalid("offset above 2^63"))
}

fn invalid(what: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, what)
}
