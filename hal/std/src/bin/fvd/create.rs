//! `fvd create`: makes a new image.

use fvd::device::BlockDevice;
use fvd_std::drive::Driver;
use fvd_std::image::{Base, Parts};

use crate::args::CreateArgs;
use crate::convert;
use crate::failure::{DONE, Doing, Failure};
use crate::new_image::{NewImage, Wanted, WantedBase, whole_sectors};
use crate::output::Shown;
use crate::parts;

pub(crate) fn run(args: &CreateArgs) -> Result<u8, Failure> {
    let mut driver = Driver::new();
    let base = open_base(&mut driver, args)?;
    let size = match (args.size, &base) {
        (Some(size), _) => whole_sectors("SIZE", size)?,
        (None, Some(base)) => base.geometry().capacity_bytes,
        (None, None) => {
            return Err(Failure::Usage(
                "SIZE is missing, and there is no base".into(),
            ));
        }
    };
    let wanted_base = match (&args.base, &base) {
        (Some(path), Some(base)) => Some(WantedBase {
            path,
            format: parts::format(args.base_format),
            id: args.base_id,
            base,
        }),
        _ => None,
    };
    let wanted = Wanted {
        image: &args.image,
        data_file: args.data_file.as_deref(),
        base: wanted_base,
        shape: &args.shape,
        size,
        force: args.force,
    };
    let image = NewImage::make(&mut driver, &wanted)?;
    match base {
        Some(base) if args.shape.detect_zeroes => {
            convert::hide_zeroes(&mut driver, &image, base, args)?;
        }
        Some(base) => base.close(&mut driver).doing(|| "cannot close the base")?,
        None => {}
    }
    image.publish()?;
    Ok(DONE)
}

/// Opens the base to learn its size and identity, and its content if that is asked for.
fn open_base(driver: &mut Driver, args: &CreateArgs) -> Result<Option<Base>, Failure> {
    let Some(path) = &args.base else {
        return Ok(None);
    };
    parts::check_file(path)?;
    let parts = Parts {
        allow_absent: !args.shape.detect_zeroes,
        follow_names: args.follow_names,
        ..Parts::default()
    };
    let base = Base::open(driver, path, parts::format(args.base_format), &parts);
    base.map(Some)
        .doing(|| format!("cannot use the base {}", Shown(path)))
}
