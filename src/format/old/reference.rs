//! The header of the reference implementation, magic `A9 F5 43 51` (DIALECTS.md §2).

use core::num::NonZeroU64;

use zerocopy::FromBytes;
use zerocopy::little_endian::U32;

use super::raw::RawReference;
use super::{OLD_HEADER_BYTES, rules};
use crate::format::common::{CopySettings, Core};
use crate::format::error::{Field, FormatError};
use crate::format::header::Header;
use crate::format::regions::Region;
use crate::format::slots::{MAGIC_REFERENCE, VERSION_1};

/// Smoothing of measured throughput, percent: what its `create` writes, since it has no meaning here.
const PERF_CALC_ALPHA: u32 = 80;
/// Bytes per unit of a profile that was never implemented: what its `create` writes.
const PROFILE_UNIT_BYTES: u32 = 4096;

/// Reads the header from the first bytes of an image; 4336 are enough.
///
/// # Errors
///
/// `Corrupt` for too few bytes or a broken rule, `Unsupported` for another version, `Limit` for what
/// is legal and too large.
pub(super) fn parse(start: &[u8], header: &mut Header) -> Result<(), FormatError> {
    let Ok((raw, _)) = RawReference::ref_from_prefix(start) else {
        let length = u64::try_from(start.len()).unwrap_or(u64::MAX);
        return Err(FormatError::corrupt(Field::HeaderSlot, length));
    };
    if raw.version.get() != VERSION_1 {
        let version = u64::from(raw.version.get());
        return Err(FormatError::unsupported(Field::OldVersion, version));
    }
    read(raw, &mut header.core);
    let compact = raw.compact_image.get() != 0;
    let recorded = rules::Recorded {
        bitmap_bytes: raw.bitmap_size.get(),
        table: compact.then(|| raw.table_offset.get()),
        // In a file of their own they start at its first byte.
        data_offset: if header.core.data_file.is_empty() {
            raw.metadata_size.get() & !511
        } else {
            0
        },
    };
    rules::complete(header, &recorded)
}

fn read(raw: &RawReference, core: &mut Core) {
    core.virtual_bytes = raw.virtual_disk_size.get();
    core.data_file.read_bounded(&raw.data_file);
    core.data_file_format.read_bounded(&raw.data_file_fmt);
    core.base_name.read_bounded(&raw.base_img);
    core.base_format.read_bounded(&raw.base_img_fmt);
    core.base_bytes = raw.base_img_size.get();
    core.bitmap.offset = raw.bitmap_offset.get();
    core.block_bytes = u64::from(raw.block_size.get());
    core.chunk_bytes = raw.chunk_size.get();
    core.grow_bytes = NonZeroU64::new(raw.storage_grow_unit.get());
    core.add_storage_command.read_bounded(&raw.add_storage_cmd);
    core.journal = Region {
        offset: raw.journal_offset.get(),
        bytes: raw.journal_size.get(),
    };
    core.clean_shutdown = raw.clean_shutdown.get() != 0;
    core.base_fully_prefetched = raw.all_data_in_fvd_img.get() != 0 && core.base_bytes != 0;
    core.need_zero_init = raw.need_zero_init.get() != 0;
    core.copy = read_copy(raw);
}

fn read_copy(raw: &RawReference) -> CopySettings {
    let delay = i64::from(raw.prefetch_start_delay.get());
    CopySettings {
        copy_on_read: raw.copy_on_read.get() != 0,
        copy_on_read_bytes_max: raw.max_outstanding_copy_on_read_data.get(),
        // Only more than 0 turns prefetch on there.
        prefetch_start_delay_s: if delay > 0 { delay } else { -1 },
        prefetch_slots: raw.num_prefetch_slots.get(),
        prefetch_bytes: u64::from(raw.bytes_per_prefetch.get()),
        read_throughput_min: u64::from(raw.prefetch_min_read_throughput.get()),
        read_throughput_max: u64::from(raw.prefetch_max_read_throughput.get()),
        write_throughput_min: u64::from(raw.prefetch_min_write_throughput.get()),
        write_throughput_max: u64::from(raw.prefetch_max_write_throughput.get()),
        throttle_ms_max: u64::from(raw.prefetch_throttle_time.get()),
        read_measure_ms: u64::from(raw.prefetch_read_throughput_measure_time.get()),
        write_measure_ms: u64::from(raw.prefetch_write_throughput_measure_time.get()),
    }
}

