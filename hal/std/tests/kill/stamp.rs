//! What a sector holds: a pattern that tells who wrote it, and where it belongs.

use core::fmt;

pub const SECTOR: usize = 512;

/// What a sector holds: zeros, the base, or what request `id` wrote.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Value(pub u32);

impl Value {
    pub const ZERO: Value = Value(0);
    pub const BASE: Value = Value(1);
}

/// The first id of a request: smaller ones are values of their own.
pub const FIRST_ID: u32 = 2;

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Value::ZERO => f.write_str("zeros"),
            Value::BASE => f.write_str("the base"),
            Value(id) => write!(f, "request {id}"),
        }
    }
}

/// Fills a sector.
pub fn write(value: Value, sector: u32, bytes: &mut [u8]) {
    if value == Value::ZERO {
        bytes.fill(0);
        return;
    }
    let name = u64::from(value.0) << 32 | u64::from(sector);
    let mut noise = super::Noise::new(name);
    for (index, word) in bytes.chunks_exact_mut(8).enumerate() {
        let number = if index == 0 { name } else { noise.next() };
        word.copy_from_slice(&number.to_le_bytes());
    }
}

/// What a sector holds. An error says what it looks like if it is nothing that was ever written
/// there.
pub fn read(bytes: &[u8], sector: u32) -> Result<Value, String> {
    if bytes.iter().all(|byte| *byte == 0) {
        return Ok(Value::ZERO);
    }
    let mut first = [0; 8];
    first.copy_from_slice(&bytes[..8]);
    let name = u64::from_le_bytes(first);
    let value = Value((name >> 32) as u32);
    let mut expected = [0; SECTOR];
    write(value, sector, &mut expected);
    if bytes == expected {
        return Ok(value);
    }
    Err(format!(
        "foreign, or torn: it begins like {value} at sector {}",
        name & 0xFFFF_FFFF
    ))
}
