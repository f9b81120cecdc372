//! What a guest is answered, what its devices see of it, and what the disk counts.

mod common;

use std::sync::Arc;
use std::task::{Wake, Waker};

use common::gate::Gate;
use common::{BLOCK_BYTES, CHUNK_BYTES, Client, DISK_BYTES, RAW, Rng, Setup, TABLE, result_of};
use fvd::buffer::{Head, Op};
use fvd::device::{BlockDevice, Counting, DeviceError, Geometry, OpFlags, OpKind, Ram, When};
use fvd::stores::{One, Stores, Two, WithBase};
use fvd::units::Instant;
use fvd::{CancelOutcome, Disk, StaleRequest};

fn gate(setup: &Setup) -> Disk<One<Gate>> {
    common::open(One(Gate::new(setup.devices().0)), common::options())
}

fn finish<S: Stores>(disk: &mut Disk<S>) -> Op {
    for turn in 0..10_000 {
        if let Some(op) = disk.poll(Instant::from_micros(turn)) {
            return op;
        }
    }
    panic!("a request that never finishes");
}

/// Runs a request of one lease, if it takes any.
fn run<S: Stores>(
    disk: &mut Disk<S>,
    client: &mut Client,
    (kind, flags): (OpKind, OpFlags),
    offset: u64,
    len: u64,
) -> Result<(), DeviceError> {
    let mut op = client.op(kind, flags, offset, len, 0);
    if matches!(kind, OpKind::Read | OpKind::Write) {
        op.push(common::lend(len as usize, 0x33).1).expect("room");
    }
    let mut op = match disk.submit(op) {
        Ok(()) => finish(disk),
        Err(op) => op,
    };
    // The buffers of these tests are never used again.
    while op.pop().is_some() {}
    let result = result_of(&op);
    client.put(op);
    result
}

const WRITE: (OpKind, OpFlags) = (OpKind::Write, OpFlags::NONE);
const READ: (OpKind, OpFlags) = (OpKind::Read, OpFlags::NONE);
const FLUSH: (OpKind, OpFlags) = (OpKind::Flush, OpFlags::NONE);

#[test]
fn each_of_several_leases_holds_whole_logical_blocks() {
    for (kind, leases, answer) in [
        (OpKind::Write, &[512, 512][..], Ok(())),
        (OpKind::Read, &[1024, 512, 512], Ok(())),
        (OpKind::Write, &[256, 256], Err(DeviceError::Invalid)),
        (OpKind::Read, &[512, 256, 256], Err(DeviceError::Invalid)),
        (OpKind::Write, &[768, 256], Err(DeviceError::Invalid)),
    ] {
        let mut disk = gate(&TABLE);
        let mut client = Client::new(1);
        let sent = disk.stores().0.heads.len();
        let mut op = client.op(
            kind,
            OpFlags::NONE,
            0,
            leases.iter().sum::<usize>() as u64,
            0,
        );
        for len in leases {
            op.push(common::lend(*len, 0x44).1).expect("room");
        }
        let op = match disk.submit(op) {
            Ok(()) => finish(&mut disk),
            Err(op) => op,
        };
        assert_eq!(result_of(&op), answer, "{kind:?} {leases:?}");
        let silent = disk.stores().0.heads.len() == sent;
        assert!(
            answer.is_ok() || silent,
            "a refused request reached a device"
        );
    }
}

#[test]
fn a_request_outside_the_disk_or_on_a_poisoned_one_reaches_no_device() {
    let mut disk = gate(&TABLE);
    let mut client = Client::new(2);
    assert!(!disk.is_poisoned());
    let sent = disk.stores().0.heads.len();
    for what in [READ, WRITE] {
        let answer = run(&mut disk, &mut client, what, DISK_BYTES - 512, 1024);
        assert_eq!(answer, Err(DeviceError::Invalid));
    }
    assert_eq!(disk.stores().0.heads.len(), sent);
    // A flush that fails poisons.
    disk.stores_mut().0.holds = |head| head.kind == OpKind::Flush;
    let flush = client.op(OpKind::Flush, OpFlags::NONE, 0, 0, 0);
    assert!(disk.submit(flush).is_ok());
    assert!(disk.poll(Instant::ZERO).is_none());
    let gate = &mut disk.stores_mut().0;
    let mut op = gate.held.pop().expect("the flush");
    op.complete(Err(DeviceError::Io));
    gate.forged.push(op);
    gate.open();
    assert_eq!(result_of(&finish(&mut disk)), Err(DeviceError::Io));
    assert!(disk.is_poisoned());
    let sent = disk.stores().0.heads.len();
    for what in [WRITE, FLUSH] {
        let len = if what == FLUSH { 0 } else { 512 };
        let refused = client.op(what.0, what.1, 0, len, 0);
        let mut refused = refused;
        if len != 0 {
            refused.push(common::lend(512, 1).1).expect("room");
        }
        let refused = disk.submit(refused).expect_err("poisoned");
        assert_eq!(result_of(&refused), Err(DeviceError::Poisoned));
        let mut refused = refused;
        while refused.pop().is_some() {}
        client.put(refused);
    }
    assert_eq!(disk.stores().0.heads.len(), sent);
    assert_eq!(run(&mut disk, &mut client, READ, 0, 512), Ok(()));
}

