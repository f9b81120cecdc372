//! The header as a value, and its way to and from the bytes of a slot (SPEC.md §3).
//!
//! Invariants:
//! 1. A [`Header`] that came from [`Header::parse`] keeps every rule that can be checked without
//!    knowing a device; [`Header::validate`] checks the rest.
//! 2. `parse(encode(header)) == header` for each header that `parse` accepts and this crate may
//!    write, apart from autoclear bits, which writing clears.
//! 3. The fields are public and plain, so that the engine can advance them; [`Header::encode`]
//!    refuses to write what `parse` would refuse to read.

use zerocopy::IntoBytes;

use super::common::{self, Core, Names};
use super::error::{Field, FormatError};
use super::feature::Features;
use super::page::{ChecksumArray, PageCounts};
use super::raw::{EXT_LEN, EXT_LEN_MAX, RawExtension, RawSlot};
use super::regions::{self, Region, Regions};
use super::rules::{self, Limits};
use super::slots::{self, Dialect};
use super::{HEADER_BYTES, ImageId, SLOT_BYTES, old};
use crate::units::{CHUNK_COUNT_MAX, Shape};

/// The header of an image: of version 2, or what one of 2011 means in its terms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// How it is stored. The old dialects have none of the fields that follow `core`, except that
    /// external data show as a feature and `atomic_unit` is what the device may write at once.
    pub dialect: Dialect,
    /// The fields of 2011.
    pub core: Core,
    /// Feature bits.
    pub features: Features,
    /// Number of this header: one more than that of the header it replaced. Never 2^64 - 1.
    pub generation: u64,
    /// What makes this image different from every other.
    pub image_id: ImageId,
    /// A number that each session which writes chooses anew, to notice a second writer. 0 = none.
    pub owner_nonce: u64,
    /// Identity of the base: the image id of an FVD base, 16 bytes from the user for a raw one.
    /// Zero = unchecked.
    pub base_id: [u8; 16],
    /// Generation of an FVD base when it was named; 0 for a raw base.
    pub base_generation: u64,
    /// Chunks of the store at and above this one were never sent a write (SPEC.md §9).
    pub zero_floor_chunk: u64,
    /// Durable size of the data area's device, bytes, as last recorded. The real one may be larger.
    pub store_bytes: u64,
    /// Bytes of a journal unit: what the metadata device writes all or nothing.
    pub atomic_unit: u32,
    /// Which of the two checksum arrays holds.
    pub checksum_active: ChecksumArray,
    /// Where the two checksum arrays start; 0 = none.
    pub checksum_offset: [u64; 2],
    /// Bytes of each checksum array; 0 = none.
    pub checksum_bytes: u64,
}

/// Bytes of metadata by kind, for people to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct MetadataBytes {
    /// Both header slots.
    pub header: u64,
    /// The lookup table.
    pub table: u64,
    /// The base bitmap.
    pub bitmap: u64,
    /// Both checksum arrays.
    pub checksums: u64,
    /// The journal.
    pub journal: u64,
}

impl MetadataBytes {
    /// All of it.
    #[must_use]
    pub fn total(&self) -> u64 {
        [
            self.header,
            self.table,
            self.bitmap,
            self.checksums,
            self.journal,
        ]
        .into_iter()
        .fold(0, u64::saturating_add)
    }
}

impl Header {
    /// No image at all: what reading a slot starts from.
    pub(super) const NONE: Header = Header {
        dialect: Dialect::Fvd2,
        core: Core::NONE,
        features: Features::NONE,
        generation: 0,
        image_id: ImageId([0; 16]),
        owner_nonce: 0,
        base_id: [0; 16],
        base_generation: 0,
        zero_floor_chunk: 0,
        store_bytes: 0,
        atomic_unit: 0,
        checksum_active: ChecksumArray::A,
        checksum_offset: [0, 0],
        checksum_bytes: 0,
    };

    /// Reads one header slot: 4096 bytes as they were on the device.
    ///
    /// # Errors
    ///
    /// `Unsupported` for another dialect, another version or an unknown incompatible feature;
    /// `Corrupt` for damage or a broken rule; `Limit` for a legal header beyond `limits`.
    pub fn parse(slot: &[u8], limits: &Limits) -> Result<Header, FormatError> {
        let mut header = Header::NONE;
        header.parse_raw(slots::check_slot(slot)?, limits)?;
        Ok(header)
    }

    /// Reads a valid slot in place, because a header is large and stacks are small where this crate
    /// runs. After an error the header is half read.
    pub(super) fn parse_raw(&mut self, raw: &RawSlot, limits: &Limits) -> Result<(), FormatError> {
        let features = read_features(&raw.extension);
        if features.unknown_incompatible() != 0 {
            let bits = features.unknown_incompatible();
            return Err(FormatError::unsupported(Field::Incompatible, bits));
        }
        self.read(raw, features)?;
        check_reserved(raw, &features)?;
        rules::check(self, limits)
    }

