//! The device double: a disk with a volatile cache that can lose power at any moment.
//!
//! A [`SimDisk`] is a handle; clones drive the same disk. Give one to the code under test and keep
//! another to decide what completes when, to lose power, and to look at the medium.
//!
//! Invariants:
//! 1. An accepted operation has no effect until it completes, except that a power loss may find any
//!    part of it done ([`SimDisk::add_to`]). Its data is taken when it is submitted.
//! 2. What the contract forbids a caller (writing to the base, leaving the device, sending memory
//!    that nobody filled) is refused or done as usual *and* noted in [`SimDisk::misuse`].
//! 3. Nothing here draws a random number or reads a clock.

use core::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

use fvd::buffer::{Head, Op};
use fvd::device::{BlockDevice, DeviceError, Geometry, OpFlags, OpKind, When, refuse};
use fvd::units::Instant;

use crate::crash::Space;
use crate::medium::Medium;
use crate::sector::{SECTOR, SectorId, Sectors, SharedSectors, word};
use crate::stamp::{CANARY, secret};

/// What the disks of one simulation share.
#[derive(Clone)]
pub struct Bus {
    sectors: SharedSectors,
    serial: Rc<Cell<u32>>,
    trace: Rc<RefCell<Option<Vec<String>>>>,
}

impl Default for Bus {
    fn default() -> Bus {
        Bus::new(&Sectors::shared())
    }
}

impl Bus {
    /// A bus for disks whose contents live in `sectors`.
    #[must_use]
    pub fn new(sectors: &SharedSectors) -> Bus {
        Bus {
            sectors: sectors.clone(),
            serial: Rc::new(Cell::new(0)),
            trace: Rc::new(RefCell::new(None)),
        }
    }

    /// A bus of its own that shares contents and trace, for another set of disks.
    #[must_use]
    pub fn sibling(&self) -> Bus {
        Bus {
            sectors: self.sectors.clone(),
            serial: Rc::new(Cell::new(0)),
            trace: self.trace.clone(),
        }
    }

    /// The contents of all disks.
    #[must_use]
    pub fn sectors(&self) -> &SharedSectors {
        &self.sectors
    }

    /// Operations submitted so far, to all disks.
    #[must_use]
    pub fn submitted(&self) -> u32 {
        self.serial.get()
    }

    /// Starts to record a line per event.
    pub fn start_trace(&self) {
        *self.trace.borrow_mut() = Some(Vec::new());
    }

    /// Adds a line to the trace, if one is being recorded.
    pub fn note(&self, line: impl FnOnce() -> String) {
        if let Some(lines) = &mut *self.trace.borrow_mut() {
            lines.push(line());
        }
    }

    /// The lines recorded since the last call.
    #[must_use]
    pub fn take_trace(&self) -> Vec<String> {
        let mut trace = self.trace.borrow_mut();
        trace.as_mut().map(core::mem::take).unwrap_or_default()
    }

    fn next_serial(&self) -> u32 {
        let serial = self.serial.get();
        self.serial.set(serial + 1);
        serial
    }
}

/// What a disk holds before anybody writes to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fill {
    /// Zeros, as a new file.
    Zeros,
    /// What an earlier tenant left; no guest may ever see it.
    Secrets,
}

/// When operations complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Schedule {
    /// Each `poll` completes the oldest.
    Fifo,
    /// Only [`SimDisk::complete`] completes anything.
    Manual,
}

/// Which of its effects a failed operation leaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum Landed {
    /// None.
    #[default]
    Nothing,
    /// All of them: only the answer is wrong.
    All,
    /// Every second atomic unit.
    Half,
}

/// Makes operations fail with `Io`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FaultRule {
    /// Kind that is counted; `None` counts all.
    pub kind: Option<OpKind>,
    /// Operations of the kind that pass first.
    pub pass_count: u32,
    /// Whether all later ones fail too.
    pub sticky: bool,
    /// What is left of a failed write.
    pub landed: Landed,
}

struct InFlight {
    op: Op,
    serial: u32,
    /// For flushes: what they cover.
    cut: u32,
    ids: Vec<SectorId>,
    fails: Option<Landed>,
    held: bool,
}

struct Core {
    id: u8,
    name: &'static str,
    bus: Bus,
    geometry: Geometry,
    medium: Medium,
    in_flight: Vec<InFlight>,
    ready: VecDeque<Op>,
    schedule: Schedule,
    severed: bool,
    fault: Option<FaultRule>,
    fault_seen: u32,
    fault_struck: bool,
    misuse: Vec<String>,
    spare: Vec<Vec<SectorId>>,
}

/// A simulated disk. See the [module documentation](self).
#[derive(Clone)]
pub struct SimDisk(Rc<RefCell<Core>>);

