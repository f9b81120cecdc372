//! SPEC.md says what this module does: its worked example and its tables are checked here.

use std::format;
use std::string::String;

use super::*;
use crate::format::journal::{MapRecord, StoreRecord, UnitFlags, UnitWriter, parse_unit};
use crate::format::table::TableEntry;
use crate::units::{ChunkIndex, StoreChunk};

const SPEC: &str = include_str!("../../../docs/SPEC.md");

/// The image of SPEC.md §16.
fn example() -> Header {
    let image_id = ImageId(core::array::from_fn(|index| index as u8));
    let base = BaseParams {
        name: Name::new(b"base.raw").unwrap(),
        format: FormatName::new(b"raw").unwrap(),
        bytes: 2 * MIB + 512,
        id: [0; 16],
        generation: 0,
    };
    let params = CreateParams {
        base: Some(base),
        journal: JournalChoice::Bytes(2048),
        ..CreateParams::new(4 * MIB, image_id)
    };
    plan_layout(&params).unwrap()
}

fn unit(seq: u64, index_and_last: (u16, bool), fill: impl Fn(&mut UnitWriter<'_>)) -> [u8; 512] {
    let mut unit = [0; 512];
    let mut writer = UnitWriter::new(&mut unit).unwrap();
    fill(&mut writer);
    let (index, last) = index_and_last;
    let flags = UnitFlags {
        last,
        earlier_unsure: false,
        index,
    };
    writer.seal(seq, 4, flags, &example().image_id);
    unit
}

/// The growth of the store by two chunks, then the first write.
fn example_units() -> [[u8; 512]; 2] {
    let store = StoreRecord {
        zero_floor_chunk: 2,
        store_bytes: 3 * MIB,
    };
    let map = MapRecord {
        chunk: ChunkIndex(2),
        entry: Some(TableEntry::Chunk(StoreChunk(0))),
        bits: Some(1),
    };
    [
        unit(4, (0, true), |writer| assert!(writer.push_store(&store))),
        unit(5, (0, true), |writer| assert!(writer.push_map(&map))),
    ]
}

/// Sixteen bytes a line; lines of zeros are left out.
fn dump(bytes: &[u8]) -> String {
    let mut text = String::new();
    for (line, bytes) in bytes.chunks(16).enumerate() {
        if bytes.iter().any(|byte| *byte != 0) {
            let hex: Vec<_> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            text.push_str(&format!("{:04}  {}\n", line * 16, hex.join(" ")));
        }
    }
    text
}

fn assert_in_spec(name: &str, expected: &str) {
    let start = format!("```{name}\n");
    let found = SPEC
        .split(&start)
        .nth(1)
        .and_then(|rest| rest.split("```").next());
    assert_eq!(
        found.unwrap_or("nothing"),
        expected,
        "```{name} of SPEC.md; it has to be\n{expected}"
    );
}

#[test]
fn example_slot_is_byte_exact() {
    assert_in_spec("hex-slot", &dump(&encoded(&example())));
}

#[test]
fn example_units_are_byte_exact() {
    let [growth, write] = example_units();
    assert_in_spec("hex-unit-4", &dump(&growth));
    assert_in_spec("hex-unit-5", &dump(&write));
    let id = example().image_id;
    assert!(parse_unit(&growth, &id, 0, 4).is_some() && parse_unit(&write, &id, 1, 4).is_some());
}

#[test]
fn example_checksums_are_right() {
    let id = example().image_id;
    let table = page::page_checksum(&id, 0, &[0xFF; PAGE_BYTES]);
    let bitmap = page::page_checksum(&id, 1, &[0; PAGE_BYTES]);
    let mut array = [0; 16];
    array[..4].copy_from_slice(&table.to_le_bytes());
    array[4..8].copy_from_slice(&bitmap.to_le_bytes());
    assert_in_spec("hex-checksums", &dump(&array));
}

/// The tables of fields leave no byte of a slot out and none twice.
#[test]
fn field_tables_cover_the_slot() {
    let mut at = 0;
    let mut names = Vec::new();
    for row in SPEC.lines().filter(|line| line.starts_with("| ")) {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let (Ok(offset), Ok(size)) = (cells[1].parse::<usize>(), cells[2].parse::<usize>()) else {
            continue;
        };
        assert_eq!(offset, at, "{row}");
        at += size;
        names.push(cells[3].trim_matches('`'));
        if at == SLOT_BYTES {
            break;
        }
    }
    assert_eq!(at, SLOT_BYTES);
    for field in Field::ALL {
        let name = field.name();
        let in_slot =
            !name.contains(' ') && !["unit_crc", "stable_seq", "reserved"].contains(&name);
        let plain = name.split('[').next().unwrap();
        assert!(
            !in_slot || names.contains(&name) || names.contains(&plain),
            "{name}"
        );
    }
}

/// Everything that cites a section of SPEC.md cites one that exists.
#[test]
fn sections_that_the_code_cites_exist() {
    let sources = [
        include_str!("../mod.rs"),
        include_str!("../bitmap.rs"),
        include_str!("../common.rs"),
        include_str!("../crc32c.rs"),
        include_str!("../feature.rs"),
        include_str!("../header.rs"),
        include_str!("../journal/mod.rs"),
        include_str!("../layout.rs"),
        include_str!("../name.rs"),
        include_str!("../page.rs"),
        include_str!("../raw.rs"),
        include_str!("../regions.rs"),
        include_str!("../rules.rs"),
        include_str!("../slots.rs"),
        include_str!("../old/spec2011.rs"),
        include_str!("../table.rs"),
    ];
    for citation in sources
        .iter()
        .flat_map(|source| source.split("SPEC.md §").skip(1))
    {
        let number: String = citation
            .chars()
            .take_while(|c| c.is_ascii_digit() || *c == '.')
            .collect();
        let number = number.trim_end_matches('.');
        let exists = SPEC.lines().any(|line| {
            let mut words = line.split(' ');
            line.starts_with('#')
                && words
                    .nth(1)
                    .is_some_and(|word| word.trim_end_matches('.') == number)
        });
        assert!(exists, "SPEC.md has no section {number}");
    }
}
