//! `fvd check`: looks for damage, and with `--repair` mends what can be mended without a guess.
//!
//! The look reports everything that is wrong, not only what would refuse the image first. A repair
//! comes only if nothing of it is damage, and is followed by a second look, whose findings are what is
//! left. The free map of version 2 is rebuilt from the table whenever an image is opened, so that
//! there is nothing that could leak.

use fvd::check::{Finding, Severity, Usage};
use fvd::format::{Field, FormatError, FormatErrorKind, SlotIndex};
use fvd::open::OpenError;
use fvd_std::drive::Driver;
use fvd_std::image::{self, ImageError, Parts};

use crate::args::CheckArgs;
use crate::check_report::{Report, Totals};
use crate::failure::Failure;
use crate::output::{self, Shown};
use crate::parts;

/// Findings that are listed; further ones are counted.
const LISTED_MAX: usize = 1000;

pub(crate) fn run(args: &CheckArgs) -> Result<u8, Failure> {
    let mut driver = Driver::new();
    let parts = parts::for_metadata(&args.parts)?;
    let cannot = |error| Failure::because(format!("cannot check {}", Shown(&args.image)), error);
    let seen = look(&mut driver, args, &parts).map_err(cannot)?;
    let repair = args.repair && seen.needs_repair();
    let report = if repair {
        image::repair(&mut driver, &args.image, &parts).map_err(|error| {
            Failure::because(format!("cannot repair {}", Shown(&args.image)), error)
        })?;
        let left = look(&mut driver, args, &parts).map_err(cannot)?;
        Report::after_repair(seen, left)
    } else {
        Report::new(seen, args.repair)
    };
    if args.json {
        output::print_json(&report)?;
    } else {
        output::print(&report)?;
    }
    Ok(report.exit_code())
}

/// What one look at an image has found.
#[derive(Default)]
pub(crate) struct Seen {
    pub(crate) listed: Vec<Finding>,
    pub(crate) totals: Totals,
    pub(crate) usage: Usage,
    /// Bytes of a chunk, or 0 if the header is damaged.
    pub(crate) chunk_bytes: u64,
}

impl Seen {
    fn add(&mut self, finding: Finding) {
        match finding.severity {
            Severity::Note => self.totals.notes += 1,
            Severity::Repairable => self.totals.repairable += 1,
            _ => self.totals.damages += 1,
        }
        if self.listed.len() < LISTED_MAX {
            self.listed.push(finding);
        }
    }

    /// Whether something is to be mended, and everything can be.
    fn needs_repair(&self) -> bool {
        self.totals.damages == 0 && self.totals.repairable + self.totals.notes != 0
    }
}

/// Looks at the whole image. Writes nothing.
fn look(driver: &mut Driver, args: &CheckArgs, parts: &Parts) -> Result<Seen, ImageError> {
    let mut seen = Seen::default();
    match image::inspect(driver, &args.image, parts, &mut |finding| seen.add(finding)) {
        Ok(inspected) => {
            seen.usage = inspected.usage;
            seen.chunk_bytes = inspected.header.core.chunk_bytes;
        }
        Err(error) => {
            let Some(damage) = damage_of(&error) else {
                return Err(error);
            };
            for finding in header_findings(args, damage)? {
                seen.add(finding);
            }
        }
    }
    Ok(seen)
}

/// The damage that keeps an image from being looked at. `None` for an error that leaves open whether
/// there is any: what is no image at all is not a damaged one.
fn damage_of(error: &ImageError) -> Option<FormatError> {
    let (ImageError::Format(error) | ImageError::Open(OpenError::Format(error))) = error else {
        return None;
    };
    let damaged = error.kind == FormatErrorKind::Corrupt && error.field != Field::Magic;
    damaged.then_some(*error)
}

/// What is wrong with the headers: each of them if none is whole, else the rule that is broken.
fn header_findings(args: &CheckArgs, error: FormatError) -> Result<Vec<Finding>, ImageError> {
    if let [Some(first), Some(second)] = image::header_faults(&args.image)? {
        let both = [(SlotIndex::First, first), (SlotIndex::Second, second)];
        let damaged: Vec<Finding> = both
            .into_iter()
            .filter(|(_, error)| error.kind == FormatErrorKind::Corrupt)
            .map(|(slot, error)| Finding::of_header(Some(slot), error))
            .collect();
        // An image of 2011 has no slots, so that neither says anything.
        if !damaged.is_empty() {
            return Ok(damaged);
        }
    }
    Ok(vec![Finding::of_header(None, error)])
}
