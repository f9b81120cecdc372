//! One test per row of the fault table: what fails, what the guest is answered, and what is left.
//!
//! The number in a test's name is that of its row.

use crate::rig::{DONE, IO, LOSSES, NO_SPACE, POISONED, Rig, no_violation};
use fvd_sim::stamp::Value;

/// What a failed operation leaves: nothing, all of it, half of it.
const LANDED: [&str; 3] = ["", "+", "~"];

/// After a failed flush or metadata write: no write or flush is acknowledged although the device
/// works again, reads show what they showed, and each way to end the session keeps what was flushed.
fn expect_fail_stop(rig: &mut Rig, prepare: &dyn Fn(&mut Rig)) {
    for loss in LOSSES {
        rig.renew();
        prepare(rig);
        rig.heal();
        let before = rig.contents();
        for step in ["f", "w0", "w5+2", "W1", "f"] {
            assert_eq!(rig.run(step), POISONED, "{step}");
        }
        assert_eq!(rig.contents(), before);
        assert!(
            rig.close().is_err(),
            "a poisoned disk closes as if it were well"
        );
        rig.lose(loss);
        rig.done("w0,w4,f,w0,f");
    }
}

#[test]
fn f09_a_failed_flush_ends_all_promises() {
    // Nothing pending; an exempt commit; a strict one, whose data flush is the first; two devices.
    for (setup, before, fault, answer) in [
        ("-", "w0,f,w0", "0f0", IO),
        ("t0", "w0", "0f0", IO),
        ("-", "w0,f,w4", "0f0", POISONED),
        ("B8", "w0,f,w4", "0f0", POISONED),
        ("B8", "w0,f,w4", "0f1", POISONED),
        ("d", "w0,f,w0", "1f0", IO),
        ("d", "w0,f,w4", "0f0", POISONED),
        ("d", "w0,f,w4", "1f0", POISONED),
        ("B8d", "w0,f,w4", "0f0", POISONED),
        ("B8d", "w0,f,w4", "1f0", POISONED),
    ] {
        expect_fail_stop(&mut Rig::new(setup), &|rig| {
            rig.done(before);
            rig.fault(fault);
            assert_eq!(rig.run("f"), answer, "{setup} {before} {fault}");
            assert!(rig.struck());
        });
    }
}

#[test]
fn f09_a_flush_beside_a_failed_one_is_not_acknowledged() {
    // The second flush may report success for what the first one lost.
    for line in [
        "g=t0;s=w0,f,f/;q=3",
        "g=-;p=w0,f;s=w0,f,f/;q=3",
        "g=-;p=w0,f;s=w0,k,f/;q=3",
    ] {
        for index in 0..3 {
            no_violation(&format!("{line};i=0f{index}"), 3);
        }
    }
    for index in 0..2 {
        no_violation(&format!("g=d;p=w0,f;s=w0,f,f/;q=3;i=1f{index}"), 3);
    }
}

#[test]
fn f10_a_failed_write_of_a_mapped_block_hits_that_request_only() {
    for setup in ["-", "t0", "d", "B8", "b4c4"] {
        let store = u8::from(setup == "d");
        let mut rig = Rig::new(setup);
        for landed in LANDED {
            rig.renew();
            rig.done("w0+4,w4+4,f");
            rig.fault(&format!("{store}w0{landed}"));
            assert_eq!(rig.together("w0+2,w4,r5"), [IO, DONE, DONE], "{setup}");
            rig.contents();
            rig.done("w0+2,w1,f");
            rig.close().expect("nothing but a request failed");
        }
    }
}

