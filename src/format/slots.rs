//! Which dialect bytes speak, and which of two header slots counts (SPEC.md §3.4).
//!
//! Invariants:
//! 1. A slot is *valid* if its magics, its version and its CRC are right. Only a crash or damage
//!    makes one invalid, so the other slot stands in for an invalid one, and for nothing else.
//! 2. The valid slot of the highest generation is the header, even if it breaks a rule: falling
//!    back to an older root would silently undo what a newer one recorded.

use core::fmt;

use zerocopy::{FromBytes, IntoBytes};

use super::crc32c::crc32c;
use super::error::{Field, FormatError};
use super::header::{Header, Limits};
use super::raw::RawSlot;

/// `magic` of versions 1 and 2.
pub(super) const MAGIC_FVD: [u8; 4] = *b"FVD\0";
/// `magic` of the reference implementation.
const MAGIC_REFERENCE: [u8; 4] = [0xA9, 0xF5, 0x43, 0x51];
/// `ext_magic` of version 2.
pub(super) const MAGIC_EXTENSION: [u8; 4] = *b"FVD2";
/// `version` of the 2011 written specification.
pub(super) const VERSION_1: u32 = 1;
/// `version` of this format.
pub(super) const VERSION_2: u32 = 2;

/// One of the on-disk formats that share the name FVD.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Dialect {
    /// The reference implementation of 2011: magic `A9 F5 43 51`.
    Reference,
    /// The written specification of 2011: magic `FVD\0`, version 1.
    Spec2011,
    /// This format: magic `FVD\0`, version 2.
    Fvd2,
}

impl Dialect {
    /// Tells the dialect from the first 8 bytes of an image; `None` if it is none that we know.
    ///
    /// This is for images that were named as FVD. It is no test of what a disk holds: a guest can
    /// write these bytes into a raw disk.
    #[must_use]
    pub fn detect(start: &[u8]) -> Option<Dialect> {
        let magic = *start.first_chunk::<4>()?;
        let version = u32::from_le_bytes(*start.get(4..)?.first_chunk()?);
        match (magic, version) {
            (MAGIC_REFERENCE, _) => Some(Dialect::Reference),
            (MAGIC_FVD, VERSION_1) => Some(Dialect::Spec2011),
            (MAGIC_FVD, VERSION_2) => Some(Dialect::Fvd2),
            _ => None,
        }
    }

    /// The dialect that the value of a `magic` field belongs to, as far as that alone tells.
    pub(super) fn of_magic(value: u64) -> Option<Dialect> {
        let is = |magic| value == u64::from(u32::from_le_bytes(magic));
        if is(MAGIC_REFERENCE) {
            Some(Dialect::Reference)
        } else if is(MAGIC_FVD) {
            Some(Dialect::Fvd2)
        } else {
            None
        }
    }
}

impl fmt::Display for Dialect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Dialect::Reference => "the 2011 reference implementation",
            Dialect::Spec2011 => "the 2011 written specification",
            Dialect::Fvd2 => "FVD version 2",
        })
    }
}

/// One of the two header slots.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SlotIndex {
    /// The slot at byte 0.
    First,
    /// The slot at byte 4096.
    Second,
}

impl SlotIndex {
    /// First byte of the slot on the metadata device.
    #[must_use]
    pub const fn offset(self) -> u64 {
        match self {
            SlotIndex::First => 0,
            SlotIndex::Second => 4096,
        }
    }

    /// The other slot: the one that the next header write goes to.
    #[must_use]
    pub const fn other(self) -> SlotIndex {
        match self {
            SlotIndex::First => SlotIndex::Second,
            SlotIndex::Second => SlotIndex::First,
        }
    }
}

/// The header of an image and where it was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ChosenSlot {
    /// The header that counts.
    pub header: Header,
    /// The slot it was read from; the next header write goes to the other one.
    pub slot: SlotIndex,
    /// Whether the other slot holds a valid header too. If not, a lost sector more loses the image.
    pub other_valid: bool,
}

