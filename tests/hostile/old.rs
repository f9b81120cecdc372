//! The rows that say something about images of 2011, for both dialects. Nothing in such an image has a
//! checksum, so only what can not be right is found; whatever it is, opening it is harmless.

use crate::bench::Bench;
use crate::bench::Class::{self, Corrupt, Limit, NeedBase, NeedData, Opens, Unsupported};
use crate::header::{MAGICS, NAMES};
use crate::image::{BASE, BLOCK, CHUNK, CHUNKS, DISK, End, Image, options};
use crate::old_image::{
    OLD_DATA_OFFSET, OldFields, REFERENCE, SPEC2011, bitmap_record, old_golden,
};
use crate::row::Row;

/// Rows that do not apply to a dialect without checksums, features, generations, snapshots and units.
pub(crate) const NOT_OLD: [(&str, &str); 31] = [
    ("H4", "no feature words"),
    ("H6", "no checksum"),
    ("H7", "one header"),
    ("H8", "no generation"),
    ("H18", "hal/std/tests/spec2011.rs, b4-other-order"),
    (
        "H30",
        "a table makes it moot; d11-wants-zeros of spec2011.rs",
    ),
    ("H32", "the same code as in version 2"),
    ("B4", "a table; without one every block has its place"),
    ("B5", "the golden disk ends in a block"),
    ("B6", "hal/std/tests/spec2011.rs, c2-odd-blocks"),
    ("B7", "no checksum"),
    ("T2", "entries have 31 bits and chunks at most 2^31 bytes"),
    (
        "T4",
        "data start behind the metadata: no entry reaches them",
    ),
    ("T7", "no snapshots"),
    (
        "T8",
        "what lies behind the last entry is not looked at: T10",
    ),
    ("T9", "the same code as in version 2"),
    ("T11", "an entry names a place, never another entry"),
    ("J14", "sectors prove nothing"),
    ("J15", "sectors have no place"),
    ("J16", "no checksum"),
    ("S1", "no snapshots"),
    ("S2", "no snapshots"),
    ("S3", "no snapshots"),
    ("S4", "no snapshots"),
    ("S5", "no snapshots"),
    ("S6", "no snapshots"),
    ("S7", "no snapshots"),
    ("S8", "no snapshots"),
    ("S9", "no snapshots"),
    ("S10", "no snapshots"),
    ("S11", "no snapshots"),
];

/// Rows X are about all images alike; S12 is as the others of its letter.
pub(crate) fn is_elsewhere(id: &str) -> bool {
    id.starts_with('X') || id == "S12" || NOT_OLD.iter().any(|(row, _)| *row == id)
}

pub(crate) const DIALECTS: [OldFields; 2] = [REFERENCE, SPEC2011];

/// Rows of one dialect.
struct Rows {
    fields: OldFields,
    closed: Image,
    crashed: Image,
    rows: Vec<Row>,
}

impl Rows {
    fn add(&mut self, id: &'static str, what: &str, class: Class, image: Image) {
        let what = format!("{:?}: {what}", self.fields.dialect);
        self.rows.push(Row::new(id, what, image, class));
    }

    fn shows(&mut self, id: &'static str, what: &str, image: Image, contents: Vec<u8>) {
        let what = format!("{:?}: {what}", self.fields.dialect);
        self.rows.push(Row::shows(id, what, image, contents));
    }

    /// A closed image with a number changed.
    fn one(&mut self, id: &'static str, field: (usize, usize), values: &[u64], class: Class) {
        for value in values {
            let mut image = self.closed.clone();
            self.fields.set(&mut image, field, *value);
            let what = format!("{value:#x} at {}", field.0);
            self.add(id, &what, class, image);
        }
    }

    fn bytes(&mut self, id: &'static str, at: usize, bytes: &[u8], class: Class) {
        let mut image = self.closed.clone();
        image.metadata[at..at + bytes.len()].copy_from_slice(bytes);
        let what = format!("{:?} at {at}", String::from_utf8_lossy(bytes));
        self.add(id, &what, class, image);
    }

    /// A crashed image with one more sector in its journal.
    fn sector(&mut self, id: &'static str, what: &str, records: &[Vec<u8>], class: Class) {
        let mut image = self.crashed.clone();
        self.fields.put(&mut image, 7, records);
        self.add(id, what, class, image);
    }
}

