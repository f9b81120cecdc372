//! What a failed request leaves behind: nothing that others miss, and nothing that is not theirs.

mod common;

use common::gate::Gate;
use common::{BLOCK_BYTES, CHUNK_BYTES, Client, Setup, result_of};
use fvd::Disk;
use fvd::buffer::Op;
use fvd::create::CREATE_ARENA_BYTES;
use fvd::device::{BlockDevice, DeviceError, OpFlags, OpKind, Ram};
use fvd::format::{StoreChoice, plan_layout};
use fvd::open::OpenOptions;
use fvd::stores::One;
use fvd::units::Instant;

struct Bench {
    disk: Disk<One<Gate>>,
    client: Client,
    data_offset: u64,
}

/// A disk of 64 chunks on a store that has room for fewer.
fn thin(chunks: u64) -> Bench {
    thin_with(chunks, common::options())
}

fn thin_with(chunks: u64, options: OpenOptions) -> Bench {
    let setup = Setup {
        table: true,
        base_bytes: 0,
        external: false,
        used: false,
    };
    let data_offset = setup.header().core.data_offset;
    let device_bytes = data_offset + chunks * CHUNK_BYTES;
    let mut params = setup.params();
    params.store = StoreChoice::FixedZeroed { device_bytes };
    let header = plan_layout(&params).expect("legal");
    let ram = Ram::new(common::bytes(device_bytes as usize, 0));
    let arena = common::memory(CREATE_ARENA_BYTES);
    let created = fvd::blocking::create(ram, header, true, arena, common::idle());
    created.result.expect("created");
    Bench {
        disk: common::open(One(Gate::new(created.device)), options),
        client: Client::new(8),
        data_offset,
    }
}

impl Bench {
    fn gate(&mut self) -> &mut Gate {
        &mut self.disk.stores_mut().0
    }

    fn submit(&mut self, offset: u64, value: u8) {
        let (_, lease) = common::lend(512, value);
        let op = self.client.data_op(OpKind::Write, offset, lease, 0);
        assert!(self.disk.submit(op).is_ok());
    }

    fn finish(&mut self) -> Result<(), DeviceError> {
        for turn in 0..10_000 {
            if let Some(op) = self.disk.poll(Instant::from_micros(turn)) {
                return self.end(op);
            }
        }
        panic!("a request that never finishes");
    }

    fn end(&mut self, mut op: Op) -> Result<(), DeviceError> {
        while op.pop().is_some() {}
        let result = result_of(&op);
        self.client.put(op);
        result
    }

    fn write(&mut self, offset: u64, value: u8) -> Result<(), DeviceError> {
        self.submit(offset, value);
        self.finish()
    }

    fn flush(&mut self) {
        let op = self.client.op(OpKind::Flush, OpFlags::NONE, 0, 0, 0);
        assert!(self.disk.submit(op).is_ok());
        assert_eq!(self.finish(), Ok(()));
    }

    fn fua(&mut self, offset: u64) {
        let mut op = self.client.op(OpKind::Write, OpFlags::FUA, offset, 512, 0);
        op.push(common::lend(512, 4).1).expect("room");
        assert!(self.disk.submit(op).is_ok());
        assert_eq!(self.finish(), Ok(()));
    }

    /// Sends writes that stay on the device.
    fn held(&mut self, offsets: &[u64]) {
        self.gate().holds = |head| head.kind == OpKind::Write;
        for (value, offset) in (1..).zip(offsets) {
            self.submit(*offset, value);
            assert!(self.disk.poll(Instant::ZERO).is_none());
        }
        assert_eq!(self.gate().held.len(), offsets.len());
    }

    /// Fails the oldest operation that is held.
    fn fail(&mut self) {
        let mut op = self.gate().held.remove(0);
        op.complete(Err(DeviceError::Io));
        self.gate().forged.push(op);
        assert_eq!(self.finish(), Err(DeviceError::Io));
    }

