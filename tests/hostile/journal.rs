//! Rows J: journals of units whose checksums are right.

use crate::bench::Class::{self, Corrupt, Opens};
use crate::image::{
    CHUNK, CHUNKS, End, FULL, Image, KINDS, Kind, STORE_CHUNKS, Unit, field, golden, map_record,
    store_record,
};
use crate::row::Row;

const ENTRY: u8 = 1;
const BITS: u8 = 2;
/// Flags of a unit: last of its commit; not everything before it known durable; index 1.
const LAST: u16 = 1;
const UNSURE: u16 = 2;
const INDEX_1: u16 = 4;

/// A record that says what the golden image says already.
fn old_news(image: &Image) -> Vec<u8> {
    map_record(ENTRY, 0, 1, image.entry(1))
}

/// An image with one unit to replay, made of these records.
fn replaying(kind: Kind, records: &[&[u8]], change: impl FnOnce(&mut Unit)) -> Image {
    let mut image = golden(kind, End::Closed);
    let mut unit = Unit::new(image.seq(), image.seq(), records);
    change(&mut unit);
    image.put(&unit);
    image
}

fn records(id: &'static str, what: &str, list: &[&[u8]], class: Class) -> Row {
    let what = format!("{what}: {list:x?}");
    Row::new(id, what, replaying(FULL, list, |_| ()), class)
}

pub(crate) fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    noise(&mut rows);
    single_records(&mut rows);
    lengths(&mut rows);
    runs(&mut rows);
    left_overs(&mut rows);
    results(&mut rows);
    rows
}

fn noise(rows: &mut Vec<Row>) {
    let mut rng = crate::common::Rng(21);
    for (what, mut byte) in [
        ("zeros", Box::new(|| 0u8) as Box<dyn FnMut() -> u8>),
        ("ones", Box::new(|| 0xFFu8)),
        ("noise", Box::new(move || rng.next() as u8)),
    ] {
        for kind in [FULL, KINDS[5]] {
            let mut image = golden(kind, End::Closed);
            let start = image.u64_at(field::JOURNAL) as usize;
            let size = image.u64_at(field::JOURNAL_SIZE) as usize;
            image.metadata[start..start + size].fill_with(&mut byte);
            rows.push(Row::new("J1", format!("a journal of {what}"), image, Opens));
        }
    }
}

fn single_records(rows: &mut Vec<Row>) {
    let map = |flags, bits, chunk, entry| map_record(flags, bits, chunk, entry);
    for record in [
        map(0, 0, 1, 0),            // says nothing
        map(4, 0, 1, 0),            // an unknown flag
        map(0xFF, 0, 1, 0),         // all flags
        map(ENTRY, 1, 1, u32::MAX), // bits that it says it has not
        map(BITS, 1, 1, 5),         // an entry that it says it has not
    ] {
        rows.push(records("J2", "flags", &[&record], Corrupt));
    }
    for record in [
        map(ENTRY, 0, CHUNKS, u32::MAX),
        map(ENTRY, 0, u32::MAX, u32::MAX),
        map(ENTRY, 0, 1 << 31, u32::MAX),
        map(BITS, 1, 7, 0),    // behind the last bit
        map(BITS, 2, 6, 0),    // the one beside it
        map(BITS, 0x10, 0, 0), // a fifth block of a chunk of four
    ] {
        rows.push(records(
            "J3",
            "behind the disk or its base",
            &[&record],
            Corrupt,
        ));
    }
    for entry in [STORE_CHUNKS as u32, 0x7FFF_FFFF, 0x8000_0000, 0xFFFF_FFFE] {
        let record = map(ENTRY, 0, 0, entry);
        rows.push(records(
            "J4",
            "an entry outside the store",
            &[&record],
            Corrupt,
        ));
    }
    // One image has no table, the other no bitmap: their records are not each other's.
    let record = map(ENTRY, 0, 0, 1);
    let image = replaying(KINDS[2], &[&record], |_| ());
    rows.push(Row::new("J4", "an entry without a table", image, Corrupt));
    let record = map(BITS, 1, 0, 0);
    let image = replaying(KINDS[1], &[&record], |_| ());
    rows.push(Row::new("J4", "bits without a bitmap", image, Corrupt));
    // What the 2011 formats would have written there.
    let mut table_2011 = vec![0xAC, 0xF7, 0xE6, 0xB4];
    table_2011.extend([0; 20]);
    let mut bitmap_2011 = vec![0xED, 0xB8, 0x2A, 0x3F, 1];
    bitmap_2011.extend([0; 11]);
    rows.push(records(
        "J20",
        "a table record of 2011",
        &[&table_2011],
        Corrupt,
    ));
    rows.push(records(
        "J20",
        "a bitmap record of 2011",
        &[&bitmap_2011],
        Corrupt,
    ));
}

