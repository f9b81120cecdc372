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
use super::header::Header;
use super::raw::RawSlot;
use super::rules::Limits;

/// `magic` of versions 1 and 2.
pub(super) const MAGIC_FVD: [u8; 4] = *b"FVD\0";
/// `magic` of the reference implementation.
pub(super) const MAGIC_REFERENCE: [u8; 4] = [0xA9, 0xF5, 0x43, 0x51];
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

    /// Whether this is one of the two dialects of 2011: one header, a journal that can not prove
    /// anything, mappings that only come and never go.
    #[must_use]
    pub const fn is_old(self) -> bool {
        !matches!(self, Dialect::Fvd2)
    }

    /// A short name, as options and reports use it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Dialect::Reference => "reference",
            Dialect::Spec2011 => "spec2011",
            Dialect::Fvd2 => "fvd2",
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
    /// Checksum of the slot: whoever writes the header anew can tell by it whether the bytes stay.
    pub crc: u32,
}

/// All in place, because a header is large and stacks are small where this crate runs. After an error
/// it is half read.
impl ChosenSlot {
    /// What reading starts from.
    pub(crate) const NONE: ChosenSlot = ChosenSlot {
        header: Header::NONE,
        slot: SlotIndex::First,
        other_valid: false,
        crc: 0,
    };

    /// [`read_header`]
    pub(crate) fn read(&mut self, start: &[u8], limits: &Limits) -> Result<(), FormatError> {
        match Dialect::detect(start) {
            Some(dialect) if dialect.is_old() => {
                // There is no other one, and nothing to tell it by.
                (self.slot, self.other_valid, self.crc) = (SlotIndex::First, true, 0);
                super::old::parse(dialect, start, &mut self.header)
            }
            _ => {
                let (first, second) = start.split_at(start.len().min(super::SLOT_BYTES));
                self.choose(first, second, limits)
            }
        }
    }

    fn choose(&mut self, first: &[u8], second: &[u8], limits: &Limits) -> Result<(), FormatError> {
        let (raw, slot, other_valid) = pick(first, second)?;
        (self.slot, self.other_valid) = (slot, other_valid);
        self.crc = raw.crc.get();
        self.header.parse_raw(raw, limits)
    }
}

/// What the bytes of one slot are, before any rule is checked.
enum SlotState<'a> {
    /// Magics, version and CRC are right.
    Valid(&'a RawSlot),
    /// Ours, but damaged or torn; or not even 4096 bytes.
    Damaged(FormatError),
    /// Laid out and summed like ours, but of another version: a later writer's, not damage.
    OtherVersion(FormatError),
    /// Nothing of ours.
    Foreign(FormatError),
}

/// Reads the header of an image of any dialect from its first 8192 bytes, fewer if there are no more.
///
/// # Errors
///
/// For an image of 2011: `Corrupt` if bytes are missing or a rule is broken, `Unsupported` for another
/// version, `Limit` for a name of more than 255 bytes (15 for the name of a format) and for sizes
/// beyond what this crate takes. For one of version 2, what [`choose_slot`] says.
pub fn read_header(start: &[u8], limits: &Limits) -> Result<ChosenSlot, FormatError> {
    let mut chosen = ChosenSlot::NONE;
    chosen.read(start, limits)?;
    Ok(chosen)
}

/// Picks the header out of both slots, 4096 bytes each as they were on the device. A device that
/// ends earlier gives shorter slices.
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
    let mut chosen = ChosenSlot::NONE;
    chosen.choose(first, second, limits)?;
    Ok(chosen)
}

