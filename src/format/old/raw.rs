//! The byte layout of the reference implementation's header, nothing else (DIALECTS.md §2).
//!
//! A view like those in `format/raw.rs`: little-endian, alignment 1, every offset asserted.

use core::mem::{offset_of, size_of};

use static_assertions::const_assert_eq;
use zerocopy::little_endian::{I32, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// The header of the reference implementation. It takes 8192 bytes; the rest is zero.
#[derive(FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub(super) struct RawReference {
    pub(super) magic: [u8; 4],
    pub(super) version: U32,
    pub(super) all_data_in_fvd_img: U32,
    pub(super) virtual_disk_size: U64,
    pub(super) metadata_size: U64,
    pub(super) base_img: [u8; 1024],
    pub(super) base_img_fmt: [u8; 16],
    pub(super) base_img_size: U64,
    pub(super) bitmap_offset: U64,
    pub(super) bitmap_size: U64,
    pub(super) block_size: U32,
    pub(super) copy_on_read: U32,
    pub(super) max_outstanding_copy_on_read_data: U64,
    pub(super) data_file: [u8; 1024],
    pub(super) data_file_fmt: [u8; 16],
    pub(super) prefetch_start_delay: I32,
    pub(super) prefetch_profile_offset: U64,
    pub(super) prefetch_profile_entries: U64,
    pub(super) num_prefetch_slots: U32,
    pub(super) bytes_per_prefetch: U32,
    pub(super) prefetch_read_throughput_measure_time: U32,
    pub(super) prefetch_write_throughput_measure_time: U32,
    pub(super) prefetch_perf_calc_alpha: U32,
    pub(super) prefetch_min_read_throughput: U32,
    pub(super) prefetch_min_write_throughput: U32,
    pub(super) prefetch_max_read_throughput: U32,
    pub(super) prefetch_max_write_throughput: U32,
    pub(super) prefetch_throttle_time: U32,
    pub(super) compact_image: U32,
    pub(super) table_offset: U64,
    pub(super) chunk_size: U64,
    pub(super) storage_grow_unit: U64,
    pub(super) add_storage_cmd: [u8; 2048],
    pub(super) journal_offset: U64,
    pub(super) journal_size: U64,
    pub(super) clean_shutdown: U32,
    pub(super) need_zero_init: U32,
    pub(super) generate_prefetch_profile: U32,
    pub(super) prefetch_profile_entry_len_unit: U32,
    pub(super) profile_directed_prefetch_start_delay: I32,
    pub(super) write_updates_base_img: [u8; 16],
}

const_assert_eq!(size_of::<RawReference>(), 4336);

macro_rules! offsets {
    ($($field:ident $offset:literal,)*) => {
        $(const_assert_eq!(offset_of!(RawReference, $field), $offset);)*
    };
}

offsets! {
    magic 0, version 4, all_data_in_fvd_img 8, virtual_disk_size 12, metadata_size 20, base_img 28,
    base_img_fmt 1052, base_img_size 1068, bitmap_offset 1076, bitmap_size 1084, block_size 1092,
    copy_on_read 1096, max_outstanding_copy_on_read_data 1100, data_file 1108, data_file_fmt 2132,
    prefetch_start_delay 2148, prefetch_profile_offset 2152, prefetch_profile_entries 2160,
    num_prefetch_slots 2168, bytes_per_prefetch 2172, prefetch_read_throughput_measure_time 2176,
    prefetch_write_throughput_measure_time 2180, prefetch_perf_calc_alpha 2184,
    prefetch_min_read_throughput 2188, prefetch_min_write_throughput 2192,
    prefetch_max_read_throughput 2196, prefetch_max_write_throughput 2200,
    prefetch_throttle_time 2204, compact_image 2208, table_offset 2212, chunk_size 2220,
    storage_grow_unit 2228, add_storage_cmd 2236, journal_offset 4284, journal_size 4292,
    clean_shutdown 4300, need_zero_init 4304, generate_prefetch_profile 4308,
    prefetch_profile_entry_len_unit 4312, profile_directed_prefetch_start_delay 4316,
    write_updates_base_img 4320,
}

/// Byte of `clean_shutdown` in the header.
pub(super) const CLEAN_OFFSET: usize = offset_of!(RawReference, clean_shutdown);