fn lengths(rows: &mut Vec<Row>) {
    rows.push(records("J5", "a unit without records", &[], Opens));
    for used in [481, 512, 0x7FFF, u16::MAX] {
        let image = replaying(FULL, &[], |unit| unit.used = used);
        let what = format!("{used} bytes of records in a unit of 480");
        rows.push(Row::new("J7", what, image, Opens)); // such a unit was never written
    }
    let old = old_news(&golden(FULL, End::Closed));
    for cut in 1..12 {
        for whole in [0, 1, 39] {
            let list = vec![old.as_slice(); whole + 1];
            let image = replaying(FULL, &list, |unit| unit.used = 12 * whole as u16 + cut);
            let id = if whole == 39 { "J6" } else { "J8" };
            let what = format!("{whole} records and {cut} bytes");
            rows.push(Row::new(id, what, image, Corrupt));
        }
    }
    for kind in [0, 3, 0x80, 0xFF] {
        rows.push(records(
            "J9",
            "an unknown kind",
            &[&old, &[kind; 12]],
            Corrupt,
        ));
    }
    let many = vec![old.as_slice(); 40];
    rows.push(records("J10", "a unit full of one record", &many, Opens));
}

/// Units in a run, and beside it.
fn runs(rows: &mut Vec<Row>) {
    let image = golden(FULL, End::Closed);
    let (seq, old) = (image.seq(), old_news(&image));
    let unmap = map_record(ENTRY, 0, 9, u32::MAX);
    let unit = |seq, flags, record: &[u8]| Unit {
        flags,
        ..Unit::new(seq, image.seq(), &[record])
    };
    let mut row = |id, what: &str, class, units: &[Unit]| {
        let mut image = image.clone();
        for unit in units {
            image.put(unit);
        }
        rows.push(Row::new(id, what, image, class));
    };
    let (good, next) = (unit(seq, LAST, &old), unit(seq + 1, LAST, &old));
    row("J12", "two in a row", Opens, &[good.clone(), next.clone()]);
    row("J12", "a gap before proof of loss", Corrupt, &[next]);
    let overtook = unit(seq + 1, LAST | UNSURE, &unmap);
    row("J12", "a gap before one that overtook", Opens, &[overtook]);
    let far = unit(seq + 7, LAST | UNSURE, &unmap);
    row("J12", "the last slot alone", Opens, &[far]);
    let newest = Unit::new((1 << 63) - 1, seq, &[&old]);
    row("J12", "the last number of all", Corrupt, &[newest]);
    let open = unit(seq, 0, &unmap);
    row(
        "J16",
        "a commit without its end",
        Opens,
        core::slice::from_ref(&open),
    );
    let stray = unit(seq + 1, LAST | (INDEX_1 * 2), &old);
    row(
        "J12",
        "an index that does not follow",
        Corrupt,
        &[open, stray],
    );
    let deep = unit(seq, LAST | (INDEX_1 * 100), &old);
    row("J12", "an index beyond any commit", Corrupt, &[deep]);
    let knows_more = Unit::new(seq, seq + 1, &[&old]);
    row(
        "J21",
        "a unit that knows a newer header",
        Corrupt,
        &[knows_more],
    );
    let all: Vec<Unit> = (seq..seq + 8).map(|seq| unit(seq, LAST, &old)).collect();
    row("J21", "a journal full of units", Opens, &all);
    let full: Vec<Unit> = (seq..seq + 8)
        .map(|at| Unit::new(at, seq, &vec![old.as_slice(); 40]))
        .collect();
    row("J21", "full units in all slots", Opens, &full);
    let endless: Vec<Unit> = (seq..seq + 8)
        .map(|at| unit(at, INDEX_1 * (at - seq) as u16, &old))
        .collect();
    row("J21", "a commit as long as the journal", Corrupt, &endless);
}

