//! The file system on the disk: checks the files of the base, writes new ones.

use crate::agreed::{MANIFEST, NEW_FILES, new_file_pattern};
use crate::disk::WaitingDisk;
use core::cell::RefCell;
use core::str;
use embedded_sdmmc::{
    Block, BlockCount, BlockDevice, BlockIdx, Directory, Error, File, Mode, TimeSource, Timestamp,
    Volume, VolumeIdx, VolumeManager,
};
use fvd::device::DeviceError;
use sha2::{Digest, Sha256};

/// What went over the file system, for the report.
#[derive(Clone, Copy, Default)]
pub(crate) struct Tally {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

/// Memory for the work on files.
pub(crate) struct Buffers {
    /// The whole manifest.
    pub(crate) manifest: &'static mut [u8],
    /// A piece of a file.
    pub(crate) piece: &'static mut [u8],
}

type Result<T> = core::result::Result<T, Error<DeviceError>>;
type Mounted<'v, S> = Volume<'v, S, Clock, 4, 4, 1>;
type Folder<'v, S> = Directory<'v, S, Clock, 4, 4, 1>;
type OpenFile<'v, S> = File<'v, S, Clock, 4, 4, 1>;

/// The disk as `embedded-sdmmc` wants it: sectors of 512 bytes. The library reads and writes them
/// one by one and waits for each.
struct Sectors<'s, 'd>(&'s RefCell<WaitingDisk<'d>>);

impl BlockDevice for Sectors<'_, '_> {
    type Error = DeviceError;

    fn read(&self, blocks: &mut [Block], start: BlockIdx) -> core::result::Result<(), Self::Error> {
        let mut disk = self.0.borrow_mut();
        for (at, block) in start.range(BlockCount(blocks.len() as u32)).zip(blocks) {
            disk.read_at(at.into_bytes(), &mut block.contents)?;
        }
        Ok(())
    }

    fn write(&self, blocks: &[Block], start: BlockIdx) -> core::result::Result<(), Self::Error> {
        let mut disk = self.0.borrow_mut();
        for (at, block) in start.range(BlockCount(blocks.len() as u32)).zip(blocks) {
            disk.write_at(at.into_bytes(), &block.contents)?;
        }
        Ok(())
    }

