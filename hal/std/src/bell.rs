//! A bell: what a thread sleeps on until another thread, or a ring of the kernel, has something.
//!
//! Whoever holds a [`Waker`] of a bell can ring it. A device whose completions the kernel announces
//! on a descriptor does better: it finds the bell behind the waker ([`Bell::of`]) and has it watch
//! that descriptor, so that no thread stands between a completion and the sleeper.
//!
//! Invariants:
//! 1. A ring is never lost: [`Bell::lie_down`] and [`Bell::ring`] change one word, so that a ring
//!    either keeps the sleeper from lying down or writes to the descriptor that it sleeps on.
//! 2. A busy thread is not paid for: a ring while nobody sleeps makes no system call.
//! 3. What is watched is level-triggered: it ends every sleep for as long as it has something.

use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};
use core::task::Waker;
use core::time::Duration;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::Wake;
use std::thread;

use rustix::event::{EventfdFlags, PollFd, PollFlags, Timespec, epoll, eventfd, poll};
use rustix::io::{read, write};

/// Nobody sleeps, and nothing was rung.
const QUIET: u8 = 0;
/// Rung since the last sleep.
const RUNG: u8 = 1;
/// Somebody sleeps, or is about to.
const ASLEEP: u8 = 2;

/// Longest sleep of a bell for which there were no descriptors.
pub(crate) const BLIND_SLEEP: Duration = Duration::from_millis(1);

/// All bells, to find the one behind a waker.
static BELLS: Mutex<Vec<Weak<Bell>>> = Mutex::new(Vec::new());

/// See the [module documentation](self).
#[derive(Debug)]
pub(crate) struct Bell {
    state: AtomicU8,
    /// A ring said that it writes, and was not seen to have done it.
    owed: AtomicBool,
    /// `None` if the process has no descriptors left: then sleeps are short.
    descriptors: Option<Descriptors>,
}

#[derive(Debug)]
struct Descriptors {
    /// What a ring writes to.
    event: OwnedFd,
    /// That, and everything watched.
    all: OwnedFd,
}

impl Descriptors {
    fn new() -> io::Result<Descriptors> {
        let event = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        let all = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        let data = epoll::EventData::new_u64(0);
        epoll::add(&all, &event, data, epoll::EventFlags::IN)?;
        Ok(Descriptors { event, all })
    }
}

impl Wake for Bell {
    fn wake(self: Arc<Bell>) {
        self.ring();
    }

    fn wake_by_ref(self: &Arc<Bell>) {
        self.ring();
    }
}

impl Bell {
    pub(crate) fn new() -> Arc<Bell> {
        let bell = Arc::new(Bell {
            state: AtomicU8::new(QUIET),
            owed: AtomicBool::new(false),
            descriptors: Descriptors::new().ok(),
        });
        let mut bells = lock_bells();
        bells.retain(|bell| bell.strong_count() != 0);
        bells.push(Arc::downgrade(&bell));
        drop(bells);
        bell
    }

    pub(crate) fn waker(self: &Arc<Bell>) -> Waker {
        Waker::from(Arc::clone(self))
    }

    /// The bell that `waker` rings, if it is a bell's.
    ///
    /// Told by the address that the waker carries: nobody else has that of a living bell. Not by
    /// [`Waker::will_wake`], which compares the addresses of the functions too: an optimised program
    /// may have these twice.
    pub(crate) fn of(waker: &Waker) -> Option<Arc<Bell>> {
        let bells = lock_bells();
        let mut alive = bells.iter().filter_map(Weak::upgrade);
        alive.find(|bell| bell.waker().data() == waker.data())
    }

    /// Has `fd` end the sleeps of this bell while it is readable. False if that can not be.
    pub(crate) fn watch(&self, fd: BorrowedFd<'_>) -> bool {
        let data = epoll::EventData::new_u64(1);
        let Some(descriptors) = &self.descriptors else {
            return false;
        };
        epoll::add(&descriptors.all, fd, data, epoll::EventFlags::IN).is_ok()
    }

    /// Undoes [`watch`](Bell::watch).
    pub(crate) fn forget(&self, fd: BorrowedFd<'_>) {
        if let Some(descriptors) = &self.descriptors {
            // Fails only if it was not watched.
            let _ = epoll::delete(&descriptors.all, fd);
        }
    }

    /// Ends a sleep; one that comes early keeps the next one from beginning.
    fn ring(&self) {
        if self.state.swap(RUNG, Ordering::SeqCst) == ASLEEP
            && let Some(descriptors) = &self.descriptors
        {
            // The counter can only be full, and then it is raised already.
            let _ = write(&descriptors.event, &1u64.to_ne_bytes());
        }
    }

