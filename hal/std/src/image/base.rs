//! The base of an image: a raw file, an image of its own, or nothing but a size.

use core::ops::Range;
use core::task::Waker;
use std::io;
use std::path::Path;

use fvd::buffer::Op;
use fvd::device::{BlockDevice, DeviceError, Geometry, When, refuse};
use fvd::units::Instant;

use super::error::ImageError;
use super::parts::{BaseFormat, Parts};
use super::{Access, Image};
use crate::drive::Driver;
use crate::file::{FileDevice, FileOptions};
use crate::sparse::SparseDevice;

/// What shows where an image holds nothing of its own. Read-only.
pub struct Base(Kind);

enum Kind {
    Raw(FileDevice),
    Image(Box<Image>),
    Absent(Absent),
}

impl Base {
    /// Opens a base read-only. `parts` are those of a base that is an image itself.
    ///
    /// # Errors
    /// See [`ImageError`].
    pub fn open(
        driver: &mut Driver,
        path: &Path,
        format: BaseFormat,
        parts: &Parts,
    ) -> Result<Base, ImageError> {
        Base::open_at(driver, path, format, parts, 0)
    }

    /// Opens the base of an image that is the base of `depth` others.
    pub(super) fn open_at(
        driver: &mut Driver,
        path: &Path,
        format: BaseFormat,
        parts: &Parts,
        depth: u32,
    ) -> Result<Base, ImageError> {
        let opened = match format {
            BaseFormat::Raw => {
                FileDevice::open(path, &parts.file_options(FileOptions::read_only()))
                    .map(Kind::Raw)
                    .map_err(ImageError::from)
            }
            BaseFormat::Fvd => Image::open_at(driver, path, Access::ReadOnly, parts, depth + 1)
                .map(|image| Kind::Image(Box::new(image))),
        };
        opened.map(Base).map_err(|error| ImageError::Below {
            path: path.to_path_buf(),
            error: Box::new(error),
        })
    }

    /// A base of `capacity_bytes` bytes that fails every read.
    pub(super) fn absent(capacity_bytes: u64) -> Base {
        Base(Kind::Absent(Absent::new(capacity_bytes)))
    }

    /// The image that the base is, if it is one.
    #[must_use]
    pub fn image(&self) -> Option<&Image> {
        match &self.0 {
            Kind::Image(image) => Some(image),
            Kind::Raw(_) | Kind::Absent(_) => None,
        }
    }

    /// Whether it is a raw file.
    #[must_use]
    pub fn is_raw(&self) -> bool {
        matches!(self.0, Kind::Raw(_))
    }

    /// Ends the session of a base that is an image.
    ///
    /// # Errors
    /// What its devices say.
    pub fn close(self, driver: &mut Driver) -> Result<(), ImageError> {
        match self.0 {
            Kind::Image(image) => image.close(driver),
            Kind::Raw(_) | Kind::Absent(_) => Ok(()),
        }
    }

    fn device(&self) -> &dyn SparseDevice {
        match &self.0 {
            Kind::Raw(device) => device,
            Kind::Image(image) => &**image,
            Kind::Absent(absent) => absent,
        }
    }

    fn device_mut(&mut self) -> &mut dyn SparseDevice {
        match &mut self.0 {
            Kind::Raw(device) => device,
            Kind::Image(image) => &mut **image,
            Kind::Absent(absent) => absent,
        }
    }
}

impl BlockDevice for Base {
    fn geometry(&self) -> Geometry {
        self.device().geometry()
    }

    fn submit(&mut self, op: Op) -> Result<(), Op> {
        self.device_mut().submit(op)
    }

    fn notify(&mut self) {
        self.device_mut().notify();
    }

    fn poll(&mut self, now: Instant) -> Option<Op> {
        self.device_mut().poll(now)
    }

    fn poll_at(&self) -> When {
        self.device().poll_at()
    }

    fn set_waker(&mut self, waker: &Waker) -> bool {
        self.device_mut().set_waker(waker)
    }
}

impl SparseDevice for Base {
    fn next_data(&self, from: u64) -> io::Result<Option<Range<u64>>> {
        self.device().next_data(from)
    }
}

/// A device that should be there and is not: it has a size and fails every read.
pub(super) struct Absent(Geometry);

impl Absent {
    pub(super) fn new(capacity_bytes: u64) -> Absent {
        let read_only = true;
        Absent(Geometry {
            read_only,
            ..Geometry::basic(capacity_bytes)
        })
    }
}

impl BlockDevice for Absent {
    fn geometry(&self) -> Geometry {
        self.0
    }

    fn submit(&mut self, op: Op) -> Result<(), Op> {
        refuse(op, DeviceError::Removed)
    }

    fn poll(&mut self, _now: Instant) -> Option<Op> {
        None
    }

    fn poll_at(&self) -> When {
        When::Event
    }

    fn set_waker(&mut self, _waker: &Waker) -> bool {
        // It accepts nothing, so there is never anything to wake for.
        true
    }
}

impl SparseDevice for Absent {
    fn next_data(&self, from: u64) -> io::Result<Option<Range<u64>>> {
        Ok((from < self.0.capacity_bytes).then_some(from..self.0.capacity_bytes))
    }
}
