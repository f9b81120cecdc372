//! What looks too small to fail.

use core::ptr::NonNull;

use fvd::blocking::Blocking;
use fvd::buffer::{Arena, Head, Lease, LentOp, Op, OpPool, OpQueue, Part};
use fvd::device::{
    Counting, Counts, DeviceError, FailNth, Fault, Geometry, OpFlags, OpKind, Ram, Status, Trace,
    TraceEvent, Verdict, When, refuse,
};
use fvd::format::journal::{UnitView, UnitWriter, is_unit_size};
use fvd::format::page::ChecksumArray;
use fvd::format::{Features, Header, Limits, Name, Region, SlotIndex};
use fvd::stores::{One, Two, WithBase};
use fvd::units::{GuestOffset, Instant, Shape};
use fvd::{Closing, Disk};

use crate::Unknown;

type Stores = One<Unknown>;
type Apart = Two<Unknown, Unknown>;
type Based = WithBase<Stores, Unknown>;
type Faulty = Fault<Unknown, FailNth>;
type Traced = Trace<Unknown, fn(TraceEvent, Head)>;
type Waiting = Blocking<Unknown, fn(When) -> Instant>;

fn segment_raw(op: &Op, index: usize) -> Option<(NonNull<u8>, usize)> {
    // SAFETY: this library is looked at and never run.
    unsafe { op.segment_raw(index) }
}

fn carve_with(arena: &mut Arena, count: usize, value: fn(usize) -> u64) -> Option<Part<u64>> {
    arena.carve_with(count, value)
}

// Operations and their memory.
keep! {
    fn(OpKind, u64, u64) -> Head = Head::new;
    fn(Head, OpFlags) -> Head = Head::with_flags;
    fn(Head, u64) -> Head = Head::with_tag;
    fn(&Op) -> Head = Op::head;
    fn(&Op) -> OpKind = Op::kind;
    fn(&Op) -> OpFlags = Op::flags;
    fn(&Op) -> u64 = Op::offset;
    fn(&Op) -> u64 = Op::len;
    fn(&Op) -> u64 = Op::tag;
    fn(&Op) -> u64 = Op::bytes;
    fn(&Op) -> Status = Op::status;
    fn(&Op) -> usize = Op::segment_count;
    fn(&Op, usize) -> Option<(NonNull<u8>, usize)> = segment_raw;
    fn(&mut Op, Head) = Op::set_head;
    fn(&mut Op, u64) = Op::set_tag;
    fn(&mut Op, u64, u64) = Op::retarget;
    fn(&LentOp) -> Head = LentOp::head;
    fn(&Lease) -> usize = Lease::len;
    fn(&Lease) -> u32 = Lease::mark;
    fn(&mut Lease, u32) = Lease::set_mark;
    fn(&OpPool) -> usize = OpPool::free_count;
    fn() -> OpQueue = OpQueue::new;
    fn(&OpQueue) -> usize = OpQueue::len;
    fn(&OpQueue) -> bool = OpQueue::is_empty;
    fn(&Arena) -> usize = Arena::remaining;
    fn(usize) -> usize = Arena::part_bytes::<u64>;
    fn(usize) -> usize = Arena::staging_bytes;
    fn(&mut Arena, usize, fn(usize) -> u64) -> Option<Part<u64>> = carve_with;
    fn() -> Part<u64> = Part::empty;
}

// Devices.
keep! {
    fn(u64) -> Geometry = Geometry::basic;
    fn(&OpFlags, OpFlags) -> bool = contains;
    fn(OpFlags, OpFlags) -> OpFlags = OpFlags::union;
    fn(OpFlags, OpFlags) -> OpFlags = OpFlags::without;
    fn(Op, DeviceError) -> Result<(), Op> = refuse;
    fn(Ram) -> Ram = Ram::read_only;
    fn(Unknown) -> Counting<Unknown> = Counting::new;
    fn(&Counting<Unknown>) -> Counts = Counting::counts;
    fn(&Counting<Unknown>) -> &Unknown = Counting::inner;
    fn(&mut Counting<Unknown>) -> &mut Unknown = Counting::inner_mut;
    fn(Counting<Unknown>) -> Unknown = Counting::into_inner;
    fn(&Counts) -> u64 = Counts::operations;
    fn(&Counts, OpKind) -> u64 = Counts::of;
    fn(&mut Counts, &Head) = Counts::accept;
    fn(Unknown, FailNth) -> Faulty = Fault::new;
    fn(&Faulty) -> &FailNth = Fault::plan;
    fn(&mut Faulty) -> &mut FailNth = Fault::plan_mut;
    fn(&Faulty) -> &Unknown = Fault::inner;
    fn(&mut Faulty) -> &mut Unknown = Fault::inner_mut;
    fn(&Faulty) -> usize = Fault::held_count;
    fn(Faulty) -> Result<Unknown, Faulty> = Fault::into_inner;
    fn(Option<OpKind>, u64) -> FailNth = FailNth::once;
    fn(Option<OpKind>, u64) -> FailNth = FailNth::sticky;
    fn(&FailNth) -> bool = FailNth::has_struck;
    fn(&mut FailNth, &Head) -> Verdict = judge;
    fn(&Traced) -> &Unknown = Trace::inner;
    fn(&mut Traced) -> &mut Unknown = Trace::inner_mut;
    fn(&mut Traced) -> &mut fn(TraceEvent, Head) = Trace::sink_mut;
}

