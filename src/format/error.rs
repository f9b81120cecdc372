//! What can be wrong with bytes that claim to be an image.
//!
//! One small value carries the whole answer: the kind (what the caller may do about it), the field
//! (where) and the offending number (what). Logic branches on the kind only; field and value are
//! for people and logs.

use core::fmt;

use super::slots::Dialect;

/// What a caller may do about a [`FormatError`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum FormatErrorKind {
    /// The bytes break a rule of the format: damage, a hostile image or a broken writer.
    Corrupt,
    /// The bytes may be fine, but this reader does not know what they mean.
    Unsupported,
    /// The bytes are legal and understood, but ask for more than this reader is willing to give.
    Limit,
}

/// A rule of the format that some bytes break: kind, field and offending value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub struct FormatError {
    /// What the caller may do about it.
    pub kind: FormatErrorKind,
    /// The field that breaks its rule.
    pub field: Field,
    /// The value found there; an offset or a size for regions, the length found for short input.
    pub value: u64,
}

impl FormatError {
    pub(crate) const fn corrupt(field: Field, value: u64) -> FormatError {
        FormatError {
            kind: FormatErrorKind::Corrupt,
            field,
            value,
        }
    }

    pub(crate) const fn unsupported(field: Field, value: u64) -> FormatError {
        FormatError {
            kind: FormatErrorKind::Unsupported,
            field,
            value,
        }
    }

    pub(crate) const fn limit(field: Field, value: u64) -> FormatError {
        FormatError {
            kind: FormatErrorKind::Limit,
            field,
            value,
        }
    }
}

impl fmt::Display for FormatError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            FormatErrorKind::Corrupt => "corrupt",
            FormatErrorKind::Unsupported => "unsupported",
            FormatErrorKind::Limit => "limit",
        };
        let (name, value, rule) = (self.field.name(), self.value, self.field.rule());
        match self.field {
            Field::Magic => {
                write!(f, "{kind}: field `magic` is {value:#010x}")?;
                match Dialect::of_magic(value) {
                    Some(dialect) => write!(f, ", the magic of {dialect}"),
                    None => write!(f, ", not the magic of any FVD image"),
                }
            }
            Field::Version if value == 1 => {
                write!(f, "{kind}: field `version` is 1, {}", Dialect::Spec2011)
            }
            Field::Incompatible
            | Field::RoCompatible
            | Field::UnitCrc
            | Field::SlotCrc
            | Field::TableEntry => {
                write!(f, "{kind}: field `{name}` is {value:#x}, {rule}")
            }
            _ => write!(f, "{kind}: field `{name}` is {value}, {rule}"),
        }
    }
}

impl core::error::Error for FormatError {}

