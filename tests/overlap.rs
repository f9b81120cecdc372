//! Who waits for whom: plain writes for none but exclusive ones, those for everybody, nobody for ever.

mod common;

use common::gate::Gate;
use common::{BLOCK_BYTES, CHUNK_BYTES, Client, DISK_BYTES, Setup, result_of};
use fvd::buffer::Op;
use fvd::device::{BlockDevice, OpFlags, OpKind};
use fvd::stores::{One, WithBase};
use fvd::units::Instant;

const SETUP: Setup = Setup {
    table: true,
    base_bytes: DISK_BYTES,
    external: false,
    used: false,
};

struct Bench {
    disk: fvd::Disk<WithBase<One<Gate>, Gate>>,
    client: Client,
    done: usize,
}

/// A disk with chunks 0, 1 and 2 in the store, the rest in the base.
fn bench() -> Bench {
    let store = Gate::new(SETUP.devices().0.with_write_zeroes());
    let stores = WithBase::new(One(store), Gate::new(SETUP.base()));
    let mut bench = Bench {
        disk: common::open(stores, common::options()),
        client: Client::new(40),
        done: 0,
    };
    bench.submit(OpKind::Write, 0, 3 * CHUNK_BYTES);
    bench.finish();
    bench
}

impl Bench {
    fn store(&mut self) -> &mut Gate {
        &mut self.disk.stores_mut().parts_mut().0.0
    }

    fn base(&mut self) -> &mut Gate {
        self.disk.stores_mut().parts_mut().1
    }

    /// Nothing that reaches a device comes back until [`Bench::finish`].
    fn hold(&mut self) {
        self.store().holds = |_| true;
        self.base().holds = |_| true;
    }

    fn submit(&mut self, kind: OpKind, offset: u64, len: u64) {
        let mut op = self.client.op(kind, OpFlags::NONE, offset, len, 0);
        if kind == OpKind::Write {
            op.push(common::lend(len as usize, 0x11).1).expect("room");
        }
        assert!(self.disk.submit(op).is_ok());
    }

    fn poll(&mut self) {
        for turn in 0..20 {
            if let Some(op) = self.disk.poll(Instant::from_micros(turn)) {
                self.end(op);
            }
        }
    }

    fn end(&mut self, mut op: Op) {
        assert_eq!(result_of(&op), Ok(()));
        while op.pop().is_some() {}
        self.client.put(op);
        self.done += 1;
    }

    /// How many operations wait on the store and on the base after this request.
    fn after(&mut self, kind: OpKind, offset: u64, len: u64) -> (usize, usize) {
        self.submit(kind, offset, len);
        self.poll();
        (self.store().held.len(), self.base().held.len())
    }

    fn finish(&mut self) {
        self.store().open();
        self.base().open();
        for turn in 0..10_000 {
            if self.disk.in_flight() == 0 {
                break;
            }
            if let Some(op) = self.disk.poll(Instant::from_micros(turn)) {
                self.end(op);
            }
        }
        assert_eq!(self.disk.in_flight(), 0, "requests that never finish");
        self.poll();
    }
}

use OpKind::{Write, WriteZeroes};

#[test]
fn plain_writes_of_the_same_bytes_wait_for_none() {
    let mut bench = bench();
    bench.hold();
    assert_eq!(bench.after(Write, 0, 512), (1, 0));
    assert_eq!(bench.after(Write, 0, 512), (2, 0));
    bench.finish();
    common::close(bench.disk);
}

#[test]
fn a_plain_write_waits_for_an_exclusive_one_before_it() {
    let mut bench = bench();
    bench.hold();
    assert_eq!(bench.after(WriteZeroes, 0, BLOCK_BYTES), (1, 0));
    // Another block, but zeros guard their chunk.
    assert_eq!(bench.after(Write, 3 * BLOCK_BYTES, 512), (1, 0));
    assert_eq!(bench.after(Write, CHUNK_BYTES, 512), (2, 0), "elsewhere");
    bench.finish();
    assert_eq!(bench.done, 4);
    common::close(bench.disk);
}

#[test]
fn an_exclusive_write_waits_for_a_plain_one_before_it() {
    let mut bench = bench();
    bench.hold();
    assert_eq!(bench.after(Write, 3 * BLOCK_BYTES, 512), (1, 0));
    assert_eq!(bench.after(WriteZeroes, 0, BLOCK_BYTES), (1, 0));
    assert_eq!(bench.after(WriteZeroes, CHUNK_BYTES, 512), (2, 0));
    bench.finish();
    common::close(bench.disk);
}

#[test]
fn guards_that_only_touch_are_no_overlap() {
    let mut bench = bench();
    bench.hold();
    assert_eq!(bench.after(WriteZeroes, CHUNK_BYTES, BLOCK_BYTES), (1, 0));
    assert_eq!(bench.after(Write, CHUNK_BYTES - 512, 512), (2, 0));
    assert_eq!(bench.after(Write, 2 * CHUNK_BYTES, 512), (3, 0));
    bench.finish();
    common::close(bench.disk);
}

#[test]
fn nobody_overtakes_a_request_that_waits() {
    let mut bench = bench();
    bench.hold();
    let (chunk, len) = (5 * CHUNK_BYTES, BLOCK_BYTES - 512);
    // The rest of a block, then zeros of another in that chunk, then the rest of a third.
    assert_eq!(bench.after(Write, chunk + 512, len), (0, 1));
    let [second, third] = [1, 3].map(|block| chunk + block * BLOCK_BYTES);
    assert_eq!(bench.after(WriteZeroes, second, BLOCK_BYTES), (0, 1));
    assert_eq!(bench.after(Write, third + 512, len), (0, 1));
    bench.finish();
    common::close(bench.disk);
}

#[test]
fn when_the_last_exclusive_one_has_ended_plain_writes_go_straight_to_the_store() {
    let mut bench = bench();
    for round in 0..3 {
        let sent = bench.store().heads.len();
        bench.submit(Write, 512, 512);
        assert_eq!(bench.store().heads.len(), sent + 1, "round {round}");
        bench.finish();
        bench.submit(WriteZeroes, 0, BLOCK_BYTES);
        bench.finish();
        // Fills.
        bench.submit(Write, (10 + round) * CHUNK_BYTES + 512, 512);
        bench.finish();
    }
    common::close(bench.disk);
}
