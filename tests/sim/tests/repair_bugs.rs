//! Repairs that are wrong on purpose do lose something, and are caught. One test, since the switch
//! is one for the whole process.

#![cfg(feature = "_seeded-bugs")]

mod repairs;

use fvd::seeded::{Bug, set};
use repairs::{Clinic, patients};

#[test]
fn each_wrong_repair_is_caught() {
    for bug in [
        Bug::NewerSlotOverwritten,
        Bug::RecoveryPagesNotFlushed,
        Bug::RecoveryWithoutPages,
    ] {
        let clinic = Clinic::new();
        let patients = patients::all(&clinic);
        set(Some(bug));
        let caught = patients
            .iter()
            .find_map(|patient| clinic.survives(&patient.image, &patient.content, 1).err());
        set(None);
        assert!(caught.is_some(), "{bug:?}");
        println!("{bug:?}: {}", caught.unwrap_or_default());
    }
}
