//! One disk on simulated stores, driven step by step: what each request is answered, and what the
//! guest finds after each kind of end.

use fvd::device::{DeviceError, OpFlags, OpKind, Status, When};
use fvd::units::Instant;
use fvd_sim::case::Replay;
use fvd_sim::client::{Client, Purpose};
use fvd_sim::crash::{Outcome, Space, Tear};
use fvd_sim::disk::{Bus, Schedule, SimDisk};
use fvd_sim::driver::Fvd;
use fvd_sim::engine::{Devices, Engine, Event};
use fvd_sim::explore::{Explorer, Limits};
use fvd_sim::oracle::{Oracle, Ticket, What};
use fvd_sim::sector::{SECTOR, SectorId};
use fvd_sim::stamp::{Value, read_stamp};
use fvd_sim::workload::{GuestOp, Setup};

/// Polls in a row without an event, after which a disk counts as stuck.
const PATIENCE: u32 = 200;

pub(crate) const DONE: Status = Status::Done;
pub(crate) const IO: Status = Status::Failed(DeviceError::Io);
pub(crate) const POISONED: Status = Status::Failed(DeviceError::Poisoned);
pub(crate) const NO_SPACE: Status = Status::Failed(DeviceError::NoSpace);

/// How a session ends without being closed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Loss {
    /// Power fails, and nothing that a flush did not cover survives.
    AllLost,
    /// Power fails, and everything survives.
    AllKept,
    /// The process dies; the devices and their caches live on.
    Process,
}

pub(crate) const LOSSES: [Loss; 3] = [Loss::AllLost, Loss::AllKept, Loss::Process];

/// A disk, its stores, its guest, and what the guest may find.
pub(crate) struct Rig {
    pub(crate) devices: Devices,
    engine: Fvd,
    client: Client,
    pub(crate) oracle: Oracle,
    bus: Bus,
    now: Instant,
    ended: Vec<(Ticket, Status)>,
    /// What `renew` goes back to.
    setup: Setup,
    images: Vec<Vec<SectorId>>,
}

impl Rig {
    /// A new image, not opened.
    pub(crate) fn formatted(setup: &str) -> Rig {
        let setup: Setup = setup.parse().expect("legal");
        let bus = Bus::default();
        let plan = Fvd::plan(&setup).expect("a setup of fvd");
        let devices = Devices::new(&bus, &setup, &plan);
        let mut engine = Fvd::new(&setup);
        devices.set_schedule(Schedule::Fifo);
        engine.format(&devices).expect("formats");
        let images = devices.images();
        Rig {
            devices,
            engine,
            client: Client::new(),
            oracle: Oracle::of_new_disk(&setup),
            bus,
            now: Instant::ZERO,
            ended: Vec::new(),
            setup,
            images,
        }
    }

    /// A new image, open. To start over, [`Rig::renew`] it: a disk keeps its memory.
    pub(crate) fn new(setup: &str) -> Rig {
        let mut rig = Rig::formatted(setup);
        rig.open().expect("a new image opens");
        rig
    }

    /// Ends whatever session there is and opens the image as it was when it was new.
    pub(crate) fn renew(&mut self) {
        self.die(Loss::Process);
        for (device, image) in self.devices.stores().zip(&self.images) {
            device.load(image);
        }
        self.oracle = Oracle::of_new_disk(&self.setup);
        self.open().expect("a new image opens");
    }

    /// Makes operations of a store fail: `0w1~!`, as in a replay line. Store 0 holds the metadata, 1
    /// the data if they are apart, 2 is the base.
    pub(crate) fn fault(&self, rule: &str) {
        let line: Replay = format!("g=-;i={rule}").parse().expect("a fault");
        let (store, rule) = line.case.fault.expect("a fault");
        if let Some(device) = self.devices.all().find(|device| device.id() == store) {
            device.set_fault(Some(rule));
        }
    }

    /// Ends all faults.
    pub(crate) fn heal(&self) {
        self.devices.all().for_each(|device| device.set_fault(None));
    }

    pub(crate) fn struck(&self) -> bool {
        self.devices.all().any(SimDisk::fault_struck)
    }

    /// Opens the image.
    pub(crate) fn open(&mut self) -> Result<(), String> {
        self.engine.open(&self.devices);
        let result = self.wait_for(|event| matches!(event, Event::Opened));
        self.expect_no_leak();
        result
    }

