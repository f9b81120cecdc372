//! The chunk allocator: reserve, then publish or give back.
//!
//! Store chunks fall in two ranges:
//!
//! ```text
//! 0 ·········· fresh_next ·········· durable_floor ·········· chunks
//!   used, or      fresh: never sent a   fresh, but the floor must
//!   free and      write in any session  be raised durably before
//!   dirty         (reads zeros)         the first write
//! ```
//!
//! Invariants:
//! 1. A chunk at or above `fresh_next` has never been sent a write. `fresh_next` starts at the floor
//!    that recovery found and only grows.
//! 2. A chunk is handed out as fresh only below `durable_floor`, so a crash can never hide that it
//!    was written (law 1, zero floor).
//! 3. A chunk given back is dirty from then on, whatever it was.
//!
//! Free dirty chunks are found through a two-level bit hierarchy, not by a scan.

use crate::buffer::{Arena, Part};
use crate::seeded::{Bug, bug};
use crate::units::StoreChunk;

/// A chunk that was reserved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Reserved {
    pub(crate) chunk: StoreChunk,
    /// Whether it reads zeros.
    pub(crate) fresh: bool,
}

/// Why no chunk can be reserved right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shortage {
    /// The zero floor must be raised durably first.
    Floor,
    /// The store is full.
    Space,
}

/// Which store chunks are in use.
pub(crate) struct Allocator {
    /// One bit per chunk below `fresh_next`: set = used.
    words: Part<u64>,
    /// One bit per word: set = the word has no free chunk below `fresh_next`.
    full: Part<u64>,
    chunks: u32,
    fresh_next: u32,
    durable_floor: u32,
    dirty_free: u32,
    hint: u32,
}

const fn word_count(chunks_max: u32) -> usize {
    (chunks_max as usize).div_ceil(64)
}

impl Allocator {
    pub(crate) const fn arena_bytes(chunks_max: u32) -> usize {
        Arena::part_bytes::<u64>(word_count(chunks_max))
            + Arena::part_bytes::<u64>(word_count(chunks_max).div_ceil(64))
    }

    /// An allocator for a store that may grow to `chunks_max` chunks; all free, nothing known.
    pub(crate) fn carve(arena: &mut Arena, chunks_max: u32) -> Option<Allocator> {
        Some(Allocator {
            words: arena.carve(word_count(chunks_max), 0u64)?,
            full: arena.carve(word_count(chunks_max).div_ceil(64), 0u64)?,
            chunks: 0,
            fresh_next: 0,
            durable_floor: 0,
            dirty_free: 0,
            hint: 0,
        })
    }

    pub(crate) fn reclaim(self, arena: &mut Arena) -> bool {
        arena.reclaim(self.words).is_ok() & arena.reclaim(self.full).is_ok()
    }

    /// Sets what recovery found: the size of the store and the floor below which chunks are dirty.
    /// All are free then.
    pub(crate) fn begin(&mut self, chunks: u32, floor: u32) {
        self.chunks = chunks.min(self.chunks_max());
        self.fresh_next = floor.min(self.chunks);
        self.durable_floor = floor;
        self.dirty_free = self.fresh_next;
        self.words.fill(0);
        self.full.fill(0);
    }

    /// Marks a chunk that the table names. False if it is taken already, or was never handed out.
    pub(crate) fn adopt(&mut self, chunk: StoreChunk) -> bool {
        chunk.0 < self.fresh_next && self.take(chunk.0)
    }

    fn take(&mut self, chunk: u32) -> bool {
        let Some(word) = self.words.get_mut(chunk as usize / 64) else {
            return false;
        };
        let bit = 1u64 << (chunk & 63);
        if *word & bit != 0 {
            return false;
        }
        *word |= bit;
        if *word == u64::MAX
            && let Some(full) = self.full.get_mut(chunk as usize / 4096)
        {
            *full |= 1 << ((chunk / 64) & 63);
        }
        self.dirty_free = self.dirty_free.saturating_sub(1);
        true
    }

    /// Chunks of the store.
    pub(crate) fn chunks(&self) -> u32 {
        self.chunks
    }

    /// Chunks that the free map has room for.
    pub(crate) fn chunks_max(&self) -> u32 {
        (self.words.len() as u64 * 64).min(u64::from(u32::MAX)) as u32
    }

    /// The store grew, durably.
    pub(crate) fn grow(&mut self, chunks: u32) {
        self.chunks = self.chunks.max(chunks.min(self.chunks_max()));
    }

