//! Every deliberately wrong variant of the engine is caught, and the right one is not accused in the
//! same places. One test runs them all, since the switch is one for the whole process.

#![cfg(feature = "_seeded-bugs")]

use fvd::seeded::Bug;
use fvd_sim::case::Replay;
use fvd_sim::driver::Fvd;
use fvd_sim::explore::{Explorer, Limits};
use fvd_sim::hunt::{ALL, hunt, search};

/// States that a known place has to show its bug in.
const STATES_MAX: u64 = 50_000;

#[test]
fn every_seeded_bug_is_looked_for() {
    for bug in Bug::ALL {
        assert!(ALL.iter().any(|known| known.bug == *bug), "{bug:?}");
    }
}

#[test]
fn every_seeded_bug_is_caught_and_replays() {
    for known in ALL {
        let clean = search(&known.ground, STATES_MAX).expect("a legal case");
        if let Some(found) = clean.found {
            panic!("without a bug, where {} shows: {found}", known.name);
        }
        let searched = hunt(known, STATES_MAX).expect("legal cases");
        let found = searched
            .found
            .unwrap_or_else(|| panic!("{} is not caught", known.name));
        let line: Replay = found.replay.to_string().parse().expect("it was printed");
        fvd::seeded::set(Some(known.bug));
        let mut explorer = Explorer::<Fvd>::new(&line.case, &Limits::default()).expect("legal");
        let (trace, failure) = explorer.replay(&line.path);
        fvd::seeded::set(None);
        let failure =
            failure.unwrap_or_else(|| panic!("{}: no failure again: {found}", known.name));
        assert_eq!(
            failure.violation, found.failure.violation,
            "{}: {found}",
            known.name
        );
        assert!(!trace.is_empty());
    }
}
