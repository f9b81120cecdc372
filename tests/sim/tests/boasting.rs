//! A device that says that it grew, and did not (F31): nothing is ever put where there is no device.

use core::ops::ControlFlow;
use core::task::Waker;
use std::collections::VecDeque;

use fvd::buffer::Op;
use fvd::device::{BlockDevice, Geometry, OpKind, When};
use fvd::units::Instant;
use fvd_sim::case::Replay;
use fvd_sim::disk::SimDisk;
use fvd_sim::explore::{Explorer, Limits};
use fvd_sim::middleware::{Middleware, Under};
use fvd_sim::workload::{parse_ops, sequences};

/// Answers growth itself, as if it had been done.
struct Boasts {
    below: SimDisk,
    answered: VecDeque<Op>,
}

impl Middleware for Boasts {
    type Device = Boasts;

    fn over(below: SimDisk) -> Boasts {
        Boasts {
            below,
            answered: VecDeque::new(),
        }
    }
}

impl BlockDevice for Boasts {
    fn geometry(&self) -> Geometry {
        self.below.geometry()
    }

    fn submit(&mut self, mut op: Op) -> Result<(), Op> {
        if op.kind() == OpKind::Grow {
            op.complete(Ok(()));
            self.answered.push_back(op);
            return Ok(());
        }
        self.below.submit(op)
    }

    fn notify(&mut self) {
        self.below.notify();
    }

    fn poll(&mut self, now: Instant) -> Option<Op> {
        self.answered.pop_front().or_else(|| self.below.poll(now))
    }

    fn poll_at(&self) -> When {
        if self.answered.is_empty() {
            self.below.poll_at()
        } else {
            When::Now
        }
    }

    fn set_waker(&mut self, waker: &Waker) -> bool {
        self.below.set_waker(waker)
    }
}

#[test]
fn f31_growth_that_did_not_happen_is_no_space() {
    for line in ["g=gs0;s=/w0,f", "g=B8g;s=/w0,f", "g=dgs0;s=/w0,f"] {
        let mut case = line.parse::<Replay>().expect("legal").case;
        let limits = Limits::default();
        let mut explorer = Explorer::<Under<Boasts>>::new(&case, &limits).expect("formats");
        let steps = parse_ops("w0,w4,w8+8,f,k,o").expect("legal");
        let _ = sequences(&steps, 3, &mut |steps| {
            case.sessions[0] = steps.to_vec();
            if let Err(found) = explorer.run(&case, &limits) {
                panic!("{found}");
            }
            ControlFlow::Continue(())
        });
        assert!(explorer.stats().states > 10, "{line}");
    }
}
