//! The fields of the 2011 header, in memory and on disk (SPEC.md §3.1).

use core::num::NonZeroU64;

use zerocopy::little_endian::U64;

use super::error::{Field, FormatError};
use super::name::{FormatName, Name, Text};
use super::raw::RawCore;
use super::regions::Region;

/// When and how blocks are copied out of the base. Hints, taken as they are found: whoever uses
/// one brings it into a range it can stand (SPEC.md §3.5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub struct CopySettings {
    /// Whether a block that a guest reads from the base is also saved.
    pub copy_on_read: bool,
    /// Bytes read but not yet saved beyond which copy-on-read pauses.
    pub copy_on_read_bytes_max: u64,
    /// Seconds after opening until prefetch starts; negative = no prefetch.
    pub prefetch_start_delay_s: i64,
    /// Prefetch reads in flight.
    pub prefetch_slots: u32,
    /// Bytes of one prefetch read.
    pub prefetch_bytes: u64,
    /// KB/s below which reads count as too slow; prefetch then pauses.
    pub read_throughput_min: u64,
    /// KB/s that prefetch may read at most.
    pub read_throughput_max: u64,
    /// KB/s below which writes count as too slow; prefetch then pauses.
    pub write_throughput_min: u64,
    /// KB/s that prefetch may write at most.
    pub write_throughput_max: u64,
    /// Longest pause, milliseconds.
    pub throttle_ms_max: u64,
    /// Milliseconds over which read throughput is measured.
    pub read_measure_ms: u64,
    /// Milliseconds over which write throughput is measured.
    pub write_measure_ms: u64,
}

impl CopySettings {
    /// What `create` writes unless told otherwise: no copy-on-read, no prefetch, and the rest as a
    /// starting point for whoever turns them on (SPEC.md §11).
    pub const DEFAULT: CopySettings = CopySettings {
        copy_on_read: false,
        copy_on_read_bytes_max: 2 << 20,
        prefetch_start_delay_s: -1,
        prefetch_slots: 2,
        prefetch_bytes: 1 << 20,
        read_throughput_min: 5120,
        read_throughput_max: 1_000_000_000,
        write_throughput_min: 5120,
        write_throughput_max: 1_000_000_000,
        throttle_ms_max: 30_000,
        read_measure_ms: 100,
        write_measure_ms: 100,
    };
}

/// The fields of the 2011 header, which all dialects share in meaning.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Core {
    /// `virtual_disk_size`: bytes that the guest sees; a multiple of 512, 0 is legal.
    pub virtual_bytes: u64,
    /// Where the chunks start on the data device, bytes.
    pub data_offset: u64,
    /// Name of the data file; a label, never opened. Empty = none.
    pub data_file: Name,
    /// Format of the data file; a label.
    pub data_file_format: FormatName,
    /// Name of the base; a label, never opened. Empty = the host knows the base otherwise.
    pub base_name: Name,
    /// Format of the base; a label.
    pub base_format: FormatName,
    /// `base_img_size`: bytes of the base when it was named, 0 = no base.
    ///
    /// May exceed the disk, which then hides the rest of the base.
    pub base_bytes: u64,
    /// The base bitmap.
    pub bitmap: Region,
    /// `block_size`: bytes of a copy-on-write block.
    pub block_bytes: u64,
    /// The lookup table. None = chunk `i` of the disk is chunk `i` of the store.
    pub table: Region,
    /// `chunk_size`: bytes of an allocation chunk.
    pub chunk_bytes: u64,
    /// `storage_grow_unit`: bytes by which a growing store is extended at a time. `None`, 0 on disk =
    /// as needed. Whether a store can grow at all is for its device to say.
    pub grow_bytes: Option<NonZeroU64>,
    /// `add_storage_cmd`: a command for the host; reported, never run.
    pub add_storage_command: Name,
    /// The journal. None only if nothing needs one.
    pub journal: Region,
    /// `stable_journal_epoch`: sequence number of the first journal unit that recovery replays;
    /// all older ones are in place.
    pub stable_seq: u64,
    /// Whether the last session closed; a hint, since version 2 always looks at the journal.
    pub clean_shutdown: bool,
    /// Copy-on-read and prefetch.
    pub copy: CopySettings,
    /// `base_img_fully_prefetched`: the base is not needed any more, whatever the bitmap says.
    pub base_fully_prefetched: bool,
    /// Zero blocks of the base were marked as "in FVD" at creation without being written, so the
    /// store must read zeros where it was never written.
    pub need_zero_init: bool,
}