pub(crate) fn rows(fields: OldFields) -> Vec<Row> {
    let mut rows = Rows {
        fields,
        closed: old_golden(&fields, End::Closed),
        crashed: old_golden(&fields, End::Crashed),
        rows: Vec::new(),
    };
    identity(&mut rows);
    sizes(&mut rows);
    places(&mut rows);
    sessions(&mut rows);
    names(&mut rows);
    base(&mut rows);
    bits_and_entries(&mut rows);
    journals(&mut rows);
    rows.rows
}

fn identity(rows: &mut Rows) {
    for len in [0, 511, 512, 3071, 4095, 4335] {
        let mut image = rows.closed.clone();
        image.metadata.truncate(len);
        rows.add("H1", &format!("{len} bytes long"), Corrupt, image);
    }
    for magic in MAGICS {
        rows.bytes("H2", 0, &magic, Unsupported);
    }
    let version = rows.fields.version;
    rows.one("H3", version, &[0, 3, 0xFFFF_FFFF], Unsupported);
    for byte in [1, 0xFF] {
        // `reserved` of the specification; in the reference what follows its last field.
        let from = if rows.fields.epoch.is_some() {
            3316
        } else {
            4336
        };
        let mut image = rows.closed.clone();
        image.metadata[from..8192].fill(byte);
        rows.add("H5", &format!("reserved full of {byte:#x}"), Opens, image);
    }
}

fn sizes(rows: &mut Rows) {
    let f = rows.fields;
    rows.one("H9", f.disk, &[DISK + 1, 511], Corrupt);
    let mut empty = rows.closed.clone();
    f.set(&mut empty, f.disk, 0);
    rows.shows("H9", "a disk of no bytes", empty, Vec::new());
    let blocks = [0, 1, 511, 513, BLOCK + 256, 0x8000_0200, 0xFFFF_FFFF];
    rows.one("H10", f.block, &blocks, Corrupt);
    let chunks = [0, 1, 511, 700, CHUNK + 256, 1 << 63, u64::MAX];
    rows.one("H11", f.chunk, &chunks, Corrupt);
    rows.one("H12", f.disk, &[u64::MAX, 1 << 63, 1025 * CHUNK], Corrupt);
    rows.one("H12", f.disk, &[1 << 62], Limit);
    if let Some(size) = f.table_size {
        let short = 4 * u64::from(CHUNKS) - 1;
        rows.one("H13", size, &[short, 4], Corrupt);
    } else {
        // It follows from the chunks: what it needs then lies over the journal.
        rows.one("H13", f.disk, &[1025 * CHUNK], Corrupt);
    }
    rows.one(
        "H14",
        f.grow,
        &[0, 1, CHUNK + 512, 1 << 63, u64::MAX],
        Opens,
    );
    rows.one("H15", f.bitmap_size, &[3, 0], Corrupt);
    rows.one("H15", f.bitmap_size, &[4, 1 << 62, u64::MAX], Opens);
    rows.one("H20", f.journal_size, &[1, 511, 513], Corrupt);
    rows.one("H20", f.journal_size, &[0, 512, 4096], Opens);
    rows.one("H20", f.journal_size, &[1 << 62, 65 << 20], Limit);
}

fn places(rows: &mut Rows) {
    let f = rows.fields;
    let end = rows.closed.metadata.len() as u64;
    let regions = [f.bitmap, f.table, f.journal];
    for region in regions {
        let place = f.get(&rows.closed, region);
        let bad = [
            0,
            4096,
            place + 100,
            end,
            end - 512,
            u64::MAX - 4095,
            1 << 63,
        ];
        rows.one("H16", region, &bad, Corrupt);
        for other in regions.into_iter().filter(|other| *other != region) {
            let over = f.get(&rows.closed, other);
            rows.one("H17", region, &[over, over + 512, over - 512], Corrupt);
        }
        rows.one("H17", f.data, &[place, place + 512], Corrupt);
    }
    rows.one("H16", f.data, &[0, 511, 4096, 1 << 63, u64::MAX], Corrupt);
    let mut short = rows.closed.clone();
    short.metadata.truncate(OLD_DATA_OFFSET + 512);
    rows.add("H16", "a device without the chunks", Corrupt, short);
}

