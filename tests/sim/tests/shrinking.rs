//! A long random line that fails shrinks to a few steps, and the short line fails again.

mod toys;

use fvd_sim::campaign::row::random_steps;
use fvd_sim::case::{Case, Replay};
use fvd_sim::engine::Engine;
use fvd_sim::explore::{Explorer, Found, Limits};
use fvd_sim::session::{Moments, Random};
use fvd_sim::shrink::{Shrunk, shrink};
use toys::Raw;
use toys::remap::{self, Remap};

/// Looks for a violation in random workloads of `steps` steps.
fn find<E: Engine>(line: &str, steps: u32) -> Found {
    let mut case: Case = line.parse::<Replay>().expect("legal").case;
    for seed in 1..50 {
        case.sessions[0] = random_steps(&case.setup, steps, seed);
        let limits = Limits {
            random: Some(Random { seed, odds: 64 }),
            moments: Moments {
                every: 8,
                seed,
                // Not at once: what is to be shrunk shall be long.
                first: steps / 4,
            },
            ..Limits::default()
        };
        let mut explorer = Explorer::<E>::new(&case, &limits).expect("formats");
        if let Err(found) = explorer.run(&case, &limits) {
            return *found;
        }
    }
    panic!("nothing found: {line}");
}

/// Shrinks, and checks that the short line is as wrong as the long one.
fn shrunk<E: Engine>(found: &Found) -> Shrunk {
    let shrunk = shrink::<E>(found);
    let line: Replay = shrunk.found.replay.to_string().parse().expect("printed");
    assert_eq!(line, shrunk.found.replay);
    let mut explorer = Explorer::<E>::new(&line.case, &Limits::default()).expect("legal");
    let failure = explorer.replay_case(&line);
    let failure = failure.unwrap_or_else(|| panic!("no failure again: {shrunk}"));
    assert_eq!(failure.violation.rule, found.failure.violation.rule);
    shrunk
}

#[test]
fn long_lines_of_a_broken_toy_become_short() {
    for variant in [
        remap::NO_DATA_FLUSH,
        remap::NO_LAST_FLUSH,
        remap::EARLY_REUSE,
    ] {
        let found = find::<Remap>(&format!("g=v8bcB4V{variant};s=/w0,w1,f;q=3"), 100);
        let shrunk = shrunk::<Remap>(&found);
        let (before, after) = shrunk.steps;
        assert!(before > 50 && after <= 4, "{shrunk}");
    }
}

#[test]
fn a_swallowed_flush_needs_two_steps() {
    let shrunk = shrunk::<Raw>(&find::<Raw>("g=v4bcV1;s=;q=2", 100));
    assert_eq!(shrunk.steps.1, 2, "{shrunk}");
}

/// Random steps on `fvd` itself with a wrong variant of it. One test, since the switch is one for the
/// whole process.
#[test]
#[cfg(feature = "_seeded-bugs")]
fn long_lines_of_a_broken_fvd_become_short() {
    use fvd::seeded::{Bug, set};
    use fvd_sim::driver::Fvd;

    for (bug, disk, most) in [
        (Bug::StrictWithoutDataFlush, "g=v32B24;s=/w0,f", 3),
        (Bug::CutAtEnd, "g=v32B24j4;s=/w0,f;q=2", 6),
        (Bug::FloorNotReplayed, "g=v32;s=/w0,f", 4),
        (Bug::RecoveryWithoutPages, "g=v32B24;s=/w0,f", 4),
    ] {
        set(Some(bug));
        let found = find::<Fvd>(disk, 100);
        let shrunk = shrunk::<Fvd>(&found);
        set(None);
        println!("{bug:?}: {shrunk}, in {} attempts", shrunk.attempts);
        let (before, after) = shrunk.steps;
        assert!(before > 20 && after <= most, "{bug:?}: {shrunk}");
    }
}

#[test]
fn what_does_not_fail_is_left_alone() {
    let mut found = find::<Remap>(&format!("g=v8bcB4V{};s=/w0", remap::NO_LAST_FLUSH), 100);
    found.replay.case.setup.variant = remap::RIGHT;
    assert_eq!(shrink::<Remap>(&found).found.replay, found.replay);
}
