//! Does the simulator see? Engines that are right must pass, and each known bug must be found, with
//! a line that replays it.

mod toys;

use fvd_sim::case::{Case, Replay};
use fvd_sim::crash::Tear;
use fvd_sim::engine::Engine;
use fvd_sim::explore::{Explorer, Found, Limits};
use fvd_sim::workload::{GuestOp, Setup, parse_ops, sequences};
use toys::Raw;
use toys::remap::{self, Remap};

fn setup(text: &str, variant: u32) -> Setup {
    let mut setup: Setup = text.parse().expect("legal");
    setup.variant = variant;
    setup
}

fn case(setup: Setup, sessions: &str) -> Case {
    Case {
        setup,
        sessions: sessions
            .split('/')
            .map(|ops| parse_ops(ops).expect("legal"))
            .collect(),
        queue_depth: 2,
        ..Case::default()
    }
}

/// Runs every sequence of these steps, then `after`, and returns the first violation.
fn search<E: Engine>(
    setup: Setup,
    steps: &str,
    length: usize,
    after: &str,
    limits: &Limits,
    tear: Tear,
) -> (Explorer<E>, Option<Found>) {
    let mut case = case(setup, &format!("/{after}"));
    case.tear = tear;
    let mut explorer = Explorer::<E>::new(&case, limits).expect("formats");
    let steps: Vec<GuestOp> = parse_ops(steps).expect("legal");
    let mut found = None;
    let _ = sequences(&steps, length, &mut |ops| {
        case.sessions[0] = ops.to_vec();
        match explorer.run(&case, limits) {
            Ok(()) => core::ops::ControlFlow::Continue(()),
            Err(failure) => {
                found = Some(*failure);
                core::ops::ControlFlow::Break(())
            }
        }
    });
    (explorer, found)
}

const STEPS: &str = "w0,w1,w0+2,f,o,x";

fn remap_bug(variant: u32, tear: Tear) -> Option<Found> {
    let limits = Limits {
        deviations: 1,
        ..Limits::default()
    };
    let (mut explorer, found) =
        search::<Remap>(setup("v4B2", variant), STEPS, 3, "w0,w1,f", &limits, tear);
    let found = found?;
    let line: Replay = found.replay.to_string().parse().expect("it was printed");
    assert_eq!(line, found.replay);
    let (trace, failure) = explorer.replay(&line.path);
    let failure = failure.unwrap_or_else(|| panic!("no failure again: {found}"));
    assert_eq!(failure.violation, found.failure.violation, "{found}");
    assert!(!trace.is_empty());
    Some(found)
}

#[test]
fn a_raw_disk_has_no_violations() {
    let limits = Limits {
        deviations: 2,
        ..Limits::default()
    };
    let (explorer, found) = search::<Raw>(
        setup("v4", 0),
        "w0,w1,w0+2,f,x",
        3,
        "w1,f",
        &limits,
        Tear::None,
    );
    assert!(found.is_none(), "{}", found.expect("some"));
    let stats = explorer.stats();
    assert!(stats.states > 300, "{stats:?}");
}

#[test]
fn a_disk_that_swallows_flushes_is_caught_in_two_steps() {
    let limits = Limits::default();
    let (_, found) = search::<Raw>(setup("v4", 1), STEPS, 2, "", &limits, Tear::None);
    let found = found.expect("a lost flush");
    assert_eq!(found.failure.violation.rule, "R1");
    assert_eq!(found.replay.case.sessions[0].len(), 2, "{found}");
}

#[test]
fn a_disk_that_commits_its_map_properly_has_no_violations() {
    for tear in [Tear::None, Tear::Cut, Tear::Garbage, Tear::Metastable] {
        let found = remap_bug(remap::RIGHT, tear);
        assert!(found.is_none(), "{}", found.expect("some"));
    }
}

