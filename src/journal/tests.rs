//! What replay applies, skips and refuses, from units made by hand.

extern crate std;

use std::vec;
use std::vec::Vec;

use super::replay::Replay;
use super::*;
use crate::device::testing::{arena_memory, write};
use crate::format::journal::{MapRecord, Record};
use crate::format::table::TableEntry;
use crate::format::{
    BaseParams, CreateParams, Field, FormatError, ImageId, JournalChoice, SEQ_MAX, StoreChoice,
    plan_layout,
};
use crate::meta::{Map, Mapping};
use crate::units::{ChunkIndex, StoreChunk};

const ID: ImageId = ImageId([7; 16]);
const UNIT: usize = 512;
const UNITS: u64 = 8;
/// The header says that units below this one are in place. It lives in slot 5.
const STABLE: u64 = 13;

fn header() -> Header {
    let base = BaseParams {
        name: Default::default(),
        format: Default::default(),
        bytes: 1 << 20,
        id: [0; 16],
        generation: 0,
    };
    let params = CreateParams {
        block_bytes: 4096,
        chunk_bytes: 16 << 10,
        base: Some(base),
        journal: JournalChoice::Bytes(UNITS * UNIT as u64),
        store: StoreChoice::FixedZeroed {
            device_bytes: 4 << 20,
        },
        ..CreateParams::new(1 << 20, ID)
    };
    let mut header = plan_layout(&params).expect("legal");
    header.core.stable_seq = STABLE;
    header
}

/// A unit as it would be on the disk.
#[derive(Clone)]
struct Unit {
    seq: u64,
    stable_seq: u64,
    flags: UnitFlags,
    records: Vec<Record>,
}

/// Unit `index` of a commit that no earlier one was unsure for.
fn unit(seq: u64, index: u16, last: bool, records: &[Record]) -> Unit {
    let flags = UnitFlags {
        last,
        earlier_unsure: false,
        index,
    };
    Unit {
        seq,
        stable_seq: STABLE,
        flags,
        records: records.to_vec(),
    }
}

/// A commit of one unit that was written when earlier ones were not known durable.
fn hasty(seq: u64, records: &[Record]) -> Unit {
    let mut unit = unit(seq, 0, true, records);
    unit.flags.earlier_unsure = true;
    unit
}

fn maps(chunk: u32, to: u32, bits: u16) -> Record {
    Record::Map(MapRecord {
        chunk: ChunkIndex(chunk),
        entry: Some(TableEntry::Chunk(StoreChunk(to))),
        bits: Some(bits),
    })
}

fn store(zero_floor_chunk: u32, store_bytes: u64) -> Record {
    Record::Store(StoreRecord {
        zero_floor_chunk,
        store_bytes,
    })
}

fn bytes_of(unit: &Unit) -> Vec<u8> {
    let mut bytes = vec![0; UNIT];
    let mut writer = UnitWriter::new(&mut bytes).expect("a legal size");
    for record in &unit.records {
        assert!(match record {
            Record::Map(map) => writer.push_map(map),
            Record::Store(store) => writer.push_store(store),
        });
    }
    writer.seal(unit.seq, unit.stable_seq, unit.flags, &ID);
    bytes
}

/// Replays a journal that holds these units, each in its place, and nothing else.
fn replay_on(header: &Header, units: &[Unit]) -> Result<(Replay, Map), FormatError> {
    let (replay, map, errors) = look_on(header, units);
    errors.into_iter().next().map_or(Ok((replay, map)), Err)
}

