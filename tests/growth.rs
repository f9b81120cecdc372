//! A store that grows: when, by how much, and what a guest is told when it can not.

mod common;

use core::num::NonZeroU64;

use common::gate::Gate;
use common::{CHUNK_BYTES, Client, Setup, result_of};
use fvd::Disk;
use fvd::buffer::Op;
use fvd::create::CREATE_ARENA_BYTES;
use fvd::device::{BlockDevice, DeviceError, Geometry, Growth, OpFlags, OpKind, Ram, When};
use fvd::format::{StoreChoice, plan_layout};
use fvd::stores::One;
use fvd::units::Instant;

/// Chunks that the store grows by.
const UNIT: u64 = 4;
/// More than the disk has.
const ANY: u64 = 1 << 30;

/// A device that begins small.
struct Growing {
    inner: Gate,
    capacity: u64,
    /// Chunks that fit at most, behind the metadata.
    max_bytes: u64,
    mood: Mood,
    done: Vec<Op>,
    /// Requests to grow that it did not answer yet.
    held: Vec<Op>,
    /// An op to answer with in place of the one that was sent.
    other: Option<Op>,
}

/// What the device does when it is asked to grow.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Mood {
    Grows,
    /// Says no.
    Refuses,
    /// Says yes and stays as it is.
    Lies,
    /// Answers nothing.
    Waits,
    /// Answers in another op.
    Swaps,
    /// Grows, and fails the next flush.
    LosesFlush,
}

impl BlockDevice for Growing {
    fn geometry(&self) -> Geometry {
        Geometry {
            capacity_bytes: self.capacity,
            growth: Some(Growth {
                unit_bytes: 512,
                max_bytes: self.max_bytes,
                zeroed: true,
            }),
            ..self.inner.geometry()
        }
    }

    fn submit(&mut self, mut op: Op) -> Result<(), Op> {
        let fails = self.mood == Mood::LosesFlush && op.kind() == OpKind::Flush;
        if op.kind() != OpKind::Grow && !fails {
            return self.inner.submit(op);
        }
        if fails {
            self.mood = Mood::Grows;
            op.complete(Err(DeviceError::Io));
        } else if self.mood == Mood::Refuses {
            op.complete(Err(DeviceError::NoSpace));
        } else if self.mood == Mood::Waits {
            self.held.push(op);
            return Ok(());
        } else {
            assert!(op.len() > self.capacity && op.len() <= self.max_bytes);
            if self.mood != Mood::Lies {
                self.capacity = op.len();
            }
            op.complete(Ok(()));
        }
        if self.mood == Mood::Swaps
            && let Some(mut other) = self.other.take()
        {
            other.set_head(op.head());
            op = other;
        }
        self.done.push(op);
        Ok(())
    }

    fn poll(&mut self, now: Instant) -> Option<Op> {
        self.done.pop().or_else(|| self.inner.poll(now))
    }

    fn poll_at(&self) -> When {
        if self.done.is_empty() {
            self.inner.poll_at()
        } else {
            When::Now
        }
    }
}

struct Bench {
    disk: Disk<One<Growing>>,
    client: Client,
    /// Where the first chunk is on the device.
    data_offset: u64,
}

fn bench(max_chunks: u64) -> Bench {
    bench_by(UNIT, max_chunks)
}

fn bench_by(unit: u64, max_chunks: u64) -> Bench {
    let setup = Setup {
        table: true,
        base_bytes: 0,
        external: false,
        used: false,
    };
    let mut params = setup.params();
    params.store = StoreChoice::Growing;
    params.grow_bytes = NonZeroU64::new(unit * CHUNK_BYTES);
    let header = plan_layout(&params).expect("legal");
    let data_offset = header.core.data_offset;
    let device = Growing {
        inner: Gate::new(Ram::new(common::bytes(4 << 20, 0))),
        capacity: header.store_bytes,
        max_bytes: data_offset + max_chunks * CHUNK_BYTES,
        mood: Mood::Grows,
        done: Vec::new(),
        held: Vec::new(),
        other: None,
    };
    let arena = common::memory(CREATE_ARENA_BYTES);
    let created = fvd::blocking::create(device, header, true, arena, common::idle());
    created.result.expect("created");
    Bench {
        disk: common::open(One(created.device), common::options()),
        client: Client::new(4),
        data_offset,
    }
}

impl Bench {
    fn write(&mut self, chunk: u64, count: u64) -> Result<(), DeviceError> {
        let op = self.write_op(chunk, count);
        self.run(op)
    }