#[test]
fn f11_a_failed_first_write_maps_nothing_and_gives_its_chunk_back() {
    // No chunk to spare: a lost one would leave the last write without space.
    for (setup, store) in [("s0", 0), ("s0d", 1), ("s0B8", 0), ("s0u", 0), ("s0uz", 0)] {
        let mut rig = Rig::new(setup);
        for landed in LANDED {
            for round in 0..4 {
                rig.renew();
                let before = rig.contents();
                // Zeroing a used chunk first is a data operation too.
                let kind = if setup == "s0uz" && round % 2 == 0 {
                    'z'
                } else {
                    'w'
                };
                rig.fault(&format!("{store}{kind}{}{landed}", round / 2));
                let status = rig.run("w3+4");
                assert_eq!(status == IO, rig.struck(), "{setup} {kind}{round}");
                if status == IO {
                    assert_eq!(
                        rig.contents(),
                        before,
                        "{setup}: a failed first write shows"
                    );
                }
                rig.heal();
                rig.done("f");
                let all = rig.together("w0+4,w4+4,w8+4,w12+4");
                assert_eq!(all, [DONE; 4], "{setup}: a chunk is gone");
                rig.close().expect("nothing but a request failed");
            }
        }
    }
}

#[test]
fn f12_a_failed_journal_write_ends_all_promises() {
    for setup in ["-", "B8", "d", "B8d", "t0B8"] {
        let mut rig = Rig::new(setup);
        for landed in LANDED {
            expect_fail_stop(&mut rig, &|rig| {
                rig.done("w0,f,w4");
                rig.fault(&format!("0w0{landed}"));
                assert_eq!(rig.run("f"), POISONED, "{setup}");
                assert!(rig.struck());
            });
        }
    }
}

#[test]
fn f13_f14_a_failed_page_checksum_or_header_write_ends_all_promises() {
    for setup in ["-", "B8", "B8d", "t0B8"] {
        let mut rig = Rig::new(setup);
        for landed in LANDED {
            for index in 0.. {
                let prepare = |rig: &mut Rig| {
                    rig.done("w0,w4,f");
                    rig.fault(&format!("0w{index}{landed}"));
                    rig.checkpoint();
                };
                rig.renew();
                prepare(&mut rig);
                if !rig.struck() {
                    // Pages and header at least.
                    assert!(index >= 2, "{setup}: a checkpoint of {index} writes");
                    break;
                }
                expect_fail_stop(&mut rig, &prepare);
            }
        }
    }
}

#[test]
fn f15_a_base_that_can_not_be_read_fails_the_reads_of_it_only() {
    let mut rig = Rig::new("B8");
    rig.done("w0+2,f");
    rig.fault("2r0!");
    assert_eq!(rig.together("r2+4,r0+2,r8+8,r1+4"), [IO, DONE, DONE, IO]);
    rig.done("w2+2,w0,f,r2+2");
    rig.heal();
    assert_eq!(rig.read(4), Value::BASE);
    rig.close().expect("nothing but requests failed");
}

#[test]
fn f16_a_base_that_can_not_be_read_fails_a_partial_write_whole() {
    for (setup, step) in [
        ("B8", "w1"),
        ("B8", "w1+2"),
        ("t0B8", "w2"),
        ("B8z", "z1"),
        ("B8", "z1"),
    ] {
        let mut rig = Rig::new(setup);
        for index in 0..2 {
            rig.renew();
            let before = rig.contents();
            rig.fault(&format!("2r{index}"));
            let status = rig.run(step);
            assert_eq!(status == IO, rig.struck(), "{setup} {step}");
            if status == IO {
                assert_eq!(rig.contents(), before, "{setup} {step}: half a block shows");
            }
            rig.heal();
            rig.done(step);
            rig.done("f");
            rig.contents();
            rig.close().expect("nothing but a request failed");
        }
    }
}

#[test]
fn f29_a_store_that_can_not_grow_refuses_new_space_only() {
    let mut rig = Rig::new("gs0");
    rig.done("w0,f");
    rig.fault("0g0!");
    let full = ["w4", "w8", "w12"].map(|step| rig.run(step));
    assert!(full.contains(&NO_SPACE), "{full:?}");
    rig.done("w0,r0,f");
    rig.contents();
    rig.heal();
    rig.done("w4,w8,w12,f");
    rig.close().expect("nothing but requests failed");
}
