//! Devices that are busy for ever: they take no operation and have none, so they break the contract,
//! but whoever waits for them can still give up and has everything back.

mod common;

use std::task::Poll;

use common::{CHUNK_BYTES, Client, Setup, memory, result_of};
use fvd::buffer::{Head, Op};
use fvd::create::{CREATE_ARENA_BYTES, Create, CreateError};
use fvd::device::{BlockDevice, DeviceError, Fault, Geometry, OpFlags, OpKind, Ram, Verdict, When};
use fvd::open::{OpenError, Opening, PROBE_ARENA_BYTES, Probe};
use fvd::stores::One;
use fvd::units::Instant;
use fvd::{Closing, Disk};

/// How many operations the device takes before it is busy for ever.
#[derive(Clone, Copy)]
struct Takes(u32);

impl fvd::device::FaultPlan for Takes {
    fn on_submit(&mut self, _: &Head) -> Verdict {
        if self.0 == 0 {
            return Verdict::Refuse(DeviceError::Busy);
        }
        self.0 -= 1;
        Verdict::Pass
    }
}

type Stores = One<Fault<Ram, Takes>>;

const NEVER_BUSY: Takes = Takes(u32::MAX);

/// Polls after which nothing more is to be expected of a device that takes nothing.
const POLLS: u64 = 100;

const SETUP: Setup = Setup {
    table: true,
    base_bytes: 0,
    external: false,
    used: false,
};

fn device() -> Stores {
    One(Fault::new(SETUP.devices().0, NEVER_BUSY))
}

/// Ends what was given up: everything must come home in a few polls.
fn expect_end(mut closing: Closing<Stores>, requests: usize) -> Stores {
    let ready = (0..POLLS).any(|now| closing.poll(Instant::from_micros(now)).is_ready());
    assert!(ready, "giving up waits for a device that has nothing");
    let ended: Vec<_> = std::iter::from_fn(|| closing.reap()).collect();
    assert_eq!(ended.len(), requests);
    for op in ended {
        assert_eq!(result_of(&op), Err(DeviceError::Poisoned), "{}", op.tag());
    }
    let closed = closing.finish().unwrap_or_else(|_| panic!("it was ready"));
    assert!(closed.memory.is_some(), "memory is missing");
    assert_eq!(closed.result, Err(DeviceError::Poisoned));
    assert_eq!(closed.stats.protocol_errors, 0);
    closed.stores
}

/// Writes to new and to mapped chunks, in one operation or in several, reads, and a flush.
fn submit_all<S: fvd::stores::Stores>(disk: &mut Disk<S>, client: &mut Client) -> usize {
    let mut count = 0;
    for (kind, offset, len) in [
        (OpKind::Write, 0, 512),
        (OpKind::Read, 0, 512),
        (OpKind::Write, CHUNK_BYTES - 512, 1024),
        (OpKind::Read, CHUNK_BYTES - 512, 1024),
        (OpKind::Write, 3 * CHUNK_BYTES, 512),
        (OpKind::Flush, 0, 0),
    ] {
        let op = match kind {
            OpKind::Flush => client.op(kind, OpFlags::NONE, 0, 0, count),
            _ => client.data_op(kind, offset, common::lend(len, 0x22).1, count),
        };
        assert!(disk.submit(op).is_ok());
        count += 1;
    }
    count as usize
}

/// A disk with two chunks mapped, out of order, and one of them flushed.
fn disk(client: &mut Client) -> Disk<Stores> {
    let mut disk = common::open(device(), common::options());
    for (kind, offset) in [
        (OpKind::Write, CHUNK_BYTES),
        (OpKind::Flush, 0),
        (OpKind::Write, 0),
    ] {
        let op = match kind {
            OpKind::Flush => client.op(kind, OpFlags::NONE, 0, 0, 0),
            _ => client.data_op(kind, offset, common::lend(512, 0x11).1, 0),
        };
        assert!(disk.submit(op).is_ok());
        while disk.poll(Instant::ZERO).is_none() {}
    }
    disk
}

#[test]
fn an_abandoned_disk_ends_although_its_device_is_busy_for_ever() {
    // Busy from the first operation on, and after each of the next ones.
    for takes in 0..8 {
        let mut client = Client::new(16);
        let mut disk = disk(&mut client);
        disk.stores_mut().0.plan_mut().0 = takes;
        let requests = submit_all(&mut disk, &mut client);
        let mut done = 0;
        for now in 0..POLLS {
            done += usize::from(disk.poll(Instant::from_micros(now)).is_some());
        }
        assert!(done < requests, "the device takes all there is");
        let mut stores = expect_end(disk.abandon(), requests - done);
        *stores.0.plan_mut() = NEVER_BUSY;
        common::close(common::open(stores, common::options()));
    }
}