    fn write_op(&mut self, chunk: u64, count: u64) -> Op {
        let (_, lease) = common::lend((count * CHUNK_BYTES) as usize, chunk as u8 + 1);
        self.client
            .data_op(OpKind::Write, chunk * CHUNK_BYTES, lease, 0)
    }

    fn device(&mut self) -> &mut Growing {
        &mut self.disk.stores_mut().0
    }

    /// Uses every chunk that there is. Returns how many.
    fn fill(&mut self) -> u64 {
        let first = self.chunks();
        for chunk in 0..first {
            assert_eq!(self.write(chunk, 1), Ok(()));
        }
        first
    }

    fn flush(&mut self) {
        let op = self.client.op(OpKind::Flush, OpFlags::NONE, 0, 0, 0);
        assert_eq!(self.run(op), Ok(()));
    }

    fn run(&mut self, op: Op) -> Result<(), DeviceError> {
        assert!(self.disk.submit(op).is_ok());
        self.finish()
    }

    fn finish(&mut self) -> Result<(), DeviceError> {
        for turn in 0..10_000 {
            if let Some(mut op) = self.disk.poll(Instant::from_micros(turn)) {
                while op.pop().is_some() {}
                let result = result_of(&op);
                self.client.put(op);
                return result;
            }
        }
        panic!("a request that never finishes");
    }

    /// Chunks that fit into the store as it is.
    fn chunks(&self) -> u64 {
        (self.disk.stores().0.capacity - self.data_offset) / CHUNK_BYTES
    }

    /// Whether the header names all of the store, and the disk opens and closes.
    fn expect_recorded(mut self) {
        self.flush();
        assert_eq!(
            self.disk.header().store_bytes,
            self.disk.stores().0.capacity
        );
        let stores = common::close(self.disk);
        common::close(common::open(stores, common::options()));
    }
}

#[test]
fn a_store_grows_by_its_unit_when_a_write_finds_no_chunk() {
    let mut bench = bench(ANY);
    let first = bench.chunks();
    assert_eq!(bench.disk.stats().growths, 0);
    for chunk in 0..first + 3 * UNIT {
        assert_eq!(bench.write(chunk, 1), Ok(()));
        let beyond = (chunk + 1).saturating_sub(first);
        let growths = beyond.div_ceil(UNIT);
        assert_eq!(bench.disk.stats().growths, growths, "chunk {chunk}");
        assert_eq!(bench.chunks(), first + growths * UNIT);
    }
    bench.expect_recorded();
}

#[test]
fn the_next_growth_begins_while_an_eighth_of_the_last_is_left() {
    const UNIT: u64 = 17;
    let mut bench = bench_by(UNIT, ANY);
    let first = bench.fill();
    for chunk in first..first + UNIT - 2 {
        assert_eq!(bench.write(chunk, 1), Ok(()));
    }
    assert_eq!(bench.disk.stats().growths, 1);
    bench.device().mood = Mood::Waits;
    for chunk in first + UNIT - 2..first + UNIT {
        assert_eq!(bench.write(chunk, 1), Ok(()), "nobody waits");
        assert_eq!(bench.disk.stats().growths, 2, "asked once");
    }
    let held = bench.device().held.remove(0);
    bench.device().mood = Mood::Grows;
    assert!(bench.device().submit(held).is_ok());
    assert_eq!(bench.write(first + UNIT, 1), Ok(()));
    assert_eq!(bench.disk.stats().growths, 2);
    bench.expect_recorded();
}

#[test]
fn a_device_that_refused_is_not_asked_early() {
    const UNIT: u64 = 17;
    let mut bench = bench_by(UNIT, ANY);
    let first = bench.fill();
    assert_eq!(bench.write(first, 1), Ok(()));
    bench.device().mood = Mood::Refuses;
    for chunk in first + 1..first + UNIT {
        assert_eq!(bench.write(chunk, 1), Ok(()), "there is room");
    }
    assert_eq!(bench.disk.stats().growths, 2, "asked once");
    assert_eq!(bench.write(first + UNIT, 1), Err(DeviceError::NoSpace));
    assert_eq!(bench.disk.stats().growths, 3);
    bench.device().mood = Mood::Grows;
    assert_eq!(bench.write(first + UNIT, 1), Ok(()));
    bench.expect_recorded();
}

#[test]
fn a_write_that_needs_more_than_a_unit_gets_it_at_once() {
    let mut bench = bench(ANY);
    let first = bench.chunks();
    let count = first + 2 * UNIT + 1;
    assert_eq!(bench.write(0, count), Ok(()));
    assert_eq!(bench.disk.stats().growths, 1);
    assert!(bench.chunks() >= count);
    bench.expect_recorded();
}

