//! Real crashes: a process that writes to an image is killed at a random moment, and the image must
//! hold what was flushed.
//!
//! ```text
//! parent                                         child (the same program, started again)
//! ──────                                         ─────
//! makes an image, starts the child ────────────► opens the image, recovers it
//! notes what the child says      ◄── "submit 7" ─ says what it will do, then does it
//!                                ◄── "done 7" ─── says what is over
//! SIGKILL ─────────────────────────────────────► ✝
//! opens the image, reads every sector, holds it against the notes; the next child goes on from here
//! ```
//!
//! The page cache survives the child. So this proves that the adapter and the engine hand over what
//! they promised before they say so, and that recovery finds it, on real files with real threads. It
//! says nothing about barriers: a missing flush shows only when power is lost, which is the
//! simulator's job (`tests/sim`).
//!
//! | file | its one job |
//! | --- | --- |
//! | `message` | what the child says |
//! | `stamp` | what a sector holds |
//! | `ground` | the kinds of image: made, opened |
//! | `load` | the child |
//! | `notes` | what each sector may hold |
//! | `round` | the parent: one life of a child, and the look at what it left |
//! | `campaign` | many rounds, and what they came to |
#![allow(dead_code, unreachable_pub)] // shared by a test and an example, each of which uses a part

pub mod campaign;
mod ground;
mod load;
mod message;
mod notes;
mod round;
mod stamp;

pub use load::serve_if_asked;

/// Repeatable noise (SplitMix64).
pub struct Noise(u64);

impl Noise {
    pub fn new(seed: u64) -> Noise {
        Noise(seed)
    }

    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let x = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        x ^ (x >> 31)
    }

    /// A number below `limit`, which is not 0.
    pub fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }
}
