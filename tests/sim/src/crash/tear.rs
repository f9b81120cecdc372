//! Mixtures that a torn unit may hold.

use super::Tear;
use crate::choices::Prng;
use crate::sector::{SECTOR, SectorId, SharedSectors};

/// Replaces `target` (old) by a torn mixture with `new`.
pub(super) fn tear_into(
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
