//! Layers below that break the rules of operations and their memory: whoever's request it is gets an
//! error or, where its memory is missing, nothing; others notice nothing, and all of it is counted.

mod common;

use common::gate::Gate;
use common::tamper::Tamper;
use common::{BLOCK_BYTES, CHUNK_BYTES, Client, DISK_BYTES, Setup, TABLE, result_of};
use fvd::Disk;
use fvd::buffer::Op;
use fvd::device::{BlockDevice, DeviceError, OpFlags, OpKind, Ram};
use fvd::stores::{One, Stores, WithBase};
use fvd::units::Instant;

const OVER_BASE: Setup = Setup {
    base_bytes: DISK_BYTES,
    ..TABLE
};

/// Answers as it should, until it is told otherwise.
fn honest(inner: Ram) -> Tamper<fn(&mut Op)> {
    Tamper::new(inner, |_| ())
}

fn keep_memory(op: &mut Op) {
    let _kept = op.pop();
}

fn add_memory(op: &mut Op) {
    op.push(common::lend(512, 0x66).1).expect("room");
}

fn swap_memory(op: &mut Op) {
    let len = op.bytes() as usize;
    keep_memory(op);
    op.push(common::lend(len, 0x66).1).expect("room");
}

fn poll<S: Stores>(disk: &mut Disk<S>) -> Vec<Op> {
    (0..100).filter_map(|_| disk.poll(Instant::ZERO)).collect()
}

fn write(client: &mut Client, offset: u64, len: usize, tag: u64) -> Op {
    client.data_op(OpKind::Write, offset, common::lend(len, 0x33).1, tag)
}

fn read(client: &mut Client, offset: u64, len: usize, tag: u64) -> Op {
    client.data_op(OpKind::Read, offset, common::lend(len, 0xEE).1, tag)
}

#[test]
fn a_copy_of_the_base_whose_memory_is_not_as_it_was_fails_the_write() {
    // Two copies: kept memory is missed when each comes, and again where it should go back.
    for (with, count) in [(keep_memory as fn(&mut Op), 4), (add_memory, 2)] {
        let stores = WithBase::new(One(OVER_BASE.devices().0), honest(OVER_BASE.base()));
        let mut disk = common::open(stores, common::options());
        let mut client = Client::new(8);
        disk.stores_mut().parts_mut().1.with = with;
        assert!(disk.submit(write(&mut client, 512, 512, 0)).is_ok());
        let ended = poll(&mut disk);
        assert_eq!(ended.len(), 1);
        assert_eq!(result_of(&ended[0]), Err(DeviceError::Protocol));
        assert_eq!(disk.stats().protocol_errors, count);
        disk.stores_mut().parts_mut().1.with = |_| ();
        let len = BLOCK_BYTES as usize;
        assert!(disk.submit(read(&mut client, 0, len, 0)).is_ok());
        let ended = poll(&mut disk);
        let mut bytes = vec![0; len];
        ended[0].copy_out(0, &mut bytes);
        assert!((0..len).all(|index| bytes[index] == common::base_byte(index)));
        // There is memory for other copies.
        assert!(disk.submit(write(&mut client, 512, 512, 0)).is_ok());
        assert_eq!(result_of(&poll(&mut disk)[0]), Ok(()));
    }
}

#[test]
fn a_part_of_a_read_that_comes_home_in_other_memory_leaks_the_guests() {
    let mut disk = common::open(One(honest(TABLE.devices().0)), common::options());
    let mut client = Client::new(8);
    assert!(
        disk.submit(write(&mut client, 0, CHUNK_BYTES as usize, 0))
            .is_ok()
    );
    assert_eq!(poll(&mut disk).len(), 1);
    disk.stores_mut().0.with = swap_memory;
    // The second half is zeros.
    let across = read(&mut client, CHUNK_BYTES - 512, 1024, 0);
    assert!(disk.submit(across).is_ok());
    assert_eq!(poll(&mut disk).len(), 0, "it holds memory that is out");
    assert_eq!(disk.in_flight(), 0);
    // The part, and the guest's memory that is not whole.
    assert_eq!(disk.stats().protocol_errors, 2);
    disk.stores_mut().0.with = |_| ();
    assert!(disk.submit(read(&mut client, 0, 512, 0)).is_ok());
    assert_eq!(result_of(&poll(&mut disk)[0]), Ok(()));
}

/// A disk with two chunks mapped that do not lie together in the store.
fn two_parts(client: &mut Client) -> Disk<One<Gate>> {
    let mut disk = common::open(One(Gate::new(TABLE.devices().0)), common::options());
    for chunk in [1, 0] {
        let op = write(client, chunk * CHUNK_BYTES, CHUNK_BYTES as usize, 0);
        assert!(disk.submit(op).is_ok());
        assert_eq!(poll(&mut disk).len(), 1);
    }
    disk
}

