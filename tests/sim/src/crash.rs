//! The set of states that a power loss may leave, and a walk through it.
//!
//! A [`Space`] is a product: every atomic unit with pending contents may hold any of them,
//! independently of the others. If the product is small enough all of it is visited; otherwise a
//! selection that has caught real bugs: every prefix, every single and pair loss, every single
//! survivor, every per-region split, and a seeded random sample.
//!
//! Beyond the contract lie the tear models, [`Tear`]. What each may do to a unit that was being
//! written depends on what the unit is for, its [`Zone`].

mod select;
mod tear;
mod zone;

use crate::medium::Metastable;
use crate::sector::{SectorId, SharedSectors, mix};
pub use tear::Tear;
use tear::tear_into;
pub use zone::{Zone, Zones};

#[derive(Clone, Copy, Debug)]
struct Unit {
    device: u8,
    /// Sectors, or 0 if this is the device's size.
    len: u16,
    /// Alternatives, the stable content included.
    count: u16,
    /// Newest alternative.
    newest: u16,
    first: u32,
    /// `contents[at..]`: the alternatives 1.. one after the other; or `sizes[at..]`, all of them.
    at: u32,
}

/// How the product is cut down when it is too large.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Bound {
    /// Largest product that is visited whole.
    pub product_max: u64,
    /// Pair losses when it is larger: all of them, or this many at random.
    pub pairs_max: u32,
    /// Random outcomes when it is larger.
    pub random_count: u32,
    /// Seed of the random outcomes.
    pub seed: u64,
}

impl Default for Bound {
    fn default() -> Bound {
        Bound {
            product_max: 1 << 12,
            pairs_max: u32::MAX,
            random_count: 4096,
            seed: 1,
        }
    }
}

/// Instead of the index of a torn unit: every unit of which something new survived is torn.
pub const ALL_UNITS: u32 = u32::MAX;

/// One outcome of a power loss: a digit per unit, 0 for "nothing pending survived", and perhaps a
/// torn unit.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Per unit the alternative that survived.
    pub digits: Vec<u16>,
    /// The torn unit, as its index or [`ALL_UNITS`], and how it is torn: a number below
    /// [`Tear::ways`].
    pub torn: Option<(u32, u32)>,
}

impl Outcome {
    /// The same without trailing zeros: as it is printed.
    #[must_use]
    pub fn trimmed(&self) -> Outcome {
        let end = self.digits.iter().rposition(|digit| *digit != 0);
        Outcome {
            digits: self.digits[..end.map_or(0, |at| at + 1)].to_vec(),
            torn: self.torn,
        }
    }
}

/// All outcomes of a power loss at one moment.
#[derive(Default)]
pub struct Space {
    stable: Vec<(u8, Vec<SectorId>)>,
    spare: Vec<Vec<SectorId>>,
    units: Vec<Unit>,
    contents: Vec<SectorId>,
    sizes: Vec<usize>,
    /// (when, unit, digit) of every pending content, for prefixes.
    events: Vec<(u32, u32, u16)>,
    /// Per device, where one region ends and the next begins.
    borders: Vec<(u8, Vec<u32>)>,
    zones: Zones,
    /// Units that an earlier power loss left metastable, and that nothing pending replaces.
    metastable: Vec<(u8, Metastable)>,
}

impl Space {
    /// A space of no devices.
    #[must_use]
    pub fn new() -> Space {
        Space::default()
    }

    /// Starts over; borders and zones stay.
    pub fn clear(&mut self) {
        self.spare
            .extend(self.stable.drain(..).map(|(_, image)| image));
        self.units.clear();
        self.contents.clear();
        self.sizes.clear();
        self.events.clear();
        self.metastable.clear();
    }

    /// Declares the sectors at which regions of a device begin, for per-region splits.
    pub fn regions(&mut self, device: u8, borders: &[u32]) {
        self.borders.push((device, borders.to_vec()));
    }

    /// Declares what sectors are for, so that tears may be tried on them.
    pub fn zones(&mut self, zones: &Zones) {
        self.zones = zones.clone();
    }

    /// Adds a unit that reads one thing or another until something pending replaces it.
    pub fn add_metastable(&mut self, device: u8, unit: &Metastable) {
        self.metastable.push((device, unit.clone()));
    }

