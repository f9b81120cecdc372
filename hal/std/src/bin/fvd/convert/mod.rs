//! `fvd convert`: copies a disk from one image to another.
//!
//! | file | its one job |
//! | --- | --- |
//! | `plan` | what to do next: pure, in order |
//! | `copy` | do it, many pieces at once |
//! | `slots` | memory and operations of one piece |
//! | `runs` | what of a piece has to be written: pure |

mod copy;
mod plan;
mod runs;
mod slots;
#[cfg(test)]
mod tests;

use fvd::device::BlockDevice;
use fvd_std::drive::Driver;
use fvd_std::file::{FileDevice, FileOptions};
use fvd_std::image::{Access, Base, Image, Parts};
use fvd_std::sparse::SparseDevice;

use crate::args::{ConvertArgs, CreateArgs, Format};
use crate::failure::{DONE, Doing, Failure};
use crate::new_file::Place;
use crate::new_image::{NewImage, Wanted, WantedBase, whole_sectors};
use crate::output::Shown;
use crate::parts;
use crate::progress::Waiting;
use plan::Content;

pub(crate) fn run(args: &ConvertArgs) -> Result<u8, Failure> {
    let mut driver = Driver::new();
    let cannot = || format!("cannot open {}", Shown(&args.source));
    match args.source_format {
        Format::Raw => {
            parts::check_file(&args.source)?;
            let source = FileDevice::open(&args.source, &FileOptions::read_only());
            let mut source = source.doing(cannot)?;
            let len = source.len_at_open();
            copy_to_target(args, &mut driver, &mut source, len)?;
        }
        Format::Fvd => {
            let parts = parts::of(&args.parts)?;
            let source = Image::open(&mut driver, &args.source, Access::ReadOnly, &parts);
            let mut source = source.doing(cannot)?;
            let len = source.geometry().capacity_bytes;
            copy_to_target(args, &mut driver, &mut source, len)?;
            source
                .close(&mut driver)
                .doing(|| format!("cannot close {}", Shown(&args.source)))?;
        }
    }
    Ok(DONE)
}

/// Copies `source`, whose content is `len` bytes long, which need not be whole sectors.
fn copy_to_target(
    args: &ConvertArgs,
    driver: &mut Driver,
    source: &mut dyn SparseDevice,
    len: u64,
) -> Result<(), Failure> {
    match args.target_format {
        Format::Raw => to_raw(args, driver, source, len),
        Format::Fvd => to_image(args, driver, source, len),
    }
}

/// Copies to a raw file, or onto a block device.
fn to_raw(
    args: &ConvertArgs,
    driver: &mut Driver,
    source: &mut dyn SparseDevice,
    len: u64,
) -> Result<(), Failure> {
    let place = Place::choose(&args.target, args.force)?;
    let content = match &place {
        Place::File(file) => {
            file.set_len(source.geometry().capacity_bytes)?;
            Content::Zeroes
        }
        Place::Device(_) => Content::Unknown,
    };
    let mut target = place.open(&FileOptions::default())?;
    copy::copy(driver, source, &mut target, content)?;
    let _waiting = Waiting::new("flushing");
    driver
        .flush(&mut target)
        .doing(|| format!("cannot write {}", Shown(&args.target)))?;
    drop(target);
    if let Place::File(file) = &place {
        file.set_len(len)?;
    }
    place.publish()
}

/// Copies to a new image.
fn to_image(
    args: &ConvertArgs,
    driver: &mut Driver,
    source: &mut dyn SparseDevice,
    len: u64,
) -> Result<(), Failure> {
    let base = open_base(args, driver)?;
    let wanted_base = match (&args.target_base, &base) {
        (Some(path), Some(base)) => Some(WantedBase {
            path,
            format: parts::format(args.target_base_format),
            id: args.target_base_id,
            base,
        }),
        _ => None,
    };
    let wanted = Wanted {
        image: &args.target,
        data_file: args.target_data_file.as_deref(),
        base: wanted_base,
        shape: &args.shape,
        size: whole_sectors("the size of SRC", len)?,
        force: args.force,
    };
    let new = NewImage::make(driver, &wanted)?;
    let content = match (&base, new.reads_zeros()) {
        (Some(_), _) => Content::Base,
        (None, true) => Content::Zeroes,
        (None, false) => Content::Unknown,
    };
    let mut image = new.open(driver, base)?;
    copy::copy(driver, source, &mut image, content)?;
    let _waiting = Waiting::new("flushing");
    image
        .close(driver)
        .doing(|| format!("cannot write {}", Shown(&args.target)))?;
    new.publish()
}

fn open_base(args: &ConvertArgs, driver: &mut Driver) -> Result<Option<Base>, Failure> {
    let Some(path) = &args.target_base else {
        return Ok(None);
    };
    parts::check_file(path)?;
    let parts = Parts {
        follow_names: args.parts.follow_names,
        accept_base: args.parts.accept_base,
        ..Parts::default()
    };
    let base = Base::open(driver, path, parts::format(args.target_base_format), &parts);
    base.map(Some)
        .doing(|| format!("cannot use the base {}", Shown(path)))
}

/// Tells a new image which blocks of its base are zero, so that they are never read again.
pub(crate) fn hide_zeroes(
    driver: &mut Driver,
    new: &NewImage,
    base: Base,
    args: &CreateArgs,
) -> Result<(), Failure> {
    let cannot = || {
        format!(
            "cannot look for zeros in the base of {}",
            Shown(&args.image)
        )
    };
    let Some(path) = &args.base else {
        return Ok(());
    };
    let parts = Parts {
        follow_names: args.follow_names,
        ..Parts::default()
    };
    let mut source =
        Base::open(driver, path, parts::format(args.base_format), &parts).doing(cannot)?;
    let block_bytes = new.header().core.block_bytes;
    let mut image = new.open(driver, Some(base))?;
    copy::copy(
        driver,
        &mut source,
        &mut image,
        Content::Source { block_bytes },
    )?;
    image.close(driver).doing(cannot)?;
    source.close(driver).doing(cannot)
}