/// The same, like who only looks: what is refused ends the run.
fn look_on(header: &Header, units: &[Unit]) -> (Replay, Map, Vec<FormatError>) {
    let mut errors = Vec::new();
    let mut arena = Arena::new(arena_memory(1 << 20)).expect("aligned");
    let lease = arena.carve_lease(PAGE_BYTES as u32).expect("room");
    let mut ops = OpPool::carve(&mut arena, 1).expect("room");
    let mut op = ops.take(write(0, 0)).expect("free");
    op.push(lease).expect("room");
    let mut aside = Staging::Whole(op);
    let mut page = arena.carve(PAGE_BYTES, 0u8).expect("room");
    let mut map = crate::meta::tests::carve(&mut arena, header);
    let mut replay = Replay::new(header);
    for turn in 0..UNITS {
        let slot = (replay.first_slot() + turn) % UNITS;
        page.fill(0xEE);
        if let Some(unit) = units.iter().find(|unit| unit.seq % UNITS == slot) {
            page[..UNIT].copy_from_slice(&bytes_of(unit));
        }
        let taken = replay.take_unit(slot, &mut page, &mut aside, &mut map, header);
        if let Err(error) = taken {
            replay.stop();
            errors.push(error);
        }
    }
    (replay, map, errors)
}

fn replay(units: &[Unit]) -> Result<(Replay, Map), FormatError> {
    replay_on(&header(), units)
}

/// The chunks that replay mapped, with their place and bits.
fn mapped(map: &Map) -> Vec<(u32, u32, u16)> {
    let chunks = (0..map.shape.chunk_count()).map(|chunk| (chunk, map.mapping(ChunkIndex(chunk))));
    chunks
        .filter_map(|(chunk, mapping)| match mapping {
            Mapping {
                entry: TableEntry::Chunk(at),
                bits,
            } => Some((chunk, at.0, bits)),
            _ => None,
        })
        .collect()
}

fn refused(units: &[Unit]) -> FormatError {
    match replay(units) {
        Ok(_) => panic!("not refused"),
        Err(error) => error,
    }
}

#[test]
fn commits_are_applied_in_order_around_the_end_of_the_journal() {
    let (replay, map) = replay(&[
        unit(STABLE, 0, true, &[maps(0, 5, 1), maps(9, 6, 2)]),
        unit(14, 0, true, &[maps(0, 7, 3)]),
        unit(15, 0, true, &[]),
        unit(16, 0, true, &[maps(20, 8, 0)]),
    ])
    .expect("sound");
    assert_eq!(mapped(&map), [(0, 7, 3), (9, 6, 2), (20, 8, 0)]);
    assert_eq!(replay.records, 4);
    // One page of table, one of bitmap.
    assert!(map.dirty.is_current(0) && map.dirty.is_current(1));
    assert_eq!(replay.first_seq(), Ok(17 + UNITS));
}

#[test]
fn a_record_changes_what_it_names_and_nothing_else() {
    let only_bits = Record::Map(MapRecord {
        chunk: ChunkIndex(3),
        entry: None,
        bits: Some(15),
    });
    let only_entry = Record::Map(MapRecord {
        chunk: ChunkIndex(3),
        entry: Some(TableEntry::Chunk(StoreChunk(4))),
        bits: None,
    });
    let records = [maps(3, 2, 5), only_bits, only_entry];
    let (_, map) = replay(&[unit(STABLE, 0, true, &records)]).expect("sound");
    assert_eq!(mapped(&map), [(3, 4, 15)]);
}

#[test]
fn size_and_floor_of_the_store_only_grow() {
    let header = header();
    let (floor, bytes) = (10, header.store_bytes + (64 << 10));
    let (replay, _) = replay(&[
        unit(STABLE, 0, true, &[store(floor, bytes)]),
        unit(14, 0, true, &[store(floor - 1, bytes - (16 << 10))]),
    ])
    .expect("sound");
    assert_eq!((replay.floor, replay.store_bytes), (10, bytes));
    let (replay, _) = replay_on(&header, &[]).expect("empty");
    assert_eq!(replay.store_bytes, header.store_bytes);
    assert_eq!(replay.floor, header.zero_floor_chunk);
}

