//! Two checkers that share no code are shown what power losses leave, and what recovery makes of it:
//! they agree, and if one of them were wrong it would be noticed. `fvd-sim campaign` asks them of many
//! more states.

use core::ops::ControlFlow;

use fvd_sim::case::{Case, Replay};
use fvd_sim::crash::Bound;
use fvd_sim::driver::Fvd;
use fvd_sim::explore::{Explorer, Found, Limits};
use fvd_sim::opinion::{Examined, Image, Opinion, Python, Verdict};
use fvd_sim::session::Auditor;
use fvd_sim::workload::{parse_ops, sequences};

/// The second checker, or nothing, which is said then.
fn python() -> Option<Python> {
    let python = Python::start().expect("the checker starts");
    if python.is_none() {
        println!("SKIP: python3 is not installed");
    }
    python
}

/// Runs all sequences of up to `length` steps with this second checker.
fn search(
    line: &str,
    length: usize,
    second: impl Opinion + 'static,
    every: u64,
) -> (Auditor, Option<Box<Found>>) {
    let mut case: Case = line.parse::<Replay>().expect("legal").case;
    let limits = Limits {
        bound: Bound {
            random_count: 64,
            ..Bound::default()
        },
        ..Limits::default()
    };
    let mut explorer = Explorer::<Fvd>::new(&case, &limits).expect("formats");
    explorer.set_auditor(Some(Auditor::new(Box::new(second), every)));
    let mut found = None;
    let steps = parse_ops("w0,w3+2,f,k,o").expect("legal");
    let _ = sequences(&steps, length, &mut |steps| {
        case.sessions[0] = steps.to_vec();
        found = explorer.run(&case, &limits).err();
        match found {
            Some(_) => ControlFlow::Break(()),
            None => ControlFlow::Continue(()),
        }
    });
    (explorer.set_auditor(None).expect("it was set"), found)
}

#[test]
fn both_checkers_agree_on_what_crashes_leave() {
    for (line, every) in [
        ("g=-;s=/w0,f", 300),
        ("g=B8;s=/w0,f", 300),
        ("g=B8d;s=/w0,f", 300),
        ("g=t0B8;s=/w0,f", 300),
        ("g=B7bc8;s=/w0,f", 300),
        ("g=B8g;s=/w0,f", 300),
        ("g=B8dE;s=/w0,f", 300),
        ("g=a8j4B24;s=/w0,f", 60),
        ("g=B8;s=/;T=1", 300),
        ("g=B4;s=/;T=5", 300),
    ] {
        let Some(python) = python() else { return };
        let (auditor, found) = search(line, 2, python, every);
        assert!(found.is_none(), "{}", found.expect("just found"));
        assert!(auditor.agreed >= 4, "{line}: {}", auditor.agreed);
        assert_eq!(auditor.corrupt, 0, "{line}");
    }
}

#[test]
fn both_checkers_call_the_same_states_corrupt() {
    let Some(python) = python() else { return };
    // Random bytes in a page of the table, which a bit after it does not cover.
    let (auditor, found) = search("g=B4;p=w0,f;s=/;T=3", 1, python, 16);
    assert!(found.is_none(), "{}", found.expect("just found"));
    println!("{} images, {} corrupt", auditor.agreed, auditor.corrupt);
    assert!(auditor.corrupt > 0 && auditor.agreed > 50);
}

/// A checker that is shown another image, or that says something else of the one it is shown.
struct Wrong<S, H> {
    python: Python,
    shown: S,
    heard: H,
}

impl<S: FnMut(&mut Image) + Send, H: FnMut(&mut Examined) + Send> Opinion for Wrong<S, H> {
    fn ask(&mut self, image: &Image) -> Result<Examined, String> {
        let mut image = image.clone();
        (self.shown)(&mut image);
        let mut examined = self.python.ask(&image)?;
        (self.heard)(&mut examined);
        Ok(examined)
    }
}

/// What is found if the second checker is wrong.
fn found_with(
    shown: impl FnMut(&mut Image) + Send + 'static,
    heard: impl FnMut(&mut Examined) + Send + 'static,
) -> Option<Found> {
    let python = python()?;
    let wrong = Wrong {
        python,
        shown,
        heard,
    };
    let (_, found) = search("g=B8d;s=/w0,f", 2, wrong, 50);
    let found = *found.expect("they differ, and it was noticed");
    let violation = &found.failure.violation;
    assert_eq!(violation.rule, "R12", "{found}");
    println!("{found}");
    Some(found)
}

#[test]
fn a_byte_that_only_one_checker_sees_is_noticed() {
    // The first page behind the two headers, whichever it is, is covered by a checksum.
    let Some(found) = found_with(|image| image.metadata[8192 + 4000] ^= 1, |_| ()) else {
        return;
    };
    assert!(found.failure.violation.detail.contains("Corrupt"));
    // The printed line leads to the same state, on which two checkers that are right agree.
    let line: Replay = found.replay.to_string().parse().expect("printed");
    let mut explorer = Explorer::<Fvd>::new(&line.case, &Limits::default()).expect("legal");
    let Some(python) = python() else { return };
    explorer.set_auditor(Some(Auditor::new(Box::new(python), 1)));
    assert!(explorer.replay(&line.path).1.is_none());
    let auditor = explorer.set_auditor(None).expect("it was set");
    assert!(auditor.agreed >= 2);
}

#[test]
fn a_checker_that_calls_everything_clean_or_miscounts_is_noticed() {
    let _ = found_with(
        |image| image.metadata.truncate(8192),
        |examined| examined.findings.clear(),
    );
    let _ = found_with(
        |_| (),
        |examined| {
            if let Some(counts) = &mut examined.counts {
                counts.mapped += 1;
            }
        },
    );
    let _ = found_with(
        |_| (),
        |examined| {
            for extent in examined.extents.iter_mut().flatten() {
                extent.offset = extent.offset.map(|offset| offset + 512);
            }
        },
    );
    let _ = found_with(|_| (), |examined| examined.verdict = Verdict::Unknown);
}
