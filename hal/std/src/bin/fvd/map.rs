//! `fvd map`: where each part of the guest's disk lives.

use core::fmt;

use fvd::check::{Extent, ExtentState};
use fvd_std::drive::Driver;
use fvd_std::image::{Access, Image};
use serde::{Serialize, Serializer};

use crate::args::MapArgs;
use crate::failure::{DONE, Doing, Failure};
use crate::output::{self, Shown};
use crate::parts;

pub(crate) fn run(args: &MapArgs) -> Result<u8, Failure> {
    let cannot = || format!("cannot read {}", Shown(&args.image));
    let mut driver = Driver::new();
    let parts = parts::for_metadata(&args.parts)?;
    let image = Image::open(&mut driver, &args.image, Access::ReadOnly, &parts).doing(cannot)?;
    let map = Map(&image);
    if args.json {
        output::print_json(&map)?;
    } else {
        output::print(&map)?;
    }
    image.close(&mut driver).doing(cannot)?;
    Ok(DONE)
}

/// One line of the map.
#[derive(Clone, Copy, Serialize)]
struct Line {
    start: u64,
    length: u64,
    state: &'static str,
    /// First byte on the data store or in the base.
    offset: Option<u64>,
}

impl Line {
    fn new(start: u64, extent: &Extent) -> Line {
        let (state, offset) = match extent.state {
            ExtentState::Image { offset } => ("image", Some(offset)),
            ExtentState::Base { offset } => ("base", Some(offset)),
            ExtentState::Zero => ("zero", None),
            ExtentState::Unreadable => ("unreadable", None),
        };
        Line {
            start,
            length: extent.bytes,
            state,
            offset,
        }
    }

    /// Whether `next` goes on where this ends, on disk and in its place.
    fn continues(&self, next: &Line) -> bool {
        self.state == next.state && self.offset.map(|offset| offset + self.length) == next.offset
    }
}

/// All lines, made while they are printed: an image of many terabytes has many.
struct Map<'a>(&'a Image);

impl Map<'_> {
    fn lines(&self) -> impl Iterator<Item = Line> {
        let mut at = 0;
        let mut next = move || {
            let extent = self.0.extent_at(at)?;
            let line = Line::new(at, &extent);
            at += extent.bytes;
            Some(line)
        };
        let mut held = next();
        core::iter::from_fn(move || {
            let mut line = held.take()?;
            loop {
                match next() {
                    Some(more) if line.continues(&more) => line.length += more.length,
                    more => {
                        held = more;
                        return Some(line);
                    }
                }
            }
        })
    }
}

impl Serialize for Map<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.lines())
    }
}

impl fmt::Display for Map<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{:>20} {:>20} {:<10} {:>20}",
            "start", "length", "state", "offset"
        )?;
        for Line {
            start,
            length,
            state,
            offset,
        } in self.lines()
        {
            let offset = offset.map_or("-".into(), |offset| offset.to_string());
            writeln!(f, "{start:>20} {length:>20} {state:<10} {offset:>20}")?;
        }
        Ok(())
    }
}