    fn num_blocks(&self) -> core::result::Result<BlockCount, Self::Error> {
        use fvd::device::BlockDevice as _;
        let bytes = self.0.borrow().device().geometry().capacity_bytes;
        // The library's limit of 2 TiB; the rest of a larger disk is not seen.
        let sectors = u32::try_from(bytes / Block::LEN as u64).unwrap_or(u32::MAX);
        Ok(BlockCount(sectors))
    }
}

/// What the work on files asks for: sectors of a disk of fvd's.
trait Storage: BlockDevice<Error = DeviceError> {}

impl<S: BlockDevice<Error = DeviceError>> Storage for S {}

/// The kernel has no calendar: every file is of the first second that FAT can tell.
struct Clock;

impl TimeSource for Clock {
    fn get_timestamp(&self) -> Timestamp {
        Timestamp {
            year_since_1970: 10,
            zero_indexed_month: 0,
            zero_indexed_day: 0,
            hours: 0,
            minutes: 0,
            seconds: 0,
        }
    }
}

/// Mounts the first partition, checks every file of the manifest, then writes the new files.
/// Returns what was checked and what was written.
///
/// # Errors
///
/// What the file system or the disk below says.
///
/// # Panics
///
/// If a file is not as the manifest says.
pub(crate) fn run(
    disk: &RefCell<WaitingDisk<'_>>,
    seed: u64,
    buffers: &mut Buffers,
) -> Result<(Tally, Tally)> {
    let volumes = VolumeManager::new(Sectors(disk), Clock);
    let volume = volumes.open_volume(VolumeIdx(0))?;
    let checked = check_all(&volume, buffers)?;
    let mut written = Tally::default();
    for (path, bytes) in NEW_FILES {
        write_new(&volume, path, bytes, seed, buffers.piece)?;
        written.files += 1;
        written.bytes += bytes;
    }
    volume.close()?;
    Ok((checked, written))
}

fn check_all<S: Storage>(volume: &Mounted<'_, S>, buffers: &mut Buffers) -> Result<Tally> {
    let root = volume.open_root_dir()?;
    let file = root.open_file_in_dir(MANIFEST, Mode::ReadOnly)?;
    let space = &mut *buffers.manifest;
    assert!(
        file.length() as usize <= space.len(),
        "{MANIFEST} has {} bytes, and {} fit",
        file.length(),
        space.len()
    );
    let mut len = 0;
    while !file.is_eof() {
        len += file.read(&mut space[len..])?;
    }
    file.close()?;
    let Ok(manifest) = str::from_utf8(&space[..len]) else {
        panic!("{MANIFEST} is not text");
    };
    let mut tally = Tally::default();
    for line in manifest.lines() {
        let Some((expected, path)) = line.split_once("  ").and_then(|(hex, path)| {
            let digest = parse_digest(hex)?;
            Some((digest, path))
        }) else {
            panic!("{MANIFEST}: not a line of a manifest: {line}");
        };
        let (found, bytes) = digest_of(volume, path, buffers.piece)?;
        assert!(
            found == expected,
            "{path} ({bytes} bytes) is not what {MANIFEST} says"
        );
        tally.files += 1;
        tally.bytes += bytes;
    }
    Ok(tally)
}

/// SHA-256 and length of a file.
fn digest_of<S: Storage>(
    volume: &Mounted<'_, S>,
    path: &str,
    piece: &mut [u8],
) -> Result<([u8; 32], u64)> {
    let (folder, name) = enter(volume, path, false)?;
    let file = open_any(&folder, name)?;
    let mut hasher = Sha256::new();
    let mut bytes = 0;
    while !file.is_eof() {
        let len = file.read(piece)?;
        hasher.update(&piece[..len]);
        bytes += len as u64;
    }
    file.close()?;
    Ok((hasher.finalize().into(), bytes))
}

/// Opens a file by its short name or, if it cannot be one, by its long name.
fn open_any<'v, S: Storage>(folder: &Folder<'v, S>, name: &str) -> Result<OpenFile<'v, S>> {
    match folder.open_file_in_dir(name, Mode::ReadOnly) {
        Err(Error::FilenameError(_)) => folder.open_long_name_file_in_dir(name, Mode::ReadOnly),
        other => other,
    }
}

/// Writes one of the new files.
fn write_new<S: Storage>(
    volume: &Mounted<'_, S>,
    path: &str,
    bytes: u64,
    seed: u64,
    piece: &mut [u8],
) -> Result<()> {
    let (folder, name) = enter(volume, path, true)?;
    // The mode that fails if the file is there already.
    let file = folder.open_file_in_dir(name, Mode::ReadWriteCreate)?;
    let pattern = new_file_pattern(seed, path);
    // Not a multiple of a sector, so that some are written in two steps, the second of which reads
    // first.
    let step = piece.len() - 100;
    let mut done = 0;
    while done < bytes {
        let len = (bytes - done).min(step as u64) as usize;
        pattern.fill(done, &mut piece[..len]);
        file.write(&piece[..len])?;
        done += len as u64;
    }
    file.close()
}

/// Goes to the directory of `path`, making those that are missing if asked to. Returns it with the
/// last name of the path.
fn enter<'v, 'p, S: Storage>(
    volume: &Mounted<'v, S>,
    path: &'p str,
    make: bool,
) -> Result<(Folder<'v, S>, &'p str)> {
    let (parents, name) = path.rsplit_once('/').unwrap_or(("", path));
    let mut folder = volume.open_root_dir()?;
    for parent in parents.split('/').filter(|parent| !parent.is_empty()) {
        if make {
            match folder.make_dir_in_dir(parent) {
                Ok(()) | Err(Error::DirAlreadyExists) => {}
                Err(error) => return Err(error),
            }
        }
        folder.change_dir(parent)?;
    }
    Ok((folder, name))
}

/// 32 bytes from 64 hexadecimal digits.
fn parse_digest(hex: &str) -> Option<[u8; 32]> {
    let mut digest = [0; 32];
    if hex.len() != 2 * digest.len() || !hex.is_ascii() {
        return None;
    }
    for (index, byte) in digest.iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hex[2 * index..2 * index + 2], 16).ok()?;
    }
    Some(digest)
}
