//! What `fvd check` tells: as JSON for programs, as text for people, as an exit code for scripts.

use core::fmt;

use fvd::check::{Finding, Place, Severity};
use serde::Serialize;

use crate::check::Seen;
use crate::failure::{CHECK_CORRUPT, CHECK_LEAKS, DONE};
use crate::size;

/// Findings by how bad they are.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) notes: u64,
    pub(crate) repairable: u64,
    pub(crate) damages: u64,
}

impl Totals {
    /// Those that keep the image from being opened.
    fn corruptions(&self) -> u64 {
        self.repairable + self.damages
    }

    fn all(&self) -> u64 {
        self.notes + self.corruptions()
    }
}

/// The document. Keys stay the same from release to release; new ones may come.
#[derive(Serialize)]
pub(crate) struct Report {
    /// Findings that keep the image from being opened and are not mended.
    corruptions: u64,
    leaks: u64,
    leaked_bytes: u64,
    /// Findings that were mended, and findings that are left.
    repaired: u64,
    left: u64,
    /// Damage, and what only a repair mends.
    errors: Vec<Row>,
    /// What is legal, and mended by the next session.
    notes: Vec<Row>,
    /// Whether nothing is left: the last session ended cleanly and both headers are whole.
    clean: bool,
    /// Bytes known to be lost, whose loss the guest sees as read errors.
    unreadable_bytes: u64,
    allocated_bytes: u64,
    /// Whether a repair was asked for and refused.
    repair_refused: bool,
    #[serde(skip)]
    repairable: bool,
}

/// One finding.
#[derive(Serialize)]
struct Row {
    name: &'static str,
    severity: &'static str,
    /// The field, as SPEC.md calls it.
    r#where: &'static str,
    place: PlaceRow,
    what: String,
    value: u64,
    wanted: Option<u64>,
    guest: Option<GuestRow>,
    repaired: bool,
}

/// Where a finding is, in numbers.
#[derive(Default, Serialize)]
struct PlaceRow {
    region: &'static str,
    /// Number of the slot, page or entry in its region.
    number: Option<u64>,
    /// First byte on the metadata device.
    byte: Option<u64>,
}

#[derive(Serialize)]
struct GuestRow {
    start: u64,
    length: u64,
}

impl Report {
    /// What one look has found; `refused` if a repair was asked for in spite of it.
    pub(crate) fn new(seen: Seen, asked_to_repair: bool) -> Report {
        let totals = seen.totals;
        Report {
            left: totals.all(),
            repair_refused: asked_to_repair && totals.damages != 0,
            ..Report::of(&seen, &seen, false)
        }
    }

    /// What was found before a repair, and what is `left` after it.
    pub(crate) fn after_repair(seen: Seen, left: Seen) -> Report {
        let mended = seen.totals.all().saturating_sub(left.totals.all());
        Report {
            repaired: mended,
            left: left.totals.all(),
            ..Report::of(&seen, &left, true)
        }
    }

    /// The findings of `seen`, and the state of the image as in `now`.
    fn of(seen: &Seen, now: &Seen, after_repair: bool) -> Report {
        let is_note = |finding: &&Finding| finding.severity == Severity::Note;
        let row = |finding: &Finding| {
            let remains = now
                .listed
                .iter()
                .any(|left| left.problem == finding.problem);
            Row::of(finding, after_repair && !remains)
        };
        Report {
            corruptions: now.totals.corruptions(),
            leaks: 0,
            leaked_bytes: 0,
            repaired: 0,
            left: 0,
            errors: seen
                .listed
                .iter()
                .filter(|it| !is_note(it))
                .map(row)
                .collect(),
            notes: seen.listed.iter().filter(is_note).map(row).collect(),
            clean: now.totals.all() == 0,
            unreadable_bytes: now.usage.chunks_unreadable.saturating_mul(now.chunk_bytes),
            allocated_bytes: now.usage.allocated_bytes,
            repair_refused: false,
            repairable: now.totals.damages == 0,
        }
    }

    pub(crate) fn exit_code(&self) -> u8 {
        if self.corruptions != 0 {
            CHECK_CORRUPT
        } else if self.leaks != 0 {
            CHECK_LEAKS
        } else {
            DONE
        }
    }

    /// What is to be done about what is left.
    fn advice(&self) -> &'static str {
        match (self.corruptions, self.repairable, self.repair_refused) {
            (0, ..) => "No damage was found.",
            (_, true, _) => {
                "The image can not be opened as it is. `fvd check --repair` mends that and loses nothing."
            }
            (_, false, false) => {
                "The image is damaged, and can not be opened. Restore it from a backup: mending it \
                 would mean to guess what was lost, so that --repair refuses it."
            }
            (_, false, true) => {
                "The image is damaged. It was not repaired, and not changed: that would mean to guess \
                 what was lost. Restore it from a backup."
            }
        }
    }
}

impl Row {
    fn of(finding: &Finding, repaired: bool) -> Row {
        Row {
            name: finding.problem.name(),
            severity: finding.severity.name(),
            r#where: finding.field.name(),
            place: PlaceRow::of(&finding.place),
            what: finding.to_string(),
            value: finding.value,
            wanted: finding.wanted,
            guest: finding.guest.map(|guest| GuestRow {
                start: guest.start,
                length: guest.bytes,
            }),
            repaired,
        }
    }
}

impl PlaceRow {
    fn of(place: &Place) -> PlaceRow {
        let row = |region, number: u64, byte| PlaceRow {
            region,
            number: Some(number),
            byte: Some(byte),
        };
        let whole = |region| PlaceRow {
            region,
            ..PlaceRow::default()
        };
        match *place {
            Place::Header(Some(slot)) => row("header", slot.offset() / 4096, slot.offset()),
            Place::Header(None) => whole("header"),
            Place::Unit {
                slot: Some((slot, byte)),
            } => row("journal", slot, byte),
            Place::Unit { slot: None } => whole("journal"),
            Place::TablePage { page, offset } => row("table", page.into(), offset),
            Place::BitmapPage { page, offset } => row("bitmap", page.into(), offset),
            Place::Entry { chunk, offset } => row("table entry", chunk.0.into(), offset),
            _ => whole("data area"),
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = if self.repaired {
            "repaired"
        } else {
            self.severity
        };
        write!(f, "{state}: {}: {}", self.name, self.what)?;
        if let Some(guest) = &self.guest {
            let end = guest.start.saturating_add(guest.length);
            write!(f, " (bytes {} to {end} of the guest's disk)", guest.start)?;
        }
        writeln!(f)
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for row in self.errors.iter().chain(&self.notes) {
            row.fmt(f)?;
        }
        let rows = (self.errors.len() + self.notes.len()) as u64;
        let more = (self.repaired + self.left).saturating_sub(rows);
        if more != 0 {
            writeln!(f, "and {more} more")?;
        }
        if self.unreadable_bytes != 0 {
            writeln!(f, "{} known to be lost", size::show(self.unreadable_bytes))?;
        }
        if self.repaired != 0 {
            writeln!(f, "{} repaired, {} left.", self.repaired, self.left)?;
        } else if self.corruptions == 0 && !self.clean {
            writeln!(
                f,
                "Nothing is lost: the next session that writes mends that."
            )?;
        }
        write!(f, "{}", self.advice())?;
        if self.corruptions == 0 {
            write!(f, " {} allocated.", size::show(self.allocated_bytes))?;
        }
        writeln!(f)
    }
}