/// Declares [`Field`] with, for each field, the name SPEC.md gives it and its rule.
macro_rules! fields {
    ($($(#[$doc:meta])* $variant:ident $name:literal $rule:literal;)*) => {
        /// A field of the format that an error names, by the name that SPEC.md uses.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Field {
            $($(#[$doc])* #[doc = concat!("`", $name, "`: ", $rule, ".")] $variant,)*
        }

        impl Field {
            /// The field's name in SPEC.md.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $(Field::$variant => $name,)* }
            }

            /// The rule for the field in words, beginning with a verb.
            #[must_use]
            pub const fn rule(self) -> &'static str {
                match self { $(Field::$variant => $rule,)* }
            }

            /// Every field, in the order of SPEC.md.
            pub const ALL: &'static [Field] = &[$(Field::$variant,)*];
        }
    };
}

fields! {
    HeaderSlot "header slot" "must be 4096 bytes long and inside the device";
    Magic "magic" "must be `FVD` and a zero byte";
    Version "version" "must be 2";
    SlotCrc "slot_crc" "must be the CRC-32C of the 4092 bytes before it";
    ExtMagic "ext_magic" "must be `FVD2`";
    ExtLen "ext_len" "must be a multiple of 8 from 216 to 768";
    Incompatible "incompatible" "must have no bit that this reader does not know";
    RoCompatible "ro_compatible" "must have no bit that this writer does not know";
    ImageId "image_id" "must be the same in both header slots";
    Generation "generation" "must be below 2^64 - 1 and differ between slots that differ";
    VirtualDiskSize "virtual_disk_size" "must be a multiple of 512 below 2^63 and 2^31 chunks";
    BlockSize "block_size" "must be a power of two from 512 up to chunk_size";
    ChunkSize "chunk_size" "must be a power of two, 1 to 16 blocks, at most 2 GiB";
    DataOffset "data_offset" "must be a multiple of 4096, and clear of the metadata beside it";
    DataFile "data_file" "must end in a zero byte, be at most 255 bytes, and need bit 4";
    DataFileFormat "data_file_fmt" "must end in a zero byte";
    BaseImage "base_img" "must end in a zero byte and be at most 255 bytes";
    BaseImageFormat "base_img_fmt" "must end in a zero byte";
    BaseImageSize "base_img_size" "must be a multiple of 512 below 2^63";
    BitmapOffset "bitmap_offset" "must start a free, page-aligned region; 0 if there is none";
    BitmapSize "bitmap_size" "must be one bit per block of the base, rounded up to 4096 bytes";
    TableOffset "table_offset" "must start a free, page-aligned region; 0 if there is none";
    TableSize "table_size" "must be 4 bytes per chunk, rounded up to 4096 bytes";
    StorageGrowUnit "storage_grow_unit" "must be a multiple of chunk_size below 2^63";
    AddStorageCommand "add_storage_cmd" "must end in a zero byte and be at most 255 bytes";
    JournalOffset "journal_offset" "must start a free, page-aligned region; 0 if there is none";
    JournalSize "journal_size" "must be whole units, 4 units to 64 MiB; 0 if nothing needs it";
    NeedZeroInit "need_zero_init" "must be 0 where neither a table nor the caller promises zeros";
    StableSeq "stable_seq" "must be below 2^63";
    ZeroFloorChunk "zero_floor_chunk" "must be at most the chunks in store_bytes";
    StoreBytes "store_bytes" "must cover data_offset and at most the data device";
    AtomicUnit "atomic_unit" "must be a power of two from 512 to 4096";
    ChecksumActive "checksum_active" "must be 0 or 1, and 0 without page checksums";
    ChecksumOffsetA "checksum_offset[0]" "must start a free, page-aligned region; 0 if none";
    ChecksumOffsetB "checksum_offset[1]" "must start a free, page-aligned region; 0 if none";
    ChecksumSize "checksum_size" "must be 4 bytes per metadata page, rounded up to 4096 bytes";
    Reserved "reserved" "must be zero while no feature bit gives it a meaning";
    TableEntry "table entry" "must be a store chunk inside the store, unmapped or unreadable";
    TableTail "table tail" "must be unmapped";
    BitmapTail "bitmap tail" "must be zero";
    PageChecksum "page checksum" "must match the page";
    UnitCrc "unit_crc" "must match the unit";
    UnitSeq "unit seq" "must follow its forerunners without a durable one missing";
    UnitIndex "unit index" "must be inside the largest legal commit";
    OldVersion "version" "must be 1 under this magic";
    OldBlockSize "block_size" "must be a multiple of 512 up to 2 GiB";
    OldChunkSize "chunk_size" "must be a multiple of 512 up to 2 GiB";
    OldDataFile "data_file" "must have a name, which is what tells that there is one";
    OldNewChunkSize "chunk_size" "must be a multiple of 4096 in a new image";
    OldTableSize "table_size" "must hold 4 bytes per chunk";
    OldBitmapSize "bitmap_size" "must hold one bit per block of the base";
    OldJournalSize "journal_size" "must be whole sectors, up to 64 MiB or what its table needs";
    OldDataOffset "data start" "must put the data behind the metadata, clear of them";
    RecordKind "record kind" "must be 1 (map) or 2 (store)";
    RecordFlags "record flags" "must be 1, 2 or 3 in a map record, 0 in a store record";
    RecordLength "record length" "must fit the used bytes of the unit";
    RecordBits "record bits" "must be zero for blocks that the bitmap does not hold";
    RecordChunk "record chunk" "must be a chunk of the disk";
    RecordEntry "record entry" "must be zero when absent, and absent without a table";
    RecordFloor "record zero_floor_chunk" "must be at most the chunks in its store_bytes";
}
