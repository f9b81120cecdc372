//! A device whose completions pass through a test's hands.

use fvd::buffer::Op;
use fvd::device::{BlockDevice, Geometry, Ram, When};
use fvd::units::Instant;

/// Changes, counts or empties what it answers.
pub(crate) struct Tamper<F> {
    inner: Ram,
    pub(crate) with: F,
}

impl<F: FnMut(&mut Op)> Tamper<F> {
    pub(crate) fn new(inner: Ram, with: F) -> Tamper<F> {
        Tamper { inner, with }
    }
}

impl<F: FnMut(&mut Op)> BlockDevice for Tamper<F> {
    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn submit(&mut self, op: Op) -> Result<(), Op> {
        self.inner.submit(op)
    }

    fn poll(&mut self, now: Instant) -> Option<Op> {
        let mut op = self.inner.poll(now)?;
        (self.with)(&mut op);
        Some(op)
    }

    fn poll_at(&self) -> When {
        self.inner.poll_at()
    }
}
