//! Runs poll-driven things to their end on a host thread.
//!
//! The core never waits and never reads a clock. A [`Driver`] supplies both: a real clock, and sleep
//! until a device wakes it or the time it was given comes.
//!
//! Invariants:
//! 1. A wake-up is never lost: one that arrives between a poll and the sleep ends the sleep at once.
//! 2. A device that can not wake, or that nobody attached, is polled at least every
//!    [`POLL_INTERVAL_MICROS`], so that a wake-up which never comes costs time, not progress.

use core::task::Waker;
use core::time::Duration;
use std::sync::Arc;
use std::time;

use fvd::blocking;
use fvd::buffer::{Arena, Head, Op, OpPool};
use fvd::device::{BlockDevice, DeviceError, OpKind, Status, When};
use fvd::stores::Stores;
use fvd::units::Instant;

use crate::arena::HeapArena;
use crate::bell::Bell;

/// Longest sleep while a device that can not wake is attached, or none at all, microseconds.
pub const POLL_INTERVAL_MICROS: u64 = 1_000;

const FLUSH: Head = Head::new(OpKind::Flush, 0, 0);

/// A monotonic clock, in the unit of the core.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    origin: time::Instant,
}

impl Clock {
    /// A clock that starts at 0 now.
    #[must_use]
    pub fn start() -> Clock {
        Clock {
            origin: time::Instant::now(),
        }
    }

    /// Microseconds since the start.
    #[must_use]
    pub fn now(&self) -> Instant {
        let micros = self.origin.elapsed().as_micros();
        Instant::from_micros(u64::try_from(micros).unwrap_or(u64::MAX))
    }
}

/// What one step of a poll-driven thing came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<T> {
    /// It is finished.
    Done(T),
    /// It wants to be called again then.
    Wait(When),
}

/// Drives things from one thread.
#[derive(Debug)]
pub struct Driver {
    clock: Clock,
    bell: Arc<Bell>,
    waker: Waker,
    /// Whether everything attached so far can wake this driver; `None` before anything is.
    all_wake: Option<bool>,
}

impl Default for Driver {
    fn default() -> Driver {
        Driver::new()
    }
}

impl Driver {
    /// A driver whose clock starts now.
    #[must_use]
    pub fn new() -> Driver {
        let bell = Bell::new();
        Driver {
            clock: Clock::start(),
            waker: bell.waker(),
            bell,
            all_wake: None,
        }
    }

