//! Where `create` puts everything (SPEC.md §11).
//!
//! ```text
//!  0        8192                                                      data_offset
//!  | header | table | bitmap | checksums A | checksums B | journal | .. | chunks ...
//! ```
//!
//! Pure arithmetic: the caller gives wishes and gets the first header, or learns which wish can not
//! be met. Readers do not depend on this order (SPEC.md §2).

use core::fmt;
use core::num::NonZeroU64;

use super::common::CopySettings;
use super::error::FormatError;
use super::header::Header;
use super::name::{FormatName, Name};
use super::regions::Region;
use super::rules::{self, Limits};
use super::slots::Dialect;
use super::{HEADER_BYTES, ImageId, PAGE_BYTES_U64, old};

/// Smallest journal that `create` chooses by itself, bytes.
pub const JOURNAL_DEFAULT_MIN: u64 = 64 << 10;
/// Fewest units of such a journal, as far as [`JOURNAL_DEFAULT_MAX`] allows: a guest that flushes after
/// each write fills one each time, and every half of a journal costs a checkpoint.
pub const JOURNAL_DEFAULT_UNITS_MIN: u64 = 128;
/// Units after which a checkpoint costs next to nothing, if they are no more than a
/// [`JOURNAL_DEFAULT_SHARE`]th of the disk.
pub const JOURNAL_DEFAULT_UNITS_ENOUGH: u64 = 512;
/// See [`JOURNAL_DEFAULT_UNITS_ENOUGH`].
pub const JOURNAL_DEFAULT_SHARE: u64 = 256;
/// Largest journal that `create` chooses by itself, bytes.
pub const JOURNAL_DEFAULT_MAX: u64 = 4 << 20;
/// Chunks start at a multiple of their size, up to this.
const DATA_ALIGNMENT_MAX: u64 = 1 << 20;

/// The size of the journal of a new image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum JournalChoice {
    /// As large as table and bitmap, and not less than 512 units if they are no more than 1/256 of the
    /// disk, from 64 KiB to 4 MiB; none if there is neither.
    #[default]
    Auto,
    /// No journal; possible only without table and bitmap.
    None,
    /// This many bytes, rounded up to whole units.
    Bytes(u64),
}

/// What holds the chunks of a new image.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum StoreChoice {
    /// A new file that is as long as it has to be and reads zeros where never written.
    Growing,
    /// A device of `device_bytes` bytes that reads zeros where never written.
    FixedZeroed {
        /// Size of the data area's device.
        device_bytes: u64,
    },
    /// A device of `device_bytes` bytes that may hold anything.
    FixedUsed {
        /// Size of the data area's device.
        device_bytes: u64,
    },
}

/// The base of a new image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BaseParams {
    /// A label for the base; never opened.
    pub name: Name,
    /// Its format; a label.
    pub format: FormatName,
    /// Its size in bytes, a multiple of 512; 0 is a base without contents.
    pub bytes: u64,
    /// Image id of an FVD base, 16 bytes from the user for a raw one, or zero = unchecked.
    pub id: [u8; 16],
    /// Generation of an FVD base; 0 for a raw one.
    pub generation: u64,
}

/// What a new image shall be. [`CreateParams::new`] fills in the defaults.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreateParams {
    /// How the image is stored.
    pub dialect: Dialect,
    /// Size of the guest's disk, bytes.
    pub virtual_bytes: u64,
    /// Bytes of a copy-on-write block.
    pub block_bytes: u64,
    /// Bytes of an allocation chunk.
    pub chunk_bytes: u64,
    /// Whether FVD allocates storage; otherwise chunks lie in order.
    pub table: bool,
    /// The base, if there is one.
    pub base: Option<BaseParams>,
    /// The journal.
    pub journal: JournalChoice,
    /// Bytes of a journal unit: what the metadata device writes all or nothing.
    pub atomic_unit: u32,
    /// What holds the chunks.
    pub store: StoreChoice,
    /// Bytes by which a growing store is extended at a time; `None` = as needed.
    pub grow_bytes: Option<NonZeroU64>,
    /// Whether chunks live on a device of their own.
    pub external_data: bool,
    /// A label for that device; never opened.
    pub data_file: Name,
    /// Its format; a label.
    pub data_file_format: FormatName,
    /// Copy-on-read and prefetch.
    pub copy: CopySettings,
    /// Zero blocks of the base will be marked as "in FVD" without being written.
    pub need_zero_init: bool,
    /// What makes the image different from every other; from a source of randomness.
    pub image_id: ImageId,
    /// Bounds on the journal; [`Limits::FORMAT`] but for tests.
    pub limits: Limits,
}

