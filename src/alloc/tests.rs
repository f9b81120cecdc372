//! The allocator against a plain list of what is in use.

extern crate std;

use std::vec;
use std::vec::Vec;

use super::*;
use crate::device::testing::arena_memory;

fn allocator(chunks_max: u32) -> Allocator {
    let mut arena = Arena::new(arena_memory(Allocator::arena_bytes(chunks_max))).expect("aligned");
    let allocator = Allocator::carve(&mut arena, chunks_max).expect("exact room");
    assert_eq!(arena.remaining(), 0, "not one byte too many");
    allocator
}

/// Opened on a store where every chunk below the floor is dirty and free.
fn opened(chunks: u32, floor: u32) -> Allocator {
    let mut allocator = allocator(chunks);
    allocator.begin(chunks, floor);
    allocator
}

fn dirty(chunk: u32) -> Option<Reserved> {
    Some(Reserved {
        chunk: StoreChunk(chunk),
        fresh: false,
    })
}

fn fresh(chunk: u32) -> Option<Reserved> {
    Some(Reserved {
        chunk: StoreChunk(chunk),
        fresh: true,
    })
}

/// What the allocator promises, from a list of chunks.
struct Model {
    /// Per chunk below the fresh ones: whether it is in use.
    used: Vec<bool>,
    chunks: usize,
    floor: usize,
    /// One past the dirty chunk that was handed out last.
    hint: usize,
}

impl Model {
    fn reserve(&mut self) -> Option<Reserved> {
        let next = self.used.len();
        if next < self.floor.min(self.chunks) {
            self.used.push(true);
            return fresh(next as u32);
        }
        let free = |chunk: &usize| !self.used[*chunk];
        let chunk = (self.hint..next)
            .find(free)
            .or_else(|| (0..next).find(free))?;
        self.used[chunk] = true;
        self.hint = chunk + 1;
        dirty(chunk as u32)
    }

    fn free(&self) -> usize {
        self.used.iter().filter(|used| !**used).count()
    }

    /// The most chunks that can be reserved without doing anything first, tried out.
    fn can_reserve(&self, count: usize) -> Result<(), Shortage> {
        let next = self.used.len();
        let fresh_now = self.floor.min(self.chunks).saturating_sub(next);
        let fresh_ever = self.chunks - next;
        // A floor that has to be raised is better than chunks that have to be zeroed.
        if fresh_now >= count || (fresh_ever < count && fresh_now + self.free() >= count) {
            Ok(())
        } else if fresh_ever + self.free() >= count {
            Err(Shortage::Floor)
        } else {
            Err(Shortage::Space)
        }
    }

    fn check(&self, allocator: &Allocator) {
        let next = self.used.len();
        assert_eq!(allocator.fresh_next() as usize, next);
        assert_eq!(allocator.durable_floor() as usize, self.floor);
        assert_eq!(allocator.chunks() as usize, self.chunks);
        assert_eq!(allocator.dirty_free() as usize, self.free());
        let available = self.floor.min(self.chunks).saturating_sub(next);
        assert_eq!(allocator.fresh_available() as usize, available);
        let all = self.chunks - next + self.free();
        for count in [
            1,
            2,
            available,
            available + 1,
            self.free() + 1,
            all,
            all + 1,
        ] {
            assert_eq!(
                allocator.can_reserve(count as u32),
                self.can_reserve(count),
                "{count} of {} chunks, {next} touched, {} free, floor {}",
                self.chunks,
                self.free(),
                self.floor
            );
        }
    }
}

