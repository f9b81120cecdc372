//! Bits of the base bitmap: which blocks of the base have moved into FVD (SPEC.md §5).
//!
//! Bit `n` is bit `n % 8` of byte `n / 8`, least significant first. 0 = the block is still in the
//! base, 1 = it is in FVD. The engine handles bits by chunk: up to 16 at a time, as one `u16` whose
//! least significant bit is the chunk's first block.

use super::error::{Field, FormatError};

/// Most blocks of one chunk, so that a chunk's bits fit the `u16` of a journal record.
pub const GROUP_BLOCKS_MAX: u32 = 16;

/// A mask of the lowest `count` bits; 16 or more give all of them.
#[must_use]
pub const fn group_mask(count: u32) -> u16 {
    match u16::MAX.checked_shl(count) {
        Some(above) => !above,
        None => u16::MAX,
    }
}

/// How many of the `count` blocks from `first_block` the bitmap holds, when it has
/// `bitmap_blocks` bits.
#[must_use]
pub fn group_len(first_block: u64, count: u32, bitmap_blocks: u64) -> u32 {
    let left = bitmap_blocks.saturating_sub(first_block);
    u32::try_from(left)
        .unwrap_or(u32::MAX)
        .min(count)
        .min(GROUP_BLOCKS_MAX)
}

/// Reads the bits of `count` blocks (at most 16) from `first_block`; bits past the end read 0.
#[must_use]
pub fn read_group(bitmap: &[u8], first_block: u64, count: u32) -> u16 {
    let (window, shift) = load_window(bitmap, first_block);
    let bits = u32::from_le_bytes(window).wrapping_shr(shift) & u32::from(group_mask(count));
    u16::try_from(bits).unwrap_or(0)
}

/// Writes the low `count` bits (at most 16) of `bits` from `first_block` on and leaves the others
/// alone; bits past the end are dropped.
pub fn write_group(bitmap: &mut [u8], first_block: u64, count: u32, bits: u16) {
    let (window, shift) = load_window(bitmap, first_block);
    let mask = u32::from(group_mask(count)).wrapping_shl(shift);
    let bits = u32::from(bits).wrapping_shl(shift) & mask;
    let window = (u32::from_le_bytes(window) & !mask | bits).to_le_bytes();
    for (target, source) in tail_mut(bitmap, first_block).iter_mut().zip(window).take(3) {
        *target = source;
    }
}

/// One bit; past the end it reads 0, "in the base".
#[must_use]
pub fn read_bit(bitmap: &[u8], block: u64) -> bool {
    read_group(bitmap, block, 1) == 1
}

/// Sets one bit; past the end nothing happens.
pub fn set_bit(bitmap: &mut [u8], block: u64) {
    write_group(bitmap, block, 1, 1);
}

/// How many bits from `first` on, up to `end`, are like the first one; at least 1 if there is any.
#[must_use]
pub fn run_len(bitmap: &[u8], first: u64, end: u64) -> u64 {
    let set = read_bit(bitmap, first);
    let mut at = first;
    while at < end {
        let count = group_len(at, GROUP_BLOCKS_MAX, end);
        let bits = read_group(bitmap, at, count);
        let other = if set { !bits } else { bits };
        let same = other.trailing_zeros().min(count);
        at = at.saturating_add(u64::from(same));
        if same < count {
            break;
        }
    }
    at.saturating_sub(first)
}

/// Sets the bits from `first` up to `end`. Returns whether one was clear.
pub fn set_range(bitmap: &mut [u8], first: u64, end: u64) -> bool {
    let mut changed = false;
    let mut at = first;
    while at < end {
        let count = group_len(at, GROUP_BLOCKS_MAX, end);
        let mask = group_mask(count);
        changed |= read_group(bitmap, at, count) != mask;
        write_group(bitmap, at, count, mask);
        at = at.saturating_add(u64::from(count));
    }
    changed
}

/// How many of the bits below `end` are set.
#[must_use]
pub fn count_set(bitmap: &[u8], end: u64) -> u64 {
    let mut total: u64 = 0;
    let mut at = 0;
    while at < end {
        let count = group_len(at, GROUP_BLOCKS_MAX, end);
        total = total.saturating_add(u64::from(read_group(bitmap, at, count).count_ones()));
        at = at.saturating_add(u64::from(count));
    }
    total
}

/// Checks that bits at and above `bitmap_blocks` are zero in page `page_index` of the bitmap.
///
/// # Errors
///
/// `Corrupt` with the first byte that has such a bit: a bit beyond the base could become the state
/// of a block that a later resize adds.
pub fn check_page(page: &[u8], page_index: u32, bitmap_blocks: u64) -> Result<(), FormatError> {
    let first = u64::from(page_index).saturating_mul(super::PAGE_BYTES_U64.saturating_mul(8));
    let blocks = bitmap_blocks.saturating_sub(first);
    let whole = usize::try_from(blocks >> 3).unwrap_or(usize::MAX);
    for (index, byte) in page.iter().enumerate().skip(whole) {
        let kept = if index == whole {
            group_mask(u32::try_from(blocks & 7).unwrap_or(0))
        } else {
            0
        };
        if u16::from(*byte) & !kept != 0 {
            return Err(FormatError::corrupt(Field::BitmapTail, u64::from(*byte)));
        }
    }
    Ok(())
}

/// Clears bits at and above `bitmap_blocks`, where [`check_page`] wants zeros.
pub fn clear_tail(bitmap: &mut [u8], bitmap_blocks: u64) {
    let whole = usize::try_from(bitmap_blocks >> 3).unwrap_or(usize::MAX);
    for (index, byte) in bitmap.iter_mut().enumerate().skip(whole) {
        let kept = if index == whole {
            group_mask(u32::try_from(bitmap_blocks & 7).unwrap_or(0))
        } else {
            0
        };
        *byte &= u8::try_from(kept).unwrap_or(0);
    }
}

/// Up to three bytes from the one that holds `first_block`, and that block's bit in them.
fn load_window(bitmap: &[u8], first_block: u64) -> ([u8; 4], u32) {
    let mut window = [0; 4];
    let bytes = usize::try_from(first_block >> 3)
        .ok()
        .and_then(|start| bitmap.get(start..));
    for (target, source) in window.iter_mut().zip(bytes.unwrap_or(&[])).take(3) {
        *target = *source;
    }
    (window, u32::try_from(first_block & 7).unwrap_or(0))
}

fn tail_mut(bitmap: &mut [u8], first_block: u64) -> &mut [u8] {
    let start = usize::try_from(first_block >> 3).ok();
    start
        .and_then(|start| bitmap.get_mut(start..))
        .unwrap_or(&mut [])
}
