//! A new image from options, for `create` and `convert`.
//!
//! Invariants:
//! 1. Nothing under the names of image and data file changes before [`NewImage::publish`].
//! 2. A new image on a block device that is not published is made unreadable again.

use core::num::NonZeroU64;
use std::fs::{self, OpenOptions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use fvd::device::{BlockDevice, Geometry};
use fvd::format::{BaseParams, CreateParams, HEADER_BYTES, Header, ImageId, JournalChoice, Text};
use fvd_std::drive::Driver;
use fvd_std::file::FileOptions;
use fvd_std::image::{self, Access, Base, BaseFormat, Devices, Image};

use crate::args::{JournalSize, ShapeArgs, Switch};
use crate::failure::{Doing, Failure};
use crate::new_file::Place;
use crate::output::{self, Shown};
use crate::parts;
use crate::room;

/// What the new image shall be.
pub(crate) struct Wanted<'a> {
    pub(crate) image: &'a Path,
    pub(crate) data_file: Option<&'a Path>,
    pub(crate) base: Option<WantedBase<'a>>,
    pub(crate) shape: &'a ShapeArgs,
    /// Bytes of the guest's disk.
    pub(crate) size: u64,
    pub(crate) force: bool,
}

/// The base of the new image: its name, and the open base that tells its size and identity.
pub(crate) struct WantedBase<'a> {
    pub(crate) path: &'a Path,
    pub(crate) format: BaseFormat,
    pub(crate) id: Option<[u8; 16]>,
    pub(crate) base: &'a Base,
}

/// An image that was made and is not visible yet.
pub(crate) struct NewImage {
    header: Header,
    place: Option<Place>,
    data: Option<Place>,
    path: PathBuf,
    /// Where the data file will be, if it is a file.
    data_file: Option<PathBuf>,
}

/// A size in whole sectors; rounding is said.
pub(crate) fn whole_sectors(what: &str, size: u64) -> Result<u64, Failure> {
    let rounded = size.checked_next_multiple_of(512);
    let rounded = rounded.ok_or_else(|| Failure::Usage(format!("{what} is too large")))?;
    if rounded != size {
        output::say(format!("{what} rounded up from {size} to {rounded} bytes"));
    }
    Ok(rounded)
}

impl NewImage {
    /// Makes the image.
    pub(crate) fn make(driver: &mut Driver, wanted: &Wanted) -> Result<NewImage, Failure> {
        let place = Place::choose(wanted.image, wanted.force)?;
        let data = wanted
            .data_file
            .map(|path| Place::choose(path, wanted.force))
            .transpose()?;
        let cannot = || format!("cannot create {}", Shown(wanted.image));
        // One after the other: each locks what it looks at.
        let atomic_unit = geometry(&place)?.atomic_write_bytes;
        let params = CreateParams {
            atomic_unit,
            ..params(wanted)?
        };
        let store = data.as_ref().unwrap_or(&place);
        let header = room::plan(wanted.image, store, wanted.shape, &params)?;
        let zeroed = matches!(place, Place::File(_));
        room::reserve(&place, data.as_ref(), &header, wanted.shape.preallocation)?;
        let device = place.open(&FileOptions::default())?;
        image::create(driver, device, header, zeroed).doing(cannot)?;
        Ok(NewImage {
            header,
            place: Some(place),
            data_file: match &data {
                Some(Place::File(_)) => wanted.data_file.map(Path::to_path_buf),
                Some(Place::Device(_)) | None => None,
            },
            data,
            path: wanted.image.to_path_buf(),
        })
    }

    /// Opens the new image to fill it.
    pub(crate) fn open(&self, driver: &mut Driver, base: Option<Base>) -> Result<Image, Failure> {
        let cannot = || format!("cannot open the new {}", Shown(&self.path));
        let options = image::file_options(&self.header, Access::ReadWrite);
        let Some(place) = &self.place else {
            return Err(Failure::Failed(cannot()));
        };
        let devices = Devices {
            metadata: place.open(&options)?,
            data: match &self.data {
                Some(data) => Some(Box::new(data.open(&options)?)),
                None => None,
            },
            base,
        };
        let options = image::open_options(Access::ReadWrite).doing(cannot)?;
        Image::on(driver, devices, options).doing(cannot)
    }