#[test]
fn the_id_of_a_request_that_ended_is_stale() {
    let mut disk = gate(&RAW);
    let mut client = Client::new(2);
    let mut start = |disk: &mut Disk<One<Gate>>| {
        let lease = common::lend(512, 1).1;
        let op = client.data_op(OpKind::Read, 0, lease, 0);
        disk.start(op).expect("accepted")
    };
    let first = start(&mut disk);
    assert_eq!(disk.cancel(first), Ok(CancelOutcome::UnderWay));
    drop(finish(&mut disk));
    assert_eq!(disk.cancel(first), Err(StaleRequest), "its slot is free");
    // Its slot is taken again.
    disk.stores_mut().0.holds = |head| head.kind == OpKind::Read;
    let second = start(&mut disk);
    assert_eq!(disk.cancel(first), Err(StaleRequest), "another's slot");
    assert_eq!(disk.cancel(second), Ok(CancelOutcome::UnderWay));
    assert_eq!(StaleRequest.to_string(), "the request completed already");
}

/// A device that honours FUA, and notes what it is asked.
struct Fua {
    inner: Ram,
    seen: Vec<(OpKind, OpFlags)>,
}

impl BlockDevice for Fua {
    fn geometry(&self) -> Geometry {
        Geometry {
            fua: true,
            ..self.inner.geometry()
        }
    }

    fn submit(&mut self, mut op: Op) -> Result<(), Op> {
        let head = op.head();
        self.seen.push((head.kind, head.flags));
        op.set_head(Head {
            flags: OpFlags::NONE,
            ..head
        });
        self.inner.submit(op)
    }

    fn poll(&mut self, now: Instant) -> Option<Op> {
        self.inner.poll(now)
    }

    fn poll_at(&self) -> When {
        self.inner.poll_at()
    }
}

fn fua(setup: &Setup) -> Disk<One<Fua>> {
    let device = Fua {
        inner: setup.devices().0,
        seen: Vec::new(),
    };
    let mut disk = common::open(One(device), common::options());
    disk.stores_mut().0.seen.clear();
    disk
}

#[test]
fn fua_goes_down_only_where_the_disk_lies_like_a_raw_one() {
    let write = (OpKind::Write, OpFlags::FUA);
    let mut client = Client::new(1);
    let mut disk = fua(&RAW);
    assert_eq!(run(&mut disk, &mut client, write, 0, 512), Ok(()));
    assert_eq!(disk.stores().0.seen, [write]);
    // With a table the mapping has to be durable too, and then one flush does for both.
    let mut disk = fua(&TABLE);
    assert_eq!(run(&mut disk, &mut client, WRITE, 0, CHUNK_BYTES), Ok(()));
    assert_eq!(run(&mut disk, &mut client, FLUSH, 0, 0), Ok(()));
    disk.stores_mut().0.seen.clear();
    let before = disk.stats();
    assert_eq!(run(&mut disk, &mut client, write, 0, 512), Ok(()));
    assert_eq!(disk.stores().0.seen, [WRITE, FLUSH]);
    let after = disk.stats();
    assert_eq!(
        after.forwarded + after.parts,
        before.forwarded + before.parts + 2
    );
}

#[test]
fn flags_that_a_device_need_not_know_are_not_passed_on() {
    let mut client = Client::new(1);
    for setup in [RAW, TABLE] {
        let mut disk = fua(&setup);
        assert_eq!(run(&mut disk, &mut client, WRITE, 0, CHUNK_BYTES), Ok(()));
        assert_eq!(run(&mut disk, &mut client, FLUSH, 0, 0), Ok(()));
        disk.stores_mut().0.seen.clear();
        let both = OpFlags::FUA.union(OpFlags::MAY_UNMAP);
        for (kind, flags, offset, len) in [
            (OpKind::Write, OpFlags::MAY_UNMAP, 0, 512),
            (OpKind::Write, OpFlags::MAY_UNMAP, 2 * CHUNK_BYTES, 512),
            (OpKind::Read, both, 0, 512),
            (OpKind::Flush, both, 0, 0),
            (OpKind::Flush, OpFlags::FUA, 0, 0),
        ] {
            let answer = run(&mut disk, &mut client, (kind, flags), offset, len);
            assert_eq!(answer, Ok(()), "{kind:?} {flags:?}");
        }
        for (kind, flags) in &disk.stores().0.seen {
            assert_eq!(*flags, OpFlags::NONE, "{kind:?}");
        }
    }
}

