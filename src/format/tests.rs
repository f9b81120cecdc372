//! Tests of the format layer as a whole.
#![allow(
    clippy::indexing_slicing,
    clippy::arithmetic_side_effects,
    clippy::as_conversions,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic
)]

use super::journal::{MapRecord, Record, UnitFlags, UnitWriter, parse_unit};
use super::table::TableEntry;
use super::*;
use crate::units::{ChunkIndex, StoreChunk};

const ID: ImageId = ImageId(*b"0123456789abcdef");

#[test]
fn header_survives_the_way_to_disk_and_back() {
    let header = plan_layout(&CreateParams::new(1 << 40, ID)).unwrap();
    let mut slot = [0; SLOT_BYTES];
    header.encode(&mut slot).unwrap();
    assert_eq!(Header::parse(&slot, &Limits::FORMAT).unwrap(), header);
    let chosen = choose_slot(&slot, &[0; SLOT_BYTES], &Limits::FORMAT).unwrap();
    assert_eq!((chosen.header, chosen.other_valid), (header, false));
    header.validate(header.store_bytes, None).unwrap();
}

#[test]
fn unit_survives_the_way_to_disk_and_back() {
    let map = MapRecord {
        chunk: ChunkIndex(7),
        entry: Some(TableEntry::Chunk(StoreChunk(3))),
        bits: Some(5),
    };
    let mut unit = [0xEE; 512];
    let mut writer = UnitWriter::new(&mut unit).unwrap();
    assert!(writer.push_map(&map));
    writer.seal(
        9,
        8,
        UnitFlags {
            last: true,
            earlier_unsure: false,
            index: 0,
        },
        &ID,
    );
    let view = parse_unit(&unit, &ID, 1, 8).unwrap();
    assert_eq!(view.records().next(), Some(Ok(Record::Map(map))));
}
