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

mod bus;
mod inner;

use core::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use fvd::buffer::Head;
use fvd::device::{DeviceError, Geometry, OpFlags, OpKind};

use crate::crash::Space;
use crate::medium::{Medium, Metastable};
use crate::sector::{SECTOR, SectorId};
pub use bus::Bus;
use inner::{Core, fill_id};

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
    /// None, and it is no failure: the store is busy and refuses the operation. Once, or (sticky)
    /// whenever it has another one in flight.
    Refused,
}

/// Makes operations fail with `Io`, or be refused with `Busy`.
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
            failed: Vec::new(),
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

    /// Operations that came back as failed since the last call.
    #[must_use]
    pub fn take_failed(&self) -> Vec<Head> {
        core::mem::take(&mut self.0.borrow_mut().failed)
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
        self.load_torn(image, Vec::new());
    }

    /// [`SimDisk::load`] of an image in which some units read one thing or another.
    ///
    /// # Panics
    /// If operations are in flight.
    pub fn load_torn(&self, image: &[SectorId], metastable: Vec<Metastable>) {
        let mut core = self.0.borrow_mut();
        assert!(
            core.in_flight.is_empty() && core.ready.is_empty(),
            "the disk is in use"
        );
        core.medium.load(image, metastable);
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
        let id = core.bus.sectors().borrow_mut().intern(bytes).0;
        core.medium.write(sector, &[id], true);
    }

    /// What a reader sees in one sector.
    ///
    /// # Panics
    /// If it is not on the disk, or can not be read.
    #[must_use]
    pub fn get(&self, sector: usize) -> [u8; SECTOR] {
        let core = self.0.borrow();
        let sectors = core.bus.sectors().borrow();
        *sectors
            .get(core.medium.visible()[sector])
            .expect("readable")
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
        core.medium.hash(core.bus.sectors())
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