type Counted = WithBase<Two<Ram, Counting<Ram>>, Counting<Ram>>;

/// Operations on data and base, flushes apart, after many requests of all kinds; and the disk.
fn count(setup: &Setup, zeroes: bool) -> (u64, fvd::Stats) {
    let (metadata, data) = setup.devices();
    let data = data.expect("apart");
    let data = if zeroes {
        data.with_write_zeroes()
    } else {
        data
    };
    let stores = Two::new(metadata, Counting::new(data));
    let stores = WithBase::new(stores, Counting::new(setup.base()));
    let mut disk = common::open(stores, common::options());
    let mut client = Client::new(1);
    let mut rng = Rng(7);
    let counts = |disk: &mut Disk<Counted>| {
        let (stores, base) = disk.stores_mut().parts_mut();
        let data = stores.parts_mut().1.take();
        data.operations() - data.flushes + base.take().operations()
    };
    counts(&mut disk);
    for _ in 0..400 {
        let sectors = 1 + rng.below(70);
        let start = rng.below(DISK_BYTES / 512 - sectors) * 512;
        let kinds = [
            OpKind::Read,
            OpKind::Write,
            OpKind::WriteZeroes,
            OpKind::Discard,
        ];
        let kind = (kinds[rng.below(4) as usize], OpFlags::NONE);
        let answer = run(&mut disk, &mut client, kind, start, sectors * 512);
        assert_eq!(answer, Ok(()));
    }
    let sent = counts(&mut disk);
    let stats = disk.stats();
    common::close(disk);
    (sent, stats)
}

#[test]
fn every_operation_for_a_guest_is_counted_once() {
    for base_bytes in [DISK_BYTES / 2 + 1536, DISK_BYTES] {
        for (used, zeroes) in [(false, false), (false, true), (true, false), (true, true)] {
            let setup = Setup {
                base_bytes,
                used,
                external: true,
                ..TABLE
            };
            let (sent, stats) = count(&setup, zeroes);
            let counted = stats.forwarded + stats.parts + stats.fills;
            assert_eq!(counted, sent, "{setup:?} {zeroes}");
            assert_eq!(stats.requests, 400);
        }
    }
}

#[test]
fn every_new_chunk_of_a_used_store_is_zeroed_and_counted() {
    for zeroes in [false, true] {
        let setup = Setup {
            used: true,
            ..TABLE
        };
        let device = setup.devices().0;
        let device = if zeroes {
            device.with_write_zeroes()
        } else {
            device
        };
        let mut disk = common::open(One(device), common::options());
        let mut client = Client::new(1);
        // In parts, whole, and two at once.
        for (offset, len, chunks) in [
            (512, 512, 1),
            (CHUNK_BYTES, CHUNK_BYTES, 2),
            (3 * CHUNK_BYTES - 512, 1024, 4),
            (0, BLOCK_BYTES, 4),
            (7 * CHUNK_BYTES, 3 * CHUNK_BYTES, 7),
        ] {
            assert_eq!(run(&mut disk, &mut client, WRITE, offset, len), Ok(()));
            let stats = disk.stats();
            assert_eq!(stats.chunks_reserved, chunks);
            assert_eq!(stats.chunks_zeroed, chunks);
        }
        common::close(disk);
    }
}

struct Ignore;

impl Wake for Ignore {
    fn wake(self: Arc<Self>) {}
}

#[test]
fn a_disk_wakes_its_caller_only_if_all_its_devices_do() {
    let waker = Waker::from(Arc::new(Ignore));
    for wakes in [false, true] {
        let device = Wakes(TABLE.devices().0, wakes);
        let mut disk = common::open(One(device), common::options());
        assert_eq!(disk.set_waker(&waker), wakes);
    }
}

/// A device that says whether it wakes.
struct Wakes(Ram, bool);

impl BlockDevice for Wakes {
    fn geometry(&self) -> Geometry {
        self.0.geometry()
    }

    fn submit(&mut self, op: Op) -> Result<(), Op> {
        self.0.submit(op)
    }

    fn poll(&mut self, now: Instant) -> Option<Op> {
        self.0.poll(now)
    }

    fn poll_at(&self) -> When {
        self.0.poll_at()
    }

    fn set_waker(&mut self, _: &Waker) -> bool {
        self.1
    }
}
