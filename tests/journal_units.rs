//! What journal units say on the disk, and when a first write sends its own.

mod common;

use common::{BLOCK_BYTES, CHUNK_BYTES, Setup};
use fvd::Disk;
use fvd::blocking::{self, Blocking};
use fvd::create::CREATE_ARENA_BYTES;
use fvd::device::Ram;
use fvd::format::journal::{Record, UnitFlags, parse_unit};
use fvd::format::{CreateParams, JournalChoice, StoreChoice, plan_layout};
use fvd::open::OpenOptions;
use fvd::stores::{One, Stores, Two, WithBase};
use fvd::units::Instant;

const UNIT: usize = 512;

fn options(eager_after_flushes: u8) -> OpenOptions {
    OpenOptions {
        eager_after_flushes,
        ..common::options()
    }
}

/// Writes the first block of each of these chunks, flushing where the list says so.
fn write<S: Stores>(stores: S, options: OpenOptions, chunks: &[(u64, bool)]) -> Disk<S> {
    let disk = common::open(stores, options);
    let mut disk = Blocking::new(disk, common::memory(64 << 10), common::idle())
        .unwrap_or_else(|_| panic!("room"));
    let before = disk.device().stats();
    for (chunk, flush) in chunks {
        disk.write_at(chunk * CHUNK_BYTES, &[3; BLOCK_BYTES as usize])
            .expect("written");
        if *flush {
            disk.flush().expect("durable");
        }
    }
    let (disk, _) = disk.into_parts();
    let stats = disk.stats();
    assert_eq!(stats.protocol_errors, 0);
    // One unit per write here: no commit needs two.
    let units = stats.journal_units - before.journal_units;
    assert_eq!(stats.journal_writes - before.journal_writes, units);
    let commits = stats.commits - before.commits;
    assert!(units <= commits + stats.eager_units);
    disk
}

/// A unit of a session: its flags and its records.
type Unit = (UnitFlags, Vec<Record>);

/// The units of a session, which is abandoned, in the order of their numbers.
fn units_of<S: Stores>(disk: Disk<S>, metadata: impl FnOnce(S) -> Ram) -> Vec<Unit> {
    let header = *disk.header();
    let mut closing = disk.abandon();
    while closing.poll(Instant::ZERO).is_pending() {}
    let closed = closing.finish().unwrap_or_else(|_| panic!("at rest"));
    let memory = metadata(closed.stores).into_memory();
    let memory = memory.unwrap_or_else(|_| panic!("at rest"));
    let region = header.core.journal;
    let journal = &memory[region.offset as usize..][..region.bytes as usize];
    let units = journal.len() / UNIT;
    let views = journal
        .chunks(UNIT)
        .enumerate()
        .filter_map(|(slot, unit)| parse_unit(unit, &header.image_id, slot as u64, units as u64));
    let mut found: Vec<_> = views
        .map(|view| {
            let records = view.records().map(|record| record.expect("a legal record"));
            (view.seq, (view.flags, records.collect()))
        })
        .collect();
    found.sort_by_key(|(seq, _)| *seq);
    found.into_iter().map(|(_, unit)| unit).collect()
}

fn flags_of<S: Stores>(disk: Disk<S>, metadata: impl FnOnce(S) -> Ram) -> Vec<UnitFlags> {
    let units = units_of(disk, metadata);
    units.into_iter().map(|(flags, _)| flags).collect()
}

fn setup(base_bytes: u64, external: bool) -> Setup {
    Setup {
        table: true,
        base_bytes,
        external,
        used: false,
    }
}

fn one() -> One<Ram> {
    One(setup(0, false).devices().0)
}

fn two() -> Two<Ram, Ram> {
    let (metadata, data) = setup(0, true).devices();
    Two::new(metadata, data.expect("apart"))
}

/// Never eager: one commit after the other, each durable before the next.
#[test]
fn a_unit_of_an_ordinary_commit_vouches_for_all_earlier_ones() {
    let chunks = [(0, true), (1, true), (2, false), (3, true)];
    let alone = UnitFlags {
        last: true,
        earlier_unsure: false,
        index: 0,
    };
    let flags = flags_of(write(one(), options(255), &chunks), |One(ram)| ram);
    assert_eq!(flags, [alone; 3]);
    let flags = flags_of(write(two(), options(255), &chunks), |two| {
        two.into_parts().0
    });
    assert_eq!(flags, [alone; 3]);
}