    fn store_chunk_of_last_write(&mut self) -> u64 {
        let offset = self.data_offset;
        let head = self
            .gate()
            .heads
            .iter()
            .rfind(|head| head.kind == OpKind::Write);
        (head.expect("a write").offset - offset) / CHUNK_BYTES
    }

    fn byte(&mut self, offset: u64) -> u8 {
        let (_, lease) = common::lend(512, 0xEE);
        let op = self.client.data_op(OpKind::Read, offset, lease, 0);
        assert!(self.disk.submit(op).is_ok());
        for turn in 0..1000 {
            if let Some(op) = self.disk.poll(Instant::from_micros(turn)) {
                let mut byte = [0];
                op.copy_out(0, &mut byte);
                assert_eq!(self.end(op), Ok(()));
                return byte[0];
            }
        }
        panic!("a read that never finishes");
    }
}

#[test]
fn the_chunk_of_a_write_that_failed_is_there_for_the_next() {
    let mut bench = thin(2);
    for chunk in 0..10 {
        bench.held(&[chunk * CHUNK_BYTES]);
        bench.fail();
        bench.gate().open();
    }
    assert_eq!(bench.write(0, 1), Ok(()));
    assert_eq!(bench.write(CHUNK_BYTES, 2), Ok(()));
    assert_eq!(bench.write(2 * CHUNK_BYTES, 3), Err(DeviceError::NoSpace));
    assert_eq!((bench.byte(0), bench.byte(CHUNK_BYTES)), (1, 2));
    assert_eq!(bench.byte(512), 0, "of a chunk that was used before");
    common::close(bench.disk);
}

#[test]
fn a_chunk_that_another_write_is_on_its_way_to_is_nobody_elses() {
    let mut bench = thin(2);
    bench.held(&[0, BLOCK_BYTES]);
    bench.fail();
    let shared = bench.store_chunk_of_last_write();
    bench.gate().holds = |_| false;
    assert_eq!(bench.write(CHUNK_BYTES, 7), Ok(()));
    assert_ne!(bench.store_chunk_of_last_write(), shared);
    assert_eq!(bench.write(2 * CHUNK_BYTES, 8), Err(DeviceError::NoSpace));
    bench.gate().open();
    assert_eq!(bench.finish(), Ok(()));
    assert_eq!((bench.byte(BLOCK_BYTES), bench.byte(CHUNK_BYTES)), (2, 7));
    common::close(bench.disk);
}

#[test]
fn a_chunk_goes_back_once_when_all_writes_to_it_failed() {
    let mut bench = thin(1);
    bench.held(&[0, BLOCK_BYTES, 2 * BLOCK_BYTES]);
    for _ in 0..3 {
        bench.fail();
    }
    bench.gate().open();
    assert_eq!(bench.write(CHUNK_BYTES, 5), Ok(()));
    assert_eq!(bench.write(0, 6), Err(DeviceError::NoSpace));
    assert_eq!((bench.byte(0), bench.byte(CHUNK_BYTES)), (0, 5));
    common::close(bench.disk);
}

#[test]
fn what_a_failed_write_may_have_left_in_a_chunk_is_flushed_before_its_mapping() {
    for fails in [false, true] {
        let mut bench = thin(2);
        bench.held(&[0, BLOCK_BYTES]);
        if fails {
            bench.fail();
            bench.gate().open();
        } else {
            bench.gate().open();
            assert_eq!(bench.finish(), Ok(()));
        }
        assert_eq!(bench.finish(), Ok(()));
        bench.flush();
        assert_eq!(bench.disk.stats().strict_commits, u64::from(fails));
        common::close(bench.disk);
    }
}

/// Every first write sends its journal unit along.
const EAGER: u8 = 0;

/// A disk whose first write has sent data and journal unit, which the device holds.
fn eager_write_held() -> Bench {
    let mut bench = thin_with(2, options(EAGER));
    bench.gate().holds = |head| head.kind == OpKind::Write && head.len == 512;
    bench.submit(0, 1);
    assert!(bench.disk.poll(Instant::ZERO).is_none());
    assert_eq!(bench.disk.stats().eager_units, 1);
    assert_eq!(bench.gate().held.len(), 2, "both at once");
    bench
}

