//! Mappings on their way to the journal: a bounded table with the last durable value of each.
//!
//! An entry lives from the first reservation or change of a chunk until its live value is durable
//! and no request holds it. Invariants:
//! 1. An entry is in the dirty list iff its live value differs from what was last sealed or durable
//!    (`dirty`), and in the sealed list iff its record is in the commit under way. It is `sealed`
//!    while any record of it is on its way: there, or in an eager unit.
//! 2. `durable` changes only when a unit is known durable.

use crate::buffer::{Arena, Part};

use super::{Mapping, TableEntry};

/// No entry, no link.
pub(crate) const NONE: u16 = u16::MAX;

/// One mapping on its way.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pending {
    /// Chunk of the guest's disk; `u32::MAX` in a free entry.
    pub(crate) chunk: u32,
    /// Store chunk reserved for it but not published, or `u32::MAX`.
    pub(crate) reserved: u32,
    /// The value that recovery would find now.
    pub(crate) durable: Mapping,
    /// The value in the newest unit that is on its way; meaningful while `sealed`.
    pub(crate) in_commit: Mapping,
    /// The value that the units before that one give, so that it says only what is new.
    pub(crate) told: Mapping,
    /// Requests that write under this mapping and have not ended.
    pub(crate) holders: u16,
    /// The store chunk reads zeros wherever no completed or running write of its first owner put
    /// data: it lies above the session's floor and no write to it failed.
    pub(crate) fresh: bool,
    pub(crate) dirty: bool,
    pub(crate) sealed: bool,
    next_in_bucket: u16,
    next_dirty: u16,
    next_sealed: u16,
}

impl Pending {
    /// The value that recovery would find if everything on its way were durable.
    pub(crate) fn recorded(&self) -> Mapping {
        if self.sealed {
            self.in_commit
        } else {
            self.durable
        }
    }

    /// Notes that a unit with `value` is on its way.
    pub(crate) fn seal(&mut self, value: Mapping) {
        self.told = self.recorded();
        self.sealed = true;
        self.in_commit = value;
    }
}

/// A mapping that became durable.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settled {
    pub(crate) chunk: u32,
    /// The durable value until now.
    pub(crate) from: Mapping,
    pub(crate) to: Mapping,
}

/// What an unused chunk is mapped to.
const NOTHING: Mapping = Mapping {
    entry: TableEntry::Unmapped,
    bits: 0,
};

const FREE: Pending = Pending {
    chunk: u32::MAX,
    reserved: u32::MAX,
    durable: NOTHING,
    in_commit: NOTHING,
    told: NOTHING,
    holders: 0,
    fresh: false,
    dirty: false,
    sealed: false,
    next_in_bucket: NONE,
    next_dirty: NONE,
    next_sealed: NONE,
};

/// A singly linked list through the entries.
#[derive(Clone, Copy)]
struct List {
    head: u16,
    tail: u16,
}

const EMPTY: List = List {
    head: NONE,
    tail: NONE,
};

/// The table: entries, hash buckets, dirty list, sealed list, free list.
pub(crate) struct PendingTable {
    pub(super) entries: Part<Pending>,
    pub(super) buckets: Part<u16>,
    free: u16,
    free_count: u16,
    dirty: List,
    dirty_count: u16,
    sealed: List,
}

const fn bucket_count(capacity: u16) -> usize {
    (capacity as usize).next_power_of_two()
}

impl PendingTable {
    pub(crate) const fn arena_bytes(capacity: u16) -> usize {
        Arena::part_bytes::<Pending>(capacity as usize)
            + Arena::part_bytes::<u16>(bucket_count(capacity))
    }

    pub(crate) fn carve(arena: &mut Arena, capacity: u16) -> Option<PendingTable> {
        // The free list ends with a link past the last entry.
        let entries = arena.carve_with(usize::from(capacity), |index| Pending {
            next_in_bucket: index as u16 + 1,
            ..FREE
        })?;
        let buckets = arena.carve(bucket_count(capacity), NONE)?;
        Some(PendingTable {
            entries,
            buckets,
            free: 0,
            free_count: capacity,
            dirty: EMPTY,
            dirty_count: 0,
            sealed: EMPTY,
        })
    }

    pub(crate) fn reclaim(self, arena: &mut Arena) -> bool {
        arena.reclaim(self.entries).is_ok() & arena.reclaim(self.buckets).is_ok()
    }

    pub(super) fn bucket_of(&self, chunk: u32) -> usize {
        // Fibonacci hashing: neighbours spread, which is what sequential first writes need. The high bits
        // count, since the low ones are 0 for chunks that lie a large power of two apart.
        let hash = u64::from(chunk.wrapping_mul(0x9E37_79B1));
        ((hash * self.buckets.len() as u64) >> 32) as usize
    }

    pub(crate) fn free_count(&self) -> usize {
        usize::from(self.free_count)
    }

    pub(crate) fn capacity(&self) -> usize {
        self.entries.len()
    }

    /// Mappings whose live value waits for a commit.
    pub(crate) fn dirty_count(&self) -> usize {
        usize::from(self.dirty_count)
    }

