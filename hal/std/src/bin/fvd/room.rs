//! The room of a new image: how long its files are, and how much of it they hold from the start.
//!
//! Metadata always hold their space, so that a file system that runs full can refuse new data, but
//! never a change to what is there. Data take theirs when they are written, unless the user asks for
//! more: a size, for machines that see the file as a disk which cannot grow, or the space itself.

use std::path::Path;

use fvd::device::BlockDevice;
use fvd::format::{CreateParams, Header, LayoutError, StoreChoice, plan_layout};
use fvd_std::file::FileOptions;
use fvd_std::image::{metadata_bytes, whole_store_bytes};

use crate::args::{Preallocation, ShapeArgs, StoreSize};
use crate::failure::Failure;
use crate::new_file::Place;
use crate::new_image::whole_sectors;
use crate::output::Shown;

/// Lays out the new `image`, whose data go to `place`.
pub(crate) fn plan(
    image: &Path,
    place: &Place,
    shape: &ShapeArgs,
    params: &CreateParams,
) -> Result<Header, Failure> {
    match place {
        Place::File(_) => plan_file(image, shape, params),
        Place::Device(_) => {
            refuse_options(shape)?;
            let device_bytes = place
                .open(&FileOptions::default())?
                .geometry()
                .capacity_bytes;
            let store = StoreChoice::FixedUsed { device_bytes };
            let header = plan_layout(&CreateParams { store, ..*params });
            header.map_err(|error| refusal(image, &error))
        }
    }
}

fn plan_file(image: &Path, shape: &ShapeArgs, params: &CreateParams) -> Result<Header, Failure> {
    let growing = plan_layout(params).map_err(|error| refusal(image, &error))?;
    let device_bytes = match (shape.store_size, shape.preallocation) {
        (None, Preallocation::Off) => return Ok(growing),
        (Some(StoreSize::Bytes(bytes)), _) => whole_sectors("--store-size", bytes)?,
        (Some(StoreSize::Whole), _) | (None, Preallocation::Falloc | Preallocation::Full) => {
            whole_store_bytes(&growing)
        }
    };
    let store = StoreChoice::FixedZeroed { device_bytes };
    plan_layout(&CreateParams { store, ..*params }).map_err(|error| match error {
        LayoutError::DeviceTooSmall(needed) => Failure::Usage(format!(
            "cannot create {}: --store-size {device_bytes} is too small, {needed} bytes are needed",
            Shown(image)
        )),
        error => refusal(image, &error),
    })
}

/// A block device is as long as it is, and holds its space.
fn refuse_options(shape: &ShapeArgs) -> Result<(), Failure> {
    let given = [
        ("--store-size", shape.store_size.is_some()),
        ("--preallocation", shape.preallocation != Preallocation::Off),
    ];
    match given.into_iter().find(|(_, given)| *given) {
        Some((option, _)) => Err(Failure::Usage(format!(
            "{option} is for files, and the data go to a block device"
        ))),
        None => Ok(()),
    }
}

/// Sizes that the format can not hold are wrong usage; a device that is too small is a failure.
fn refusal(image: &Path, error: &LayoutError) -> Failure {
    let text = format!("cannot create {}: {error}", Shown(image));
    match error {
        LayoutError::DeviceTooSmall(_) => Failure::Failed(text),
        _ => Failure::Usage(text),
    }
}

/// Makes new files as long as the header says, and takes the space that is asked for.
pub(crate) fn reserve(
    place: &Place,
    data: Option<&Place>,
    header: &Header,
    preallocation: Preallocation,
) -> Result<(), Failure> {
    let metadata_bytes = metadata_bytes(header);
    if let Place::File(file) = place {
        let own = if data.is_some() {
            0
        } else {
            header.store_bytes
        };
        file.set_len(metadata_bytes.max(own))?;
        file.reserve(metadata_bytes)?;
    }
    if let Place::File(file) = data.unwrap_or(place) {
        match preallocation {
            Preallocation::Off if data.is_some() => file.set_len(header.store_bytes)?,
            Preallocation::Off => {}
            Preallocation::Falloc => file.reserve(header.store_bytes)?,
            Preallocation::Full => {
                file.write_zeros(header.core.data_offset..header.store_bytes)?;
            }
        }
    }
    Ok(())
}
