//! Journal units: writer to reader, and everything in between that can happen to them.

use super::*;
use crate::format::journal::*;
use crate::format::table::TableEntry;
use crate::units::{ChunkIndex, StoreChunk};

const UNITS: u64 = 8;
const SEQ: u64 = 19;
const FLAGS: UnitFlags = UnitFlags {
    last: true,
    earlier_unsure: true,
    index: 2,
};

pub(super) fn map(chunk: u32, entry: Option<TableEntry>, bits: Option<u16>) -> MapRecord {
    MapRecord {
        chunk: ChunkIndex(chunk),
        entry,
        bits,
    }
}

fn records() -> [Record; 5] {
    [
        Record::Map(map(
            7,
            Some(TableEntry::Chunk(StoreChunk(0x1234))),
            Some(0x8001),
        )),
        Record::Map(map(8, Some(TableEntry::Unmapped), None)),
        Record::Store(StoreRecord {
            zero_floor_chunk: 64,
            store_bytes: 1 << 40,
        }),
        Record::Map(map(u32::MAX, None, Some(0))),
        Record::Map(map(9, Some(TableEntry::Unreadable), None)),
    ]
}

fn unit_of(bytes: usize, records: &[Record]) -> Vec<u8> {
    let mut unit = std::vec![0xEE; bytes];
    let mut writer = UnitWriter::new(&mut unit).unwrap();
    for record in records {
        assert!(match record {
            Record::Map(map) => writer.push_map(map),
            Record::Store(store) => writer.push_store(store),
        });
    }
    writer.seal(SEQ, 12, FLAGS, &ID);
    unit
}

pub(super) fn read(unit: &[u8]) -> Option<UnitView<'_>> {
    parse_unit(unit, &ID, SEQ % UNITS, UNITS)
}

/// A unit with these record bytes, whatever they say, and a right CRC.
pub(super) fn forged(records: &[u8], used: u16, flags: u16) -> Vec<u8> {
    let mut unit = unit_of(512, &[]);
    unit[..records.len()].copy_from_slice(records);
    unit[504..506].copy_from_slice(&used.to_le_bytes());
    unit[506..508].copy_from_slice(&flags.to_le_bytes());
    reseal_unit(&mut unit);
    unit
}

