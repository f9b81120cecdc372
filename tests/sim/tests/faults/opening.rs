//! Opening on a store that fails: a typed error, everything back, and nothing lost.

use crate::rig::{LOSSES, Loss, Rig};

/// The stores' contents.
fn images(rig: &Rig) -> Vec<Vec<fvd_sim::sector::SectorId>> {
    rig.devices.images()
}

/// Lets each operation of one kind that opening does fail in turn. `prepare` leaves an image to open;
/// `operations` are a store and a kind, `rule` says how they fail. Returns how many there were.
fn each_operation(rig: &mut Rig, prepare: &dyn Fn(&mut Rig), operations: &str, rule: &str) -> u32 {
    let device = match operations.strip_prefix('1') {
        Some(_) => "data",
        None => "metadata",
    };
    for index in 0.. {
        for loss in LOSSES {
            rig.renew();
            prepare(rig);
            let before = images(rig);
            let fault = format!("{operations}{index}{rule}");
            rig.fault(&fault);
            let opened = rig.open();
            if !rig.struck() {
                opened.expect("nothing failed");
                rig.heal();
                rig.contents();
                return index;
            }
            // A part of header or journal that can be read the second time is no failure.
            if opened.is_ok() && operations == "0r" && rule.is_empty() {
                rig.heal();
                rig.contents();
                rig.done("w0,w4,w8,f");
                rig.close().expect("a sound disk");
                break;
            }
            let why = opened.expect_err("opening hides a failure");
            let named = format!("the {device} device failed: input/output error");
            assert_eq!(why, named, "{fault}");
            let only_read = operations == "0r" || (operations == "0f" && index == 0);
            assert!(!only_read || images(rig) == before, "{fault}, and written");
            rig.restart_devices(loss);
            rig.recover();
            rig.done("w0,w4,w8,f");
            rig.close().expect("a sound disk");
            if only_read {
                break;
            }
        }
    }
    unreachable!("an opening has an end")
}

/// How the session before ended: closed, or not.
const ENDS: [Option<Loss>; 4] = [
    None,
    Some(Loss::AllLost),
    Some(Loss::AllKept),
    Some(Loss::Process),
];

fn each_fault_of_opening(setup: &str) {
    let mut rig = Rig::new(setup);
    for end in ENDS {
        let prepare = |rig: &mut Rig| {
            rig.done("w0,f,w3+2,f,w8");
            match end {
                None => rig.close().expect("a sound disk"),
                Some(loss) => rig.die(loss),
            }
        };
        // Both header slots, then what there is of table, bitmap, checksums, journal; the header at
        // least; a flush first and one after the header, and one of a data device.
        let data_flushes = u32::from(setup.contains('d'));
        for (operations, least, rules) in [
            ("0r", 2, &["", "!"][..]),
            ("0w", 1, &["", "!", "+", "~", "~!"]),
            ("0f", 2, &["", "!"]),
            ("1f", data_flushes, &["", "!"]),
        ] {
            for rule in rules {
                let count = each_operation(&mut rig, &prepare, operations, rule);
                assert!(count >= least, "{setup} {end:?}: {count} of {operations}");
            }
        }
    }
}

#[test]
fn f19_each_operation_of_opening_fails_on_one_device() {
    for setup in ["-", "B8", "t0", "t0B8", "j2", "u"] {
        each_fault_of_opening(setup);
    }
}

#[test]
fn f19_each_operation_of_opening_fails_on_two_devices_and_on_large_sectors() {
    for setup in ["d", "B8d", "B8g", "a8j4B8"] {
        each_fault_of_opening(setup);
    }
}
