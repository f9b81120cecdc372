//! Copies a disk to another, many requests in flight, without writing zeros that are there already.
//!
//! The disk is cut into pieces. Each slot takes one piece at a time through these states, and the
//! slots work side by side:
//!
//! ```text
//! Idle -> ReadSource -> (ReadTarget) -> Write -> Idle
//!   \------------------------------------^   a piece of known zeros
//! ```
//!
//! Invariants:
//! 1. Pieces are disjoint, so that writes of different slots never touch the same byte.
//! 2. What the source does not know as zeros is read; what was read is written, but for granules that
//!    the target holds already as far as the plan knows.
//! 3. After an error nothing new starts, and the copy ends when nothing is in flight any more.

use core::ops::Range;

use fvd::buffer::{Op, OpPool, OpQueue};
use fvd::device::{DeviceError, OpFlags, OpKind, Status, When};
use fvd::units::Instant;
use fvd_std::drive::{Driver, Step};
use fvd_std::sparse::SparseDevice;

use super::plan::{Content, Limits, Next, Plan};
use super::runs::{self, GRANULE_BYTES, Run, Runs};
use super::slots::{self, LentPiece, Piece, Slot, State, Writing, broken};
use crate::failure::Failure;
use crate::progress::Progress;

/// Pieces in flight.
const DEPTH: usize = 16;
/// Operations in flight that write.
const WRITES_MAX: u32 = 256;
/// Longest wait before a refused operation is submitted again, microseconds.
const RETRY_MICROS: u64 = 1_000;
/// Copies all of `source` to the start of `target`. A flush is up to the caller.
///
/// # Errors
/// Names the place and the side that failed.
pub(crate) fn copy(
    driver: &mut Driver,
    source: &mut dyn SparseDevice,
    target: &mut dyn SparseDevice,
    content: Content,
) -> Result<(), Failure> {
    driver.attach(source);
    driver.attach(target);
    let mut copier = Copier::new(source, target, content)?;
    let mut progress = Progress::new("copying", copier.plan.end());
    driver.run(|now| {
        copier.reap(now);
        copier.retry_refused();
        copier.advance();
        progress.at(copier.plan.position());
        match copier.result() {
            Some(result) => Step::Done(result),
            None => Step::Wait(copier.poll_at(now)),
        }
    })
}

struct Copier<'a> {
    source: &'a mut dyn SparseDevice,
    target: &'a mut dyn SparseDevice,
    plan: Plan,
    limits: Limits,
    slots: Vec<Slot>,
    writes: OpPool,
    /// Ops that a full device refused, to be submitted again.
    refused: [OpQueue; 2],
    /// Ops on a device or refused.
    in_flight: u32,
    failure: Option<Failure>,
}

#[derive(Clone, Copy)]
enum Side {
    Source,
    Target,
}

impl Side {
    const fn name(self) -> &'static str {
        match self {
            Side::Source => "SRC",
            Side::Target => "DST",
        }
    }
}

