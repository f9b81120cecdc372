//! `fvd` as the engine under test. Everything that this crate knows of its interface is here.

mod examine;
mod machine;
mod unclean;

use core::any::TypeId;
use core::mem::MaybeUninit;
use core::num::NonZeroU64;

use fvd::buffer::Op;
use fvd::create::CREATE_ARENA_BYTES;
use fvd::device::{BlockDevice, Geometry, When};
use fvd::format::{
    BaseParams, CreateParams, Dialect, FormatName, Header, ImageId, JournalChoice, Limits, Name,
    StoreChoice, plan_layout,
};
use fvd::open::OpenOptions;
use fvd::stores::{One, Two, WithBase};
use fvd::units::Instant;

use crate::crash::{Zone, Zones};
use crate::disk::SimDisk;
use crate::engine::{DATA, Devices, Engine, Event, METADATA, Plan, arena_memory};
use crate::middleware::{Direct, Middleware};
use crate::opinion::Examined;
use crate::sector::SECTOR;
use crate::workload::Setup;
use examine::examine;
use machine::Machine;

const SECTOR_U64: u64 = SECTOR as u64;

type Memory = &'static mut [MaybeUninit<u8>];

/// What a new image shall be, on a store of `device_bytes`.
fn params(setup: &Setup, device_bytes: u64) -> CreateParams {
    let mut params = CreateParams::new(
        u64::from(setup.guest_sectors) * SECTOR_U64,
        ImageId(*b"fvd-sim test run"),
    );
    params.dialect = match setup.dialect {
        0 => Dialect::Fvd2,
        1 => Dialect::Spec2011,
        _ => Dialect::Reference,
    };
    params.block_bytes = u64::from(setup.block_sectors) * SECTOR_U64;
    params.chunk_bytes = u64::from(setup.chunk_sectors) * SECTOR_U64;
    params.table = setup.table != 0;
    params.atomic_unit = setup.atomic_sectors * SECTOR as u32;
    params.limits = Limits::FORMAT.with_journal_units_min(2);
    if setup.base_sectors != 0 {
        params.base = Some(BaseParams {
            name: Name::EMPTY,
            format: FormatName::EMPTY,
            bytes: u64::from(setup.base_sectors) * SECTOR_U64,
            id: [0; 16],
            generation: 0,
        });
    }
    if setup.table != 0 || setup.base_sectors != 0 {
        let units = u64::from(setup.journal_units) * u64::from(params.atomic_unit);
        params.journal = JournalChoice::Bytes(units);
    }
    params.store = match (setup.growing, setup.used) {
        (0, 0) => StoreChoice::FixedZeroed { device_bytes },
        (0, _) => StoreChoice::FixedUsed { device_bytes },
        _ => StoreChoice::Growing,
    };
    params.grow_bytes = NonZeroU64::new(u64::from(setup.growing) * 2 * params.chunk_bytes);
    params.external_data = setup.two_devices != 0;
    if params.external_data && params.dialect.is_old() {
        params.data_file = Name::new(b"data").unwrap_or_default();
    }
    params
}

fn header(setup: &Setup) -> Option<Header> {
    if setup.unclean != 0 && setup.dialect == 0 {
        // No other writer of version 2 is known.
        return None;
    }
    let roomy = plan_layout(&params(setup, 1 << 40)).ok()?;
    let chunks = u64::from(setup.guest_sectors.div_ceil(setup.chunk_sectors) + setup.spare_chunks);
    let end = roomy.core.data_offset + chunks * roomy.core.chunk_bytes;
    let mut header = plan_layout(&params(setup, end)).ok()?;
    if setup.sequence_log2 != 0 {
        header.core.stable_seq = (1u64 << setup.sequence_log2.min(62)) - 3;
    }
    Some(header)
}

