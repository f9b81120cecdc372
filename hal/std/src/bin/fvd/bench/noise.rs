//! Numbers that look like nothing in particular, the same for the same seed.

use std::fs::File;
use std::io::Write;
use std::path::Path;

use crate::failure::{Doing, Failure};
use crate::output::Shown;

/// xorshift64.
pub(super) struct Noise(u64);

impl Noise {
    pub(super) fn new(seed: u32) -> Noise {
        Noise(0x9E37_79B9_7F4A_7C15 ^ (u64::from(seed) << 32))
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub(super) fn fill(&mut self, bytes: &mut [u8]) {
        for word in bytes.chunks_mut(8) {
            word.copy_from_slice(&self.next().to_le_bytes()[..word.len()]);
        }
    }
}

/// Writes a file that nothing can store in less.
pub(super) fn write_file(path: &Path, bytes: u64) -> Result<(), Failure> {
    let cannot = || format!("cannot write {}", Shown(path));
    let mut file = File::create(path).doing(cannot)?;
    let mut noise = Noise::new(0);
    let mut piece = vec![0; 1 << 20];
    let mut left = bytes;
    while left != 0 {
        noise.fill(&mut piece);
        let count = left.min(piece.len() as u64);
        file.write_all(&piece[..count as usize]).doing(cannot)?;
        left -= count;
    }
    file.sync_all().doing(cannot)
}
