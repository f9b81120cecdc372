//! Damaged images, and a repair that loses power and meets failing devices everywhere.
//!
//! A repair of an image is right if, whatever a power loss leaves of it, the next repair ends, finds
//! nothing left to mend, and the guest reads what it read before the damage.
#![allow(dead_code, unreachable_pub)] // each test file is a crate of its own and uses a part of this

pub mod patients;

use core::cell::RefCell;
use core::mem::MaybeUninit;
use core::ops::ControlFlow;
use core::task::Waker;
use std::collections::HashSet;

use fvd::blocking::{self, Blocking};
use fvd::buffer::Op;
use fvd::check::{Finding, Severity};
use fvd::device::{BlockDevice, Geometry, OpKind, When};
use fvd::format::Limits;
use fvd::open::{OpenError, OpenOptions};
use fvd::repair::RepairError;
use fvd::stores::{One, WithBase};
use fvd::units::Instant;
use fvd_sim::crash::{Bound, Space, Tear};
use fvd_sim::disk::{Bus, FaultRule, Fill, Landed, SimDisk};
use fvd_sim::engine::arena_memory;
use fvd_sim::sector::{SECTOR, SectorId, Sectors, SharedSectors};

pub type Image = Vec<SectorId>;
type Memory = &'static mut [MaybeUninit<u8>];

/// Size of the guest's disk and of its base, bytes.
pub const DISK_BYTES: usize = 16 << 10;
pub const BASE_BYTES: usize = 9 << 10;

const STORE: u8 = 0;
const BASE: u8 = 2;
const ARENA_BYTES: usize = 512 << 10;
const BOUNCE_BYTES: usize = 32 << 10;

/// An image with a fault, and what its guest must read when it is mended.
pub struct Patient {
    pub name: &'static str,
    pub image: Image,
    pub content: Vec<u8>,
}

/// Devices to try repairs on.
pub struct Clinic {
    pub sectors: SharedSectors,
    bus: Bus,
    base: SimDisk,
    arena: RefCell<Option<Memory>>,
    bounce: RefCell<Option<Memory>>,
    /// States whose future has been looked at.
    seen: RefCell<HashSet<(usize, Image)>>,
}

/// A disk that looks at what a power loss may leave whenever it takes an operation.
struct Watched<'a> {
    disk: SimDisk,
    look: &'a dyn Fn(&SimDisk),
}

impl BlockDevice for Watched<'_> {
    fn geometry(&self) -> Geometry {
        self.disk.geometry()
    }

    fn submit(&mut self, op: Op) -> Result<(), Op> {
        let taken = self.disk.submit(op);
        (self.look)(&self.disk);
        taken
    }

    fn notify(&mut self) {
        self.disk.notify();
    }

    fn poll(&mut self, now: Instant) -> Option<Op> {
        self.disk.poll(now)
    }

    fn poll_at(&self) -> When {
        self.disk.poll_at()
    }

    fn set_waker(&mut self, waker: &Waker) -> bool {
        self.disk.set_waker(waker)
    }
}

pub fn options() -> OpenOptions {
    OpenOptions {
        queue_depth: 4,
        part_ops: 16,
        pending_max: 66,
        scratch_blocks: 4,
        zero_memory_bytes: 4096,
        floor_step_chunks: 2,
        limits: Limits::FORMAT.with_journal_units_min(2),
        ..OpenOptions::DEFAULT
    }
}

fn idle(_: When) -> Instant {
    Instant::ZERO
}

impl Clinic {
    pub fn new() -> Clinic {
        let sectors = Sectors::shared();
        let bus = Bus::new(&sectors);
        let geometry = Geometry {
            read_only: true,
            ..Geometry::basic(BASE_BYTES as u64)
        };
        let base = SimDisk::new(&bus, BASE, "base", geometry, Fill::Zeros);
        for sector in 0..BASE_BYTES / SECTOR {
            base.put(sector, &[0xB0 | sector as u8; SECTOR]);
        }
        Clinic {
            sectors,
            bus,
            base,
            arena: RefCell::new(None),
            bounce: RefCell::new(None),
            seen: RefCell::default(),
        }
    }