/// The slot that counts, whether the other one is valid too, and what is in it.
fn pick<'a>(
    first: &'a [u8],
    second: &'a [u8],
) -> Result<(&'a RawSlot, SlotIndex, bool), FormatError> {
    use SlotState::{Damaged, Foreign, OtherVersion, Valid};
    match (classify(first), classify(second)) {
        (OtherVersion(error), _) | (_, OtherVersion(error)) => Err(error),
        // Every dialect starts at byte 0. Another one there means that the image was made anew and
        // that slot 1 is a left-over, however valid.
        (Foreign(error), _) if is_other_dialect(first) => Err(error),
        (Damaged(error), _) | (_, Damaged(error)) if error.field == Field::HeaderSlot => Err(error),
        (Valid(first), Valid(second)) => Ok(match newer_slot(first, second)? {
            SlotIndex::First => (first, SlotIndex::First, true),
            SlotIndex::Second => (second, SlotIndex::Second, true),
        }),
        (Valid(raw), _) => Ok((raw, SlotIndex::First, false)),
        (_, Valid(raw)) => Ok((raw, SlotIndex::Second, false)),
        // Damage to a slot of ours says more than what the other one is not.
        (Damaged(error), _) | (_, Damaged(error)) | (Foreign(error), _) => Err(error),
    }
}

/// What is wrong with each slot by itself, before any rule is applied: for those who want to know
/// more than [`choose_slot`] says.
#[must_use]
pub fn slot_faults(first: &[u8], second: &[u8]) -> [Option<FormatError>; 2] {
    [first, second].map(|slot| check_slot(slot).err())
}

/// Checks length, magics, version and CRC of one slot.
pub(super) fn check_slot(slot: &[u8]) -> Result<&RawSlot, FormatError> {
    match classify(slot) {
        SlotState::Valid(raw) => Ok(raw),
        SlotState::Damaged(error) | SlotState::OtherVersion(error) | SlotState::Foreign(error) => {
            Err(error)
        }
    }
}

fn classify(slot: &[u8]) -> SlotState<'_> {
    let start = check_start(slot);
    let Ok(raw) = RawSlot::ref_from_bytes(slot) else {
        if let (Err(error), true) = (start, is_other_dialect(slot)) {
            return SlotState::Foreign(error);
        }
        let length = u64::try_from(slot.len()).unwrap_or(u64::MAX);
        return SlotState::Damaged(FormatError::corrupt(Field::HeaderSlot, length));
    };
    let found = raw.crc.get();
    let crc_error = FormatError::corrupt(Field::SlotCrc, u64::from(found));
    let crc_right = found == slot_crc(raw);
    // The extension magic is far from the start: a slot that has it was ours before any one sector
    // of it was damaged.
    let ours = raw.extension.ext_magic == MAGIC_EXTENSION;
    match (start, ours) {
        (Ok(()), true) if crc_right => SlotState::Valid(raw),
        (Ok(()), false) if crc_right => {
            let found = u32::from_le_bytes(raw.extension.ext_magic);
            SlotState::Damaged(FormatError::corrupt(Field::ExtMagic, u64::from(found)))
        }
        (Err(error), true) if crc_right => SlotState::OtherVersion(error),
        (Err(error), false) => SlotState::Foreign(error),
        (Ok(()), _) | (Err(_), true) => SlotState::Damaged(crc_error),
    }
}

fn is_other_dialect(slot: &[u8]) -> bool {
    matches!(
        Dialect::detect(slot),
        Some(Dialect::Reference | Dialect::Spec2011)
    )
}

/// The slot of the higher generation. Two of one generation that differ can not both be right: no
/// writer makes them, so one is not what it claims to be.
fn newer_slot(a: &RawSlot, b: &RawSlot) -> Result<SlotIndex, FormatError> {
    let (first, second) = (a.extension.generation.get(), b.extension.generation.get());
    if first == second && a.as_bytes() != b.as_bytes() {
        return Err(FormatError::corrupt(Field::Generation, first));
    }
    // Nor does any header write change the image id: one slot is a left-over of another image.
    if a.extension.image_id != b.extension.image_id {
        return Err(FormatError::corrupt(Field::ImageId, first.max(second)));
    }
    Ok(if second > first {
        SlotIndex::Second
    } else {
        SlotIndex::First
    })
}

/// Checks magic and version, the part that tells dialects apart. Missing bytes count as zeros.
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
