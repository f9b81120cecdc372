//! What a power loss does to a unit that was being written, beyond "old or new".

use super::Zone;
use crate::choices::Prng;
use crate::sector::{SECTOR, SectorId, SharedSectors};

/// Words of 8 bytes in a sector.
const WORDS: u32 = SECTOR as u32 / 8;

/// Random mixtures that T1 and T4 try besides their regular ones.
const MIXTURES: u32 = 8;

/// Patterns of reads that T5 tries: all of three reads but the two in which nothing changes.
const PATTERNS: u32 = 6;

/// A tear model. Each is a run of its own.
///
/// A device that keeps to the contract of `fvd::device` does only T0. The others are what real ones
/// have been seen to do to units with a write that no flush has covered; units without are never
/// harmed, by any model.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default, Hash)]
#[non_exhaustive]
pub enum Tear {
    /// T0: units are atomic, as the contract promises.
    #[default]
    None,
    /// T1: a metadata unit is part new and part old: cut at every eighth byte, both ways round, and
    /// mixed at random, eight bytes at a time.
    Cut,
    /// T2: a unit can not be read until it is written again.
    Unreadable,
    /// T3: a unit holds random bytes.
    Garbage,
    /// T4: a unit of several sectors is shorn: each of its sectors is old, new or unreadable, those
    /// included that the write did not touch.
    Shorn,
    /// T5: a unit is metastable: it reads old or new at each read, until it is written again.
    Metastable,
}

impl Tear {
    /// Whether the model does anything to a zone.
    pub(super) fn applies_to(self, zone: Zone) -> bool {
        match self {
            Tear::None => false,
            Tear::Cut => zone != Zone::Data,
            _ => true,
        }
    }

    /// Whether the `way`-th tear of a unit of `sectors` loses contents for good.
    pub(super) fn loses(self, way: u32, sectors: u16) -> bool {
        match self {
            Tear::Unreadable | Tear::Garbage => true,
            Tear::Shorn => way >= 2 * (u32::from(sectors) - 1),
            Tear::None | Tear::Cut | Tear::Metastable => false,
        }
    }

    pub(super) fn is_cut(self) -> bool {
        self == Tear::Cut
    }

    /// In how many ways a unit of `sectors` can be torn.
    #[must_use]
    pub fn ways(self, sectors: u16) -> u32 {
        let sectors = u32::from(sectors);
        match self {
            Tear::None => 0,
            Tear::Cut => 2 * (sectors * WORDS - 1) + MIXTURES,
            Tear::Unreadable | Tear::Garbage => 1,
            Tear::Shorn if sectors < 2 => 0,
            Tear::Shorn => 2 * (sectors - 1) + 2 + MIXTURES,
            Tear::Metastable => PATTERNS,
        }
    }
}

/// Where each piece of a torn unit comes from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Piece {
    Old,
    New,
    Lost,
}

/// The piece at `index` of `count` in the `way`-th mixture: cut at each place, new first and then old
/// first; then at random.
fn piece(way: u32, index: u32, count: u32) -> Piece {
    let cuts = count - 1;
    let new = match way {
        _ if way < cuts => index <= way,
        _ if way < 2 * cuts => index > way - cuts,
        _ => Prng::new(u64::from(way) << 32 | u64::from(index)).next_word() & 1 == 1,
    };
    if new { Piece::New } else { Piece::Old }
}

/// The sector at `index` of `count` of a shorn unit.
fn shorn(way: u32, index: u32, count: u32, changes: bool) -> Piece {
    let mixtures = 2 * (count - 1);
    match way.checked_sub(mixtures) {
        None => piece(way, index, count),
        // What the write did not touch is lost, or only what it did.
        Some(0) if !changes => Piece::Lost,
        Some(1) if changes => Piece::Lost,
        Some(0 | 1) => Piece::New,
        Some(seed) => match Prng::new(u64::from(seed) << 32 | u64::from(index)).below(3) {
            0 => Piece::Old,
            1 => Piece::New,
            _ => Piece::Lost,
        },
    }
}

