//! What can be put under test: anything that makes a disk out of simulated disks.
//!
//! `fvd` itself is one [`Engine`] (see [`crate::driver`]); a middleware of your own, or a toy with a
//! known bug, is another. An engine is opened, driven and abandoned millions of times in one
//! process, so it keeps its memory from one session to the next.

use core::mem::MaybeUninit;

use fvd::buffer::{ARENA_ALIGN, Op};
use fvd::device::{DiscardLimits, Geometry, Growth, When, WriteZeroesLimits};
use fvd::units::Instant;

use crate::crash::Zones;
use crate::disk::{Bus, Fill, Schedule, SimDisk};
use crate::opinion::Examined;
use crate::sector::{SECTOR, SectorId};
use crate::stamp::{CANARY, Value, stamp};
use crate::workload::Setup;

/// Number of the metadata store, which is the only store if there is one.
pub const METADATA: u8 = 0;
/// Number of the data store, if it is another device.
pub const DATA: u8 = 1;
/// Number of the base.
pub const BASE: u8 = 2;

/// How an engine lays a kind of disk out.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// Size of the metadata store, which holds the data too if there is no data store.
    pub metadata_bytes: u64,
    /// Size of the data store, if it is another device.
    pub data_bytes: u64,
    /// Sectors at the start of the metadata store in which a failed write ends all promises.
    pub metadata_sectors: u32,
    /// (store, first sector) of each region but the first, for per-region splits.
    pub regions: Vec<(u8, u32)>,
    /// What sectors are for: where tears may strike, and what they may cost.
    pub zones: Zones,
    /// Most device operations that opening may take (R13).
    pub open_ops_max: u32,
}

/// The simulated disks of one session.
#[derive(Clone)]
pub struct Devices {
    /// Metadata, and data if `data` is `None`.
    pub metadata: SimDisk,
    /// Data, if on a device of its own.
    pub data: Option<SimDisk>,
    /// The read-only base.
    pub base: Option<SimDisk>,
}

impl Devices {
    /// New disks for a setup, the base filled with its stamps.
    #[must_use]
    pub fn new(bus: &Bus, setup: &Setup, plan: &Plan) -> Devices {
        let fill = if setup.used != 0 {
            Fill::Secrets
        } else {
            Fill::Zeros
        };
        let metadata = SimDisk::new(
            bus,
            METADATA,
            "meta",
            store(setup, plan.metadata_bytes),
            fill,
        );
        let data = (setup.two_devices != 0)
            .then(|| SimDisk::new(bus, DATA, "data", store(setup, plan.data_bytes), fill));
        let base = (setup.base_sectors != 0).then(|| {
            let geometry = Geometry {
                read_only: true,
                logical_block_bytes: logical(setup),
                ..Geometry::basic(u64::from(setup.base_sectors) * SECTOR as u64)
            };
            let base = SimDisk::new(bus, BASE, "base", geometry, Fill::Zeros);
            for sector in 0..u64::from(setup.base_sectors) {
                base.put(sector as usize, &stamp(Value::BASE, sector));
            }
            base
        });
        Devices {
            metadata,
            data,
            base,
        }
    }

    /// The stores, without the base.
    pub fn stores(&self) -> impl Iterator<Item = &SimDisk> {
        core::iter::once(&self.metadata).chain(&self.data)
    }

    /// The stores and the base.
    pub fn all(&self) -> impl Iterator<Item = &SimDisk> {
        self.stores().chain(&self.base)
    }

    /// Decides for all of them when operations complete.
    pub fn set_schedule(&self, schedule: Schedule) {
        self.all().for_each(|disk| disk.set_schedule(schedule));
    }

    /// What the stores hold.
    #[must_use]
    pub fn images(&self) -> Vec<Vec<SectorId>> {
        self.stores().map(SimDisk::image).collect()
    }
}

fn logical(setup: &Setup) -> u32 {
    setup.logical_sectors.max(1) * SECTOR as u32
}

