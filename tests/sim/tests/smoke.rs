//! A little of everything that `fvd-sim campaign` does, in seconds: each kind of disk, each kind of
//! failing operation, every order of a few requests, and long random lives.
//!
//! What this finds, the campaign finds too, with a shorter line.

use core::ops::ControlFlow;

use fvd::device::OpKind;
use fvd_sim::campaign::row::Row;
use fvd_sim::driver::Fvd;
use fvd_sim::explore::{Explorer, Limits};
use fvd_sim::hunt::{ALL, search};

/// Runs a row with few of the outcomes of each crash.
fn run(row: Row) {
    let row = row.selecting(1 << 5, 8);
    let case = row.case().expect("legal");
    let mut explorer = Explorer::<Fvd>::new(&case, &Limits::default()).expect("formats");
    let each = row.each(&mut |case, limits| {
        let found = match row.failing {
            Some((store, kind)) => explorer.run_failing(case, store, kind, limits),
            None => explorer.run(case, limits),
        };
        if let Err(found) = found {
            panic!("{found}");
        }
        ControlFlow::Continue(())
    });
    each.expect("legal");
    assert!(explorer.stats().states > 0, "{}", row.line);
}

#[test]
fn a_step_on_each_kind_of_disk() {
    for line in [
        "g=-;s=/w0,f",
        "g=B8;s=/w0,f",
        "g=B24;s=/w0,f",
        "g=B8d;s=/w0,f",
        "g=B8g;s=/w0,f",
        "g=gs0;s=/w0,f",
        "g=t0B8;s=/w0,f",
        "g=t0B8d;s=/w0,f",
        "g=B8F;s=/w0,f",
        "g=zx2;s=/w0,f",
        "g=uB8;s=/w0,f",
        "g=v8uzx2;s=/w0,f",
        "g=B8n;s=/w0,f",
        "g=b4B8;s=/w0,f",
        "g=bc8B7;s=/w0,f",
        "g=v32bc16B8;s=/w0,f",
        "g=a8j4B8;s=/w0,f",
        "g=j2;s=/w0,f",
        "g=dE;s=/w0,f",
        "g=B8E;s=/w0,f",
        "g=D1B8;s=/w0,f",
        "g=D1gB8;s=/w0,f",
        "g=D2t0B8;s=/w0,f",
    ] {
        run(Row::all("", line, 1));
    }
}

#[test]
fn two_steps_on_a_few_disks() {
    for line in [
        "g=-;s=/w0,f",
        "g=B8d;s=/w0,f",
        "g=t0B8;s=/w0,f",
        "g=E;s=/w0,f",
    ] {
        run(Row::all("", line, 2));
    }
}

#[test]
fn every_order_of_two_requests() {
    for line in [
        "g=B8;s=;q=3!",
        "g=-;s=;q=3!",
        "g=t0B8;s=;q=3!",
        "g=uB8;s=;q=3!",
    ] {
        let row = Row::of("", line, "w0,w1,w3+2,f,z0+2,d0+4", 2);
        run(row.unusual(usize::MAX));
    }
}

#[test]
fn operations_that_fail() {
    for line in ["g=B8ds0;s=/w0,f", "g=us0;s=/w0,f", "g=B8E;s=/w0,f"] {
        for store in 0..3 {
            for kind in [OpKind::Read, OpKind::Write, OpKind::Flush] {
                let row = Row::of("", line, "w0,w1+4,z0,f,k,o", 1);
                run(row.failing(store, kind));
            }
        }
    }
}

#[test]
fn long_random_lives() {
    for (line, count, steps) in [
        ("g=v64B30Q32;s=/w0,f;q=32", 1, 1000),
        ("g=v64B40gQ32;s=/w0,f;q=32", 2, 200),
        ("g=v64B40g6Q32;s=/w0,f;q=32", 2, 200),
        ("g=v64B40t0Q16;s=/w0,f;q=16", 2, 200),
        ("g=v32uzx2;s=;q=8", 4, 200),
        ("g=v64B30d;s=", 1, 1000),
        ("g=v64B30dQ32j16;s=/w0,f;q=32", 1, 1000),
        ("g=v64b8c16B32a8L8;s=;q=2", 1, 1000),
        ("g=v64B40D1;s=/w0,f;q=4", 2, 200),
        ("g=v64B40gD1;s=/w0,f;q=4", 2, 200),
        ("g=v64B40t0D2;s=/w0,f;q=4", 2, 200),
    ] {
        run(Row::random("", line, count, steps));
    }
}

#[test]
fn where_seeded_bugs_are_known_to_show() {
    for known in ALL {
        let searched = search(&known.ground, 2_000).expect("a legal case");
        if let Some(found) = searched.found {
            panic!("{}: {found}", known.name);
        }
    }
}
