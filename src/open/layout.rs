//! What an image needs: memory, and devices that suit.

use crate::buffer::SEGMENTS_MAX;
use crate::device::Geometry;
use crate::engine::{REQUEST_CHUNKS_MAX, TransferLimits};
use crate::format::journal::{commit_units_max, records_per_unit};
use crate::format::{
    ChosenSlot, Field, FormatError, Header, PAGE_BYTES, PAGE_BYTES_U64, SlotIndex,
};
use crate::journal::JournalSize;
use crate::meta::MapSize;
use crate::stores::{Role, Stores};
use crate::units::Shape;

use super::error::{GeometryProblem, OpenError};
use super::options::OpenOptions;
use super::survey::Purpose;

/// A probed image: its header, what the session will be like, and the memory that it takes.
#[derive(Clone, Copy, Debug)]
pub struct Layout {
    pub(crate) header: Header,
    pub(crate) slot: SlotIndex,
    pub(crate) purpose: Purpose,
    /// Checksum of that slot if the other one is valid too: then power loss may have left either of
    /// them reading one thing or another.
    pub(crate) doubtful_slot: Option<u32>,
    pub(crate) shape: Shape,
    pub(crate) options: OpenOptions,
    pub(crate) geometry: Geometry,
    pub(crate) limits: TransferLimits,
    /// Bytes of the base that count: what is on record, or less if the base is shorter.
    pub(crate) base_bytes: u64,
    pub(crate) map: MapSize,
    pub(crate) journal: JournalSize,
    /// Store chunks that the free map has room for.
    pub(crate) store_chunks_max: u32,
}

impl Layout {
    /// Checks the devices against the header and computes all sizes. `options` are within their limits.
    #[inline(never)] // its frame must not be there while the header is read
    pub(crate) fn new<S: Stores>(
        stores: &S,
        chosen: &ChosenSlot,
        options: &OpenOptions,
        purpose: Purpose,
    ) -> Result<Layout, OpenError> {
        let header = &chosen.header;
        let shape = header.shape();
        let metadata = checked(stores, Role::Metadata, header, &shape, options)?;
        let data = checked(stores, Role::Data, header, &shape, options)?;
        if header.has_external_data() == S::SHARED {
            return Err(OpenError::DataDevice { wanted: S::SHARED });
        }
        // In place, a page may share an atomic unit with others: every mixture of both is right.
        let shares = !header.dialect.is_old();
        if shares && metadata.atomic_write_bytes > header.atomic_unit {
            let value = u64::from(metadata.atomic_write_bytes);
            let problem = GeometryProblem::AtomicWrite;
            return Err(OpenError::Geometry {
                role: Role::Metadata,
                problem,
                value,
            });
        }
        if header.is_read_only() && !options.read_only {
            let features = header.features.unknown_ro_compatible();
            return Err(OpenError::NeedsReadOnly { features });
        }
        // With a table, what was never written has no chunk and reads zeros without any promise.
        if header.core.need_zero_init && !header.has_table() && !options.store_reads_zeros {
            return Err(FormatError::unsupported(Field::NeedZeroInit, 1).into());
        }
        match header.validate(metadata.capacity_bytes, Some(data.capacity_bytes)) {
            // What that means depends on the table, which is still to be read.
            Err(error) if error.field == Field::StoreBytes && purpose != Purpose::Use => {}
            result => {
                result?;
            }
        }
        let base = check_base(stores, header, &shape, options)?;
        let base_bytes = base.map_or(0, |base| base.capacity_bytes.min(header.core.base_bytes));
        let limits = transfer_limits(&data, base.as_ref());
        if !options.read_only && request_bytes_max(header, &shape, options) < PAGE_BYTES_U64 {
            let chunks = shape.block_bytes().div_ceil(shape.chunk_bytes().max(1));
            return Err(OpenError::BlocksTooWide { chunks });
        }
        Ok(Layout {
            header: *header,
            slot: chosen.slot,
            purpose,
            doubtful_slot: chosen.other_valid.then_some(chosen.crc),
            shape,
            options: *options,
            geometry: disk_geometry(header, &shape, options, &data, base.as_ref()),
            limits,
            base_bytes,
            map: map_size(header, options),
            journal: JournalSize::new(header),
            store_chunks_max: store_chunks_max(header, &data),
        })
    }

    /// Blocks of memory for copies. Only what is written over a base is copied.
    pub(crate) const fn scratch_blocks(&self) -> u16 {
        if self.header.has_bitmap() && !self.options.read_only {
            self.options.scratch_blocks
        } else {
            0
        }
    }

