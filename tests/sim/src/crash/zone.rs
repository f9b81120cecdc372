//! What the sectors of a device are for, as far as tears care.

use core::ops::Range;

/// What a sector is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Zone {
    /// Metadata that proves itself and can be done without while it is being written: journal units,
    /// header slots, checksum arrays. Any damage must be survived.
    Spare,
    /// Metadata that exists once and is written in place. Mixtures of old and new must be survived;
    /// a loss must be noticed.
    Page,
    /// The guest's data. What was not flushed may be lost.
    Data,
}

/// The zones of all devices. Sectors in none are never torn.
#[derive(Clone, Debug, Default)]
pub struct Zones(Vec<(u8, Range<u32>, Zone)>);

impl Zones {
    /// Declares sectors of a device.
    #[must_use]
    pub fn with(mut self, device: u8, sectors: Range<u32>, zone: Zone) -> Zones {
        self.0.push((device, sectors, zone));
        self
    }

    /// What a sector is for.
    #[must_use]
    pub fn of(&self, device: u8, sector: u32) -> Option<Zone> {
        let mut zones = self.0.iter();
        let found = zones.find(|(on, sectors, _)| *on == device && sectors.contains(&sector));
        found.map(|(_, _, zone)| *zone)
    }
}
