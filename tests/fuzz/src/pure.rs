//! The format layer: bytes and values, no devices.

use fvd::format::journal::{
    MapRecord, Record, RecordBounds, StoreRecord, UnitFlags, UnitWriter, parse_unit,
    records_per_unit,
};
use fvd::format::table::{TableEntry, check_page, read_entry, write_entry};
use fvd::format::{
    Header, ImageId, Limits, PAGE_BYTES, SLOT_BYTES, bitmap, choose_slot, read_header,
};
use fvd::units::{ChunkIndex, StoreChunk};

use crate::edit::chosen;
use crate::image::{self, crc32c};
use crate::input::Input;

/// A slot that starts as a golden one, with the input put over it wherever it says.
fn slot(input: &mut Input<'_>) -> Vec<u8> {
    let golden = chosen(input.u8());
    let mut slot = golden.metadata[golden.slot..][..SLOT_BYTES].to_vec();
    for _ in 0..input.u8() % 9 {
        let at = usize::from(input.u16()) % SLOT_BYTES;
        let len = usize::from(input.u8() % 9).min(SLOT_BYTES - at);
        let bytes = input.bytes(len);
        slot[at..at + bytes.len()].copy_from_slice(&bytes);
    }
    if !input.u8().is_multiple_of(8) {
        image::seal(&mut slot);
    }
    slot
}

/// A header of 2011: the input over zeros, behind the first bytes of either dialect.
fn old_header(bytes: &[u8]) {
    for magic in [*b"FVD\0\x01\0\0\0", [0xA9, 0xF5, 0x43, 0x51, 1, 0, 0, 0]] {
        let mut start = [0; 8192];
        start[..8].copy_from_slice(&magic);
        for (at, piece) in bytes.chunks(10).enumerate() {
            // Two bytes of place, eight of content.
            let Some((place, content)) = piece.split_first_chunk::<2>() else {
                break;
            };
            let place = 8 + (usize::from(u16::from_le_bytes(*place)) + at) % 8176;
            start[place..place + content.len()].copy_from_slice(content);
        }
        if let Ok(found) = read_header(&start, &Limits::FORMAT) {
            let header = found.header;
            let _ = header.validate(1 << 30, Some(1 << 30));
            let _ = (header.shape(), header.metadata_bytes().total());
        }
    }
}

/// Two slots: the header that counts keeps its rules and survives being written.
pub fn header(bytes: &[u8]) {
    let _ = Header::parse(bytes, &Limits::FORMAT);
    old_header(bytes);
    let _ = choose_slot(bytes, bytes, &Limits::FORMAT);
    let mut input = Input::new(bytes);
    let (first, second) = (slot(&mut input), slot(&mut input));
    let Ok(chosen) = choose_slot(&first, &second, &Limits::FORMAT) else {
        return;
    };
    let header = chosen.header;
    let _ = (
        header.metadata_bytes().total(),
        header.shape(),
        header.journal_units(),
    );
    let capacity = header.store_bytes.max(1 << 20);
    if let Ok(regions) = header.validate(capacity, Some(header.store_bytes)) {
        let all = [
            regions.table,
            regions.bitmap,
            regions.journal,
            regions.checksums_active,
        ];
        for region in all.into_iter().flatten() {
            assert!(
                region.end().is_some_and(|end| end <= capacity),
                "{region:?}"
            );
        }
    }
    if header.is_read_only() {
        return;
    }
    let mut written = [0; SLOT_BYTES];
    header
        .encode(&mut written)
        .expect("what can be read can be written");
    let again = Header::parse(&written, &Limits::FORMAT).expect("and read again");
    let mut expected = header;
    expected.features.autoclear = again.features.autoclear;
    assert_eq!(again, expected);
}

/// Pages that pass their check hold nothing that a reader trips over.
pub fn pages(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (index, count, store) = (input.u32() % 8, input.u32(), input.u32());
    let blocks = input.u64();
    let mut page = [if input.u8().is_multiple_of(2) {
        0xFF
    } else {
        0
    }; PAGE_BYTES];
    let edits = input.u8() % 16;
    for _ in 0..edits {
        let at = usize::from(input.u16()) % PAGE_BYTES;
        let bytes = input.bytes(4.min(PAGE_BYTES - at));
        page[at..at + bytes.len()].copy_from_slice(&bytes);
    }
    let first = index * 1024;
    if check_page(&page, index, count, store).is_ok() {
        for chunk in 0..1024 {
            let entry = read_entry(&page, ChunkIndex(chunk)).expect("inside the page");
            match entry.expect("a page that was checked") {
                TableEntry::Chunk(StoreChunk(place)) => {
                    assert!(place < store && first + chunk < count);
                }
                TableEntry::Unmapped | TableEntry::Unreadable => {}
                TableEntry::Split(_) => panic!("a split record"),
            }
        }
        assert!(write_entry(
            &mut page.clone(),
            ChunkIndex(1023),
            TableEntry::Unmapped
        ));
    }
    if bitmap::check_page(&page, index, blocks).is_ok() {
        let page_first = u64::from(index) * 32768;
        for block in (0..32768).filter(|block| bitmap::read_bit(&page, *block)) {
            assert!(page_first + block < blocks, "block {block}");
        }
    }
    let (block, count, bits) = (u64::from(input.u16()), input.u32() % 17, input.u16());
    let before = page;
    bitmap::write_group(&mut page, block, count, bits);
    let held = bitmap::group_len(block, count, 32768);
    let found = bitmap::read_group(&page, block, held);
    assert_eq!(found, bits & bitmap::group_mask(held));
    let written = block..block + u64::from(count);
    let around = block.saturating_sub(40)..(block + 60).min(32768);
    for other in around.filter(|other| !written.contains(other)) {
        assert_eq!(
            bitmap::read_bit(&page, other),
            bitmap::read_bit(&before, other)
        );
    }
}