/// Replaces `target` (old) by what the `way`-th tear makes of it and `new`. A metastable unit stays
/// old here; what else it may read is kept apart.
pub(super) fn tear_into(
    tear: Tear,
    target: &mut [SectorId],
    new: &[SectorId],
    way: u32,
    sectors: &SharedSectors,
) {
    let count = target.len() as u32;
    for (index, (old, new)) in (0..).zip(target.iter_mut().zip(new)) {
        *old = match tear {
            Tear::None => *new,
            Tear::Metastable => *old,
            Tear::Unreadable => SectorId::UNREADABLE,
            Tear::Garbage => garbage(*new, sectors),
            Tear::Cut => splice(*old, *new, sectors, |word| {
                piece(way, index * WORDS + word, count * WORDS)
            }),
            Tear::Shorn => match shorn(way, index, count, old != new) {
                Piece::Old => *old,
                Piece::New => *new,
                Piece::Lost => SectorId::UNREADABLE,
            },
        };
    }
}

fn garbage(new: SectorId, sectors: &SharedSectors) -> SectorId {
    let mut bytes = [0; SECTOR];
    let mut prng = Prng::new(sectors.borrow().hash(new));
    for word in bytes.chunks_exact_mut(8) {
        word.copy_from_slice(&prng.next_word().to_le_bytes());
    }
    sectors.borrow_mut().intern(&bytes).0
}

/// A sector whose words come from `old` or `new`.
fn splice(
    old: SectorId,
    new: SectorId,
    sectors: &SharedSectors,
    piece: impl Fn(u32) -> Piece,
) -> SectorId {
    let mut store = sectors.borrow_mut();
    let (Some(old), Some(new)) = (store.get(old), store.get(new)) else {
        return new;
    };
    let mut bytes = *old;
    let words = bytes.chunks_exact_mut(8).zip(new.chunks_exact(8));
    for (word, (target, new)) in (0..).zip(words) {
        if piece(word) == Piece::New {
            target.copy_from_slice(new);
        }
    }
    store.intern(&bytes).0
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sector::Sectors;
    use std::collections::HashSet;

    #[test]
    fn every_cut_and_every_mixture_is_another_content() {
        let sectors = Sectors::shared();
        let old = sectors.borrow_mut().intern(&[1; SECTOR]).0;
        let new = sectors.borrow_mut().intern(&[2; SECTOR]).0;
        let ways = Tear::Cut.ways(1);
        assert_eq!(ways, 63 + 63 + MIXTURES);
        let mut seen = HashSet::new();
        for way in 0..ways {
            let mut target = [old];
            tear_into(Tear::Cut, &mut target, &[new], way, &sectors);
            let bytes = *sectors.borrow().get(target[0]).expect("readable");
            assert!(
                bytes
                    .chunks_exact(8)
                    .all(|word| word == [1; 8] || word == [2; 8])
            );
            assert!(
                target[0] != old && target[0] != new,
                "way {way} tears nothing"
            );
            assert!(seen.insert(target[0]), "way {way} comes twice");
            let first_new = 8 * (way as usize + 1);
            if way < 63 {
                assert!(bytes[..first_new].iter().all(|byte| *byte == 2));
                assert!(bytes[first_new..].iter().all(|byte| *byte == 1));
            }
        }
    }

    #[test]
    fn a_shorn_unit_loses_neighbours_that_the_write_did_not_touch() {
        let sectors = Sectors::shared();
        let old = sectors.borrow_mut().intern(&[1; SECTOR]).0;
        let new = sectors.borrow_mut().intern(&[2; SECTOR]).0;
        let torn = |way| {
            let mut target = [old; 8];
            let written = [old, old, new, old, old, old, old, old];
            tear_into(Tear::Shorn, &mut target, &written, way, &sectors);
            target
        };
        let mut only_new = [SectorId::UNREADABLE; 8];
        only_new[2] = new;
        assert_eq!(torn(14), only_new);
        let mut only_lost = [old; 8];
        only_lost[2] = SectorId::UNREADABLE;
        assert_eq!(torn(15), only_lost);
        assert_eq!(
            (Tear::Shorn.ways(8), Tear::Shorn.ways(1)),
            (16 + MIXTURES, 0)
        );
    }
}
