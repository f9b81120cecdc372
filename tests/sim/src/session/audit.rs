//! A sample of the states, shown to two checkers that must agree (G17 of the goals; rule R12).

use super::{Outcomes, Session, broken};
use crate::disk::Bus;
use crate::engine::{Devices, Engine};
use crate::opinion::{Examined, Image, Opinion};
use crate::sector::{SECTOR, SectorId, SharedSectors};
use crate::workload::Setup;

/// Who asks the checkers, and which states they see.
pub struct Auditor {
    /// The checker that is not the engine's.
    pub second: Box<dyn Opinion>,
    /// One of this many unique states is looked at; all of those of a replayed line.
    pub every: u64,
    /// Images that both have judged alike so far.
    pub agreed: u64,
    /// Those of them that both called corrupt.
    pub corrupt: u64,
}

impl Auditor {
    /// Shows one of `every` unique states to `second`, and to the engine.
    #[must_use]
    pub fn new(second: Box<dyn Opinion>, every: u64) -> Auditor {
        Auditor {
            second,
            every: every.max(1),
            agreed: 0,
            corrupt: 0,
        }
    }
}

type Examine = fn(&Setup, &Devices) -> Option<Examined>;

/// An auditor, and disks of its own to show images on.
pub(crate) struct Audit {
    auditor: Option<Auditor>,
    devices: Devices,
    setup: Setup,
    examine: Examine,
}

impl Audit {
    pub(crate) fn new<E: Engine>(bus: &Bus, setup: &Setup, plan: &crate::engine::Plan) -> Audit {
        Audit {
            auditor: None,
            devices: Devices::new(bus, setup, plan),
            setup: *setup,
            examine: E::examine,
        }
    }

    pub(crate) fn set(&mut self, auditor: Option<Auditor>) -> Option<Auditor> {
        core::mem::replace(&mut self.auditor, auditor)
    }

    /// Whether the `count`-th unique state is one to look at.
    pub(super) fn wants(&self, count: u64) -> bool {
        let every = self.auditor.as_ref().map(|auditor| auditor.every);
        every.is_some_and(|every| count % every == every / 2)
    }

    pub(super) fn is_on(&self) -> bool {
        self.auditor.is_some()
    }

    /// Where the two differ on what the stores hold. `None` if they agree, or one of them can not
    /// look: an image in a file has no unreadable sectors.
    fn disagreement(
        &mut self,
        images: &[Vec<SectorId>],
        sectors: &SharedSectors,
    ) -> Option<String> {
        let auditor = self.auditor.as_mut()?;
        let mut bytes = images.iter().map(|image| flat(image, sectors));
        let metadata = bytes.next()??;
        let data = match bytes.next() {
            Some(data) => Some(data?),
            None => None,
        };
        let base = self.devices.base.as_ref();
        let image = Image {
            metadata,
            data,
            base_bytes: base.map(|_| u64::from(self.setup.base_sectors) * SECTOR as u64),
        };
        for (device, image) in self.devices.stores().zip(images) {
            device.load(image);
        }
        let first = (self.examine)(&self.setup, &self.devices)?;
        let second = match auditor.second.ask(&image) {
            Ok(second) => second,
            Err(why) => return Some(why),
        };
        let differ = first.differs_from(&second);
        if differ.is_none() {
            auditor.agreed += 1;
            auditor.corrupt += u64::from(first.verdict == crate::opinion::Verdict::Corrupt);
        }
        differ
    }
}

/// The bytes of an image, unless some of them are lost.
fn flat(image: &[SectorId], sectors: &SharedSectors) -> Option<Vec<u8>> {
    let sectors = sectors.borrow();
    let mut bytes = Vec::with_capacity(image.len() * SECTOR);
    for id in image {
        bytes.extend_from_slice(sectors.get(*id)?);
    }
    Some(bytes)
}

impl<E: Engine> Session<'_, E> {
    /// Shows what a power loss has left to both checkers.
    pub(super) fn audit_crash(&mut self) -> Outcomes {
        let sectors = self.level.bus.sectors();
        let audit = &mut self.shared.audit;
        match audit.disagreement(&self.level.images, sectors) {
            Some(why) => Err(broken("R12", format!("before recovery: {why}"))),
            None => Ok(()),
        }
    }

    /// Shows what recovery has made of it to both.
    pub(super) fn audit_recovered(&mut self) -> Outcomes {
        let images = self.level.devices.images();
        let sectors = self.level.bus.sectors();
        match self.shared.audit.disagreement(&images, sectors) {
            Some(why) => Err(broken("R12", format!("after recovery: {why}"))),
            None => Ok(()),
        }
    }
}
