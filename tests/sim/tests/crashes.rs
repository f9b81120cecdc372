//! `fvd` through every crash of short workloads, on each kind of disk: no violation.
//!
//! Sized for every change: a few seconds when optimised. `fvd-sim search` goes further.

use core::ops::ControlFlow;

use fvd_sim::case::{Case, Replay};
use fvd_sim::crash::Bound;
use fvd_sim::driver::Fvd;
use fvd_sim::explore::{Explorer, Limits};
use fvd_sim::hunt::{GROUNDS, search};
use fvd_sim::workload::{alphabet, sequences};

/// Checks every sequence of up to `length` steps of the alphabet on a kind of disk.
fn every_sequence(line: &str, length: usize, deviations: usize) {
    let mut case: Case = line.parse::<Replay>().expect("legal").case;
    let limits = Limits {
        deviations,
        bound: Bound {
            random_count: 64,
            ..Bound::default()
        },
        ..Limits::default()
    };
    let mut explorer = Explorer::<Fvd>::new(&case, &limits).expect("formats");
    let _ = sequences(&alphabet(&case.setup), length, &mut |steps| {
        case.sessions[0] = steps.to_vec();
        if let Err(found) = explorer.run(&case, &limits) {
            panic!("{found}");
        }
        ControlFlow::Continue(())
    });
    let stats = explorer.stats();
    assert!(stats.states > 100, "{line}: {stats:?}");
}

#[test]
fn two_steps_on_each_kind_of_disk() {
    for line in [
        "g=-;s=/w0,f",
        "g=B8;s=/w0,f",
        "g=B24;s=/w0,f",
        "g=B8d;s=/w0,f",
        "g=B8g;s=/w0,f",
        "g=t0B8;s=/w0,f",
        "g=B8F;s=/w0,f",
        "g=zx2;s=/w0,f",
        "g=B8n;s=/w0,f",
        "g=b4B8;s=/w0,f",
        "g=bc8B7;s=/w0,f",
        "g=a8j4B8;s=/w0,f",
    ] {
        every_sequence(line, 2, 0);
    }
}

#[test]
fn a_used_device_never_shows_its_past() {
    for line in ["g=v8u;s=/w0,f", "g=v8duz;s=/w0,f"] {
        every_sequence(line, 1, 0);
    }
}

#[test]
fn two_overlapping_steps_in_unusual_order() {
    for line in ["g=B8;s=/w0,f;q=2", "g=B8d;s=/w0,f;q=2", "g=B8g;s=/w0,f;q=2"] {
        every_sequence(line, 2, 1);
    }
}

#[test]
fn prepared_disks_with_a_full_journal_or_in_a_checkpoint() {
    for line in [
        "g=B8j4;p=w0,f,w4,f,w8,f;s=/w0,f",
        "g=B8j4;p=w0,f,w4,f,k1;s=/w0,f",
        "g=B8;p=w0,f,o,w4,f,o,w8,f,o;s=/w0,f",
        "g=j2;p=w0,f;s=/w4,f",
    ] {
        every_sequence(line, 2, 0);
    }
}

#[test]
fn a_request_of_more_chunks_than_a_step_of_the_zero_floor_goes_through() {
    let case: Case = "g=bc;s=w0+8/w8+8,f".parse::<Replay>().expect("legal").case;
    let limits = Limits::default();
    let mut explorer = Explorer::<Fvd>::new(&case, &limits).expect("formats");
    if let Err(found) = explorer.run(&case, &limits) {
        panic!("{found}");
    }
}

#[test]
fn a_discard_brings_nothing_back() {
    let limits = Limits::default();
    for line in [
        "g=ux2;s=w5,f,d6,f/w0,f",
        "g=zx2;s=w5,f,w5,f,d5,f/w0,f",
        "g=x;s=w5,f,w5,f,d5/",
    ] {
        let case = line.parse::<Replay>().expect("legal").case;
        let mut explorer = Explorer::<Fvd>::new(&case, &limits).expect("formats");
        if let Err(found) = explorer.run(&case, &limits) {
            panic!("{found}");
        }
    }
}

#[test]
fn a_clean_close_loses_nothing_on_two_devices() {
    every_sequence("g=t0B8d;s=/w0,f", 2, 0);
}

/// Mappings that only an old journal holds survive every power loss inside the recovery that finds
/// them, and what is written afterwards too.
#[test]
fn images_of_2011_that_another_writer_left_unclean() {
    for line in ["g=DB8U;s=/w0,f", "g=D2t0B8U;s=/w0,f", "g=DB8dU2;s=/w0,f"] {
        every_sequence(line, 2, 0);
    }
    for line in [
        "g=DuU2;s=/w0,f",
        "g=v32c8D2B16U2;s=/w0,f",
        "g=DB8U2;s=/;T=1",
    ] {
        every_sequence(line, 1, 0);
    }
}

/// Where several contents are legal, the recovery of `fvd` chooses the same each time.
#[test]
fn a_recovery_of_fvd_that_was_cut_off_ends_in_the_same_contents() {
    for line in [
        "g=B8;s=w0,f,w0,w5/",
        "g=B8d;s=w0,f,w0,w5/",
        "g=B8j4E;s=w0,f,w4,w8/",
        "g=t0B8;s=w0,f,w0,w5/",
        "g=ux2;s=w0,f,d0+4,w8/",
        "g=B8;s=w0,f,w4/;T=1",
        "g=B8;s=w0,f,w4/;T=2",
        "g=B8;s=w0,f,w4/;T=3",
        "g=DB8;s=w0,f,w4/",
        "g=DB8U;s=w0,f,w4/",
        "g=D2t0B8U2;s=w0,f,w4/",
        "g=DB8U2;s=w0,f/;T=5",
    ] {
        let case = line.parse::<Replay>().expect("legal").case;
        let limits = Limits::default();
        let mut explorer = Explorer::<Fvd>::new(&case, &limits).expect("formats");
        if let Err(found) = explorer.run(&case, &limits) {
            panic!("{found}");
        }
    }
}

#[test]
#[cfg_attr(
    debug_assertions,
    ignore = "a minute when optimised: `.ci/run sim` runs it"
)]
fn no_ground_has_a_violation() {
    for ground in GROUNDS {
        let searched = search(ground, u64::MAX).expect("legal");
        if let Some(found) = searched.found {
            panic!("{}: {found}", ground.line);
        }
    }
}
