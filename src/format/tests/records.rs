//! Records of a unit: what they may say, by themselves and in an image.

use super::journal::{forged, map, read};
use super::*;
use crate::format::journal::{MapRecord, Record, RecordBounds, StoreRecord};
use crate::format::table::TableEntry;
use crate::units::StoreChunk;

#[test]
fn records_that_break_a_rule_are_corrupt() {
    let first = |bytes: &[u8]| {
        let unit = forged(bytes, bytes.len() as u16, 0);
        let mut records = read(&unit).expect("proves itself").records();
        let first = records.next().expect("a record");
        assert!(
            first.is_ok() || records.next().is_none(),
            "goes on after an error"
        );
        first.map_err(|error| error.field)
    };
    let map = |flags: u8, bits: u8, entry: u32| {
        let mut bytes = [1, flags, bits, 0, 5, 0, 0, 0, 0, 0, 0, 0];
        bytes[8..].copy_from_slice(&entry.to_le_bytes());
        first(&bytes)
    };
    assert!(map(1, 0, 9).is_ok() && map(2, 9, 0).is_ok() && map(3, 9, 9).is_ok());
    assert_eq!(map(0, 0, 0), Err(Field::RecordFlags));
    assert_eq!(map(4, 0, 0), Err(Field::RecordFlags));
    assert_eq!(map(0x83, 0, 0), Err(Field::RecordFlags));
    assert_eq!(map(1, 1, 9), Err(Field::RecordBits));
    assert_eq!(map(2, 1, 9), Err(Field::RecordEntry));
    assert_eq!(map(3, 0, 0x8000_0000), Err(Field::TableEntry));
    assert_eq!(map(1, 0, 0xFFFF_FFFE), Err(Field::TableEntry));
    assert!(map(1, 0, 0x7FFF_FFFF).is_ok());
    for kind in [0, 3, 0xFF] {
        assert_eq!(first(&[kind; 12]), Err(Field::RecordKind));
    }
    for length in 1..12 {
        assert_eq!(
            first(&[1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0][..length]),
            Err(Field::RecordLength)
        );
    }
    for length in 1..16 {
        assert_eq!(
            first(&[2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0][..length]),
            Err(Field::RecordLength)
        );
    }
    for place in 1..4 {
        let mut store = [0; 16];
        store[0] = 2;
        store[place] = 1;
        assert_eq!(first(&store), Err(Field::RecordFlags));
    }
    // A good record before a bad one is still given out.
    let unit = forged(&[1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xAA], 13, 0);
    let found: Vec<_> = read(&unit)
        .unwrap()
        .records()
        .map(|record| record.is_ok())
        .collect();
    assert_eq!(found, [true, false]);
}

#[test]
fn records_stay_inside_the_image() {
    let header = plan_layout(&full_params()).unwrap();
    let bounds = RecordBounds::new(&header);
    let check = |record: MapRecord| {
        bounds
            .check(&Record::Map(record), 8)
            .map_err(|error| error.field)
    };
    let to = |chunk| Some(TableEntry::Chunk(StoreChunk(chunk)));
    assert_eq!(check(map(9, to(7), None)), Ok(()));
    assert_eq!(check(map(10, to(7), None)), Err(Field::RecordChunk));
    assert_eq!(check(map(u32::MAX, to(7), None)), Err(Field::RecordChunk));
    assert_eq!(check(map(9, to(8), None)), Err(Field::TableEntry));
    for taken in [TableEntry::Unmapped, TableEntry::Unreadable] {
        // A record gives a place; none takes one away.
        assert_eq!(check(map(9, Some(taken), None)), Err(Field::RecordEntry));
    }
    // The base covers chunks 0 to 4 whole.
    assert_eq!(check(map(4, None, Some(0xFFFF))), Ok(()));
    assert_eq!(check(map(5, None, Some(0))), Err(Field::RecordBits));

    let params = CreateParams {
        base: Some(base_params(5 * MIB + 512)),
        table: false,
        ..full_params()
    };
    let params = CreateParams {
        store: StoreChoice::Growing,
        ..params
    };
    let mut header = plan_layout(&params).unwrap();
    // Bits of units from before the last block was fetched are still replayed.
    header.core.base_fully_prefetched = true;
    let bounds = RecordBounds::new(&header);
    let check = |record: MapRecord| {
        bounds
            .check(&Record::Map(record), 8)
            .map_err(|error| error.field)
    };
    assert_eq!(check(map(5, None, Some(1))), Ok(()));
    assert_eq!(check(map(5, None, Some(3))), Err(Field::RecordBits));
    assert_eq!(
        check(map(5, Some(TableEntry::Unmapped), None)),
        Err(Field::RecordEntry)
    );
}

#[test]
fn bits_need_a_bitmap() {
    let params = CreateParams {
        base: None,
        ..full_params()
    };
    let bounds = RecordBounds::new(&plan_layout(&params).unwrap());
    for bits in [0, 1, u16::MAX] {
        let record = Record::Map(map(0, None, Some(bits)));
        let error = bounds.check(&record, 8).unwrap_err();
        assert_eq!(
            error,
            FormatError::corrupt(Field::RecordBits, u64::from(bits))
        );
    }
}

#[test]
fn store_records_stay_inside_their_store() {
    let header = plan_layout(&full_params()).unwrap();
    let bounds = RecordBounds::new(&header);
    let check = |zero_floor_chunk, store_bytes| {
        let record = Record::Store(StoreRecord {
            zero_floor_chunk,
            store_bytes,
        });
        bounds.check(&record, 0).map_err(|error| error.field)
    };
    assert_eq!(check(8, 9 * MIB), Ok(()));
    assert_eq!(check(9, 9 * MIB), Err(Field::RecordFloor));
    assert_eq!(check(8, 9 * MIB - 1), Err(Field::RecordFloor));
    assert_eq!(check(0, MIB), Ok(()));
    assert_eq!(check(0, MIB - 1), Err(Field::StoreBytes));
    assert_eq!(check(1 << 31, (1 << 63) - 1), Ok(()));
    assert_eq!(check((1 << 31) + 1, (1 << 63) - 1), Err(Field::RecordFloor));
    assert_eq!(check(0, 1 << 63), Err(Field::StoreBytes));
    assert_eq!(bounds.chunks_in(9 * MIB), 8);
}
