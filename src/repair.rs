//! Repair: brings a damaged image back into order as far as nothing is lost and nothing guessed.
//!
//! ```text
//! open, mending in memory ──► recovery writes it ──► clean close
//! ```
//!
//! A repair is an opening that mends what can be mended without a guess before it checks everything,
//! followed by a clean close. So it writes nothing unless all that is left is right, and everything
//! it writes goes the way that recovery, commit and checkpoint go anyway: pages are covered by the
//! journal until a header that does not need it is durable, and a header write never goes to the slot
//! that counts. Power may fail at any point; what is left is as repairable as before.
//!
//! What can not be mended is found by [`crate::check::Inspection`], which says what of the guest's
//! disk it concerns. A repair refuses such an image and leaves it as it is.

use core::mem::MaybeUninit;
use core::task::Poll;

use crate::device::{DeviceError, When};
use crate::engine::Closing;
use crate::open::{Layout, OpenError, Opening};
use crate::stores::Stores;
use crate::units::Instant;

/// Why an image is not repaired.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RepairError {
    /// It can not be opened even so: what is wrong can not be mended without a guess, or it is not
    /// the image's fault. Nothing was written, unless a device failed in between.
    Open(OpenError),
    /// A device failed while the image was written. What was right before is right still, and the
    /// repair can be tried again.
    Device(DeviceError),
}

impl core::fmt::Display for RepairError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            RepairError::Open(error) => error.fmt(f),
            RepairError::Device(error) => write!(f, "the repair was cut off: {error}"),
        }
    }
}

impl core::error::Error for RepairError {}

/// What a repair leaves.
pub struct Repaired<S> {
    /// The devices.
    pub stores: S,
    /// The memory that was lent; `None` if a device kept a part of it.
    pub memory: Option<&'static mut [MaybeUninit<u8>]>,
    /// Whether the image is whole now.
    pub result: Result<(), RepairError>,
}

#[allow(clippy::large_enum_variant)] // there is one, in its repair
enum State<S: Stores> {
    Opening(Opening<S>),
    Closing(Closing<S>),
    Ended(Repaired<S>),
}

/// An image that is being repaired: poll it until it is ready.
pub struct Repair<S: Stores>(Option<State<S>>);

impl<S: Stores> Repair<S> {
    /// Starts a repair with what [`Probe::for_repair`](crate::open::Probe::for_repair) found, and
    /// [`Layout::arena_bytes`] of memory. With what another probe found it mends nothing that would
    /// keep the image from being opened.
    pub fn new(stores: S, layout: Layout, memory: &'static mut [MaybeUninit<u8>]) -> Repair<S> {
        Repair(Some(State::Opening(Opening::new(stores, layout, memory))))
    }

    /// Moves the repair on. Ready when [`Repair::finish`] can be called.
    pub fn poll(&mut self, now: Instant) -> Poll<()> {
        // A state that was just entered has not started anything, so nobody would wake for it.
        for _ in 0..3 {
            let ready = match &mut self.0 {
                Some(State::Opening(opening)) => opening.poll(now),
                // No request was ever submitted, so there is none to reap.
                Some(State::Closing(closing)) => closing.poll(now),
                Some(State::Ended(_)) | None => return Poll::Ready(()),
            };
            if ready == Poll::Pending {
                break;
            }
            self.0 = self.0.take().map(State::next);
        }
        Poll::Pending
    }

    /// When to poll next.
    pub fn poll_at(&self) -> When {
        match &self.0 {
            Some(State::Opening(opening)) => opening.poll_at(),
            Some(State::Closing(closing)) => closing.poll_at(),
            Some(State::Ended(_)) | None => When::Now,
        }
    }

    /// What came of it.
    ///
    /// # Errors
    /// Gives itself back before [`Repair::poll`] was ready.
    #[allow(clippy::result_large_err)] // the error is the repair itself, still under way
    pub fn finish(self) -> Result<Repaired<S>, Repair<S>> {
        match self.0 {
            Some(State::Ended(repaired)) => Ok(repaired),
            state => Err(Repair(state)),
        }
    }
}

impl<S: Stores> State<S> {
    /// What follows a state that is ready.
    fn next(self) -> State<S> {
        match self {
            State::Opening(opening) => match opening.finish() {
                Ok(disk) => State::Closing(disk.close()),
                Err(failure) => State::Ended(Repaired {
                    stores: failure.stores,
                    memory: failure.memory,
                    result: Err(RepairError::Open(failure.error)),
                }),
            },
            State::Closing(closing) => match closing.finish() {
                Ok(closed) => State::Ended(Repaired {
                    stores: closed.stores,
                    memory: closed.memory,
                    result: closed.result.map_err(RepairError::Device),
                }),
                Err(closing) => State::Closing(closing),
            },
            State::Ended(repaired) => State::Ended(repaired),
        }
    }
}