    /// A disk that holds `image`.
    pub fn disk(&self, image: &[SectorId]) -> SimDisk {
        let bytes = (image.len() * SECTOR) as u64;
        let geometry = Geometry {
            volatile_cache: true,
            atomic_write_bytes: SECTOR as u32,
            ..Geometry::basic(bytes)
        };
        let disk = SimDisk::new(&self.bus, STORE, "meta", geometry, Fill::Zeros);
        disk.load(image);
        disk
    }

    fn arena(&self) -> Memory {
        let kept = self.arena.borrow_mut().take();
        kept.unwrap_or_else(|| arena_memory(ARENA_BYTES))
    }

    pub fn stores<D: BlockDevice>(&self, disk: D) -> WithBase<One<D>, SimDisk> {
        WithBase::new(One(disk), self.base.clone())
    }

    /// Runs `guest` on the disk that `disk` holds, and closes it if the guest says so.
    pub fn session(
        &self,
        disk: &SimDisk,
        options: OpenOptions,
        guest: &mut dyn FnMut(&mut dyn Guest) -> bool,
    ) -> Result<(), OpenError> {
        let opened = blocking::open(self.stores(disk.clone()), options, self.arena(), idle);
        let opened = opened.map_err(|failure| {
            *self.arena.borrow_mut() = failure.memory;
            failure.error
        })?;
        let kept = self.bounce.borrow_mut().take();
        let bounce = kept.unwrap_or_else(|| arena_memory(BOUNCE_BYTES));
        let mut blocking = Blocking::new(opened, bounce, idle).unwrap_or_else(|_| panic!("room"));
        let close = guest(&mut blocking);
        let (opened, bounce) = blocking.into_parts();
        *self.bounce.borrow_mut() = bounce;
        if close {
            let closed = blocking::close(opened, idle, drop);
            closed.result.expect("closed");
            *self.arena.borrow_mut() = closed.memory;
        }
        Ok(())
    }

    /// What the guest reads from an image, without changing it.
    pub fn content(&self, image: &[SectorId]) -> Result<Vec<u8>, OpenError> {
        let mut content = vec![0; DISK_BYTES];
        let read_only = OpenOptions {
            read_only: true,
            ..options()
        };
        self.session(&self.disk(image), read_only, &mut |guest| {
            guest.read(0, &mut content);
            true
        })?;
        Ok(content)
    }

    /// All that is wrong with an image.
    pub fn findings(&self, image: &[SectorId]) -> Result<Vec<Finding>, OpenError> {
        let stores = self.stores(self.disk(image));
        let looked = blocking::inspect(stores, options(), self.arena(), idle);
        let mut inspection = looked.map_err(|failure| {
            *self.arena.borrow_mut() = failure.memory;
            failure.error
        })?;
        let mut findings = Vec::new();
        inspection.findings(&mut |finding| findings.push(finding));
        *self.arena.borrow_mut() = inspection.finish().1;
        Ok(findings)
    }

    fn repair<D: BlockDevice>(&self, disk: D) -> Result<(), RepairError> {
        let repaired = blocking::repair(self.stores(disk), options(), self.arena(), idle);
        *self.arena.borrow_mut() = repaired.memory;
        repaired.result
    }

    /// Everything that a power loss right now may leave of a disk.
    pub fn power_loss(&self, disk: &SimDisk) -> Vec<Image> {
        let mut space = Space::new();
        disk.add_to(&mut space);
        let mut images = Vec::new();
        let bound = Bound {
            product_max: 1 << 10,
            random_count: 256,
            ..Bound::default()
        };
        let _ = space.visit(bound, Tear::None, &mut |outcome| {
            let mut image = Image::new();
            space.image(STORE, outcome, Tear::None, &self.sectors, &mut image);
            images.push(image);
            ControlFlow::Continue(())
        });
        images
    }

