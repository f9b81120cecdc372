//! Puts a middleware of your own through the crash simulator.
//!
//! The layer here leaves out flushes that have nothing to do: when every write that completed is
//! known durable, it answers a flush itself. That is right if "known durable" is decided when a
//! flush is *submitted*. Deciding it when the flush *completes* looks just as good and forgets the
//! writes that completed in between. Both are here; the simulator tells them apart in a moment.
//!
//! ```text
//! cargo run --release -p fvd-sim --example middleware
//! ```

use core::task::Waker;
use std::collections::VecDeque;
use std::process::ExitCode;

use fvd::buffer::Op;
use fvd::device::{BlockDevice, Geometry, OpKind, Status, When};
use fvd::units::Instant;
use fvd_sim::case::Replay;
use fvd_sim::disk::SimDisk;
use fvd_sim::engine::Engine;
use fvd_sim::explore::{Explorer, Found, Limits};
use fvd_sim::middleware::{Alone, Middleware, Under};
use fvd_sim::workload::{parse_ops, sequences};

/// Leaves out flushes that would cover nothing. `CARELESS` is the variant with the bug.
pub(crate) struct FlushFilter<D, const CARELESS: bool> {
    below: D,
    /// Writes that completed since the start.
    completed: u64,
    /// Of those, the ones that a flush has made durable.
    durable: u64,
    /// Tag of each flush below, and the writes that had completed when it was submitted.
    flushes: Vec<(u64, u64)>,
    /// Flushes answered here.
    answered: VecDeque<Op>,
}

impl<D: BlockDevice, const CARELESS: bool> FlushFilter<D, CARELESS> {
    /// The layer on a device that may hold completed writes which are not durable.
    pub(crate) fn new(below: D) -> Self {
        FlushFilter {
            below,
            completed: 1,
            durable: 0,
            flushes: Vec::new(),
            answered: VecDeque::new(),
        }
    }
}

impl<D: BlockDevice, const CARELESS: bool> BlockDevice for FlushFilter<D, CARELESS> {
    fn geometry(&self) -> Geometry {
        self.below.geometry()
    }

    fn submit(&mut self, mut op: Op) -> Result<(), Op> {
        let (kind, tag) = (op.kind(), op.tag());
        if kind == OpKind::Flush && self.durable == self.completed {
            op.complete(Ok(()));
            self.answered.push_back(op);
            return Ok(());
        }
        self.below.submit(op)?;
        if kind == OpKind::Flush {
            self.flushes.push((tag, self.completed));
        }
        Ok(())
    }

    fn notify(&mut self) {
        self.below.notify();
    }

    fn poll(&mut self, now: Instant) -> Option<Op> {
        if let Some(op) = self.answered.pop_front() {
            return Some(op);
        }
        let op = self.below.poll(now)?;
        match op.kind() {
            OpKind::Flush => {
                let at = self.flushes.iter().position(|(tag, _)| *tag == op.tag());
                if let Some((_, covered)) = at.map(|at| self.flushes.swap_remove(at))
                    && op.status() == Status::Done
                {
                    let covered = if CARELESS { self.completed } else { covered };
                    self.durable = self.durable.max(covered);
                }
            }
            OpKind::Read => {}
            // A failed write may have changed something too.
            _ => self.completed += 1,
        }
        Some(op)
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

/// The layer as it should be.
pub(crate) struct Right;

impl Middleware for Right {
    type Device = FlushFilter<SimDisk, false>;

    fn over(disk: SimDisk) -> Self::Device {
        FlushFilter::new(disk)
    }
}

/// The layer with the bug.
pub(crate) struct Careless;

impl Middleware for Careless {
    type Device = FlushFilter<SimDisk, true>;

    fn over(disk: SimDisk) -> Self::Device {
        FlushFilter::new(disk)
    }
}

/// Runs every sequence of up to `length` of the steps, with up to three requests in flight, and after
/// each crash a write and a flush. Returns how many crash states were checked, and the first
/// violation.
///
/// # Panics
/// If `kind` is no kind of disk.
pub(crate) fn search<E: Engine>(kind: &str, steps: &str, length: usize) -> (u64, Option<Found>) {
    let line: Replay = format!("g={kind};s=/w0,f;q=3").parse().expect("legal");
    let mut case = line.case;
    let limits = Limits {
        deviations: 3,
        ..Limits::default()
    };
    let steps = parse_ops(steps).expect("legal");
    let mut explorer = Explorer::<E>::new(&case, &limits).expect("the engine does this kind");
    let mut found = None;
    let _ = sequences(&steps, length, &mut |ops| {
        case.sessions[0] = ops.to_vec();
        found = explorer.run(&case, &limits).err().map(|found| *found);
        match found {
            Some(_) => core::ops::ControlFlow::Break(()),
            None => core::ops::ControlFlow::Continue(()),
        }
    });
    (explorer.stats().states, found)
}

#[allow(dead_code)] // the test that includes this file has no use for it
fn main() -> ExitCode {
    let runs = [
        (
            "the right layer",
            search::<Alone<Right>>("v4", "w0,w1,f,o", 4),
        ),
        ("fvd on it", search::<Under<Right>>("t0", "w0,f", 4)),
        (
            "the careless layer",
            search::<Alone<Careless>>("v4", "w0,w1,f,o", 4),
        ),
        ("fvd on it", search::<Under<Careless>>("t0", "w0,f", 4)),
    ];
    for (what, (states, found)) in &runs {
        match found {
            None => println!("{what}: {states} crash states, no violation"),
            Some(found) => println!("{what}: after {states} crash states\n  {found}"),
        }
    }
    let [right, on_right, careless, on_careless] = runs.map(|(_, (_, found))| found.is_some());
    if (right, on_right, careless || on_careless) == (false, false, true) {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