impl Bench {
    /// Answers one of the writes that are held: that of data, or else that of a unit.
    fn answer(&mut self, is_data: bool, result: Result<(), DeviceError>) {
        let start = self.data_offset;
        let gate = self.gate();
        // The unit is as long as the data.
        let wanted = |op: &Op| (op.offset() >= start) == is_data;
        let mut op = gate
            .held
            .remove(gate.held.iter().position(wanted).expect("held"));
        op.complete(result);
        gate.forged.push(op);
    }
}

#[test]
fn a_mapping_that_recovery_may_find_stands_although_its_data_failed() {
    let mut bench = eager_write_held();
    bench.answer(true, Err(DeviceError::Io));
    bench.gate().open();
    assert_eq!(bench.finish(), Err(DeviceError::Io));
    assert_eq!(bench.write(CHUNK_BYTES, 2), Ok(()));
    assert_eq!(bench.write(2 * CHUNK_BYTES, 3), Err(DeviceError::NoSpace));
    assert_eq!(bench.write(0, 4), Ok(()), "the chunk is its own");
    common::close(bench.disk);
}

#[test]
fn an_eager_unit_that_failed_ends_all_writing() {
    let mut bench = eager_write_held();
    bench.answer(false, Err(DeviceError::Io));
    bench.gate().open();
    assert_eq!(bench.finish(), Err(DeviceError::Poisoned));
    assert!(bench.disk.is_poisoned());
}

#[test]
fn a_flush_waits_for_the_eager_unit_and_the_write_does_not() {
    for unit_fails in [false, true] {
        let mut bench = eager_write_held();
        bench.answer(true, Ok(()));
        assert_eq!(bench.finish(), Ok(()), "its data landed");

        let flush = bench.client.op(OpKind::Flush, OpFlags::NONE, 0, 0, 0);
        assert!(bench.disk.submit(flush).is_ok());
        for turn in 0..100 {
            assert!(bench.disk.poll(Instant::from_micros(turn)).is_none());
        }
        let (answer, expected) = if unit_fails {
            (Err(DeviceError::Io), Err(DeviceError::Poisoned))
        } else {
            (Ok(()), Ok(()))
        };
        bench.answer(false, answer);
        bench.gate().open();
        assert_eq!(bench.finish(), expected);
        assert_eq!(bench.disk.is_poisoned(), unit_fails);
    }
}

#[test]
fn closing_waits_for_an_eager_unit() {
    let mut bench = eager_write_held();
    bench.answer(true, Ok(()));
    assert_eq!(bench.finish(), Ok(()));
    let mut closing = bench.disk.close();
    for turn in 0..100 {
        assert!(closing.poll(Instant::from_micros(turn)).is_pending());
    }
    closing.stores_mut().0.open();
    let is_closed = (100..200).any(|turn| closing.poll(Instant::from_micros(turn)).is_ready());
    assert!(is_closed);
    let closed = closing.finish().map_err(|_| "busy").expect("closed");
    assert_eq!(closed.result, Ok(()));
    common::close(common::open(closed.stores, options(EAGER)));
}

#[test]
fn a_fua_write_waits_for_its_mapping_whoever_sent_it() {
    let mut bench = thin_with(4, options(255));
    bench.fua(0);
    assert_eq!(bench.disk.stats().commits, 1);
    bench.fua(0);
    assert_eq!(bench.disk.stats().commits, 1, "durable already");
    assert_eq!(bench.write(CHUNK_BYTES, 2), Ok(()));
    bench.fua(CHUNK_BYTES + BLOCK_BYTES);
    assert_eq!(bench.disk.stats().commits, 2);
    common::close(bench.disk);
    let mut bench = thin_with(4, options(EAGER));
    assert_eq!(bench.write(0, 1), Ok(()));
    assert_eq!(bench.disk.stats().eager_units, 1);
    assert_eq!(bench.disk.stats().commits, 0);
    bench.fua(0);
    assert_eq!(bench.disk.stats().commits, 1, "a unit that is not flushed");
    common::close(bench.disk);
}