    /// Repairs an image, with a power loss at every operation, and again in the repair that follows,
    /// `depth` times. How many states were looked at.
    pub fn survives(&self, image: &Image, content: &[u8], depth: usize) -> Result<u32, String> {
        if !self.seen.borrow_mut().insert((depth, image.clone())) {
            return Ok(0);
        }
        let findings = self
            .findings(image)
            .map_err(|error| format!("lost: {error}"))?;
        let damage = findings.iter().find(|it| it.severity == Severity::Damage);
        if let Some(damage) = damage {
            return Err(format!("damaged: {damage}"));
        }
        let left = RefCell::new(Vec::new());
        let look = |disk: &SimDisk| left.borrow_mut().extend(self.power_loss(disk));
        let disk = self.disk(image);
        let watched = Watched {
            disk: disk.clone(),
            look: &look,
        };
        self.repair(watched)
            .map_err(|error| format!("not repaired: {error}"))?;
        look(&disk);
        self.is_whole(&disk.image(), content)?;
        let mut states = 1;
        if depth > 0 {
            for image in left.into_inner() {
                states += self.survives(&image, content, depth - 1)?;
            }
        }
        Ok(states)
    }

    /// Nothing is wrong with an image, its guest reads the content, and a repair leaves both so.
    fn is_whole(&self, image: &Image, content: &[u8]) -> Result<(), String> {
        let disk = self.disk(image);
        for again in [false, true] {
            if again {
                self.repair(disk.clone())
                    .map_err(|error| format!("not repaired again: {error}"))?;
            }
            let findings = self
                .findings(&disk.image())
                .map_err(|error| error.to_string())?;
            if let Some(finding) = findings.first() {
                return Err(format!("left (again: {again}): {finding}"));
            }
            let found = self
                .content(&disk.image())
                .map_err(|error| error.to_string())?;
            if let Some(at) = found.iter().zip(content).position(|(a, b)| a != b) {
                return Err(format!("byte {at} changed (again: {again})"));
            }
        }
        let misuse = disk.misuse();
        if misuse.is_empty() {
            Ok(())
        } else {
            Err(misuse.join("; "))
        }
    }

    /// Repairs an image with the n-th operation of a kind failing, for every n. Each failure is told,
    /// but for one of reading that is made good by reading again, and leaves an image that the next
    /// repair mends. How many failures there were.
    pub fn survives_faults(
        &self,
        image: &Image,
        content: &[u8],
        kind: OpKind,
    ) -> Result<u32, String> {
        let mut failures = 0;
        for (landed, sticky) in [
            (Landed::Nothing, false),
            (Landed::All, false),
            (Landed::Half, true),
        ] {
            for pass_count in 0.. {
                let disk = self.disk(image);
                disk.set_fault(Some(FaultRule {
                    kind: Some(kind),
                    pass_count,
                    sticky,
                    landed,
                }));
                let result = self.repair(disk.clone());
                if !disk.fault_struck() {
                    break;
                }
                failures += 1;
                let what = format!("{kind:?} {pass_count}, {landed:?}, sticky {sticky}");
                match result {
                    Err(RepairError::Device(_) | RepairError::Open(OpenError::Device { .. })) => {}
                    // A part of header or journal is read once more; what reads well then is no fault.
                    Ok(()) if kind == OpKind::Read && !sticky => {
                        self.is_whole(&disk.image(), content)
                            .map_err(|error| format!("{what}: {error}"))?;
                    }
                    other => return Err(format!("{what}: the repair says {other:?}")),
                }
                for state in self.power_loss(&disk) {
                    self.survives(&state, content, 0)
                        .map_err(|error| format!("{what}: {error}"))?;
                }
            }
        }
        Ok(failures)
    }
}

/// What a session's guest can do.
pub trait Guest {
    fn read(&mut self, at: usize, target: &mut [u8]);
    fn write(&mut self, at: usize, bytes: &[u8]);
    fn flush(&mut self);
}

impl<D: BlockDevice, I: FnMut(When) -> Instant> Guest for Blocking<D, I> {
    fn read(&mut self, at: usize, target: &mut [u8]) {
        self.read_at(at as u64, target).expect("read");
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        self.write_at(at as u64, bytes).expect("written");
    }

    fn flush(&mut self) {
        Blocking::flush(self).expect("flushed");
    }
}
