//! The kinds of image: how they are made and opened.

use core::num::NonZeroU64;
use std::error::Error;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use fvd::blocking::{Blocking, blocking_arena_bytes};
use fvd::format::{
    BaseParams, CreateParams, FormatName, ImageId, JournalChoice, Name, plan_layout,
};
use fvd_std::arena::HeapArena;
use fvd_std::drive::Driver;
use fvd_std::file::{FileDevice, FileOptions};
use fvd_std::image::{self, Access, BaseFormat, Image, Parts};

use super::stamp::{self, SECTOR, Value};

/// Sectors of every disk: 16 MiB.
pub const DISK_SECTORS: u32 = 32_768;

/// Sectors of a base that ends early, inside a block of the disk.
const SHORT_BASE_SECTORS: u32 = 10_003;

const BLOCK_BYTES: u64 = 4 << 10;
const CHUNK_BYTES: u64 = 64 << 10;

/// The shortest legal journal, so that checkpoints are frequent.
const JOURNAL_BYTES: u64 = 4 * ATOMIC_BYTES as u64;

/// What a file declares.
const ATOMIC_BYTES: u32 = 4096;

/// Small steps, so that the file grows often.
const GROW_BYTES: NonZeroU64 = NonZeroU64::new(4 * CHUNK_BYTES).unwrap();

/// Bytes read at once.
const READ_BYTES: usize = 1 << 20;

type Result<T> = core::result::Result<T, Box<dyn Error>>;

/// A kind of image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ground {
    pub name: &'static str,
    table: bool,
    base_sectors: u32,
    two_files: bool,
}

pub const GROUNDS: [Ground; 6] = [
    ground("plain", true, 0, false),
    ground("base", true, DISK_SECTORS, false),
    ground("short", true, SHORT_BASE_SECTORS, false),
    ground("two", true, SHORT_BASE_SECTORS, true),
    ground("flat", false, SHORT_BASE_SECTORS, false),
    ground("raw", false, 0, false),
];

const fn ground(name: &'static str, table: bool, base_sectors: u32, two_files: bool) -> Ground {
    Ground {
        name,
        table,
        base_sectors,
        two_files,
    }
}

impl Ground {
    pub fn named(name: &str) -> Option<Ground> {
        GROUNDS.into_iter().find(|ground| ground.name == name)
    }

    /// Whether this kind has metadata that change.
    pub fn has_journal(&self) -> bool {
        self.table || self.base_sectors != 0
    }

    pub fn has_base(&self) -> bool {
        self.base_sectors != 0
    }

    /// Whether the file grows.
    pub fn grows(&self) -> bool {
        self.table
    }

    /// What a new disk shows.
    pub fn initial(&self, sector: u32) -> Value {
        if sector < self.base_sectors {
            Value::BASE
        } else {
            Value::ZERO
        }
    }

    pub fn image_path(folder: &Path) -> PathBuf {
        folder.join("disk.fvd")
    }

    fn parts(&self, folder: &Path) -> Parts {
        let base = || (folder.join("base.raw"), BaseFormat::Raw);
        Parts {
            base: self.has_base().then(base),
            data_file: self.two_files.then(|| folder.join("data")),
            ..Parts::default()
        }
    }

    /// Makes the files of a new image.
    pub fn create(&self, folder: &Path, id: [u8; 16]) -> Result<()> {
        if self.has_base() {
            let mut base = vec![0; self.base_sectors as usize * SECTOR];
            for (sector, bytes) in (0..).zip(base.chunks_exact_mut(SECTOR)) {
                stamp::write(Value::BASE, sector, bytes);
            }
            fs::write(folder.join("base.raw"), base)?;
        }
        let base = self.has_base().then_some(BaseParams {
            name: Name::EMPTY,
            format: FormatName::EMPTY,
            bytes: u64::from(self.base_sectors) * SECTOR as u64,
            id: [0; 16],
            generation: 0,
        });
        let journal = if self.has_journal() {
            JournalChoice::Bytes(JOURNAL_BYTES)
        } else {
            JournalChoice::None
        };
        let header = plan_layout(&CreateParams {
            block_bytes: BLOCK_BYTES,
            chunk_bytes: CHUNK_BYTES,
            table: self.table,
            base,
            journal,
            atomic_unit: ATOMIC_BYTES,
            grow_bytes: Some(GROW_BYTES),
            external_data: self.two_files,
            ..CreateParams::new(u64::from(DISK_SECTORS) * SECTOR as u64, ImageId(id))
        })?;
        let new = |path| {
            File::options()
                .read(true)
                .write(true)
                .create_new(true)
                .open(path)
        };
        let image = new(Ground::image_path(folder))?;
        if self.two_files {
            image.set_len(image::metadata_bytes(&header))?;
            new(folder.join("data"))?.set_len(header.store_bytes)?;
        } else {
            image.set_len(header.store_bytes)?;
        }
        let device = FileDevice::from_file(image, &FileOptions::default())?;
        image::create(&mut Driver::new(), device, header, true)?;
        Ok(())
    }

    pub fn open(&self, driver: &mut Driver, folder: &Path, access: Access) -> Result<Image> {
        let path = Ground::image_path(folder);
        Ok(Image::open(driver, &path, access, &self.parts(folder))?)
    }

    /// Opens the image, hands every sector to `look`, and closes it.
    pub fn read_all(
        &self,
        folder: &Path,
        access: Access,
        mut look: impl FnMut(u32, &[u8]) -> Result<()>,
    ) -> Result<()> {
        let mut driver = Driver::new();
        let image = self.open(&mut driver, folder, access)?;
        let memory = HeapArena::new(blocking_arena_bytes(READ_BYTES as u32));
        let (heap, memory) = memory.ok_or("no memory")?;
        let disk = Blocking::new(image, memory, driver.idle());
        let mut disk = disk.map_err(|_| "too little memory")?;
        let mut bytes = vec![0; READ_BYTES];
        let pieces = DISK_SECTORS as usize * SECTOR / READ_BYTES;
        for piece in 0..pieces {
            disk.read_at((piece * READ_BYTES) as u64, &mut bytes)?;
            let first = (piece * READ_BYTES / SECTOR) as u32;
            for (sector, bytes) in (first..).zip(bytes.chunks_exact(SECTOR)) {
                look(sector, bytes)?;
            }
        }
        let (image, memory) = disk.into_parts();
        drop(memory.map(|memory| heap.redeem(memory)));
        image.close(&mut driver)?;
        Ok(())
    }

    /// What `fvd check` asks of an image that was closed; opening it proved the rest.
    pub fn check_clean(&self, folder: &Path) -> Result<()> {
        let found = image::read_header(&Ground::image_path(folder))?;
        if !found.header.core.clean_shutdown || !found.both_slots_valid {
            return Err("the image was closed, and its header does not say so".into());
        }
        Ok(())
    }
}