    /// What is readable when a sleep must end; between [`lie_down`](Bell::lie_down) and
    /// [`get_up`](Bell::get_up).
    pub(crate) fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.descriptors.as_ref().map(|all| all.all.as_fd())
    }

    /// Before a sleep. False if there is no reason to sleep: the ring is taken then.
    pub(crate) fn lie_down(&self) -> bool {
        let result = self
            .state
            .compare_exchange(QUIET, ASLEEP, Ordering::SeqCst, Ordering::SeqCst);
        if result.is_err() {
            self.state.store(QUIET, Ordering::SeqCst);
        }
        result.is_ok()
    }

    /// After a sleep, whatever ended it.
    pub(crate) fn get_up(&self) {
        let rung = self.state.swap(QUIET, Ordering::SeqCst) == RUNG;
        if !rung && !self.owed.load(Ordering::Relaxed) {
            return;
        }
        if let Some(descriptors) = &self.descriptors {
            let mut count = [0; 8];
            // Whoever rang may not have come to write yet; it is taken after a later sleep then.
            let taken = read(&descriptors.event, &mut count).is_ok();
            self.owed.store(!taken, Ordering::Relaxed);
        }
    }

    /// Sleeps until a ring or something watched ends it, at most for `limit`.
    pub(crate) fn sleep(&self, limit: Option<Duration>) {
        if !self.lie_down() {
            return;
        }
        match self.fd() {
            Some(fd) => {
                let limit = limit.map(timespec);
                // Interrupted is as good as any other short sleep.
                let _ = poll(
                    &mut [PollFd::from_borrowed_fd(fd, PollFlags::IN)],
                    limit.as_ref(),
                );
            }
            None => thread::sleep(limit.unwrap_or(BLIND_SLEEP).min(BLIND_SLEEP)),
        }
        self.get_up();
    }
}

/// A span of time as the kernel takes it.
pub(crate) fn timespec(limit: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(limit.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: i64::from(limit.subsec_nanos()),
    }
}

/// No code panics while it holds the lock.
fn lock_bells() -> MutexGuard<'static, Vec<Weak<Bell>>> {
    BELLS.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    #[test]
    fn a_bell_is_found_behind_its_wakers_and_no_other() {
        let (first, second) = (Bell::new(), Bell::new());
        let found = Bell::of(&second.waker().clone()).expect("a bell");
        assert!(Arc::ptr_eq(&found, &second) && !Arc::ptr_eq(&found, &first));
        assert!(Bell::of(Waker::noop()).is_none());
    }

    #[test]
    fn a_ring_before_the_sleep_ends_one_sleep() {
        let bell = Bell::new();
        bell.ring();
        bell.sleep(None);
        let start = Instant::now();
        bell.sleep(Some(Duration::from_millis(5)));
        assert!(start.elapsed() >= Duration::from_millis(5));
    }

    #[test]
    fn what_is_watched_ends_every_sleep_until_it_is_forgotten() {
        let bell = Bell::new();
        let event = eventfd(1, EventfdFlags::NONBLOCK).expect("a descriptor");
        assert!(bell.watch(event.as_fd()));
        bell.sleep(None);
        bell.sleep(None);
        bell.forget(event.as_fd());
        let start = Instant::now();
        bell.sleep(Some(Duration::from_millis(5)));
        assert!(start.elapsed() >= Duration::from_millis(5));
    }

    #[test]
    fn a_ring_that_writes_late_costs_one_short_sleep_and_no_more() {
        let bell = Bell::new();
        assert!(bell.lie_down());
        // What `ring` does, halted before it writes.
        assert_eq!(bell.state.swap(RUNG, Ordering::SeqCst), ASLEEP);
        bell.get_up();
        let event = &bell.descriptors.as_ref().expect("descriptors").event;
        write(event, &1u64.to_ne_bytes()).expect("written");
        bell.sleep(None);
        let start = Instant::now();
        bell.sleep(Some(Duration::from_millis(5)));
        assert!(start.elapsed() >= Duration::from_millis(5));
    }

    #[test]
    fn a_bell_without_descriptors_still_ends() {
        let bell = Bell {
            state: AtomicU8::new(QUIET),
            owed: AtomicBool::new(false),
            descriptors: None,
        };
        bell.sleep(None);
        bell.ring();
        bell.sleep(None);
    }
}
