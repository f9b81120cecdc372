//! What a device holds, and what of it would survive a power loss now.
//!
//! This file is the power-loss contract of `fvd::device`, as data. Per atomic unit there is one
//! *stable* content and a list of *pending* ones, in the order in which they reached the cache;
//! after a power loss the unit holds the stable content or any pending one. Readers see the last.
//!
//! Invariants:
//! 1. `visible` of a unit is its last pending content, or the stable one if it has none.
//! 2. A flush makes stable what had completed when the flush was **submitted** ([`Medium::cut`]),
//!    and forgets only what is older than that. What completed in between stays pending.
//! 3. Contents that a failed flush should have covered never become stable by a later flush: the
//!    cache may have dropped them (the fsync-error lesson). Only a new write helps, or a reset of the
//!    device, which decides what is lost ([`Medium::reset`]).
//! 4. A unit that power loss left metastable (tear model T5) stays so until a write to it is durable.
//!    Its stable content is the old one; only [`Medium::read`] shows the other.

mod metastable;

use crate::crash::Space;
use crate::sector::{SectorId, SharedSectors, mix};

pub use metastable::Metastable;

/// Old contents that a pending discard may bring back, at most, per unit.
const HISTORY_MAX: usize = 2;

#[derive(Clone, Copy)]
struct Pending {
    unit: u32,
    /// Which completion put it there, counted from 1.
    at: u32,
    /// Its contents: `contents[content..content + unit_sectors]`.
    content: u32,
    /// A failed flush was to cover it.
    lost: bool,
}

/// The storage behind a [`SimDisk`](crate::disk::SimDisk).
#[derive(Clone)]
pub struct Medium {
    unit_sectors: usize,
    visible: Vec<SectorId>,
    stable: Vec<SectorId>,
    pending: Vec<Pending>,
    contents: Vec<SectorId>,
    clock: u32,
    /// Sectors that surely exist after a power loss.
    stable_len: usize,
    /// (sectors, completion) of growth that no flush has covered.
    growths: Vec<(usize, u32)>,
    /// Displaced stable contents of units; kept only for devices that discard.
    history: Option<Vec<(u32, SectorId)>>,
    settled: Vec<u32>,
    metastable: Vec<Metastable>,
}

impl Medium {
    /// A medium that holds `image`, all of it stable. `atomic_sectors` is a power of two.
    #[must_use]
    pub fn new(image: Vec<SectorId>, atomic_sectors: usize, discards: bool) -> Medium {
        Medium {
            unit_sectors: atomic_sectors.max(1),
            stable_len: image.len(),
            visible: image.clone(),
            stable: image,
            pending: Vec::new(),
            contents: Vec::new(),
            clock: 0,
            growths: Vec::new(),
            history: discards.then(Vec::new),
            settled: Vec::new(),
            metastable: Vec::new(),
        }
    }

    /// Replaces everything by `image`, stable but for the units in `metastable`: what a disk is after
    /// the power came back.
    pub fn load(&mut self, image: &[SectorId], metastable: Vec<Metastable>) {
        self.metastable = metastable;
        self.visible.clear();
        self.visible.extend_from_slice(image);
        self.stable.clear();
        self.stable.extend_from_slice(image);
        self.pending.clear();
        self.contents.clear();
        self.growths.clear();
        if let Some(history) = &mut self.history {
            history.clear();
        }
        self.stable_len = image.len();
        self.clock = 0;
    }

    /// A read of `count` sectors; `see` gets each of them with its index.
    pub fn read(&mut self, first: usize, count: usize, mut see: impl FnMut(usize, SectorId)) {
        for (index, id) in self.visible[first..first + count].iter().enumerate() {
            see(index, *id);
        }
        let (end, pending) = (first + count, &self.pending);
        for entry in &mut self.metastable {
            let start = entry.first as usize;
            let unit = start / self.unit_sectors;
            let touched = start < end && start + self.unit_sectors > first;
            if !touched || pending.iter().any(|write| write.unit as usize == unit) {
                continue;
            }
            let other = entry.read().into_iter().flatten();
            for (sector, id) in (start..).zip(other) {
                if (first..end).contains(&sector) {
                    see(sector - first, *id);
                }
            }
        }
    }