fn contains(flags: &OpFlags, other: OpFlags) -> bool {
    flags.contains(other)
}

fn judge(plan: &mut FailNth, head: &Head) -> Verdict {
    fvd::device::FaultPlan::on_submit(plan, head)
}

// Stores and disks.
keep! {
    fn(Unknown, Unknown) -> Apart = Two::new;
    fn(Apart) -> (Unknown, Unknown) = Two::into_parts;
    fn(&Apart) -> (&Unknown, &Unknown) = Two::parts;
    fn(&mut Apart) -> (&mut Unknown, &mut Unknown) = Two::parts_mut;
    fn(Stores, Unknown) -> Based = WithBase::new;
    fn(Based) -> (Stores, Unknown) = WithBase::into_parts;
    fn(&Based) -> (&Stores, &Unknown) = WithBase::parts;
    fn(&mut Based) -> (&mut Stores, &mut Unknown) = WithBase::parts_mut;
    fn(&Disk<Stores>) -> &Stores = Disk::stores;
    fn(&mut Disk<Stores>) -> &mut Stores = Disk::stores_mut;
    fn(&Disk<Stores>) -> usize = Disk::arena_unused_bytes;
    fn(&mut Closing<Stores>) -> &mut Stores = Closing::stores_mut;
    fn(&Waiting) -> &Unknown = Blocking::device;
    fn(&mut Waiting) -> &mut Unknown = Blocking::device_mut;
}

// The format and its units.
keep! {
    fn(&Header) -> bool = Header::has_table;
    fn(&Header) -> bool = Header::has_base;
    fn(&Header) -> bool = Header::has_bitmap;
    fn(&Header) -> bool = Header::has_checksums;
    fn(&Header) -> bool = Header::has_external_data;
    fn(&Header) -> bool = Header::is_read_only;
    fn(&Features) -> u64 = Features::unknown_incompatible;
    fn(&Features) -> u64 = Features::unknown_ro_compatible;
    fn(&Features) -> u64 = Features::unknown_autoclear;
    fn(&Region) -> bool = Region::exists;
    fn(&Name) -> bool = Name::is_empty;
    fn(&Name) -> bool = Name::is_cut;
    fn(SlotIndex) -> u64 = SlotIndex::offset;
    fn(SlotIndex) -> SlotIndex = SlotIndex::other;
    fn(ChecksumArray) -> ChecksumArray = ChecksumArray::other;
    fn(Limits, u64) -> Limits = Limits::with_journal_units_min;
    fn(usize) -> bool = is_unit_size;
    fn(&UnitView<'static>) -> bool = UnitView::last;
    fn(&UnitView<'static>) -> bool = UnitView::earlier_unsure;
    fn(&UnitView<'static>) -> u16 = UnitView::index;
    fn(&UnitWriter<'static>) -> bool = UnitWriter::is_empty;
    fn(u64) -> Instant = Instant::from_micros;
    fn(Instant, u64) -> Instant = Instant::after_micros;
    fn(&Shape) -> u64 = Shape::virtual_bytes;
    fn(&Shape) -> u64 = Shape::block_bytes;
    fn(&Shape) -> u64 = Shape::chunk_bytes;
    fn(&Shape) -> u32 = Shape::blocks_per_chunk;
    fn(&Shape, GuestOffset) -> u64 = Shape::within_block;
    fn(&Shape, GuestOffset) -> u64 = Shape::within_chunk;
}
