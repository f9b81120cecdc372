//! Which states were seen before, within bounds of memory.
//!
//! A state is remembered by a 64-bit key that mixes the contents of all stores with what the oracle
//! allows. Two different states share a key with a chance of about 1 in 10,000 among fifty million;
//! the second of them would then not be looked at.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasherDefault, Hasher};

use crate::stamp::Value;

/// Keys that are remembered unless told otherwise: at most 1.2 GiB.
pub const KEYS_MAX: usize = 56_000_000;

/// Keys are mixed when they are made; mixing them again costs a tenth of the speed of a search.
#[derive(Clone, Copy, Debug, Default)]
struct Mixed(u64);

impl Hasher for Mixed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, key: u64) {
        self.0 = key;
    }
}

/// What is known of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// It is new, and remembered from now on.
    New,
    /// It was there before.
    Before,
    /// It is not remembered, and there is no room for it: new, or forgotten.
    Unsure,
}

/// The keys of all states that were seen.
#[derive(Debug)]
pub struct Memory {
    keys: HashSet<u64, BuildHasherDefault<Mixed>>,
    keys_max: usize,
    /// Of some states, the number of the contents that recovery showed.
    shown: HashMap<u64, u32, BuildHasherDefault<Mixed>>,
    numbers: HashMap<Vec<Value>, u32>,
    contents: Vec<Vec<Value>>,
}

impl Default for Memory {
    fn default() -> Memory {
        Memory::new(KEYS_MAX)
    }
}

impl Memory {
    /// A memory for at most `keys_max` keys.
    #[must_use]
    pub fn new(keys_max: usize) -> Memory {
        Memory {
            keys: HashSet::default(),
            keys_max,
            shown: HashMap::default(),
            numbers: HashMap::new(),
            contents: Vec::new(),
        }
    }

    /// Asks for a key, and remembers it if there is room.
    pub fn look(&mut self, key: u64) -> Seen {
        if self.keys.len() >= self.keys_max {
            return if self.keys.contains(&key) {
                Seen::Before
            } else {
                Seen::Unsure
            };
        }
        if self.keys.insert(key) {
            Seen::New
        } else {
            Seen::Before
        }
    }

    /// The number of what a whole disk reads.
    pub fn contents(&mut self, values: &[Value]) -> u32 {
        if let Some(number) = self.numbers.get(values) {
            return *number;
        }
        let number = self.contents.len() as u32;
        self.contents.push(values.to_vec());
        self.numbers.insert(values.to_vec(), number);
        number
    }

    /// What [`Memory::contents`] has numbered.
    #[must_use]
    pub fn values(&self, number: u32) -> Option<&[Value]> {
        self.contents.get(number as usize).map(Vec::as_slice)
    }

    /// Remembers, if there is room, what recovery from a state showed.
    pub fn show(&mut self, key: u64, contents: u32) {
        if self.shown.len() < self.keys_max {
            self.shown.insert(key, contents);
        }
    }

    /// What recovery from a state showed, if that is remembered.
    #[must_use]
    pub fn shown(&self, key: u64) -> Option<u32> {
        self.shown.get(&key).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_full_memory_is_unsure_and_never_counts_twice() {
        let mut memory = Memory::new(2);
        assert_eq!(memory.look(7), Seen::New);
        assert_eq!(memory.look(7), Seen::Before);
        assert_eq!(memory.look(8), Seen::New);
        assert_eq!(memory.look(9), Seen::Unsure);
        assert_eq!(memory.look(9), Seen::Unsure);
        assert_eq!(memory.look(8), Seen::Before);
    }
}
