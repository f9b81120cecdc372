//! Many mappings: checkpoints of many pages, commits of many units. What is written, where, and that
//! all of it is found again.

mod common;

use common::{Rng, base_byte};
use fvd::Disk;
use fvd::blocking::{self, Blocking};
use fvd::create::CREATE_ARENA_BYTES;
use fvd::device::{Counting, Ram};
use fvd::format::{
    BaseParams, CreateParams, Header, ImageId, JournalChoice, StoreChoice, plan_layout,
};
use fvd::open::OpenOptions;
use fvd::stores::{Two, WithBase};
use fvd::units::Instant;

/// The smallest there is, so that many pages need no large disk: blocks of one sector, one per chunk.
const BLOCK: u64 = 512;
const CHUNK: u64 = BLOCK;
const CHUNKS_PER_PAGE: u64 = 1024;
/// 40 pages of table; 2 of bitmap, the first for 32,768 chunks.
const CHUNKS: u64 = 40 * CHUNKS_PER_PAGE;
const DISK: u64 = CHUNKS * CHUNK;
const STORE: u64 = 4096 * CHUNK;
const UNITS: u64 = 32;

/// The zero floor stays where opening puts it, so that commits carry mappings only.
fn options() -> OpenOptions {
    OpenOptions {
        floor_step_chunks: 4096,
        ..common::options()
    }
}

type Stores = WithBase<Two<Counting<Ram>, Counting<Ram>>, Ram>;

fn header() -> Header {
    let base = BaseParams {
        name: Default::default(),
        format: Default::default(),
        bytes: DISK,
        id: [0; 16],
        generation: 0,
    };
    plan_layout(&CreateParams {
        block_bytes: BLOCK,
        chunk_bytes: CHUNK,
        base: Some(base),
        external_data: true,
        journal: JournalChoice::Bytes(UNITS * 512),
        store: StoreChoice::FixedZeroed {
            device_bytes: STORE,
        },
        ..CreateParams::new(DISK, ImageId([7; 16]))
    })
    .expect("legal")
}

fn stores() -> Stores {
    let header = header();
    let metadata = Ram::new(common::bytes(header.metadata_bytes().total() as usize, 0));
    let arena = common::memory(CREATE_ARENA_BYTES);
    let created = blocking::create(metadata, header, true, arena, common::idle());
    created.result.expect("created");
    let data = Ram::new(common::bytes(STORE as usize, 0));
    let base = Ram::new(common::base_bytes(DISK as usize)).read_only();
    WithBase::new(
        Two::new(Counting::new(created.device), Counting::new(data)),
        base,
    )
}

/// Writes one block in each of these chunks, closes, and returns the devices and what the close and
/// its one checkpoint wrote: pages, operations.
fn write_and_close(stores: Stores, chunks: &[u64], value: u8) -> (Stores, u64, u64) {
    let disk = common::open(stores, options());
    let mut disk = Blocking::new(disk, common::memory(64 << 10), common::idle())
        .unwrap_or_else(|_| panic!("room"));
    for chunk in chunks {
        disk.write_at(chunk * CHUNK, &[value; CHUNK as usize])
            .expect("written");
    }
    disk.flush().expect("durable");
    let (disk, _) = disk.into_parts();
    let before = disk.stats();
    let closed = blocking::close(disk, common::idle(), drop);
    closed.result.expect("a clean close");
    (
        closed.stores,
        closed.stats.pages_written - before.pages_written,
        closed.stats.metadata_writes - before.metadata_writes,
    )
}

/// Opens again, which checks every page's checksum, and reads what was written and what lies around.
fn check(stores: Stores, chunks: &[u64], value: u8) -> Stores {
    let disk = common::open(stores, options());
    let mut disk = Blocking::new(disk, common::memory(64 << 10), common::idle())
        .unwrap_or_else(|_| panic!("room"));
    let mut rng = Rng(5);
    let others = (0..50).map(|_| rng.below(CHUNKS));
    for chunk in chunks.iter().copied().chain(others) {
        let mut got = [0; BLOCK as usize];
        disk.read_at(chunk * CHUNK, &mut got).expect("reads");
        for (index, byte) in got.iter().enumerate() {
            let written = chunks.contains(&chunk);
            let in_base = base_byte(chunk as usize * CHUNK as usize + index);
            let wanted = if written { value } else { in_base };
            assert_eq!(*byte, wanted, "byte {index} of chunk {chunk}");
        }
    }
    common::close(disk.into_parts().0)
}

/// Power fails: the next open finds in the journal what was flushed.
fn crash(disk: Disk<Stores>) -> Stores {
    let mut closing = disk.abandon();
    while closing.poll(Instant::ZERO).is_pending() {}
    closing
        .finish()
        .unwrap_or_else(|_| panic!("at rest"))
        .stores
}