#[test]
fn an_abandoned_disk_sends_nothing_more_to_a_device_that_has_room_again() {
    let mut client = Client::new(16);
    let mut disk = disk(&mut client);
    disk.stores_mut().0.plan_mut().0 = 0;
    let requests = submit_all(&mut disk, &mut client);
    assert!(disk.poll(Instant::ZERO).is_none());
    *disk.stores_mut().0.plan_mut() = NEVER_BUSY;
    let stores = expect_end(disk.abandon(), requests);
    assert_eq!(stores.0.plan().0, NEVER_BUSY.0, "operations were sent");
}

#[test]
fn a_close_that_a_busy_device_holds_up_can_be_abandoned() {
    for takes in 0..4 {
        let mut client = Client::new(4);
        let mut disk = disk(&mut client);
        disk.stores_mut().0.plan_mut().0 = takes;
        let mut closing = disk.close();
        for now in 0..POLLS {
            assert!(closing.poll(Instant::from_micros(now)).is_pending());
        }
        let mut stores = expect_end(closing.abandon(), 0);
        *stores.0.plan_mut() = NEVER_BUSY;
        common::close(common::open(stores, common::options()));
    }
}

#[test]
fn an_opening_that_a_busy_device_holds_up_gives_everything_back() {
    each_busy_opening(device);
}

#[test]
fn a_recovery_that_a_busy_device_holds_up_gives_everything_back() {
    each_busy_opening(|| expect_end(disk(&mut Client::new(4)).abandon(), 0));
}

fn each_busy_opening(image: fn() -> Stores) {
    for takes in 0.. {
        let mut stores = image();
        *stores.0.plan_mut() = Takes(takes);
        let mut probe = Probe::new(stores, memory(PROBE_ARENA_BYTES), common::options());
        let probed = (0..POLLS).any(|_| probe.poll(Instant::ZERO).is_ready());
        let probed = match probe.finish() {
            Ok(probed) => probed,
            Err(failure) => {
                assert!(!probed && failure.memory.is_some(), "{}", failure.error);
                continue;
            }
        };
        let arena = memory(probed.layout.arena_bytes());
        let mut opening = Opening::new(probed.stores, probed.layout, arena);
        let opened = (0..POLLS).any(|_| opening.poll(Instant::ZERO) == Poll::Ready(()));
        match opening.finish() {
            Ok(_) => {
                assert!(opened && takes > 4, "{takes} operations were enough");
                return;
            }
            Err(failure) => {
                assert!(!opened && failure.memory.is_some(), "after {takes}");
                let OpenError::Device { error, .. } = failure.error else {
                    panic!("{}", failure.error);
                };
                assert_eq!(error, DeviceError::Cancelled);
            }
        }
    }
}

#[test]
fn a_creation_that_a_busy_device_holds_up_gives_everything_back() {
    for takes in 0.. {
        let bytes = common::bytes(SETUP.device_bytes().0, 0);
        let device = Fault::new(Ram::new(bytes), Takes(takes));
        let mut create = Create::new(device, SETUP.header(), false, memory(CREATE_ARENA_BYTES));
        let ready = (0..POLLS).any(|_| create.poll(Instant::ZERO).is_ready());
        let created = create.finish();
        assert!(created.memory.is_some(), "after {takes}");
        if ready {
            created.result.expect("an image");
            assert!(takes > 4, "{takes} operations were enough");
            return;
        }
        let cancelled = CreateError::Device(DeviceError::Cancelled);
        assert_eq!(created.result, Err(cancelled));
    }
}

/// A device that takes each operation at the second try, and insists that it is the same.
struct SecondTry {
    inner: Ram,
    first: Option<Head>,
}

impl BlockDevice for SecondTry {
    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn submit(&mut self, mut op: Op) -> Result<(), Op> {
        if let Some(first) = self.first.take() {
            assert_eq!(op.head(), first);
            return self.inner.submit(op);
        }
        self.first = Some(op.head());
        op.complete(Err(DeviceError::Busy));
        Err(op)
    }

    fn poll(&mut self, now: Instant) -> Option<Op> {
        self.inner.poll(now)
    }

    fn poll_at(&self) -> When {
        self.inner.poll_at()
    }
}

#[test]
fn an_operation_that_a_device_had_no_room_for_comes_again_as_it_was() {
    let device = SecondTry {
        inner: SETUP.devices().0,
        first: None,
    };
    let mut disk = common::open(One(device), common::options());
    let mut client = Client::new(16);
    let requests = submit_all(&mut disk, &mut client);
    let ended = (0..1000).filter_map(|now| disk.poll(Instant::from_micros(now)));
    let results: Vec<_> = ended.map(|op| result_of(&op)).collect();
    assert_eq!(results, vec![Ok(()); requests]);
    common::close(disk);
}