    /// Closes the disk.
    pub(crate) fn close(&mut self) -> Result<(), String> {
        self.engine.close();
        let result = self.wait_for(|event| matches!(event, Event::Closed));
        self.expect_no_leak();
        result
    }

    fn expect_no_leak(&mut self) {
        assert_eq!(self.engine.lost(), None);
        for device in self.devices.all() {
            assert_eq!(device.in_flight(), 0, "an operation is left on a store");
            assert_eq!(device.misuse(), [""; 0]);
        }
    }

    fn wait_for(&mut self, end: fn(&Event) -> bool) -> Result<(), String> {
        let mut idle = 0;
        loop {
            match self.engine.poll(self.now) {
                Event::Idle => self.pass_time(&mut idle),
                Event::Completed(op) => self.take(op),
                Event::Failed(why) => return Err(why),
                event if end(&event) => return Ok(()),
                event => panic!("unexpected: {event:?}"),
            }
        }
    }

    fn pass_time(&mut self, idle: &mut u32) {
        *idle += 1;
        assert!(*idle < PATIENCE, "the disk is stuck");
        if let When::At(then) = self.engine.poll_at() {
            self.now = self.now.max(then);
        }
    }

    fn take(&mut self, op: fvd::buffer::Op) {
        let finished = self.client.finish(op).expect("a request of this guest");
        let ticket = finished.ticket;
        self.oracle.end(ticket, finished.status == Status::Done);
        if finished.status == Status::Done && ticket.what == What::Read {
            let sectors = finished.buffer.chunks_exact(SECTOR);
            for (sector, bytes) in (ticket.first..).zip(sectors) {
                let value = read_stamp(bytes, sector as u64).expect("a value of this guest");
                let check = self.oracle.check_read(ticket, sector, value);
                check.unwrap_or_else(|broken| panic!("{}: {}", broken.rule, broken.detail));
            }
        }
        self.client.recycle(finished.buffer);
        self.ended.push((ticket, finished.status));
    }

    /// Submits requests together, and returns what each was answered.
    pub(crate) fn together(&mut self, steps: &str) -> Vec<Status> {
        self.ended.clear();
        let mut tickets = Vec::new();
        for step in steps.split(',') {
            let ticket = self.submit(step.parse().expect("a step"));
            tickets.push(ticket);
        }
        let mut idle = 0;
        while self.ended.len() < tickets.len() {
            match self.engine.poll(self.now) {
                Event::Idle => self.pass_time(&mut idle),
                Event::Completed(op) => self.take(op),
                event => panic!("unexpected: {event:?}"),
            }
        }
        assert_eq!(self.client.in_flight(), 0, "a request never ended");
        let status = |ticket| {
            let mut ended = self.ended.iter().filter(|(own, _)| own == ticket);
            let (_, status) = ended.next().expect("each request ends");
            assert!(ended.next().is_none(), "a request ended twice");
            *status
        };
        tickets.iter().map(status).collect()
    }

    /// One request.
    pub(crate) fn run(&mut self, step: &str) -> Status {
        self.together(step)[0]
    }

    /// Several, one after the other; every one must be acknowledged.
    pub(crate) fn done(&mut self, steps: &str) {
        for step in steps.split(',') {
            assert_eq!(self.run(step), DONE, "{step}");
        }
    }

    fn submit(&mut self, step: GuestOp) -> Ticket {
        let (what, kind, flags) = match step {
            GuestOp::Write(_) => (What::Write { fua: false }, OpKind::Write, OpFlags::NONE),
            GuestOp::WriteFua(_) => (What::Write { fua: true }, OpKind::Write, OpFlags::FUA),
            GuestOp::Zero(_) => (
                What::Write { fua: false },
                OpKind::WriteZeroes,
                OpFlags::NONE,
            ),
            GuestOp::Discard(_) => (What::Discard, OpKind::Discard, OpFlags::NONE),
            GuestOp::Read(_) => (What::Read, OpKind::Read, OpFlags::NONE),
            GuestOp::Flush => (What::Flush, OpKind::Flush, OpFlags::NONE),
            other => panic!("{other} is no request"),
        };
        let range = step
            .range()
            .map_or((0, 0), |range| (range.first, range.count));
        let (first, count) = (usize::from(range.0), usize::from(range.1));
        let ticket = match kind {
            OpKind::WriteZeroes => self.oracle.begin_with(what, first, count, Value::ZERO),
            _ => self.oracle.begin(what, first, count),
        };
        let op = self.client.op(Purpose::Guest, ticket, kind, flags);
        if let Err(op) = self.engine.submit(op.expect("few requests")) {
            self.take(op);
        }
        ticket
    }

