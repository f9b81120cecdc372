//! Carves a disk out of an arena.

use crate::alloc::Allocator;
use crate::buffer::{Arena, OpPool, OpQueue};
use crate::engine::{Disk, Growth, SlotList, Slots, Staging, Stats, Work};
use crate::format::PAGE_BYTES;
use crate::journal::{JOURNAL_OPS, Journal};
use crate::meta::Map;
use crate::stores::Stores;

use super::layout::Layout;
use super::recovery::OpenOp;

/// Carves everything that a disk needs. Gives the stores back if the arena is too small.
pub(super) fn assemble<S: Stores>(
    stores: S,
    layout: &Layout,
    mut arena: Arena,
) -> Result<Disk<S>, S> {
    match carve(layout, &mut arena) {
        None => Err(stores),
        Some((parts, scratch, holders, zero_memory, journal, slots, map, alloc)) => Ok(Disk {
            stores,
            arena,
            options: layout.options,
            geometry: layout.geometry,
            limits: layout.limits,
            slots,
            ready: SlotList::EMPTY,
            waiting: SlotList::EMPTY,
            parts,
            scratch,
            holders,
            zero_memory,
            map,
            alloc,
            journal,
            growth: Growth::IDLE,
            done: OpQueue::new(),
            parked: OpQueue::new(),
            refused: OpQueue::new(),
            work: Work::NONE,
            next_ticket: 0,
            exclusive_count: 0,
            closing: false,
            abandoned: false,
            polls: 0,
            open_op: OpenOp::NONE,
            stats: Stats::default(),
        }),
    }
}

type Carved = (
    OpPool,
    OpQueue,
    OpPool,
    Staging,
    Journal,
    Slots,
    Map,
    Allocator,
);

/// Staging memory needs page alignment, so what holds it is padded to a page and carved first.
fn carve(layout: &Layout, arena: &mut Arena) -> Option<Carved> {
    let options = &layout.options;
    let mut holders = OpPool::carve(arena, layout.holder_count())?;
    arena.align_staging()?;
    let commit_memory = Staging::carve(arena, &mut holders, layout.journal.commit_bytes)?;
    let page_memory = Staging::carve(arena, &mut holders, layout.journal.page_bytes)?;
    let zero_memory = Staging::carve(arena, &mut holders, options.zero_memory_bytes)?;
    let mut scratch = OpQueue::new();
    let block_bytes = u32::try_from(layout.shape.block_bytes()).ok()?;
    for _ in 0..layout.scratch_blocks() {
        if let Staging::Whole(op) = Staging::carve(arena, &mut holders, block_bytes)? {
            scratch.push_back(op);
        }
    }
    let parts = OpPool::carve(arena, u32::from(options.part_ops))?;
    let page = arena.carve(PAGE_BYTES, 0u8)?;
    let ops = OpPool::carve(arena, JOURNAL_OPS)?;
    let slots = Slots::carve(arena, options.queue_depth)?;
    let map = Map::carve(
        arena,
        &layout.header,
        layout.shape,
        &layout.map,
        layout.base_bytes,
    )?;
    let alloc = Allocator::carve(arena, layout.store_chunks_max)?;
    let journal = Journal::new(
        layout.header,
        layout.slot,
        commit_memory,
        page_memory,
        page,
        ops,
    );
    Some((
        parts,
        scratch,
        holders,
        zero_memory,
        journal,
        slots,
        map,
        alloc,
    ))
}
