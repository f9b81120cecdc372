//! What a disk does without being asked: commits when time or room is up, checkpoints when the
//! journal is half full. And the numbers it keeps, held against what its devices saw.

mod common;

use common::gate::Gate;
use common::{BLOCK_BYTES, CHUNK_BYTES, Client, DISK_BYTES, Rng, Setup, result_of};
use fvd::blocking::Blocking;
use fvd::create::CREATE_ARENA_BYTES;
use fvd::device::{BlockDevice, Counting, Counts, OpFlags, OpKind, Ram, When};
use fvd::format::{CreateParams, plan_layout};
use fvd::open::OpenOptions;
use fvd::stores::{One, Two, WithBase};
use fvd::units::Instant;
use fvd::{Disk, Stats};

const OVERLAY: Setup = Setup {
    table: true,
    base_bytes: DISK_BYTES,
    external: true,
    used: false,
};

const CHUNKS: u64 = DISK_BYTES / CHUNK_BYTES;
/// Units of the journal of every set-up.
const UNITS: u64 = (16 << 10) / 512;

type Apart = Disk<WithBase<Two<Counting<Ram>, Counting<Ram>>, Counting<Ram>>>;

/// A disk, its caller and its clock.
struct Bench {
    disk: Apart,
    client: Client,
    now: u64,
    /// What the disk had counted when it was open.
    opened: Stats,
}

fn bench(options: OpenOptions) -> Bench {
    let (metadata, data) = OVERLAY.devices();
    let stores = Two::new(Counting::new(metadata), Counting::new(data.expect("apart")));
    let stores = WithBase::new(stores, Counting::new(OVERLAY.base()));
    let disk = common::open(stores, options);
    let mut bench = Bench {
        opened: disk.stats(),
        disk,
        client: Client::new(4),
        now: 0,
    };
    bench.take();
    bench
}

impl Bench {
    fn run(&mut self, kind: OpKind, offset: u64, len: u64) {
        let mut op = self.client.op(kind, OpFlags::NONE, offset, len, 0);
        if len != 0 {
            op.push(common::lend(len as usize, 0x22).1).expect("room");
        }
        assert!(self.disk.submit(op).is_ok());
        for _ in 0..10_000 {
            if let Some(mut op) = self.poll() {
                assert_eq!(result_of(&op), Ok(()));
                // The buffers of these tests are never used again.
                while op.pop().is_some() {}
                self.client.put(op);
                return;
            }
        }
        panic!("a request that never finishes");
    }

    fn write(&mut self, offset: u64, len: u64) {
        self.run(OpKind::Write, offset, len);
    }

    fn poll(&mut self) -> Option<fvd::buffer::Op> {
        self.disk.poll(Instant::from_micros(self.now))
    }

    /// Polls until nothing is to be done before time passes.
    fn settle(&mut self) {
        for _ in 0..1000 {
            assert!(self.poll().is_none());
        }
    }

    /// Counts since the last call: metadata, data, base.
    fn take(&mut self) -> [Counts; 3] {
        let (stores, base) = self.disk.stores_mut().parts_mut();
        let (metadata, data) = stores.parts_mut();
        [metadata.take(), data.take(), base.take()]
    }
}

#[test]
fn a_mapping_is_committed_by_itself_when_its_time_is_up() {
    let delay = 1000;
    let mut bench = bench(OpenOptions {
        commit_delay_micros: delay,
        ..common::options()
    });
    assert_eq!(bench.disk.poll_at(), When::Event, "nothing to do, ever");
    bench.now = 77;
    bench.write(0, BLOCK_BYTES);
    bench.settle();
    let due = Instant::from_micros(77 + delay);
    assert_eq!(bench.disk.poll_at(), When::At(due));
    // A later one does not put the first one off.
    bench.now += delay - 1;
    bench.write(CHUNK_BYTES, BLOCK_BYTES);
    bench.settle();
    assert_eq!(bench.take()[0].operations(), 0, "not yet");
    assert_eq!(bench.disk.poll_at(), When::At(due));
    bench.now += 1;
    bench.settle();
    let [metadata, ..] = bench.take();
    assert_eq!((metadata.writes, metadata.flushes), (1, 1));
    assert_eq!(bench.disk.poll_at(), When::Event);
    // And the clock starts again with the next.
    bench.now += 5 * delay;
    bench.write(2 * CHUNK_BYTES, BLOCK_BYTES);
    bench.settle();
    assert_eq!(bench.take()[0].operations(), 0);
    let due = Instant::from_micros(bench.now + delay);
    assert_eq!(bench.disk.poll_at(), When::At(due));
}

#[test]
fn a_commit_starts_when_half_of_the_pending_table_is_taken() {
    let mut bench = bench(OpenOptions {
        pending_max: 16,
        ..common::options()
    });
    for chunk in 0..7 {
        bench.write(chunk * CHUNK_BYTES, BLOCK_BYTES);
        bench.settle();
    }
    assert_eq!(bench.take()[0].operations(), 0);
    bench.write(7 * CHUNK_BYTES, BLOCK_BYTES);
    bench.settle();
    assert_eq!(bench.disk.stats().commits - bench.opened.commits, 1);
    assert_eq!(bench.take()[0].writes, 1, "one unit for eight mappings");
}