    /// Adds a device that surely holds `stable`.
    pub fn add_device(&mut self, device: u8, stable: &[SectorId]) {
        let mut image = self.spare.pop().unwrap_or_default();
        image.clear();
        image.extend_from_slice(stable);
        self.stable.push((device, image));
    }

    fn stable_of(&self, device: u8) -> &[SectorId] {
        let found = self.stable.iter().find(|(index, _)| *index == device);
        found.map_or(&[], |(_, image)| image)
    }

    /// Adds a content that the unit starting at sector `first` may hold instead.
    pub fn add_content(&mut self, device: u8, first: usize, content: &[SectorId], when: u32) {
        let key =
            |unit: &Unit| unit.device == device && unit.first as usize == first && unit.len > 0;
        let found = self.units.iter().position(key);
        let is_stable = self.stable_of(device)[first..].starts_with(content);
        let index = match found {
            Some(index) => index,
            None if is_stable => return,
            None => {
                self.units.push(Unit {
                    device,
                    len: content.len() as u16,
                    count: 1,
                    newest: 0,
                    first: first as u32,
                    at: self.contents.len() as u32,
                });
                self.units.len() - 1
            }
        };
        let digit = if is_stable {
            0
        } else {
            self.digit_for(index, content)
        };
        self.units[index].newest = digit;
        self.events.push((when, index as u32, digit));
    }

    /// The digit of a content of a unit, which is added if it is new.
    fn digit_for(&mut self, index: usize, content: &[SectorId]) -> u16 {
        let unit = self.units[index];
        let (at, len) = (unit.at as usize, usize::from(unit.len));
        let known = &self.contents[at..at + len * (usize::from(unit.count) - 1)];
        if let Some(found) = known.chunks_exact(len).position(|known| known == content) {
            return found as u16 + 1;
        }
        let end = at + known.len();
        if end != self.contents.len() {
            // Other units came in between: move this unit's alternatives to the end.
            let moved = known.to_vec();
            self.units[index].at = self.contents.len() as u32;
            self.contents.extend_from_slice(&moved);
        }
        self.contents.extend_from_slice(content);
        self.units[index].count += 1;
        self.units[index].count - 1
    }

    /// Adds the sizes, in sectors, that a growing device may have: `least`, or one of `others`, the
    /// last of which is the newest.
    pub fn add_sizes(&mut self, device: u8, least: usize, others: impl Iterator<Item = usize>) {
        let at = self.sizes.len();
        self.sizes.push(least);
        self.sizes.extend(others);
        let count = (self.sizes.len() - at) as u16;
        self.units.push(Unit {
            device,
            len: 0,
            count,
            newest: count - 1,
            first: 0,
            at: at as u32,
        });
    }

    fn size_of(&self, unit: &Unit, digit: u16) -> usize {
        let index = unit.at as usize + usize::from(digit);
        self.sizes.get(index).copied().unwrap_or(0)
    }

    /// Writes the image of device `device` after `outcome` into `image`.
    pub fn image(
        &self,
        device: u8,
        outcome: &Outcome,
        tear: Tear,
        sectors: &SharedSectors,
        image: &mut Vec<SectorId>,
    ) {
        image.clear();
        image.extend_from_slice(self.stable_of(device));
        let mut size = image.len();
        for (index, unit) in self.units.iter().enumerate() {
            if unit.device != device {
                continue;
            }
            let digit = outcome.digits.get(index).copied().unwrap_or(0);
            if unit.len == 0 {
                size = self.size_of(unit, digit);
                continue;
            }
            let Some(content) = self.content(unit, digit) else {
                continue;
            };
            let (first, len) = (unit.first as usize, usize::from(unit.len));
            let target = &mut image[first..first + len];
            match self.way_torn(index, outcome, tear) {
                Some(way) => tear_into(tear, target, content, way, sectors),
                None => target.copy_from_slice(content),
            }
        }
        image.truncate(size);
    }

    /// How the unit at `index` is torn, if it is.
    fn way_torn(&self, index: usize, outcome: &Outcome, tear: Tear) -> Option<u32> {
        let (torn, way) = outcome.torn?;
        let unit = self.units.get(index)?;
        let survived = outcome.digits.get(index).is_some_and(|digit| *digit != 0);
        let own = torn as usize == index;
        (survived && (own || (torn == ALL_UNITS && self.ways(unit, tear) != 0))).then_some(way)
    }

