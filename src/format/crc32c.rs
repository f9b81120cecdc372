//! CRC-32C (Castagnoli), the one checksum of the format (SPEC.md §1.3).
//!
//! The sixteen-lane table costs 16 KiB of read-only data and takes about a sixteenth of the steps
//! of the plain one. A checkpoint sums every page it writes, so the speed is worth the space.
//!
//! The table and the parameters are the `crc` crate's. The loop over it is our own, since that of
//! the crate keeps bounds checks in the binary, and the core must not be able to panic
//! (tests/panic_free.rs).

use crc::{CRC_32_ISCSI, Crc, Table};

// A static, not a const: a const would copy the table to every place of use.
static CRC_32C: Crc<u32, Table<16>> = Crc::<u32, Table<16>>::new(&CRC_32_ISCSI);

/// A running CRC-32C over pieces that are not adjacent in memory.
pub(super) struct Crc32c(u32);

impl Crc32c {
    /// A checksum over nothing yet.
    pub(super) fn new() -> Crc32c {
        Crc32c(CRC_32_ISCSI.init)
    }

    /// Adds `bytes` to the end of what is summed.
    pub(super) fn and(self, bytes: &[u8]) -> Crc32c {
        Crc32c(update(self.0, bytes))
    }

    /// The checksum of everything added.
    pub(super) fn finish(self) -> u32 {
        self.0 ^ CRC_32_ISCSI.xorout
    }
}

/// CRC-32C of one run of bytes.
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    Crc32c::new().and(bytes).finish()
}

/// What the checksum of a message changes by when a word of it changes by `change`, with so many
/// 32-bit words behind it; both under exclusive or. Start and end of a CRC cancel out of a difference,
/// and so do the bytes that stay: what is left is the word, carried on through zeros.
pub(super) fn difference(change: u32, words_behind: u32) -> u32 {
    let mut state = update(0, &change.to_le_bytes());
    let (mut left, mut power) = (words_behind, WORD_OF_ZEROS);
    // One turn per bit of the distance.
    for _ in 0..u32::BITS {
        if left == 0 {
            break;
        }
        if left & 1 != 0 {
            state = times(state, power);
        }
        left >>= 1;
        power = times(power, power);
    }
    state
}

/// The polynomial as a reflected CRC has it: that of `CRC_32_ISCSI`, its bits in the other order.
const POLYNOMIAL: u32 = CRC_32_ISCSI.poly.reverse_bits();

/// x^32 modulo the polynomial: four bytes of zeros carried through. The state's lowest bit is its
/// highest power, so what x^32 leaves is the polynomial without it.
const WORD_OF_ZEROS: u32 = POLYNOMIAL;

/// The product of two states modulo the polynomial.
fn times(a: u32, mut b: u32) -> u32 {
    let mut product = 0;
    for bit in (0..u32::BITS).rev() {
        if a.wrapping_shr(bit) & 1 != 0 {
            product ^= b;
        }
        let carry = if b & 1 != 0 { POLYNOMIAL } else { 0 };
        b = (b >> 1) ^ carry;
    }
    product
}

fn update(mut state: u32, bytes: &[u8]) -> u32 {
    let tables = CRC_32C.table();
    let (blocks, rest) = bytes.as_chunks::<16>();
    for block in blocks {
        // The first byte of a block is furthest from its end, so it takes the last table.
        let mixed = u128::from_le_bytes(*block) ^ u128::from(state);
        state = mixed
            .to_le_bytes()
            .into_iter()
            .zip(tables.iter().rev())
            .fold(0, |sum, (byte, table)| sum ^ entry(table, byte));
    }
    let [plain, ..] = tables;
    for byte in rest {
        let [low, ..] = state.to_le_bytes();
        state = entry(plain, low ^ byte) ^ (state >> 8);
    }
    state
}

/// A byte is always inside a table of 256, which the compiler sees.
fn entry(table: &[u32; 256], byte: u8) -> u32 {
    table.get(usize::from(byte)).copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn check_value_of_the_catalogue() {
        assert_eq!(crc32c(b"123456789"), 0xE306_9283);
        assert_eq!(
            Crc32c::new().and(b"1234").and(b"56789").finish(),
            0xE306_9283
        );
        assert_eq!(crc32c(&[0; 32]), 0x8A91_36AA);
    }

    #[test]
    fn a_changed_word_changes_the_checksum_by_the_difference() {
        let bytes = [0x5Au8; 4096];
        let before = crc32c(&bytes);
        for (word, behind) in (0..1024).zip((0..1024).rev()) {
            for change in [1, 0x8000_0000, 0xDEAD_BEEF, u32::MAX] {
                let mut changed = bytes;
                for place in changed.as_chunks_mut::<4>().0.iter_mut().skip(word).take(1) {
                    *place = (u32::from_le_bytes(*place) ^ change).to_le_bytes();
                }
                let wanted = crc32c(&changed);
                assert_eq!(
                    before ^ difference(change, behind),
                    wanted,
                    "{word} {change:#x}"
                );
            }
        }
        assert_eq!(difference(0, 77), 0);
    }

    #[test]
    fn every_length_and_split_gives_the_value_of_the_crate() {
        let mut bytes = [0u8; 67];
        for (byte, value) in bytes
            .iter_mut()
            .zip((0u8..).map(|i| i.wrapping_mul(151) ^ 0x5A))
        {
            *byte = value;
        }
        for len in 0..=bytes.len() {
            let (bytes, _) = bytes.split_at(len);
            let wanted = CRC_32C.checksum(bytes);
            assert_eq!(crc32c(bytes), wanted, "{len} bytes");
            for at in 0..=len {
                let (head, tail) = bytes.split_at(at);
                let split = Crc32c::new().and(head).and(tail).finish();
                assert_eq!(split, wanted, "{len} bytes split at {at}");
            }
        }
    }
}