#[test]
fn a_checkpoint_starts_when_half_of_the_journal_is_used() {
    let mut bench = bench(OpenOptions {
        // So that every unit is written by a commit.
        eager_after_flushes: 255,
        ..common::options()
    });
    // One unit each.
    for chunk in 0..UNITS / 2 - 1 {
        bench.write(chunk * CHUNK_BYTES, BLOCK_BYTES);
        bench.run(OpKind::Flush, 0, 0);
        bench.settle();
    }
    assert_eq!(bench.disk.stats().checkpoints, bench.opened.checkpoints);
    bench.write(CHUNK_BYTES * UNITS / 2, BLOCK_BYTES);
    bench.run(OpKind::Flush, 0, 0);
    bench.settle();
    assert_eq!(bench.disk.stats().checkpoints, bench.opened.checkpoints + 1);
    let stable_seq = bench.disk.header().core.stable_seq;
    // Its space is free again: half a journal later comes the next one.
    for chunk in UNITS..UNITS + UNITS / 2 {
        bench.write(chunk * CHUNK_BYTES, BLOCK_BYTES);
        bench.run(OpKind::Flush, 0, 0);
        bench.settle();
    }
    assert_eq!(bench.disk.stats().checkpoints, bench.opened.checkpoints + 2);
    let moved = bench.disk.header().core.stable_seq - stable_seq;
    // The unit that filled the half was on its way, so it stays for the next one.
    assert_eq!(moved, UNITS / 2 - 1);
}

#[test]
fn a_checkpoint_that_was_asked_for_writes_what_changed_and_the_header() {
    let mut bench = bench(common::options());
    bench.write(0, BLOCK_BYTES);
    bench.run(OpKind::Flush, 0, 0);
    let before = bench.disk.stats();
    bench.take();
    bench.disk.request_checkpoint();
    bench.settle();
    let [metadata, data, _] = bench.take();
    // A page of the table, one of the bitmap, the checksums; flush; header; flush.
    assert_eq!((metadata.writes, metadata.flushes), (4, 2));
    assert_eq!(data.operations(), 0);
    let after = bench.disk.stats();
    assert_eq!(after.checkpoints, before.checkpoints + 1);
    assert_eq!(after.pages_written, before.pages_written + 2);
    assert_eq!(after.metadata_writes, before.metadata_writes + 4);
    // Nothing changed since: the next one is a header only.
    bench.disk.request_checkpoint();
    bench.settle();
    let [metadata, ..] = bench.take();
    assert_eq!((metadata.writes, metadata.flushes), (1, 1));
}

#[test]
fn the_numbers_are_what_the_devices_saw() {
    let mut bench = bench(common::options());
    let mut rng = Rng(9);
    let mut touched = [false; CHUNKS as usize];
    let writes = 300;
    for _ in 0..writes {
        let sectors = 1 + rng.below(70);
        let start = rng.below(DISK_BYTES / 512 - sectors) * 512;
        let end = start + sectors * 512;
        for chunk in start / CHUNK_BYTES..=(end - 1) / CHUNK_BYTES {
            touched[chunk as usize] = true;
        }
        bench.write(start, end - start);
    }
    bench.settle();
    let [metadata, data, base] = bench.take();
    let (stats, was) = (bench.disk.stats(), bench.opened);
    assert_eq!(stats.requests, writes);
    assert_eq!(stats.fills, base.operations());
    assert_eq!(stats.forwarded + stats.parts, data.writes);
    let chunks = touched.iter().filter(|touched| **touched).count();
    assert_eq!(stats.chunks_reserved, chunks as u64);
    assert_eq!(stats.chunks_zeroed, 0, "the store was fresh");
    // Each commit hides base data, so each flushes data before its units and metadata after them.
    let commits = stats.commits - was.commits;
    assert!(commits > 0);
    assert_eq!(stats.strict_commits - was.strict_commits, commits);
    assert_eq!((data.flushes, metadata.flushes), (commits, commits));
    assert_eq!(stats.journal_writes - was.journal_writes, metadata.writes);
    let units = stats.journal_units - was.journal_units;
    assert_eq!(metadata.write_bytes, units * 512);
    assert_eq!((stats.growths, stats.protocol_errors), (0, 0));
}

#[test]
fn a_request_that_one_run_covers_goes_on_in_its_own_op() {
    let mut bench = bench(common::options());
    bench.write(0, 2 * BLOCK_BYTES);
    bench.run(OpKind::Flush, 0, 0);
    let before = bench.disk.stats();
    bench.run(OpKind::Read, 512, BLOCK_BYTES);
    bench.run(OpKind::Read, CHUNK_BYTES, CHUNK_BYTES);
    bench.write(512, BLOCK_BYTES);
    bench.run(OpKind::Flush, 0, 0);
    let after = bench.disk.stats();
    assert_eq!(after.forwarded, before.forwarded + 4);
    assert_eq!(after.parts, before.parts);
    // From the store into the base: two runs, two parts.
    bench.run(OpKind::Read, BLOCK_BYTES, 2 * BLOCK_BYTES);
    assert_eq!(bench.disk.stats().forwarded, after.forwarded);
    assert_eq!(bench.disk.stats().parts, after.parts + 2);
}

