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

use core::ops::{ControlFlow, Range};

use crate::choices::Prng;
use crate::sector::{SECTOR, SectorId, SharedSectors, mix};

/// What a power loss does to a unit that was being written, beyond "old or new".
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bound {
    /// Largest product that is visited whole.
    pub product_max: u64,
    /// Random outcomes when it is larger.
    pub random_count: u32,
    /// Seed of the random outcomes.
    pub seed: u64,
}

impl Default for Bound {
    fn default() -> Bound {
        Bound {
            product_max: 1 << 12,
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

    /// Outcomes in the whole product; saturates.
    #[must_use]
    pub fn product(&self) -> u64 {
        let counts = self.units.iter().map(|unit| u64::from(unit.count));
        counts.fold(1, u64::saturating_mul)
    }

    /// Units with more than one possible content.
    #[must_use]
    pub fn unit_count(&self) -> usize {
        self.units.len()
    }

    /// Calls `visit` with every outcome, or with a selection where there are too many. An outcome
    /// may come twice; [`Space::hash`] tells.
    pub fn visit(
        &self,
        bound: Bound,
        tear: Tear,
        visit: &mut dyn FnMut(&Outcome) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut outcome = Outcome {
            digits: vec![0; self.units.len()],
            torn: None,
        };
        if self.product() <= bound.product_max {
            loop {
                visit(&outcome)?;
                if !self.advance(&mut outcome.digits) {
                    break;
                }
            }
        } else {
            self.select(bound, &mut outcome, visit)?;
        }
        if tear != Tear::None {
            self.tears(tear, bound, &mut outcome, visit)?;
        }
        ControlFlow::Continue(())
    }

    fn advance(&self, digits: &mut [u16]) -> bool {
        for (digit, unit) in digits.iter_mut().zip(&self.units) {
            *digit += 1;
            if *digit < unit.count {
                return true;
            }
            *digit = 0;
        }
        false
    }

    fn set_all(&self, digits: &mut [u16], survives: impl Fn(usize, &Unit) -> bool) {
        for (index, unit) in self.units.iter().enumerate() {
            digits[index] = if survives(index, unit) {
                unit.newest
            } else {
                0
            };
        }
    }

    fn select(
        &self,
        bound: Bound,
        outcome: &mut Outcome,
        visit: &mut dyn FnMut(&Outcome) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        // Every prefix, in the order in which the contents reached the cache.
        let mut events = self.events.clone();
        events.sort_by_key(|event| event.0);
        self.set_all(&mut outcome.digits, |_, _| false);
        visit(outcome)?;
        for (_, unit, digit) in events {
            outcome.digits[unit as usize] = digit;
            visit(outcome)?;
        }
        // Every single survivor, every single loss, every pair loss.
        for one in 0..self.units.len() {
            self.set_all(&mut outcome.digits, |index, _| index == one);
            visit(outcome)?;
            for other in one..self.units.len() {
                self.set_all(&mut outcome.digits, |index, _| {
                    index != one && index != other
                });
                visit(outcome)?;
            }
        }
        // Every region alone, and all but it.
        for region in 0..self.region_count() {
            for alone in [true, false] {
                self.set_all(&mut outcome.digits, |_, unit| {
                    (self.region_of(unit) == region) == alone
                });
                visit(outcome)?;
            }
        }
        let mut prng = Prng::new(bound.seed);
        for _ in 0..bound.random_count {
            for (digit, unit) in outcome.digits.iter_mut().zip(&self.units) {
                *digit = prng.below(u64::from(unit.count)) as u16;
            }
            visit(outcome)?;
        }
        ControlFlow::Continue(())
    }

    fn region_count(&self) -> usize {
        self.borders
            .iter()
            .map(|(_, borders)| borders.len() + 1)
            .sum::<usize>()
            .max(1)
    }

    fn region_of(&self, unit: &Unit) -> usize {
        let mut base = 0;
        for (device, borders) in &self.borders {
            if *device == unit.device {
                return base
                    + borders
                        .iter()
                        .filter(|border| **border <= unit.first)
                        .count();
            }
            base += borders.len() + 1;
        }
        base
    }

    fn is_tearable(&self, unit: &Unit, tear: Tear) -> bool {
        let list = if tear == Tear::Cut {
            &self.tearable
        } else {
            &self.expendable
        };
        unit.len > 0
            && list
                .iter()
                .any(|(device, range)| *device == unit.device && range.contains(&unit.first))
    }

    /// Tears one unit at a time, while the others are all old, all new, or mixed at random.
    fn tears(
        &self,
        tear: Tear,
        bound: Bound,
        outcome: &mut Outcome,
        visit: &mut dyn FnMut(&Outcome) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut prng = Prng::new(bound.seed ^ 0x7EA2);
        for (torn, unit) in self.units.iter().enumerate() {
            if !self.is_tearable(unit, tear) {
                continue;
            }
            let words = u32::from(unit.len) * (SECTOR as u32 / 8);
            let cuts = match tear {
                Tear::Cut => 1..2 * words,
                Tear::None => 0..0,
                Tear::Unreadable | Tear::Garbage => 0..1,
            };
            for background in 0..3 {
                match background {
                    0 => self.set_all(&mut outcome.digits, |_, _| false),
                    1 => self.set_all(&mut outcome.digits, |_, _| true),
                    _ => {
                        for (digit, unit) in outcome.digits.iter_mut().zip(&self.units) {
                            *digit = prng.below(u64::from(unit.count)) as u16;
                        }
                    }
                }
                for digit in 1..unit.count {
                    outcome.digits[torn] = digit;
                    for cut in cuts.clone().filter(|cut| *cut != words) {
                        outcome.torn = Some((torn as u32, cut));
                        visit(outcome)?;
                    }
                }
                outcome.torn = None;
            }
        }
        ControlFlow::Continue(())
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

/// Replaces `target` (old) by a torn mixture with `new`.
fn tear_into(
    tear: Tear,
    target: &mut [SectorId],
    new: &[SectorId],
    cut: u32,
    sectors: &SharedSectors,
) {
    let words = target.len() as u32 * (SECTOR as u32 / 8);
    let (cut, new_first) = if cut > words {
        (cut - words, false)
    } else {
        (cut, true)
    };
    for (index, (old, new)) in target.iter_mut().zip(new).enumerate() {
        match tear {
            Tear::None => *old = *new,
            Tear::Unreadable => *old = SectorId::UNREADABLE,
            Tear::Garbage => {
                let mut bytes = [0; SECTOR];
                let mut prng = Prng::new(sectors.borrow().hash(*new));
                bytes.chunks_exact_mut(8).for_each(|slot| {
                    slot.copy_from_slice(&prng.next_word().to_le_bytes());
                });
                *old = sectors.borrow_mut().intern(&bytes).0;
            }
            Tear::Cut => {
                let at = (cut as usize * 8)
                    .saturating_sub(index * SECTOR)
                    .min(SECTOR);
                *old = splice(*old, *new, at, new_first, sectors);
            }
        }
    }
}

fn splice(
    old: SectorId,
    new: SectorId,
    at: usize,
    new_first: bool,
    sectors: &SharedSectors,
) -> SectorId {
    let mut store = sectors.borrow_mut();
    let (Some(old), Some(new)) = (store.get(old), store.get(new)) else {
        return new;
    };
    let (head, tail) = if new_first { (new, old) } else { (old, new) };
    let mut bytes = *tail;
    bytes[..at].copy_from_slice(&head[..at]);
    store.intern(&bytes).0
}
