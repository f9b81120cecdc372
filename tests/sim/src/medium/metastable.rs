//! Units that power loss left between two contents: each read shows one of them.

use crate::sector::{SectorId, Sectors, mix};

/// Reads after which a pattern begins again.
const PERIOD: u32 = 3;

/// A metastable unit. Its stable content is the old one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metastable {
    /// First sector of the unit.
    pub first: u32,
    /// What it reads instead of its stable content.
    other: Vec<SectorId>,
    /// Bit `n` says whether read `n` shows the other content.
    pattern: u32,
    /// Reads so far, up to the period.
    reads: u32,
}

impl Metastable {
    /// A unit that reads `other` now and then: `way` counts the patterns that are not constant.
    #[must_use]
    pub fn new(first: u32, other: &[SectorId], way: u32) -> Metastable {
        Metastable {
            first,
            other: other.to_vec(),
            pattern: way + 1,
            reads: 0,
        }
    }

    /// A read; `Some` if it shows the other content.
    pub(super) fn read(&mut self) -> Option<&[SectorId]> {
        let shows_other = self.pattern >> self.reads & 1 == 1;
        self.reads = (self.reads + 1) % PERIOD;
        shows_other.then_some(&self.other)
    }

    /// The same in every run.
    #[must_use]
    pub fn hash(&self, sectors: &Sectors) -> u64 {
        let state = u64::from(self.first) << 16 | u64::from(self.pattern << 4 | self.reads);
        let other = self.other.iter().map(|id| sectors.hash(*id));
        other.fold(state, mix)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crash::Space;
    use crate::medium::Medium;
    use crate::sector::SECTOR;

    fn seen(medium: &mut Medium) -> SectorId {
        let mut seen = SectorId::UNREADABLE;
        medium.read(1, 1, |_, id| seen = id);
        seen
    }

    #[test]
    fn a_unit_is_metastable_until_a_write_to_it_is_durable() {
        let sectors = Sectors::new();
        let store = core::cell::RefCell::new(sectors);
        let id = |byte| store.borrow_mut().intern(&[byte; SECTOR]).0;
        let (old, new) = (id(1), id(2));
        let mut medium = Medium::new(vec![old; 3], 1, false);
        // Pattern 011: new, new, old, and so on.
        medium.load(&[old; 3], vec![Metastable::new(1, &[new], 2)]);
        let reads: Vec<_> = (0..4).map(|_| seen(&mut medium)).collect();
        assert_eq!(reads, [new, new, old, new]);
        let carried = |medium: &Medium| {
            let mut space = Space::new();
            medium.add_to(0, &mut space);
            space
                .metastable(0, &Default::default(), Default::default())
                .len()
        };
        assert_eq!(carried(&medium), 1);
        // The same content again: the cache has it, the medium not yet.
        medium.write(1, &[old], false);
        assert_eq!([seen(&mut medium), seen(&mut medium)], [old; 2]);
        assert_eq!(carried(&medium), 1);
        medium.flush(medium.cut());
        assert_eq!(carried(&medium), 0);
        assert_eq!([seen(&mut medium), seen(&mut medium)], [old; 2]);
    }
}