fn store(setup: &Setup, bytes: u64) -> Geometry {
    let atomic = setup.atomic_sectors * SECTOR as u32;
    let on = |flag: u32| flag != 0;
    Geometry {
        atomic_write_bytes: atomic,
        physical_block_bytes: atomic,
        logical_block_bytes: logical(setup),
        volatile_cache: !on(setup.write_through),
        fua: on(setup.fua),
        discard: on(setup.discard).then_some(DiscardLimits {
            granularity_bytes: atomic,
            max_bytes: u64::MAX,
            zeroes_after: setup.discard == 2,
        }),
        write_zeroes: on(setup.write_zeroes).then_some(WriteZeroesLimits {
            max_bytes: u64::MAX,
            may_unmap: true,
        }),
        growth: on(setup.growing).then_some(Growth {
            unit_bytes: u64::from(setup.chunk_sectors) * 2 * SECTOR as u64,
            max_bytes: bytes + (1 << 20),
            zeroed: !on(setup.used),
        }),
        ..Geometry::basic(bytes)
    }
}

/// What happened inside an engine.
#[derive(Debug)]
pub enum Event {
    /// Nothing more, until a device completes something or time passes.
    Idle,
    /// The disk is open.
    Opened,
    /// The disk can not be opened or closed; the reason is for people. The session is over.
    Failed(String),
    /// A request of the guest has come back.
    Completed(Op),
    /// The disk is closed; the session is over.
    Closed,
}

/// Something that makes a disk out of [`Devices`].
///
/// Life of an engine: `new`, then any number of sessions. A session begins with `open` and ends with
/// [`Event::Closed`], [`Event::Failed`] or `abandon`.
pub trait Engine {
    /// The command that replays a line of this engine, if there is one.
    #[must_use]
    fn command() -> Option<&'static str> {
        None
    }

    /// How a setup is laid out. `None` if the engine does not do such setups.
    fn plan(setup: &Setup) -> Option<Plan>;

    /// An engine for disks of one kind.
    fn new(setup: &Setup) -> Self;

    /// Writes a fresh image; the devices complete everything in order.
    ///
    /// # Errors
    /// Why it could not be done, for people.
    fn format(&mut self, devices: &Devices) -> Result<(), String>;

    /// Begins a session.
    fn open(&mut self, devices: &Devices);

    /// What the open disk is like.
    fn geometry(&self) -> Geometry;

    /// Submits a request of the guest.
    ///
    /// # Errors
    /// The refused op.
    fn submit(&mut self, op: Op) -> Result<(), Op>;

    /// The next event.
    fn poll(&mut self, now: Instant) -> Event;

    /// When to poll next, if no device completes anything.
    fn poll_at(&self) -> When;

    /// Asks for a checkpoint, or whatever else the engine would do in the background some day.
    fn checkpoint(&mut self) {}

    /// Begins to end the session in good order.
    fn close(&mut self);

    /// Ends the session at once and hands back the requests that the engine still holds. The devices
    /// have been severed and have returned every op.
    fn abandon(&mut self, home: &mut dyn FnMut(Op));

    /// What the engine's own checker says of the image that the devices hold, which complete everything
    /// in order. `None` if it has none, or there is no second one for such images.
    fn examine(setup: &Setup, devices: &Devices) -> Option<Examined> {
        let _ = (setup, devices);
        None
    }

    /// What of its memory the engine could not get back when sessions ended, since the last call.
    fn lost(&mut self) -> Option<String> {
        None
    }
}

/// Memory for an arena, filled with a pattern that gives itself away if it reaches a device. Leaked:
/// keep it from session to session.
#[must_use]
pub fn arena_memory(bytes: usize) -> &'static mut [MaybeUninit<u8>] {
    let mut memory: Vec<MaybeUninit<u8>> = Vec::new();
    memory.resize(bytes + ARENA_ALIGN, MaybeUninit::new(CANARY as u8));
    let memory = memory.leak();
    let skip = memory.as_ptr().align_offset(ARENA_ALIGN);
    &mut memory[skip..skip + bytes]
}