#[test]
fn a_commit_is_applied_whole_or_not_at_all() {
    let parts = [
        unit(STABLE, 0, false, &[maps(0, 5, 1)]),
        unit(14, 1, false, &[maps(1, 6, 2)]),
        unit(15, 2, true, &[maps(2, 7, 3)]),
        unit(16, 0, true, &[maps(3, 8, 4)]),
    ];
    let (_, map) = replay(&parts).expect("sound");
    assert_eq!(mapped(&map), [(0, 5, 1), (1, 6, 2), (2, 7, 3), (3, 8, 4)]);
    // Without the last commit: that one is what proves that the others were durable.
    for lost in 0..3 {
        let mut parts = parts[..3].to_vec();
        parts.remove(lost);
        let (replay, map) = replay(&parts).expect("an unfinished commit");
        assert_eq!(mapped(&map), [], "without unit {lost}");
        assert_eq!(replay.records, 0);
        // Units that were seen count, applied or not.
        let highest = if lost == 2 { 14 } else { 15 };
        assert_eq!(replay.first_seq(), Ok(highest + 1 + UNITS));
    }
}

#[test]
fn what_lies_beyond_a_gap_is_not_applied() {
    let (replay, map) = replay(&[
        unit(STABLE, 0, true, &[maps(0, 5, 1)]),
        hasty(15, &[maps(1, 6, 2)]),
        hasty(16, &[maps(2, 7, 3)]),
    ])
    .expect("commits that overtook a lost one");
    assert_eq!(mapped(&map), [(0, 5, 1)]);
    assert_eq!(replay.first_seq(), Ok(17 + UNITS));
}

#[test]
fn a_commit_that_knew_earlier_ones_durable_proves_a_gap_before_it_to_be_lost_data() {
    let sure = unit(15, 0, true, &[]);
    let error = FormatError::corrupt(Field::UnitSeq, 15);
    assert_eq!(refused(&[unit(STABLE, 0, true, &[]), sure.clone()]), error);
    assert_eq!(refused(&[sure]), error, "nothing at all before it");
    // A unit of the very commit that the gap is in proves nothing about it.
    assert!(replay(&[unit(14, 1, true, &[])]).is_ok());
    let later = unit(15, 1, true, &[]);
    let error = FormatError::corrupt(Field::UnitSeq, 15);
    assert_eq!(refused(&[later]), error, "its commit began after the gap");
}

#[test]
fn units_of_earlier_rounds_are_no_part_of_the_run() {
    let old = [
        unit(STABLE - 1, 0, true, &[maps(0, 5, 1)]),
        unit(STABLE - 8, 0, true, &[maps(1, 5, 1)]),
    ];
    let (replay, map) = replay(&old).expect("all in place already");
    assert_eq!(mapped(&map), []);
    assert_eq!(replay.first_seq(), Ok(STABLE + UNITS));
}

#[test]
fn a_unit_that_names_a_newer_header_than_there_is_proves_that_it_was_lost() {
    let mut newer = unit(STABLE, 0, true, &[]);
    newer.stable_seq = STABLE + 1;
    let error = FormatError::corrupt(Field::StableSeq, STABLE + 1);
    assert_eq!(refused(&[newer]), error);
    let mut older = unit(STABLE, 0, true, &[maps(0, 5, 1)]);
    older.stable_seq = STABLE - 3;
    assert_eq!(mapped(&replay(&[older]).expect("sound").1), [(0, 5, 1)]);
}

#[test]
fn units_of_a_commit_are_numbered_from_0_without_a_break() {
    let wrong = |index| FormatError::corrupt(Field::UnitIndex, index);
    assert_eq!(refused(&[unit(STABLE, 1, true, &[])]), wrong(1));
    let second = |index| refused(&[unit(STABLE, 0, false, &[]), unit(14, index, true, &[])]);
    assert_eq!(second(0), wrong(0));
    assert_eq!(second(2), wrong(2));
}

