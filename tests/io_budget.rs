//! Device operations per guest operation: exact, and the first figure that the project leads with.

mod common;

use common::{BLOCK_BYTES, CHUNK_BYTES, Client, DISK_BYTES, Rng, Setup, result_of};
use fvd::Disk;
use fvd::device::{BlockDevice, Counting, Counts, OpFlags, OpKind, Ram};
use fvd::open::OpenOptions;
use fvd::stores::{One, Two, WithBase};
use fvd::units::Instant;

/// The zero floor moves in steps of at least 64 chunks outside tests; so it does here.
fn options() -> OpenOptions {
    OpenOptions {
        floor_step_chunks: 64,
        ..common::options()
    }
}

type Apart = Two<Counting<Ram>, Counting<Ram>>;

const PLAIN: Setup = Setup {
    table: false,
    base_bytes: 0,
    external: true,
    used: false,
};
const TABLE: Setup = Setup {
    table: true,
    base_bytes: 0,
    external: true,
    used: false,
};
const TABLE_BASE: Setup = Setup {
    table: true,
    base_bytes: DISK_BYTES,
    external: true,
    used: false,
};
const RAW_BASE: Setup = Setup {
    table: false,
    base_bytes: DISK_BYTES,
    external: true,
    used: false,
};

fn open_apart(setup: &Setup) -> Disk<Apart> {
    let (metadata, data) = setup.devices();
    let stores = Two::new(Counting::new(metadata), Counting::new(data.expect("apart")));
    let mut disk = common::open(stores, options());
    take(&mut disk);
    disk
}

fn open_with_base(setup: &Setup) -> Disk<WithBase<Apart, Counting<Ram>>> {
    let (metadata, data) = setup.devices();
    let stores = Two::new(Counting::new(metadata), Counting::new(data.expect("apart")));
    let stores = WithBase::new(stores, Counting::new(setup.base()));
    let mut disk = common::open(stores, options());
    take_with_base(&mut disk);
    disk
}

/// Counts since the last call: metadata, data.
fn take(disk: &mut Disk<Apart>) -> (Counts, Counts) {
    let (metadata, data) = disk.stores_mut().parts_mut();
    (metadata.take(), data.take())
}

fn take_with_base(disk: &mut Disk<WithBase<Apart, Counting<Ram>>>) -> (Counts, Counts, Counts) {
    let (stores, base) = disk.stores_mut().parts_mut();
    let (metadata, data) = stores.parts_mut();
    (metadata.take(), data.take(), base.take())
}

struct Driver {
    client: Client,
}

impl Driver {
    fn new() -> Driver {
        Driver {
            client: Client::new(64),
        }
    }

    fn start(
        &mut self,
        disk: &mut (impl BlockDevice + ?Sized),
        kind: OpKind,
        offset: u64,
        len: u64,
    ) {
        self.start_with(disk, kind, OpFlags::NONE, offset, len);
    }

    fn start_with(
        &mut self,
        disk: &mut (impl BlockDevice + ?Sized),
        kind: OpKind,
        flags: OpFlags,
        offset: u64,
        len: u64,
    ) {
        let mut op = self.client.op(kind, flags, offset, len, 0);
        if matches!(kind, OpKind::Read | OpKind::Write) {
            let (_, lease) = common::lend(len as usize, (offset / 512) as u8 | 1);
            op.push(lease).expect("room");
        }
        assert!(disk.submit(op).is_ok());
    }

    fn finish(&mut self, disk: &mut (impl BlockDevice + ?Sized), count: usize) {
        let mut left = count;
        for turn in 0..100_000 {
            if left == 0 {
                return;
            }
            if let Some(mut op) = disk.poll(Instant::from_micros(turn)) {
                assert_eq!(result_of(&op), Ok(()));
                // The buffers of these tests are never used again.
                while let Some(lease) = op.pop() {
                    drop(lease);
                }
                self.client.put(op);
                left -= 1;
            }
        }
        panic!("{left} requests never finish");
    }

    fn one(&mut self, disk: &mut (impl BlockDevice + ?Sized), kind: OpKind, offset: u64, len: u64) {
        self.start(disk, kind, offset, len);
        self.finish(disk, 1);
    }
}