impl Core {
    /// No disk at all: what reading a header starts from.
    pub(super) const NONE: Core = Core {
        virtual_bytes: 0,
        data_offset: 0,
        data_file: Name::EMPTY,
        data_file_format: FormatName::EMPTY,
        base_name: Name::EMPTY,
        base_format: FormatName::EMPTY,
        base_bytes: 0,
        bitmap: Region::NONE,
        block_bytes: 0,
        table: Region::NONE,
        chunk_bytes: 0,
        grow_bytes: None,
        add_storage_command: Name::EMPTY,
        journal: Region::NONE,
        stable_seq: 0,
        clean_shutdown: false,
        copy: CopySettings::DEFAULT,
        base_fully_prefetched: false,
        need_zero_init: false,
    };
}

impl Core {
    /// Refuses a header whose names are not known to their ends, since they can not be written.
    pub(super) fn check_whole_names(&self) -> Result<(), FormatError> {
        self.base_name.check_whole(Field::BaseImage)?;
        self.base_format.check_whole(Field::BaseImageFormat)?;
        self.data_file.check_whole(Field::DataFile)?;
        self.data_file_format.check_whole(Field::DataFileFormat)?;
        self.add_storage_command
            .check_whole(Field::AddStorageCommand)
    }
}

/// What ends a name in a header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Names {
    /// A zero byte inside the field, as version 2 demands.
    Terminated,
    /// A zero byte or the end of the field.
    Bounded,
}

impl Names {
    fn read<const MAX: usize>(
        self,
        name: &mut Text<MAX>,
        bytes: &[u8],
        field: Field,
    ) -> Result<(), FormatError> {
        match self {
            Names::Terminated => name.read_terminated(bytes, field),
            Names::Bounded => {
                name.read_bounded(bytes);
                Ok(())
            }
        }
    }
}

/// Reads the fields as they stand; only names can be wrong here.
///
/// Each flag is read towards the careful side. Only 1 means "closed cleanly", "fully prefetched"
/// and "copy on read"; anything but 0 means that the store has to read zeros.
pub(super) fn read_core(raw: &RawCore, names: Names, core: &mut Core) -> Result<(), FormatError> {
    let region = |offset: U64, bytes: U64| Region {
        offset: offset.get(),
        bytes: bytes.get(),
    };
    core.virtual_bytes = raw.virtual_disk_size.get();
    core.data_offset = raw.data_offset.get();
    names.read(&mut core.data_file, &raw.data_file, Field::DataFile)?;
    names.read(
        &mut core.data_file_format,
        &raw.data_file_fmt,
        Field::DataFileFormat,
    )?;
    names.read(&mut core.base_name, &raw.base_img, Field::BaseImage)?;
    names.read(
        &mut core.base_format,
        &raw.base_img_fmt,
        Field::BaseImageFormat,
    )?;
    core.base_bytes = raw.base_img_size.get();
    core.bitmap = region(raw.bitmap_offset, raw.bitmap_size);
    core.block_bytes = raw.block_size.get();
    core.table = region(raw.table_offset, raw.table_size);
    core.chunk_bytes = raw.chunk_size.get();
    core.grow_bytes = NonZeroU64::new(raw.storage_grow_unit.get());
    names.read(
        &mut core.add_storage_command,
        &raw.add_storage_cmd,
        Field::AddStorageCommand,
    )?;
    core.journal = region(raw.journal_offset, raw.journal_size);
    core.stable_seq = raw.stable_journal_epoch.get();
    core.clean_shutdown = raw.clean_shutdown.get() == 1;
    core.copy = read_copy(raw);
    core.base_fully_prefetched = raw.base_img_fully_prefetched.get() == 1;
    core.need_zero_init = raw.need_zero_init.get() != 0;
    Ok(())
}

