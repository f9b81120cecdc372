//! The threads that carry out operations, and the two queues between them and the device.
//!
//! Invariants:
//! 1. An op is owned by exactly one of: the caller, the inbox, one worker, the outbox. A worker keeps
//!    it until its system calls have returned, so lent memory is never given back early.
//! 2. A worker ends only when the pool is stopping and the inbox is empty: what was accepted is
//!    carried out.
//! 3. The counter of completions changes under the lock of the outbox, before the wake-up.

use core::sync::atomic::{AtomicUsize, Ordering};
use core::task::Waker;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::{Builder, JoinHandle};

use fvd::buffer::{Op, OpQueue};

use super::execute::Target;

/// Stack of a worker, bytes. A worker calls nothing deep.
pub(super) const STACK_BYTES: usize = 128 << 10;

struct Inbox {
    ops: OpQueue,
    /// Workers asleep for want of work.
    idle: usize,
    stopping: bool,
}

struct Outbox {
    ops: OpQueue,
    waker: Option<Waker>,
}

struct Shared {
    target: Arc<Target>,
    inbox: Mutex<Inbox>,
    work: Condvar,
    outbox: Mutex<Outbox>,
    done_count: AtomicUsize,
}

/// Worker threads over one file.
pub(super) struct Pool {
    shared: Arc<Shared>,
    workers: Vec<JoinHandle<()>>,
}

impl Pool {
    /// Starts `threads` workers, at least one.
    pub(super) fn start(target: Arc<Target>, threads: usize) -> io::Result<Pool> {
        let shared = Arc::new(Shared {
            target,
            inbox: Mutex::new(Inbox {
                ops: OpQueue::new(),
                idle: 0,
                stopping: false,
            }),
            work: Condvar::new(),
            outbox: Mutex::new(Outbox {
                ops: OpQueue::new(),
                waker: None,
            }),
            done_count: AtomicUsize::new(0),
        });
        let mut pool = Pool {
            shared,
            workers: Vec::with_capacity(threads),
        };
        for _ in 0..threads.max(1) {
            let shared = Arc::clone(&pool.shared);
            let builder = Builder::new()
                .name("fvd-file".into())
                .stack_size(STACK_BYTES);
            // A failure drops the pool, which stops the workers started so far.
            pool.workers
                .push(builder.spawn(move || shared.work_until_stopped())?);
        }
        Ok(pool)
    }

    /// Hands over all of `ops` and wakes as many workers as can help.
    pub(super) fn hand_over(&self, ops: &mut OpQueue) {
        let mut inbox = lock(&self.shared.inbox);
        let wanted = ops.len().min(inbox.idle);
        while let Some(op) = ops.pop_front() {
            inbox.ops.push_back(op);
        }
        drop(inbox);
        for _ in 0..wanted {
            self.shared.work.notify_one();
        }
    }

    /// Completions that can be collected now.
    pub(super) fn done_count(&self) -> usize {
        self.shared.done_count.load(Ordering::Acquire)
    }

    /// All completions so far.
    pub(super) fn collect(&self) -> OpQueue {
        let mut outbox = lock(&self.shared.outbox);
        self.shared.done_count.store(0, Ordering::Release);
        core::mem::take(&mut outbox.ops)
    }

    /// Whom to wake after each completion.
    pub(super) fn set_waker(&self, waker: &Waker) {
        let mut outbox = lock(&self.shared.outbox);
        match &mut outbox.waker {
            Some(current) => current.clone_from(waker),
            None => outbox.waker = Some(waker.clone()),
        }
    }

    /// Carries out what was handed over, then ends the workers.
    pub(super) fn stop(&mut self) {
        lock(&self.shared.inbox).stopping = true;
        self.shared.work.notify_all();
        for worker in self.workers.drain(..) {
            // A worker that panicked leaked its op; there is nothing to add to its message.
            let _ = worker.join();
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Shared {
    fn work_until_stopped(&self) {
        while let Some(mut op) = self.next() {
            self.target.execute(&mut op);
            self.put_done(op);
        }
    }

    /// The next op to carry out; sleeps while there is none. `None` at the end.
    fn next(&self) -> Option<Op> {
        let mut inbox = lock(&self.inbox);
        loop {
            if let Some(op) = inbox.ops.pop_front() {
                return Some(op);
            }
            if inbox.stopping {
                return None;
            }
            inbox.idle += 1;
            inbox = self
                .work
                .wait(inbox)
                .unwrap_or_else(PoisonError::into_inner);
            inbox.idle -= 1;
        }
    }

    fn put_done(&self, op: Op) {
        let mut outbox = lock(&self.outbox);
        outbox.ops.push_back(op);
        self.done_count.store(outbox.ops.len(), Ordering::Release);
        let waker = outbox.waker.clone();
        // Not under the lock: a waker may poll the device at once.
        drop(outbox);
        if let Some(waker) = waker {
            waker.wake();
        }
    }
}

/// No code panics while it holds a lock, so a poisoned one still guards sound queues.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
