//! The walk through a space: all of it, or a selection where it is too large.

use core::ops::ControlFlow;

use super::{ALL_UNITS, Bound, Outcome, Space, Tear, Unit, Zone};
use crate::choices::Prng;

/// Products up to this are all tried around a torn unit; of larger ones three.
const BACKGROUNDS_MAX: u64 = 32;

impl Space {
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
        // Every single survivor, every single loss.
        for one in 0..self.units.len() {
            for alone in [true, false] {
                self.set_all(&mut outcome.digits, |index, _| (index == one) == alone);
                visit(outcome)?;
            }
        }
        self.pairs(bound, outcome, visit)?;
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

    /// Every pair loss, or a choice of them.
    fn pairs(
        &self,
        bound: Bound,
        outcome: &mut Outcome,
        visit: &mut dyn FnMut(&Outcome) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let count = self.units.len();
        let all = (0..count).flat_map(|one| (one + 1..count).map(move |other| (one, other)));
        let mut prng = Prng::new(bound.seed ^ 0x9A12);
        let mut any = || prng.below(count as u64) as usize;
        let mut lose = |one, other| {
            self.set_all(&mut outcome.digits, |index, _| {
                index != one && index != other
            });
            visit(outcome)
        };
        if count * count.saturating_sub(1) / 2 <= bound.pairs_max as usize {
            for (one, other) in all {
                lose(one, other)?;
            }
        } else {
            for _ in 0..bound.pairs_max {
                lose(any(), any())?;
            }
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

    pub(super) fn zone(&self, unit: &Unit) -> Option<Zone> {
        (unit.len > 0)
            .then(|| self.zones.of(unit.device, unit.first))
            .flatten()
    }

    /// In how many ways a unit can be torn; 0 if it can not.
    pub(super) fn ways(&self, unit: &Unit, tear: Tear) -> u32 {
        let applies = self.zone(unit).is_some_and(|zone| tear.applies_to(zone));
        if applies { tear.ways(unit.len) } else { 0 }
    }

    /// Tears one unit at a time, and all of them, while the others are mixed in all ways if these are
    /// few; otherwise all old, all new, or mixed at random.
    fn tears(
        &self,
        tear: Tear,
        bound: Bound,
        outcome: &mut Outcome,
        visit: &mut dyn FnMut(&Outcome) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let mut prng = Prng::new(bound.seed ^ 0x7EA2);
        if !tear.is_cut() && self.product() <= BACKGROUNDS_MAX {
            outcome.digits.fill(0);
            while self.advance(&mut outcome.digits) {
                self.tear_each(tear, outcome, visit)?;
            }
            return ControlFlow::Continue(());
        }
        for (torn, unit) in self.units.iter().enumerate() {
            let ways = self.ways(unit, tear);
            for background in 0..if ways == 0 { 0 } else { 3 } {
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
                    Self::tear_one(torn as u32, ways, outcome, visit)?;
                }
            }
        }
        if !tear.is_cut() {
            self.set_all(&mut outcome.digits, |_, _| true);
            self.tear_each(tear, outcome, visit)?;
        }
        ControlFlow::Continue(())
    }

    /// Tears each unit of which something new survived, and all of them.
    fn tear_each(
        &self,
        tear: Tear,
        outcome: &mut Outcome,
        visit: &mut dyn FnMut(&Outcome) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        let (mut tearable, mut ways_all) = (0, 0);
        for (torn, unit) in self.units.iter().enumerate() {
            let ways = self.ways(unit, tear);
            if ways != 0 && outcome.digits[torn] != 0 {
                Self::tear_one(torn as u32, ways, outcome, visit)?;
                tearable += 1;
                ways_all = ways_all.max(ways);
            }
        }
        if tearable > 1 {
            Self::tear_one(ALL_UNITS, ways_all, outcome, visit)?;
        }
        ControlFlow::Continue(())
    }

    fn tear_one(
        torn: u32,
        ways: u32,
        outcome: &mut Outcome,
        visit: &mut dyn FnMut(&Outcome) -> ControlFlow<()>,
    ) -> ControlFlow<()> {
        for way in 0..ways {
            outcome.torn = Some((torn, way));
            visit(outcome)?;
        }
        outcome.torn = None;
        ControlFlow::Continue(())
    }
}
