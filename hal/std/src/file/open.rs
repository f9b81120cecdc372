//! Opening a file as a device: what is accepted, the lock, and what the device says of itself.

use core::fmt;
use core::time::Duration;
use std::fs::{self, File, Metadata, OpenOptions, TryLockError};
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::thread;
use std::time::Instant;

use fvd::buffer::SEGMENTS_MAX;
use fvd::device::{DiscardLimits, Geometry, Growth, WriteZeroesLimits};
use fvd::units::SECTOR_BYTES;

use super::execute::{self, Target};
use super::sys::{self, DirectAlign};

/// Page of the page cache, and block of all but very old media and file systems, bytes.
const PAGE_BYTES: u32 = 4096;

/// Longest transfer, bytes. Linux moves at most 2 GiB less a page in one call.
const TRANSFER_MAX_BYTES: u32 = 1 << 30;

/// Longest zeroed or discarded range, bytes.
const RANGE_MAX_BYTES: u64 = 1 << 40;

/// Largest file to ask for, bytes: the largest page-aligned offset.
const FILE_MAX_BYTES: u64 = (i64::MAX as u64) & !(PAGE_BYTES as u64 - 1);

/// How long a lock is asked for.
pub const LOCK_PATIENCE: Duration = Duration::from_millis(500);

/// How to open a file or block device.
#[derive(Clone, Debug)]
pub struct FileOptions {
    /// Refuse everything that changes the file. Takes a shared lock instead of an exclusive one.
    pub read_only: bool,
    /// Lets a regular file grow, in steps of this many bytes. Ignored for a block device.
    pub grow_unit_bytes: Option<u64>,
    /// Threads that carry out operations, at least 1, if it is not the kernel that does. As many
    /// operations run at once.
    pub threads: usize,
    /// Overrides [`Geometry::atomic_write_bytes`]: a power of two, at least 512. Without it, what a
    /// block device names as its physical block, and 4096 for a regular file.
    pub atomic_write_bytes: Option<u32>,
    /// Leaves out the bytes behind the last whole sector of a regular file. Without it they count as
    /// a sector that ends in zeros, as a raw disk of any size needs.
    pub whole_sectors: bool,
    /// Who carries out operations.
    pub aio: Aio,
    /// Whether data pass through the page cache.
    pub cache: Cache,
}

/// Who carries out the operations of a file device.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Aio {
    /// The kernel where it offers `io_uring`, else threads.
    #[default]
    Auto,
    /// Threads of this process.
    Threads,
    /// The kernel, through `io_uring`; opening fails if it refuses.
    IoUring,
}

/// Whether data pass through the page cache of the kernel.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Cache {
    /// They do.
    #[default]
    Buffered,
    /// They go straight between memory and medium (`O_DIRECT`) where the file system can do that;
    /// [`FileDevice::is_direct`](super::FileDevice::is_direct) tells. What its blocks are is then in
    /// the geometry, and memory that does not fit its alignment is copied on the way.
    Direct,
}

impl Default for FileOptions {
    /// Read and write, no growth, `io_uring` or else 8 threads, through the page cache.
    fn default() -> FileOptions {
        FileOptions {
            read_only: false,
            grow_unit_bytes: None,
            threads: 8,
            atomic_write_bytes: None,
            whole_sectors: false,
            aio: Aio::Auto,
            cache: Cache::Buffered,
        }
    }
}

impl FileOptions {
    /// The defaults, but read-only.
    #[must_use]
    pub fn read_only() -> FileOptions {
        FileOptions {
            read_only: true,
            ..FileOptions::default()
        }
    }
}

