//! What is in flight together, and that nothing waits for a device that never answers.

mod common;

use common::gate::Gate;
use common::{BLOCK_BYTES, CHUNK_BYTES, Client, DISK_BYTES, Setup, result_of};
use fvd::buffer::Op;
use fvd::device::{BlockDevice, DeviceError, OpFlags, OpKind};
use fvd::stores::{One, WithBase};
use fvd::units::Instant;
use fvd::{CancelOutcome, StaleRequest};

const SETUP: Setup = Setup {
    table: true,
    base_bytes: DISK_BYTES,
    external: false,
    used: false,
};

type Disk = fvd::Disk<WithBase<One<Gate>, Gate>>;

fn open() -> Disk {
    let (metadata, _) = SETUP.devices();
    let stores = WithBase::new(One(Gate::new(metadata)), Gate::new(SETUP.base()));
    common::open(stores, common::options())
}

fn store(disk: &mut Disk) -> &mut Gate {
    &mut disk.stores_mut().parts_mut().0.0
}

fn base(disk: &mut Disk) -> &mut Gate {
    disk.stores_mut().parts_mut().1
}

fn request(client: &mut Client, kind: OpKind, offset: u64, len: u64, tag: u64) -> Op {
    let mut op = client.op(kind, OpFlags::NONE, offset, len, tag);
    if matches!(kind, OpKind::Read | OpKind::Write) {
        let (_, lease) = common::lend(len as usize, 0x11);
        op.push(lease).expect("room");
    }
    op
}

fn finish(disk: &mut Disk, count: usize) -> Vec<Op> {
    let mut all = Vec::new();
    for turn in 0..10_000 {
        if let Some(op) = disk.poll(Instant::from_micros(turn)) {
            all.push(op);
        }
        if all.len() == count {
            break;
        }
    }
    assert_eq!(all.len(), count, "requests that never finish");
    all
}

#[test]
fn a_split_read_has_all_its_operations_in_flight_at_once() {
    let mut disk = open();
    let mut client = Client::new(16);
    // Chunks 6, 4, 2, 0 of the disk, in this order in the store, base blocks between them.
    for chunk in [6, 4, 2, 0] {
        let op = request(
            &mut client,
            OpKind::Write,
            chunk * CHUNK_BYTES,
            BLOCK_BYTES,
            0,
        );
        assert!(disk.submit(op).is_ok());
        finish(&mut disk, 1);
    }
    store(&mut disk).holds = |head| head.kind == OpKind::Read;
    base(&mut disk).holds = |head| head.kind == OpKind::Read;
    store(&mut disk).heads.clear();
    base(&mut disk).heads.clear();
    let op = request(&mut client, OpKind::Read, 0, 8 * CHUNK_BYTES, 9);
    assert!(disk.submit(op).is_ok());
    for turn in 0..10 {
        assert!(disk.poll(Instant::from_micros(turn)).is_none());
    }
    assert_eq!(
        store(&mut disk).held.len(),
        4,
        "one read per chunk in the store"
    );
    assert_eq!(
        base(&mut disk).held.len(),
        4,
        "one read per run of the base"
    );
    store(&mut disk).open();
    base(&mut disk).open();
    let done = finish(&mut disk, 1);
    assert_eq!(result_of(&done[0]), Ok(()));
    let mut got = vec![0; (8 * CHUNK_BYTES) as usize];
    done[0].copy_out(0, &mut got);
    for (index, byte) in got.iter().enumerate() {
        let written = index as u64 % (2 * CHUNK_BYTES) < BLOCK_BYTES;
        assert_eq!(
            *byte,
            if written {
                0x11
            } else {
                common::base_byte(index)
            },
            "byte {index}"
        );
    }
}

#[test]
fn with_one_operation_held_for_ever_others_finish() {
    let mut disk = open();
    let mut client = Client::new(40);
    let first = request(&mut client, OpKind::Write, 0, BLOCK_BYTES, 1);
    assert!(disk.submit(first).is_ok());
    finish(&mut disk, 1);
    // The next data write never comes back.
    store(&mut disk).holds = |head| head.kind == OpKind::Write && head.len == 3 * 512;
    let stuck = request(&mut client, OpKind::Write, 1024, 3 * 512, 99);
    assert!(disk.submit(stuck).is_ok());
    for tag in 0..20 {
        let offset = (tag + 1) * CHUNK_BYTES;
        let kind = [
            OpKind::Read,
            OpKind::Write,
            OpKind::WriteZeroes,
            OpKind::Flush,
        ][tag as usize % 4];
        let (offset, len) = if kind == OpKind::Flush {
            (0, 0)
        } else {
            (offset, 2048)
        };
        let op = request(&mut client, kind, offset, len, tag);
        assert!(disk.submit(op).is_ok());
    }
    for op in finish(&mut disk, 20) {
        assert_eq!(result_of(&op), Ok(()));
        assert_ne!(op.tag(), 99);
    }
    assert_eq!(disk.in_flight(), 1);
    store(&mut disk).open();
    assert_eq!(finish(&mut disk, 1)[0].tag(), 99);
    common::close(disk);
}

