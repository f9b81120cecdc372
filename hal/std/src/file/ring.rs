//! Operations carried out by the kernel: a submission and a completion queue shared with it
//! (`io_uring`).
//!
//! What the kernel has no asynchronous call for, or has refused, goes to one helper thread: growth,
//! zeros on file systems that can not make them, discards of block devices, and transfers whose
//! memory direct I/O does not take.
//!
//! The file is not registered with the ring. The kernel lets go of a ring some time after its process
//! was killed, and of what is registered with it, so that the file would stay locked for as long.
//! Requests in flight hold it too, and should: nobody may open it while they still write.
//!
//! Invariants:
//! 1. An op with the kernel sits in a slot, and its slot in memory that does not move, until its
//!    completion was taken. So lent memory is never given back early.
//! 2. A slot has at most one entry in either queue, and there are as many entries as slots: neither
//!    queue can overflow.
//! 3. `notify` makes one system call for all that was submitted before it; a completion costs none.
//! 4. The ring ends only when the kernel has no op left; if the kernel can not be asked any more, the
//!    slots are leaked instead.
#![allow(unsafe_code)]

use core::mem;
use core::task::Waker;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::{Arc, Weak};

use fvd::buffer::{Op, OpQueue, SEGMENTS_MAX};
use fvd::device::{DeviceError, OpFlags, OpKind};
use io_uring::{IoUring, Probe, opcode, squeue, types};

use super::alarm::Alarm;
use super::execute::{Target, device_error};
use super::pool::Pool;
use super::sys::{self, Direction, EMPTY_VECTOR, ZeroMode};
use crate::bell::Bell;

/// Operations with the kernel at a time.
pub(super) const DEPTH: u16 = 128;

/// Calls that the kernel must know.
const WANTED: [u8; 6] = [
    opcode::Read::CODE,
    opcode::Write::CODE,
    opcode::Readv::CODE,
    opcode::Writev::CODE,
    opcode::Fsync::CODE,
    opcode::Fallocate::CODE,
];

/// How an op is carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Transfer(Direction),
    Sync,
    Zero(ZeroMode),
    /// By the helper thread.
    Helper,
}

struct Slot {
    op: Option<Op>,
    way: Way,
    /// Bytes moved so far.
    done: u64,
    /// The memory of the rest, for the kernel to read while it takes the entry.
    vectors: [libc::iovec; SEGMENTS_MAX],
}

/// Who is told of completions.
enum Caller {
    Nobody,
    /// It sleeps on the ring itself.
    Bell(Weak<Bell>),
    /// A thread tells it.
    Waker(Alarm),
}

/// A ring over one file.
pub(super) struct Ring {
    ring: IoUring,
    target: Arc<Target>,
    slots: Box<[Slot]>,
    free: Vec<u16>,
    /// Entries that the kernel was not told of.
    pending: usize,
    /// No slot was free.
    waiting: OpQueue,
    done: OpQueue,
    helper: Pool,
    caller: Caller,
}

// SAFETY: the pointers in the slots name memory of ops in the same slots, which may travel between
// threads with the leases that own it; only the kernel follows them.
unsafe impl Send for Ring {}

impl Ring {
    /// A ring for `target`.
    ///
    /// # Errors
    /// What the kernel says; notably that it offers none of this, or not to this process.
    pub(super) fn start(target: Arc<Target>) -> io::Result<Ring> {
        let ring = IoUring::builder().dontfork().build(u32::from(DEPTH))?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        if !WANTED.iter().all(|code| probe.is_supported(*code)) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        let slot = || Slot {
            op: None,
            way: Way::Helper,
            done: 0,
            vectors: [EMPTY_VECTOR; SEGMENTS_MAX],
        };
        Ok(Ring {
            ring,
            slots: (0..DEPTH).map(|_| slot()).collect(),
            free: (0..DEPTH).rev().collect(),
            pending: 0,
            waiting: OpQueue::new(),
            done: OpQueue::new(),
            helper: Pool::start(Arc::clone(&target), 1)?,
            target,
            caller: Caller::Nobody,
        })
    }

    /// Takes all of `ops`, and tells the kernel of those for which there is room.
    pub(super) fn hand_over(&mut self, ops: &mut OpQueue) {
        while let Some(op) = ops.pop_front() {
            self.waiting.push_back(op);
        }
        self.start_waiting();
        self.enter();
    }

    /// Whether [`collect`](Ring::collect) gives something, or something must be told the kernel again.
    pub(super) fn has_work(&self) -> bool {
        self.pending != 0
            || !self.done.is_empty()
            || self.helper.done_count() != 0
            || self.has_completion()
    }

    fn has_completion(&self) -> bool {
        // SAFETY: `Ring` can not be shared between threads, and every other queue object ends inside
        // the `&mut self` method that made it.
        !unsafe { self.ring.completion_shared() }.is_empty()
    }