/// Units that are no longer, or never were, of this image at this place.
fn left_overs(rows: &mut Vec<Row>) {
    let unmap = map_record(ENTRY, 0, 9, u32::MAX);
    let image = golden(FULL, End::Closed);
    let seq = image.seq();
    let real = Unit::new(seq, seq, &[&unmap]);
    let mut row = |id, what: &str, change: &dyn Fn(&mut Image)| {
        let mut image = image.clone();
        change(&mut image);
        rows.push(Row::new(id, what, image, Opens));
    };
    row("J11", "the same number in another slot", &|image| {
        image.put_at(&real, (seq + 1) % 8);
    });
    row("J13", "a number below stable_seq", &|image| {
        image.put(&Unit::new(seq - 1, seq - 1, &[&unmap]));
    });
    row("J14", "a unit of another image", &|image| {
        let foreign = Unit {
            id: *b"some other image",
            ..real.clone()
        };
        image.put(&foreign);
    });
    for slot in (0..8).filter(|slot| *slot != seq % 8) {
        row("J15", "a unit at a place that is not its own", &|image| {
            image.put_at(&real, slot);
        });
    }
    for cut in [64, 256, 448, 480, 500] {
        row("J19", "a torn unit", &|image| {
            let start = image.u64_at(field::JOURNAL) + seq % 8 * 512;
            let place = start as usize..start as usize + 512;
            let old = image.metadata[place.clone()].to_vec();
            image.put(&Unit::new(seq, seq, &vec![unmap.as_slice(); 40]));
            image.metadata[place][cut..].copy_from_slice(&old[cut..]);
        });
    }
    row("J16", "a commit whose second unit is damaged", &|image| {
        let flags = 0;
        image.put(&Unit {
            flags,
            ..real.clone()
        });
        let second = Unit {
            flags: LAST | INDEX_1,
            ..Unit::new(seq + 1, seq, &[&unmap])
        };
        image.put(&second);
        let at = image.u64_at(field::JOURNAL) + (seq + 1) % 8 * 512 + 3;
        image.metadata[at as usize] ^= 1;
    });
}

/// Records that are right one by one, and wrong as a whole.
fn results(rows: &mut Vec<Row>) {
    let image = golden(FULL, End::Closed);
    let mapped = image.entry(1);
    let twice = map_record(ENTRY, 0, 0, mapped);
    rows.push(records(
        "J17",
        "two chunks in one place",
        &[&twice],
        Corrupt,
    ));
    let both = [map_record(ENTRY, 0, 7, 15), map_record(ENTRY, 0, 8, 15)];
    rows.push(records(
        "J17",
        "both of them new",
        &[&both[0], &both[1]],
        Corrupt,
    ));
    let end = image.metadata.len() as u64;
    for (floor, bytes) in [
        (0, 65535), // ends before the chunks begin
        (0, 0),
        (17, end),      // a floor above it
        (0, end + 512), // longer than the device
        (0, end + CHUNK),
        (0, 1 << 63),
        (0, u64::MAX),
        (u32::MAX, u64::MAX),
    ] {
        let record = store_record(floor, bytes);
        rows.push(records(
            "J18",
            "a store that can not be",
            &[&record],
            Corrupt,
        ));
    }
    let beyond = [store_record(0, end + CHUNK), map_record(ENTRY, 0, 0, 16)];
    rows.push(records(
        "J18",
        "a chunk in such a store",
        &[&beyond[0], &beyond[1]],
        Corrupt,
    ));
    // The floor of an image on a new store lies where its chunks end.
    let image = golden(KINDS[1], End::Closed);
    let free = image.u64_at(field::ZERO_FLOOR) as u32;
    let above = map_record(ENTRY, 0, 0, free);
    let image = replaying(KINDS[1], &[&above], |_| ());
    rows.push(Row::new(
        "J18",
        "a mapping where nothing was ever written",
        image,
        Corrupt,
    ));
}