    /// Op records that hold staging memory: commit, pages, zeros, and each block of scratch.
    pub(crate) const fn holder_count(&self) -> u32 {
        3 + self.scratch_blocks() as u32
    }

    /// The image's header.
    #[must_use]
    pub const fn header(&self) -> &Header {
        &self.header
    }

    /// What the disk will be like.
    #[must_use]
    pub const fn geometry(&self) -> &Geometry {
        &self.geometry
    }
}

/// The geometry of a device that must be there, checked against the image.
fn checked<S: Stores>(
    stores: &S,
    role: Role,
    header: &Header,
    shape: &Shape,
    options: &OpenOptions,
) -> Result<Geometry, OpenError> {
    let missing = match role {
        Role::Base => OpenError::NoBase,
        Role::Metadata | Role::Data => OpenError::DataDevice { wanted: true },
    };
    let geometry = stores.geometry(role).ok_or(missing)?;
    let logical = geometry.logical_block_bytes;
    let bad = |problem, value| {
        Err(OpenError::Geometry {
            role,
            problem,
            value,
        })
    };
    if !logical.is_power_of_two() || !(512..=4096).contains(&logical) {
        return bad(GeometryProblem::LogicalBlock, u64::from(logical));
    }
    if !sizes_suit(header, shape, role, u64::from(logical))
        || (role == Role::Metadata && logical > header.atomic_unit)
        || (role == Role::Base && !header.core.base_bytes.is_multiple_of(u64::from(logical)))
    {
        return bad(GeometryProblem::LogicalBlock, u64::from(logical));
    }
    let transfer = u64::from(geometry.transfer_max_bytes.min(geometry.segment_max_bytes));
    if transfer < shape.block_bytes().max(64 << 10) {
        return bad(GeometryProblem::TransferMax, transfer);
    }
    if geometry.segments_max == 0 {
        return bad(
            GeometryProblem::SegmentsMax,
            u64::from(geometry.segments_max),
        );
    }
    if geometry.read_only && !options.read_only && role != Role::Base {
        return bad(GeometryProblem::ReadOnly, 1);
    }
    Ok(geometry)
}

/// Whether everything that is read and written starts and ends where a device with logical blocks of
/// this size can. In version 2 all of it is a power of two, and data start at a page.
fn sizes_suit(header: &Header, shape: &Shape, role: Role, logical: u64) -> bool {
    let (block, chunk) = (shape.block_bytes(), shape.chunk_bytes());
    let placed = role != Role::Data || header.core.data_offset.is_multiple_of(logical);
    block.is_multiple_of(logical) && chunk.is_multiple_of(logical) && placed
}

fn check_base<S: Stores>(
    stores: &S,
    header: &Header,
    shape: &Shape,
    options: &OpenOptions,
) -> Result<Option<Geometry>, OpenError> {
    if !header.has_bitmap() {
        return Ok(None);
    }
    let base = checked(stores, Role::Base, header, shape, options)?;
    if options.accept_base {
        return Ok(Some(base));
    }
    // The old dialects record what they show of a base, not how long it is.
    let longer = header.dialect.is_old() && base.capacity_bytes > header.core.base_bytes;
    if base.capacity_bytes != header.core.base_bytes && !longer {
        return Err(OpenError::BaseMismatch {
            recorded_bytes: header.core.base_bytes,
            found_bytes: base.capacity_bytes,
        });
    }
    match options.base_id {
        Some(id) if header.base_id != [0; 16] && id != header.base_id => {
            Err(OpenError::BaseIdMismatch)
        }
        _ => Ok(Some(base)),
    }
}

fn map_size(header: &Header, options: &OpenOptions) -> MapSize {
    let counts = header.page_counts();
    let pages = counts.total() as usize;
    let units = commit_units_max(header.journal_units(), header.atomic_unit);
    let records = units
        .saturating_mul(records_per_unit(header.atomic_unit))
        .saturating_sub(2);
    let changes = header.has_table() || header.has_bitmap();
    let pending = if changes && header.dialect.is_old() {
        u32::from(options.pending_max)
    } else if changes {
        u32::from(options.pending_max).min(records).max(1)
    } else {
        0
    };
    MapSize {
        page_bytes: pages.saturating_mul(PAGE_BYTES),
        sum_bytes: usize::try_from(header.checksum_bytes).unwrap_or(usize::MAX),
        page_count: pages,
        sealed_bytes: if header.dialect.is_old() && !options.read_only {
            pages.saturating_mul(PAGE_BYTES)
        } else {
            0
        },
        pending: u16::try_from(pending).unwrap_or(u16::MAX),
    }
}

