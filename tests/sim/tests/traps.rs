//! Two things that the reference implementation does wrong, and this does not, on images that power loss
//! and failing devices cut off: docs/DIALECTS.md §6. The others are in `hal/std/tests/reference_traps.rs`.

use fvd::device::OpKind;
use fvd_sim::hunt::{Ground, search};

/// Images of the reference dialect: compact and raw-like, over a base.
const DISKS: [&str; 2] = ["g=D2v32c8B16;s=/w0,f", "g=D2t0B8;s=/w0,f"];

/// Searches every crash of short workloads; at least so many states.
fn sound(line: &'static str, faults: Option<(u8, OpKind)>, least: u64) {
    let ground = Ground {
        line,
        steps: "w0,w1,w8,f,o",
        length: 2,
        deviations: 0,
        faults,
    };
    let searched = search(&ground, u64::MAX).expect("a legal case");
    if let Some(found) = searched.found {
        panic!("{found}");
    }
    let states = searched.stats.states;
    assert!(states >= least, "{line} {faults:?}: {states} states");
}

/// Trap 3: with the bitmap in place before the table, a block reads zeros where the base was.
#[test]
fn trap_03_no_crash_shows_a_bit_without_its_chunk() {
    for line in DISKS {
        sound(line, None, 100);
    }
}

/// Trap 14: failed writes and flushes of metadata are ignored, and bits stand for data that never landed.
#[test]
fn trap_14_no_failed_write_or_flush_is_ignored() {
    for line in DISKS {
        for kind in [OpKind::Write, OpKind::Flush] {
            sound(line, Some((0, kind)), 50);
        }
    }
}