/// An eager unit is durable only with the next commit's last flush.
#[test]
fn a_commit_beside_an_eager_unit_does_not_vouch_for_it() {
    let unsure = |flags: Vec<UnitFlags>| -> Vec<bool> {
        flags
            .into_iter()
            .map(|flags| flags.earlier_unsure)
            .collect()
    };
    // The first write is eager, the second finds it not durable and waits for the flush.
    let chunks = [(0, false), (1, true), (2, true)];
    let disk = write(one(), options(0), &chunks);
    assert_eq!(disk.stats().eager_units, 2);
    assert_eq!(disk.stats().journal_units, 3);
    let flags = flags_of(disk, |One(ram)| ram);
    assert_eq!(unsure(flags), [false, true, false]);
    let flags = flags_of(write(two(), options(0), &chunks), |two| two.into_parts().0);
    assert_eq!(unsure(flags), [false, true, false]);
}

/// Zeros took the place of the base before, so the mapping hides nothing that was not hidden.
#[test]
fn a_first_write_over_zeros_is_eager_also_on_top_of_a_base() {
    let setup = setup(common::DISK_BYTES, false);
    let stores = WithBase::new(One(setup.devices().0), setup.base());
    let disk = common::open(stores, options(0));
    let mut disk = Blocking::new(disk, common::memory(64 << 10), common::idle())
        .unwrap_or_else(|_| panic!("room"));
    disk.write_at(0, &[3; BLOCK_BYTES as usize])
        .expect("written");
    disk.flush().expect("durable");
    assert_eq!(disk.device().stats().eager_units, 0, "it hides base data");
    disk.write_zeroes_at(CHUNK_BYTES, BLOCK_BYTES)
        .expect("zeroed");
    disk.flush().expect("durable");
    disk.write_at(CHUNK_BYTES, &[3; BLOCK_BYTES as usize])
        .expect("written");
    assert_eq!(disk.device().stats().eager_units, 1);
}

/// A strict commit flushes the data device first; if that is the only device, the eager unit too.
#[test]
fn a_strict_commit_on_one_device_vouches_for_an_eager_unit() {
    // The base ends in the middle: chunk 40 lies beyond it, so that its mapping is exempt.
    let setup = setup(common::DISK_BYTES / 2, false);
    let stores = || WithBase::new(One(setup.devices().0), setup.base());
    let chunks = [(40, false), (0, true)];
    let disk = write(stores(), options(0), &chunks);
    assert_eq!(disk.stats().eager_units, 1);
    let flags = flags_of(disk, |stores| stores.into_parts().0.0);
    assert!(flags.iter().all(|flags| !flags.earlier_unsure), "{flags:?}");
    assert_eq!(flags.len(), 2);
}

/// A disk of `chunks` chunks, a store of so many more, a journal that holds a unit for each.
fn roomy(chunks: u64, spare: u64) -> Two<Ram, Ram> {
    let store_bytes = (chunks + spare) * CHUNK_BYTES;
    let header = plan_layout(&CreateParams {
        virtual_bytes: chunks * CHUNK_BYTES,
        store: StoreChoice::FixedZeroed {
            device_bytes: store_bytes,
        },
        journal: JournalChoice::Bytes(512 * UNIT as u64),
        ..setup(0, true).params()
    })
    .expect("legal");
    let metadata = Ram::new(common::bytes(1 << 20, 0));
    let arena = common::memory(CREATE_ARENA_BYTES);
    let created = blocking::create(metadata, header, true, arena, common::idle());
    created.result.expect("created");
    let data = Ram::new(common::bytes(store_bytes as usize, 0));
    Two::new(created.device, data)
}

fn one_flush_each(chunks: u64) -> Vec<(u64, bool)> {
    (0..chunks).map(|chunk| (chunk, true)).collect()
}

#[test]
fn never_is_never_however_many_flushes_cover_one_mapping_each() {
    let disk = write(roomy(300, 0), options(255), &one_flush_each(300));
    assert_eq!(disk.stats().eager_units, 0);
}

/// In the commit that brings the fresh chunks below half a step, to a step beyond the next one; and
/// not at all once it is at the end of the store.
#[test]
fn the_zero_floor_is_raised_ahead_of_need() {
    let options = OpenOptions {
        floor_step_chunks: 32,
        ..options(255)
    };
    let disk = write(roomy(64, 8), options, &one_flush_each(64));
    let units = units_of(disk, |two| two.into_parts().0);
    assert_eq!(units.len(), 64, "one commit each");
    let raised = units.iter().zip(1..).filter_map(|((_, records), commit)| {
        records.iter().find_map(|record| match record {
            Record::Store(store) => Some((commit, store.zero_floor_chunk)),
            Record::Map(_) => None,
        })
    });
    // Opening put it at 32.
    assert!(raised.eq([(17, 49), (34, 66), (51, 72)]));
}