    /// Every entry in use.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Pending> {
        self.entries.iter().filter(|entry| entry.chunk != u32::MAX)
    }

    pub(crate) fn get(&self, index: u16) -> Option<&Pending> {
        self.entries.get(usize::from(index))
    }

    pub(crate) fn get_mut(&mut self, index: u16) -> Option<&mut Pending> {
        self.entries.get_mut(usize::from(index))
    }

    /// The entry of a chunk.
    #[inline(never)]
    pub(crate) fn find(&self, chunk: u32) -> Option<u16> {
        let mut index = *self.buckets.get(self.bucket_of(chunk))?;
        for _ in 0..self.entries.len() {
            let entry = self.entries.get(usize::from(index))?;
            if entry.chunk == chunk {
                return Some(index);
            }
            index = entry.next_in_bucket;
        }
        None
    }

    /// The entry of a chunk, which is probably `guess`.
    #[inline]
    pub(crate) fn find_near(&self, guess: u16, chunk: u32) -> Option<u16> {
        match self.get(guess) {
            Some(entry) if entry.chunk == chunk => Some(guess),
            _ => self.find(chunk),
        }
    }

    /// Adds an entry for a chunk that has none. `None` if the table is full.
    pub(crate) fn insert(&mut self, chunk: u32, durable: Mapping) -> Option<u16> {
        let bucket = self.bucket_of(chunk);
        let index = self.free;
        let head = self.buckets.get_mut(bucket)?;
        let entry = self.entries.get_mut(usize::from(index))?;
        self.free = entry.next_in_bucket;
        *entry = Pending {
            chunk,
            durable,
            next_in_bucket: *head,
            ..FREE
        };
        *head = index;
        self.free_count = self.free_count.saturating_sub(1);
        Some(index)
    }

    /// Removes an entry that nothing refers to any more: no holder, not dirty, not sealed.
    pub(crate) fn remove_if_idle(&mut self, index: u16) {
        let Some(entry) = self.get(index) else { return };
        if entry.holders != 0 || entry.dirty || entry.sealed || entry.chunk == u32::MAX {
            return;
        }
        let (chunk, next) = (entry.chunk, entry.next_in_bucket);
        let bucket = self.bucket_of(chunk);
        let Some(head) = self.buckets.get_mut(bucket) else {
            return;
        };
        if *head == index {
            *head = next;
        } else {
            let mut at = *head;
            for _ in 0..self.entries.len() {
                let Some(entry) = self.entries.get_mut(usize::from(at)) else {
                    return;
                };
                if entry.next_in_bucket == index {
                    entry.next_in_bucket = next;
                    break;
                }
                at = entry.next_in_bucket;
            }
        }
        let free = self.free;
        if let Some(entry) = self.get_mut(index) {
            entry.chunk = FREE.chunk;
            entry.next_in_bucket = free;
            self.free = index;
            self.free_count += 1;
        }
    }

    /// Notes that the live value of an entry changed.
    pub(crate) fn mark_dirty(&mut self, index: u16) {
        let Some(entry) = self.get_mut(index) else {
            return;
        };
        if entry.dirty {
            return;
        }
        entry.dirty = true;
        entry.next_dirty = NONE;
        let tail = self.dirty.tail;
        match self.get_mut(tail) {
            Some(last) => last.next_dirty = index,
            None => self.dirty.head = index,
        }
        self.dirty.tail = index;
        self.dirty_count += 1;
    }

    /// Chunk of the oldest dirty entry.
    pub(crate) fn dirty_head_chunk(&self) -> Option<u32> {
        self.get(self.dirty.head).map(|entry| entry.chunk)
    }

    /// Takes the oldest dirty entry and seals it with its live value.
    pub(crate) fn seal_next(&mut self, live: Mapping) -> Option<u16> {
        let index = self.dirty.head;
        let entry = self.get_mut(index)?;
        entry.dirty = false;
        entry.seal(live);
        let next = core::mem::replace(&mut entry.next_dirty, NONE);
        entry.next_sealed = NONE;
        self.dirty.head = next;
        if next == NONE {
            self.dirty.tail = NONE;
        }
        self.dirty_count = self.dirty_count.saturating_sub(1);
        let tail = self.sealed.tail;
        match self.get_mut(tail) {
            Some(last) => last.next_sealed = index,
            None => self.sealed.head = index,
        }
        self.sealed.tail = index;
        Some(index)
    }

    /// First entry of the commit under way.
    pub(crate) fn sealed_head(&self) -> u16 {
        self.sealed.head
    }

    /// The entry after `index` in the commit under way.
    pub(crate) fn sealed_next(&self, index: u16) -> u16 {
        self.get(index).map_or(NONE, |entry| entry.next_sealed)
    }

    /// The newest record of an entry is durable.
    pub(crate) fn settle(&mut self, index: u16) -> Option<Settled> {
        let entry = self.get_mut(index)?;
        entry.sealed = false;
        let from = core::mem::replace(&mut entry.durable, entry.in_commit);
        Some(Settled {
            chunk: entry.chunk,
            from,
            to: entry.durable,
        })
    }

    /// Takes the first entry out of the commit under way.
    pub(crate) fn take_sealed(&mut self) -> Option<u16> {
        let index = self.sealed.head;
        let entry = self.get_mut(index)?;
        let next = core::mem::replace(&mut entry.next_sealed, NONE);
        self.sealed.head = next;
        if next == NONE {
            self.sealed.tail = NONE;
        }
        Some(index)
    }
}