    fn read(&mut self, raw: &RawSlot, features: Features) -> Result<(), FormatError> {
        let extension = &raw.extension;
        let [offset_a, offset_b] = extension.checksum_offset;
        common::read_core(&raw.core, Names::Terminated, &mut self.core)?;
        self.features = features;
        self.generation = extension.generation.get();
        self.image_id = ImageId(extension.image_id);
        self.owner_nonce = extension.owner_nonce.get();
        self.base_id = extension.base_id;
        self.base_generation = extension.base_generation.get();
        self.zero_floor_chunk = extension.zero_floor_chunk.get();
        self.store_bytes = extension.store_bytes.get();
        self.atomic_unit = extension.atomic_unit.get();
        self.checksum_active = ChecksumArray::decode(extension.checksum_active.get())?;
        self.checksum_offset = [offset_a.get(), offset_b.get()];
        self.checksum_bytes = extension.checksum_size.get();
        Ok(())
    }

    /// Writes the header into a slot, checksum and all; autoclear bits that this crate does not
    /// know are cleared, as the format asks of a writer.
    ///
    /// # Errors
    ///
    /// What [`Header::parse`] would say about the result, except for the size of the journal: a
    /// header that nobody could read again is not written. `Unsupported` if the image has a
    /// read-only compatible feature that this crate does not know. The slot is then left alone.
    pub fn encode(&self, slot: &mut [u8; SLOT_BYTES]) -> Result<(), FormatError> {
        if self.dialect.is_old() {
            return Err(FormatError::unsupported(Field::Version, 1));
        }
        let unknown = self.features.unknown_incompatible();
        if unknown != 0 {
            return Err(FormatError::unsupported(Field::Incompatible, unknown));
        }
        let unknown = self.features.unknown_ro_compatible();
        if unknown != 0 {
            return Err(FormatError::unsupported(Field::RoCompatible, unknown));
        }
        rules::check(self, &Limits::WIDEST)?;
        slot.fill(0);
        let raw: &mut RawSlot = zerocopy::transmute_mut!(slot);
        common::write_core(&self.core, &mut raw.core);
        raw.core.magic = slots::MAGIC_FVD;
        raw.core.version = slots::VERSION_2.into();
        self.write_extension(&mut raw.extension);
        raw.crc = slots::slot_crc(raw).into();
        Ok(())
    }

    fn write_extension(&self, raw: &mut RawExtension) {
        raw.ext_magic = slots::MAGIC_EXTENSION;
        raw.ext_len = EXT_LEN.into();
        raw.incompatible = self.features.incompatible.into();
        raw.ro_compatible = self.features.ro_compatible.into();
        raw.compatible = self.features.compatible.into();
        raw.autoclear = (self.features.autoclear & Features::AUTOCLEAR_KNOWN).into();
        raw.generation = self.generation.into();
        raw.image_id = self.image_id.0;
        raw.owner_nonce = self.owner_nonce.into();
        raw.base_id = self.base_id;
        raw.base_generation = self.base_generation.into();
        raw.zero_floor_chunk = self.zero_floor_chunk.into();
        raw.store_bytes = self.store_bytes.into();
        raw.atomic_unit = self.atomic_unit.into();
        raw.checksum_active = self.checksum_active.encode().into();
        raw.checksum_offset = self.checksum_offset.map(Into::into);
        raw.checksum_size = self.checksum_bytes.into();
    }

    /// Sizes of the disk. A header changed by hand to sizes that no disk can have is the empty disk.
    #[must_use]
    pub fn shape(&self) -> Shape {
        let core = &self.core;
        let shape = if self.dialect.is_old() {
            old::rules::shape(self)
        } else {
            Shape::new(core.virtual_bytes, core.block_bytes, core.chunk_bytes)
        };
        shape.unwrap_or(EMPTY_SHAPE)
    }

    /// Whether chunks are placed by a lookup table; otherwise they lie in order.
    #[must_use]
    pub const fn has_table(&self) -> bool {
        self.core.table.exists()
    }

    /// Whether the disk was made on top of a base, needed or not.
    #[must_use]
    pub const fn has_base(&self) -> bool {
        self.core.base_bytes != 0
    }

    /// Whether bitmap bits decide anything: there is a base and it is not fully prefetched. The
    /// base device is needed in just these cases.
    #[must_use]
    pub const fn has_bitmap(&self) -> bool {
        self.has_base() && !self.core.base_fully_prefetched
    }

    /// Blocks of the disk that the base can hold, one bit each; 0 without a base.
    #[must_use]
    pub fn bitmap_blocks(&self) -> u64 {
        let shape = self.shape();
        shape.blocks_covering(self.core.base_bytes.min(shape.virtual_bytes()))
    }

    /// Whether chunks live on another device than the metadata.
    #[must_use]
    pub const fn has_external_data(&self) -> bool {
        self.features.incompatible & Features::EXTERNAL_DATA != 0
    }

