//! A device that is pulled out, and one that returns what nobody sent.

mod common;

use std::collections::BTreeSet;

use common::gate::Gate;
use common::{CHUNK_BYTES, Client, Setup, result_of};
use fvd::buffer::{Head, Op};
use fvd::device::{BlockDevice, DeviceError, Fault, FaultPlan, OpFlags, OpKind, Ram, Verdict};
use fvd::stores::One;
use fvd::units::Instant;

const SETUP: Setup = Setup {
    table: true,
    base_bytes: 0,
    external: false,
    used: false,
};

fn request(client: &mut Client, kind: OpKind, offset: u64, tag: u64) -> Op {
    if kind == OpKind::Flush {
        return client.op(kind, OpFlags::NONE, 0, 0, tag);
    }
    client.data_op(kind, offset, common::lend(1024, 0x33).1, tag)
}

/// Whether the device is there, keeps what it gets, or is gone.
#[derive(Clone, Copy)]
struct Presence(Verdict);

impl FaultPlan for Presence {
    fn on_submit(&mut self, _: &Head) -> Verdict {
        self.0
    }
}

#[test]
fn each_request_on_a_removed_device_ends_once_and_all_memory_comes_back() {
    let (ram, _) = SETUP.devices();
    let stores: One<Fault<Ram, Presence>> = One(Fault::new(ram, Presence(Verdict::Pass)));
    let mut disk = common::open(stores, common::options());
    let mut client = Client::new(32);
    for (kind, offset) in [(OpKind::Write, 0), (OpKind::Flush, 0)] {
        let op = request(&mut client, kind, offset, 100);
        assert!(disk.submit(op).is_ok());
        while disk.poll(Instant::ZERO).is_none() {}
    }
    disk.stores_mut().0.plan_mut().0 = Verdict::Hold;
    let steps = [
        (OpKind::Write, 0),
        (OpKind::Read, 0),
        (OpKind::Write, 2 * CHUNK_BYTES - 512),
        (OpKind::Flush, 0),
        (OpKind::WriteZeroes, 0),
    ];
    for (tag, (kind, offset)) in (0..).zip(steps) {
        let op = match kind {
            OpKind::WriteZeroes => client.op(kind, OpFlags::NONE, offset, 1024, tag),
            _ => request(&mut client, kind, offset, tag),
        };
        assert!(disk.submit(op).is_ok());
        assert!(disk.poll(Instant::ZERO).is_none(), "the device keeps all");
    }
    assert!(disk.stores().0.held_count() > 0);
    let device = &mut disk.stores_mut().0;
    device.plan_mut().0 = Verdict::Refuse(DeviceError::Removed);
    device.fail_held(DeviceError::Removed);
    let mut left: BTreeSet<u64> = (0..steps.len() as u64).collect();
    for _ in 0..100 {
        if let Some(op) = disk.poll(Instant::ZERO) {
            assert!(left.remove(&op.tag()), "{} ended twice", op.tag());
            let expected = [DeviceError::Removed, DeviceError::Poisoned].map(Err);
            assert!(expected.contains(&result_of(&op)), "{}", op.tag());
        }
    }
    assert!(left.is_empty(), "{left:?} never ended");
    let mut closing = disk.close();
    assert!((0..100).any(|_| closing.poll(Instant::ZERO).is_ready()));
    let closed = closing.finish().unwrap_or_else(|_| panic!("it was ready"));
    assert_eq!(closed.result, Err(DeviceError::Poisoned));
    assert!(closed.memory.is_some(), "memory is missing");
}

/// Operations that reach behind this byte fail, as on a device that was cut short.
struct End(u64);

impl FaultPlan for End {
    fn on_submit(&mut self, head: &Head) -> Verdict {
        match head.kind {
            OpKind::Flush => Verdict::Pass,
            _ if head.offset + head.len > self.0 => Verdict::Fail(DeviceError::Io),
            _ => Verdict::Pass,
        }
    }
}

#[test]
fn a_device_that_shrinks_fails_what_was_behind_its_end_and_then_all_writing() {
    let (ram, _) = SETUP.devices();
    let mut disk = common::open(One(Fault::new(ram, End(u64::MAX))), common::options());
    let mut client = Client::new(8);
    let mut run = |disk: &mut fvd::Disk<One<Fault<Ram, End>>>, kind, chunk| {
        let op = request(&mut client, kind, chunk * CHUNK_BYTES, 0);
        let mut done = match disk.submit(op) {
            Ok(()) => (0..100)
                .find_map(|_| disk.poll(Instant::ZERO))
                .expect("it ends"),
            Err(refused) => refused,
        };
        while done.pop().is_some() {}
        let result = result_of(&done);
        client.put(done);
        result
    };
    let (write, read, flush) = (OpKind::Write, OpKind::Read, OpKind::Flush);
    for (kind, chunk) in [(write, 0), (write, 1), (flush, 0), (write, 2)] {
        assert_eq!(run(&mut disk, kind, chunk), Ok(()));
    }
    // One chunk of data is left: the one that was written first. The third is mapped in memory only.
    let data = SETUP.header().core.data_offset;
    disk.stores_mut().0.plan_mut().0 = data + CHUNK_BYTES;
    for (kind, chunk, left) in [
        (write, 0, true),
        (read, 0, true),
        (write, 1, false),
        (read, 1, false),
        (read, 2, false),
        (write, 3, false),
        (read, 0, true),
    ] {
        let expected = if left { Ok(()) } else { Err(DeviceError::Io) };
        assert_eq!(run(&mut disk, kind, chunk), expected, "{kind:?} {chunk}");
    }
    // Not even the journal is left, which the third chunk is to be noted in.
    disk.stores_mut().0.plan_mut().0 = 4096;
    assert!(run(&mut disk, flush, 0).is_err());
    for kind in [write, flush] {
        assert_eq!(run(&mut disk, kind, 0), Err(DeviceError::Poisoned));
    }
}

#[test]
fn a_completion_that_nothing_waits_for_is_counted_and_changes_nothing() {
    let (ram, _) = SETUP.devices();
    let mut disk = common::open(One(Gate::new(ram)), common::options());
    let mut client = Client::new(8);
    assert!(
        disk.submit(request(&mut client, OpKind::Write, 0, 0))
            .is_ok()
    );
    while disk.poll(Instant::ZERO).is_none() {}
    disk.stores_mut().0.holds = |_| true;
    assert!(
        disk.submit(request(&mut client, OpKind::Write, 0, 1))
            .is_ok()
    );
    assert!(disk.poll(Instant::ZERO).is_none());
    // As if an operation ended a second time, one in flight ended in somebody else's op, and one
    // ended that never was.
    let [.., ended, live] = disk.stores().0.heads[..] else {
        panic!("two writes were sent");
    };
    for (count, tag) in (1..).zip([ended.tag, live.tag, !0]) {
        let mut op = request(&mut client, OpKind::Write, 0, tag);
        op.complete(Ok(()));
        disk.stores_mut().0.forged.push(op);
        for _ in 0..10 {
            assert!(
                disk.poll(Instant::ZERO).is_none(),
                "{tag:#x} ended a request"
            );
        }
        assert_eq!(disk.stats().protocol_errors, count, "{tag:#x}");
    }
    disk.stores_mut().0.open();
    let op = (0..10)
        .find_map(|_| disk.poll(Instant::ZERO))
        .expect("the real completion");
    assert_eq!((op.tag(), result_of(&op)), (1, Ok(())));
}