fn forge(disk: &mut Disk<One<Gate>>, mut op: Op, tag: u64) {
    op.set_tag(tag);
    op.complete(Ok(()));
    disk.stores_mut().0.forged.push(op);
}

/// The tag of the next request in the same place of the table.
const NEXT_REQUEST: u64 = 1 << 32;
/// The tag of a request in the next place.
const NEXT_PLACE: u64 = 1 << 16;

#[test]
fn a_part_that_ends_in_an_operation_of_somebody_else_ends_its_request() {
    let mut client = Client::new(8);
    let mut disk = two_parts(&mut client);
    disk.stores_mut().0.holds = |_| true;
    let across = read(&mut client, CHUNK_BYTES - 512, 1024, 0);
    assert!(disk.submit(across).is_ok());
    assert_eq!(poll(&mut disk).len(), 0);
    assert_eq!(disk.stores().0.held.len(), 2);
    let tag = disk.stores().0.held[0].tag();
    let op = client.op(OpKind::Read, OpFlags::NONE, 0, 0, 0);
    forge(&mut disk, op, tag);
    assert_eq!(poll(&mut disk).len(), 0);
    assert_eq!(disk.stats().protocol_errors, 1);
    // The request ends with its first real part, while its memory is out; nothing waits for the other.
    disk.stores_mut().0.open();
    assert_eq!(poll(&mut disk).len(), 0);
    assert_eq!(disk.in_flight(), 0);
    assert_eq!(disk.stats().protocol_errors, 3);
}

#[test]
fn a_part_of_an_older_request_or_of_one_that_sent_none_changes_nothing() {
    let mut client = Client::new(8);
    let mut disk = two_parts(&mut client);
    disk.stores_mut().0.holds = |_| true;
    assert!(
        disk.submit(client.op(OpKind::WriteZeroes, OpFlags::NONE, 0, 512, 1))
            .is_ok()
    );
    assert_eq!(poll(&mut disk).len(), 0);
    // This one waits for the zeros and has sent nothing.
    assert!(disk.submit(write(&mut client, 0, 512, 2)).is_ok());
    assert_eq!(poll(&mut disk).len(), 0);
    let live = disk.stores().0.held[0].tag();
    let waiting = live % NEXT_REQUEST + NEXT_PLACE;
    for (count, tag) in (1..).zip([live + NEXT_REQUEST, waiting]) {
        let op = client.op(OpKind::Write, OpFlags::NONE, 0, 0, 0);
        forge(&mut disk, op, tag);
        assert_eq!(poll(&mut disk).len(), 0, "{tag:#x}");
        assert_eq!(disk.stats().protocol_errors, count, "{tag:#x}");
    }
    disk.stores_mut().0.open();
    let ended = poll(&mut disk);
    assert_eq!(ended.len(), 2);
    for op in ended {
        assert_eq!(result_of(&op), Ok(()), "{}", op.tag());
    }
}

#[test]
fn an_operation_of_an_older_request_does_not_take_the_place_of_one_that_waits() {
    let mut client = Client::new(8);
    let mut disk = two_parts(&mut client);
    disk.stores_mut().0.holds = |head| head.kind == OpKind::Write;
    let zeros = client.op(OpKind::WriteZeroes, OpFlags::NONE, 0, 512, 1);
    assert!(disk.submit(zeros).is_ok());
    assert_eq!(poll(&mut disk).len(), 0);
    assert!(disk.submit(read(&mut client, 0, 512, 2)).is_ok());
    let tag = disk.stores().0.heads.last().expect("the read").tag;
    let older = poll(&mut disk).pop().expect("the read");
    // It takes the place of the read and waits for the zeros.
    assert!(disk.submit(write(&mut client, 0, 512, 3)).is_ok());
    assert_eq!(poll(&mut disk).len(), 0);
    forge(&mut disk, older, tag + NEXT_REQUEST);
    assert_eq!(poll(&mut disk).len(), 0);
    assert_eq!(disk.stats().protocol_errors, 1);
    disk.stores_mut().0.open();
    let mut ended: Vec<u64> = poll(&mut disk).iter().map(Op::tag).collect();
    ended.sort_unstable();
    assert_eq!(ended, [1, 3]);
    assert!(disk.submit(read(&mut client, 0, 512, 4)).is_ok());
    let mut bytes = [0; 512];
    poll(&mut disk)[0].copy_out(0, &mut bytes);
    assert_eq!(bytes, [0x33; 512]);
}
