//! `fvd` under every torn model: units that power loss cut in two, took away, filled with noise, shore
//! off or left between two contents. A small exhaustive search for each; `fvd-sim search` goes further.

use core::ops::ControlFlow;

use fvd_sim::case::{Case, Replay};
use fvd_sim::crash::Bound;
use fvd_sim::driver::Fvd;
use fvd_sim::explore::{Explorer, Limits};
use fvd_sim::workload::{parse_ops, sequences};

/// Checks every sequence of up to `length` of these steps. Returns the states looked at.
fn every_sequence(line: &str, steps: &str, length: usize) -> u64 {
    let mut case: Case = line.parse::<Replay>().expect("legal").case;
    let limits = Limits {
        bound: Bound {
            random_count: 64,
            ..Bound::default()
        },
        ..Limits::default()
    };
    let mut explorer = Explorer::<Fvd>::new(&case, &limits).expect("formats");
    let steps = parse_ops(steps).expect("legal");
    let _ = sequences(&steps, length, &mut |steps| {
        case.sessions[0] = steps.to_vec();
        if let Err(found) = explorer.run(&case, &limits) {
            panic!("{found}");
        }
        ControlFlow::Continue(())
    });
    explorer.stats().states
}

fn each(lines: &[&str], steps: &str, length: usize) {
    for line in lines {
        let states = every_sequence(line, steps, length);
        assert!(states > 500, "{line}: {states} states");
    }
}

#[test]
fn units_cut_in_two_at_every_word_or_mixed() {
    each(&["g=B8;s=/w0,f;T=1", "g=B8j4d;s=/w0,f;T=1"], "w0,w4,f,k", 2);
    each(&["g=a8j4B8;s=/w0,f;T=1"], "w0,f,k", 1);
}

#[test]
fn units_that_can_not_be_read() {
    let lines = [
        "g=-;s=/w0,f;T=2",
        "g=B8;s=/w0,f;T=2",
        "g=B8d;s=/w0,f;T=2",
        "g=t0B8;s=/w0,f;T=2",
        "g=B8j4E;s=/w0,f;T=2",
    ];
    each(&lines, "w0,w3+2,z0+2,f,k,o", 2);
    each(&["g=B8;s=/w0,f/w4,f;T=2"], "w0,f", 2);
}

#[test]
fn units_of_random_bytes() {
    let lines = [
        "g=-;s=/w0,f;T=3",
        "g=B8;s=/w0,f;T=3",
        "g=B8d;s=/w0,f;T=3",
        "g=B8j4E;s=/w0,f;T=3",
    ];
    each(&lines, "w0,w3+2,z0+2,f,k,o", 2);
    each(&["g=B8;s=/w0,f/w4,f;T=3"], "w0,f", 2);
}

#[test]
fn units_of_eight_sectors_that_are_shorn() {
    let lines = [
        "g=v32b8c16a8j4B20;s=/w1,f;T=4",
        "g=v32b8c16a8j4;s=/w1,f;T=4",
        "g=v32b8c16a8j4B20d;s=/w1,f;T=4",
    ];
    each(&lines, "w0,w17,f,k", 2);
}

#[test]
fn units_that_read_old_or_new_until_they_are_written_again() {
    each(&["g=-;s=/w0;T=5"], "w0,f", 1);
    let lines = [
        "g=B8;s=w0,f/w4;T=5",
        "g=B8d;s=w0,f/f;T=5",
        "g=t0B8;s=w0,f/w1;T=5",
        "g=E;s=w0,w4,f/;T=5",
        "g=v32b8c16a8j4B20;s=w0,f,k/w1;T=5",
    ];
    for line in lines {
        let case: Case = line.parse::<Replay>().expect("legal").case;
        let limits = Limits::default();
        let mut explorer = Explorer::<Fvd>::new(&case, &limits).expect("formats");
        if let Err(found) = explorer.run(&case, &limits) {
            panic!("{found}");
        }
        let stats = explorer.stats();
        assert!(stats.states > 500, "{line}: {stats:?}");
    }
}
