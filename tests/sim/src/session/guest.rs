//! The guest: its steps, its requests, and the comparison of what it reads with the oracle.

use fvd::buffer::Op;
use fvd::device::{DeviceError, OpFlags, OpKind, Status, When};

use super::{Failure, Outcomes, Session, broken};
use crate::client::{Finished, Purpose};
use crate::crash::Tear;
use crate::engine::Engine;
use crate::oracle::{Ticket, What};
use crate::sector::SECTOR;
use crate::stamp::{Foreign, Value, read_stamp};
use crate::workload::GuestOp;

impl<E: Engine> Session<'_, E> {
    /// Runs steps, one after the other or overlapping as the choices say.
    pub(super) fn guest(&mut self, steps: &[GuestOp]) -> Outcomes {
        let mut next = 0;
        let mut idle = 0;
        let depth_max = self.shared.case.queue_depth.max(1);
        loop {
            self.pump()?;
            let guests = self.level.client.in_flight();
            let busy = self.free_in_flight();
            let flood = self.shared.case.flood && guests < depth_max;
            if let Some(step) = steps.get(next)
                && (flood && guests > 0 && step.is_request())
            {
                next += 1;
                self.step(*step)?;
            } else if guests == 0 && busy == 0 {
                self.level.harm.settle()?;
                // Every step of the first session is looked at; later ones, of which there are very
                // many, at their end.
                if (self.depth == 0 || next == steps.len()) && !self.shared.preparing {
                    self.read_all(Purpose::Verify)?;
                }
                let Some(step) = steps.get(next) else {
                    if self.level.in_flight() == 0 {
                        return Ok(());
                    }
                    self.release();
                    continue;
                };
                next += 1;
                idle = 0;
                self.step(*step)?;
            } else if self.level.in_flight() == 0 {
                self.wait(&mut idle)?;
            } else {
                idle = 0;
                let step = steps.get(next).copied();
                let early = step.is_some_and(|step| match step {
                    GuestOp::Reopen => guests == 0,
                    GuestOp::Kill => true,
                    _ if self.shared.case.flood => false,
                    _ => depth_max > 1 && guests < depth_max,
                });
                if self.complete_one(early)?
                    && let Some(step) = step
                {
                    next += 1;
                    self.step(step)?;
                }
            }
        }
    }

    /// What was held back may go on.
    pub(super) fn release(&mut self) {
        for device in self.level.devices.all() {
            (0..device.in_flight()).for_each(|index| device.hold(index, false));
        }
    }

    pub(super) fn free_in_flight(&self) -> usize {
        let mut count = 0;
        for device in self.level.devices.all() {
            device.for_each_in_flight(|_, _, held| count += usize::from(!held));
        }
        count
    }

    pub(super) fn step(&mut self, step: GuestOp) -> Outcomes {
        self.level.toil = 0;
        self.level.steps_taken += usize::from(!self.shared.preparing);
        self.level.bus.note(|| format!("  guest {step}"));
        let geometry = self.level.engine.geometry();
        let fua = geometry.fua || !geometry.volatile_cache;
        let (what, kind, flags) = match step {
            GuestOp::Write(_) => (What::Write { fua: false }, OpKind::Write, OpFlags::NONE),
            GuestOp::WriteFua(_) if fua => (What::Write { fua: true }, OpKind::Write, OpFlags::FUA),
            GuestOp::WriteFua(_) => (What::Write { fua: false }, OpKind::Write, OpFlags::NONE),
            GuestOp::Zero(_) if geometry.write_zeroes.is_none() => return Ok(()),
            GuestOp::Zero(_) => (
                What::Write { fua: false },
                OpKind::WriteZeroes,
                OpFlags::MAY_UNMAP,
            ),
            GuestOp::Discard(_) if geometry.discard.is_none() => return Ok(()),
            GuestOp::Discard(_) => (What::Discard, OpKind::Discard, OpFlags::NONE),
            GuestOp::Read(_) => (What::Read, OpKind::Read, OpFlags::NONE),
            GuestOp::Flush => (What::Flush, OpKind::Flush, OpFlags::NONE),
            GuestOp::Checkpoint(steps) => return self.checkpoint(steps),
            GuestOp::Wait => return self.pass_time(),
            GuestOp::Reopen => return self.reopen(),
            GuestOp::Kill => return self.kill(),
        };
        let range = step
            .range()
            .map_or((0, 0), |range| (range.first, range.count));
        let (first, count) = (usize::from(range.0), usize::from(range.1));
        if kind != OpKind::Read && kind != OpKind::Flush {
            self.crash_moment()?;
        }
        let oracle = &mut self.level.oracle;
        let ticket = match kind {
            OpKind::WriteZeroes => oracle.begin_with(what, first, count, Value::ZERO),
            _ => oracle.begin(what, first, count),
        };
        self.submit(Purpose::Guest, ticket, kind, flags)
    }

    pub(super) fn checkpoint(&mut self, steps: Option<u16>) -> Outcomes {
        self.level.engine.checkpoint();
        self.pump()?;
        for _ in 0..steps.unwrap_or(0) {
            if self.level.in_flight() > 0 {
                self.complete_one(false)?;
                self.pump()?;
            }
        }
        // With a number of steps, what is left waits until everything else has happened.
        if steps.is_some() {
            for device in self.level.devices.all() {
                (0..device.in_flight()).for_each(|index| device.hold(index, true));
            }
        }
        Ok(())
    }

    fn pass_time(&mut self) -> Outcomes {
        if let When::At(then) = self.level.engine.poll_at() {
            self.level.now = self.level.now.max(then);
        }
        Ok(())
    }

    pub(super) fn submit(
        &mut self,
        purpose: Purpose,
        ticket: Ticket,
        kind: OpKind,
        flags: OpFlags,
    ) -> Outcomes {
        let Some(op) = self.level.client.op(purpose, ticket, kind, flags) else {
            return Err(broken("sim", "the guest has too many requests in flight"));
        };
        match self.level.engine.submit(op) {
            Ok(()) => Ok(()),
            Err(op) => self.completed(op),
        }
    }

    /// A request of the guest has come back.
    pub(super) fn completed(&mut self, op: Op) -> Outcomes {
        self.check_misuse()?;
        self.level.toil = 0;
        let head = op.head();
        let finished = self
            .level
            .client
            .finish(op)
            .map_err(|why| broken("R14", why))?;
        let result = if self.level.severed {
            Ok(())
        } else {
            self.judge(&finished, head.kind)
        };
        if finished.purpose == Purpose::Guest && !self.level.severed {
            self.level
                .bus
                .note(|| format!("  guest {:?} {:?}", head.kind, head.status));
        }
        self.level.client.recycle(finished.buffer);
        result
    }

    pub(super) fn judge(&mut self, finished: &Finished, kind: OpKind) -> Outcomes {
        let done = finished.status == Status::Done;
        self.level.oracle.end(finished.ticket, done);
        self.level.tightened += u32::from(done && kind != OpKind::Read);
        if let Status::Failed(error) = finished.status {
            let ticket = finished.ticket;
            let recovering = finished.purpose == Purpose::Recover;
            let mut sectors = ticket.first..ticket.first + ticket.count;
            if kind == OpKind::Read && sectors.any(|sector| self.may_be_lost(sector, recovering)) {
                self.level.unreadable = true;
                return Ok(());
            }
            let full = error == DeviceError::NoSpace && self.shared.case.setup.growing != 0;
            return if full {
                Ok(())
            } else {
                let what = finished.ticket.what;
                let durable = matches!(what, What::Flush | What::Write { fua: true });
                self.level.harm.excuse(kind, durable, error)
            };
        }
        if kind != OpKind::Read {
            self.level.harm.acknowledge(kind)?;
        }
        if kind == OpKind::Read {
            self.compare(finished)?;
        }
        Ok(())
    }

    pub(super) fn compare(&mut self, finished: &Finished) -> Outcomes {
        let ticket = finished.ticket;
        let sectors = finished.buffer.chunks_exact(SECTOR);
        for (sector, bytes) in (ticket.first..).zip(sectors) {
            let recovering = finished.purpose == Purpose::Recover;
            let value = match read_stamp(bytes, sector as u64) {
                Ok(value) => value,
                Err(Foreign::Garbage(first)) if self.shared.case.tear == Tear::Garbage => {
                    Value::garbage(first)
                }
                Err(foreign) => {
                    let rule = if recovering { "R1" } else { "R2" };
                    return Err(broken(rule, format!("sector {sector} holds {foreign}")));
                }
            };
            if recovering && !self.is_excused(sector, value) {
                self.level.oracle.check_recovered(sector, value)?;
            } else if !recovering {
                self.level.oracle.check_read(ticket, sector, value)?;
            }
            self.level.values.push(value);
        }
        Ok(())
    }

    /// Whether the tear model explains what a sector holds after the power loss.
    fn is_excused(&self, sector: usize, seen: Value) -> bool {
        let (tear, unit) = (self.shared.case.tear, self.shared.case.setup.atomic_sectors);
        let oracle = &self.level.oracle;
        oracle.excuses(tear, unit as usize, sector, seen)
    }

    fn may_be_lost(&self, sector: usize, recovering: bool) -> bool {
        let now = recovering && self.is_excused(sector, Value::LOST);
        now || self.level.oracle.is_lost(sector)
    }

    pub(super) fn read_all(&mut self, purpose: Purpose) -> Outcomes {
        let was = core::mem::replace(&mut self.shared.preparing, true);
        let result = self.read_pieces(purpose);
        self.shared.preparing = was;
        result
    }

    pub(super) fn read_pieces(&mut self, purpose: Purpose) -> Outcomes {
        let (all, longest) = (self.level.oracle.len(), self.level.engine.geometry());
        let longest = (longest.transfer_max_bytes as usize / SECTOR).max(1);
        self.level.values.clear();
        for first in (0..all).step_by(longest) {
            let count = longest.min(all - first);
            if self.read_piece(purpose, first, count)? {
                continue;
            }
            for sector in first..first + count {
                if !self.read_piece(purpose, sector, 1)? {
                    self.level.values.push(Value::LOST);
                }
            }
        }
        Ok(())
    }

    /// Reads sectors and compares them. False if some of them are lost, which must be excused.
    fn read_piece(
        &mut self,
        purpose: Purpose,
        first: usize,
        count: usize,
    ) -> Result<bool, Failure> {
        self.level.unreadable = false;
        let ticket = self.level.oracle.begin(What::Read, first, count);
        self.submit(purpose, ticket, OpKind::Read, OpFlags::NONE)?;
        self.drive(|level| level.client.in_flight() == 0)?;
        Ok(!core::mem::take(&mut self.level.unreadable))
    }
}
