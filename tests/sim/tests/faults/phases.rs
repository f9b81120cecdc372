//! Each device operation of each phase of a disk's life fails in turn: once and for good, without
//! effect, landed, half landed, or refused as busy. The simulator's rules F1 and F2 say what may come
//! of it, its oracle what the guest finds, now and after every power loss that follows.
//!
//! There is no chunk to spare (`s0`) and every case ends with writes everywhere, a close and an open,
//! so that a chunk, a slot, a lock or a buffer that was lost on the way is missed.

use fvd_sim::case::{Case, Replay};
use fvd_sim::crash::Bound;
use fvd_sim::driver::Fvd;
use fvd_sim::explore::{Explorer, Limits};
use fvd_sim::workload::{alphabet, sequences};
use std::ops::ControlFlow;

/// What the disk must still be able to do.
const AFTERWARDS: &str = "w0+4,w4+4,w8+4,w12+4,f,o";

fn limits(deviations: usize) -> Limits {
    Limits {
        deviations,
        bound: Bound {
            product_max: if cfg!(debug_assertions) {
                1 << 5
            } else {
                1 << 8
            },
            random_count: 16,
            ..Bound::default()
        },
        ..Limits::default()
    }
}

fn run(line: &str, deviations: usize) -> u32 {
    let case: Case = line.parse::<Replay>().expect("legal").case;
    let limits = limits(deviations);
    let mut explorer = Explorer::<Fvd>::new(&case, &limits).expect("formats");
    match explorer.run_each_fault(&case, &limits) {
        Ok(faults) => faults,
        Err(found) => panic!("{found}"),
    }
}

/// Runs a phase on each kind of disk. `least` = faults that it has at least on any of them.
fn phase(disks: &[&str], prepare: &str, steps: &str, least: u32) {
    for disk in disks {
        let line = format!("g={disk};p={prepare};s={steps},{AFTERWARDS}/");
        let faults = run(&line, 0);
        assert!(faults >= least, "{line}: {faults} faults");
    }
}

/// The same with requests that overlap, and a cache that a failed flush leaves kept, lost, or half
/// lost.
fn phase_in_any_order(disks: &[&str], prepare: &str, steps: &str) {
    for disk in disks {
        run(&format!("g={disk};p={prepare};s={steps},o/;q=2"), 1);
    }
}

/// Plain, over a base, both on two devices.
const TABLES: [&str; 4] = ["s0", "s0B8", "s0d", "s0B8d"];

#[test]
fn open_of_a_clean_image() {
    phase(&TABLES, "w0,w4,f,o", "o", 10);
    phase(&["t0", "t0B8"], "w0,f,o", "o", 10);
    phase_in_any_order(&["s0B8d"], "w0,f", "o");
}

#[test]
fn recovery_of_a_crashed_image() {
    phase(&TABLES, "w0,w3+2,f,w8", "x", 10);
    phase(&["t0", "t0B8"], "w0,f,w3+2", "x", 10);
    phase_in_any_order(&["s0", "s0B8d"], "w0,f,w4", "x");
}

#[test]
fn first_write() {
    phase(&TABLES, "", "w3+2", 10);
    phase(&["t0B8", "s0u", "s0uz"], "", "w3+2", 10);
    phase_in_any_order(&["s0", "s0B8"], "", "w0,w1");
}

#[test]
#[cfg_attr(
    debug_assertions,
    ignore = "minutes on a busy machine: `.ci/run sim` runs it"
)]
fn overwrite() {
    phase(&TABLES, "w0+8,f", "w3+2", 10);
    phase_in_any_order(&["s0d"], "w0+8,f", "w0,w1");
}

#[test]
fn write_zeroes_and_discard() {
    phase(
        &["s0", "s0B8", "s0zx2", "s0B8dzx", "t0B8z"],
        "w0+4,f",
        "z1+2,z6+4,d0+4",
        10,
    );
    phase_in_any_order(&["s0B8z"], "w0+4,f", "z1+2,w2");
}

#[test]
#[cfg_attr(
    debug_assertions,
    ignore = "minutes on a busy machine: `.ci/run sim` runs it"
)]
fn flush_of_nothing_pending_of_exempt_and_of_other_mappings() {
    phase(&TABLES, "w0,f", "w0,f", 10);
    phase(&TABLES, "", "w8+4,f", 10);
    phase(&["s0B8", "s0B8d", "t0B8"], "", "w1,f", 10);
    phase_in_any_order(&["s0d"], "w0,f", "w4,f,f");
}

#[test]
fn forced_unit_access() {
    phase(
        &["s0", "s0F", "s0B8dF", "t0F", "t0B8"],
        "w0,f",
        "W1,W5,W9+2",
        10,
    );
    phase_in_any_order(&["s0F", "s0B8d"], "", "W0,W1");
}

#[test]
fn commit_by_timer_and_by_a_full_list() {
    phase(&TABLES, "", "w0,w4,t,r0", 10);
    // A list of 16 mappings, of which the first write fills half.
    run("g=bcs0;s=w0+8,w8+8,f,o/", 0);
}

#[test]
fn checkpoint() {
    phase(&TABLES, "w0,w4,f", "k,w8,f", 10);
    phase(&["t0B8", "a8j4B8s0"], "w0,w4,f", "k,w8,f", 10);
    phase_in_any_order(&["s0", "s0B8d"], "w0,f", "k,w4,f");
}

#[test]
fn growth() {
    phase(&["gs0", "gs0B8", "gs0d"], "", "w0,w4,w8", 10);
    phase_in_any_order(&["gs0"], "w0", "w4,w8");
}

#[test]
fn close() {
    phase(&TABLES, "", "w0,w4,o", 10);
    phase(&["t0", "t0B8d"], "", "w0,o", 10);
    phase_in_any_order(&["s0B8d"], "", "w0,o");
}

#[test]
#[cfg_attr(
    debug_assertions,
    ignore = "minutes on a busy machine: `.ci/run sim` runs it"
)]
fn each_part_of_a_request_that_takes_several_operations() {
    // Chunks out of order: four operations for one request, in the store and from the base.
    phase(&["s0", "s0d"], "w12,w8,w4,w0,f", "w0+16,r0+16,z2+12", 10);
    phase(&["s0B8", "s0B8d"], "w4,w0", "w1+7,r4+8", 10);
}

#[test]
fn the_process_dies_with_operations_in_flight() {
    // Each of them lands or not before the image is opened again.
    phase_in_any_order(&["s0", "s0B8", "s0B8d"], "w0,f", "w4,f,x");
    phase_in_any_order(&["s0B8"], "w0,f", "k2,w4,x");
}

#[test]
fn every_sequence_of_two_steps() {
    for disk in ["-", "B8d", "gB8", "t0B8", "zx2"] {
        let mut case = format!("g={disk};s=/w0,f")
            .parse::<Replay>()
            .expect("legal")
            .case;
        let limits = limits(0);
        let mut explorer = Explorer::<Fvd>::new(&case, &limits).expect("formats");
        let _ = sequences(&alphabet(&case.setup), 2, &mut |steps| {
            case.sessions[0] = steps.to_vec();
            if let Err(found) = explorer.run_each_fault(&case, &limits) {
                panic!("{found}");
            }
            ControlFlow::Continue(())
        });
        let stats = explorer.stats();
        assert!(stats.runs > 10_000, "{disk}: {stats:?}");
    }
}
