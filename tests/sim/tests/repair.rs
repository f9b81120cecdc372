//! A repair loses nothing: not to a power loss at any of its operations, nor to one in the repair
//! that follows, nor to a device that fails.

mod repairs;

use fvd::check::Severity;
use fvd::device::OpKind;
use repairs::{Clinic, patients};

#[test]
fn power_may_fail_at_every_operation_of_a_repair() {
    let clinic = Clinic::new();
    let mut states = 0;
    for patient in patients::all(&clinic) {
        match clinic.survives(&patient.image, &patient.content, 2) {
            Ok(count) => states += count,
            Err(error) => panic!("{}: {error}", patient.name),
        }
    }
    println!("{states} states");
    assert!(states > 300, "{states} states");
}

#[test]
fn every_operation_of_a_repair_may_fail() {
    let clinic = Clinic::new();
    let mut failures = 0;
    for patient in patients::all(&clinic) {
        for kind in [OpKind::Read, OpKind::Write, OpKind::Flush] {
            match clinic.survives_faults(&patient.image, &patient.content, kind) {
                Ok(count) => failures += count,
                Err(error) => panic!("{}: {error}", patient.name),
            }
        }
    }
    println!("{failures} failures");
    assert!(failures > 200, "{failures} failures");
}

/// Otherwise the tests above would be about nothing.
#[test]
fn each_patient_is_ill() {
    let clinic = Clinic::new();
    for patient in patients::all(&clinic) {
        let findings = clinic.findings(&patient.image).expect("a header");
        assert!(!findings.is_empty(), "{}", patient.name);
        let refused = clinic.content(&patient.image).is_err();
        let repairable = findings
            .iter()
            .any(|it| it.severity == Severity::Repairable);
        assert_eq!(refused, repairable, "{}: {findings:?}", patient.name);
    }
}
