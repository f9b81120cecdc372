//! Runs one session of a disk under test, and branches at every crash it could have.
//!
//! Crash moments. The set of images that a power loss may leave grows when a device operation is
//! submitted and shrinks when one that hardens something completes; the set of values that the
//! oracle allows grows when the guest submits a write and shrinks when a flush is acknowledged. So
//! looking right **before** each hardening completion, before each guest write, and at the end,
//! finds every violation that looking at every instant would find.
//!
//! Each outcome of a crash is a session of its own on the next `Level`, with its own disks and
//! engine, while this session stays where it is. That is what makes nested crashes cheap.

use core::ops::ControlFlow;
use std::collections::HashSet;

use fvd::buffer::Op;
use fvd::device::{DeviceError, OpFlags, OpKind, Status, When};
use fvd::units::Instant;

use crate::case::{Case, Crash, Path};
use crate::choices::Choices;
use crate::client::{Client, Finished, Purpose};
use crate::crash::{Bound, Outcome, Space};
use crate::disk::{Bus, Schedule};
use crate::engine::{Devices, Engine, Event, Plan};
use crate::oracle::{Oracle, Ticket, Violation, What};
use crate::sector::{SECTOR, SectorId, mix};
use crate::stamp::{Value, read_stamp};
use crate::workload::GuestOp;

/// Events in a row, or polls in vain, after which an engine counts as spinning.
const PATIENCE: u32 = 10_000;

/// A violation, and the path that leads to it.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What was wrong.
    pub violation: Violation,
    /// How to get there, from this session on.
    pub path: Path,
}

/// Totals of an exploration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Runs of a case: one per choice string.
    pub runs: u64,
    /// Moments at which a crash was looked at.
    pub moments: u64,
    /// Outcomes of those crashes, repeated ones included.
    pub outcomes: u64,
    /// Outcomes that were new, each recovered and checked.
    pub states: u64,
    /// Recovered disks that were new and went on with another session.
    pub continued: u64,
}

/// What all levels of an exploration share.
pub(crate) struct Shared {
    pub(crate) case: Case,
    pub(crate) bound: Bound,
    pub(crate) seen: HashSet<u64>,
    pub(crate) stats: Stats,
    /// Replay: the crash to take at each level, instead of all.
    pub(crate) script: Option<Vec<Option<Crash>>>,
    pub(crate) open_ops_max: u32,
    /// Whether the fault of the case has struck in any run so far.
    pub(crate) fault_struck: bool,
    /// The part of a session before it counts: no crash, no choice, no fault.
    pub(crate) preparing: bool,
}

/// Disks, engine and guest of one depth of nesting.
pub(crate) struct Level<E> {
    pub(crate) bus: Bus,
    pub(crate) devices: Devices,
    pub(crate) engine: E,
    pub(crate) client: Client,
    pub(crate) oracle: Oracle,
    pub(crate) space: Space,
    pub(crate) choices: Choices,
    values: Vec<Value>,
    images: Vec<Vec<SectorId>>,
    now: Instant,
    moment: u32,
    /// Device operations since the guest was last served.
    toil: u32,
    /// (device operations, oracle changes) when a crash was last looked at.
    looked_at: Option<(u32, u32)>,
    tightened: u32,
    opened: bool,
    closed: bool,
    severed: bool,
    /// Opening or closing failed, and an injected fault excuses it.
    failed: bool,
}

impl<E: Engine> Level<E> {
    pub(crate) fn new(bus: Bus, case: &Case, plan: &Plan) -> Level<E> {
        let devices = Devices::new(&bus, &case.setup, plan);
        let mut space = Space::new();
        for device in devices.stores() {
            let own = plan.regions.iter().filter(|region| region.0 == device.id());
            space.regions(
                device.id(),
                &own.map(|region| region.1).collect::<Vec<u32>>(),
            );
        }
        for (device, sectors) in &plan.tearable {
            space.tearable(*device, sectors.clone());
        }
        for (device, sectors) in &plan.expendable {
            space.expendable(*device, sectors.clone());
        }
        Level {
            bus,
            devices,
            engine: E::new(&case.setup),
            client: Client::new(),
            oracle: Oracle::default(),
            space,
            choices: Choices::new(),
            values: Vec::new(),
            images: Vec::new(),
            now: Instant::ZERO,
            moment: 0,
            toil: 0,
            looked_at: None,
            tightened: 0,
            opened: false,
            closed: false,
            severed: false,
            failed: false,
        }
    }