fn reseal_unit(unit: &mut [u8]) {
    let trailer = unit.len() - 32;
    let used = usize::from(u16::from_le_bytes([unit[trailer + 24], unit[trailer + 25]]));
    let records = unit.get(..used).unwrap_or(&[]);
    let crc = slow_crc32c(&[&ID.0, records, &unit[trailer..trailer + 28]]);
    unit[trailer + 28..].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn records_survive_the_way_to_disk_and_back() {
    for bytes in [512, 1024, 2048, 4096] {
        let unit = unit_of(bytes, &records());
        let view = read(&unit).expect("a good unit");
        assert_eq!((view.seq, view.stable_seq, view.flags), (SEQ, 12, FLAGS));
        assert_eq!(
            (view.last(), view.earlier_unsure(), view.index()),
            (true, true, 2)
        );
        assert_eq!(view.commit_start(), Ok(17));
        let back: Result<Vec<_>, _> = view.records().collect();
        assert_eq!(back.unwrap(), records());
        // Zeros behind the records, whatever was in the buffer.
        assert!(unit[64..bytes - 32].iter().all(|byte| *byte == 0));
    }
}

#[test]
fn bytes_of_a_unit_are_those_of_the_spec() {
    let unit = unit_of(512, &records()[..3]);
    assert_eq!(unit[..12], [1, 3, 0x01, 0x80, 7, 0, 0, 0, 0x34, 0x12, 0, 0]);
    assert_eq!(
        unit[12..24],
        [1, 1, 0, 0, 8, 0, 0, 0, 0xFF, 0xFF, 0xFF, 0xFF]
    );
    assert_eq!(
        unit[24..40],
        [2, 0, 0, 0, 64, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0]
    );
    let trailer = [
        &[0; 4][..],
        b"FVDJ",
        &SEQ.to_le_bytes(),
        &12_u64.to_le_bytes(),
        &[40, 0, 0b1011, 0],
    ]
    .concat();
    assert_eq!(unit[480..508], trailer);
    let crc = slow_crc32c(&[&ID.0, &unit[..40], &unit[480..508]]);
    assert_eq!(unit[508..], crc.to_le_bytes());
}

#[test]
fn flags_keep_apart_in_every_combination() {
    for (last, earlier_unsure, index, raw) in [
        (false, false, 0, 0),
        (true, false, 0, 1),
        (false, true, 0, 2),
        (true, true, 0, 3),
        (false, false, 1, 4),
        (true, false, 16382, 0xFFF9),
        (false, true, 16383, 0xFFFE),
    ] {
        let flags = UnitFlags {
            last,
            earlier_unsure,
            index,
        };
        let mut unit = [0; 512];
        UnitWriter::new(&mut unit).unwrap().seal(SEQ, 0, flags, &ID);
        assert_eq!(u16::from_le_bytes([unit[506], unit[507]]), raw);
        let view = read(&unit).unwrap();
        assert_eq!(view.flags, flags);
        assert_eq!((view.last(), view.earlier_unsure()), (last, earlier_unsure));
    }
}

#[test]
fn a_unit_holds_as_many_records_as_promised() {
    for (bytes, count) in [(512, 40), (1024, 82), (2048, 168), (4096, 338)] {
        assert_eq!(records_per_unit(bytes as u32), count);
        let mut unit = std::vec![0; bytes];
        let mut writer = UnitWriter::new(&mut unit).unwrap();
        assert!(writer.is_empty());
        for chunk in 0..count {
            assert!(writer.push_map(&map(chunk, None, Some(1))));
        }
        assert!(!writer.push_map(&map(count, None, Some(1))));
        assert!(!writer.is_empty());
        writer.seal(SEQ, 0, FLAGS, &ID);
        assert_eq!(read(&unit).unwrap().records().count(), count as usize);
        assert_eq!(units_for(count, bytes as u32), 1);
        assert_eq!(units_for(count + 1, bytes as u32), 2);
        // A store record never takes more room than two map records.
        let mut writer = UnitWriter::new(&mut unit).unwrap();
        for chunk in 0..count - 2 {
            assert!(writer.push_map(&map(chunk, None, Some(1))));
        }
        assert!(writer.push_store(&StoreRecord {
            zero_floor_chunk: 0,
            store_bytes: 0
        }));
    }
    assert_eq!(
        (units_for(0, 512), units_for(1, 0), records_per_unit(0)),
        (0, u32::MAX, 0)
    );
    for bytes in [0, 32, 256, 511, 513, 768, 8192] {
        assert!(UnitWriter::new(&mut std::vec![0; bytes]).is_none());
        assert!(parse_unit(&std::vec![0; bytes], &ID, 0, 4).is_none());
    }
}

#[test]
fn a_commit_takes_at_most_half_the_journal_and_64_kib() {
    for (units, bytes, max) in [
        (0, 512, 1),
        (1, 512, 1),
        (2, 512, 1),
        (4, 512, 2),
        (7, 512, 3),
        (256, 512, 128),
        (257, 512, 128),
        (1 << 20, 512, 128),
        (32, 4096, 16),
        (33, 4096, 16),
        (30, 4096, 15),
        (8, 0, 1),
        (u64::MAX, 512, 128),
    ] {
        assert_eq!(commit_units_max(units, bytes), max, "{units} {bytes}");
    }
    assert_eq!(
        (
            crate::format::journal::slot_of(19, 8),
            crate::format::journal::slot_of(19, 0)
        ),
        (3, 0)
    );
}

#[test]
fn what_does_not_prove_itself_was_never_written() {
    let unit = unit_of(512, &records());
    // Every byte that counts; the unused ones do not.
    for offset in (0..64).chain(480..512) {
        let mut bad = unit.clone();
        bad[offset] ^= 0x10;
        assert!(read(&bad).is_none(), "byte {offset}");
    }
    for slot in (0..UNITS + 2).filter(|slot| *slot != SEQ % UNITS) {
        assert!(
            parse_unit(&unit, &ID, slot, UNITS).is_none(),
            "misplaced at {slot}"
        );
    }
    let other = ImageId(*b"0123456789abcdeF");
    assert!(
        parse_unit(&unit, &other, SEQ % UNITS, UNITS).is_none(),
        "of another image"
    );
    for noise in [[0; 512], [0xFF; 512]] {
        assert!((0..UNITS).all(|slot| parse_unit(&noise, &ID, slot, UNITS).is_none()));
    }
    assert!(parse_unit(&unit, &ID, 0, 0).is_none());
}

#[test]
fn a_torn_unit_was_never_written() {
    // Over zeros, over an older unit of the same slot, and over one with other contents.
    let new = unit_of(512, &records());
    let mut older = unit_of(512, &records()[1..]);
    older[488..496].copy_from_slice(&(SEQ - UNITS).to_le_bytes());
    reseal_unit(&mut older);
    assert!(read(&older).is_some());
    let same_seq = unit_of(512, &records()[1..4]);
    for old in [std::vec![0; 512], older, same_seq] {
        for cut in (8..512).step_by(8) {
            for torn in [
                [&new[..cut], &old[cut..]].concat(),
                [&old[..cut], &new[cut..]].concat(),
            ] {
                if torn != new && torn != old {
                    // A cut in the unused zeros may leave a whole unit; it is one of the two.
                    let whole = read(&torn).map(|view| view.records().collect::<Vec<_>>());
                    let new = read(&new).map(|view| view.records().collect::<Vec<_>>());
                    assert!(whole.is_none() || whole == new, "cut {cut}");
                    assert!(whole.is_none() || (60..480).contains(&cut), "cut {cut}");
                }
            }
        }
    }
}

#[test]
fn trailer_fields_that_can_not_be_are_never_written() {
    assert!(read(&forged(&[], 480, 0)).is_some());
    assert!(read(&forged(&[], 481, 0)).is_none());
    assert!(read(&forged(&[], u16::MAX, 0)).is_none());
    let mut unit = unit_of(512, &[]);
    unit[480] = 1;
    reseal_unit(&mut unit);
    assert!(read(&unit).is_none(), "end word");
    let at = |seq: u64| {
        let mut unit = unit_of(512, &[]);
        unit[488..496].copy_from_slice(&seq.to_le_bytes());
        reseal_unit(&mut unit);
        parse_unit(&unit, &ID, seq % UNITS, UNITS).is_some()
    };
    assert!(at(0) && at(SEQ_MAX) && !at(SEQ_MAX + 1) && !at(u64::MAX));
}

#[test]
fn a_commit_longer_than_legal_is_corrupt() {
    // Eight units: at most four in a commit.
    for (index, start) in [(0, Some(19)), (3, Some(16)), (4, None), (16383, None)] {
        let unit = forged(&[], 0, index << 2);
        let found = read(&unit).unwrap().commit_start();
        let error = FormatError::corrupt(Field::UnitIndex, u64::from(index));
        assert_eq!(found, start.ok_or(error), "index {index}");
    }
    let mut unit = forged(&[], 0, 3 << 2);
    unit[488..496].copy_from_slice(&2_u64.to_le_bytes());
    reseal_unit(&mut unit);
    let view = parse_unit(&unit, &ID, 2, UNITS).unwrap();
    assert_eq!(
        view.commit_start(),
        Err(FormatError::corrupt(Field::UnitIndex, 3))
    );
}

#[test]
fn recovery_burns_a_whole_journal_of_numbers() {
    assert_eq!(burned_seq(0, None, 4), Ok(4));
    assert_eq!(burned_seq(10, Some(8), 4), Ok(14));
    assert_eq!(burned_seq(10, Some(9), 4), Ok(14));
    assert_eq!(burned_seq(10, Some(10), 4), Ok(15));
    assert_eq!(burned_seq(SEQ_MAX - 4, None, 4), Ok(SEQ_MAX));
    for (stable_seq, highest) in [
        (SEQ_MAX - 3, None),
        (0, Some(SEQ_MAX - 4)),
        (0, Some(u64::MAX)),
    ] {
        let error = burned_seq(stable_seq, highest, 4).unwrap_err();
        assert_eq!(error.field, Field::StableSeq);
    }
}
