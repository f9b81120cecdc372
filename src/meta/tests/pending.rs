//! The pending table against plain lists.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use super::*;

fn table(capacity: u16) -> PendingTable {
    let bytes = PendingTable::arena_bytes(capacity);
    let mut arena = Arena::new(arena_memory(bytes)).expect("aligned");
    let table = PendingTable::carve(&mut arena, capacity).expect("exact room");
    assert_eq!(arena.remaining(), 0);
    table
}

fn value(number: u64) -> Mapping {
    Mapping {
        entry: TableEntry::Chunk(StoreChunk(number as u32)),
        bits: (number >> 32) as u16,
    }
}

/// What is promised of one entry.
#[derive(Clone, Copy)]
struct Wanted {
    durable: Mapping,
    in_commit: Mapping,
    holders: u16,
    dirty: bool,
    sealed: bool,
}

/// The table and what it should hold.
struct Pair {
    table: PendingTable,
    wanted: BTreeMap<u32, Wanted>,
    dirty: VecDeque<u32>,
    sealed: VecDeque<u32>,
}

impl Pair {
    fn new(capacity: u16) -> Pair {
        Pair {
            table: table(capacity),
            wanted: BTreeMap::new(),
            dirty: VecDeque::new(),
            sealed: VecDeque::new(),
        }
    }

    fn insert(&mut self, chunk: u32, durable: Mapping) {
        let full = self.wanted.len() == self.table.capacity();
        let at = self.table.insert(chunk, durable);
        assert_eq!(at.is_none(), full);
        if !full {
            let wanted = Wanted {
                durable,
                in_commit: FREE_VALUE,
                holders: 0,
                dirty: false,
                sealed: false,
            };
            self.wanted.insert(chunk, wanted);
        }
    }

    fn hold(&mut self, chunk: u32, by: i32) {
        let wanted = self.wanted.get_mut(&chunk).expect("in use");
        wanted.holders = wanted.holders.saturating_add_signed(by as i16);
        let at = self.table.find(chunk).expect("in use");
        self.table.get_mut(at).expect("in use").holders = wanted.holders;
    }

    fn mark_dirty(&mut self, chunk: u32) {
        let at = self.table.find(chunk).expect("in use");
        self.table.mark_dirty(at);
        let wanted = self.wanted.get_mut(&chunk).expect("in use");
        if !wanted.dirty {
            wanted.dirty = true;
            self.dirty.push_back(chunk);
        }
    }

    fn seal(&mut self, live: Mapping) {
        // A chunk is in one commit at a time.
        if self
            .dirty
            .front()
            .is_some_and(|chunk| self.wanted[chunk].sealed)
        {
            return;
        }
        let at = self.table.seal_next(live);
        let chunk = self.dirty.pop_front();
        assert_eq!(at.and_then(|at| self.table.get(at)).map(|e| e.chunk), chunk);
        if let Some(chunk) = chunk {
            let wanted = self.wanted.get_mut(&chunk).expect("in use");
            (wanted.dirty, wanted.sealed, wanted.in_commit) = (false, true, live);
            self.sealed.push_back(chunk);
        }
    }

    fn settle(&mut self) {
        let at = self.table.take_sealed();
        let chunk = self.sealed.pop_front();
        assert_eq!(at, chunk.and_then(|chunk| self.table.find(chunk)));
        if let Some(chunk) = chunk {
            let settled = self.table.settle(at.expect("sealed")).expect("in use");
            let wanted = self.wanted.get_mut(&chunk).expect("in use");
            let change = (wanted.durable, wanted.in_commit);
            assert_eq!(
                (settled.chunk, settled.from, settled.to),
                (chunk, change.0, change.1)
            );
            (wanted.sealed, wanted.durable) = (false, wanted.in_commit);
        }
    }

    fn remove_if_idle(&mut self, chunk: u32) {
        self.table
            .remove_if_idle(self.table.find(chunk).expect("in use"));
        let wanted = self.wanted[&chunk];
        if wanted.holders == 0 && !wanted.dirty && !wanted.sealed {
            self.wanted.remove(&chunk);
        }
    }

