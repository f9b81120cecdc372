//! The two dialects of 2011 (docs/DIALECTS.md): the reference implementation's, and that of the
//! written specification.
//!
//! ```text
//!   raw        the byte layout of the reference's header
//!   reference  it as a value          spec2011  the same for the written specification
//!   rules      what both must keep    records   what their journals say
//!   table      entries: one bit of them is not theirs
//!   layout     where `create` puts everything
//! ```
//!
//! Both become the same [`Header`] as version 2, so that nothing above this module has to know more
//! of a dialect than [`Dialect::is_old`].

pub(super) mod layout;
mod raw;
mod records;
mod reference;
pub(super) mod rules;
mod spec2011;
mod table;

pub use records::{OldRecord, OldRecords, SECTOR_LEN};
pub use table::{decode_old_entry, mask_old_entries};

use super::error::{Field, FormatError};
use super::header::Header;
use super::slots::Dialect;

/// Bytes that the header of an old dialect occupies.
pub const OLD_HEADER_BYTES: usize = 8192;

/// Reads the header of an image of an old dialect from its first 8192 bytes, in place.
///
/// # Errors
///
/// See [`super::read_header`].
pub(super) fn parse(
    dialect: Dialect,
    start: &[u8],
    header: &mut Header,
) -> Result<(), FormatError> {
    header.dialect = dialect;
    match dialect {
        Dialect::Reference => reference::parse(start, header),
        Dialect::Spec2011 => spec2011::parse(start, header),
        Dialect::Fvd2 => Err(FormatError::unsupported(Field::OldVersion, 2)),
    }
}

/// Where an old header says whether recovery is needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CleanMark {
    /// The page that holds it, bytes from the start of the image.
    pub page_offset: u64,
    /// Where in that page.
    at: usize,
    /// Where in that page the epoch is that records must reach to count.
    epoch_at: Option<usize>,
}

impl CleanMark {
    /// Writes into that page that nothing has to be recovered, and that records below `epoch` are
    /// old. Everything else stays as it is: the fields of a later writer too.
    pub fn write(&self, page: &mut [u8], epoch: u64) {
        if let Some(mark) = page.get_mut(self.at..).and_then(<[u8]>::first_chunk_mut) {
            *mark = 1u32.to_le_bytes();
        }
        let epoch_at = self.epoch_at.and_then(|at| page.get_mut(at..));
        if let Some(bytes) = epoch_at.and_then(<[u8]>::first_chunk_mut) {
            *bytes = epoch.to_le_bytes();
        }
    }
}

impl Header {
    /// Where the header of an old dialect says whether recovery is needed; `None` in version 2.
    #[must_use]
    pub const fn clean_mark(&self) -> Option<CleanMark> {
        match self.dialect {
            Dialect::Fvd2 => None,
            Dialect::Reference => Some(CleanMark {
                page_offset: 4096,
                at: raw::CLEAN_OFFSET - 4096,
                epoch_at: None,
            }),
            Dialect::Spec2011 => Some(CleanMark {
                page_offset: 0,
                at: spec2011::CLEAN_OFFSET,
                epoch_at: Some(spec2011::EPOCH_OFFSET),
            }),
        }
    }

    /// One past the last byte of metadata on the metadata device.
    #[must_use]
    pub fn metadata_end(&self) -> u64 {
        let core = &self.core;
        [core.table, core.bitmap, core.journal]
            .into_iter()
            .filter_map(|region| region.end())
            .fold(super::HEADER_BYTES, u64::max)
    }

    /// Writes the header of a new image of an old dialect.
    ///
    /// # Errors
    ///
    /// `Unsupported` for version 2, which has slots instead; see [`Header::encode`]. `Limit` for a
    /// header read from an image with names of which only the start is known.
    pub fn encode_old(&self, start: &mut [u8; OLD_HEADER_BYTES]) -> Result<(), FormatError> {
        self.core.check_whole_names()?;
        match self.dialect {
            Dialect::Reference => reference::write(self, start),
            Dialect::Spec2011 => spec2011::write(self, start),
            Dialect::Fvd2 => return Err(FormatError::unsupported(Field::OldVersion, 2)),
        }
        Ok(())
    }
}
