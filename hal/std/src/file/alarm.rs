//! Wake-ups for callers that can not sleep on the ring itself: a thread that waits for completions
//! and wakes them.
//!
//! The kernel raises a counter with every completion. It must do so for all of them: asked to leave
//! out those that it finds while entries are told to it, it also leaves out some that come later.

use core::sync::atomic::{AtomicBool, Ordering};
use core::task::Waker;
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use io_uring::IoUring;
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::{Errno, read, write};

use super::pool::STACK_BYTES;

struct Shared {
    event: OwnedFd,
    waker: Mutex<Waker>,
    stopping: AtomicBool,
}

/// Wakes somebody after each completion.
pub(super) struct Alarm {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Alarm {
    pub(super) fn start(ring: &IoUring, waker: &Waker) -> io::Result<Alarm> {
        let event = eventfd(0, EventfdFlags::CLOEXEC)?;
        ring.submitter().register_eventfd(event.as_raw_fd())?;
        let shared = Arc::new(Shared {
            event,
            waker: Mutex::new(waker.clone()),
            stopping: AtomicBool::new(false),
        });
        let own = Arc::clone(&shared);
        let thread = Builder::new()
            .name("fvd-alarm".into())
            .stack_size(STACK_BYTES)
            .spawn(move || own.run())?;
        Ok(Alarm {
            shared,
            thread: Some(thread),
        })
    }

    pub(super) fn set_waker(&self, waker: &Waker) {
        self.shared.lock().clone_from(waker);
    }

    /// Ends it, so that another one can be started for the same ring.
    pub(super) fn stop(self, ring: &IoUring) {
        // Without an alarm nobody looks at the counter.
        let _ = ring.submitter().unregister_eventfd();
    }
}

impl Drop for Alarm {
    fn drop(&mut self) {
        self.shared.stopping.store(true, Ordering::Release);
        let _ = write(&self.shared.event, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            // Only a waker can have panicked in there; there is nothing to add to its message.
            let _ = thread.join();
        }
    }
}

impl Shared {
    fn run(&self) {
        let mut count = [0; 8];
        loop {
            match read(&self.event, &mut count) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(_) => return,
            }
            if self.stopping.load(Ordering::Acquire) {
                return;
            }
            // Not under the lock: a waker may poll the device at once.
            let waker = self.lock().clone();
            waker.wake();
        }
    }

    fn lock(&self) -> MutexGuard<'_, Waker> {
        self.waker.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
