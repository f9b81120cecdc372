//! The set of states that a power loss may leave, and a walk through it.
//!
//! A [`Space`] is a product: every atomic unit with pending contents may hold any of them,
//! independently of the others. If the product is small enough all of it is visited; otherwise a
//! selection that has caught real bugs: every prefix, every single and pair loss, every single
//! survivor, every per-region split, and a seeded random sample.
//!
//! Beyond the contract lie the tear models: [`Tear::Cut`] also tears *inside* a unit. Only units
//! that protect themselves (metadata under a CRC) can be asked to survive that, so it applies to
//! the sectors declared by [`Space::tearable`] alone.

mod select;
mod tear;

use core::ops::Range;

use crate::sector::{SectorId, SharedSectors, mix};
use tear::tear_into;

/// What a power loss does to a unit that was being written, beyond "old or new".
///
/// Not offered yet: neighbours lost with a shorn 4 KiB block (T4; declare a larger atomic unit
/// instead) and units that read old or new at each read until rewritten (T5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
#[non_exhaustive]
pub enum Tear {
    /// T0: units are atomic, as the contract promises.
    #[default]
    None,
    /// T1: one metadata unit is part new and part old, cut at every eighth byte, both ways round.
    Cut,
    /// T2: one metadata unit can not be read.
    Unreadable,
    /// T3: one metadata unit holds random bytes.
    Garbage,
}

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

/// One outcome of a power loss: a digit per unit, 0 for "nothing pending survived", and perhaps a
/// torn unit.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Outcome {
    /// Per unit the alternative that survived.
    pub digits: Vec<u16>,
    /// The torn unit, as its index and the cut: `cut` words of 8 bytes new, the rest old; or, from
    /// 64 words per sector on, the other way round.
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
    tearable: Vec<(u8, Range<u32>)>,
    expendable: Vec<(u8, Range<u32>)>,
}

impl Space {
    /// A space of no devices.
    #[must_use]
    pub fn new() -> Space {
        Space::default()
    }

    /// Starts over; borders and tearable ranges stay.
    pub fn clear(&mut self) {
        self.spare
            .extend(self.stable.drain(..).map(|(_, image)| image));
        self.units.clear();
        self.contents.clear();
        self.sizes.clear();
        self.events.clear();
    }

    /// Declares the sectors at which regions of a device begin, for per-region splits.
    pub fn regions(&mut self, device: u8, borders: &[u32]) {
        self.borders.push((device, borders.to_vec()));
    }

    /// Declares sectors whose contents protect themselves, so that tears may be tried on them.
    pub fn tearable(&mut self, device: u8, sectors: Range<u32>) {
        self.tearable.push((device, sectors));
    }

    /// Declares sectors whose loss while they are written must be survived: for [`Tear::Garbage`] and
    /// [`Tear::Unreadable`].
    pub fn expendable(&mut self, device: u8, sectors: Range<u32>) {
        self.expendable.push((device, sectors));
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
            match outcome.torn {
                Some((torn, cut)) if torn as usize == index => {
                    tear_into(tear, target, content, cut, sectors);
                }
                _ => target.copy_from_slice(content),
            }
        }
        image.truncate(size);
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
        let Some((index, cut)) = outcome.torn else {
            return 0;
        };
        let unit = &self.units[index as usize];
        let (first, len) = (unit.first as usize, usize::from(unit.len));
        let mut torn = self.stable_of(unit.device)[first..first + len].to_vec();
        if let Some(content) = self.content(unit, outcome.digits[index as usize]) {
            tear_into(tear, &mut torn, content, cut, sectors);
        }
        let sectors = sectors.borrow();
        torn.iter().zip(first..).fold(1, |hash, (id, sector)| {
            hash ^ mix(place(unit.device, sector), sectors.hash(*id))
        })
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
        hash
    }
}

fn place(device: u8, sector: usize) -> u64 {
    u64::from(device) << 56 | sector as u64
}