    /// Whether metadata pages have checksums.
    #[must_use]
    pub const fn has_checksums(&self) -> bool {
        self.features.incompatible & Features::PAGE_CHECKSUMS != 0
    }

    /// Whether a feature that this crate does not know forbids writing to the image.
    #[must_use]
    pub const fn is_read_only(&self) -> bool {
        self.features.unknown_ro_compatible() != 0
    }

    /// Metadata pages by kind, which also numbers their checksums.
    #[must_use]
    pub fn page_counts(&self) -> PageCounts {
        PageCounts {
            table_pages: self.core.table.pages(),
            bitmap_pages: self.core.bitmap.pages(),
        }
    }

    /// One of the two checksum arrays, none without page checksums.
    #[must_use]
    pub const fn checksum_region(&self, array: ChecksumArray) -> Region {
        let [offset_a, offset_b] = self.checksum_offset;
        let offset = match array {
            ChecksumArray::A => offset_a,
            ChecksumArray::B => offset_b,
        };
        if self.checksum_bytes == 0 {
            Region::NONE
        } else {
            Region {
                offset,
                bytes: self.checksum_bytes,
            }
        }
    }

    /// Units of the journal; 0 without one, and in the old dialects, where sectors stand for
    /// themselves.
    #[must_use]
    pub fn journal_units(&self) -> u64 {
        if self.dialect.is_old() {
            return 0;
        }
        self.core
            .journal
            .bytes
            .checked_div(u64::from(self.atomic_unit))
            .unwrap_or(0)
    }

    /// Whole chunks that fit a data device of `store_bytes` bytes after `data_offset`; table
    /// entries and the zero floor stay at or below it. Never more than 2^31.
    #[must_use]
    pub fn chunks_in(&self, store_bytes: u64) -> u32 {
        chunks_in(store_bytes, self.core.data_offset, self.core.chunk_bytes)
    }

    /// Metadata by kind.
    #[must_use]
    pub fn metadata_bytes(&self) -> MetadataBytes {
        MetadataBytes {
            header: HEADER_BYTES,
            table: self.core.table.bytes,
            bitmap: self.core.bitmap.bytes,
            checksums: self.checksum_bytes.saturating_mul(2),
            journal: self.core.journal.bytes,
        }
    }

    /// Places every region on devices of these capacities, in bytes, and proves that none overlaps
    /// another or leaves its device.
    ///
    /// `data_capacity` counts only for an image with external data: `None` then means that the data
    /// device is not known, and nothing is checked against it.
    ///
    /// # Errors
    ///
    /// `Corrupt` with the offset or size that does not fit.
    pub fn validate(
        &self,
        metadata_capacity: u64,
        data_capacity: Option<u64>,
    ) -> Result<Regions, FormatError> {
        regions::place(self, metadata_capacity, data_capacity)
    }
}

/// The shape of a disk without a single chunk.
const EMPTY_SHAPE: Shape = match Shape::new(0, 512, 512) {
    Some(shape) => shape,
    None => unreachable!(),
};

pub(super) fn chunks_in(store_bytes: u64, data_offset: u64, chunk_bytes: u64) -> u32 {
    let bytes = store_bytes.saturating_sub(data_offset);
    let chunks = bytes.checked_div(chunk_bytes).unwrap_or(0);
    u32::try_from(chunks.min(CHUNK_COUNT_MAX)).unwrap_or(0)
}

fn read_features(raw: &RawExtension) -> Features {
    Features {
        incompatible: raw.incompatible.get(),
        ro_compatible: raw.ro_compatible.get(),
        compatible: raw.compatible.get(),
        autoclear: raw.autoclear.get(),
    }
}

/// Bytes that no known feature owns must be zero, or a later writer could not give them a meaning.
///
/// Behind the extension of this version, an unknown read-only compatible or autoclear feature may
/// own bytes, up to `ext_len`. A compatible one may not: a writer that does not know it could not
/// keep them.
fn check_reserved(raw: &RawSlot, features: &Features) -> Result<(), FormatError> {
    let extension = &raw.extension;
    let ext_len = extension.ext_len.get();
    if !(EXT_LEN..=EXT_LEN_MAX).contains(&ext_len) || !ext_len.is_multiple_of(8) {
        return Err(FormatError::corrupt(Field::ExtLen, u64::from(ext_len)));
    }
    let owned_later = features.unknown_ro_compatible() | features.unknown_autoclear() != 0;
    let owned = if owned_later {
        ext_len.saturating_sub(EXT_LEN)
    } else {
        0
    };
    let tail = raw
        .tail
        .get(usize::try_from(owned).unwrap_or(0)..)
        .unwrap_or(&[]);
    let pieces = [&raw.pad, extension.later.as_bytes(), tail];
    match pieces.into_iter().flatten().find(|byte| **byte != 0) {
        Some(byte) => Err(FormatError::corrupt(Field::Reserved, u64::from(*byte))),
        None => Ok(()),
    }
}