#[test]
fn a_chunk_that_another_write_is_on_its_way_to_gets_no_eager_unit() {
    let mut bench = thin_with(4, options(EAGER));
    assert_eq!(bench.write(0, 1), Ok(()));
    // While a flush is under way nobody is eager.
    bench.gate().holds = |head| head.kind == OpKind::Flush || head.len == 512;
    let flush = bench.client.op(OpKind::Flush, OpFlags::NONE, 0, 0, 0);
    assert!(bench.disk.submit(flush).is_ok());
    assert!(bench.disk.poll(Instant::ZERO).is_none());
    bench.submit(CHUNK_BYTES, 2);
    assert!(bench.disk.poll(Instant::ZERO).is_none());
    let gate = bench.gate();
    let flush = gate.held.remove(0);
    assert_eq!((flush.kind(), gate.held.len()), (OpKind::Flush, 1));
    gate.holds = |head| head.kind == OpKind::Write && head.len == 512;
    assert!(gate.submit(flush).is_ok());
    assert_eq!(bench.finish(), Ok(()));
    bench.submit(CHUNK_BYTES + BLOCK_BYTES, 3);
    assert!(bench.disk.poll(Instant::ZERO).is_none());
    assert_eq!(bench.disk.stats().eager_units, 1);
    bench.gate().open();
    for _ in 0..2 {
        assert_eq!(bench.finish(), Ok(()));
    }
    // The chunk to itself.
    assert_eq!(bench.write(2 * CHUNK_BYTES, 4), Ok(()));
    assert_eq!(bench.disk.stats().eager_units, 1, "others are unsaved");
    bench.flush();
    assert_eq!(bench.write(3 * CHUNK_BYTES, 5), Ok(()));
    assert_eq!(bench.disk.stats().eager_units, 2);
    common::close(bench.disk);
}

fn options(eager_after_flushes: u8) -> OpenOptions {
    OpenOptions {
        eager_after_flushes,
        ..common::options()
    }
}

#[test]
fn a_fua_write_of_a_durable_mapping_needs_one_flush_whoever_else_changes_the_chunk() {
    let setup = Setup {
        table: true,
        base_bytes: common::DISK_BYTES,
        external: false,
        used: false,
    };
    let stores = fvd::stores::WithBase::new(One(Gate::new(setup.devices().0)), setup.base());
    let mut disk = common::open(stores, common::options());
    let mut client = Client::new(4);
    let finish = |disk: &mut Disk<_>| {
        for turn in 0..10_000 {
            if let Some(op) = disk.poll(Instant::from_micros(turn)) {
                assert_eq!(result_of(&op), Ok(()));
                return;
            }
        }
        panic!("a request that never finishes");
    };
    let mut block = |block: u64, flags| {
        let len = BLOCK_BYTES;
        let mut op = client.op(OpKind::Write, flags, block * len, len, 0);
        op.push(common::lend(len as usize, 9).1).expect("room");
        op
    };
    assert!(disk.submit(block(0, OpFlags::FUA)).is_ok());
    finish(&mut disk);
    // A write of another block is on its way, and will change the mapping when it ends.
    disk.stores_mut().parts_mut().0.0.holds = |head| head.kind == OpKind::Write;
    assert!(disk.submit(block(1, OpFlags::NONE)).is_ok());
    assert!(disk.poll(Instant::ZERO).is_none());
    let gate = &mut disk.stores_mut().parts_mut().0.0;
    gate.holds = |_| false;
    gate.heads.clear();
    assert!(disk.submit(block(0, OpFlags::FUA)).is_ok());
    finish(&mut disk);
    let gate = &mut disk.stores_mut().parts_mut().0.0;
    let kinds: Vec<OpKind> = gate.heads.iter().map(|head| head.kind).collect();
    assert_eq!(kinds, [OpKind::Write, OpKind::Flush]);
    gate.open();
    assert_eq!(disk.stats().commits, 1, "the first");
    finish(&mut disk);
    common::close(disk);
}