#[test]
fn a_commit_has_at_most_half_the_units_of_the_journal() {
    let commit = |units: u16| -> Vec<Unit> {
        let records = [maps(1, 2, 3)];
        let part = |i| unit(STABLE + u64::from(i), i, i + 1 == units, &records);
        (0..units).map(part).collect()
    };
    assert_eq!(replay(&commit(4)).expect("half").0.records, 4);
    let error = FormatError::corrupt(Field::UnitIndex, 4);
    assert_eq!(refused(&commit(5)), error);
}

#[test]
fn a_record_that_the_image_can_not_have_is_refused() {
    let chunks = header().shape().chunk_count();
    assert!(replay(&[unit(STABLE, 0, true, &[maps(chunks - 1, 2, 0)])]).is_ok());
    assert!(replay(&[unit(STABLE, 0, true, &[maps(chunks, 2, 0)])]).is_err());
    // Space that a record of the same run brought counts.
    let grown = header().store_bytes + (16 << 10);
    let last = header().chunks_in(grown) - 1;
    let records = [store(0, grown), maps(0, last, 0)];
    assert!(replay(&[unit(STABLE, 0, true, &records)]).is_ok());
    assert!(replay(&[unit(STABLE, 0, true, &records[1..])]).is_err());
}

#[test]
fn sequence_numbers_end_cleanly() {
    let first_seq = |stable_seq| {
        let mut header = header();
        header.core.stable_seq = stable_seq;
        replay_on(&header, &[]).expect("empty").0.first_seq()
    };
    assert_eq!(first_seq(SEQ_MAX - UNITS), Ok(SEQ_MAX));
    let error = FormatError::corrupt(Field::StableSeq, SEQ_MAX - UNITS + 1);
    assert_eq!(first_seq(SEQ_MAX - UNITS + 1), Err(error));
}

#[test]
fn who_only_looks_sees_a_refused_commit_once_and_nothing_behind_it() {
    let header = header();
    let chunks = header.shape().chunk_count();
    let (replay, map, errors) = look_on(
        &header,
        &[
            unit(STABLE, 0, true, &[maps(0, 5, 1)]),
            unit(14, 0, false, &[maps(1, 6, 1)]),
            unit(15, 1, true, &[maps(chunks, 7, 1)]),
            hasty(16, &[maps(2, 8, 1)]),
            hasty(17, &[maps(3, 9, 1)]),
        ],
    );
    assert_eq!(errors.len(), 1);
    // What came before the record that is refused was in the same commit.
    assert_eq!(mapped(&map), [(0, 5, 1), (1, 6, 1)]);
    assert_eq!(replay.records, 2);
}

/// What recovery writes again: the last commit, with the eager unit in front of it that it was not
/// sure of, as far as memory goes.
#[test]
fn the_end_of_the_run_is_in_doubt() {
    let doubtful = |units: &[Unit]| replay(units).expect("sound").0.doubtful_units();
    let commit = |first: u64, count: u16| {
        (0..count).map(move |index| unit(first + u64::from(index), index, index + 1 == count, &[]))
    };
    assert_eq!(doubtful(&[]), (STABLE, 0));
    let sure: Vec<Unit> = commit(STABLE, 1).chain(commit(14, 2)).collect();
    assert_eq!(doubtful(&sure), (14, 2));
    let unfinished: Vec<Unit> = commit(STABLE, 1).chain(commit(14, 2).take(1)).collect();
    assert_eq!(
        doubtful(&unfinished),
        (14, 0),
        "it knew the one before durable"
    );
    let behind = |count| -> Vec<Unit> {
        let next = STABLE + u64::from(count);
        commit(STABLE, count).chain([hasty(next, &[])]).collect()
    };
    assert_eq!(doubtful(&behind(1)), (STABLE, 2));
    // Eight units of memory, of which the next commit may need four.
    assert_eq!(doubtful(&behind(4)), (STABLE, 5));
    let mut full = behind(4);
    full.push(hasty(18, &[]));
    assert_eq!(doubtful(&full), (18, 1));
}