    fn check(&self) {
        let table = &self.table;
        assert_eq!(table.free_count(), table.capacity() - self.wanted.len());
        assert_eq!(table.dirty_count(), self.dirty.len());
        assert_eq!(table.dirty_head_chunk(), self.dirty.front().copied());
        let in_use: BTreeSet<u32> = table.iter().map(|entry| entry.chunk).collect();
        assert!(in_use.iter().eq(self.wanted.keys()));
        assert_eq!(table.iter().count(), in_use.len());
        let mut at = table.sealed_head();
        for chunk in &self.sealed {
            assert_eq!(table.get(at).map(|entry| entry.chunk), Some(*chunk));
            at = table.sealed_next(at);
        }
        assert_eq!(at, NONE, "the commit ends here");
        for (chunk, wanted) in &self.wanted {
            let entry = table
                .find(*chunk)
                .and_then(|at| table.get(at))
                .expect("in use");
            assert_eq!(entry.chunk, *chunk);
            assert_eq!(entry.durable, wanted.durable);
            assert_eq!((entry.dirty, entry.sealed), (wanted.dirty, wanted.sealed));
            if wanted.sealed {
                assert_eq!(entry.in_commit, wanted.in_commit);
            }
        }
    }
}

const FREE_VALUE: Mapping = Mapping {
    entry: TableEntry::Unmapped,
    bits: 0,
};

#[test]
fn agrees_with_plain_lists() {
    for capacity in [0, 1, 2, 3, 7, 64] {
        let mut rng = Rng(u64::from(capacity));
        let mut pair = Pair::new(capacity);
        for _ in 0..3000 {
            let chunk = rng.below(2 * u64::from(capacity) + 1) as u32;
            let known = pair.wanted.contains_key(&chunk);
            assert_eq!(pair.table.find(chunk).is_some(), known);
            match rng.below(8) {
                0 | 1 if !known => pair.insert(chunk, value(rng.below(1 << 48))),
                2 if known => pair.hold(chunk, 1),
                3 if known => pair.hold(chunk, -1),
                4 if known => pair.mark_dirty(chunk),
                5 => pair.seal(value(rng.below(1 << 48))),
                6 => pair.settle(),
                7 if known => pair.remove_if_idle(chunk),
                _ => {}
            }
            pair.check();
        }
    }
}

#[test]
fn a_new_entry_remembers_nothing_of_the_one_before() {
    let mut table = table(1);
    let at = table.insert(5, value(1)).expect("room");
    let entry = table.get_mut(at).expect("in use");
    (entry.reserved, entry.fresh) = (9, true);
    table.remove_if_idle(at);
    table.remove_if_idle(at);
    assert_eq!(table.free_count(), 1, "removing twice frees once");
    table.remove_if_idle(NONE);
    let at = table.insert(6, value(2)).expect("room");
    let entry = table.get(at).expect("in use");
    assert_eq!((entry.reserved, entry.fresh), (u32::MAX, false));
    assert_eq!((entry.chunk, entry.durable), (6, value(2)));
    assert_eq!(table.find(5), None);
}

#[test]
fn chunks_that_lie_a_power_of_two_apart_spread_over_the_buckets() {
    let table = table(64);
    for shift in 0..=26 {
        let buckets: BTreeSet<usize> = (0..64).map(|c| table.bucket_of(c << shift)).collect();
        assert!(buckets.len() >= 16, "{shift}: {buckets:?}");
    }
}

#[test]
fn neighbours_spread_over_the_buckets() {
    // Sequential first writes are the usual case; each look-up should be one step or two.
    let table = table(64);
    for first in [0, 1000, 1 << 20] {
        let buckets: BTreeSet<usize> = (first..first + 64).map(|c| table.bucket_of(c)).collect();
        assert!(buckets.len() >= 32, "{first}: {buckets:?}");
    }
}

#[test]
fn memory_comes_back_to_the_arena_that_lent_it() {
    let arena = || Arena::new(arena_memory(PendingTable::arena_bytes(40))).expect("aligned");
    let carve = |arena: &mut Arena| PendingTable::carve(arena, 40).expect("exact room");
    for part in 0..3 {
        let (mut ours, mut other) = (arena(), arena());
        let mut table = carve(&mut ours);
        let stranger = carve(&mut other);
        match part {
            0 => table.entries = stranger.entries,
            1 => table.buckets = stranger.buckets,
            _ => {}
        }
        assert_eq!(table.reclaim(&mut ours), part == 2);
        assert_eq!(ours.finish().is_ok(), part == 2);
    }
}