/// Writes the header of a new image, as the reference's own `create` would.
pub(super) fn write(header: &Header, start: &mut [u8; OLD_HEADER_BYTES]) {
    let core = &header.core;
    start.fill(0);
    let Ok((raw, _)) = RawReference::mut_from_prefix(start.as_mut_slice()) else {
        return;
    };
    raw.magic = MAGIC_REFERENCE;
    raw.version = VERSION_1.into();
    raw.all_data_in_fvd_img = flag(!header.has_bitmap());
    raw.virtual_disk_size = core.virtual_bytes.into();
    raw.metadata_size = header.metadata_end().into();
    core.data_file.write(&mut raw.data_file);
    core.data_file_format.write(&mut raw.data_file_fmt);
    raw.compact_image = flag(header.has_table());
    if header.has_table() {
        raw.table_offset = core.table.offset.into();
        raw.chunk_size = core.chunk_bytes.into();
        raw.storage_grow_unit = core.grow_bytes.map_or(0, NonZeroU64::get).into();
        core.add_storage_command.write(&mut raw.add_storage_cmd);
    }
    raw.journal_offset = core.journal.offset.into();
    raw.journal_size = core.journal.bytes.into();
    raw.clean_shutdown = flag(core.clean_shutdown);
    raw.need_zero_init = flag(core.need_zero_init);
    raw.prefetch_profile_entry_len_unit = PROFILE_UNIT_BYTES.into();
    raw.profile_directed_prefetch_start_delay = (-1).into();
    if header.has_base() {
        write_base(core, raw);
    }
}

/// What its `create` leaves zero without a base.
fn write_base(core: &Core, raw: &mut RawReference) {
    let narrow = |value: u64| U32::new(u32::try_from(value).unwrap_or(u32::MAX));
    core.base_name.write(&mut raw.base_img);
    core.base_format.write(&mut raw.base_img_fmt);
    raw.base_img_size = core.base_bytes.into();
    raw.bitmap_offset = core.bitmap.offset.into();
    raw.bitmap_size = core.bitmap.bytes.into();
    raw.block_size = narrow(core.block_bytes);
    let copy = &core.copy;
    raw.copy_on_read = flag(copy.copy_on_read);
    raw.max_outstanding_copy_on_read_data = copy.copy_on_read_bytes_max.into();
    let delay = i32::try_from(copy.prefetch_start_delay_s).unwrap_or(i32::MAX);
    raw.prefetch_start_delay = if delay > 0 { delay } else { -1 }.into();
    raw.num_prefetch_slots = copy.prefetch_slots.into();
    raw.bytes_per_prefetch = narrow(copy.prefetch_bytes);
    raw.prefetch_read_throughput_measure_time = narrow(copy.read_measure_ms);
    raw.prefetch_write_throughput_measure_time = narrow(copy.write_measure_ms);
    raw.prefetch_perf_calc_alpha = PERF_CALC_ALPHA.into();
    raw.prefetch_min_read_throughput = narrow(copy.read_throughput_min);
    raw.prefetch_min_write_throughput = narrow(copy.write_throughput_min);
    raw.prefetch_max_read_throughput = narrow(copy.read_throughput_max);
    raw.prefetch_max_write_throughput = narrow(copy.write_throughput_max);
    raw.prefetch_throttle_time = narrow(copy.throttle_ms_max);
}

fn flag(on: bool) -> U32 {
    u32::from(on).into()
}
