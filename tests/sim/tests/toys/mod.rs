//! Small engines, right and wrong, that show that the simulator sees.

pub(crate) mod remap;

use fvd::buffer::Op;
use fvd::device::{BlockDevice, Geometry, When};
use fvd::units::Instant;
use fvd_sim::crash::{Zone, Zones};
use fvd_sim::disk::SimDisk;
use fvd_sim::engine::{Devices, Engine, Event, Plan};
use fvd_sim::sector::SECTOR;
use fvd_sim::workload::Setup;

/// Hands every request to the store as it is. Nothing can go wrong, so nothing may be reported.
#[derive(Default)]
pub(crate) struct Raw {
    disk: Option<SimDisk>,
    opened: bool,
    closing: bool,
    /// Variant 1 answers flushes itself. The op still needs the device to come home, as a read of
    /// nothing would not; so it is kept here and handed out by `poll`.
    swallowed: Vec<Op>,
    swallow: bool,
}

impl Engine for Raw {
    fn plan(setup: &Setup) -> Option<Plan> {
        Some(Plan {
            metadata_bytes: u64::from(setup.guest_sectors) * SECTOR as u64,
            open_ops_max: 0,
            zones: Zones::default().with(0, 0..u32::MAX, Zone::Data),
            ..Plan::default()
        })
    }

    fn new(setup: &Setup) -> Raw {
        Raw {
            swallow: setup.variant == 1,
            ..Raw::default()
        }
    }

    fn format(&mut self, _: &Devices) -> Result<(), String> {
        Ok(())
    }

    fn open(&mut self, devices: &Devices) {
        self.disk = Some(devices.metadata.clone());
        (self.opened, self.closing) = (true, false);
    }

    fn geometry(&self) -> Geometry {
        self.disk.as_ref().expect("open").geometry()
    }

    fn submit(&mut self, mut op: Op) -> Result<(), Op> {
        if self.swallow && op.kind() == fvd::device::OpKind::Flush {
            op.complete(Ok(()));
            self.swallowed.push(op);
            return Ok(());
        }
        self.disk.as_mut().expect("open").submit(op)
    }

    fn poll(&mut self, now: Instant) -> Event {
        if core::mem::take(&mut self.opened) {
            return Event::Opened;
        }
        if core::mem::take(&mut self.closing) {
            self.disk = None;
            return Event::Closed;
        }
        let done = self.swallowed.pop();
        match done.or_else(|| self.disk.as_mut()?.poll(now)) {
            Some(op) => Event::Completed(op),
            None => Event::Idle,
        }
    }

    fn poll_at(&self) -> When {
        When::Event
    }

    fn close(&mut self) {
        self.closing = true;
    }

    fn abandon(&mut self, _: &mut dyn FnMut(Op)) {
        self.disk = None;
    }
}
