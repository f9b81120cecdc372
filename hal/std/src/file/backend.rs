//! Who carries out the operations of a device: threads, or the kernel by itself.

use core::task::Waker;
use std::io;
use std::sync::Arc;

use fvd::buffer::OpQueue;

use super::execute::Target;
use super::open::{Aio, OpenError};
use super::pool::Pool;
use super::ring::Ring;

pub(super) enum Backend {
    Threads(Pool),
    Ring(Box<Ring>),
}

impl Backend {
    /// What `aio` asks for; threads where the kernel may be asked and refuses.
    pub(super) fn start(
        target: &Arc<Target>,
        aio: Aio,
        threads: usize,
    ) -> Result<Backend, OpenError> {
        Backend::choose(target, aio, threads, || Ring::start(Arc::clone(target)))
    }

    fn choose(
        target: &Arc<Target>,
        aio: Aio,
        threads: usize,
        ring: impl FnOnce() -> io::Result<Ring>,
    ) -> Result<Backend, OpenError> {
        if aio != Aio::Threads {
            match ring() {
                Ok(ring) => return Ok(Backend::Ring(Box::new(ring))),
                Err(error) if aio == Aio::IoUring => return Err(OpenError::NoIoUring(error)),
                Err(_) => {}
            }
        }
        Ok(Backend::Threads(Pool::start(Arc::clone(target), threads)?))
    }

    pub(super) fn is_ring(&self) -> bool {
        matches!(self, Backend::Ring(_))
    }

    /// Hands over all of `ops` at once.
    pub(super) fn hand_over(&mut self, ops: &mut OpQueue) {
        match self {
            Backend::Threads(pool) => pool.hand_over(ops),
            Backend::Ring(ring) => ring.hand_over(ops),
        }
    }

    /// Whether there is reason to [`collect`](Backend::collect).
    pub(super) fn has_work(&self) -> bool {
        match self {
            Backend::Threads(pool) => pool.done_count() != 0,
            Backend::Ring(ring) => ring.has_work(),
        }
    }

    /// All completions so far.
    pub(super) fn collect(&mut self) -> OpQueue {
        match self {
            Backend::Threads(pool) => pool.collect(),
            Backend::Ring(ring) => ring.collect(),
        }
    }

    /// Whom to wake after each completion. False if that can not be.
    pub(super) fn set_waker(&mut self, waker: &Waker) -> bool {
        match self {
            Backend::Threads(pool) => {
                pool.set_waker(waker);
                true
            }
            Backend::Ring(ring) => ring.set_waker(waker),
        }
    }

    /// Carries out what was handed over; nothing is in flight afterwards.
    pub(super) fn stop(&mut self) {
        match self {
            Backend::Threads(pool) => pool.stop(),
            Backend::Ring(ring) => ring.stop(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fvd::device::Geometry;

    fn choose(aio: Aio, code: i32) -> Result<Backend, OpenError> {
        let file = tempfile::tempfile().expect("temporary file");
        let target = Arc::new(Target::new(file, 0, &Geometry::basic(0), false));
        let refuse = || Err(io::Error::from_raw_os_error(code));
        Backend::choose(&target, aio, 1, refuse)
    }

    #[test]
    fn threads_stand_in_for_a_kernel_that_refuses() {
        for code in [libc::ENOSYS, libc::EPERM, libc::ENOMEM] {
            let chosen = choose(Aio::Auto, code).expect("threads");
            assert!(!chosen.is_ring());
            let refused = choose(Aio::IoUring, code);
            assert!(matches!(refused, Err(OpenError::NoIoUring(_))), "{code}");
        }
    }
}