#[test]
fn a_base_read_held_for_ever_blocks_only_its_own_block() {
    let mut disk = open();
    let mut client = Client::new(40);
    base(&mut disk).holds = |head| head.offset < BLOCK_BYTES;
    let stuck = request(&mut client, OpKind::Write, 512, 512, 99);
    assert!(disk.submit(stuck).is_ok());
    let waits = request(&mut client, OpKind::Write, 0, 512, 98);
    assert!(disk.submit(waits).is_ok());
    let free = request(&mut client, OpKind::Write, BLOCK_BYTES + 512, 512, 1);
    assert!(disk.submit(free).is_ok());
    assert_eq!(finish(&mut disk, 1)[0].tag(), 1);
    assert_eq!(disk.in_flight(), 2);
    base(&mut disk).open();
    for op in finish(&mut disk, 2) {
        assert_eq!(result_of(&op), Ok(()));
    }
    common::close(disk);
}

#[test]
fn a_write_of_a_whole_block_waits_for_a_copy_on_either_side_of_it() {
    let copied = 512;
    for start in [copied, 0] {
        let mut disk = open();
        let mut client = Client::new(4);
        base(&mut disk).holds = |_| true;
        let len = BLOCK_BYTES - copied;
        let copies = request(&mut client, OpKind::Write, start, len, 1);
        assert!(disk.submit(copies).is_ok());
        assert!(disk.poll(Instant::ZERO).is_none());
        let mut whole = client.op(OpKind::Write, OpFlags::NONE, 0, BLOCK_BYTES, 2);
        let lease = common::lend(BLOCK_BYTES as usize, 0x22).1;
        whole.push(lease).expect("room");
        assert!(disk.submit(whole).is_ok());
        for _ in 0..10 {
            assert!(disk.poll(Instant::ZERO).is_none(), "its bytes may be lost");
        }
        base(&mut disk).open();
        finish(&mut disk, 2);
        let read = request(&mut client, OpKind::Read, 0, BLOCK_BYTES, 3);
        assert!(disk.submit(read).is_ok());
        let mut bytes = [0; BLOCK_BYTES as usize];
        finish(&mut disk, 1)[0].copy_out(0, &mut bytes);
        assert_eq!(bytes, [0x22; BLOCK_BYTES as usize]);
        common::close(disk);
    }
}

#[test]
fn the_zero_floor_is_raised_before_a_first_write_has_to_wait_for_it() {
    let mut disk = open();
    let mut client = Client::new(20);
    let step = u64::from(common::options().floor_step_chunks);
    let commits = disk.stats().commits;
    store(&mut disk).holds = |head| head.kind == OpKind::Flush;
    // As many chunks as there are below the floor of a new disk.
    for chunk in 0..step {
        let begun = disk.stats().commits - commits;
        assert_eq!(begun, u64::from(chunk > step * 3 / 4), "chunk {chunk}");
        let at = chunk * CHUNK_BYTES;
        let op = request(&mut client, OpKind::Write, at, BLOCK_BYTES, 0);
        assert!(disk.submit(op).is_ok());
        finish(&mut disk, 1);
    }
    assert_eq!(store(&mut disk).held.len(), 1, "the commit waits");
    let at = step * CHUNK_BYTES;
    let op = request(&mut client, OpKind::Write, at, BLOCK_BYTES, 0);
    assert!(disk.submit(op).is_ok());
    for turn in 0..10 {
        assert!(disk.poll(Instant::from_micros(turn)).is_none());
    }
    store(&mut disk).open();
    finish(&mut disk, 1);
}

#[test]
fn cancel_drops_what_has_not_started_and_names_stale_requests() {
    let mut disk = open();
    let mut client = Client::new(40);
    base(&mut disk).holds = |_| true;
    let running = request(&mut client, OpKind::Write, 512, 512, 1);
    let running = disk.start(running).expect("accepted");
    let queued = request(&mut client, OpKind::Write, 0, 512, 2);
    let queued = disk.start(queued).expect("accepted");
    assert!(disk.poll(Instant::ZERO).is_none());
    assert_eq!(disk.cancel(queued), Ok(CancelOutcome::Cancelled));
    assert_eq!(disk.cancel(running), Ok(CancelOutcome::UnderWay));
    let op = finish(&mut disk, 1).remove(0);
    assert_eq!((op.tag(), result_of(&op)), (2, Err(DeviceError::Cancelled)));
    assert_eq!(disk.cancel(queued), Err(StaleRequest));
    base(&mut disk).open();
    assert_eq!(result_of(&finish(&mut disk, 1)[0]), Ok(()));
    assert_eq!(disk.cancel(running), Err(StaleRequest));
    common::close(disk);
}

#[test]
fn a_full_disk_queue_is_an_answer_and_hands_the_op_back() {
    let mut disk = open();
    let mut client = Client::new(80);
    store(&mut disk).holds = |_| true;
    base(&mut disk).holds = |_| true;
    for tag in 0..40 {
        let op = request(&mut client, OpKind::Read, tag * 4096, 512, tag);
        assert!(disk.submit(op).is_ok());
    }
    let refused = disk
        .submit(request(&mut client, OpKind::Read, 0, 512, 40))
        .expect_err("full");
    assert_eq!(result_of(&refused), Err(DeviceError::Busy));
    assert_eq!(refused.bytes(), 512);
    store(&mut disk).open();
    base(&mut disk).open();
    finish(&mut disk, 40);
    assert!(
        disk.submit(request(&mut client, OpKind::Read, 0, 512, 41))
            .is_ok()
    );
    finish(&mut disk, 1);
    common::close(disk);
}