impl CreateParams {
    /// The defaults of SPEC.md §11 for a disk of `virtual_bytes` bytes: 64 KiB blocks, 1 MiB chunks,
    /// a table, no base, a growing store.
    #[must_use]
    pub const fn new(virtual_bytes: u64, image_id: ImageId) -> CreateParams {
        CreateParams {
            dialect: Dialect::Fvd2,
            virtual_bytes,
            block_bytes: 64 << 10,
            chunk_bytes: 1 << 20,
            table: true,
            base: None,
            journal: JournalChoice::Auto,
            atomic_unit: 512,
            store: StoreChoice::Growing,
            grow_bytes: None,
            external_data: false,
            data_file: Name::EMPTY,
            data_file_format: FormatName::EMPTY,
            copy: CopySettings::DEFAULT,
            need_zero_init: false,
            image_id,
            limits: Limits::FORMAT,
        }
    }
}

/// Why an image can not be laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LayoutError {
    /// A wish breaks a rule of the format; the error names the header field.
    Format(FormatError),
    /// A table or a bitmap needs a journal.
    NeedsJournal,
    /// The journal would have fewer than 4 units or more than 64 MiB.
    JournalSize(u64),
    /// The data device has fewer bytes than the image needs: that many.
    DeviceTooSmall(u64),
}

impl From<FormatError> for LayoutError {
    fn from(error: FormatError) -> LayoutError {
        LayoutError::Format(error)
    }
}

impl fmt::Display for LayoutError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LayoutError::Format(error) => error.fmt(f),
            LayoutError::NeedsJournal => {
                f.write_str("an image with a table or a base needs a journal")
            }
            LayoutError::JournalSize(bytes) => {
                write!(f, "a journal of {bytes} bytes is not 4 units to 64 MiB")
            }
            LayoutError::DeviceTooSmall(bytes) => {
                write!(f, "the data device is too small: {bytes} bytes are needed")
            }
        }
    }
}

impl core::error::Error for LayoutError {}

/// The first header of a new image: generation 1, everything placed, nothing mapped, closed.
///
/// The metadata device needs room up to the end of the journal; a growing file starts with
/// `store_bytes` bytes.
///
/// # Errors
///
/// See [`LayoutError`]. Nothing of the result depends on a device that was not named.
pub fn plan_layout(params: &CreateParams) -> Result<Header, LayoutError> {
    if params.dialect.is_old() {
        return old::layout::plan(params);
    }
    let mut header = unplaced(params);
    let shape = rules::check_sizes(&header.core)?;
    rules::check_unit(header.atomic_unit)?;

    let mut end = HEADER_BYTES;
    if params.table {
        header.core.table = place(&mut end, rules::table_bytes(&shape));
    }
    if header.has_base() {
        header.core.bitmap = place(&mut end, rules::bitmap_bytes(header.bitmap_blocks()));
    }
    let any = header.core.table.exists() || header.core.bitmap.exists();
    header.features.incompatible = rules::incompatible_bits(any, params.external_data);
    if any {
        header.checksum_bytes = rules::checksum_bytes(header.page_counts().total());
        let array_a = place(&mut end, header.checksum_bytes);
        let array_b = place(&mut end, header.checksum_bytes);
        header.checksum_offset = [array_a.offset, array_b.offset];
    }
    header.core.journal = place(&mut end, journal_bytes(params, &header)?);
    place_data(params, &mut header, end)?;
    rules::check(&header, &params.limits)?;
    Ok(header)
}