    /// Loads what the stores hold and what the guest may expect; the next session starts from it.
    pub(crate) fn load(&mut self, images: &[Vec<SectorId>], oracle: &Oracle) {
        for (device, image) in self.devices.stores().zip(images) {
            device.load(image);
        }
        if let Some(base) = &self.devices.base {
            base.reconnect();
            base.set_fault(None);
        }
        self.oracle.clone_from(oracle);
        self.moment = 0;
        self.toil = 0;
        self.looked_at = None;
        self.now = Instant::ZERO;
    }

    fn in_flight(&self) -> usize {
        self.devices.all().map(|device| device.in_flight()).sum()
    }

    fn fault_struck(&self) -> bool {
        self.devices.all().any(|device| device.fault_struck())
    }
}

/// Device operations in a row without anything for the guest, after which an engine counts as
/// working for nothing.
const TOIL: u32 = 2_000;

/// One session on the first of `levels`.
pub(crate) struct Session<'a, E> {
    level: &'a mut Level<E>,
    deeper: &'a mut [Level<E>],
    shared: &'a mut Shared,
    depth: usize,
}

/// Runs the session of depth `depth` on the first level, which has been loaded.
pub(crate) fn run<E: Engine>(
    levels: &mut [Level<E>],
    shared: &mut Shared,
    depth: usize,
) -> Result<(), Failure> {
    let Some((level, deeper)) = levels.split_first_mut() else {
        return Ok(());
    };
    let mut session = Session {
        level,
        deeper,
        shared,
        depth,
    };
    let result = session.run();
    let choices = session.level.choices.script();
    result.map_err(|mut failure| {
        match failure.path.0.first_mut() {
            Some((own, _)) if own.is_empty() => *own = choices,
            _ => failure.path.0.insert(0, (choices, None)),
        }
        failure
    })
}

type Outcomes = Result<(), Failure>;

fn broken(rule: &'static str, detail: impl Into<String>) -> Failure {
    let violation = Violation {
        rule,
        detail: detail.into(),
    };
    violation.into()
}

impl From<Violation> for Failure {
    fn from(violation: Violation) -> Failure {
        Failure {
            violation,
            path: Path::default(),
        }
    }
}