impl<'a> Copier<'a> {
    fn new(
        source: &'a mut dyn SparseDevice,
        target: &'a mut dyn SparseDevice,
        content: Content,
    ) -> Result<Copier<'a>, Failure> {
        let end = source.geometry().capacity_bytes;
        let room = target.geometry();
        if room.capacity_bytes < end {
            let room = room.capacity_bytes;
            let what = format!("DST is too small: it holds {room} bytes, and SRC is {end} long");
            return Err(Failure::Failed(what));
        }
        let sector = u64::from(room.logical_block_bytes);
        if !end.is_multiple_of(sector) || sector > GRANULE_BYTES {
            let what = format!("SRC is not made of whole sectors of DST, {sector} bytes each");
            return Err(Failure::Failed(what));
        }
        let limits = Limits::new(&source.geometry(), &room);
        let memory = slots::make(DEPTH, WRITES_MAX);
        let (slots, writes) = memory.ok_or_else(|| Failure::Failed("out of memory".into()))?;
        Ok(Copier {
            source,
            target,
            plan: Plan::new(content, limits, end),
            limits,
            slots,
            writes,
            refused: [OpQueue::new(), OpQueue::new()],
            in_flight: 0,
            failure: None,
        })
    }

    /// The outcome, once nothing is in flight and nothing is left to start.
    fn result(&mut self) -> Option<Result<(), Failure>> {
        if self.in_flight != 0 {
            return None;
        }
        match self.failure.take() {
            Some(failure) => Some(Err(failure)),
            None => (self.plan.position() >= self.plan.end()).then_some(Ok(())),
        }
    }

    fn poll_at(&self, now: Instant) -> When {
        let devices = self.source.poll_at().min(self.target.poll_at());
        if self.refused.iter().all(OpQueue::is_empty) {
            return devices;
        }
        // A full device says when it has room by a completion, if it has anything to complete.
        devices.min(When::At(now.after_micros(RETRY_MICROS)))
    }

    /// The first failure is the one to tell.
    fn fail(&mut self, failure: Failure) {
        self.failure.get_or_insert(failure);
    }

    fn reap(&mut self, now: Instant) {
        while let Some(op) = self.source.poll(now) {
            self.on_done(Side::Source, op);
        }
        while let Some(op) = self.target.poll(now) {
            self.on_done(Side::Target, op);
        }
    }

    /// Starts what can be started.
    fn advance(&mut self) {
        for index in 0..self.slots.len() {
            self.write_more(index);
            if self.failure.is_none() && matches!(self.slots[index].state, State::Idle) {
                self.start_next(index);
                self.write_more(index);
            }
        }
        self.source.notify();
        self.target.notify();
    }

    /// Gives an idle slot the next part, if there is one.
    fn start_next(&mut self, index: usize) {
        match self.plan.next(self.source, self.target) {
            Ok(Next::Read(piece)) => self.read_source(index, piece),
            Ok(Next::Zero(run)) => {
                let runs = Runs::from([run]);
                let writing = Writing {
                    runs,
                    memory: None,
                    outstanding: 0,
                };
                self.slots[index].state = State::Write(writing);
            }
            Ok(Next::End) => {}
            Err(failure) => self.fail(failure),
        }
    }

    fn read_source(&mut self, index: usize, piece: Range<u64>) {
        let slot = &mut self.slots[index];
        let (len, spare) = (piece.end - piece.start, slot.spare[0].take());
        let op = slot.source_op.take();
        match op.and_then(|op| slots::fill_read(op, index, piece.start, len, spare)) {
            Some((op, loan)) => {
                slot.state = State::ReadSource {
                    start: piece.start,
                    loan,
                };
                self.submit(Side::Source, op);
            }
            None => self.fail(broken("SRC")),
        }
    }

    fn read_target(&mut self, index: usize, start: u64, data: Piece) {
        let slot = &mut self.slots[index];
        let (len, spare) = (data.len() as u64, slot.spare[1].take());
        let op = slot.target_op.take();
        match op.and_then(|op| slots::fill_read(op, index, start, len, spare)) {
            Some((op, loan)) => {
                slot.state = State::ReadTarget { start, data, loan };
                self.submit(Side::Target, op);
            }
            None => self.fail(broken("DST")),
        }
    }

    fn submit(&mut self, side: Side, op: Op) {
        self.in_flight += 1;
        let submitted = match side {
            Side::Source => self.source.submit(op),
            Side::Target => self.target.submit(op),
        };
        match submitted {
            Ok(()) => {}
            Err(op) if op.status() == Status::Failed(DeviceError::Busy) => {
                self.refused[side as usize].push_back(op);
            }
            Err(op) => self.on_done(side, op),
        }
    }

    /// Submits once more what a full device refused.
    fn retry_refused(&mut self) {
        for side in [Side::Source, Side::Target] {
            for _ in 0..self.refused[side as usize].len() {
                let Some(mut op) = self.refused[side as usize].pop_front() else {
                    break;
                };
                op.set_head(fvd::buffer::Head {
                    status: Status::Pending,
                    ..op.head()
                });
                self.in_flight -= 1;
                self.submit(side, op);
            }
        }
    }

    fn on_done(&mut self, side: Side, op: Op) {
        self.in_flight -= 1;
        let index = op.tag() as usize;
        if index >= self.slots.len() {
            return self.fail(broken(side.name()));
        }
        match (side, op.kind()) {
            (Side::Source, _) => self.on_source_read(index, op),
            (Side::Target, OpKind::Read) => self.on_target_read(index, op),
            (Side::Target, _) => self.on_written(index, op),
        }
    }

    fn on_source_read(&mut self, index: usize, op: Op) {
        let slot = &mut self.slots[index];
        let state = core::mem::replace(&mut slot.state, State::Idle);
        let State::ReadSource { start, loan } = state else {
            return self.fail(broken("SRC"));
        };
        match slots::take_home(op, loan, "SRC") {
            Err(failure) => self.fail(failure),
            Ok((op, data)) => {
                slot.source_op = Some(op);
                match self.plan.content() {
                    Content::Base => self.read_target(index, start, data),
                    Content::Zeroes => {
                        self.start_write(index, start, runs::not_zero(start, &data), data)
                    }
                    Content::Unknown => {
                        self.start_write(index, start, runs::all(start, &data), data)
                    }
                    Content::Source { block_bytes } => {
                        let runs = runs::zero_blocks(start, &data, block_bytes, self.plan.end());
                        self.start_write(index, start, runs, data);
                    }
                }
            }
        }
    }

    fn on_target_read(&mut self, index: usize, op: Op) {
        let slot = &mut self.slots[index];
        let state = core::mem::replace(&mut slot.state, State::Idle);
        let State::ReadTarget { start, data, loan } = state else {
            return self.fail(broken("DST"));
        };
        match slots::take_home(op, loan, "DST") {
            Err(failure) => self.fail(failure),
            Ok((op, old)) => {
                slot.target_op = Some(op);
                let runs = runs::that_differ(start, &data, &old);
                slot.spare[1] = Some(old);
                self.start_write(index, start, runs, data);
            }
        }
    }

    /// Writes `runs` of the piece at `start`.
    fn start_write(&mut self, index: usize, start: u64, runs: Runs, data: Piece) {
        let slot = &mut self.slots[index];
        if runs.is_empty() {
            slot.spare[0] = Some(data);
            return;
        }
        let op = slot.source_op.take();
        match op.and_then(|op| LentPiece::new(start, op, data)) {
            Some(memory) => {
                let writing = Writing {
                    runs,
                    memory: Some(memory),
                    outstanding: 0,
                };
                slot.state = State::Write(writing);
            }
            None => self.fail(broken("SRC")),
        }
    }

    /// Submits writes of a slot while there are ops for them, and ends its piece when all are done.
    fn write_more(&mut self, index: usize) {
        loop {
            let failed = self.failure.is_some();
            let State::Write(writing) = &mut self.slots[index].state else {
                return;
            };
            if failed {
                writing.runs.clear();
            }
            let Some(rest) = writing.runs.front_mut() else {
                if writing.outstanding == 0 {
                    self.finish_piece(index);
                }
                return;
            };
            let (kind, flags, longest) = if rest.zero {
                (OpKind::WriteZeroes, OpFlags::MAY_UNMAP, self.limits.zeroes)
            } else {
                (OpKind::Write, OpFlags::NONE, self.limits.write)
            };
            let len = rest.len.min(longest);
            let run = Run { len, ..*rest };
            let head = slots::head(kind, flags, run.start, run.len, index);
            let Some(mut op) = self.writes.take(head) else {
                return;
            };
            rest.start += len;
            rest.len -= len;
            if rest.len == 0 {
                writing.runs.pop_front();
            }
            writing.outstanding += 1;
            if !run.zero {
                let lease = writing.memory.as_mut().and_then(|memory| memory.cut(&run));
                if lease.and_then(|lease| op.push(lease).ok()).is_none() {
                    writing.outstanding -= 1;
                    let _ = self.writes.put(op);
                    return self.fail(broken("SRC"));
                }
            }
            self.submit(Side::Target, op);
        }
    }

    fn on_written(&mut self, index: usize, mut op: Op) {
        if let Some(failure) = slots::failure_of(&op, "DST") {
            self.fail(failure);
        }
        if let State::Write(writing) = &mut self.slots[index].state {
            writing.outstanding = writing.outstanding.saturating_sub(1);
            if let (Some(memory), Some(lease)) = (&mut writing.memory, op.pop()) {
                // What is not given back shows when the piece ends.
                let _ = memory.give(lease);
            }
        }
        if self.writes.put(op).is_err() {
            self.fail(broken("DST"));
        }
    }

    /// All of a piece is written: its memory comes home.
    fn finish_piece(&mut self, index: usize) {
        let slot = &mut self.slots[index];
        let State::Write(writing) = core::mem::replace(&mut slot.state, State::Idle) else {
            return;
        };
        let Some(memory) = writing.memory else { return };
        match memory.finish() {
            Some((op, data)) => {
                slot.source_op = Some(op);
                slot.spare[0] = Some(data);
            }
            None => self.fail(broken("DST")),
        }
    }
}
