//! What the simulation writes, so that every sector tells where it came from.
//!
//! A guest sector holds a *stamp*: a pattern over all its bytes made from the sector's number and a
//! [`Value`]. Reading it back therefore shows lost writes, misplaced writes and torn sectors alike.

use core::fmt;

use crate::sector::{SECTOR, mix, word};

/// Values from here to 2^30 further are random bytes.
const GARBAGE: u32 = 1 << 31;

/// What a guest sector can legally hold.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Value(u32);

impl Value {
    /// Zeros.
    pub const ZERO: Value = Value(0);
    /// What the base holds there.
    pub const BASE: Value = Value(1);
    /// What a writer put there that had the disk before.
    pub const EARLIER: Value = Value(1 << 30);

    /// What the guest's `index`-th write of the run put there, counted from 0.
    #[must_use]
    pub const fn written(index: u32) -> Value {
        Value(index + 2)
    }

    /// Nothing that can be read: the device has lost it (tear models T2 and T4).
    pub const LOST: Value = Value(u32::MAX);

    /// Random bytes that begin with `first` (tear model T3).
    #[must_use]
    pub const fn garbage(first: u64) -> Value {
        Value(GARBAGE | first as u32 >> 2)
    }

    /// Whether the value is random bytes.
    #[must_use]
    pub const fn is_garbage(self) -> bool {
        self.0 >> 30 == 2
    }

    /// The value as a number, for hashes.
    #[must_use]
    pub const fn number(self) -> u32 {
        self.0
    }
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Value::ZERO => f.write_str("zeros"),
            Value::BASE => f.write_str("base"),
            Value::EARLIER => f.write_str("earlier"),
            Value::LOST => f.write_str("an error"),
            Value(number) if self.is_garbage() => write!(f, "garbage {number:#x}"),
            Value(number) => write!(f, "write#{}", number - 2),
        }
    }
}

/// Marks a stamp; the low word of the first eight bytes is the value.
const GUEST_MARK: u64 = 0x7644_4647_0000_0000; // "GFDv"

/// Marks bytes that must never reach a guest: what an earlier tenant left on the device.
const SECRET_MARK: u64 = 0x4352_4553_0000_0000; // "SERC"

/// Fills memory that an engine has not written yet. A sector that carries it to a device leaks host
/// memory.
pub const CANARY: u64 = 0xC5C5_C5C5_C5C5_C5C5;

fn pattern(first: u64, seed: u64) -> [u8; SECTOR] {
    let mut bytes = [0; SECTOR];
    let mut state = mix(first, seed);
    for (index, slot) in bytes.chunks_exact_mut(8).enumerate() {
        let value = if index == 0 { first } else { state | 1 };
        slot.copy_from_slice(&value.to_le_bytes());
        state = state
            .wrapping_mul(0x5851_F42D_4C95_7F2D)
            .wrapping_add(seed | 1);
    }
    bytes
}

/// The bytes of a value at a guest sector.
#[must_use]
pub fn stamp(value: Value, sector: u64) -> [u8; SECTOR] {
    if value == Value::ZERO {
        return [0; SECTOR];
    }
    pattern(GUEST_MARK | u64::from(value.0), sector)
}

/// What the `sector`-th sector of a used device holds before anybody writes to it.
#[must_use]
pub fn secret(device: u64, sector: u64) -> [u8; SECTOR] {
    pattern(SECRET_MARK | (sector & 0xFFFF_FFFF), device)
}

/// The value that a guest sector holds, or what it looks like if it is none.
///
/// # Errors
/// A description of foreign content, for people.
pub fn read_stamp(bytes: &[u8], sector: u64) -> Result<Value, Foreign> {
    let first = word(bytes);
    if first == 0 && bytes.iter().all(|byte| *byte == 0) {
        return Ok(Value::ZERO);
    }
    let value = Value(first as u32);
    if first & !0xFFFF_FFFF == GUEST_MARK && value != Value::ZERO {
        if bytes == stamp(value, sector) {
            return Ok(value);
        }
        return Err(Foreign::Misplaced(value));
    }
    if first & !0xFFFF_FFFF == SECRET_MARK {
        return Err(Foreign::Secret(first & 0xFFFF_FFFF));
    }
    if bytes.chunks_exact(8).any(|slot| word(slot) == CANARY) {
        return Err(Foreign::Canary);
    }
    Err(Foreign::Garbage(first))
}

/// Content that no guest should ever see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Foreign {
    /// The stamp of another sector, or a torn one.
    Misplaced(Value),
    /// What an earlier tenant left in this device sector.
    Secret(u64),
    /// Memory that nobody filled.
    Canary,
    /// None of these; the first eight bytes.
    Garbage(u64),
}

impl fmt::Display for Foreign {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Foreign::Misplaced(value) => write!(f, "{value:?} of another sector, or torn"),
            Foreign::Secret(sector) => write!(f, "an earlier tenant's data (sector {sector})"),
            Foreign::Canary => f.write_str("memory that nobody filled"),
            Foreign::Garbage(first) => write!(f, "garbage starting {first:#018x}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_reads_back_only_where_it_belongs() {
        for value in [Value::ZERO, Value::BASE, Value::written(5)] {
            assert_eq!(read_stamp(&stamp(value, 9), 9), Ok(value));
        }
        let bytes = stamp(Value::written(5), 9);
        let misplaced = Err(Foreign::Misplaced(Value::written(5)));
        assert_eq!(read_stamp(&bytes, 10), misplaced);
        let mut torn = bytes;
        torn[504] ^= 1;
        assert_eq!(read_stamp(&torn, 9), misplaced);
    }

    #[test]
    fn foreign_content_is_named() {
        assert_eq!(read_stamp(&secret(0, 3), 3), Err(Foreign::Secret(3)));
        assert_eq!(read_stamp(&[0xC5; SECTOR], 3), Err(Foreign::Canary));
        let mut late = [0; SECTOR];
        late[511] = 1;
        assert_eq!(read_stamp(&late, 3), Err(Foreign::Garbage(0)));
    }
}
