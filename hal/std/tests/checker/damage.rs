//! Damage that the two must judge alike: flipped bytes, lost units, files that were cut off.

use std::ops::Range;

use super::{Both, CLEAN, CORRUPT, End, MEBI, SLOT, newest, u64_at};

/// A region by the places of its offset and size in the header (SPEC §3.1, §3.2).
fn region(image: &[u8], offset: usize, size: usize) -> Range<usize> {
    let slot = newest(image);
    let start = u64_at(image, slot + offset) as usize;
    start..start + u64_at(image, slot + size) as usize
}

fn table(image: &[u8]) -> Range<usize> {
    region(image, 2136, 2144)
}

fn bitmap(image: &[u8]) -> Range<usize> {
    region(image, 2112, 2120)
}

fn journal(image: &[u8]) -> Range<usize> {
    region(image, 3192, 3200)
}

/// Flips the byte at each place in turn, in a copy of the image. What both say of each.
fn flipped(both: &Both, places: impl IntoIterator<Item = usize>) -> Vec<i32> {
    let mut image = both.folder.read("disk.fvd");
    let mut verdicts = Vec::new();
    for place in places {
        image[place] ^= 0x41;
        verdicts.push(both.verdict_on(&image, &format!("byte {place} flipped")));
        image[place] ^= 0x41;
    }
    verdicts
}

#[test]
fn a_flipped_byte_is_the_same_to_both() {
    for end in [End::Closed, End::Flushed] {
        let Some(both) = Both::written(end) else {
            return;
        };
        let image = both.folder.read("disk.fvd");
        let slot = newest(&image);
        // One slot may always be torn, but the older one of an open image does not know all units.
        let older = flipped(&both, [0, 8, 2000, 3400, 4095].map(|at| (slot ^ SLOT) + at));
        assert_eq!(older, [CLEAN; 5], "{end:?}");
        let newer = flipped(&both, [0, 8, 2000, 3400, 4095].map(|at| slot + at));
        let expected = if end == End::Closed { CLEAN } else { CORRUPT };
        assert_eq!(newer, [expected; 5], "{end:?}");
        // What a unit is still to say does not matter in place; all else of its page does.
        let (table, bitmap) = (table(&image), bitmap(&image));
        let places = [table.start, table.end - 1, bitmap.start, bitmap.end - 1];
        let pages = flipped(&both, places);
        let said = if end == End::Closed { CORRUPT } else { CLEAN };
        assert_eq!(pages, [said, CORRUPT, CORRUPT, CORRUPT], "{end:?}");
        let active = 3440 + 8 * usize::from(image[slot + 3436]);
        let (active, spare) = (
            region(&image, active, 3456),
            region(&image, 6888 - active, 3456),
        );
        let sums = flipped(&both, [active.start, active.start + 7]);
        assert_eq!(sums, [CORRUPT; 2], "{end:?}");
        assert_eq!(flipped(&both, [spare.start, spare.end - 1]), [CLEAN; 2]);
        // A damaged unit ends the run, or is proof that something was lost, or is old.
        let journal = journal(&image);
        let step = (journal.len() - 20) / 16;
        flipped(&both, journal.step_by(step).map(|at| at + 12).take(16));
    }
}

#[test]
fn each_unit_of_a_live_journal_is_the_same_to_both_when_damaged_or_gone() {
    let Some(both) = Both::written(End::Flushed) else {
        return;
    };
    let image = both.folder.read("disk.fvd");
    let unit = u32::from_le_bytes(image[3432..3436].try_into().expect("four bytes")) as usize;
    let magic = |at: &usize| image[at + unit - 28..at + unit - 24] == *b"FVDJ";
    let units: Vec<usize> = journal(&image).step_by(unit).filter(magic).collect();
    assert!(units.len() > 3, "{units:?}");
    let mut verdicts = flipped(&both, units.iter().copied());
    for at in &units {
        let mut copy = image.clone();
        copy[*at..at + unit].fill(0);
        verdicts.push(both.verdict_on(&copy, &format!("the unit at {at} gone")));
    }
    assert!(verdicts.contains(&CORRUPT), "{verdicts:?}");
}

#[test]
fn a_cut_off_image_is_the_same_to_both() {
    for (create, data) in [
        ("convert raw disk.fvd", None),
        ("convert --table off raw disk.fvd", None),
        ("convert --target-data-file data raw disk.fvd", Some("data")),
    ] {
        let Some(both) = Both::with_raw() else { return };
        both.folder.run(create).ends(0);
        let image = both.folder.read("disk.fvd");
        let end = image.len();
        for len in [0, 1, 4096, 8191, 8192, 12288, 20_000, end - 512, end - 1] {
            both.folder.write("copy.fvd", &image[..len]);
            let what = format!("{create}, cut to {len} bytes");
            both.say(CORRUPT, "copy.fvd", data, &what);
        }
        let mut longer = image.clone();
        longer.resize(image.len() + 3 * MEBI, 1);
        both.folder.write("copy.fvd", &longer);
        both.say(CLEAN, "copy.fvd", data, create);
        longer.truncate(image.len() + 100);
        both.folder.write("copy.fvd", &longer);
        both.say(CLEAN, "copy.fvd", data, "a part of a sector more");
        if let Some(data) = data {
            let data = both.folder.read(data);
            for missing in [512, 511, 1] {
                both.folder.write("short", &data[..data.len() - missing]);
                let what = format!("a data file without its last {missing} bytes");
                both.say(CORRUPT, "disk.fvd", Some("short"), &what);
            }
        }
    }
}