impl SimDisk {
    /// A disk on `bus`. `id` tells the disks of a bus apart; `name` is for traces.
    #[must_use]
    pub fn new(bus: &Bus, id: u8, name: &'static str, geometry: Geometry, fill: Fill) -> SimDisk {
        let count = geometry.capacity_bytes as usize / SECTOR;
        let image = (0..count)
            .map(|sector| fill_id(bus, id, fill, sector))
            .collect();
        let atomic = geometry.atomic_write_bytes as usize / SECTOR;
        SimDisk(Rc::new(RefCell::new(Core {
            id,
            name,
            bus: bus.clone(),
            geometry,
            medium: Medium::new(image, atomic, geometry.discard.is_some()),
            in_flight: Vec::new(),
            ready: VecDeque::new(),
            schedule: Schedule::Fifo,
            severed: false,
            fault: None,
            fault_seen: 0,
            fault_struck: false,
            misuse: Vec::new(),
            spare: Vec::new(),
        })))
    }

    /// Which disk of the bus this is.
    #[must_use]
    pub fn id(&self) -> u8 {
        self.0.borrow().id
    }

    /// Decides when operations complete.
    pub fn set_schedule(&self, schedule: Schedule) {
        self.0.borrow_mut().schedule = schedule;
    }

    /// Sets or ends the faults; counting starts anew.
    pub fn set_fault(&self, fault: Option<FaultRule>) {
        let mut core = self.0.borrow_mut();
        (core.fault, core.fault_seen, core.fault_struck) = (fault, 0, false);
    }

    /// Whether a fault has struck since it was set.
    #[must_use]
    pub fn fault_struck(&self) -> bool {
        self.0.borrow().fault_struck
    }

    /// Loads an image, as after a power loss: settled, idle, connected, free of faults.
    ///
    /// # Panics
    /// If operations are in flight: end the session that submitted them first.
    pub fn load(&self, image: &[SectorId]) {
        let mut core = self.0.borrow_mut();
        assert!(
            core.in_flight.is_empty() && core.ready.is_empty(),
            "the disk is in use"
        );
        core.medium.load(image);
        core.geometry.capacity_bytes = (image.len() * SECTOR) as u64;
        core.severed = false;
        core.fault = None;
    }

    /// What readers see, sector by sector.
    #[must_use]
    pub fn image(&self) -> Vec<SectorId> {
        self.0.borrow().medium.visible().to_vec()
    }

    /// Puts one sector onto the medium, stable at once: how tests and images of a base are made.
    pub fn put(&self, sector: usize, bytes: &[u8; SECTOR]) {
        let mut core = self.0.borrow_mut();
        let id = core.bus.sectors.borrow_mut().intern(bytes).0;
        core.medium.write(sector, &[id], true);
    }

    /// Adds all that a power loss may leave of this disk to `space`.
    pub fn add_to(&self, space: &mut Space) {
        let core = self.0.borrow();
        core.medium.add_to(core.id, space);
        for flight in &core.in_flight {
            let head = flight.op.head();
            let first = head.offset as usize / SECTOR;
            match head.kind {
                OpKind::Write | OpKind::WriteZeroes => {
                    core.medium
                        .add_in_flight(core.id, first, &flight.ids, space);
                }
                OpKind::Discard => {
                    core.medium
                        .add_discard(core.id, first, head.len as usize / SECTOR, space);
                }
                _ => {}
            }
        }
    }

    /// A hash of the medium, what a power loss could lose included.
    #[must_use]
    pub fn hash(&self) -> u64 {
        let core = self.0.borrow();
        core.medium.hash(&core.bus.sectors)
    }