/// A unit of any bytes, with a trailer that proves it.
pub fn journal(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let len = 512 << (input.u8() % 4);
    let golden = chosen(input.u8());
    let (seq, used, flags) = (input.u64() >> 1, input.u16(), input.u16());
    let mut unit = vec![0; len];
    let body = input.bytes(len - 32);
    unit[..body.len()].copy_from_slice(&body);
    let trailer = len - 32;
    let used = used % (trailer as u16 + 2);
    unit[trailer + 4..trailer + 8].copy_from_slice(b"FVDJ");
    unit[trailer + 8..trailer + 16].copy_from_slice(&seq.to_le_bytes());
    unit[trailer + 24..trailer + 26].copy_from_slice(&used.to_le_bytes());
    unit[trailer + 26..trailer + 28].copy_from_slice(&flags.to_le_bytes());
    let records = usize::from(used).min(trailer);
    let crc = crc32c(&[&image::ID.0, &unit[..records], &unit[trailer..trailer + 28]]);
    unit[trailer + 28..].copy_from_slice(&crc.to_le_bytes());
    let units = 1 + input.u64() % 4096;
    let Some(view) = parse_unit(&unit, &image::ID, seq % units, units) else {
        assert!(
            usize::from(used) > trailer,
            "a unit that proves itself was not taken"
        );
        return;
    };
    let _ = view.commit_start();
    let slot = &golden.metadata[golden.slot..][..SLOT_BYTES];
    let header = Header::parse(slot, &Limits::FORMAT).expect("golden");
    let bounds = RecordBounds::new(&header);
    for (count, record) in view.records().enumerate() {
        assert!(count <= 341, "more records than a unit has room for");
        let Ok(record) = record else { break };
        if bounds.check(&record, 16).is_ok()
            && let Record::Map(map) = record
        {
            assert!(map.chunk.0 < header.shape().chunk_count());
            let place = map.entry.unwrap_or(TableEntry::Unmapped);
            assert!(
                !matches!(place, TableEntry::Chunk(at) if at.0 >= 16),
                "{place:?}"
            );
        }
    }
}

/// From the writer to the reader: nothing lost, nothing added, nothing from another image.
pub fn records(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let len = 512u32 << (input.u8() % 4);
    let mut unit = vec![0xA5; len as usize];
    let mut writer = UnitWriter::new(&mut unit).expect("a legal length");
    let mut written = Vec::new();
    while !input.is_empty() {
        let record = match input.u8() % 8 {
            0 => Record::Store(StoreRecord {
                zero_floor_chunk: input.u32(),
                store_bytes: input.u64(),
            }),
            pick => Record::Map(MapRecord {
                chunk: ChunkIndex(input.u32()),
                entry: (pick % 2 == 1).then(|| match input.u8() {
                    0 => TableEntry::Unmapped,
                    1 => TableEntry::Unreadable,
                    low => TableEntry::Chunk(StoreChunk((input.u32() >> 8) * u32::from(low) / 2)),
                }),
                bits: (pick % 2 == 0 || pick == 3).then(|| input.u16()),
            }),
        };
        let taken = match &record {
            Record::Map(map) => writer.push_map(map),
            Record::Store(store) => writer.push_store(store),
        };
        if !taken {
            assert!(written.len() + 2 >= records_per_unit(len) as usize * 3 / 4);
            break;
        }
        written.push(record);
    }
    let flags = UnitFlags {
        last: true,
        ..UnitFlags::default()
    };
    writer.seal(7, 3, flags, &image::ID);
    let view = parse_unit(&unit, &image::ID, 3, 4).expect("what was just written");
    let read: Result<Vec<Record>, _> = view.records().collect();
    assert_eq!(read.expect("legal records"), written);
    assert!(parse_unit(&unit, &ImageId([9; 16]), 3, 4).is_none());
    assert!(parse_unit(&unit, &image::ID, 2, 4).is_none());
}