    /// What reads one thing or another on device `device` after `outcome`.
    pub fn metastable(&self, device: u8, outcome: &Outcome, tear: Tear) -> Vec<Metastable> {
        let digit = |index: usize| outcome.digits.get(index).copied().unwrap_or(0);
        let own = |unit: &Unit| unit.device == device && unit.len > 0;
        let units = || self.units.iter().enumerate().filter(|(_, unit)| own(unit));
        let kept = self.metastable.iter().filter(|(on, entry)| {
            let replaced =
                |(index, unit): (usize, &Unit)| unit.first == entry.first && digit(index) != 0;
            *on == device && !units().any(replaced)
        });
        let mut all: Vec<Metastable> = kept.map(|(_, entry)| entry.clone()).collect();
        if tear == Tear::Metastable {
            all.extend(units().filter_map(|(index, unit)| {
                let way = self.way_torn(index, outcome, tear)?;
                let other = self.content(unit, digit(index))?;
                Some(Metastable::new(unit.first, other, way))
            }));
        }
        all
    }

    /// Whether the outcome may have lost something that exists once.
    #[must_use]
    pub fn loses_a_page(&self, outcome: &Outcome, tear: Tear) -> bool {
        self.units.iter().enumerate().any(|(index, unit)| {
            let way = self.way_torn(index, outcome, tear);
            self.zone(unit) == Some(Zone::Page) && way.is_some_and(|way| tear.loses(way, unit.len))
        })
    }

    fn content(&self, unit: &Unit, digit: u16) -> Option<&[SectorId]> {
        let len = usize::from(unit.len);
        let at = unit.at as usize + len * usize::from(digit.checked_sub(1)?);
        self.contents.get(at..at + len)
    }

    /// A hash of the images that an outcome without a tear leads to, the same in every run.
    #[must_use]
    pub fn hash(&self, base: u64, outcome: &Outcome, sectors: &SharedSectors) -> u64 {
        let sectors = sectors.borrow();
        let mut hash = base;
        for (unit, digit) in self.units.iter().zip(&outcome.digits) {
            if unit.len == 0 {
                let size = self.size_of(unit, *digit) as u64;
                hash ^= mix(u64::from(unit.device) << 56 | 0xFF, size);
                continue;
            }
            let Some(content) = self.content(unit, *digit) else {
                continue;
            };
            let stable = &self.stable_of(unit.device)[unit.first as usize..];
            for (offset, (new, old)) in content.iter().zip(stable).enumerate() {
                let place = place(unit.device, unit.first as usize + offset);
                hash ^= mix(place, sectors.hash(*old)) ^ mix(place, sectors.hash(*new));
            }
        }
        hash
    }

    /// A hash of the torn unit of an outcome, to be mixed with [`Space::hash`].
    #[must_use]
    pub fn torn_hash(&self, outcome: &Outcome, tear: Tear, sectors: &SharedSectors) -> u64 {
        let mut hash = 1;
        for (index, unit) in self.units.iter().enumerate() {
            let digit = outcome.digits.get(index).copied().unwrap_or(0);
            let way = self.way_torn(index, outcome, tear);
            let (Some(way), Some(content)) = (way, self.content(unit, digit)) else {
                continue;
            };
            let (first, len) = (unit.first as usize, usize::from(unit.len));
            let mut torn = self.stable_of(unit.device)[first..first + len].to_vec();
            tear_into(tear, &mut torn, content, way, sectors);
            if tear == Tear::Metastable {
                hash = mix(hash, u64::from(way));
            }
            let sectors = sectors.borrow();
            for (id, sector) in torn.iter().zip(first..) {
                hash ^= mix(place(unit.device, sector), sectors.hash(*id));
            }
        }
        hash
    }

    /// The hash of the stable images: the `base` of [`Space::hash`].
    #[must_use]
    pub fn stable_hash(&self, sectors: &SharedSectors) -> u64 {
        let sectors = sectors.borrow();
        let mut hash = 0;
        for (device, image) in &self.stable {
            for (sector, id) in image.iter().enumerate() {
                hash ^= mix(place(*device, sector), sectors.hash(*id));
            }
        }
        for (device, entry) in &self.metastable {
            hash = mix(hash, u64::from(*device) ^ entry.hash(&sectors));
        }
        hash
    }
}

fn place(device: u8, sector: usize) -> u64 {
    u64::from(device) << 56 | sector as u64
}
