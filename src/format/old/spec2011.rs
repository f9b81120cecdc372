//! The header of version 1 as the written specification of 2011 has it (SPEC.md §3.1, DIALECTS.md §3).

use core::mem::offset_of;

use zerocopy::FromBytes;

use super::{OLD_HEADER_BYTES, rules};
use crate::format::common::{self, Names};
use crate::format::error::{Field, FormatError};
use crate::format::header::Header;
use crate::format::raw::{RawCore, RawHeader2011};
use crate::format::slots::{MAGIC_FVD, VERSION_1};

/// Byte of `clean_shutdown` in the header.
pub(super) const CLEAN_OFFSET: usize = offset_of!(RawCore, clean_shutdown);
/// Byte of `stable_journal_epoch` in the header.
pub(super) const EPOCH_OFFSET: usize = offset_of!(RawCore, stable_journal_epoch);

/// Reads the header from the first 8192 bytes of an image; 7412 are enough. `reserved` is not looked
/// at, as 2011 asks.
///
/// # Errors
///
/// `Corrupt` for too few bytes or a broken rule, `Unsupported` for another version, `Limit` for what
/// is legal and too large.
pub(super) fn parse(start: &[u8], header: &mut Header) -> Result<(), FormatError> {
    let Ok((raw, _)) = RawHeader2011::ref_from_prefix(start) else {
        let length = u64::try_from(start.len()).unwrap_or(u64::MAX);
        return Err(FormatError::corrupt(Field::HeaderSlot, length));
    };
    if raw.core.version.get() != VERSION_1 {
        let version = u64::from(raw.core.version.get());
        return Err(FormatError::unsupported(Field::OldVersion, version));
    }
    common::read_core(&raw.core, Names::Bounded, &mut header.core)?;
    let core = &header.core;
    let table = core.table.exists().then_some(core.table.offset);
    let (bitmap_bytes, table_bytes) = (core.bitmap.bytes, core.table.bytes);
    let recorded = rules::Recorded {
        bitmap_bytes,
        table,
        data_offset: core.data_offset,
    };
    rules::complete(header, &recorded)?;
    let needed = u64::from(header.shape().chunk_count()).saturating_mul(4);
    if header.has_table() && table_bytes < needed {
        return Err(FormatError::corrupt(Field::OldTableSize, table_bytes));
    }
    Ok(())
}

/// Writes the header of a new image.
pub(super) fn write(header: &Header, start: &mut [u8; OLD_HEADER_BYTES]) {
    start.fill(0);
    let Ok((raw, _)) = RawHeader2011::mut_from_prefix(start.as_mut_slice()) else {
        return;
    };
    common::write_core(&header.core, &mut raw.core);
    raw.core.magic = MAGIC_FVD;
    raw.core.version = VERSION_1.into();
}