    /// Whether a power loss could lose anything.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        let core = self.0.borrow();
        core.in_flight.is_empty() && core.medium.is_settled()
    }

    /// Operations in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.0.borrow().in_flight.len()
    }

    /// (place on the bus, held) of each operation in flight, by index.
    pub fn for_each_in_flight(&self, mut f: impl FnMut(usize, u32, bool)) {
        for (index, flight) in self.0.borrow().in_flight.iter().enumerate() {
            f(index, flight.serial, flight.held);
        }
    }

    /// Marks an operation in flight as held back, or not. The mark is the scheduler's own.
    pub fn hold(&self, index: usize, held: bool) {
        if let Some(flight) = self.0.borrow_mut().in_flight.get_mut(index) {
            flight.held = held;
        }
    }

    /// Whether completing the operation takes states out of reach of a power loss: the moment
    /// before it is the one to look at.
    #[must_use]
    pub fn hardens(&self, index: usize) -> bool {
        let core = self.0.borrow();
        let Some(flight) = core.in_flight.get(index) else {
            return false;
        };
        let head = flight.op.head();
        match head.kind {
            OpKind::Read => false,
            OpKind::Flush => !core.medium.is_settled(),
            _ => !core.geometry.volatile_cache || head.flags.contains(OpFlags::FUA),
        }
    }

    /// Completes the operation in flight at `index`; `poll` hands it out.
    pub fn complete(&self, index: usize) {
        let mut core = self.0.borrow_mut();
        if index < core.in_flight.len() {
            core.complete(index);
        }
    }

    /// Cuts the session off, as when its process dies: of the operations in flight those for which
    /// `landed(index)` holds take effect, all come back as `Removed`, and so does whatever is
    /// submitted later. The cache keeps its contents.
    pub fn sever(&self, landed: impl Fn(usize) -> bool) {
        let mut core = self.0.borrow_mut();
        core.severed = true;
        let mut index = 0;
        while let Some(flight) = core.in_flight.first_mut() {
            if !landed(index) {
                let mut flight = core.in_flight.remove(0);
                flight.op.complete(Err(DeviceError::Removed));
                core.ready.push_back(flight.op);
            } else {
                flight.fails = None;
                core.complete(0);
            }
            index += 1;
        }
        for op in &mut core.ready {
            op.complete(Err(DeviceError::Removed));
        }
    }

    /// Lets a new session use the disk after [`SimDisk::sever`].
    pub fn reconnect(&self) {
        self.0.borrow_mut().severed = false;
    }

    /// Resets the device: faults end, and of what a failed flush was to cover, units for which
    /// `kept(unit)` holds are still in the cache while the others are lost.
    pub fn reset(&self, kept: impl Fn(usize) -> bool) {
        let mut core = self.0.borrow_mut();
        (core.fault, core.fault_struck) = (None, false);
        core.medium.reset(kept);
    }

    /// What the code under test did that no caller may do; empties the list.
    #[must_use]
    pub fn misuse(&self) -> Vec<String> {
        core::mem::take(&mut self.0.borrow_mut().misuse)
    }
}

fn fill_id(bus: &Bus, id: u8, fill: Fill, sector: usize) -> SectorId {
    match fill {
        Fill::Zeros => SectorId::ZERO,
        Fill::Secrets => {
            let bytes = secret(u64::from(id), sector as u64);
            bus.sectors.borrow_mut().intern(&bytes).0
        }
    }
}

impl Core {
    fn note(&self, event: &str, head: &Head) {
        self.bus.note(|| {
            let (first, count) = (head.offset / SECTOR as u64, head.len / SECTOR as u64);
            let fua = if head.flags.contains(OpFlags::FUA) {
                " fua"
            } else {
                ""
            };
            let (name, kind, status) = (self.name, head.kind, head.status);
            format!("    {name:4} {event} {kind:?}{fua} {first}+{count} {status:?}")
        });
    }

    /// The failure that the fault rule has in store for this operation.
    fn judge(&mut self, kind: OpKind) -> Option<Landed> {
        let rule = self.fault?;
        if rule.kind.is_some_and(|wanted| wanted != kind) {
            return None;
        }
        let index = self.fault_seen;
        self.fault_seen += 1;
        let strikes = index == rule.pass_count || (rule.sticky && index > rule.pass_count);
        self.fault_struck |= strikes;
        strikes.then_some(rule.landed)
    }

    /// The contents that an operation will leave, taken from its leases.
    fn capture(&mut self, op: &Op) -> Vec<SectorId> {
        let mut ids = self.spare.pop().unwrap_or_default();
        ids.clear();
        let count = op.len() as usize / SECTOR;
        match op.kind() {
            OpKind::WriteZeroes => ids.resize(count, SectorId::ZERO),
            OpKind::Write => {
                let mut store = self.bus.sectors.borrow_mut();
                let mut bytes = [0; SECTOR];
                for index in 0..count {
                    op.copy_out((index * SECTOR) as u64, &mut bytes);
                    let (id, fresh) = store.intern(&bytes);
                    if fresh && bytes.chunks_exact(8).any(|slot| word(slot) == CANARY) {
                        let sector = op.offset() / SECTOR as u64 + index as u64;
                        let name = self.name;
                        self.misuse.push(format!(
                            "{name}: memory nobody filled sent to sector {sector}"
                        ));
                    }
                    ids.push(id);
                }
            }
            _ => {}
        }
        ids
    }

    fn complete(&mut self, index: usize) {
        let mut flight = self.in_flight.remove(index);
        let result = match flight.fails {
            None => self.perform(&mut flight),
            Some(landed) => Err(self.perform_badly(&flight, landed)),
        };
        flight.op.complete(result);
        if !self.geometry.volatile_cache {
            self.medium.flush(self.medium.cut());
        }
        self.note("->", &flight.op.head());
        self.spare.push(flight.ids);
        self.ready.push_back(flight.op);
    }