#[test]
fn the_disk_is_never_given_more_chunks_than_it_has() {
    let mut bench = bench(ANY);
    let all = common::DISK_BYTES / CHUNK_BYTES;
    for chunk in 0..all {
        assert_eq!(bench.write(chunk, 1), Ok(()));
    }
    assert_eq!(bench.chunks(), all);
    bench.expect_recorded();
}

#[test]
fn at_the_end_of_the_device_only_writes_that_need_space_fail() {
    let limit = 2 * UNIT + 1;
    let mut bench = bench(limit);
    let mut last = 0;
    while bench.write(last, 1) == Ok(()) {
        last += 1;
    }
    assert!(bench.chunks() <= limit);
    assert_eq!(last, bench.chunks(), "every chunk was used");
    assert_eq!(bench.write(last, 1), Err(DeviceError::NoSpace));
    assert_eq!(bench.write(last - 1, 1), Ok(()));
    bench.expect_recorded();
}

#[test]
fn who_was_refused_may_ask_again() {
    let mut bench = bench(ANY);
    let first = bench.fill();
    bench.device().mood = Mood::Refuses;
    for turn in 1..3 {
        assert_eq!(bench.write(first, 1), Err(DeviceError::NoSpace));
        assert_eq!(bench.disk.stats().growths, turn, "asked each time");
    }
    bench.device().mood = Mood::Grows;
    assert_eq!(bench.write(first, 1), Ok(()));
    assert_eq!(bench.chunks(), first + UNIT);
    bench.expect_recorded();
}

#[test]
fn one_growth_serves_all_who_wait_for_it() {
    let mut bench = bench(ANY);
    let first = bench.fill();
    bench.device().mood = Mood::Waits;
    for chunk in first..first + UNIT {
        let op = bench.write_op(chunk, 1);
        assert!(bench.disk.submit(op).is_ok());
        for turn in 0..20 {
            assert!(bench.disk.poll(Instant::from_micros(turn)).is_none());
        }
        assert_eq!(bench.device().held.len(), 1, "asked once");
    }
    let held = bench.device().held.remove(0);
    bench.device().mood = Mood::Grows;
    assert!(bench.device().submit(held).is_ok());
    for _ in 0..UNIT {
        assert_eq!(bench.finish(), Ok(()));
    }
    assert_eq!(bench.disk.stats().growths, 1);
    assert_eq!(bench.chunks(), first + UNIT);
    bench.expect_recorded();
}

#[test]
fn a_device_that_says_that_it_grew_is_not_believed() {
    let mut bench = bench(ANY);
    let first = bench.fill();
    bench.device().mood = Mood::Lies;
    assert_eq!(bench.write(first, 1), Err(DeviceError::NoSpace));
    assert!(!bench.disk.is_poisoned());
    bench.device().mood = Mood::Grows;
    assert_eq!(bench.write(first, 1), Ok(()));
    bench.expect_recorded();
}

#[test]
fn a_growth_whose_flush_failed_ends_all_writing() {
    let mut bench = bench(ANY);
    let first = bench.fill();
    bench.flush();
    let recorded = bench.disk.header().store_bytes;
    bench.device().mood = Mood::LosesFlush;
    assert_eq!(bench.write(first, 1), Err(DeviceError::Poisoned));
    assert!(bench.disk.is_poisoned());
    assert_eq!(bench.disk.header().store_bytes, recorded);
}

#[test]
fn an_answer_in_another_op_ends_all_writing() {
    let mut bench = bench(ANY);
    let first = bench.fill();
    let other = bench.client.op(OpKind::Grow, OpFlags::NONE, 0, 512, 0);
    bench.device().mood = Mood::Swaps;
    bench.device().other = Some(other);
    assert_eq!(bench.write(first, 1), Err(DeviceError::Poisoned));
    assert!(bench.disk.is_poisoned());
}

#[test]
fn a_checkpoint_that_began_before_a_growth_does_not_forget_it() {
    let mut bench = bench(ANY);
    let first = bench.fill();
    bench.flush();
    // The header of the checkpoint, in one of two slots.
    bench.device().inner.holds = |head| head.kind == OpKind::Write && head.offset < 8192;
    bench.disk.request_checkpoint();
    for turn in 0..20 {
        assert!(bench.disk.poll(Instant::from_micros(turn)).is_none());
    }
    assert_eq!(bench.device().inner.held.len(), 1);
    assert_eq!(bench.write(first, 1), Ok(()));
    bench.flush();
    assert_eq!(bench.disk.stats().growths, 1);
    bench.device().inner.open();
    for turn in 0..20 {
        assert!(bench.disk.poll(Instant::from_micros(turn)).is_none());
    }
    bench.expect_recorded();
}
