//! Contents of sectors, each stored once.
//!
//! A crash simulator forks the disk for every state it looks at. Here a disk is a list of
//! [`SectorId`]s into one shared [`Sectors`] store, so a fork copies four bytes per sector, two
//! images are equal when their lists are, and a sector that thousands of states share exists once.
//!
//! Invariants:
//! 1. Two different ids never name equal contents, so comparing ids compares contents.
//! 2. `hashes[id]` is a function of the contents alone, so hashes of images stay comparable after
//!    [`Sectors::truncate`] has given ids new meanings.

use core::cell::RefCell;
use std::rc::Rc;

/// Bytes in a sector: the granule of all simulated storage.
pub const SECTOR: usize = 512;

/// Names the contents of one sector.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SectorId(u32);

impl SectorId {
    /// All bytes zero.
    pub const ZERO: SectorId = SectorId(0);

    /// Contents that the medium has lost: reading the sector is an error (tear model T2).
    pub const UNREADABLE: SectorId = SectorId(u32::MAX);

    fn index(self) -> usize {
        self.0 as usize
    }
}

/// The store of all contents of one simulation, shared by its disks.
pub type SharedSectors = Rc<RefCell<Sectors>>;

/// Every distinct sector seen so far.
pub struct Sectors {
    bytes: Vec<[u8; SECTOR]>,
    hashes: Vec<u64>,
    /// Open addressing over `hashes`: id + 1, or 0 for a free place. A power of two long.
    places: Vec<u32>,
}

impl Default for Sectors {
    fn default() -> Sectors {
        Sectors::new()
    }
}

impl Sectors {
    /// A store that knows only the zero sector.
    #[must_use]
    pub fn new() -> Sectors {
        let mut sectors = Sectors {
            bytes: Vec::new(),
            hashes: Vec::new(),
            places: vec![0; 1 << 12],
        };
        sectors.intern(&[0; SECTOR]);
        sectors
    }

    /// An empty store that several disks can share.
    #[must_use]
    pub fn shared() -> SharedSectors {
        Rc::new(RefCell::new(Sectors::new()))
    }

    /// Distinct sectors stored.
    #[must_use]
    pub fn len(&self) -> usize {
        self.bytes.len()
    }

    /// Never true: the zero sector is always there.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }

    /// The id for these contents, and whether they are new.
    pub fn intern(&mut self, bytes: &[u8; SECTOR]) -> (SectorId, bool) {
        let hash = hash_sector(bytes);
        let mask = self.places.len() - 1;
        let mut place = hash as usize & mask;
        loop {
            match self.places[place] {
                0 => break,
                found => {
                    let index = found as usize - 1;
                    if self.hashes[index] == hash && self.bytes[index] == *bytes {
                        return (SectorId(index as u32), false);
                    }
                }
            }
            place = (place + 1) & mask;
        }
        let id = self.bytes.len() as u32;
        self.places[place] = id + 1;
        self.bytes.push(*bytes);
        self.hashes.push(hash);
        if self.bytes.len() * 2 > self.places.len() {
            self.rebuild(self.places.len() * 2);
        }
        (SectorId(id), true)
    }

    /// The contents behind an id; `None` if they are [`SectorId::UNREADABLE`].
    #[must_use]
    pub fn get(&self, id: SectorId) -> Option<&[u8; SECTOR]> {
        self.bytes.get(id.index())
    }

    /// A hash of the contents, the same in every run.
    #[must_use]
    pub fn hash(&self, id: SectorId) -> u64 {
        self.hashes.get(id.index()).copied().unwrap_or(u64::MAX)
    }

    /// Forgets every id made since the store held `len` sectors. Whoever still holds one of them
    /// would see other contents: call it only between runs.
    pub fn truncate(&mut self, len: usize) {
        self.bytes.truncate(len.max(1));
        self.hashes.truncate(len.max(1));
        self.rebuild(self.places.len());
    }

    fn rebuild(&mut self, places: usize) {
        self.places.clear();
        self.places.resize(places, 0);
        let mask = places - 1;
        for (index, hash) in self.hashes.iter().enumerate() {
            let mut place = *hash as usize & mask;
            while self.places[place] != 0 {
                place = (place + 1) & mask;
            }
            self.places[place] = index as u32 + 1;
        }
    }
}

/// Mixes two words into one; every bit of both matters.
#[must_use]
pub fn mix(a: u64, b: u64) -> u64 {
    let wide = u128::from(a ^ 0x9E37_79B9_7F4A_7C15) * u128::from(b ^ 0xD1B5_4A32_D192_ED03);
    (wide as u64) ^ ((wide >> 64) as u64) ^ a.rotate_left(32)
}

fn hash_sector(bytes: &[u8; SECTOR]) -> u64 {
    let mut hash = 0x2545_F491_4F6C_DD1D;
    for pair in bytes.chunks_exact(16) {
        hash = mix(hash ^ word(&pair[..8]), word(&pair[8..]));
    }
    hash
}

/// The little-endian word at the start of `bytes`.
pub(crate) fn word(bytes: &[u8]) -> u64 {
    let mut raw = [0; 8];
    raw.copy_from_slice(&bytes[..8]);
    u64::from_le_bytes(raw)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_contents_have_one_id() {
        let mut sectors = Sectors::new();
        assert_eq!(sectors.intern(&[0; SECTOR]), (SectorId::ZERO, false));
        let (a, fresh) = sectors.intern(&[1; SECTOR]);
        assert!(fresh);
        assert_eq!(sectors.intern(&[1; SECTOR]), (a, false));
        assert_ne!(sectors.intern(&[2; SECTOR]).0, a);
        assert_eq!(sectors.get(a), Some(&[1; SECTOR]));
        assert_eq!(sectors.get(SectorId::UNREADABLE), None);
    }

    #[test]
    fn truncation_forgets_and_reuses_ids() {
        let mut sectors = Sectors::new();
        let kept = sectors.intern(&[1; SECTOR]).0;
        let mark = sectors.len();
        let mut bytes = [0; SECTOR];
        for index in 0..10_000u32 {
            bytes[..4].copy_from_slice(&(index + 1).to_le_bytes());
            sectors.intern(&bytes);
        }
        let hash = sectors.hash(kept);
        sectors.truncate(mark);
        assert_eq!((sectors.len(), sectors.hash(kept)), (mark, hash));
        assert!(sectors.intern(&bytes).1, "forgotten");
        assert!(!sectors.intern(&[1; SECTOR]).1, "kept");
    }
}
