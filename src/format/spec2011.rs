//! The header of version 1, the written specification of 2011, to read only (SPEC.md §12).

use zerocopy::FromBytes;

use super::common::{self, Core, Names};
use super::error::{Field, FormatError};
use super::raw::RawHeader2011;
use super::slots::{MAGIC_FVD, VERSION_1};

/// Bytes that a version-1 header occupies; its fields end at 7412.
pub const HEADER_2011_BYTES: usize = 8192;

/// The fields of a version-1 header, as they stand.
///
/// Only magic, version and the length of names were checked: version 1 has no checksum, and its
/// rules belong to whoever opens such an image. `stable_seq` holds `stable_journal_epoch`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header2011 {
    /// The fields that all dialects share.
    pub core: Core,
}

impl Header2011 {
    /// Reads the header from the first 8192 bytes of an image (7412 are enough).
    ///
    /// `reserved` is not looked at, as 2011 asks.
    ///
    /// # Errors
    ///
    /// `Corrupt` if there are too few bytes, `Unsupported` for another magic or version, `Limit`
    /// for a name of more than 255 bytes (15 for the name of a format).
    pub fn parse(start: &[u8]) -> Result<Header2011, FormatError> {
        let Ok((raw, _)) = RawHeader2011::ref_from_prefix(start) else {
            let length = u64::try_from(start.len()).unwrap_or(u64::MAX);
            return Err(FormatError::corrupt(Field::HeaderSlot, length));
        };
        let (magic, version) = (u32::from_le_bytes(raw.core.magic), raw.core.version.get());
        if raw.core.magic != MAGIC_FVD {
            return Err(FormatError::unsupported(Field::Magic, u64::from(magic)));
        }
        if version != VERSION_1 {
            return Err(FormatError::unsupported(Field::Version, u64::from(version)));
        }
        let mut header = Header2011 { core: Core::NONE };
        common::read_core(&raw.core, Names::Bounded, &mut header.core)?;
        Ok(header)
    }
}