    /// The time now.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.clock.now()
    }

    /// What wakes this driver, from any thread.
    #[must_use]
    pub fn waker(&self) -> &Waker {
        &self.waker
    }

    /// Has `device` wake this driver. Do this before the first poll, or a wake-up may be lost.
    pub fn attach(&mut self, device: &mut dyn BlockDevice) {
        let wakes = device.set_waker(&self.waker);
        self.note(wakes);
    }

    /// Likewise for all devices of a disk.
    pub fn attach_stores<S: Stores>(&mut self, stores: &mut S) {
        let wakes = stores.set_waker(&self.waker);
        self.note(wakes);
    }

    fn note(&mut self, wakes: bool) {
        self.all_wake = Some(wakes && self.all_wake.unwrap_or(true));
    }

    /// Sleeps until a wake-up or the moment given, whichever comes first, or shorter (invariant 2).
    pub fn wait(&self, when: When) {
        let limit = match when {
            When::Now => return,
            When::At(moment) => {
                let micros = moment.micros.saturating_sub(self.now().micros);
                if micros == 0 {
                    return;
                }
                Some(micros)
            }
            When::Event => None,
        };
        let limit = if self.all_wake == Some(true) {
            limit
        } else {
            Some(limit.unwrap_or(u64::MAX).min(POLL_INTERVAL_MICROS))
        };
        self.bell.sleep(limit.map(Duration::from_micros));
    }

    /// What the functions of [`fvd::blocking`] wait with.
    pub fn idle(&self) -> impl FnMut(When) -> Instant {
        |when| {
            self.wait(when);
            self.now()
        }
    }

    /// Calls `step` until it is done, and sleeps in between as it asks.
    ///
    /// ```
    /// use fvd::device::When;
    /// use fvd_std::drive::{Driver, Step};
    ///
    /// let mut steps = 0;
    /// let answer = Driver::new().run(|now| {
    ///     steps += 1;
    ///     if steps == 3 { Step::Done("done") } else { Step::Wait(When::At(now.after_micros(50))) }
    /// });
    /// assert_eq!((answer, steps), ("done", 3));
    /// ```
    pub fn run<T>(&self, mut step: impl FnMut(Instant) -> Step<T>) -> T {
        loop {
            match step(self.now()) {
                Step::Done(value) => return value,
                Step::Wait(when) => self.wait(when),
            }
        }
    }

    /// Flushes a device that has no operation in flight.
    ///
    /// # Errors
    /// What the device says.
    pub fn flush<D: BlockDevice + ?Sized>(&self, device: &mut D) -> Result<(), DeviceError> {
        // Not to be had only if there is no memory left for one small record.
        let (heap, memory) = HeapArena::new(OpPool::arena_bytes(1)).ok_or(DeviceError::Busy)?;
        let mut arena = Arena::new(memory).map_err(|_| DeviceError::Busy)?;
        let mut pool = OpPool::carve(&mut arena, 1).ok_or(DeviceError::Busy)?;
        let op = pool.take(FLUSH).ok_or(DeviceError::Busy)?;
        let op = self.run_op(device, op);
        let status = op.status();
        let home = pool.put(op).is_ok() && pool.reclaim(&mut arena).is_ok();
        if let (true, Ok(memory)) = (home, arena.finish()) {
            drop(heap.redeem(memory));
        }
        match status {
            Status::Done => Ok(()),
            Status::Failed(error) => Err(error),
            Status::Pending => Err(DeviceError::Protocol),
        }
    }

    /// Runs one operation on a device that has no other in flight, and returns it with its outcome.
    /// A refusal is an outcome too.
    pub fn run_op<D: BlockDevice + ?Sized>(&self, device: &mut D, op: Op) -> Op {
        // Nothing else can come home.
        blocking::execute(device, op, self.idle(), drop)
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    /// A driver of something that always wakes.
    fn sleeper() -> Driver {
        let mut driver = Driver::new();
        driver.note(true);
        driver
    }

    #[test]
    fn the_clock_runs_in_microseconds() {
        let clock = Clock::start();
        let before = clock.now();
        thread::sleep(Duration::from_millis(5));
        let passed = clock.now().micros - before.micros;
        assert!(passed >= 5_000, "{passed} us");
    }

    #[test]
    fn a_moment_in_the_future_is_slept_until() {
        let driver = sleeper();
        let until = driver.now().after_micros(3_000);
        driver.wait(When::At(until));
        assert!(driver.now() >= until);
    }

    #[test]
    fn a_moment_in_the_past_is_not_slept_for() {
        let driver = Driver::new();
        driver.wait(When::At(Instant::ZERO));
        driver.wait(When::Now);
        assert!(driver.now().micros < 5_000_000);
    }

    #[test]
    fn a_wake_up_before_the_sleep_is_not_lost() {
        let driver = sleeper();
        driver.waker().wake_by_ref();
        driver.wait(When::Event);
    }

    #[test]
    fn a_driver_of_nothing_does_not_sleep_for_ever() {
        let driver = Driver::new();
        driver.wait(When::Event);
        assert!(driver.now().micros >= POLL_INTERVAL_MICROS);
    }

    #[test]
    fn a_wake_up_ends_a_sleep_without_end() {
        let driver = sleeper();
        let waker = driver.waker().clone();
        let other = thread::spawn(move || {
            thread::sleep(Duration::from_millis(5));
            waker.wake();
        });
        driver.wait(When::Event);
        other.join().expect("thread");
    }

    #[test]
    fn one_wake_up_ends_one_sleep() {
        let driver = sleeper();
        driver.waker().wake_by_ref();
        driver.wait(When::Event);
        let until = driver.now().after_micros(2_000);
        driver.wait(When::At(until));
        assert!(driver.now() >= until, "the same wake-up ended two sleeps");
    }
}