fn sessions(rows: &mut Rows) {
    let f = rows.fields;
    let mut image = rows.closed.clone();
    f.set(&mut image, f.journal_size, 0);
    f.set(&mut image, f.clean, 0);
    rows.add("H19", "no journal, not clean: what is there", Opens, image);
    let crashed = rows.crashed.clone();
    rows.add("H22", "not clean", Opens, crashed.clone());
    if let Some(epoch) = f.epoch {
        let mut image = crashed.clone();
        f.set(&mut image, f.clean, 2);
        rows.add("H22", "a flag of 2 is not \"closed\"", Opens, image);
        // Above all records: nothing of the table is replayed.
        for value in [u64::MAX, 2] {
            let mut image = rows.closed.clone();
            f.set(&mut image, epoch, value);
            f.set(&mut image, f.clean, 0);
            f.put(&mut image, 0, &[f.entries(1, 0, &[15])]);
            rows.add("H21", &format!("epoch {value:#x}"), Opens, image.clone());
            rows.add("J13", &format!("epoch {value:#x}"), Opens, image);
        }
    } else {
        // No epochs: every record counts, and says what is there already.
        let mut image = crashed.clone();
        let again = f.entries(u64::MAX, 1, &[old_entry(&rows.closed, &f, 1)]);
        f.put(&mut image, 7, &[again]);
        rows.add("H21", "a record twice", Opens, image.clone());
        rows.add("J13", "a record twice", Opens, image);
    }
    // Closed: whatever the journal says is over.
    let mut image = rows.closed.clone();
    f.put(
        &mut image,
        0,
        &[f.entries(9, 0, &[15]), bitmap_record(0, 64)],
    );
    rows.add("H23", "closed, with records", Opens, image);
}

fn old_entry(image: &Image, fields: &OldFields, chunk: usize) -> u32 {
    let at = fields.get(image, fields.table) as usize + 4 * chunk;
    u32::from_le_bytes(image.metadata[at..at + 4].try_into().expect("four"))
}

fn names(rows: &mut Rows) {
    let f = rows.fields;
    for name in NAMES {
        rows.bytes("H24", f.base_name, name, Opens);
        rows.bytes("H27", f.command, name, Opens);
    }
    // To the last byte of the field: the start is kept.
    for at in [f.base_name, f.command] {
        rows.bytes("H25", at, &[b'n'; 1024], Opens);
        rows.bytes("H25", at, &[0xFF; 256], Opens);
    }
    for name in [&b"/etc/passwd"[..], &[b'n'; 1024]] {
        rows.bytes("H26", f.data_file, name, NeedData);
    }
}

fn base(rows: &mut Rows) {
    let f = rows.fields;
    rows.one("H28", f.base_size, &[BASE + 1, u64::MAX, 1 << 63], Corrupt);
    let mut alone = rows.closed.clone();
    alone.base = None;
    rows.add("H28", "a base that nobody gave", NeedBase, alone);
    let mut contents = rows.closed.last_state().to_vec();
    let mut image = rows.closed.clone();
    f.set(&mut image, f.prefetched, 1);
    for chunk in 0..CHUNKS as usize {
        let at = chunk * CHUNK as usize;
        let end = (at + CHUNK as usize).min(DISK as usize);
        if old_entry(&image, &f, chunk) == u32::MAX {
            contents[at..end].fill(0);
            continue;
        }
        // A block that the base hid was never written: whatever the store holds, here zeros.
        let bits = f.get(&image, f.bitmap) as usize;
        for block in at / BLOCK as usize..end.div_ceil(BLOCK as usize) {
            let inside = block * (BLOCK as usize) < BASE as usize;
            if inside && image.metadata[bits + block / 8] >> (block % 8) & 1 == 0 {
                let from = block * BLOCK as usize;
                let to = (from + BLOCK as usize).min(end);
                contents[from..to].fill(0);
                let place = old_entry(&image, &f, chunk) as usize * CHUNK as usize;
                let store = OLD_DATA_OFFSET + place + from - at;
                image.metadata[store..store + to - from].fill(0);
            }
        }
    }
    rows.shows("H29", "fully prefetched, it says", image, contents);
    for byte in [0, 1, 0x7F, 0x80, 0xFF] {
        let mut image = rows.closed.clone();
        for (at, len) in f.hints {
            image.metadata[at..at + len].fill(byte);
        }
        rows.add("H31", &format!("hints of {byte:#x}"), Opens, image);
    }
}