    /// Whether a disk on this image reads zeros where it shows no base, as long as nobody wrote.
    pub(crate) fn reads_zeros(&self) -> bool {
        let store = self.data.as_ref().or(self.place.as_ref());
        self.header.has_table() || matches!(store, Some(Place::File(_)))
    }

    pub(crate) fn header(&self) -> &Header {
        &self.header
    }

    /// Makes image and data file appear.
    pub(crate) fn publish(mut self) -> Result<(), Failure> {
        if let Some(data) = self.data.take() {
            data.publish()?;
        }
        let published = self.place.take().map_or(Ok(()), Place::publish);
        if let (Err(_), Some(data)) = (&published, &self.data_file) {
            // Data without their metadata are of no use to anybody.
            let _ = fs::remove_file(data);
        }
        published
    }
}

impl Drop for NewImage {
    fn drop(&mut self) {
        // Still here, so it was not published. A file that nobody has seen vanishes by itself.
        if let Some(Place::Device(path)) = &self.place {
            let erased = OpenOptions::new()
                .write(true)
                .open(path)
                .and_then(|device| device.write_all_at(&[0; HEADER_BYTES as usize], 0));
            if let Err(error) = erased {
                output::say(format!(
                    "cannot erase the unfinished {}: {error}",
                    Shown(path)
                ));
            }
        }
    }
}

/// Everything that does not depend on devices.
fn params(wanted: &Wanted) -> Result<CreateParams, Failure> {
    let shape = wanted.shape;
    let id = image::random().doing(|| "cannot choose an image id")?;
    let mut params = CreateParams::new(wanted.size, ImageId(id));
    params.dialect = shape.dialect.dialect();
    params.block_bytes = shape.block_size;
    params.chunk_bytes = shape.chunk_size;
    params.table = shape.table == Switch::On;
    params.journal = match shape.journal_size {
        JournalSize::Auto => JournalChoice::Auto,
        JournalSize::None => JournalChoice::None,
        JournalSize::Bytes(bytes) => JournalChoice::Bytes(bytes),
    };
    params.grow_bytes = shape.grow_unit.and_then(NonZeroU64::new);
    params.copy.copy_on_read = shape.copy_on_read;
    if let Some(delay) = shape.prefetch_delay {
        params.copy.prefetch_start_delay_s = i64::from(delay);
    }
    if let Some(base) = &wanted.base {
        params.base = Some(base_params(wanted, base)?);
    }
    if let Some(path) = wanted.data_file {
        params.external_data = true;
        params.data_file = name_of(wanted, path)?;
        params.data_file_format = label("raw");
    }
    Ok(params)
}

fn base_params(wanted: &Wanted, base: &WantedBase) -> Result<BaseParams, Failure> {
    let (id, generation) = match base.base.image() {
        Some(image) => (image.header().image_id.0, image.header().generation),
        None => (base.id.unwrap_or_default(), 0),
    };
    Ok(BaseParams {
        name: name_of(wanted, base.path)?,
        format: label(base.format.label()),
        bytes: base.base.geometry().capacity_bytes,
        id,
        generation,
    })
}

fn label<const MAX: usize>(label: &str) -> Text<MAX> {
    Text::new(label.as_bytes()).unwrap_or_default()
}

/// The name to store for a part of the new image.
fn name_of<const MAX: usize>(wanted: &Wanted, part: &Path) -> Result<Text<MAX>, Failure> {
    let name = parts::stored_name(wanted.image, part).doing(|| Shown(part))?;
    let bytes = name.as_os_str().as_bytes();
    Text::new(bytes).ok_or_else(|| {
        let what = format!(
            "{} is too long a name for an image: {MAX} bytes at most",
            Shown(&name)
        );
        Failure::Failed(what)
    })
}

fn geometry(place: &Place) -> Result<Geometry, Failure> {
    place
        .open(&FileOptions::default())
        .map(|device| device.geometry())
}