/// Chunks that the store has or may grow to. Without snapshots every chunk of the disk needs at most
/// one; a few more allow for chunks that failed writes left dirty.
fn store_chunks_max(header: &Header, data: &Geometry) -> u32 {
    if !header.has_table() {
        return 0;
    }
    let now = header.chunks_in(data.capacity_bytes.max(header.store_bytes));
    match data.growth {
        Some(growth) if growth.zeroed => {
            let most = header.chunks_in(growth.max_bytes);
            let wanted = header.shape().chunk_count().saturating_add(64);
            most.min(wanted).max(now)
        }
        _ => now,
    }
}

fn transfer_limits(data: &Geometry, base: Option<&Geometry>) -> TransferLimits {
    let aligned = |geometry: &Geometry| {
        let mask = u64::from(geometry.logical_block_bytes.max(4096)) - 1;
        u64::from(geometry.transfer_max_bytes) & !mask
    };
    let segments = |geometry: &Geometry| geometry.segments_max.min(SEGMENTS_MAX as u16);
    let segment = base
        .map_or(u32::MAX, |base| base.segment_max_bytes)
        .min(data.segment_max_bytes);
    let zeroes = data.write_zeroes;
    TransferLimits {
        data_bytes: aligned(data),
        base_bytes: base.map_or(u64::MAX, aligned),
        data_segments: segments(data),
        base_segments: base.map_or(SEGMENTS_MAX as u16, segments),
        segment_bytes: segment & !4095,
        zero_bytes: zeroes.map_or(0, |limits| limits.max_bytes & !4095),
        zero_unmaps: zeroes.is_some_and(|limits| limits.may_unmap),
        fua: data.fua,
    }
}

/// Longest request that the engine takes.
fn request_bytes_max(header: &Header, shape: &Shape, options: &OpenOptions) -> u64 {
    const MOST: u64 = 1 << 30;
    if !header.has_table() && !header.has_bitmap() {
        return MOST;
    }
    // A request remembers its chunks in a 64-bit set; one that starts inside a chunk touches one
    // more than fit its length. A commit must hold the mappings of one request.
    let records = map_size(header, options).pending.max(2);
    let chunks = u64::from(records).min(REQUEST_CHUNKS_MAX) - 1;
    let bytes = shape.chunk_bytes().saturating_mul(chunks);
    if shape.is_grouped() || options.read_only {
        return bytes.min(MOST);
    }
    // The blocks at both ends are filled whole, and may begin and end in other chunks.
    let widened = shape.block_bytes().saturating_mul(2);
    bytes.saturating_sub(widened).min(MOST)
}

/// What the disk offers: the AND of what its layers have.
fn disk_geometry(
    header: &Header,
    shape: &Shape,
    options: &OpenOptions,
    data: &Geometry,
    base: Option<&Geometry>,
) -> Geometry {
    let of_base = |f: fn(&Geometry) -> u32, none: u32| base.map_or(none, f);
    let logical = data
        .logical_block_bytes
        .max(of_base(|base| base.logical_block_bytes, 512));
    let by_chunks = request_bytes_max(header, shape, options).max(PAGE_BYTES_U64);
    let transfer = u64::from(
        data.transfer_max_bytes
            .min(of_base(|base| base.transfer_max_bytes, u32::MAX)),
    );
    let zeroes = by_chunks;
    Geometry {
        capacity_bytes: shape.virtual_bytes() & !u64::from(logical - 1),
        logical_block_bytes: logical,
        physical_block_bytes: data
            .physical_block_bytes
            .max(of_base(|base| base.physical_block_bytes, 512)),
        atomic_write_bytes: data.atomic_write_bytes,
        memory_align_bytes: data
            .memory_align_bytes
            .max(of_base(|base| base.memory_align_bytes, 1)),
        transfer_max_bytes: transfer.min(by_chunks) as u32 & !4095,
        segments_max: data
            .segments_max
            .min(base.map_or(u16::MAX, |base| base.segments_max))
            .min(SEGMENTS_MAX as u16),
        segment_max_bytes: data
            .segment_max_bytes
            .min(of_base(|base| base.segment_max_bytes, u32::MAX)),
        queue_depth: options.queue_depth,
        read_only: options.read_only,
        volatile_cache: true,
        fua: true,
        discard: Some(crate::device::DiscardLimits {
            granularity_bytes: (shape.block_bytes() as u32).next_power_of_two(),
            max_bytes: zeroes,
            zeroes_after: false,
        }),
        write_zeroes: Some(crate::device::WriteZeroesLimits {
            max_bytes: zeroes,
            may_unmap: true,
        }),
        growth: None,
    }
}
