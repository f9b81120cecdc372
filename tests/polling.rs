//! What one poll does, and when the next is due.

mod common;

use std::cell::Cell;

use common::gate::Gate;
use common::tamper::Tamper;
use common::{CHUNK_BYTES, Client, RAW, TABLE, result_of};
use fvd::Disk;
use fvd::device::{BlockDevice, DeviceError, OpFlags, OpKind, When};
use fvd::stores::One;
use fvd::units::Instant;

#[test]
fn a_poll_takes_one_completion_but_for_every_33rd_which_looks_at_everything() {
    let taken = Cell::new(0);
    let device = Tamper::new(RAW.devices().0, |_| taken.set(taken.get() + 1));
    let mut disk = common::open(One(device), common::options());
    let mut client = Client::new(40);
    for tag in 0..40 {
        let lease = common::lend(512, 0).1;
        let op = client.data_op(OpKind::Read, tag * 512, lease, tag);
        assert!(disk.submit(op).is_ok());
    }
    taken.set(0);
    for count in 1..=40 {
        assert!(disk.poll(Instant::ZERO).is_some(), "{count}");
        let expected = if count <= 32 { count } else { 40 };
        assert_eq!(taken.get(), expected);
    }
    assert!(disk.poll(Instant::ZERO).is_none());
    common::close(disk);
}

#[test]
fn a_disk_with_something_to_hand_out_or_to_do_is_to_be_polled_now() {
    let mut disk = common::open(One(Gate::new(TABLE.devices().0)), common::options());
    let mut client = Client::new(2);
    assert_eq!(disk.poll_at(), When::Event);
    let mut write = || client.data_op(OpKind::Write, 0, common::lend(512, 1).1, 0);
    // To do: a first write needs a chunk.
    assert!(disk.submit(write()).is_ok());
    assert_eq!(disk.poll_at(), When::Now);
    while disk.poll(Instant::ZERO).is_none() {}
    // To hand out: the second goes straight to the device.
    assert!(disk.submit(write()).is_ok());
    disk.run(Instant::ZERO);
    assert_eq!(disk.poll_at(), When::Now);
    assert!(disk.reap().is_some());
    let timer = Instant::ZERO.after_micros(common::options().commit_delay_micros);
    assert_eq!(disk.poll_at(), When::At(timer));
    common::close(disk);
}

#[test]
fn a_poisoned_disk_has_no_timer() {
    let mut disk = common::open(One(Gate::new(TABLE.devices().0)), common::options());
    let mut client = Client::new(4);
    let mut write = |disk: &mut Disk<One<Gate>>, chunk| {
        let lease = common::lend(512, 1).1;
        let op = client.data_op(OpKind::Write, chunk * CHUNK_BYTES, lease, 0);
        assert!(disk.submit(op).is_ok());
        while disk.poll(Instant::ZERO).is_none() {}
        assert!(disk.poll(Instant::ZERO).is_none());
    };
    write(&mut disk, 0);
    disk.stores_mut().0.holds = |head| head.kind == OpKind::Flush;
    let mut flusher = Client::new(1);
    let flush = flusher.op(OpKind::Flush, OpFlags::NONE, 0, 0, 0);
    assert!(disk.submit(flush).is_ok());
    assert!(disk.poll(Instant::ZERO).is_none());
    // Beside the commit: its mapping waits for the next one.
    write(&mut disk, 1);
    assert!(matches!(disk.poll_at(), When::At(_)));
    let gate = &mut disk.stores_mut().0;
    let mut op = gate.held.pop().expect("the flush");
    op.complete(Err(DeviceError::Io));
    gate.forged.push(op);
    let op = (0..10).find_map(|_| disk.poll(Instant::ZERO));
    assert_eq!(
        result_of(&op.expect("the flush")),
        Err(DeviceError::Poisoned)
    );
    while disk.poll(Instant::ZERO).is_some() {}
    assert!(disk.is_poisoned());
    assert_eq!(disk.poll_at(), When::Event);
}