/// A small deterministic generator (splitmix64).
fn next(state: &mut u64) -> u64 {
    *state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
    let mut z = *state;
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// A store that fills up, empties, grows: the same answers as the list at each step.
fn agrees_with_the_list(chunks: u32, seed: u64) {
    let state = &mut { seed };
    let mut allocator = allocator(2 * chunks);
    let size = chunks.div_ceil(2).max(1);
    let floor = size / 3;
    allocator.begin(size, floor);
    let mut model = Model {
        used: vec![false; floor as usize],
        chunks: size as usize,
        floor: floor as usize,
        hint: 0,
    };
    for turn in 0..3 * u64::from(chunks) + 100 {
        // The store fills in the first third of the turns and hovers near full afterwards.
        match next(state) % 8 {
            0 | 1 if turn > u64::from(chunks) || next(state).is_multiple_of(16) => {
                let at = next(state) as usize % model.used.len().max(1);
                if model.used.get(at) == Some(&true) {
                    allocator.give_back(StoreChunk(at as u32));
                    model.used[at] = false;
                }
            }
            2 => {
                let floor = (model.used.len() as u64 + next(state) % 9) as u32;
                allocator.raise_floor(floor);
                model.floor = model.floor.max(floor as usize);
            }
            3 if turn.is_multiple_of(4) => {
                let grown = model.chunks as u32 + (next(state) % 3) as u32;
                allocator.grow(grown);
                model.chunks = (grown as usize).min(allocator.chunks_max() as usize);
            }
            _ => assert_eq!(allocator.reserve(), model.reserve()),
        }
        if turn.is_multiple_of(u64::from(chunks) / 500 + 1) {
            model.check(&allocator);
        }
    }
}

#[test]
fn agrees_with_a_list_of_chunks() {
    // Around one word of the free map, and around one word of its summary (4,096 chunks).
    for chunks in [1, 2, 63, 64, 65, 128, 200] {
        for seed in 0..4 {
            agrees_with_the_list(chunks, seed);
        }
    }
    for chunks in [4095, 4097, 9000] {
        agrees_with_the_list(chunks, 5);
    }
}

#[test]
fn every_chunk_of_a_full_store_is_found_again_wherever_it_is() {
    let chunks = 3 * 4096 + 100;
    for start in [0, 1, 63, 64, 100, 4095, 4096, 4160, 8200, chunks - 1] {
        let mut allocator = opened(chunks, chunks);
        for _ in 0..chunks {
            assert!(allocator.reserve().is_some());
        }
        assert_eq!(allocator.reserve(), None);
        // One free chunk moves the search's start behind it.
        allocator.give_back(StoreChunk(start));
        assert_eq!(allocator.reserve(), dirty(start));
        for chunk in [0, 64, 127, 4095, 4096, 8191, 8192, 12287, 12288, chunks - 1] {
            allocator.give_back(StoreChunk(chunk));
            assert_eq!(allocator.reserve(), dirty(chunk), "from {start}");
        }
    }
}

#[test]
fn memory_comes_back_to_the_arena_that_lent_it_and_to_no_other() {
    for chunks in [1, 64, 5000, 300_000] {
        let memory = || arena_memory(Allocator::arena_bytes(chunks));
        let mut ours = Arena::new(memory()).expect("aligned");
        let mut other = Arena::new(memory()).expect("aligned");
        let allocator = Allocator::carve(&mut ours, chunks).expect("exact room");
        assert!(Allocator::carve(&mut ours, chunks).is_none(), "none left");
        let stranger = Allocator::carve(&mut other, chunks).expect("exact room");
        let mixed = Allocator {
            words: stranger.words,
            ..allocator
        };
        assert!(!mixed.reclaim(&mut ours), "words of another arena");
        let mut ours = Arena::new(memory()).expect("aligned");
        let allocator = Allocator::carve(&mut ours, chunks).expect("exact room");
        let mixed = Allocator {
            full: stranger.full,
            ..allocator
        };
        assert!(!mixed.reclaim(&mut ours), "a summary of another arena");
        let mut ours = Arena::new(memory()).expect("aligned");
        let allocator = Allocator::carve(&mut ours, chunks).expect("exact room");
        assert!(allocator.reclaim(&mut ours));
        assert!(ours.finish().is_ok());
    }
}

#[test]
fn a_store_larger_than_the_free_map_is_used_as_far_as_the_map_goes() {
    let mut allocator = allocator(100);
    assert_eq!(allocator.chunks_max(), 128, "whole words");
    allocator.begin(1000, 1000);
    assert_eq!((allocator.chunks(), allocator.fresh_next()), (128, 128));
    allocator.begin(100, 0);
    allocator.grow(1000);
    assert_eq!(allocator.chunks(), 128);
    allocator.grow(50);
    assert_eq!(allocator.chunks(), 128, "a store never shrinks");
}

#[test]
fn a_chunk_is_adopted_once_and_only_if_it_was_ever_handed_out() {
    let mut allocator = opened(10, 4);
    assert!(allocator.adopt(StoreChunk(3)));
    assert!(!allocator.adopt(StoreChunk(3)), "two owners");
    assert!(!allocator.adopt(StoreChunk(4)), "never written");
    assert!(!allocator.adopt(StoreChunk(1 << 20)), "beyond the store");
    assert_eq!(allocator.dirty_free(), 3);
    for chunk in [0, 1, 2] {
        assert_eq!(allocator.reserve(), dirty(chunk));
    }
    assert_eq!(allocator.reserve(), None);
}

#[test]
fn a_chunk_is_given_back_once() {
    let mut allocator = opened(2, 2);
    assert_eq!(allocator.reserve(), dirty(0));
    assert_eq!(allocator.reserve(), dirty(1));
    for chunk in [0, 0, 1 << 20] {
        allocator.give_back(StoreChunk(chunk));
        assert_eq!(allocator.dirty_free(), 1);
    }
    assert_eq!(allocator.reserve(), dirty(0));
    assert_eq!(allocator.reserve(), None);
}

#[test]
fn what_was_fresh_comes_back_dirty() {
    let mut allocator = opened(2, 0);
    allocator.raise_floor(1);
    assert_eq!(allocator.reserve(), fresh(0));
    allocator.give_back(StoreChunk(0));
    assert_eq!(allocator.fresh_next(), 1);
    assert_eq!(allocator.reserve(), dirty(0));
    assert_eq!(allocator.can_reserve(1), Err(Shortage::Floor));
    allocator.raise_floor(0);
    assert_eq!(allocator.durable_floor(), 1, "a floor never falls");
}
