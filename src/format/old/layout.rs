//! Where `create` puts everything in an image of 2011 (DIALECTS.md §5).
//!
//! ```text
//!  0        8192
//!  | header | bitmap | table | journal | chunks ...
//! ```

use core::num::NonZeroU64;

use super::rules;
use crate::format::error::{Field, FormatError};
use crate::format::feature::Features;
use crate::format::header::Header;
use crate::format::layout::{
    CreateParams, JOURNAL_DEFAULT_MAX, JOURNAL_DEFAULT_MIN, JournalChoice, LayoutError, place,
    size_store, unplaced,
};
use crate::format::rules::{bitmap_bytes, table_bytes};
use crate::format::slots::Dialect;
use crate::format::{HEADER_BYTES, PAGE_BYTES_U64};

/// Step by which a new image grows unless it is told otherwise: the reference has to find one.
const GROW_BYTES: u64 = 16 << 20;

/// The header of a new image: everything placed, nothing mapped, closed.
pub(in crate::format) fn plan(params: &CreateParams) -> Result<Header, LayoutError> {
    let mut header = unplaced(params);
    header.dialect = params.dialect;
    // They have no place for it, and nothing is checked against what is not recorded.
    (header.generation, header.base_id, header.base_generation) = (0, [0; 16], 0);
    header.atomic_unit = 4096;
    if params.external_data {
        if params.data_file.is_empty() {
            return Err(FormatError::corrupt(Field::OldDataFile, 0).into());
        }
        header.features.incompatible |= Features::EXTERNAL_DATA;
    }
    let core = &mut header.core;
    core.base_bytes = core.base_bytes.min(core.virtual_bytes);
    check_chunk(params)?;
    let grow = GROW_BYTES.max(params.chunk_bytes);
    core.grow_bytes = core.grow_bytes.or(NonZeroU64::new(grow));
    if params.table {
        // Its size follows from the shape, which depends on whether there is one.
        core.table.bytes = PAGE_BYTES_U64;
    }
    let shape = rules::check_shape(&header)?;
    let mut end = HEADER_BYTES;
    if header.has_base() {
        header.core.bitmap = place(&mut end, bitmap_bytes(header.bitmap_blocks()));
    }
    if params.table {
        header.core.table = place(&mut end, table_bytes(&shape));
    }
    header.core.journal = place(&mut end, journal_bytes(params, &header)?);
    header.core.data_offset = if params.external_data { 0 } else { end };
    size_store(params, &mut header)?;
    Ok(header)
}

/// The reference rounds chunks up to pages; what it would change is refused.
fn check_chunk(params: &CreateParams) -> Result<(), FormatError> {
    let reference = params.dialect == Dialect::Reference;
    if params.table && reference && !params.chunk_bytes.is_multiple_of(PAGE_BYTES_U64) {
        let field = Field::OldNewChunkSize;
        return Err(FormatError::corrupt(field, params.chunk_bytes));
    }
    Ok(())
}

/// A journal for others to use: large enough for what the reference wants of one.
fn journal_bytes(params: &CreateParams, header: &Header) -> Result<u64, LayoutError> {
    let (table, bitmap) = (header.core.table, header.core.bitmap);
    if !table.exists() && !bitmap.exists() {
        return Ok(0);
    }
    let least = if table.exists() {
        rules::journal_bytes_for_table(u64::from(header.shape().chunk_count()))
    } else {
        PAGE_BYTES_U64
    };
    let bytes = match params.journal {
        JournalChoice::None => return Ok(0),
        JournalChoice::Auto => table
            .bytes
            .saturating_add(bitmap.bytes)
            .clamp(JOURNAL_DEFAULT_MIN, JOURNAL_DEFAULT_MAX),
        JournalChoice::Bytes(bytes) => bytes
            .checked_next_multiple_of(PAGE_BYTES_U64)
            .unwrap_or(u64::MAX),
    };
    let bytes = bytes.max(least);
    if bytes > params.limits.journal_bytes_max.max(least) {
        return Err(LayoutError::JournalSize(bytes));
    }
    Ok(bytes)
}