    /// All completions so far.
    pub(super) fn collect(&mut self) -> OpQueue {
        self.reap();
        self.start_waiting();
        self.enter();
        if self.helper.done_count() != 0 {
            let mut done = self.helper.collect();
            while let Some(op) = done.pop_front() {
                self.done.push_back(op);
            }
        }
        mem::take(&mut self.done)
    }

    /// Whom to wake after each completion. False if that can not be.
    pub(super) fn set_waker(&mut self, waker: &Waker) -> bool {
        self.helper.set_waker(waker);
        if let Some(bell) = Bell::of(waker) {
            if let Caller::Bell(old) = &self.caller
                && old.as_ptr() == Arc::as_ptr(&bell)
            {
                return true;
            }
            self.leave_caller();
            if bell.watch(self.fd()) {
                self.caller = Caller::Bell(Arc::downgrade(&bell));
                return true;
            }
        }
        if let Caller::Waker(alarm) = &self.caller {
            alarm.set_waker(waker);
            return true;
        }
        self.leave_caller();
        match Alarm::start(&self.ring, waker) {
            Ok(alarm) => {
                self.caller = Caller::Waker(alarm);
                true
            }
            Err(_) => false,
        }
    }

    fn fd(&self) -> BorrowedFd<'_> {
        // SAFETY: the ring keeps its descriptor open for as long as `self` is borrowed.
        unsafe { BorrowedFd::borrow_raw(self.ring.as_raw_fd()) }
    }

    /// From now on nobody is told.
    fn leave_caller(&mut self) {
        match mem::replace(&mut self.caller, Caller::Nobody) {
            Caller::Nobody => {}
            Caller::Bell(bell) => {
                if let Some(bell) = bell.upgrade() {
                    bell.forget(self.fd());
                }
            }
            Caller::Waker(alarm) => alarm.stop(&self.ring),
        }
    }

    /// Carries out what was handed over, and waits until the kernel and the helper are done with it.
    pub(super) fn stop(&mut self) {
        self.start_waiting();
        while self.in_flight() != 0 {
            match self.ring.submit_and_wait(1) {
                Ok(count) => self.pending = self.pending.saturating_sub(count),
                Err(error) if is_passing(&error) => {}
                Err(_) => return self.leak(),
            }
            self.reap();
            self.start_waiting();
        }
        self.helper.stop();
        self.leave_caller();
    }

    fn in_flight(&self) -> usize {
        self.slots.len() - self.free.len()
    }

    /// Invariant 4.
    fn leak(&mut self) {
        mem::forget(mem::take(&mut self.slots));
        self.free.clear();
    }

    /// Gives free slots to ops that wait for one.
    fn start_waiting(&mut self) {
        while !self.waiting.is_empty() {
            let Some(index) = self.free.pop() else {
                return;
            };
            let Some(op) = self.waiting.pop_front() else {
                return self.free.push(index);
            };
            self.begin(index, op);
        }
    }

    /// Begins an op in a free slot; without one if the kernel has no call for it.
    fn begin(&mut self, index: u16, mut op: Op) {
        let head = op.head();
        let unmaps = head.flags.contains(OpFlags::MAY_UNMAP) || head.kind == OpKind::Discard;
        let zero = || self.target.zero_mode(unmaps).map_or(Way::Helper, Way::Zero);
        let way = match head.kind {
            OpKind::Read | OpKind::Write if self.target.is_misfit(&op) => Way::Helper,
            OpKind::Read => Way::Transfer(Direction::Read),
            OpKind::Write => Way::Transfer(Direction::Write),
            OpKind::Flush if self.target.has_failed_flush() => {
                op.complete(Err(DeviceError::Io));
                self.free.push(index);
                return self.done.push_back(op);
            }
            OpKind::Flush => Way::Sync,
            OpKind::Discard if self.target.is_block() => Way::Helper,
            OpKind::Discard | OpKind::WriteZeroes => zero(),
            _ => Way::Helper,
        };
        if way == Way::Helper {
            self.free.push(index);
            return self.help(op);
        }
        if let Some(slot) = self.slots.get_mut(usize::from(index)) {
            slot.op = Some(op);
            slot.way = way;
            slot.done = 0;
            self.push(index);
        }
    }

    fn help(&self, op: Op) {
        let mut queue = OpQueue::new();
        queue.push_back(op);
        self.helper.hand_over(&mut queue);
    }

    /// Puts an entry for the rest of a slot's op into the submission queue.
    fn push(&mut self, index: u16) {
        let Some(slot) = self.slots.get_mut(usize::from(index)) else {
            return;
        };
        let file = types::Fd(self.target.file.as_raw_fd());
        let Some(entry) = slot.entry(file) else {
            return;
        };
        let entry = entry.user_data(u64::from(index));
        // SAFETY:
        // 1. the memory that the entry names belongs to leases of the slot's op, and the vectors to
        //    the slot; both stay until the completion of this entry is taken (invariant 1);
        // 2. whoever could free the slots earlier stops the ring first (invariant 4).
        let pushed = unsafe { self.ring.submission().push(&entry) };
        debug_assert!(pushed.is_ok(), "as many entries as slots");
        self.pending += 1;
    }

    /// Tells the kernel of new entries.
    fn enter(&mut self) {
        if self.pending == 0 {
            return;
        }
        // An error leaves the entries where they are, to be told again.
        if let Ok(count) = self.ring.submit() {
            self.pending = self.pending.saturating_sub(count);
        }
    }

    /// Takes completions.
    fn reap(&mut self) {
        // Bounded: what is begun again here was not told to the kernel yet.
        for _ in 0..DEPTH {
            let Some(entry) = self.ring.completion().next() else {
                return;
            };
            // The kernel gives back what it was given.
            if let Ok(index) = u16::try_from(entry.user_data()) {
                self.take_completion(index, entry.result());
            }
        }
    }

    fn take_completion(&mut self, index: u16, result: i32) {
        let Some(slot) = self.slots.get_mut(usize::from(index)) else {
            return;
        };
        let Some(mut op) = slot.op.take() else {
            return;
        };
        let result = u64::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result));
        let ended = match (&result, slot.way) {
            (Err(error), _) if is_passing(error) => None,
            (Err(error), Way::Transfer(_)) => Some(Err(self.target.transfer_error(&op, error))),
            (Ok(moved), Way::Transfer(_)) => {
                slot.done += moved;
                let at = op.offset() + slot.done;
                let stuck = *moved == 0 || !self.target.can_go_on(at);
                self.target.end_of_transfer(&mut op, slot.done, stuck)
            }
            (_, Way::Sync) => Some(self.target.end_of_flush(result.map(drop))),
            (_, Way::Zero(mode)) => match self.target.end_of_zero(mode, result.map(drop)) {
                Some(ended) => Some(ended),
                None => {
                    self.free.push(index);
                    return self.help(op);
                }
            },
            (Err(error), Way::Helper) => Some(Err(device_error(error))),
            (Ok(_), Way::Helper) => Some(Err(DeviceError::Protocol)),
        };
        match ended {
            Some(ended) => {
                op.complete(ended);
                self.done.push_back(op);
                self.free.push(index);
            }
            None => {
                slot.op = Some(op);
                self.push(index);
            }
        }
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        self.stop();
    }
}

