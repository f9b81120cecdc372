//! Images in host files: look at them, open them, make them, and drive them.
//!
//! | file | its one job |
//! | --- | --- |
//! | `header` | the header of an image that is not opened |
//! | `parts` | which files an image is made of, and who may say so |
//! | `base` | what shows through an image |
//! | `stores`, `session` | one open disk, whatever its stores are |
//! | `create` | a new image |
//! | `upkeep` | what is wrong with an image, and its repair |

mod base;
mod create;
mod error;
mod header;
mod parts;
mod session;
mod stores;
mod upkeep;

use core::ops::Range;
use core::task::Waker;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use fvd::Stats;
use fvd::buffer::Op;
use fvd::check::{Extent, Usage};
use fvd::device::{BlockDevice, Geometry, When};
use fvd::format::Header;
use fvd::open::OpenOptions;
use fvd::stores::{One, Two};
use fvd::units::Instant;

pub use base::Base;
pub use create::{create, metadata_bytes, whole_store_bytes};
pub use error::{ImageError, Part};
pub use header::{HeaderFile, header_faults, read_header};
pub use parts::{BaseFormat, Parts};
pub use stores::DeviceCounts;
pub use upkeep::{Inspected, inspect, repair};

use crate::drive::Driver;
use crate::file::{self, FileDevice, FileOptions};
use crate::sparse::SparseDevice;
use base::Absent;
use session::Session;
use stores::HostStores;

/// What an image is opened for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Access {
    /// Nothing is written: what a journal holds is replayed in memory only.
    ReadOnly,
    /// The guest may write, and recovery does.
    ReadWrite,
}

/// An open image: a disk, with everything below it.
///
/// End it by [`Image::close`]. Dropping it is like a power cut, and leaks its memory.
pub struct Image(Box<dyn Session>);

const _: () = {
    const fn assert_send<T: Send>() {}
    assert_send::<Image>();
    assert_send::<Base>();
};

/// The devices of an image.
pub struct Devices {
    /// Holds the metadata, and the data unless they have a device of their own.
    pub metadata: FileDevice,
    /// Holds the data.
    pub data: Option<Box<dyn BlockDevice + Send>>,
    /// Shows where the image holds nothing of its own.
    pub base: Option<Base>,
}

impl Image {
    /// Opens the image in a file, and the parts that it needs.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub fn open(
        driver: &mut Driver,
        path: &Path,
        access: Access,
        parts: &Parts,
    ) -> Result<Image, ImageError> {
        Image::open_at(driver, path, access, parts, 0)
    }

    /// Opens an image that is the base of `depth` others.
    fn open_at(
        driver: &mut Driver,
        path: &Path,
        access: Access,
        parts: &Parts,
        depth: u32,
    ) -> Result<Image, ImageError> {
        if depth >= parts::DEPTH_MAX {
            return Err(ImageError::TooDeep);
        }
        let (devices, options) = gather(driver, path, access, parts, depth)?;
        Image::on(driver, devices, options)
    }

    /// Opens the image on these devices.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub fn on(
        driver: &mut Driver,
        devices: Devices,
        options: OpenOptions,
    ) -> Result<Image, ImageError> {
        let Devices {
            metadata,
            data,
            base,
        } = devices;
        let session = match data {
            None => session::open(driver, HostStores::new(One(metadata), base), options),
            Some(data) => {
                let stores = Two::new(metadata, BoxedDevice(data));
                session::open(driver, HostStores::new(stores, base), options)
            }
        };
        session.map(Image)
    }

    /// The header as of the last durable change.
    #[must_use]
    pub fn header(&self) -> &Header {
        self.0.header()
    }

    /// What was done so far, in numbers.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.0.stats()
    }

    /// What was asked of the devices since opening began.
    #[must_use]
    pub fn device_counts(&self) -> DeviceCounts {
        self.0.device_counts()
    }

    /// Bytes of memory that the session was given when it was opened (docs/MEMORY.md). Those of a
    /// base that is an image are not among them.
    #[must_use]
    pub fn memory_bytes(&self) -> usize {
        self.0.memory_bytes()
    }

    /// How much is used.
    #[must_use]
    pub fn usage(&self) -> Usage {
        self.0.usage()
    }

    /// The extent of the guest's disk that starts at byte `offset`; `None` at or beyond the end.
    #[must_use]
    pub fn extent_at(&self, offset: u64) -> Option<Extent> {
        self.0.extent_at(offset)
    }

    /// Ends the session cleanly and frees its memory. Nothing may be in flight.
    ///
    /// # Errors
    /// What the devices say. What was flushed before is safe then.
    pub fn close(self, driver: &mut Driver) -> Result<(), ImageError> {
        self.0.close(driver)
    }
}