#[test]
fn raw_like_is_one_operation_per_request_and_no_metadata() {
    let mut disk = open_apart(&PLAIN);
    let mut driver = Driver::new();
    let mut rng = Rng(1);
    let mut wanted = Counts::default();
    for _ in 0..2000 {
        let sectors = 1 + rng.below(64);
        let offset = rng.below(DISK_BYTES / 512 - sectors) * 512;
        let kind = [OpKind::Read, OpKind::Write, OpKind::Flush][rng.below(3) as usize];
        let (offset, len) = if kind == OpKind::Flush {
            (0, 0)
        } else {
            (offset, sectors * 512)
        };
        driver.one(&mut disk, kind, offset, len);
        match kind {
            OpKind::Read => wanted.reads += 1,
            OpKind::Write => wanted.writes += 1,
            _ => wanted.flushes += 1,
        }
    }
    let (metadata, data) = take(&mut disk);
    assert_eq!(
        metadata.operations(),
        0,
        "zero metadata operations between open and close"
    );
    assert_eq!(
        (data.reads, data.writes, data.flushes),
        (wanted.reads, wanted.writes, wanted.flushes)
    );
    assert_eq!(data.operations(), 2000);
}

#[test]
fn raw_like_lays_bytes_out_like_a_raw_disk() {
    let mut disk = open_apart(&PLAIN);
    let mut raw = Ram::new(common::bytes(DISK_BYTES as usize, 0));
    let mut driver = Driver::new();
    let mut rng = Rng(2);
    for _ in 0..500 {
        let sectors = 1 + rng.below(64);
        let offset = rng.below(DISK_BYTES / 512 - sectors) * 512;
        driver.one(&mut disk, OpKind::Write, offset, sectors * 512);
        driver.one(&mut raw, OpKind::Write, offset, sectors * 512);
    }
    let (_, data) = common::close(disk).into_parts();
    let data = data
        .into_inner()
        .into_memory()
        .unwrap_or_else(|_| panic!("idle"));
    let raw = raw.into_memory().unwrap_or_else(|_| panic!("idle"));
    assert!(data[..DISK_BYTES as usize] == raw[..]);
}

#[test]
fn mapped_requests_are_one_operation_and_metadata_is_never_read() {
    let mut disk = open_apart(&TABLE);
    let mut driver = Driver::new();
    for chunk in 0..DISK_BYTES / CHUNK_BYTES {
        driver.one(&mut disk, OpKind::Write, chunk * CHUNK_BYTES, CHUNK_BYTES);
    }
    driver.one(&mut disk, OpKind::Flush, 0, 0);
    let (metadata, _) = take(&mut disk);
    assert_eq!(metadata.reads, 0);
    let mut rng = Rng(3);
    for turn in 0..1000 {
        // Chunks were written in order, so they are neighbours: even long runs are one operation.
        let sectors = 1 + rng.below(64);
        let offset = rng.below(DISK_BYTES / 512 - sectors) * 512;
        let kind = if turn % 2 == 0 {
            OpKind::Read
        } else {
            OpKind::Write
        };
        driver.one(&mut disk, kind, offset, sectors * 512);
    }
    let (metadata, data) = take(&mut disk);
    assert_eq!(metadata.operations(), 0);
    assert_eq!(
        (data.reads, data.writes, data.operations()),
        (500, 500, 1000)
    );
}

#[test]
fn concurrent_first_writes_and_a_flush_share_one_journal_write() {
    for setup in [TABLE, TABLE_BASE] {
        let mut disk = open_with_base_or_not(&setup);
        let mut driver = Driver::new();
        for chunk in 0..32 {
            driver.start(&mut *disk, OpKind::Write, chunk * CHUNK_BYTES, BLOCK_BYTES);
        }
        driver.finish(&mut *disk, 32);
        driver.one(&mut *disk, OpKind::Flush, 0, 0);
        let (metadata, data) = disk.counts();
        assert_eq!(metadata.writes, 1, "one journal write for 32 mappings");
        assert_eq!(metadata.write_bytes, 512);
        assert_eq!(metadata.flushes, 1);
        assert_eq!((data.writes, data.flushes), (32, 1));
    }
}

/// A thin disk on one device, nothing counted yet.
fn on_one_device(options: OpenOptions) -> Disk<One<Counting<Ram>>> {
    let setup = Setup {
        external: false,
        ..TABLE
    };
    let (device, _) = setup.devices();
    let mut disk = common::open(One(Counting::new(device)), options);
    disk.stores_mut().0.take();
    disk
}