impl<E: Engine> Session<'_, E> {
    fn run(&mut self) -> Outcomes {
        let depth = self.depth;
        self.level.bus.note(|| format!("session {depth}"));
        self.level.devices.set_schedule(Schedule::Manual);
        self.open()?;
        if depth == 0 {
            self.read_all(Purpose::Verify)?;
            self.prepare()?;
        } else {
            self.read_all(Purpose::Recover)?;
            let seen = self.level.values.iter().copied();
            self.level.oracle.restart(seen);
            self.level.tightened += 1;
        }
        if let Some(steps) = self.shared.case.sessions.get(depth).cloned()
            && (depth == 0 || self.is_new())
        {
            self.guest(&steps)?;
            self.crash_moment()?;
        }
        self.leave()
    }

    fn prepare(&mut self) -> Outcomes {
        let prefix = self.shared.case.prefix.clone();
        if !prefix.is_empty() {
            self.level.bus.note(|| "prefix".into());
            self.shared.preparing = true;
            let prepared = self.guest(&prefix);
            self.shared.preparing = false;
            prepared?;
            self.level.bus.note(|| "workload".into());
        }
        if let Some((store, rule)) = self.shared.case.fault {
            let target = self.level.devices.all().find(|device| device.id() == store);
            if let Some(device) = target {
                device.set_fault(Some(rule));
            }
        }
        Ok(())
    }

    /// Whether a session from this recovered state has not been run before.
    fn is_new(&mut self) -> bool {
        if self.shared.script.is_some() {
            return true;
        }
        let mut key = mix(self.level.oracle.hash(), 0xC0DE ^ self.depth as u64);
        for device in self.level.devices.stores() {
            key = mix(key, device.hash());
        }
        let new = self.shared.seen.insert(key);
        self.shared.stats.continued += u64::from(new);
        new
    }

    // --- Opening, closing, killing -------------------------------------------------------------

    fn open(&mut self) -> Outcomes {
        let before = self.level.bus.submitted();
        let level = &mut *self.level;
        (level.opened, level.closed, level.severed) = (false, false, false);
        level.failed = false;
        level.engine.open(&level.devices);
        self.drive(|level| level.opened)?;
        if self.level.failed {
            return self.open_without_fault();
        }
        let spent = self.level.bus.submitted() - before;
        if spent > self.shared.open_ops_max {
            return Err(broken(
                "R13",
                format!("opening took {spent} device operations"),
            ));
        }
        Ok(())
    }

    /// Ends the faults. A host must not go on with a cache that failed to flush: it shows what may
    /// never become durable. So the devices are reset, and what was in their caches is kept, lost,
    /// or half of it.
    fn reset_devices(&mut self) {
        self.shared.fault_struck = true;
        let lost = self.choose(3);
        self.level
            .bus
            .note(|| format!("devices reset, lost {lost}"));
        for device in self.level.devices.all() {
            device.reset(|unit| lost == 0 || (lost == 2 && unit % 2 == 0));
        }
    }

    /// A fault ended the session. It must have left a disk that opens once the fault is gone.
    fn open_without_fault(&mut self) -> Outcomes {
        self.reset_devices();
        self.level.oracle.kill();
        self.level.tightened += 1;
        self.open()?;
        self.read_all(Purpose::Verify)
    }

    fn reopen(&mut self) -> Outcomes {
        // A disk that was closed in good order has lost nothing: closing counts as a flush.
        let ticket = self.level.oracle.begin(What::Flush, 0, 0);
        self.level.engine.close();
        self.drive(|level| level.closed)?;
        if self.level.failed {
            self.level.oracle.end(ticket, false);
            return self.open_without_fault();
        }
        self.level.oracle.end(ticket, true);
        self.level.tightened += 1;
        self.open()
    }

    /// The process dies; what it had in flight landed or not.
    fn kill(&mut self) -> Outcomes {
        self.crash_moment()?;
        let in_flight = self.level.in_flight();
        let options = if in_flight == 0 { 1 } else { in_flight + 2 };
        let landed = self.choose(options);
        let mut base = 0;
        for device in self.level.devices.all() {
            let count = device.in_flight();
            device.sever(|index| landed == 1 || landed == base + index + 2);
            base += count;
        }
        self.end_session()?;
        for device in self.level.devices.all() {
            device.reconnect();
        }
        self.level.oracle.kill();
        self.level.tightened += 1;
        self.level.bus.note(|| format!("killed, landed {landed}"));
        if self.level.fault_struck() {
            self.reset_devices();
        }
        self.open()?;
        self.read_all(Purpose::Verify)
    }

    fn leave(&mut self) -> Outcomes {
        self.shared.fault_struck |= self.level.fault_struck();
        for device in self.level.devices.all() {
            device.sever(|_| false);
        }
        self.end_session()
    }

    /// Drains a severed session and gives its memory back.
    fn end_session(&mut self) -> Outcomes {
        self.level.severed = true;
        self.pump()?;
        let level = &mut *self.level;
        let mut lost = Ok(());
        level
            .engine
            .abandon(&mut |op| match level.client.finish(op) {
                Ok(finished) => level.client.recycle(finished.buffer),
                Err(why) => lost = Err(broken("R14", why)),
            });
        lost?;
        if level.client.in_flight() > 0 {
            return Err(broken("R14", "an abandoned disk keeps requests for ever"));
        }
        Ok(())
    }

    // --- Stepping ------------------------------------------------------------------------------

    fn choose(&mut self, options: usize) -> usize {
        if self.shared.preparing {
            0
        } else {
            self.level.choices.choose(options)
        }
    }

    /// Takes all events that the engine has.
    fn pump(&mut self) -> Outcomes {
        for _ in 0..PATIENCE {
            match self.level.engine.poll(self.level.now) {
                Event::Idle => return self.check_misuse(),
                Event::Opened => self.level.opened = true,
                Event::Closed => self.level.closed = true,
                Event::Failed(_) if self.level.severed => self.level.closed = true,
                Event::Failed(why) if self.level.fault_struck() => {
                    self.level.bus.note(|| format!("  excused: {why}"));
                    self.level.failed = true;
                }
                Event::Failed(why) => {
                    self.level.closed = true;
                    return Err(broken("open", why));
                }
                Event::Completed(op) => self.completed(op)?,
            }
        }
        Err(broken("R13", "the engine spins"))
    }

    fn check_misuse(&self) -> Outcomes {
        match self
            .level
            .devices
            .all()
            .flat_map(|device| device.misuse())
            .next()
        {
            Some(detail) => Err(broken("R8", detail)),
            None => Ok(()),
        }
    }

    /// Steps until `until` holds; nothing but devices and time can make it so.
    fn drive(&mut self, until: fn(&Level<E>) -> bool) -> Outcomes {
        let mut idle = 0;
        self.pump()?;
        while !until(self.level) && !self.level.failed {
            if self.level.in_flight() > 0 {
                self.complete_one(false)?;
                idle = 0;
            } else {
                self.wait(&mut idle)?;
            }
            self.pump()?;
        }
        Ok(())
    }

    /// Nothing is in flight: let time pass, up to a point.
    fn wait(&mut self, idle: &mut u32) -> Outcomes {
        *idle += 1;
        match self.level.engine.poll_at() {
            _ if *idle > PATIENCE => Err(broken("R13", "the engine waits for nothing")),
            When::Now => Ok(()),
            When::At(then) => {
                self.level.now = self.level.now.max(then);
                Ok(())
            }
            When::Event if *idle < 4 => Ok(()),
            When::Event => Err(broken("R14", "the engine is stuck with nothing in flight")),
        }
    }

    /// Lets one device operation complete, or holds one back, or (returning true) asks for the next
    /// step of the guest instead, which `may_submit` allows.
    fn complete_one(&mut self, may_submit: bool) -> Result<bool, Failure> {
        loop {
            let mut free: Vec<(u32, u8, usize)> = Vec::new();
            let mut held: Vec<(u32, u8, usize)> = Vec::new();
            for device in self.level.devices.all() {
                device.for_each_in_flight(|index, serial, is_held| {
                    let list = if is_held { &mut held } else { &mut free };
                    list.push((serial, device.id(), index));
                });
            }
            if free.is_empty() {
                // Held back long enough: nothing else can happen.
                free.append(&mut held);
            }
            free.sort_unstable();
            let can_hold = free.len() > 1 || may_submit;
            let options = free.len() + usize::from(may_submit) + usize::from(can_hold);
            let choice = self.choose(options);
            if choice == free.len() && may_submit {
                return Ok(true);
            }
            if let Some(&(_, device, index)) = free.get(choice) {
                self.complete(device, index)?;
                return Ok(false);
            }
            let (_, device, index) = free[0];
            self.device(device).hold(index, true);
            if free.len() == 1 {
                return Ok(true);
            }
        }
    }

    fn device(&self, id: u8) -> &crate::disk::SimDisk {
        let found = self.level.devices.all().find(|device| device.id() == id);
        found.unwrap_or(&self.level.devices.metadata)
    }

    fn complete(&mut self, device: u8, index: usize) -> Outcomes {
        self.level.toil += 1;
        if self.level.toil > TOIL {
            return Err(broken("R13", "the engine works without end"));
        }
        if self.device(device).hardens(index) {
            self.crash_moment()?;
        }
        self.device(device).complete(index);
        Ok(())
    }

    // --- The guest -----------------------------------------------------------------------------

    /// Runs steps, one after the other or overlapping as the choices say.
    fn guest(&mut self, steps: &[GuestOp]) -> Outcomes {
        let mut next = 0;
        let mut idle = 0;
        let depth_max = self.shared.case.queue_depth.max(1);
        loop {
            self.pump()?;
            let guests = self.level.client.in_flight();
            let busy = self.free_in_flight();
            if guests == 0 && busy == 0 {
                if self.depth == 0 && !self.shared.preparing {
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
    fn release(&mut self) {
        for device in self.level.devices.all() {
            (0..device.in_flight()).for_each(|index| device.hold(index, false));
        }
    }

    fn free_in_flight(&self) -> usize {
        let mut count = 0;
        for device in self.level.devices.all() {
            device.for_each_in_flight(|_, _, held| count += usize::from(!held));
        }
        count
    }

    fn step(&mut self, step: GuestOp) -> Outcomes {
        self.level.toil = 0;
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

    fn checkpoint(&mut self, steps: Option<u16>) -> Outcomes {
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

    fn submit(
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
    fn completed(&mut self, op: Op) -> Outcomes {
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

    fn judge(&mut self, finished: &Finished, kind: OpKind) -> Outcomes {
        let done = finished.status == Status::Done;
        self.level.oracle.end(finished.ticket, done);
        self.level.tightened += u32::from(done && kind != OpKind::Read);
        if !done {
            let excused = self.level.fault_struck()
                || finished.status == Status::Failed(DeviceError::NoSpace);
            return if excused {
                Ok(())
            } else {
                Err(broken(
                    "R14",
                    format!("{kind:?} ended {:?}", finished.status),
                ))
            };
        }
        if kind == OpKind::Read {
            self.compare(finished)?;
        }
        Ok(())
    }

    fn compare(&mut self, finished: &Finished) -> Outcomes {
        let ticket = finished.ticket;
        let sectors = finished.buffer.chunks_exact(SECTOR);
        for (sector, bytes) in (ticket.first..).zip(sectors) {
            let recovering = finished.purpose == Purpose::Recover;
            let value = read_stamp(bytes, sector as u64).map_err(|foreign| {
                let rule = if recovering { "R1" } else { "R2" };
                broken(rule, format!("sector {sector} holds {foreign}"))
            })?;
            if recovering {
                self.level.oracle.check_recovered(sector, value)?;
            } else {
                self.level.oracle.check_read(ticket, sector, value)?;
            }
            self.level.values.push(value);
        }
        Ok(())
    }

    fn read_all(&mut self, purpose: Purpose) -> Outcomes {
        let was = core::mem::replace(&mut self.shared.preparing, true);
        let result = self.read_pieces(purpose);
        self.shared.preparing = was;
        result
    }

    fn read_pieces(&mut self, purpose: Purpose) -> Outcomes {
        let (all, longest) = (self.level.oracle.len(), self.level.engine.geometry());
        let longest = (longest.transfer_max_bytes as usize / SECTOR).max(1);
        self.level.values.clear();
        for first in (0..all).step_by(longest) {
            let count = longest.min(all - first);
            let ticket = self.level.oracle.begin(What::Read, first, count);
            self.submit(purpose, ticket, OpKind::Read, OpFlags::NONE)?;
            self.drive(|level| level.client.in_flight() == 0)?;
        }
        Ok(())
    }

    // --- Crashing ------------------------------------------------------------------------------

    /// Looks at everything that a power loss right now could leave.
    fn crash_moment(&mut self) -> Outcomes {
        let mark = Some((self.level.bus.submitted(), self.level.tightened));
        if self.shared.preparing || self.deeper.is_empty() || self.level.looked_at == mark {
            return Ok(());
        }
        self.level.looked_at = mark;
        let moment = self.level.moment;
        self.level.moment += 1;
        self.shared.stats.moments += 1;
        let mut space = core::mem::take(&mut self.level.space);
        space.clear();
        for device in self.level.devices.stores() {
            device.add_to(&mut space);
        }
        let result = self.visit(&space, moment);
        self.level.space = space;
        result
    }

    fn visit(&mut self, space: &Space, moment: u32) -> Outcomes {
        let script = self
            .shared
            .script
            .as_ref()
            .map(|script| script.get(self.depth).cloned());
        if let Some(wanted) = script {
            return match wanted.flatten() {
                Some((at, mut outcome)) if at == moment => {
                    outcome.digits.resize(space.unit_count(), 0);
                    self.level.bus.note(|| "  power loss".into());
                    self.after(space, moment, &outcome)
                }
                _ => Ok(()),
            };
        }
        let sectors = self.level.bus.sectors().clone();
        let base = space.stable_hash(&sectors);
        let allowed = mix(self.level.oracle.hash(), self.depth as u64);
        let (bound, tear) = (self.shared.bound, self.shared.case.tear);
        let mut failed = Ok(());
        let _ = space.visit(bound, tear, &mut |outcome| {
            self.shared.stats.outcomes += 1;
            let mut key = mix(space.hash(base, outcome, &sectors), allowed);
            if outcome.torn.is_some() {
                key = mix(key, space.torn_hash(outcome, tear, &sectors));
            }
            if !self.shared.seen.insert(key) {
                return ControlFlow::Continue(());
            }
            self.shared.stats.states += 1;
            failed = self.after(space, moment, outcome);
            if failed.is_err() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        });
        failed
    }

    /// Runs the session that follows a crash with this outcome.
    fn after(&mut self, space: &Space, moment: u32, outcome: &Outcome) -> Outcomes {
        let Some(next) = self.deeper.first_mut() else {
            return Ok(());
        };
        let sectors = self.level.bus.sectors();
        let stores: Vec<u8> = self
            .level
            .devices
            .stores()
            .map(|device| device.id())
            .collect();
        let images = &mut self.level.images;
        images.resize_with(stores.len(), Vec::new);
        for (image, id) in images.iter_mut().zip(stores) {
            space.image(id, outcome, self.shared.case.tear, sectors, image);
        }
        next.load(images, &self.level.oracle);
        if self.shared.script.is_none() {
            next.choices = Choices::new();
        }
        run(self.deeper, self.shared, self.depth + 1).map_err(|mut failure| {
            failure
                .path
                .0
                .insert(0, (Vec::new(), Some((moment, outcome.trimmed()))));
            failure
        })
    }
}
