//! What is wrong with an image in a file, and its repair.

use std::path::Path;

use fvd::check::{Finding, Usage};
use fvd::format::Header;
use fvd::stores::{One, Two};

use super::error::ImageError;
use super::header::read_header_alone;
use super::parts::Parts;
use super::stores::HostStores;
use super::{Access, BoxedDevice, Devices, gather, session};
use crate::drive::Driver;

/// An image that was looked at.
#[derive(Clone, Debug)]
pub struct Inspected {
    /// The header that counts.
    pub header: Header,
    /// How much is used; damaged entries count as unreadable.
    pub usage: Usage,
}

/// Looks at an image without using or changing it, and tells `sink` of everything that is wrong.
///
/// # Errors
/// See [`ImageError`]. Without a header nothing can be looked at; damage behind it is no error.
pub fn inspect(
    driver: &mut Driver,
    path: &Path,
    parts: &Parts,
    sink: &mut dyn FnMut(Finding),
) -> Result<Inspected, ImageError> {
    let (devices, options) = gather(driver, path, Access::ReadOnly, parts, 0)?;
    let Devices {
        metadata,
        data,
        base,
    } = devices;
    match data {
        None => {
            let stores = HostStores::new(One(metadata), base);
            session::inspect(driver, stores, options, sink)
        }
        Some(data) => {
            let stores = HostStores::new(Two::new(metadata, BoxedDevice(data)), base);
            session::inspect(driver, stores, options, sink)
        }
    }
}

/// Repairs an image as far as that loses nothing and needs no guess; see [`fvd::repair`]. Its base is
/// not needed, its data file is.
///
/// # Errors
/// See [`ImageError`]. An image that is refused is left as it is.
pub fn repair(driver: &mut Driver, path: &Path, parts: &Parts) -> Result<(), ImageError> {
    let header = read_header_alone(path)?;
    if header.has_external_data() {
        let complete = Parts {
            allow_absent: false,
            ..parts.clone()
        };
        complete.data_file_of(path, &header)?;
    }
    let (devices, options) = gather(driver, path, Access::ReadWrite, parts, 0)?;
    let Devices {
        metadata,
        data,
        base,
    } = devices;
    match data {
        None => session::repair(driver, HostStores::new(One(metadata), base), options),
        Some(data) => {
            let stores = Two::new(metadata, BoxedDevice(data));
            session::repair(driver, HostStores::new(stores, base), options)
        }
    }
}