    /// Chunks at or above this one were never sent a write.
    pub(crate) fn fresh_next(&self) -> u32 {
        self.fresh_next
    }

    /// The floor as recovery would find it now.
    pub(crate) fn durable_floor(&self) -> u32 {
        self.durable_floor
    }

    /// A record or header with this floor is durable.
    pub(crate) fn raise_floor(&mut self, floor: u32) {
        self.durable_floor = self.durable_floor.max(floor);
    }

    fn fresh_limit(&self) -> u32 {
        if bug(Bug::FloorNotRaised) {
            self.chunks
        } else {
            self.durable_floor.min(self.chunks)
        }
    }

    /// Fresh chunks that can be handed out now.
    pub(crate) fn fresh_available(&self) -> u32 {
        self.fresh_limit().saturating_sub(self.fresh_next)
    }

    /// Whether `count` chunks can be reserved now.
    ///
    /// # Errors
    /// What has to happen first.
    pub(crate) fn can_reserve(&self, count: u32) -> Result<(), Shortage> {
        let fresh = self.fresh_available();
        if fresh >= count {
            return Ok(());
        }
        if self.chunks.saturating_sub(self.fresh_next) >= count {
            return Err(Shortage::Floor);
        }
        if fresh.saturating_add(self.dirty_free) >= count {
            return Ok(());
        }
        // A mix of fresh chunks above the floor and dirty ones may still do.
        let above = self
            .chunks
            .saturating_sub(self.fresh_next)
            .saturating_add(self.dirty_free);
        if above >= count {
            Err(Shortage::Floor)
        } else {
            Err(Shortage::Space)
        }
    }

    /// Reserves one chunk: a fresh one if there is, else the next free dirty one.
    pub(crate) fn reserve(&mut self) -> Option<Reserved> {
        if self.fresh_available() > 0 {
            let chunk = self.fresh_next;
            self.fresh_next += 1;
            self.dirty_free += 1;
            self.take(chunk);
            return Some(Reserved {
                chunk: StoreChunk(chunk),
                fresh: true,
            });
        }
        let chunk = self.find_dirty()?;
        self.take(chunk);
        self.hint = chunk.wrapping_add(1);
        Some(Reserved {
            chunk: StoreChunk(chunk),
            fresh: bug(Bug::AllFreeIsZero),
        })
    }

    /// The next free chunk below `fresh_next`, from the hint on, around the end once.
    #[inline(never)] // so that a fresh one is found quickly
    fn find_dirty(&self) -> Option<u32> {
        if self.dirty_free == 0 {
            return None;
        }
        self.find_in(self.hint).or_else(|| self.find_in(0))
    }

    fn find_in(&self, start: u32) -> Option<u32> {
        let first = start as usize / 64;
        let head = *self.words.get(first)? | ((1u64 << (start & 63)) - 1);
        if head != u64::MAX {
            return self.below_fresh(first, head);
        }
        let next = first + 1;
        let mut skip = (1u64 << (next & 63)) - 1;
        for summary in (next / 64)..self.full.len() {
            let full = *self.full.get(summary)? | skip;
            if full != u64::MAX {
                let at = summary * 64 + full.trailing_ones() as usize;
                return self.below_fresh(at, *self.words.get(at)?);
            }
            skip = 0;
        }
        None
    }

    fn below_fresh(&self, word: usize, used: u64) -> Option<u32> {
        let chunk = (word as u64 * 64 + u64::from(used.trailing_ones())) as u32;
        (chunk < self.fresh_next).then_some(chunk)
    }

    /// Takes back a chunk that no mapping names and no operation touches. It is dirty now.
    pub(crate) fn give_back(&mut self, chunk: StoreChunk) {
        let Some(word) = self.words.get_mut(chunk.0 as usize / 64) else {
            return;
        };
        let bit = 1u64 << (chunk.0 & 63);
        if *word & bit == 0 {
            return;
        }
        *word &= !bit;
        if let Some(full) = self.full.get_mut(chunk.0 as usize / 4096) {
            *full &= !(1 << ((chunk.0 / 64) & 63));
        }
        self.dirty_free += 1;
        if bug(Bug::FailedChunkStaysFresh) && chunk.0.wrapping_add(1) == self.fresh_next {
            self.fresh_next = chunk.0;
            self.dirty_free = self.dirty_free.saturating_sub(1);
        }
    }

    /// Free chunks that would have to be zeroed before use.
    pub(crate) fn dirty_free(&self) -> u32 {
        self.dirty_free
    }
}

#[cfg(test)]
mod tests;