fn bits_and_entries(rows: &mut Rows) {
    let f = rows.fields;
    let bits = f.get(&rows.closed, f.bitmap) as usize;
    let mut image = rows.closed.clone();
    image.metadata[bits + 3] |= 0xFE; // 25 blocks
    image.metadata[bits + 4..bits + 4096].fill(0xFF);
    rows.add("B1", "bits behind the last block", Opens, image);
    // Block 0 and its chunk: nothing was written there.
    let mut image = rows.closed.clone();
    image.metadata[bits] |= 1;
    let mut contents = image.last_state().to_vec();
    contents[..BLOCK as usize].fill(0);
    rows.shows("B2", "a bit without an entry", image, contents);
    let mut image = rows.closed.clone();
    f.set_entry(&mut image, 0, 15);
    rows.add("B3", "an entry without a bit: the base", Opens, image);
    for entry in [16, 17, 0x7FFF_FFFE] {
        let mut image = rows.closed.clone();
        f.set_entry(&mut image, 0, entry);
        rows.add("T1", &format!("chunk {entry:#x} of 16"), Corrupt, image);
    }
    let mut image = rows.closed.clone();
    let taken = old_entry(&image, &f, 1);
    f.set_entry(&mut image, 0, taken);
    rows.add("T3", "two owners", Corrupt, image);
    let mut image = rows.closed.clone();
    f.set_entry(&mut image, 12, u32::MAX);
    let mut contents = image.last_state().to_vec();
    contents[12 * CHUNK as usize..].fill(0);
    rows.shows("T5", "all ones", image, contents);
    let mut image = rows.closed.clone();
    f.set_entry(&mut image, 1, taken | 1 << 31);
    rows.add("T6", "not saved yet, it says", Opens, image);
    let mut image = rows.closed.clone();
    let table = f.get(&image, f.table) as usize;
    image.metadata[table + 4 * CHUNKS as usize..table + 4096].fill(3);
    rows.add("T10", "entries behind the last one", Opens, image);
}