fn options(setup: &Setup) -> OpenOptions {
    OpenOptions {
        queue_depth: setup.queue_depth as u16,
        part_ops: 16,
        pending_max: 16 + setup.variant as u16,
        scratch_blocks: 4,
        zero_memory_bytes: 4096,
        eager_after_flushes: setup
            .eager
            .checked_sub(1)
            .map_or(u8::MAX, |count| count as u8),
        floor_step_chunks: 2 + setup.variant,
        limits: Limits::FORMAT.with_journal_units_min(2),
        ..OpenOptions::DEFAULT
    }
}

/// What the sectors of an image are for.
fn zones(setup: &Setup, header: &Header) -> Zones {
    let core = &header.core;
    let sectors = |start: u64, bytes: u64| {
        (start / SECTOR_U64) as u32..(start + bytes).div_ceil(SECTOR_U64) as u32
    };
    let [sums_a, sums_b] = header.checksum_offset;
    // Of an image of 2011 everything exists once.
    let twice = if setup.dialect == 0 {
        Zone::Spare
    } else {
        Zone::Page
    };
    let zones = [
        (0, 2 * header_slot_bytes()),
        (sums_a, header.checksum_bytes),
        (sums_b, header.checksum_bytes),
        (core.journal.offset, core.journal.bytes),
    ]
    .into_iter()
    .fold(Zones::default(), |zones, (start, bytes)| {
        zones.with(METADATA, sectors(start, bytes), twice)
    });
    let zones = zones
        .with(
            METADATA,
            sectors(core.table.offset, core.table.bytes),
            Zone::Page,
        )
        .with(
            METADATA,
            sectors(core.bitmap.offset, core.bitmap.bytes),
            Zone::Page,
        );
    // Where blocks are smaller than what the device writes at once, neighbours on the device are not
    // neighbours on the disk, and nothing can be said about what a tear may cost the guest.
    if !setup.block_sectors.is_multiple_of(setup.atomic_sectors) {
        return zones;
    }
    let device = if setup.two_devices != 0 {
        DATA
    } else {
        METADATA
    };
    zones.with(
        device,
        (core.data_offset / SECTOR_U64) as u32..u32::MAX,
        Zone::Data,
    )
}

enum Kind<D: BlockDevice> {
    One(Machine<One<D>>),
    OneWithBase(Machine<WithBase<One<D>, SimDisk>>),
    Two(Machine<Two<D, D>>),
    TwoWithBase(Machine<WithBase<Two<D, D>, SimDisk>>),
}

macro_rules! each {
    ($kind:expr, $machine:ident => $body:expr) => {
        match $kind {
            Kind::One($machine) => $body,
            Kind::OneWithBase($machine) => $body,
            Kind::Two($machine) => $body,
            Kind::TwoWithBase($machine) => $body,
        }
    };
}

/// `fvd` on simulated disks.
pub type Fvd = FvdOn<Direct>;

/// `fvd` on a layer on simulated disks; the base has none.
pub struct FvdOn<M: Middleware> {
    setup: Setup,
    kind: Kind<M::Device>,
}

