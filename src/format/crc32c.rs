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
