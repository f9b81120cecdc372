//! Copies of base blocks and zeros on used chunks: how many at once, and no byte too far.

mod common;

use std::cell::RefCell;

use common::gate::Gate;
use common::tamper::Tamper;
use common::{BLOCK_BYTES, CHUNK_BYTES, Client, DISK_BYTES, Setup, result_of};
use fvd::Disk;
use fvd::buffer::{Head, Op};
use fvd::device::{BlockDevice, DeviceError, OpFlags, OpKind, Ram};
use fvd::open::OpenOptions;
use fvd::stores::{One, Stores, WithBase};
use fvd::units::Instant;

const SETUP: Setup = Setup {
    table: true,
    base_bytes: DISK_BYTES,
    external: false,
    used: false,
};

fn write(client: &mut Client, offset: u64, len: u64, tag: u64) -> Op {
    let (_, lease) = common::lend(len as usize, 0x11);
    client.data_op(OpKind::Write, offset, lease, tag)
}

fn poll<S: Stores>(disk: &mut Disk<S>) -> Vec<Op> {
    let mut done = Vec::new();
    for turn in 0..50 {
        done.extend(disk.poll(Instant::from_micros(turn)));
    }
    done
}

/// Two blocks of memory for copies.
fn tight() -> Disk<WithBase<One<Ram>, Gate>> {
    let options = OpenOptions {
        scratch_blocks: 2,
        ..common::options()
    };
    let base = Gate::new(SETUP.base());
    common::open(WithBase::new(One(SETUP.devices().0), base), options)
}

/// What is held of the base, in the order of the copies.
fn base_held(disk: &mut Disk<WithBase<One<Ram>, Gate>>) -> Vec<u64> {
    let gate = disk.stores_mut().parts_mut().1;
    gate.held.iter().map(|op| op.offset()).collect()
}

/// Begins and ends inside of blocks of a chunk: needs two copies.
fn ragged(client: &mut Client, chunk: u64, tag: u64) -> Op {
    write(client, chunk * CHUNK_BYTES + 512, BLOCK_BYTES, tag)
}

/// Ends with a block: needs one copy.
fn half(client: &mut Client, chunk: u64, tag: u64) -> Op {
    write(client, chunk * CHUNK_BYTES + 512, BLOCK_BYTES - 512, tag)
}

#[test]
fn a_write_takes_as_much_memory_for_copies_as_it_needs() {
    let mut disk = tight();
    let mut client = Client::new(8);
    disk.stores_mut().parts_mut().1.holds = |_| true;
    for chunk in 0..3 {
        let op = half(&mut client, chunk, chunk);
        assert!(disk.submit(op).is_ok());
    }
    assert!(poll(&mut disk).is_empty());
    assert_eq!(base_held(&mut disk), [0, CHUNK_BYTES], "two at once");
    disk.stores_mut().parts_mut().1.open();
    assert_eq!(poll(&mut disk).len(), 3);
    common::close(disk);
}

#[test]
fn writes_that_need_two_copies_never_wait_for_each_others_memory() {
    let mut disk = tight();
    let mut client = Client::new(8);
    disk.stores_mut().parts_mut().1.holds = |_| true;
    // One block is taken, so the next has to wait for two.
    for op in [half(&mut client, 0, 0), ragged(&mut client, 1, 1)] {
        assert!(disk.submit(op).is_ok());
    }
    assert!(poll(&mut disk).is_empty());
    assert_eq!(base_held(&mut disk), [0]);
    disk.stores_mut().parts_mut().1.open();
    // When the first has ended, another comes before the one that waits.
    let first = (0..50).find_map(|turn| disk.poll(Instant::from_micros(turn)));
    assert_eq!(first.map(|op| op.tag()), Some(0));
    let op = ragged(&mut client, 2, 2);
    assert!(disk.submit(op).is_ok());
    assert_eq!(poll(&mut disk).len(), 2, "both end");
    common::close(disk);
}

#[test]
fn memory_for_copies_that_the_base_kept_is_counted_and_never_used_again() {
    let kept = RefCell::new(Vec::new());
    let base = Tamper::new(SETUP.base(), |op| kept.borrow_mut().extend(op.pop()));
    let stores = WithBase::new(One(SETUP.devices().0), base);
    let mut disk = common::open(stores, common::options());
    let mut client = Client::new(8);
    let before = disk.stats().protocol_errors;
    let op = half(&mut client, 0, 0);
    assert!(disk.submit(op).is_ok());
    let done = poll(&mut disk);
    assert_eq!(done.len(), 1);
    assert_eq!(result_of(&done[0]), Err(DeviceError::Protocol));
    // The read that came back without its memory, and the memory that can not be put away.
    assert_eq!(disk.stats().protocol_errors, before + 2);
    assert_eq!(kept.borrow().len(), 1);
}

/// Writes a sector to a new disk on a used store. Returns the zeros that it took: their place in the
/// chunk, their length and their flags.
fn zeros(store: Ram, zero_memory_bytes: u32) -> Vec<(u64, u64, OpFlags)> {
    let options = OpenOptions {
        zero_memory_bytes,
        ..common::options()
    };
    let mut disk = common::open(One(Gate::new(store)), options);
    let mut client = Client::new(1);
    disk.stores_mut().0.heads.clear();
    let op = write(&mut client, 512, 512, 0);
    assert!(disk.submit(op).is_ok());
    assert_eq!(poll(&mut disk).len(), 1);
    let start = disk.header().core.data_offset;
    let mut heads = disk.stores().0.heads.clone();
    assert_eq!(heads.pop().map(|head| head.len), Some(512), "the data");
    common::close(disk);
    let zero = |head: &Head| (head.offset - start, head.len, head.flags);
    heads.iter().map(zero).collect()
}

#[test]
fn zeros_end_with_their_chunk_and_unmap_nothing_that_will_be_written() {
    let setup = Setup {
        used: true,
        base_bytes: 0,
        ..SETUP
    };
    let part = |offset: u64, len: u64| (offset << 10, len << 10, OpFlags::NONE);
    // Memory that a chunk is no multiple of.
    let written = zeros(setup.devices().0, 12 << 10);
    assert_eq!(written, [part(0, 12), part(12, 4)]);
    let zeroed = zeros(setup.devices().0.with_write_zeroes(), 12 << 10);
    assert_eq!(zeroed, [part(0, 16)]);
}

#[test]
fn data_follows_the_zeros_of_its_chunk() {
    let setup = Setup {
        used: true,
        base_bytes: 0,
        ..SETUP
    };
    let mut disk = common::open(One(Gate::new(setup.devices().0)), common::options());
    let mut client = Client::new(1);
    disk.stores_mut().0.holds = |head| head.kind == OpKind::Write;
    let op = write(&mut client, 512, 512, 0);
    assert!(disk.submit(op).is_ok());
    assert!(poll(&mut disk).is_empty());
    let lengths = |disk: &Disk<One<Gate>>| {
        let held = disk.stores().0.held.iter();
        held.map(Op::len).collect::<Vec<_>>()
    };
    assert_eq!(lengths(&disk), [CHUNK_BYTES]);
    disk.stores_mut().0.open();
    disk.stores_mut().0.holds = |head| head.kind == OpKind::Write;
    assert!(poll(&mut disk).is_empty());
    assert_eq!(lengths(&disk), [512]);
    disk.stores_mut().0.open();
    assert_eq!(poll(&mut disk).len(), 1);
    common::close(disk);
}