/// Why a file can not be used as a device.
#[derive(Debug)]
#[non_exhaustive]
pub enum OpenError {
    /// Somebody else has it open: for writing, or at all if it was to be opened for writing.
    Locked,
    /// It is a directory, a pipe, a terminal or something else that holds no blocks.
    NotAStore,
    /// An option has a value that makes no sense.
    BadOption(&'static str),
    /// The kernel refuses `io_uring`, and nothing else was asked for.
    NoIoUring(io::Error),
    /// The system refused.
    Io(io::Error),
}

impl fmt::Display for OpenError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            OpenError::Locked => f.write_str("locked: it is open elsewhere"),
            OpenError::NotAStore => f.write_str("neither a regular file nor a block device"),
            OpenError::BadOption(what) => f.write_str(what),
            OpenError::NoIoUring(error) => {
                write!(f, "the kernel refuses io_uring, use threads: {error}")
            }
            OpenError::Io(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for OpenError {
    fn source(&self) -> Option<&(dyn core::error::Error + 'static)> {
        match self {
            OpenError::Io(error) | OpenError::NoIoUring(error) => Some(error),
            _ => None,
        }
    }
}

impl From<io::Error> for OpenError {
    fn from(error: io::Error) -> OpenError {
        OpenError::Io(error)
    }
}

/// What tells one file from another, whatever names lead to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FileId {
    /// File system and file number.
    Regular(u64, u64),
    /// Device number.
    Block(u64),
}

/// Opens `path` itself. Does not wait for the other end of a pipe.
pub(crate) fn open_path(path: &Path, read_only: bool) -> Result<File, OpenError> {
    let file = OpenOptions::new()
        .read(true)
        .write(!read_only)
        .custom_flags(libc::O_NONBLOCK)
        .open(path);
    file.map_err(|error| match error.raw_os_error() {
        // What a directory, a socket and a pipe without a reader answer.
        Some(libc::EISDIR | libc::ENXIO) => OpenError::NotAStore,
        _ => OpenError::Io(error),
    })
}

/// Locks a file, finds out what it is, and describes it.
pub(super) fn prepare(
    mut file: File,
    options: &FileOptions,
) -> Result<(Target, Geometry, FileId), OpenError> {
    check_options(options)?;
    let metadata = file.metadata()?;
    let id = identify(&metadata)?;
    lock(&file, options.read_only)?;
    sys::set_blocking(&file)?;
    let align = match options.cache {
        Cache::Direct => sys::set_direct(&file)?,
        Cache::Buffered => None,
    };
    let (len, geometry) = match id {
        FileId::Regular(..) => {
            // Asked again: a writer that held the lock until now may have changed it.
            let len = file.metadata()?.len();
            (len, regular_geometry(len, align, options))
        }
        FileId::Block(_) => {
            let len = file.seek(SeekFrom::End(0))?;
            let (logical, physical) = sys::block_sizes(&file)?;
            let logical = align.map_or(logical, |align| logical.max(align.offset));
            (len, block_geometry(len, logical, physical, options)?)
        }
    };
    let geometry = Geometry {
        memory_align_bytes: align.map_or(1, |align| align.memory),
        ..geometry
    };
    let target = Target::new(file, len, &geometry, matches!(id, FileId::Block(_)));
    let target = match align {
        Some(align) => target.with_direct(align),
        None => Some(target),
    };
    let target = target.ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
    let geometry = Geometry {
        discard: discard_limits(&target, id, &geometry),
        ..geometry
    };
    Ok((target, geometry, id))
}

fn check_options(options: &FileOptions) -> Result<(), OpenError> {
    if options.threads == 0 {
        return Err(OpenError::BadOption(
            "a file device needs at least one thread",
        ));
    }
    if options.grow_unit_bytes == Some(0) {
        return Err(OpenError::BadOption("a growth unit of 0 bytes"));
    }
    match options.atomic_write_bytes {
        Some(bytes) if !bytes.is_power_of_two() || u64::from(bytes) < SECTOR_BYTES => {
            let what = "the atomic write unit is not a power of two of at least 512 bytes";
            Err(OpenError::BadOption(what))
        }
        _ => Ok(()),
    }
}

fn identify(metadata: &Metadata) -> Result<FileId, OpenError> {
    let kind = metadata.file_type();
    if kind.is_file() {
        Ok(FileId::Regular(metadata.dev(), metadata.ino()))
    } else if kind.is_block_device() {
        Ok(FileId::Block(metadata.rdev()))
    } else {
        Err(OpenError::NotAStore)
    }
}

/// Takes the lock. The kernel may be carrying out requests of a process that was killed, and keeps
/// the file locked until it has: so one that is taken is asked for again for a while.
fn lock(file: &File, read_only: bool) -> Result<(), OpenError> {
    let give_up = Instant::now() + LOCK_PATIENCE;
    loop {
        let locked = if read_only {
            file.try_lock_shared()
        } else {
            file.try_lock()
        };
        match locked {
            Ok(()) => return Ok(()),
            Err(TryLockError::Error(error)) => return Err(OpenError::Io(error)),
            Err(TryLockError::WouldBlock) if Instant::now() >= give_up => {
                return Err(OpenError::Locked);
            }
            Err(TryLockError::WouldBlock) => thread::sleep(LOCK_PATIENCE / 100),
        }
    }
}

/// What all files have in common.
fn common_geometry(capacity_bytes: u64, options: &FileOptions) -> Geometry {
    Geometry {
        capacity_bytes,
        logical_block_bytes: SECTOR_BYTES as u32,
        physical_block_bytes: PAGE_BYTES,
        atomic_write_bytes: options.atomic_write_bytes.unwrap_or(PAGE_BYTES),
        memory_align_bytes: 1,
        transfer_max_bytes: TRANSFER_MAX_BYTES,
        segments_max: SEGMENTS_MAX as u16,
        segment_max_bytes: TRANSFER_MAX_BYTES,
        queue_depth: u16::try_from(options.threads.saturating_mul(4)).unwrap_or(u16::MAX),
        read_only: options.read_only,
        volatile_cache: true,
        fua: true,
        discard: None,
        write_zeroes: (!options.read_only).then_some(WriteZeroesLimits {
            max_bytes: RANGE_MAX_BYTES,
            may_unmap: true,
        }),
        growth: None,
    }
}

fn regular_geometry(len: u64, align: Option<DirectAlign>, options: &FileOptions) -> Geometry {
    let logical = align.map_or(SECTOR_BYTES as u32, |align| align.offset);
    let block = u64::from(logical);
    let growth = match options.grow_unit_bytes {
        Some(unit_bytes) if !options.read_only => Some(Growth {
            unit_bytes,
            max_bytes: FILE_MAX_BYTES,
            zeroed: true,
        }),
        _ => None,
    };
    let capacity = if options.whole_sectors {
        len - len % block
    } else {
        execute::whole_blocks(len, block)
    };
    Geometry {
        growth,
        logical_block_bytes: logical,
        ..common_geometry(capacity, options)
    }
}

fn block_geometry(
    len: u64,
    logical: u32,
    physical: u32,
    options: &FileOptions,
) -> Result<Geometry, OpenError> {
    let sane = |bytes: u32| bytes.is_power_of_two() && u64::from(bytes) >= SECTOR_BYTES;
    if !sane(logical) || !sane(physical) {
        let what = "the block device names impossible block sizes";
        return Err(OpenError::Io(io::Error::new(
            io::ErrorKind::InvalidData,
            what,
        )));
    }
    let physical = physical.max(logical);
    Ok(Geometry {
        logical_block_bytes: logical,
        physical_block_bytes: physical,
        atomic_write_bytes: options.atomic_write_bytes.unwrap_or(physical),
        ..common_geometry(len - len % u64::from(logical), options)
    })
}

/// Discard is offered where holes can be punched, and where a block device says that it can.
fn discard_limits(target: &Target, id: FileId, geometry: &Geometry) -> Option<DiscardLimits> {
    if geometry.read_only {
        return None;
    }
    if let FileId::Block(device) = id {
        return block_discard_limits(device, geometry);
    }
    // The file may be longer than what counts of it.
    let beyond = geometry
        .capacity_bytes
        .max(target.len_at_open())
        .next_multiple_of(u64::from(PAGE_BYTES));
    target.can_punch(beyond).then_some(DiscardLimits {
        granularity_bytes: PAGE_BYTES,
        max_bytes: RANGE_MAX_BYTES,
        zeroes_after: true,
    })
}

/// What the kernel says that a block device can discard. What such a range reads afterwards is the
/// device's own affair.
fn block_discard_limits(device: u64, geometry: &Geometry) -> Option<DiscardLimits> {
    let (major, minor) = (libc::major(device), libc::minor(device));
    let of = |place: &str, name: &str| -> Option<u64> {
        let path = format!("/sys/dev/block/{major}:{minor}/{place}queue/{name}");
        fs::read_to_string(path).ok()?.trim().parse().ok()
    };
    // A partition has the queue of its disk.
    let limit = |name: &str| of("", name).or_else(|| of("../", name));
    let max_bytes = limit("discard_max_bytes").filter(|bytes| *bytes != 0)?;
    let granularity = limit("discard_granularity")?.max(u64::from(geometry.logical_block_bytes));
    Some(DiscardLimits {
        granularity_bytes: u32::try_from(granularity).ok()?,
        max_bytes: max_bytes.min(RANGE_MAX_BYTES),
        zeroes_after: false,
    })
}