    /// Lets a checkpoint run to its end, or to its failure.
    pub(crate) fn checkpoint(&mut self) {
        self.engine.checkpoint();
        for _ in 0..PATIENCE {
            if let Event::Completed(op) = self.engine.poll(self.now) {
                self.take(op);
            }
        }
    }

    /// Ends the session without closing it; the faults end with it.
    pub(crate) fn die(&mut self, loss: Loss) {
        for device in self.devices.all() {
            device.sever(|_| false);
        }
        let (client, ended) = (&mut self.client, &mut self.ended);
        self.engine.abandon(&mut |op| {
            let finished = client.finish(op).expect("a request of this guest");
            ended.push((finished.ticket, finished.status));
            client.recycle(finished.buffer);
        });
        self.expect_no_leak();
        self.restart_devices(loss);
        self.oracle.kill();
    }

    /// What the devices are when the next session finds them: sound again.
    pub(crate) fn restart_devices(&mut self, loss: Loss) {
        self.heal();
        for device in self.devices.stores() {
            match loss {
                Loss::AllLost => device.load(&stable(device, &self.bus)),
                Loss::AllKept => {
                    device.reset(|_| true);
                    device.load(&device.image());
                }
                Loss::Process => device.reset(|_| true),
            }
        }
        self.devices.all().for_each(SimDisk::reconnect);
    }

    /// Opens after a death, and finds what the oracle allows.
    pub(crate) fn recover(&mut self) {
        self.open().expect("recovery on sound devices");
        let values = self.contents();
        for (sector, value) in values.iter().enumerate() {
            let check = self.oracle.check_recovered(sector, *value);
            check.unwrap_or_else(|broken| panic!("{}", broken.detail));
        }
        self.oracle.restart(values.into_iter());
    }

    /// Death and recovery.
    pub(crate) fn lose(&mut self, loss: Loss) {
        self.die(loss);
        self.recover();
    }

    /// What every sector reads.
    pub(crate) fn contents(&mut self) -> Vec<Value> {
        (0..self.oracle.len())
            .map(|sector| self.read(sector))
            .collect()
    }

    /// What one sector reads.
    pub(crate) fn read(&mut self, sector: usize) -> Value {
        let ticket = self.oracle.begin(What::Read, sector, 1);
        let op = self
            .client
            .op(Purpose::Verify, ticket, OpKind::Read, OpFlags::NONE);
        let mut home = self.engine.submit(op.expect("few requests")).err();
        let mut idle = 0;
        let op = loop {
            if let Some(op) = home.take() {
                break op;
            }
            match self.engine.poll(self.now) {
                Event::Idle => self.pass_time(&mut idle),
                Event::Completed(op) => home = Some(op),
                event => panic!("unexpected: {event:?}"),
            }
        };
        let finished = self.client.finish(op).expect("a request of this guest");
        assert_eq!(finished.status, DONE, "sector {sector} can not be read");
        self.oracle.end(ticket, true);
        let value = read_stamp(finished.buffer, sector as u64).expect("a value of this guest");
        let check = self.oracle.check_read(ticket, sector, value);
        check.unwrap_or_else(|broken| panic!("{}: {}", broken.rule, broken.detail));
        self.client.recycle(finished.buffer);
        value
    }
}

/// What surely survives a power loss.
fn stable(device: &SimDisk, bus: &Bus) -> Vec<SectorId> {
    let mut space = Space::new();
    device.add_to(&mut space);
    let mut image = Vec::new();
    let nothing = Outcome::default();
    space.image(device.id(), &nothing, Tear::None, bus.sectors(), &mut image);
    image
}

/// Runs one line in all ways with up to `deviations` unusual decisions.
pub(crate) fn no_violation(line: &str, deviations: usize) {
    let case = line.parse::<Replay>().expect("legal").case;
    let limits = Limits {
        deviations,
        ..Limits::default()
    };
    let mut explorer = Explorer::<Fvd>::new(&case, &limits).expect("formats");
    if let Err(found) = explorer.run(&case, &limits) {
        panic!("{found}");
    }
}