impl Slot {
    /// The call for the rest of the op.
    fn entry(&mut self, file: types::Fd) -> Option<squeue::Entry> {
        let op = self.op.as_mut()?;
        let offset = op.offset() + self.done;
        Some(match self.way {
            Way::Transfer(direction) => {
                let durable = op.flags().contains(OpFlags::FUA);
                let count = sys::fill_vectors(op, self.done, &mut self.vectors);
                let flags = if durable { libc::RWF_DSYNC } else { 0 };
                self.transfer(file, direction, offset, count, flags)
            }
            Way::Sync => opcode::Fsync::new(file)
                .flags(types::FsyncFlags::DATASYNC)
                .build(),
            Way::Zero(mode) => opcode::Fallocate::new(file, op.len())
                .offset(offset)
                .mode(mode.flags())
                .build(),
            Way::Helper => return None,
        })
    }

    /// A read or write of the first `count` vectors.
    fn transfer(
        &self,
        file: types::Fd,
        direction: Direction,
        offset: u64,
        count: usize,
        flags: i32,
    ) -> squeue::Entry {
        // One piece of memory needs no list of them, which the kernel would have to fetch.
        let one = self.vectors.first().filter(|_| count == 1);
        let one = one.and_then(|one| Some((one.iov_base.cast(), u32::try_from(one.iov_len).ok()?)));
        let (list, len) = (self.vectors.as_ptr().cast(), count as u32);
        match (direction, one) {
            (Direction::Read, Some((start, len))) => {
                opcode::Read::new(file, start, len).offset(offset).build()
            }
            (Direction::Read, None) => opcode::Readv::new(file, list, len).offset(offset).build(),
            (Direction::Write, Some((start, len))) => opcode::Write::new(file, start, len)
                .offset(offset)
                .rw_flags(flags)
                .build(),
            (Direction::Write, None) => opcode::Writev::new(file, list, len)
                .offset(offset)
                .rw_flags(flags)
                .build(),
        }
    }
}

/// Whether the call only has to be made again. Requests of a thread that ends are cancelled, although
/// the device may live on in another one.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINTR | libc::EAGAIN | libc::ECANCELED | libc::EBUSY)
    )
}