fn journals(rows: &mut Rows) {
    let f = rows.fields;
    for byte in [0, 0xFF, 0x5A] {
        let mut image = rows.crashed.clone();
        image.metadata[OLD_DATA_OFFSET - 512..OLD_DATA_OFFSET].fill(byte);
        rows.add("J1", &format!("a sector of {byte:#x}"), Opens, image);
    }
    let one = |record: Vec<u8>| [record];
    rows.sector("J2", "no sectors", &one(bitmap_record(0, 0)), Opens);
    let behind_base = bitmap_record((BASE / 512) as i64 + 3, u32::MAX);
    rows.sector("J2", "all sectors there can be", &one(behind_base), Opens);
    for first in [-1, i64::MIN] {
        rows.sector(
            "J3",
            "a negative sector",
            &one(bitmap_record(first, 9)),
            Opens,
        );
    }
    for first in [i64::MAX, (DISK / 512) as i64] {
        rows.sector(
            "J3",
            "behind the disk",
            &one(bitmap_record(first, 9)),
            Opens,
        );
    }
    let far = [13, 12, u32::MAX, u32::MAX - 1];
    for first in far {
        let record = f.entries(5, first, &[15, 14]);
        rows.sector("J4", &format!("entries from {first}"), &one(record), Opens);
    }
    rows.sector(
        "J5",
        "no entries, and a record behind them",
        &[f.entries(5, 3, &[]), f.entries(5, 13, &[15])],
        Opens,
    );
    for count in [130, 1000, u32::MAX] {
        let record = f.table_record(5, 0, count, &[1; 100]);
        rows.sector("J6", &format!("{count} entries"), &one(record), Opens);
    }
    for count in [1 << 30, (1 << 30) + 1, 1 << 31] {
        let record = f.table_record(5, 0, count, &[1; 100]);
        rows.sector("J7", &format!("{count:#x} times 4"), &one(record), Opens);
    }
    // Records of other lengths, so that none ends with the sector.
    let mut full = f.entries(5, 0, &[]);
    full.extend(vec![bitmap_record(4000, 1); 30].concat());
    while full.len() + 16 <= 512 {
        full.extend(f.entries(5, 0, &[]));
    }
    assert!(full.len() < 512);
    for left in 1..=512 - full.len() {
        let cut = [full.clone(), bitmap_record(0, 1)[..left].to_vec()];
        rows.sector("J8", &format!("a record cut after {left}"), &cut, Opens);
    }
    rows.sector(
        "J9",
        "an unknown type ends the sector",
        &[
            vec![1, 2, 3, 4],
            f.entries(5, 0, &[15]),
            bitmap_record(0, 4),
        ],
        Opens,
    );
    let records = if f.epoch.is_some() { 25 } else { 42 };
    rows.sector(
        "J10",
        "records of no entries",
        &vec![f.entries(5, 0, &[]); records],
        Opens,
    );
    // A second place for a chunk that has one: the first stays.
    rows.sector(
        "J11",
        "one epoch, another place",
        &one(f.entries(1, 1, &[15])),
        Opens,
    );
    rows.sector(
        "J12",
        "an epoch far off",
        &one(f.entries(u64::MAX, 1, &[15])),
        Opens,
    );
    let taken = old_entry(&rows.closed, &f, 1);
    rows.sector(
        "J17",
        "two owners",
        &one(f.entries(9, 0, &[taken])),
        Corrupt,
    );
    rows.sector(
        "J18",
        "a chunk that is not there",
        &one(f.entries(9, 0, &[99])),
        Corrupt,
    );
    for kept in [64, 256, 448] {
        // What did not land is as it was: zeros, which are chunk 0, which has an owner.
        let mut record = f.entries(9, 14, &vec![u32::MAX; 120]);
        record.truncate(kept);
        rows.sector("J19", &format!("{kept} bytes landed"), &one(record), Opens);
    }
    let mut natural = 0xB4E6_F7AC_u32.to_le_bytes().to_vec();
    natural.extend([0; 4]);
    natural.extend(200u64.to_le_bytes());
    natural.extend([1u32, 5, 15].into_iter().flat_map(u32::to_le_bytes));
    rows.sector("J20", "natural layout", &one(natural), Opens);
    let mut image = rows.closed.clone();
    f.set(&mut image, f.clean, 0);
    for sector in 0..8 {
        f.put(&mut image, sector, &vec![bitmap_record(5000, 1); 32]);
    }
    rows.add("J21", "every sector full", Opens, image);
}

fn every(step: usize) {
    let mut bench = Bench::new();
    for fields in DIALECTS {
        for end in [End::Closed, End::Crashed] {
            let image = old_golden(&fields, end);
            let mut devices = image.devices::<true>();
            let (mut opened, mut refused) = (0, 0);
            for at in (0..OLD_DATA_OFFSET).step_by(step) {
                let byte = devices.metadata.bytes[at];
                for new in [0, 0xFF, byte.wrapping_add(1), byte ^ 1 << (at % 8)] {
                    devices.metadata.bytes[at] = new;
                    let (back, outcome) = bench.open(devices, options());
                    devices = back;
                    devices.rewind();
                    assert_eq!(devices.faults, [""; 0], "{at} as {new:#x}");
                    match outcome.result {
                        Ok(_) => opened += 1,
                        Err(_) => refused += 1,
                    }
                }
                devices.metadata.bytes[at] = byte;
            }
            println!(
                "{:?} {end:?}: {opened} opened, {refused} refused",
                fields.dialect
            );
            assert!(opened > 100 && refused > 10);
        }
    }
}

/// X5 for images without checksums: what a changed byte makes of the contents nobody can know, but
/// opening is harmless.
#[test]
fn every_11th_byte_of_four_old_images() {
    every(11);
}

#[test]
#[ignore = "a third of a million openings; `.ci/run hostile` runs it, optimised"]
fn every_byte_of_four_old_images() {
    every(1);
}