#[test]
fn a_first_write_and_a_flush_cost_two_writes_and_one_sync() {
    let mut disk = on_one_device(options());
    let mut driver = Driver::new();
    for chunk in 0..8 {
        driver.one(&mut disk, OpKind::Write, chunk * CHUNK_BYTES, 4096);
        driver.one(&mut disk, OpKind::Flush, 0, 0);
        let counts = disk.stores_mut().0.take();
        assert_eq!((counts.writes, counts.write_bytes), (2, 4096 + 512));
        assert_eq!((counts.flushes, counts.reads), (1, 0));
        // Again to the same place: nothing extra.
        driver.one(&mut disk, OpKind::Write, chunk * CHUNK_BYTES, 4096);
        driver.one(&mut disk, OpKind::Flush, 0, 0);
        let counts = disk.stores_mut().0.take();
        assert_eq!(
            (counts.writes, counts.write_bytes, counts.flushes),
            (1, 4096, 1)
        );
    }
}

/// What a first write costs before and with its flush: writes, bytes, flushes.
fn write_then_flush(
    disk: &mut Disk<One<Counting<Ram>>>,
    driver: &mut Driver,
    chunk: u64,
) -> [(u64, u64, u64); 2] {
    [OpKind::Write, OpKind::Flush].map(|kind| {
        let (offset, len) = match kind {
            OpKind::Write => (chunk * CHUNK_BYTES, 4096),
            _ => (0, 0),
        };
        driver.one(disk, kind, offset, len);
        let counts = disk.stores_mut().0.take();
        (counts.writes, counts.write_bytes, counts.flushes)
    })
}

#[test]
fn after_two_single_writes_the_unit_goes_out_with_the_data() {
    const UNIT: u64 = 512;
    let mut disk = on_one_device(options());
    let mut driver = Driver::new();
    let ordinary = [(1, 4096, 0), (1, UNIT, 1)];
    let eager = [(2, 4096 + UNIT, 0), (0, 0, 1)];
    for (chunk, wanted) in [ordinary, ordinary, eager, eager].into_iter().enumerate() {
        let found = write_then_flush(&mut disk, &mut driver, chunk as u64);
        assert_eq!(found, wanted, "chunk {chunk}");
    }
    // Two new chunks before a flush: the second waits for it, and the habit is given up.
    driver.one(&mut disk, OpKind::Write, 4 * CHUNK_BYTES, 4096);
    assert_eq!(disk.stores_mut().0.take().writes, 2);
    let found = write_then_flush(&mut disk, &mut driver, 5);
    assert_eq!(found, ordinary);
    let found = write_then_flush(&mut disk, &mut driver, 6);
    assert_eq!(found, ordinary);
    assert_eq!(disk.stats().eager_units, 3);
}

#[test]
fn a_flush_after_an_eager_write_on_two_devices_flushes_both_once() {
    let (metadata, data) = TABLE.devices();
    let stores = Two::new(Counting::new(metadata), Counting::new(data.expect("apart")));
    let options = OpenOptions {
        eager_after_flushes: 0,
        ..options()
    };
    let mut disk = common::open(stores, options);
    take(&mut disk);
    let mut driver = Driver::new();
    driver.one(&mut disk, OpKind::Write, 0, 4096);
    let (metadata, data) = take(&mut disk);
    assert_eq!((metadata.writes, metadata.operations()), (1, 1));
    assert_eq!((data.writes, data.operations()), (1, 1));
    driver.one(&mut disk, OpKind::Flush, 0, 0);
    let (metadata, data) = take(&mut disk);
    assert_eq!((metadata.flushes, metadata.operations()), (1, 1));
    assert_eq!((data.flushes, data.operations()), (1, 1));
}

#[test]
fn an_eager_fua_write_is_two_writes_and_one_flush() {
    let options = OpenOptions {
        eager_after_flushes: 0,
        ..options()
    };
    let mut disk = on_one_device(options);
    let mut driver = Driver::new();
    driver.start_with(&mut disk, OpKind::Write, OpFlags::FUA, 0, 4096);
    driver.finish(&mut disk, 1);
    let counts = disk.stores_mut().0.take();
    assert_eq!((counts.writes, counts.flushes), (2, 1));
}

