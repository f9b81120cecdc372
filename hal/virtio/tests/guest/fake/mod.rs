//! A platform, a transport and a device in software, stricter than real ones.
//!
//! * [`hal`]: device addresses have nothing to do with pointers, are never reused, and are only
//!   valid while allocated or shared, in the direction they were shared for.
//! * [`registers`]: panics if the driver takes a step of the initialisation out of order.
//! * [`device`]: walks descriptors itself, panics at any chain that the specification does not
//!   allow, and finishes requests late and in random order.
//! * [`bench`](mod@bench): ops, leases and what the disk should hold.

pub(crate) mod bench;
pub(crate) mod chain;
pub(crate) mod device;
pub(crate) mod hal;
pub(crate) mod registers;

/// A small generator of pseudo-random numbers, so that a run is a function of its seed.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Random {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        (self.next() >> 16) % bound
    }

    /// True once in `times` calls, on average.
    pub(crate) fn one_in(&mut self, times: u64) -> bool {
        self.below(times) == 0
    }

    pub(crate) fn fill(&mut self, bytes: &mut [u8]) {
        for chunk in bytes.chunks_mut(8) {
            let word = self.next().to_le_bytes();
            chunk.copy_from_slice(&word[..chunk.len()]);
        }
    }
}