/// Opens the files of an image that is the base of `depth` others, and says how to open the image.
fn gather(
    driver: &mut Driver,
    path: &Path,
    access: Access,
    parts: &Parts,
    depth: u32,
) -> Result<(Devices, OpenOptions), ImageError> {
    let file = file::open_path(path, access == Access::ReadOnly)?;
    let header = header::read_from(&file)?.header;
    // A regular file reads zeros in its holes; a block device may hold anything.
    let mut reads_zeros = file.metadata()?.is_file();
    let metadata = FileDevice::from_file(file, &parts.file_options(file_options(&header, access)))?;
    let data: Option<Box<dyn BlockDevice + Send>> = if header.has_external_data() {
        Some(match parts.data_file_of(path, &header)? {
            Some(data) => {
                reads_zeros = std::fs::metadata(&data).is_ok_and(|data| data.is_file());
                Box::new(open_data(
                    &data,
                    &parts.file_options(file_options(&header, access)),
                )?)
            }
            None => Box::new(Absent::new(header.store_bytes)),
        })
    } else {
        None
    };
    let base = if header.has_bitmap() {
        Some(match parts.base_of(path, &header)? {
            Some((path, format)) => Base::open_at(driver, &path, format, &parts.below(), depth)?,
            None => Base::absent(header.core.base_bytes),
        })
    } else {
        None
    };
    let mut options = open_options(access)?;
    options.accept_base = parts.accept_base;
    options.store_reads_zeros = reads_zeros;
    options.base_id = base_identity(&header, base.as_ref(), parts)?;
    let devices = Devices {
        metadata,
        data,
        base,
    };
    Ok((devices, options))
}

/// The options of a session: the defaults, and a number that tells it from others if it may write.
///
/// # Errors
/// The system's source of randomness is not to be had.
pub fn open_options(access: Access) -> io::Result<OpenOptions> {
    let read_only = access == Access::ReadOnly;
    let owner_nonce = if read_only {
        0
    } else {
        u64::from_ne_bytes(random()?)
    };
    Ok(OpenOptions {
        read_only,
        owner_nonce,
        ..OpenOptions::DEFAULT
    })
}

/// Random bytes of the system, for ids.
///
/// # Errors
/// What the system says.
pub fn random<const N: usize>() -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    File::open("/dev/urandom")?.read_exact(&mut bytes)?;
    Ok(bytes)
}

/// How to open the file that an image's chunks or metadata are in.
pub fn file_options(header: &Header, access: Access) -> FileOptions {
    if access == Access::ReadOnly {
        // Nothing is written, so nothing can be torn.
        let atomic_write_bytes = Some(header.atomic_unit);
        return FileOptions {
            atomic_write_bytes,
            whole_sectors: true,
            ..FileOptions::read_only()
        };
    }
    FileOptions {
        grow_unit_bytes: Some(grow_unit(header)),
        whole_sectors: true,
        ..FileOptions::default()
    }
}

/// Step in which a file grows unless the image says otherwise: so large that growth, which takes two
/// flushes, is rare, and so small that the file is not much longer than its content.
fn grow_unit(header: &Header) -> u64 {
    match header.core.grow_bytes {
        Some(bytes) => bytes.get(),
        None => (header.core.virtual_bytes / 16).clamp(4 << 20, 1 << 30) & !((1 << 20) - 1),
    }
}

fn open_data(path: &Path, options: &FileOptions) -> Result<FileDevice, ImageError> {
    let device = FileDevice::open(path, options);
    device.map_err(|error| ImageError::Below {
        path: path.into(),
        error: Box::new(error.into()),
    })
}

/// The identity of the base that was given, for the engine to compare with the one on record.
fn base_identity(
    header: &Header,
    base: Option<&Base>,
    parts: &Parts,
) -> Result<Option<[u8; 16]>, ImageError> {
    let Some(base) = base.filter(|_| !parts.accept_base) else {
        return Ok(None);
    };
    if let Some(image) = base.image() {
        let (recorded, found) = (header.base_generation, image.header().generation);
        if recorded != 0 && recorded != found {
            return Err(ImageError::BaseChanged);
        }
        return Ok(Some(image.header().image_id.0));
    }
    let recorded = header.base_id != [0; 16];
    if base.is_raw() && recorded && parts.base_id.is_none() {
        return Err(ImageError::BaseIdWanted);
    }
    Ok(parts.base_id)
}

impl BlockDevice for Image {
    fn geometry(&self) -> Geometry {
        self.0.device().geometry()
    }

    fn submit(&mut self, op: Op) -> Result<(), Op> {
        self.0.device_mut().submit(op)
    }

    fn notify(&mut self) {
        self.0.device_mut().notify();
    }

    fn poll(&mut self, now: Instant) -> Option<Op> {
        self.0.device_mut().poll(now)
    }

    fn poll_at(&self) -> When {
        self.0.device().poll_at()
    }

    fn set_waker(&mut self, waker: &Waker) -> bool {
        self.0.device_mut().set_waker(waker)
    }
}

impl SparseDevice for Image {
    fn next_data(&self, from: u64) -> io::Result<Option<Range<u64>>> {
        self.0.next_data(from)
    }
}

/// A boxed device as a device.
struct BoxedDevice(Box<dyn BlockDevice + Send>);

impl BlockDevice for BoxedDevice {
    fn geometry(&self) -> Geometry {
        self.0.geometry()
    }

    fn submit(&mut self, op: Op) -> Result<(), Op> {
        self.0.submit(op)
    }

    fn notify(&mut self) {
        self.0.notify();
    }

    fn poll(&mut self, now: Instant) -> Option<Op> {
        self.0.poll(now)
    }

    fn poll_at(&self) -> When {
        self.0.poll_at()
    }

    fn set_waker(&mut self, waker: &Waker) -> bool {
        self.0.set_waker(waker)
    }
}
