//! What the kernel and the host runner agree on: words, names of files, and what is in them.
//!
//! The runner compiles this same file (examples/boot/src/main.rs), so the two cannot drift apart.
//! It uses nothing but `core`.

/// How the kernel's first line begins.
pub(crate) const GREETING: &str = "fvd unikernel";

/// How the line begins that says, in words `name=value`, what was done.
pub(crate) const REPORT: &str = "report:";

/// How the lines begin that say, in words `name=value`, what requests of one kind took (`count`).
pub(crate) const COUNTED: &str = "counted:";

/// Words `name=value` of the kernel's command line.
pub(crate) mod option {
    /// A number from which all contents are derived.
    pub(crate) const SEED: &str = "seed";
    /// `offset+bytes`: a part of [`TARGET`](super::TARGET) on the disk, in the order of the file.
    pub(crate) const EXTENT: &str = "extent";
    /// `from+count`: instead of all else, verify the disk and send these requests (`promise`).
    pub(crate) const LOAD: &str = "load";
    /// `from+count`: requests that are durable.
    pub(crate) const DURABLE: &str = "durable";
    /// Instead of all else, count what requests take (`cases`); any value.
    pub(crate) const COUNT: &str = "count";
}

/// How the lines begin on which the kernel tells how far it is with the requests of [`option::LOAD`].
pub(crate) mod event {
    /// It opens the image, which recovers it.
    pub(crate) const OPENING: &str = "opening";
    pub(crate) const OPENED: &str = "opened";
    /// Every sector holds what it must.
    pub(crate) const VERIFIED: &str = "verified";
    /// No request from this number on was sent.
    pub(crate) const LIMIT: &str = "limit";
    /// Everything that was sent below this number is durable.
    pub(crate) const FLUSHED: &str = "flushed";
    /// The request of this number is durable by itself.
    pub(crate) const DURABLE: &str = "durable";
    /// It closes the image; nothing is in flight.
    pub(crate) const CLOSING: &str = "closing";
    /// Everything is durable.
    pub(crate) const CLOSED: &str = "closed";
}

/// Lists files of the base, one a line: SHA-256 in hexadecimal, two spaces, path.
pub(crate) const MANIFEST: &str = "MANIFEST";

/// The file of the base whose sectors the kernel overwrites behind the file system's back.
pub(crate) const TARGET: &str = "BIG.BIN";

/// The files that the kernel makes, with their sizes in bytes: nothing, less than a sector, exactly
/// one, whole clusters and not, far more than a copy-on-write block; in the root, in new
/// directories, and in one of the base.
pub(crate) const NEW_FILES: [(&str, u64); 9] = [
    ("NEW.BIN", 12_345),
    ("GUEST/EMPTY.BIN", 0),
    ("GUEST/BYTE.BIN", 1),
    ("GUEST/SECTOR.BIN", 512),
    ("GUEST/CLUSTER.BIN", 16_384),
    ("GUEST/ODD.BIN", 4_321),
    ("GUEST/LARGE.BIN", 1_572_871),
    ("GUEST/SUB/DEEP.BIN", 70_000),
    ("docs/GUEST.BIN", 100_003),
];

/// What a new file is filled with.
pub(crate) fn new_file_pattern(seed: u64, path: &str) -> Pattern {
    Pattern::new(seed, path, 0)
}

/// What [`TARGET`] is filled with by the `round`th overwriting, from 1. The host leaves round 0.
pub(crate) fn target_pattern(seed: u64, round: u64) -> Pattern {
    Pattern::new(seed, TARGET, round)
}

/// The round whose contents stay in [`TARGET`].
pub(crate) const LAST_TARGET_ROUND: u64 = 2;

/// Endless bytes that look random and can be computed at any position, so that they can be written
/// and checked in any order.
#[derive(Clone, Copy)]
pub(crate) struct Pattern {
    key: u64,
}

/// 2^64 divided by the golden ratio: consecutive multiples differ in many bits.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finishing step of the SplitMix64 generator: spreads every bit of `x` over all bits.
const fn mix(x: u64) -> u64 {
    let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    x ^ (x >> 31)
}

impl Pattern {
    /// The pattern of a name: other seeds, names or rounds have other patterns.
    pub(crate) fn new(seed: u64, name: &str, round: u64) -> Pattern {
        let start = mix(seed.wrapping_add(GOLDEN)) ^ round.wrapping_mul(GOLDEN);
        let key = name
            .bytes()
            .fold(start, |key, byte| mix(key ^ u64::from(byte)));
        Pattern { key }
    }

    /// The eight bytes from position `index * 8`.
    fn word(self, index: u64) -> [u8; 8] {
        mix(self.key.wrapping_add(index.wrapping_mul(GOLDEN))).to_le_bytes()
    }

    /// Writes the bytes from `position` on to `target`.
    pub(crate) fn fill(self, position: u64, target: &mut [u8]) {
        let (mut index, skip) = (position / 8, (position % 8) as usize);
        let (head, rest) = target.split_at_mut(target.len().min((8 - skip) % 8));
        if !head.is_empty() {
            head.copy_from_slice(&self.word(index)[skip..skip + head.len()]);
            index += 1;
        }
        for piece in rest.chunks_mut(8) {
            piece.copy_from_slice(&self.word(index)[..piece.len()]);
            index += 1;
        }
    }
}