impl<M: Middleware> Engine for FvdOn<M> {
    fn command() -> Option<&'static str> {
        (TypeId::of::<M>() == TypeId::of::<Direct>()).then_some("fvd-sim replay")
    }

    fn plan(setup: &Setup) -> Option<Plan> {
        let header = header(setup)?;
        let core = &header.core;
        let sector = |bytes: u64| (bytes / SECTOR_U64) as u32;
        let [sums_a, sums_b] = header.checksum_offset;
        let offsets = [
            header_slot_bytes(),
            core.table.offset,
            core.bitmap.offset,
            sums_a,
            sums_b,
            core.journal.offset,
        ];
        let journal_end = core.journal.offset + core.journal.bytes;
        let metadata_end = journal_end.max(2 * header_slot_bytes());
        let metadata: u32 = [core.table.bytes, core.bitmap.bytes, core.journal.bytes]
            .map(sector)
            .iter()
            .sum();
        let mut regions: Vec<u32> = offsets.into_iter().map(sector).collect();
        regions.push(sector(metadata_end));
        regions.retain(|start| *start != 0);
        regions.sort_unstable();
        regions.dedup();
        let two = setup.two_devices != 0;
        Some(Plan {
            metadata_bytes: if two {
                metadata_end
            } else {
                header.store_bytes
            },
            data_bytes: if two { header.store_bytes } else { 0 },
            metadata_sectors: sector(metadata_end),
            regions: regions.into_iter().map(|start| (METADATA, start)).collect(),
            zones: zones(setup, &header),
            open_ops_max: 3 * metadata + 64,
        })
    }

    fn new(setup: &Setup) -> FvdOn<M> {
        let kind = match (setup.two_devices != 0, setup.base_sectors != 0) {
            (false, false) => Kind::One(Machine::new(setup)),
            (false, true) => Kind::OneWithBase(Machine::new(setup)),
            (true, false) => Kind::Two(Machine::new(setup)),
            (true, true) => Kind::TwoWithBase(Machine::new(setup)),
        };
        FvdOn {
            setup: *setup,
            kind,
        }
    }

    fn format(&mut self, devices: &Devices) -> Result<(), String> {
        let header = header(&self.setup).ok_or("the setup has no layout")?;
        let created = fvd::blocking::create(
            M::over(devices.metadata.clone()),
            header,
            self.setup.used == 0,
            arena_memory(CREATE_ARENA_BYTES),
            |_| Instant::ZERO,
        );
        created.result.map_err(|error| error.to_string())?;
        if self.setup.unclean != 0 {
            unclean::leave(&self.setup, &header, devices);
        }
        Ok(())
    }

    fn open(&mut self, devices: &Devices) {
        let metadata = M::over(devices.metadata.clone());
        let data = devices.data.clone().map(M::over);
        let base = devices.base.clone();
        match (&mut self.kind, data, base) {
            (Kind::One(machine), None, None) => machine.open(One(metadata)),
            (Kind::OneWithBase(machine), None, Some(base)) => {
                machine.open(WithBase::new(One(metadata), base));
            }
            (Kind::Two(machine), Some(data), None) => machine.open(Two::new(metadata, data)),
            (Kind::TwoWithBase(machine), Some(data), Some(base)) => {
                machine.open(WithBase::new(Two::new(metadata, data), base));
            }
            _ => {}
        }
    }

    fn geometry(&self) -> Geometry {
        each!(&self.kind, machine => machine.geometry())
    }

    fn submit(&mut self, op: Op) -> Result<(), Op> {
        each!(&mut self.kind, machine => machine.submit(op))
    }

    fn poll(&mut self, now: Instant) -> Event {
        each!(&mut self.kind, machine => machine.poll(now))
    }

    fn poll_at(&self) -> When {
        each!(&self.kind, machine => machine.poll_at())
    }

    fn checkpoint(&mut self) {
        each!(&mut self.kind, machine => machine.checkpoint());
    }

    fn close(&mut self) {
        each!(&mut self.kind, machine => machine.close());
    }

    fn abandon(&mut self, home: &mut dyn FnMut(Op)) {
        each!(&mut self.kind, machine => machine.abandon(home));
    }

    fn examine(setup: &Setup, devices: &Devices) -> Option<Examined> {
        // The second checker knows version 2 only, and journals that the format allows.
        if setup.dialect != 0 || setup.journal_units < 4 {
            return None;
        }
        let metadata = M::over(devices.metadata.clone());
        let data = devices.data.clone().map(M::over);
        Some(match (data, devices.base.clone()) {
            (None, None) => examine(setup, One(metadata)),
            (None, Some(base)) => examine(setup, WithBase::new(One(metadata), base)),
            (Some(data), None) => examine(setup, Two::new(metadata, data)),
            (Some(data), Some(base)) => {
                examine(setup, WithBase::new(Two::new(metadata, data), base))
            }
        })
    }

    fn lost(&mut self) -> Option<String> {
        each!(&mut self.kind, machine => machine.lost.take()).map(str::to_owned)
    }
}

const fn header_slot_bytes() -> u64 {
    fvd::format::SLOT_BYTES as u64
}