    /// What readers see, sector by sector, metastable units apart.
    #[must_use]
    pub fn visible(&self) -> &[SectorId] {
        &self.visible
    }

    /// Sectors.
    #[must_use]
    pub fn len(&self) -> usize {
        self.visible.len()
    }

    /// Whether the medium has no sectors.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.visible.is_empty()
    }

    /// Sectors in an atomic unit.
    #[must_use]
    pub fn unit_sectors(&self) -> usize {
        self.unit_sectors
    }

    /// Where a flush that is submitted now draws the line.
    #[must_use]
    pub fn cut(&self) -> u32 {
        self.clock
    }

    /// Whether a power loss could lose anything.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.pending.is_empty() && self.growths.is_empty()
    }

    /// A write completes: its sectors are in the cache, and on the medium if `durable`.
    pub fn write(&mut self, first: usize, ids: &[SectorId], durable: bool) {
        self.clock += 1;
        if self.unit_sectors == 1 && !durable {
            return self.write_sectors(first, ids);
        }
        for unit in self.units(first, ids.len()) {
            let before = self.unit(unit, &self.visible).to_vec();
            for (sector, id) in (first..).zip(ids) {
                if sector / self.unit_sectors == unit {
                    self.visible[sector] = *id;
                }
            }
            if durable {
                self.settle(unit);
            } else if self.unit(unit, &self.visible) != before || self.is_unsure(unit) {
                self.push_visible(unit);
            }
        }
    }

    /// [`Medium::write`] for the common case, without copies of units.
    fn write_sectors(&mut self, first: usize, ids: &[SectorId]) {
        for (sector, id) in (first..).zip(ids) {
            if self.visible[sector] != *id || self.is_unsure(sector) {
                self.visible[sector] = *id;
                self.push_visible(sector);
            }
        }
    }

    /// A write fails: each unit is old or new, now as `landed` says, and either after power loss.
    pub fn write_failed(&mut self, first: usize, ids: &[SectorId], landed: impl Fn(usize) -> bool) {
        self.clock += 1;
        for unit in self.units(first, ids.len()) {
            let old = self.unit(unit, &self.visible).to_vec();
            let mut new = old.clone();
            let start = unit * self.unit_sectors;
            for (sector, id) in (first..).zip(ids) {
                if sector / self.unit_sectors == unit {
                    new[sector - start] = *id;
                }
            }
            let (other, now) = if landed(unit) { (old, new) } else { (new, old) };
            self.push(unit, &other);
            self.visible[start..start + now.len()].copy_from_slice(&now);
            self.push_visible(unit);
        }
    }

    /// A discard completes. The range reads zeros now if `zeroes`, else what it read before; until
    /// a flush it may also come back as anything it held earlier.
    pub fn discard(&mut self, first: usize, count: usize, zeroes: bool) {
        self.clock += 1;
        for unit in self.units(first, count) {
            for old in self.held_before(unit) {
                let start = unit * self.unit_sectors;
                let mut content = self.unit(unit, &self.visible).to_vec();
                for (offset, id) in content.iter_mut().enumerate() {
                    if (first..first + count).contains(&(start + offset)) {
                        *id = old;
                    }
                }
                self.push(unit, &content);
            }
            let start = unit * self.unit_sectors;
            let end = (start + self.unit_sectors).min(first + count);
            if zeroes {
                self.visible[start.max(first)..end].fill(SectorId::ZERO);
            }
            self.push_visible(unit);
        }
    }

    /// A flush completes that was submitted when [`Medium::cut`] was `cut`.
    pub fn flush(&mut self, cut: u32) {
        let mut settled = core::mem::take(&mut self.settled);
        settled.clear();
        for index in (0..self.pending.len()).rev() {
            let entry = self.pending[index];
            if entry.at > cut || (entry.lost && !settled.contains(&entry.unit)) {
                continue;
            }
            if !settled.contains(&entry.unit) {
                settled.push(entry.unit);
                let content = entry.content as usize;
                self.set_stable(entry.unit as usize, content);
                self.forget_metastable(entry.unit as usize);
            }
            self.pending.remove(index);
        }
        self.settled = settled;
        if self.pending.is_empty() {
            self.contents.clear();
        }
        let covered = self.growths.iter().filter(|growth| growth.1 <= cut);
        self.stable_len = covered
            .map(|growth| growth.0)
            .fold(self.stable_len, usize::max);
        self.growths.retain(|growth| growth.1 > cut);
    }

    /// A flush fails: what it was to cover may be lost, whatever later flushes say.
    pub fn flush_failed(&mut self) {
        for entry in &mut self.pending {
            entry.lost = true;
        }
    }

    /// The device is reset after a failed flush. Of what that flush was to cover, units for which
    /// `kept(unit)` holds are still in the cache, and the others are as they last were for sure.
    pub fn reset(&mut self, kept: impl Fn(usize) -> bool) {
        for index in (0..self.pending.len()).rev() {
            let entry = self.pending[index];
            if !entry.lost {
                continue;
            }
            if kept(entry.unit as usize) {
                self.pending[index].lost = false;
            } else {
                self.pending.remove(index);
            }
        }
        for unit in 0..self.visible.len().div_ceil(self.unit_sectors) {
            let start = unit * self.unit_sectors;
            let end = start + self.unit_len(unit);
            let newest = self
                .pending
                .iter()
                .rfind(|entry| entry.unit as usize == unit);
            match newest.map(|entry| entry.content as usize) {
                Some(at) => {
                    let content = &self.contents[at..at + end - start];
                    self.visible[start..end].copy_from_slice(content);
                }
                None => self.visible[start..end].copy_from_slice(&self.stable[start..end]),
            }
        }
    }

    /// A growth completes; `fill(sector)` says what the new sectors hold.
    pub fn grow(&mut self, len: usize, fill: impl Fn(usize) -> SectorId) {
        self.clock += 1;
        while self.visible.len() < len {
            let id = fill(self.visible.len());
            self.visible.push(id);
            self.stable.push(id);
        }
        self.growths.push((self.visible.len(), self.clock));
    }

    /// Adds this medium, as device `device`, to the outcomes that a power loss may have.
    pub fn add_to(&self, device: u8, space: &mut Space) {
        space.add_device(device, &self.stable);
        for entry in &self.metastable {
            space.add_metastable(device, entry);
        }
        for entry in &self.pending {
            let start = entry.content as usize;
            let end = start + self.unit_len(entry.unit as usize);
            let first = entry.unit as usize * self.unit_sectors;
            space.add_content(device, first, &self.contents[start..end], entry.at);
        }
        if !self.growths.is_empty() {
            let sizes = self.growths.iter().map(|growth| growth.0);
            space.add_sizes(device, self.stable_len, sizes);
        }
    }

    /// Adds what a write that is in flight may have done already.
    pub fn add_in_flight(&self, device: u8, first: usize, ids: &[SectorId], space: &mut Space) {
        for unit in self.units(first, ids.len()) {
            let start = unit * self.unit_sectors;
            if self.unit_sectors == 1 {
                space.add_content(device, start, &ids[start - first..=start - first], u32::MAX);
                continue;
            }
            let mut content = self.unit(unit, &self.visible).to_vec();
            for (sector, id) in (first..).zip(ids) {
                if sector / self.unit_sectors == unit {
                    content[sector - start] = *id;
                }
            }
            space.add_content(device, start, &content, u32::MAX);
        }
    }

    /// Adds what a discard that is in flight may have done already.
    pub fn add_discard(&self, device: u8, first: usize, count: usize, space: &mut Space) {
        for unit in self.units(first, count) {
            for old in self.held_before(unit).into_iter().chain([SectorId::ZERO]) {
                let start = unit * self.unit_sectors;
                let mut content = self.unit(unit, &self.visible).to_vec();
                for (offset, id) in content.iter_mut().enumerate() {
                    if (first..first + count).contains(&(start + offset)) {
                        *id = old;
                    }
                }
                space.add_content(device, start, &content, u32::MAX);
            }
        }
    }

    /// A hash of all that matters for what can happen next, the same in every run.
    #[must_use]
    pub fn hash(&self, sectors: &SharedSectors) -> u64 {
        let sectors = sectors.borrow();
        let mut hash = self.stable_len as u64;
        for (index, id) in self.stable.iter().enumerate() {
            hash ^= mix(index as u64, sectors.hash(*id));
        }
        for entry in &self.pending {
            let id = self.contents[entry.content as usize];
            let place = u64::from(entry.unit) << 1 | u64::from(entry.lost);
            hash = mix(hash ^ place, sectors.hash(id));
        }
        for entry in &self.metastable {
            hash = mix(hash, entry.hash(&sectors));
        }
        hash
    }

    fn units(&self, first: usize, count: usize) -> core::ops::Range<usize> {
        let end = (first + count).div_ceil(self.unit_sectors);
        first / self.unit_sectors..if count == 0 {
            first / self.unit_sectors
        } else {
            end
        }
    }

    /// Sectors of a unit; the last one of a medium may be short.
    fn unit_len(&self, unit: usize) -> usize {
        let start = unit * self.unit_sectors;
        self.unit_sectors
            .min(self.visible.len().saturating_sub(start))
    }

    fn unit<'a>(&self, unit: usize, image: &'a [SectorId]) -> &'a [SectorId] {
        let start = unit * self.unit_sectors;
        &image[start..start + self.unit_len(unit)]
    }

    fn is_pending(&self, unit: usize) -> bool {
        self.pending.iter().any(|entry| entry.unit as usize == unit)
    }

    /// Whether a write of what the unit seems to hold makes a difference.
    fn is_unsure(&self, unit: usize) -> bool {
        let is_own = |entry: &Metastable| entry.first as usize / self.unit_sectors == unit;
        self.is_pending(unit) || self.metastable.iter().any(is_own)
    }

    fn forget_metastable(&mut self, unit: usize) {
        let unit_sectors = self.unit_sectors;
        self.metastable
            .retain(|entry| entry.first as usize / unit_sectors != unit);
    }

    fn push(&mut self, unit: usize, content: &[SectorId]) {
        let at = self.contents.len() as u32;
        self.contents.extend_from_slice(content);
        self.pending.push(Pending {
            unit: unit as u32,
            at: self.clock,
            content: at,
            lost: false,
        });
    }

    fn push_visible(&mut self, unit: usize) {
        let start = unit * self.unit_sectors;
        let at = self.contents.len() as u32;
        let end = start + self.unit_len(unit);
        self.contents.extend_from_slice(&self.visible[start..end]);
        self.pending.push(Pending {
            unit: unit as u32,
            at: self.clock,
            content: at,
            lost: false,
        });
    }

    /// Makes the visible content of a unit the stable one; forgets the pending ones.
    fn settle(&mut self, unit: usize) {
        let at = self.contents.len();
        let start = unit * self.unit_sectors;
        let end = start + self.unit_len(unit);
        self.contents.extend_from_slice(&self.visible[start..end]);
        self.set_stable(unit, at);
        self.contents.truncate(at);
        self.pending.retain(|entry| entry.unit as usize != unit);
        self.forget_metastable(unit);
    }

    fn set_stable(&mut self, unit: usize, content: usize) {
        let start = unit * self.unit_sectors;
        for offset in 0..self.unit_len(unit) {
            let (old, new) = (self.stable[start + offset], self.contents[content + offset]);
            if let (Some(history), true) = (&mut self.history, old != new) {
                history.push((unit as u32, old));
            }
            self.stable[start + offset] = new;
        }
    }

    /// What a unit held before its stable content, newest first. For units of several sectors this
    /// names sector contents, which is all the variety that a discard needs.
    fn held_before(&self, unit: usize) -> Vec<SectorId> {
        let history = self.history.iter().flatten().rev();
        let old = history.filter(|entry| entry.0 as usize == unit);
        old.map(|entry| entry.1).take(HISTORY_MAX).collect()
    }
}
