//! A device whose answers wait until a test lets them go.

use fvd::buffer::{Head, Op};
use fvd::device::{BlockDevice, Geometry, Ram, When};
use fvd::units::Instant;

/// Keeps what `holds` says until it is opened, and notes every operation.
pub(crate) struct Gate {
    inner: Ram,
    pub(crate) holds: fn(&Head) -> bool,
    pub(crate) held: Vec<Op>,
    pub(crate) heads: Vec<Head>,
    /// Completions of the test's own making.
    pub(crate) forged: Vec<Op>,
}

impl Gate {
    pub(crate) fn new(inner: Ram) -> Gate {
        Gate {
            inner,
            holds: |_| false,
            held: Vec::new(),
            heads: Vec::new(),
            forged: Vec::new(),
        }
    }

    pub(crate) fn open(&mut self) {
        self.holds = |_| false;
        for op in self.held.drain(..) {
            assert!(self.inner.submit(op).is_ok());
        }
    }
}

impl BlockDevice for Gate {
    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn submit(&mut self, op: Op) -> Result<(), Op> {
        self.heads.push(op.head());
        if (self.holds)(&op.head()) {
            self.held.push(op);
            return Ok(());
        }
        self.inner.submit(op)
    }

    fn poll(&mut self, now: Instant) -> Option<Op> {
        self.forged.pop().or_else(|| self.inner.poll(now))
    }

    fn poll_at(&self) -> When {
        self.inner.poll_at()
    }
}
