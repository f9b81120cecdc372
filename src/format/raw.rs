//! The byte layout of a header slot, nothing else.
//!
//! These structs are views: every field is a little-endian integer or bytes, alignment is 1 and
//! there is no padding, so any 4096 bytes are a [`RawSlot`]. The assertions below pin every offset
//! to the number in SPEC.md §3; a field added in the wrong place does not compile.

use core::mem::{offset_of, size_of};

use static_assertions::const_assert_eq;
use zerocopy::little_endian::{I64, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::SLOT_BYTES;

/// The fields of the 2011 header, at the same offsets in versions 1 and 2 (SPEC.md §3.1).
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawCore {
    pub(super) magic: [u8; 4],
    pub(super) version: U32,
    pub(super) virtual_disk_size: U64,
    pub(super) data_offset: U64,
    pub(super) data_file: [u8; 1024],
    pub(super) data_file_fmt: [u8; 16],
    pub(super) base_img: [u8; 1024],
    pub(super) base_img_fmt: [u8; 16],
    pub(super) base_img_size: U64,
    pub(super) bitmap_offset: U64,
    pub(super) bitmap_size: U64,
    pub(super) block_size: U64,
    pub(super) table_offset: U64,
    pub(super) table_size: U64,
    pub(super) chunk_size: U64,
    pub(super) storage_grow_unit: U64,
    pub(super) add_storage_cmd: [u8; 1024],
    pub(super) journal_offset: U64,
    pub(super) journal_size: U64,
    pub(super) stable_journal_epoch: U64,
    pub(super) clean_shutdown: U32,
    pub(super) copy_on_read: U32,
    pub(super) max_outstanding_copy_on_read_data: U64,
    pub(super) prefetch_start_delay: I64,
    pub(super) base_img_fully_prefetched: U32,
    pub(super) num_prefetch_slots: U32,
    pub(super) bytes_per_prefetch: U64,
    pub(super) prefetch_min_read_throughput: U64,
    pub(super) prefetch_max_read_throughput: U64,
    pub(super) prefetch_min_write_throughput: U64,
    pub(super) prefetch_max_write_throughput: U64,
    pub(super) prefetch_throttle_time: U64,
    pub(super) prefetch_read_throughput_measure_time: U64,
    pub(super) prefetch_write_throughput_measure_time: U64,
    pub(super) need_zero_init: U32,
}

/// The extension of version 2, inside what 2011 calls `reserved` (SPEC.md §3.2).
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawExtension {
    pub(super) ext_magic: [u8; 4],
    pub(super) ext_len: U32,
    pub(super) incompatible: U64,
    pub(super) ro_compatible: U64,
    pub(super) compatible: U64,
    pub(super) autoclear: U64,
    pub(super) generation: U64,
    pub(super) image_id: [u8; 16],
    pub(super) owner_nonce: U64,
    pub(super) base_id: [u8; 16],
    pub(super) base_generation: U64,
    pub(super) zero_floor_chunk: U64,
    pub(super) store_bytes: U64,
    pub(super) atomic_unit: U32,
    pub(super) checksum_active: U32,
    pub(super) checksum_offset: [U64; 2],
    pub(super) checksum_size: U64,
    /// Fields of features that do not exist yet (SPEC.md §3.3).
    pub(super) later: RawLater,
}

/// Places kept for partial blocks, split records and snapshots: zero until their bits exist.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawLater {
    pub(super) partial_offset: U64,
    pub(super) partial_size: U64,
    pub(super) split_offset: U64,
    pub(super) split_size: U64,
    pub(super) counts_a_offset: U64,
    pub(super) counts_b_offset: U64,
    pub(super) counts_size: U64,
    pub(super) snapshot_offset: U64,
    pub(super) snapshot_size: U64,
}

/// One header slot of version 2 (SPEC.md §3).
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawSlot {
    pub(super) core: RawCore,
    /// Keeps the extension on an 8-byte boundary; zero.
    pub(super) pad: [u8; 4],
    pub(super) extension: RawExtension,
    pub(super) tail: [u8; 556],
    pub(super) crc: U32,
}

/// The start of a version-1 header: its fields, then 4096 reserved bytes that nobody reads.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawHeader2011 {
    pub(super) core: RawCore,
    pub(super) reserved: [u8; 4096],
}

/// Bytes from `ext_magic` to the end of the extension as this version defines it.
pub(super) const EXT_LEN: u32 = 216;
/// Bytes from `ext_magic` to `slot_crc`: the longest extension of any later version.
pub(super) const EXT_LEN_MAX: u32 = 768;

const_assert_eq!(size_of::<RawSlot>(), SLOT_BYTES);
const_assert_eq!(size_of::<RawHeader2011>(), 7412);
const_assert_eq!(size_of::<RawCore>(), 3316);
const_assert_eq!(size_of::<RawExtension>(), 216);
const_assert_eq!(offset_of!(RawSlot, extension), 3320);
const_assert_eq!(offset_of!(RawSlot, tail), 3536);
const_assert_eq!(offset_of!(RawSlot, crc), 4092);

macro_rules! offsets {
    ($($($part:ident).+ $offset:literal,)*) => {
        $(const_assert_eq!(offset_of!(RawSlot, $($part).+), $offset);)*
    };
}

offsets! {
    core.magic 0, core.version 4, core.virtual_disk_size 8, core.data_offset 16,
    core.data_file 24, core.data_file_fmt 1048, core.base_img 1064, core.base_img_fmt 2088,
    core.base_img_size 2104, core.bitmap_offset 2112, core.bitmap_size 2120, core.block_size 2128,
    core.table_offset 2136, core.table_size 2144, core.chunk_size 2152,
    core.storage_grow_unit 2160, core.add_storage_cmd 2168, core.journal_offset 3192,
    core.journal_size 3200, core.stable_journal_epoch 3208, core.clean_shutdown 3216,
    core.copy_on_read 3220, core.max_outstanding_copy_on_read_data 3224,
    core.prefetch_start_delay 3232, core.base_img_fully_prefetched 3240,
    core.num_prefetch_slots 3244, core.bytes_per_prefetch 3248,
    core.prefetch_min_read_throughput 3256, core.prefetch_max_read_throughput 3264,
    core.prefetch_min_write_throughput 3272, core.prefetch_max_write_throughput 3280,
    core.prefetch_throttle_time 3288, core.prefetch_read_throughput_measure_time 3296,
    core.prefetch_write_throughput_measure_time 3304, core.need_zero_init 3312,
}

offsets! {
    extension.ext_magic 3320, extension.ext_len 3324, extension.incompatible 3328,
    extension.ro_compatible 3336, extension.compatible 3344, extension.autoclear 3352,
    extension.generation 3360, extension.image_id 3368, extension.owner_nonce 3384,
    extension.base_id 3392, extension.base_generation 3408, extension.zero_floor_chunk 3416,
    extension.store_bytes 3424, extension.atomic_unit 3432, extension.checksum_active 3436,
    extension.checksum_offset 3440, extension.checksum_size 3456, extension.later 3464,
}

offsets! {
    extension.later.partial_offset 3464, extension.later.partial_size 3472,
    extension.later.split_offset 3480, extension.later.split_size 3488,
    extension.later.counts_a_offset 3496, extension.later.counts_b_offset 3504,
    extension.later.counts_size 3512, extension.later.snapshot_offset 3520,
    extension.later.snapshot_size 3528,
}
