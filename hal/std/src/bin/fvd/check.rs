//! `fvd check`: looks for damage and leaked space.
//!
//! Opening an image proves its structure: headers, journal, every page against its checksum, every
//! entry, one owner per chunk. So the check is to open it, without writing, and to say what was
//! found. The free map of version 2 is rebuilt from the table whenever an image is opened, so that
//! there is nothing that could leak.

use core::fmt;

use fvd::format::{Field, FormatError, FormatErrorKind};
use fvd::open::OpenError;
use fvd_std::drive::Driver;
use fvd_std::image::{self, Access, Image, ImageError, Parts};
use serde::Serialize;

use crate::args::CheckArgs;
use crate::failure::{CHECK_CORRUPT, CHECK_LEAKS, DONE, Failure};
use crate::output::{self, Shown};
use crate::{parts, size};

pub(crate) fn run(args: &CheckArgs) -> Result<u8, Failure> {
    let mut driver = Driver::new();
    let parts = parts::for_metadata(&args.parts)?;
    let report = match examine(&mut driver, args, &parts) {
        Ok(report) => report,
        Err(error) => match Damage::of(&error) {
            Some(damage) => Report {
                errors: vec![damage],
                ..Report::default()
            },
            None => return Err(Failure::because(cannot(args), error)),
        },
    };
    let report = Report {
        corruptions: report.errors.len() as u64,
        ..report
    };
    if args.json {
        output::print_json(&report)?;
    } else {
        output::print(&report)?;
    }
    Ok(report.exit_code())
}

fn cannot(args: &CheckArgs) -> String {
    format!("cannot check {}", Shown(&args.image))
}

/// Opens the image, and writes to it only for `--repair`.
fn examine(driver: &mut Driver, args: &CheckArgs, parts: &Parts) -> Result<Report, ImageError> {
    let found = image::read_header(&args.image)?;
    let unclean = !found.header.core.clean_shutdown;
    // A new image has one header; the first session writes the other.
    let lost_header = !found.both_slots_valid && found.header.generation > 1;
    let image = Image::open(driver, &args.image, Access::ReadOnly, parts)?;
    let usage = image.usage();
    let chunk_bytes = found.header.core.chunk_bytes;
    let mut report = Report {
        allocated_bytes: usage.allocated_bytes,
        unreadable_bytes: usage.chunks_unreadable.saturating_mul(chunk_bytes),
        clean: !unclean && !lost_header,
        ..Report::default()
    };
    image.close(driver)?;
    if args.repair && !report.clean {
        // A session that only begins and ends replays the journal in place and writes both slots.
        Image::open(driver, &args.image, Access::ReadWrite, parts)?.close(driver)?;
        report.repaired = u64::from(unclean) + u64::from(lost_header);
        report.clean = true;
    }
    Ok(report)
}

#[derive(Default, Serialize)]
struct Report {
    corruptions: u64,
    leaks: u64,
    leaked_bytes: u64,
    repaired: u64,
    errors: Vec<Damage>,
    /// Whether the last session ended cleanly and both headers are whole. If not, opening the image
    /// mends it; nothing is lost.
    clean: bool,
    /// Bytes known to be lost, whose loss the guest sees as read errors.
    unreadable_bytes: u64,
    allocated_bytes: u64,
}

/// What is wrong, and where.
#[derive(Serialize)]
struct Damage {
    r#where: String,
    what: String,
}

impl Damage {
    /// The damage that an error tells of. `None` for an error that leaves the question open.
    fn of(error: &ImageError) -> Option<Damage> {
        let what = error.to_string();
        let place = match error {
            ImageError::Format(error) | ImageError::Open(OpenError::Format(error)) => {
                place_of(error)?
            }
            _ => return None,
        };
        Some(Damage {
            r#where: place.into(),
            what,
        })
    }
}

/// The damaged field. What is no image at all is not a damaged one.
fn place_of(error: &FormatError) -> Option<&'static str> {
    let damaged = error.kind == FormatErrorKind::Corrupt && error.field != Field::Magic;
    damaged.then(|| error.field.name())
}

impl Report {
    fn exit_code(&self) -> u8 {
        if self.corruptions != 0 {
            CHECK_CORRUPT
        } else if self.leaks != 0 {
            CHECK_LEAKS
        } else {
            DONE
        }
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for damage in &self.errors {
            writeln!(f, "{}: {}", damage.r#where, damage.what)?;
        }
        if self.corruptions != 0 {
            return writeln!(f, "The image is damaged.");
        }
        if self.unreadable_bytes != 0 {
            writeln!(f, "{} known to be lost", size::show(self.unreadable_bytes))?;
        }
        if self.repaired != 0 {
            writeln!(f, "The journal was replayed, and the headers written anew.")?;
        } else if !self.clean {
            writeln!(
                f,
                "The last session was cut off; nothing is lost, the journal has it."
            )?;
        }
        writeln!(
            f,
            "No damage was found. {} allocated.",
            size::show(self.allocated_bytes)
        )
    }
}