fn read_copy(raw: &RawCore) -> CopySettings {
    CopySettings {
        copy_on_read: raw.copy_on_read.get() == 1,
        copy_on_read_bytes_max: raw.max_outstanding_copy_on_read_data.get(),
        prefetch_start_delay_s: raw.prefetch_start_delay.get(),
        prefetch_slots: raw.num_prefetch_slots.get(),
        prefetch_bytes: raw.bytes_per_prefetch.get(),
        read_throughput_min: raw.prefetch_min_read_throughput.get(),
        read_throughput_max: raw.prefetch_max_read_throughput.get(),
        write_throughput_min: raw.prefetch_min_write_throughput.get(),
        write_throughput_max: raw.prefetch_max_write_throughput.get(),
        throttle_ms_max: raw.prefetch_throttle_time.get(),
        read_measure_ms: raw.prefetch_read_throughput_measure_time.get(),
        write_measure_ms: raw.prefetch_write_throughput_measure_time.get(),
    }
}

/// Writes every field but magic and version.
pub(super) fn write_core(core: &Core, raw: &mut RawCore) {
    raw.virtual_disk_size = core.virtual_bytes.into();
    raw.data_offset = core.data_offset.into();
    core.data_file.write(&mut raw.data_file);
    core.data_file_format.write(&mut raw.data_file_fmt);
    core.base_name.write(&mut raw.base_img);
    core.base_format.write(&mut raw.base_img_fmt);
    raw.base_img_size = core.base_bytes.into();
    raw.bitmap_offset = core.bitmap.offset.into();
    raw.bitmap_size = core.bitmap.bytes.into();
    raw.block_size = core.block_bytes.into();
    raw.table_offset = core.table.offset.into();
    raw.table_size = core.table.bytes.into();
    raw.chunk_size = core.chunk_bytes.into();
    raw.storage_grow_unit = core.grow_bytes.map_or(0, NonZeroU64::get).into();
    core.add_storage_command.write(&mut raw.add_storage_cmd);
    raw.journal_offset = core.journal.offset.into();
    raw.journal_size = core.journal.bytes.into();
    raw.stable_journal_epoch = core.stable_seq.into();
    raw.clean_shutdown = u32::from(core.clean_shutdown).into();
    write_copy(&core.copy, raw);
    raw.base_img_fully_prefetched = u32::from(core.base_fully_prefetched).into();
    raw.need_zero_init = u32::from(core.need_zero_init).into();
}

fn write_copy(copy: &CopySettings, raw: &mut RawCore) {
    raw.copy_on_read = u32::from(copy.copy_on_read).into();
    raw.max_outstanding_copy_on_read_data = copy.copy_on_read_bytes_max.into();
    raw.prefetch_start_delay = copy.prefetch_start_delay_s.into();
    raw.num_prefetch_slots = copy.prefetch_slots.into();
    raw.bytes_per_prefetch = copy.prefetch_bytes.into();
    raw.prefetch_min_read_throughput = copy.read_throughput_min.into();
    raw.prefetch_max_read_throughput = copy.read_throughput_max.into();
    raw.prefetch_min_write_throughput = copy.write_throughput_min.into();
    raw.prefetch_max_write_throughput = copy.write_throughput_max.into();
    raw.prefetch_throttle_time = copy.throttle_ms_max.into();
    raw.prefetch_read_throughput_measure_time = copy.read_measure_ms.into();
    raw.prefetch_write_throughput_measure_time = copy.write_measure_ms.into();
}