#[test]
fn what_eager_commit_must_not_be_used_for_waits_for_the_flush() {
    let eager = OpenOptions {
        eager_after_flushes: 0,
        ..options()
    };
    // Over a base the new mapping hides data; on a used store the chunk does not read zeros.
    let over_base = Setup {
        external: false,
        ..TABLE_BASE
    };
    let on_used = Setup {
        external: false,
        used: true,
        ..TABLE
    };
    for setup in [over_base, on_used] {
        let stores = WithBase::new(One(Counting::new(setup.devices().0)), setup.base());
        let mut disk = common::open(stores, eager);
        let mut driver = Driver::new();
        driver.one(&mut disk, OpKind::Write, 0, BLOCK_BYTES);
        assert_eq!(disk.stats().journal_units, 0);
        driver.one(&mut disk, OpKind::Flush, 0, 0);
        assert_eq!(
            (disk.stats().journal_units, disk.stats().eager_units),
            (1, 0)
        );
    }
}

#[test]
fn a_flush_that_exposes_base_or_reused_space_costs_two_syncs() {
    let setup = Setup {
        external: false,
        ..TABLE_BASE
    };
    let (metadata, _) = setup.devices();
    let stores = WithBase::new(One(Counting::new(metadata)), setup.base());
    let mut disk = common::open(stores, options());
    disk.stores_mut().parts_mut().0.0.take();
    let mut driver = Driver::new();
    driver.one(&mut disk, OpKind::Write, 0, BLOCK_BYTES);
    driver.one(&mut disk, OpKind::Flush, 0, 0);
    let counts = disk.stores_mut().parts_mut().0.0.take();
    assert_eq!(
        (counts.writes, counts.write_bytes, counts.flushes),
        (2, BLOCK_BYTES + 512, 2)
    );
}

#[test]
fn a_flush_with_nothing_pending_is_one_device_flush() {
    let mut disk = open_apart(&TABLE);
    let mut driver = Driver::new();
    for _ in 0..10 {
        driver.one(&mut disk, OpKind::Flush, 0, 0);
    }
    let (metadata, data) = take(&mut disk);
    assert_eq!(
        (metadata.operations(), data.operations(), data.flushes),
        (0, 10, 10)
    );
}

#[test]
fn a_partial_block_over_the_base_is_two_reads_and_one_vectored_write() {
    let mut disk = open_with_base(&RAW_BASE);
    let mut driver = Driver::new();
    driver.one(&mut disk, OpKind::Write, 5 * BLOCK_BYTES + 1024, 512);
    let (metadata, data, base) = take_with_base(&mut disk);
    assert_eq!((base.reads, base.read_bytes), (2, BLOCK_BYTES - 512));
    assert_eq!((data.writes, data.write_bytes), (1, BLOCK_BYTES));
    assert_eq!(
        metadata.operations(),
        0,
        "no metadata before a flush needs it"
    );
    // The second write to the block is plain.
    driver.one(&mut disk, OpKind::Write, 5 * BLOCK_BYTES, 512);
    let (_, data, base) = take_with_base(&mut disk);
    assert_eq!(
        (base.operations(), data.writes, data.write_bytes),
        (0, 1, 512)
    );
}

#[test]
fn a_fua_write_to_a_mapped_chunk_is_a_write_and_a_flush() {
    let mut disk = open_apart(&TABLE);
    let mut driver = Driver::new();
    driver.one(&mut disk, OpKind::Write, 0, 4096);
    driver.one(&mut disk, OpKind::Flush, 0, 0);
    take(&mut disk);
    driver.start_with(&mut disk, OpKind::Write, OpFlags::FUA, 0, 4096);
    driver.finish(&mut disk, 1);
    let (metadata, data) = take(&mut disk);
    assert_eq!(
        (metadata.operations(), data.writes, data.flushes),
        (0, 1, 1)
    );
}

/// A disk with or without base, to run one test on both.
trait Counted: BlockDevice {
    fn counts(&mut self) -> (Counts, Counts);
}

impl Counted for Disk<Apart> {
    fn counts(&mut self) -> (Counts, Counts) {
        take(self)
    }
}

impl Counted for Disk<WithBase<Apart, Counting<Ram>>> {
    fn counts(&mut self) -> (Counts, Counts) {
        let (metadata, data, _) = take_with_base(self);
        (metadata, data)
    }
}

fn open_with_base_or_not(setup: &Setup) -> Box<dyn Counted> {
    if setup.base_bytes == 0 {
        Box::new(open_apart(setup))
    } else {
        Box::new(open_with_base(setup))
    }
}