    fn perform(&mut self, flight: &mut InFlight) -> Result<(), DeviceError> {
        let head = flight.op.head();
        let (first, count) = (head.offset as usize / SECTOR, head.len as usize / SECTOR);
        match head.kind {
            OpKind::Read => {
                let store = self.bus.sectors.borrow();
                let ids = &self.medium.visible()[first..first + count];
                for (index, id) in ids.iter().enumerate() {
                    let bytes = store.get(*id).ok_or(DeviceError::Io)?;
                    flight.op.copy_in((index * SECTOR) as u64, bytes);
                }
            }
            OpKind::Write | OpKind::WriteZeroes => {
                let fua = head.flags.contains(OpFlags::FUA);
                self.medium.write(first, &flight.ids, fua);
            }
            OpKind::Flush => self.medium.flush(flight.cut),
            OpKind::Discard => {
                let zeroes = self
                    .geometry
                    .discard
                    .is_some_and(|limits| limits.zeroes_after);
                let (first, count) = self.round_discard(first, count);
                self.medium.discard(first, count, zeroes);
            }
            OpKind::Grow => self.grow(head.len),
            _ => return Err(DeviceError::Unsupported),
        }
        Ok(())
    }

    fn perform_badly(&mut self, flight: &InFlight, landed: Landed) -> DeviceError {
        let head = flight.op.head();
        let (first, count) = (head.offset as usize / SECTOR, head.len as usize / SECTOR);
        match head.kind {
            OpKind::Write | OpKind::WriteZeroes => {
                self.medium
                    .write_failed(first, &flight.ids, |unit| match landed {
                        Landed::Nothing => false,
                        Landed::All => true,
                        Landed::Half => unit % 2 == 0,
                    });
            }
            OpKind::Flush => self.medium.flush_failed(),
            OpKind::Discard => {
                let (first, count) = self.round_discard(first, count);
                self.medium.discard(first, count, landed == Landed::All);
            }
            OpKind::Grow => return DeviceError::NoSpace,
            _ => {}
        }
        DeviceError::Io
    }

    fn round_discard(&self, first: usize, count: usize) -> (usize, usize) {
        let bytes = self
            .geometry
            .discard
            .map_or(0, |limits| limits.granularity_bytes);
        let grain = (bytes as usize / SECTOR).max(self.medium.unit_sectors());
        let start = first.next_multiple_of(grain);
        let end = (first + count) / grain * grain;
        (start, end.saturating_sub(start))
    }

    fn grow(&mut self, bytes: u64) {
        let zeroed = self.geometry.growth.is_some_and(|growth| growth.zeroed);
        let fill = if zeroed { Fill::Zeros } else { Fill::Secrets };
        let (bus, id) = (self.bus.clone(), self.id);
        let len = (bytes as usize).div_ceil(SECTOR);
        self.medium
            .grow(len, |sector| fill_id(&bus, id, fill, sector));
        self.geometry.capacity_bytes = (self.medium.len() * SECTOR) as u64;
    }
}

impl BlockDevice for SimDisk {
    fn geometry(&self) -> Geometry {
        self.0.borrow().geometry
    }

    fn submit(&mut self, op: Op) -> Result<(), Op> {
        let mut core = self.0.borrow_mut();
        let head = op.head();
        if core.severed {
            return refuse(op, DeviceError::Removed);
        }
        if let Err(error) = core.geometry.check(&op) {
            core.note("!!", &head);
            let name = core.name;
            core.misuse.push(format!(
                "{name}: {:?} refused as {error:?}: {head:?}",
                head.kind
            ));
            return refuse(op, error);
        }
        if core.in_flight.len() >= usize::from(core.geometry.queue_depth) {
            return refuse(op, DeviceError::Busy);
        }
        core.note("<-", &head);
        let flight = InFlight {
            serial: core.bus.next_serial(),
            cut: core.medium.cut(),
            ids: core.capture(&op),
            fails: core.judge(head.kind),
            held: false,
            op,
        };
        core.in_flight.push(flight);
        Ok(())
    }

    fn poll(&mut self, _now: Instant) -> Option<Op> {
        let mut core = self.0.borrow_mut();
        if core.ready.is_empty() && core.schedule == Schedule::Fifo && !core.in_flight.is_empty() {
            core.complete(0);
        }
        core.ready.pop_front()
    }

    fn poll_at(&self) -> When {
        let core = self.0.borrow();
        let automatic = core.schedule == Schedule::Fifo && !core.in_flight.is_empty();
        if core.ready.is_empty() && !automatic {
            When::Event
        } else {
            When::Now
        }
    }
}