/// Everything but the places.
pub(super) fn unplaced(params: &CreateParams) -> Header {
    let mut header = Header::NONE;
    header.generation = 1;
    header.image_id = params.image_id;
    header.atomic_unit = params.atomic_unit;
    let core = &mut header.core;
    core.virtual_bytes = params.virtual_bytes;
    core.block_bytes = params.block_bytes;
    core.chunk_bytes = params.chunk_bytes;
    core.grow_bytes = params.grow_bytes;
    core.data_file = params.data_file;
    core.data_file_format = params.data_file_format;
    core.clean_shutdown = true;
    core.copy = params.copy;
    core.need_zero_init = params.need_zero_init;
    if let Some(base) = &params.base {
        core.base_name = base.name;
        core.base_format = base.format;
        core.base_bytes = base.bytes;
        header.base_id = base.id;
        header.base_generation = base.generation;
    }
    header
}

/// The next region of `bytes` bytes, and `end` moved behind it. Sizes are below 2^40: no overflow.
pub(super) fn place(end: &mut u64, bytes: u64) -> Region {
    if bytes == 0 {
        return Region::NONE;
    }
    let region = Region {
        offset: *end,
        bytes,
    };
    *end = align_up(end.saturating_add(bytes), PAGE_BYTES_U64);
    region
}

fn align_up(bytes: u64, alignment: u64) -> u64 {
    bytes
        .checked_next_multiple_of(alignment)
        .unwrap_or(u64::MAX)
}

fn journal_bytes(params: &CreateParams, header: &Header) -> Result<u64, LayoutError> {
    let core = &header.core;
    let needed = core.table.exists() || core.bitmap.exists();
    let unit = u64::from(header.atomic_unit);
    let bytes = match params.journal {
        JournalChoice::None if needed => return Err(LayoutError::NeedsJournal),
        JournalChoice::None => return Ok(0),
        JournalChoice::Auto if !needed => return Ok(0),
        JournalChoice::Auto => {
            let share = header.core.virtual_bytes / JOURNAL_DEFAULT_SHARE;
            let [few, enough] = [JOURNAL_DEFAULT_UNITS_MIN, JOURNAL_DEFAULT_UNITS_ENOUGH]
                .map(|units| units.saturating_mul(unit));
            let enough_or_share = share.min(enough).max(few);
            core.table
                .bytes
                .saturating_add(core.bitmap.bytes)
                .max(align_up(enough_or_share, unit))
                .clamp(JOURNAL_DEFAULT_MIN, JOURNAL_DEFAULT_MAX)
        }
        JournalChoice::Bytes(bytes) => align_up(bytes, unit),
    };
    let limits = &params.limits;
    let bytes_min = limits.journal_units_min.max(2).saturating_mul(unit);
    if bytes < bytes_min || bytes > limits.journal_bytes_max {
        return Err(LayoutError::JournalSize(bytes));
    }
    Ok(bytes)
}

/// Places the chunks: behind the metadata, or from the start of their own device.
fn place_data(params: &CreateParams, header: &mut Header, end: u64) -> Result<(), LayoutError> {
    let alignment = params.chunk_bytes.clamp(PAGE_BYTES_U64, DATA_ALIGNMENT_MAX);
    header.core.data_offset = if params.external_data {
        0
    } else {
        align_up(end, alignment)
    };
    size_store(params, header)?;
    if matches!(params.store, StoreChoice::FixedUsed { .. }) {
        header.zero_floor_chunk = u64::from(header.chunks_in(header.store_bytes));
    }
    Ok(())
}

/// How long the device with the chunks is: as it was given, or as long as the header needs at first.
pub(super) fn size_store(params: &CreateParams, header: &mut Header) -> Result<(), LayoutError> {
    let content = if params.table {
        0
    } else {
        params.virtual_bytes
    };
    let needed = header.core.data_offset.saturating_add(content);
    header.store_bytes = match params.store {
        StoreChoice::Growing => needed,
        StoreChoice::FixedZeroed { device_bytes } | StoreChoice::FixedUsed { device_bytes } => {
            device_bytes
        }
    };
    if header.store_bytes < needed {
        return Err(LayoutError::DeviceTooSmall(needed));
    }
    Ok(())
}
