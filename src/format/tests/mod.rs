//! Tests of the format layer as a whole.
//!
//! Slots are built by the writer and then changed byte by byte at the offsets of SPEC.md, so that a
//! field read from the wrong place can not go unnoticed. CRCs are made by a second, bit-by-bit
//! implementation.
#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

extern crate std;

mod fields;
mod header;
mod journal;
mod layout;
mod noise;
mod pages;
mod records;
mod regions;
mod rules;
mod slots;
mod spec;

use core::num::NonZeroU64;
use std::string::ToString;
use std::vec::Vec;

use super::*;

const ID: ImageId = ImageId(*b"0123456789abcdef");

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;

/// A disk with everything: table, base with bitmap, page checksums, a used store of 8 chunks.
///
/// ```text
///   8192 table 12288 bitmap 16384 checksums A 20480 B 24576 journal 90112 .. 1 MiB chunks 9 MiB
/// ```
fn full_params() -> CreateParams {
    CreateParams {
        base: Some(base_params(5 * MIB)),
        store: StoreChoice::FixedZeroed {
            device_bytes: 9 * MIB,
        },
        grow_bytes: NonZeroU64::new(2 * MIB),
        ..CreateParams::new(10 * MIB, ID)
    }
}

fn base_params(bytes: u64) -> BaseParams {
    BaseParams {
        name: Name::new(b"base.raw").unwrap(),
        format: FormatName::new(b"raw").unwrap(),
        bytes,
        id: [7; 16],
        generation: 3,
    }
}

/// Raw-like: no table, no base, no journal.
fn plain_params() -> CreateParams {
    CreateParams {
        table: false,
        ..CreateParams::new(10 * MIB, ID)
    }
}

fn slot_of(params: &CreateParams) -> [u8; SLOT_BYTES] {
    encoded(&plan_layout(params).expect("a legal image"))
}

fn encoded(header: &Header) -> [u8; SLOT_BYTES] {
    let mut slot = [0xEE; SLOT_BYTES];
    header.encode(&mut slot).expect("a legal header");
    slot
}

fn parse(slot: &[u8]) -> Result<Header, FormatError> {
    Header::parse(slot, &Limits::FORMAT)
}

/// Puts bytes at an offset and makes the CRC right again.
fn with(slot: &[u8; SLOT_BYTES], offset: usize, bytes: &[u8]) -> [u8; SLOT_BYTES] {
    let mut slot = *slot;
    slot[offset..offset + bytes.len()].copy_from_slice(bytes);
    reseal(&mut slot);
    slot
}

fn with_u64(slot: &[u8; SLOT_BYTES], offset: usize, value: u64) -> [u8; SLOT_BYTES] {
    with(slot, offset, &value.to_le_bytes())
}

fn with_u32(slot: &[u8; SLOT_BYTES], offset: usize, value: u32) -> [u8; SLOT_BYTES] {
    with(slot, offset, &value.to_le_bytes())
}

fn reseal(slot: &mut [u8; SLOT_BYTES]) {
    let crc = slow_crc32c(&[&slot[..4092]]);
    slot[4092..].copy_from_slice(&crc.to_le_bytes());
}

/// CRC-32C one bit at a time, straight from the polynomial.
fn slow_crc32c(pieces: &[&[u8]]) -> u32 {
    let mut crc = u32::MAX;
    for byte in pieces.iter().copied().flatten() {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0x82F6_3B78 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

/// A small generator for noise that is the same in every run.
struct Noise(u64);

impl Noise {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// A number that likes to sit on an edge.
    fn edgy(&mut self) -> u64 {
        let power = 1_u64 << self.below(64);
        match self.below(6) {
            0 => power,
            1 => power.wrapping_sub(1),
            2 => power.wrapping_add(1),
            3 => u64::MAX - self.below(3),
            4 => self.below(32) * 512,
            _ => self.next(),
        }
    }

    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            *byte = self.next().to_le_bytes()[7];
        }
    }
}