#[test]
fn an_image_without_a_table_has_no_floor_to_raise() {
    let setup = Setup {
        table: false,
        external: false,
        ..OVERLAY
    };
    let stores = WithBase::new(One(setup.devices().0), setup.base());
    let mut disk = common::open(stores, common::options());
    let floor = setup.header().zero_floor_chunk;
    assert_eq!(disk.header().zero_floor_chunk, floor, "after opening");
    disk.request_checkpoint();
    for turn in 0..20 {
        assert!(disk.poll(Instant::from_micros(turn)).is_none());
    }
    assert_eq!(disk.header().zero_floor_chunk, floor);
    let stores = common::close(disk);
    let disk = common::open(stores, common::options());
    assert_eq!(disk.header().zero_floor_chunk, floor);
}

#[test]
fn commits_go_on_beside_a_checkpoint_until_the_last_unit_is_used() {
    let setup = Setup {
        external: false,
        ..OVERLAY
    };
    let stores = WithBase::new(One(Gate::new(setup.devices().0)), setup.base());
    let mut disk = common::open(stores, common::options());
    let mut client = Client::new(2);
    // The header that would free them never gets written.
    disk.stores_mut().parts_mut().0.0.holds =
        |head| head.kind == OpKind::Write && head.offset < 8192;
    let opened = disk.stats().journal_units;
    for turn in 0..=UNITS {
        let mut op = client.op(
            OpKind::Write,
            OpFlags::FUA,
            turn * CHUNK_BYTES,
            BLOCK_BYTES,
            0,
        );
        op.push(common::lend(BLOCK_BYTES as usize, 1).1)
            .expect("room");
        assert!(disk.submit(op).is_ok());
        let done = (0..200).find_map(|turn| disk.poll(Instant::from_micros(turn)));
        assert_eq!(done.is_some(), turn < UNITS, "unit {turn}");
        assert_eq!(disk.stats().journal_units - opened, (turn + 1).min(UNITS));
        if let Some(mut op) = done {
            while op.pop().is_some() {}
            client.put(op);
        }
    }
    disk.stores_mut().parts_mut().0.0.open();
    assert!((0..200).any(|turn| disk.poll(Instant::from_micros(turn)).is_some()));
    common::close(disk);
}

#[test]
fn a_checkpoint_of_more_pages_than_its_memory_holds_is_whole() {
    // 20 pages of table, 1024 chunks each; the memory has 16.
    let pages = 20;
    let setup = Setup {
        base_bytes: 0,
        external: false,
        ..OVERLAY
    };
    let header = plan_layout(&CreateParams {
        chunk_bytes: BLOCK_BYTES,
        virtual_bytes: pages * 1024 * BLOCK_BYTES,
        ..setup.params()
    })
    .expect("legal");
    let device = Ram::new(common::bytes(setup.device_bytes().0, 0));
    let arena = common::memory(CREATE_ARENA_BYTES);
    let created = fvd::blocking::create(device, header, true, arena, common::idle());
    created.result.expect("created");
    let disk = common::open(One(created.device), common::options());
    let memory = common::memory(64 << 10);
    let mut disk = Blocking::new(disk, memory, common::idle()).unwrap_or_else(|_| panic!("room"));
    for page in 0..pages {
        disk.write_at(page * 1024 * BLOCK_BYTES, &[page as u8 + 1; 512])
            .expect("written");
    }
    disk.flush().expect("durable");
    let (disk, _) = disk.into_parts();
    let before = disk.stats();
    assert_eq!(before.pages_written, 0);
    // Whose checksums are looked at when it is opened again.
    let stores = common::close(disk);
    let disk = common::open(stores, common::options());
    let mut disk = Blocking::new(disk, common::memory(64 << 10), common::idle())
        .unwrap_or_else(|_| panic!("room"));
    for page in 0..pages {
        let mut byte = [0; 512];
        disk.read_at(page * 1024 * BLOCK_BYTES, &mut byte)
            .expect("read");
        assert_eq!(byte, [page as u8 + 1; 512]);
    }
}

#[test]
fn the_floor_is_raised_while_a_quarter_of_its_step_is_left() {
    let mut bench = bench(OpenOptions {
        floor_step_chunks: 16,
        ..common::options()
    });
    let (mut floor, mut commits) = (16, 0);
    for used in 1..=CHUNKS {
        bench.write((used - 1) * CHUNK_BYTES, BLOCK_BYTES);
        bench.settle();
        if floor - used < 4 {
            floor = (used + 16).min(CHUNKS + common::SPARE_CHUNKS);
            commits += 1;
        }
        let stats = bench.disk.stats();
        assert_eq!(stats.commits - bench.opened.commits, commits, "{used}");
    }
}