#[test]
fn each_missing_step_is_caught() {
    for (variant, rule) in [
        (remap::NO_DATA_FLUSH, "R1"),
        (remap::NO_LAST_FLUSH, "R1"),
        (remap::EARLY_REUSE, "R1"),
        (remap::STALE_READ, "R1"),
        (remap::SLOT_NOT_READ, "R1"),
        (remap::WRITES_BASE, "R8"),
    ] {
        let found = remap_bug(variant, Tear::None).unwrap_or_else(|| panic!("bug {variant}"));
        assert_eq!(found.failure.violation.rule, rule, "{found}");
    }
}

#[test]
fn tears_inside_a_unit_are_found_where_they_matter() {
    for variant in [remap::ONE_SLOT, remap::NO_CHECKSUM, remap::NO_REPAIR] {
        assert!(remap_bug(variant, Tear::Cut).is_some(), "bug {variant}");
    }
    for variant in [remap::NO_REPAIR, remap::TRUSTS] {
        assert!(
            remap_bug(variant, Tear::Metastable).is_some(),
            "bug {variant}"
        );
    }
    // Whoever believes what it reads is safe as long as it reads the same next time.
    for tear in [Tear::None, Tear::Cut, Tear::Garbage] {
        assert!(remap_bug(remap::TRUSTS, tear).is_none(), "{tear:?}");
    }
    // With atomic units all are harmless: one slot is always old or new.
    for variant in [remap::ONE_SLOT, remap::NO_CHECKSUM, remap::NO_REPAIR] {
        assert!(remap_bug(variant, Tear::None).is_none(), "bug {variant}");
    }
}

#[test]
fn tears_of_unflushed_data_are_no_violation_and_those_of_flushed_data_are() {
    for tear in [Tear::Unreadable, Tear::Garbage, Tear::Metastable] {
        let limits = Limits::default();
        let steps = "w0,w1,w0+2,r0+2,f,x";
        let (explorer, found) = search::<Raw>(setup("v4", 0), steps, 2, "r0+2,w1,f", &limits, tear);
        assert!(found.is_none(), "{tear:?}: {}", found.expect("some"));
        assert!(explorer.stats().states > 20, "{tear:?}");
        let (_, found) = search::<Raw>(setup("v4", 1), steps, 2, "", &limits, tear);
        let found = found.expect("a lost flush");
        assert!(
            ["R1", "R14"].contains(&found.failure.violation.rule),
            "{found}"
        );
    }
}

fn run(line: &str) -> Option<Found> {
    let case: Case = line.parse::<Replay>().expect("legal").case;
    let limits = Limits::default();
    let mut explorer = Explorer::<Remap>::new(&case, &limits).expect("formats");
    explorer.run(&case, &limits).err().map(|found| *found)
}

/// Each of the contents is legal by itself (R4).
#[test]
fn contents_that_depend_on_where_recovery_was_cut_off_are_caught() {
    assert!(run(&format!("g=v4V{};s=w0,f/", remap::RIGHT)).is_none());
    let found = run(&format!("g=v4V{};s=w0,f/", remap::FORGETFUL)).expect("it forgets");
    let violation = &found.failure.violation;
    assert_eq!(violation.rule, "R4", "{found}");
    // Value by value: what was written, and what was there before.
    assert!(
        violation.detail.contains("sector 0 holds write#0"),
        "{found}"
    );
    let line: Replay = found.replay.to_string().parse().expect("printed");
    let mut explorer = Explorer::<Remap>::new(&line.case, &Limits::default()).expect("legal");
    let (_, failure) = explorer.replay(&line.path);
    assert_eq!(failure.expect("again").violation, *violation);
}

#[test]
fn contents_that_another_recovery_changes_are_caught() {
    let path = |moment| format!("g=v4V{};s=w0,f;c=;k={moment}:0.1+1.1+2.1;c=", remap::FADES);
    let failures = (0..12).filter_map(|moment| {
        let line: Replay = path(moment).parse().expect("legal");
        let mut explorer = Explorer::<Remap>::new(&line.case, &Limits::default()).expect("legal");
        explorer.replay(&line.path).1
    });
    let found: Vec<String> = failures
        .filter(|failure| failure.violation.rule == "R4")
        .map(|failure| failure.violation.detail)
        .collect();
    assert!(
        found
            .iter()
            .any(|detail| detail.contains("recovered again")),
        "{found:?}"
    );
}
