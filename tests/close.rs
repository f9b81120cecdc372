//! The ends of a session: what a close waits for, what it leaves, and what an abandoned disk does not
//! do any more.

mod common;

use std::task::Poll;

use common::gate::Gate;
use common::{CHUNK_BYTES, Client, Setup, result_of};
use fvd::buffer::Op;
use fvd::device::{BlockDevice, DeviceError, OpFlags, OpKind};
use fvd::stores::One;
use fvd::units::Instant;
use fvd::{Closed, Closing, Disk};

const SETUP: Setup = Setup {
    table: true,
    base_bytes: 0,
    external: false,
    used: false,
};

fn open() -> Disk<One<Gate>> {
    let (metadata, _) = SETUP.devices();
    common::open(One(Gate::new(metadata)), common::options())
}

fn request(client: &mut Client, kind: OpKind, offset: u64, tag: u64) -> Op {
    if kind == OpKind::Flush {
        return client.op(kind, OpFlags::NONE, 0, 0, tag);
    }
    let (_, lease) = common::lend(512, 0x11);
    client.data_op(kind, offset, lease, tag)
}

/// Polls until the close is ready, or as often as it would take if it could get ready.
fn turn(closing: &mut Closing<One<Gate>>) -> Poll<()> {
    for turn in 0..100 {
        if closing.poll(Instant::from_micros(turn)).is_ready() {
            return Poll::Ready(());
        }
    }
    Poll::Pending
}

fn reap_all(closing: &mut Closing<One<Gate>>) -> Vec<(u64, Result<(), DeviceError>)> {
    let ops = std::iter::from_fn(|| closing.reap());
    let mut all: Vec<_> = ops.map(|op| (op.tag(), result_of(&op))).collect();
    all.sort_by_key(|(tag, _)| *tag);
    all
}

fn finish(closing: Closing<One<Gate>>) -> Closed<One<Gate>> {
    closing
        .finish()
        .unwrap_or_else(|_| panic!("it said it was ready"))
}

#[test]
fn a_close_waits_for_requests_and_for_their_completions_to_be_taken() {
    let mut disk = open();
    let mut client = Client::new(4);
    disk.stores_mut().0.holds = |head| head.kind == OpKind::Write;
    for (tag, kind) in [(0, OpKind::Write), (1, OpKind::Read)] {
        let op = request(&mut client, kind, tag * CHUNK_BYTES, tag);
        assert!(disk.submit(op).is_ok());
    }
    let mut closing = disk.close();
    assert_eq!(turn(&mut closing), Poll::Pending);
    assert_eq!(reap_all(&mut closing), [(1, Ok(()))]);
    closing.stores_mut().0.open();
    assert_eq!(turn(&mut closing), Poll::Ready(()));
    let Err(mut closing) = closing.finish() else {
        panic!("a completion was lost");
    };
    assert_eq!(reap_all(&mut closing), [(0, Ok(()))]);
    let closed = finish(closing);
    assert_eq!(closed.result, Ok(()));
    assert!(closed.memory.is_some());
}

#[test]
fn a_close_can_not_be_finished_before_it_is_ready() {
    let Err(closing) = open().close().finish() else {
        panic!("nothing was written yet");
    };
    let mut closing = closing;
    // The last operation is the second header's flush.
    closing.stores_mut().0.holds = |head| head.kind == OpKind::Flush;
    assert_eq!(turn(&mut closing), Poll::Pending);
    let Err(mut closing) = closing.finish() else {
        panic!("a flush is in flight");
    };
    closing.stores_mut().0.open();
    assert_eq!(turn(&mut closing), Poll::Ready(()));
    assert_eq!(finish(closing).result, Ok(()));
}

#[test]
fn closing_an_unchanged_disk_writes_each_header_once() {
    let disk = open();
    let before = disk.stores().0.heads.len();
    let mut closing = disk.close();
    assert_eq!(turn(&mut closing), Poll::Ready(()));
    let heads = finish(closing).stores.0.heads;
    let kinds: Vec<OpKind> = heads[before..].iter().map(|head| head.kind).collect();
    // Flush, header, flush, header, flush would be one flush too many: no page was written.
    let expected = [OpKind::Write, OpKind::Flush, OpKind::Write, OpKind::Flush];
    assert_eq!(kinds, expected);
    assert_ne!(heads[before].offset, heads[before + 2].offset);
}

#[test]
fn only_a_closed_image_says_that_it_is_clean() {
    // A session that only reads shows the header as it was left.
    let left_clean = |stores| {
        let options = fvd::open::OpenOptions {
            read_only: true,
            ..common::options()
        };
        let disk = common::open(stores, options);
        (disk.header().core.clean_shutdown, common::close(disk))
    };
    let mut disk = open();
    assert!(!disk.header().core.clean_shutdown, "in use");
    disk.request_checkpoint();
    for _ in 0..100 {
        assert!(disk.poll(Instant::ZERO).is_none());
    }
    assert!(!disk.header().core.clean_shutdown, "still in use");
    let mut closing = disk.abandon();
    assert_eq!(turn(&mut closing), Poll::Ready(()));
    let (clean, stores) = left_clean(finish(closing).stores);
    assert!(!clean, "abandoned");
    let stores = common::close(common::open(stores, common::options()));
    let (clean, _) = left_clean(stores);
    assert!(clean, "closed");
}

/// A disk whose first flush waits for the journal write of its commit.
fn with_held_commit() -> Disk<One<Gate>> {
    let mut disk = open();
    let mut client = Client::new(4);
    let op = request(&mut client, OpKind::Write, 0, 0);
    assert!(disk.submit(op).is_ok());
    while disk.poll(Instant::ZERO).is_none() {}
    disk.stores_mut().0.holds = |head| head.kind == OpKind::Write;
    let op = request(&mut client, OpKind::Flush, 0, 1);
    assert!(disk.submit(op).is_ok());
    assert!(disk.poll(Instant::ZERO).is_none());
    disk
}

#[test]
fn an_abandoned_disk_writes_nothing_more_but_waits_for_what_is_in_flight() {
    let disk = with_held_commit();
    let sent = disk.stores().0.heads.len();
    assert_eq!(disk.stores().0.held.len(), 1);
    let mut closing = disk.abandon();
    assert_eq!(turn(&mut closing), Poll::Pending, "memory is out");
    assert_eq!(reap_all(&mut closing), [(1, Err(DeviceError::Poisoned))]);
    let Err(mut closing) = closing.finish() else {
        panic!("memory is out");
    };
    closing.stores_mut().0.open();
    assert_eq!(turn(&mut closing), Poll::Ready(()));
    let closed = finish(closing);
    assert_eq!(closed.result, Err(DeviceError::Poisoned));
    assert!(closed.memory.is_some());
    assert_eq!(closed.stores.0.heads.len(), sent);
}

#[test]
fn memory_that_a_device_keeps_is_missed_at_the_end() {
    let mut disk = with_held_commit();
    // A layer returns the commit's write without the memory that it carried.
    let gate = &mut disk.stores_mut().0;
    let mut op = gate.held.pop().expect("the commit's write");
    assert!(op.pop().is_some());
    op.complete(Ok(()));
    gate.forged.push(op);
    gate.open();
    let mut closing = disk.close();
    assert_eq!(turn(&mut closing), Poll::Ready(()));
    reap_all(&mut closing);
    let closed = finish(closing);
    assert_eq!(closed.result, Err(DeviceError::Poisoned));
    assert!(closed.memory.is_none());
}
