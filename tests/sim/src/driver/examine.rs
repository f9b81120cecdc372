//! What `fvd` itself says of an image that nobody uses.

use core::cell::Cell;

use fvd::check::{ExtentState, Finding, Severity};
use fvd::format::{Field, FormatErrorKind};
use fvd::open::{OpenError, OpenOptions};
use fvd::stores::Stores;
use fvd::units::{GuestOffset, Instant};
use fvd::{Disk, blocking};

use super::{Memory, options};
use crate::engine::arena_memory;
use crate::opinion::{Counts, Examined, Extent, Verdict, joined};
use crate::workload::Setup;

/// Memory that covers every setup.
const ARENA_BYTES: usize = 2 << 20;

thread_local! {
    /// Memory from the last time.
    static SPARE: Cell<Option<Memory>> = const { Cell::new(None) };
}

/// Looks for faults; then, if there are none, reads the map. Writes nothing.
pub(super) fn examine<S: Stores>(setup: &Setup, stores: S) -> Examined {
    let spare = SPARE.take();
    let memory = spare.unwrap_or_else(|| arena_memory(ARENA_BYTES));
    let options = OpenOptions {
        read_only: true,
        ..options(setup)
    };
    let mut findings = Vec::new();
    let mut note = |finding: Finding| {
        if finding.severity > Severity::Note {
            findings.push(finding.to_string());
        }
    };
    let idle = |_| Instant::ZERO;
    let (stores, memory) = match blocking::inspect(stores, options, memory, idle) {
        Ok(mut inspection) => {
            inspection.findings(&mut note);
            inspection.finish()
        }
        Err(failure) => {
            SPARE.set(failure.memory);
            return unsound(&failure.error);
        }
    };
    if !findings.is_empty() {
        SPARE.set(memory);
        return Examined::unsound(Verdict::Corrupt, findings);
    }
    let memory = memory.unwrap_or_else(|| arena_memory(ARENA_BYTES));
    match blocking::open(stores, options, memory, idle) {
        Ok(disk) => {
            let examined = sound(&disk);
            SPARE.set(blocking::close(disk, idle, |_| ()).memory);
            examined
        }
        Err(failure) => {
            SPARE.set(failure.memory);
            unsound(&failure.error)
        }
    }
}

fn unsound(error: &OpenError) -> Examined {
    let verdict = match error {
        OpenError::Format(error)
            if error.kind == FormatErrorKind::Corrupt && error.field != Field::Magic =>
        {
            Verdict::Corrupt
        }
        _ => Verdict::Unknown,
    };
    Examined::unsound(verdict, vec![error.to_string()])
}

fn sound<S: Stores>(disk: &Disk<S>) -> Examined {
    let usage = disk.usage();
    let mut start = 0;
    let extents = core::iter::from_fn(|| {
        let extent = disk.extent_at(GuestOffset(start))?;
        let (state, offset) = match extent.state {
            ExtentState::Image { offset } => ("image", Some(offset)),
            ExtentState::Base { offset } => ("base", Some(offset)),
            ExtentState::Zero => ("zero", None),
            ExtentState::Unreadable => ("unreadable", None),
        };
        let found = Extent {
            start,
            length: extent.bytes,
            state: state.into(),
            offset,
        };
        start += extent.bytes;
        Some(found)
    });
    Examined {
        verdict: Verdict::Clean,
        extents: Some(joined(extents)),
        counts: Some(Counts {
            mapped: usage.chunks_mapped,
            unreadable: usage.chunks_unreadable,
            hidden: usage.blocks_hidden,
        }),
        findings: Vec::new(),
    }
}