/// Picks the header out of both slots, 4096 bytes each as they were on the device.
///
/// # Errors
///
/// `Unsupported` if the image is of another dialect or version, named by the error; `Corrupt` if
/// neither slot is valid, or both are with one generation and different contents; otherwise what
/// [`Header::parse`] says about the slot that counts.
pub fn choose_slot(
    first: &[u8],
    second: &[u8],
    limits: &Limits,
) -> Result<ChosenSlot, FormatError> {
    refuse_foreign(first, second)?;
    let (slot, other_valid) = match (check_slot(first), check_slot(second)) {
        (Ok(a), Ok(b)) => (newer_slot(a, b)?, true),
        (Ok(_), Err(error)) if error.field == Field::HeaderSlot => return Err(error),
        (Ok(_), Err(_)) => (SlotIndex::First, false),
        (Err(_), Ok(_)) => (SlotIndex::Second, false),
        (Err(first), Err(second)) => return Err(explain(first, second)),
    };
    let bytes = match slot {
        SlotIndex::First => first,
        SlotIndex::Second => second,
    };
    Ok(ChosenSlot {
        header: Header::parse(bytes, limits)?,
        slot,
        other_valid,
    })
}

/// Refuses images of other dialects and later versions, even if one slot looks like ours.
///
/// Slot 0 is where every dialect starts, so another dialect there means that the image was made
/// anew and slot 1 is a left-over. A slot with our extension magic is one of ours whose first bytes
/// were damaged; unless its CRC is right, which makes it the work of a later version.
fn refuse_foreign(first: &[u8], second: &[u8]) -> Result<(), FormatError> {
    for slot in [first, second] {
        if let Ok(raw) = RawSlot::ref_from_bytes(slot)
            && raw.core.magic == MAGIC_FVD
            && raw.core.version.get() > VERSION_2
            && raw.crc.get() == slot_crc(raw)
        {
            let version = u64::from(raw.core.version.get());
            return Err(FormatError::unsupported(Field::Version, version));
        }
    }
    let damaged =
        RawSlot::ref_from_bytes(first).is_ok_and(|raw| raw.extension.ext_magic == MAGIC_EXTENSION);
    match Dialect::detect(first) {
        Some(Dialect::Reference | Dialect::Spec2011) if !damaged => check_start(first),
        _ => Ok(()),
    }
}

/// The slot of the higher generation; two that differ in nothing else can not both be right.
fn newer_slot(a: &RawSlot, b: &RawSlot) -> Result<SlotIndex, FormatError> {
    let (first, second) = (a.extension.generation.get(), b.extension.generation.get());
    if first == second && a.as_bytes() != b.as_bytes() {
        return Err(FormatError::corrupt(Field::Generation, first));
    }
    // An image id that differs between slots is no crash either: no header write changes it.
    if a.extension.image_id != b.extension.image_id {
        return Err(FormatError::corrupt(Field::ImageId, first.max(second)));
    }
    Ok(if second > first {
        SlotIndex::Second
    } else {
        SlotIndex::First
    })
}

/// One error for two invalid slots: damage to one of ours says more than what the other is not.
fn explain(first: FormatError, second: FormatError) -> FormatError {
    let damaged = |error: &FormatError| !matches!(error.field, Field::Magic | Field::Version);
    if !damaged(&first) && damaged(&second) && second.field != Field::HeaderSlot {
        second
    } else {
        first
    }
}

/// Checks length, magics, version and CRC: whether the slot is valid.
pub(super) fn check_slot(slot: &[u8]) -> Result<&RawSlot, FormatError> {
    let Ok(raw) = RawSlot::ref_from_bytes(slot) else {
        let length = u64::try_from(slot.len()).unwrap_or(u64::MAX);
        return Err(FormatError::corrupt(Field::HeaderSlot, length));
    };
    check_start(slot)?;
    if raw.crc.get() != slot_crc(raw) {
        return Err(FormatError::corrupt(
            Field::SlotCrc,
            u64::from(raw.crc.get()),
        ));
    }
    if raw.extension.ext_magic != MAGIC_EXTENSION {
        let found = u32::from_le_bytes(raw.extension.ext_magic);
        return Err(FormatError::corrupt(Field::ExtMagic, u64::from(found)));
    }
    Ok(raw)
}

/// Checks magic and version, the part that tells dialects apart.
fn check_start(slot: &[u8]) -> Result<(), FormatError> {
    let word = |start| {
        let bytes = slot.get(start..).and_then(<[u8]>::first_chunk::<4>);
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes))
    };
    let (magic, version) = (word(0), word(4));
    if magic != u32::from_le_bytes(MAGIC_FVD) {
        return Err(FormatError::unsupported(Field::Magic, u64::from(magic)));
    }
    if version != VERSION_2 {
        return Err(FormatError::unsupported(Field::Version, u64::from(version)));
    }
    Ok(())
}

/// CRC-32C of a slot without its last four bytes.
pub(super) fn slot_crc(raw: &RawSlot) -> u32 {
    let bytes = raw.as_bytes();
    crc32c(
        bytes
            .split_last_chunk::<4>()
            .map_or(bytes, |(body, _)| body),
    )
}