#[test]
fn adjacent_pages_go_out_together_as_far_as_the_memory_holds_them() {
    // One chunk on each of 20 pages from the third on, then three pages apart from each other.
    let run = (2..22).map(|page| page * CHUNKS_PER_PAGE + page);
    let apart = [25, 27, 39].map(|page| page * CHUNKS_PER_PAGE);
    let chunks: Vec<u64> = run.chain(apart).collect();
    let (stores, pages, writes) = write_and_close(stores(), &chunks, 7);
    // Both pages of bitmap changed too.
    assert_eq!(pages, 23 + 2);
    // 16 pages and 4 of the run, 3 alone, the bitmap at once; checksums; two headers.
    assert_eq!(writes, 2 + 3 + 1 + 1 + 2);
    check(stores, &chunks, 7);
}

#[test]
fn a_page_at_either_end_of_its_region_is_in_its_place() {
    for chunk in [0, CHUNKS_PER_PAGE - 1, CHUNKS - 1] {
        let (stores, pages, writes) = write_and_close(stores(), &[chunk], 9);
        assert_eq!((pages, writes), (2, 2 + 1 + 2));
        check(stores, &[chunk], 9);
    }
}

#[test]
fn replayed_mappings_reach_their_pages_too() {
    let chunks: Vec<u64> = (0..40).map(|page| page * CHUNKS_PER_PAGE + 5).collect();
    let disk = common::open(stores(), options());
    let mut disk = Blocking::new(disk, common::memory(64 << 10), common::idle())
        .unwrap_or_else(|_| panic!("room"));
    for chunk in &chunks {
        disk.write_at(chunk * CHUNK, &[3; BLOCK as usize])
            .expect("written");
    }
    disk.flush().expect("durable");
    // Once more right after recovery, which has freed the journal: the pages have it all.
    let recovered = common::open(crash(disk.into_parts().0), options());
    assert_eq!(recovered.stats().pages_written, 40 + 2);
    let stores = check(crash(recovered), &chunks, 3);
    check(stores, &chunks, 3);
}

fn new_chunk(rng: &mut Rng, chunks: &[u64]) -> u64 {
    let random = std::iter::repeat_with(|| rng.below(CHUNKS));
    random
        .into_iter()
        .find(|chunk| !chunks.contains(chunk))
        .expect("there is always one more")
}

#[test]
fn commits_of_several_units_are_found_again_wherever_the_journal_ends() {
    let mut rng = Rng(8);
    for commits in [1, 11, 25] {
        let disk = common::open(stores(), options());
        let mut disk = Blocking::new(disk, common::memory(64 << 10), common::idle())
            .unwrap_or_else(|_| panic!("room"));
        let mut chunks = Vec::new();
        let before = disk.device().stats();
        for _ in 0..commits {
            // Three units: two of 40 records and one of the rest.
            for _ in 0..100 {
                let chunk = new_chunk(&mut rng, &chunks);
                disk.write_at(chunk * CHUNK, &[4; CHUNK as usize])
                    .expect("written");
                chunks.push(chunk);
            }
            disk.flush().expect("durable");
        }
        let stats = disk.device().stats();
        assert_eq!(stats.journal_units - before.journal_units, 3 * commits);
        let around = stats.journal_writes - before.journal_writes - commits;
        assert!(
            around <= 3 * commits / UNITS + 1,
            "two writes around the end only"
        );
        let stores = check(crash(disk.into_parts().0), &chunks, 4);
        check(stores, &chunks, 4);
    }
}

#[test]
fn a_commit_takes_at_most_half_of_the_journal() {
    let options = OpenOptions {
        pending_max: 8192,
        ..options()
    };
    let disk = common::open(stores(), options);
    let mut disk = Blocking::new(disk, common::memory(64 << 10), common::idle())
        .unwrap_or_else(|_| panic!("room"));
    let before = disk.device().stats();
    let chunks: Vec<u64> = (0..1000).collect();
    for chunk in &chunks {
        disk.write_at(chunk * CHUNK, &[6; CHUNK as usize])
            .expect("written");
    }
    disk.flush().expect("durable");
    let stats = disk.device().stats();
    // 638 mappings can be on their way (16 units of 40, two for a store record), and half of that
    // starts a commit.
    let commits = stats.commits - before.commits;
    assert_eq!(commits, 1000_u64.div_ceil(319));
    let units = stats.journal_units - before.journal_units;
    assert!(units <= commits * 8 + 1, "{units} units");
    let stores = check(crash(disk.into_parts().0), &chunks, 6);
    check(stores, &chunks, 6);
}
