//! Journals made by hand: what holds for every unit, what for replayed ones, and where numbers end.

use super::headers::{crc32c, seal};
use super::{Both, CLEAN, CORRUPT, End, SLOT, newest, u64_at};

const STABLE_SEQ: usize = 3208;
const LAST: u16 = 1;
const UNSURE: u16 = 2;

/// An image that was closed, and what a unit of its journal has to know.
struct Journal {
    both: Both,
    image: Vec<u8>,
    offset: usize,
    units: u64,
    stable_seq: u64,
}

impl Journal {
    fn new() -> Option<Journal> {
        let both = Both::written(End::Closed)?;
        let image = both.folder.read("disk.fvd");
        let slot = newest(&image);
        let unit = u32::from_le_bytes(image[slot + 3432..][..4].try_into().expect("four bytes"));
        Some(Journal {
            offset: u64_at(&image, slot + 3192) as usize,
            units: u64_at(&image, slot + 3200) / u64::from(unit),
            stable_seq: u64_at(&image, slot + STABLE_SEQ),
            image,
            both,
        })
    }

    /// A unit that counts, in its place.
    fn put(&mut self, seq: u64, flags: u16, records: &[u8]) {
        let unit = 4096;
        let at = self.offset + (seq % self.units) as usize * unit;
        let image_id = self.image[newest(&self.image) + 3368..][..16].to_vec();
        let mut trailer = [0; 32];
        trailer[4..8].copy_from_slice(b"FVDJ");
        trailer[8..16].copy_from_slice(&seq.to_le_bytes());
        trailer[24..26].copy_from_slice(&(records.len() as u16).to_le_bytes());
        trailer[26..28].copy_from_slice(&flags.to_le_bytes());
        let crc = crc32c(&[&image_id, records, &trailer[..28]].concat());
        trailer[28..].copy_from_slice(&crc.to_le_bytes());
        self.image[at..at + unit].fill(0);
        self.image[at..at + records.len()].copy_from_slice(records);
        self.image[at + unit - 32..at + unit].copy_from_slice(&trailer);
    }

    /// Changes the header that counts.
    fn change_header(&mut self, at: usize, bytes: &[u8]) {
        let slot = newest(&self.image);
        self.image[slot ^ SLOT..][..SLOT].fill(0);
        let slot = &mut self.image[slot..slot + SLOT];
        slot[at..at + bytes.len()].copy_from_slice(bytes);
        seal(slot);
    }

    #[track_caller]
    fn say(&self, code: i32, what: &str) {
        self.both.say_of(code, &self.image, what);
    }
}

fn index(of: u16) -> u16 {
    of << 2
}

#[test]
fn the_index_of_every_unit_that_counts_is_legal() {
    let Some(journal) = Journal::new() else {
        return;
    };
    let stable_seq = journal.stable_seq;
    let most = (journal.units / 2).min(65536 / 4096) as u16;
    assert!(
        most > 3 && stable_seq > u64::from(most),
        "{most}, {stable_seq}"
    );
    for (seq, flags, code) in [
        (stable_seq - 1, UNSURE | index(most - 1), CLEAN),
        (stable_seq - 1, UNSURE | index(most), CORRUPT),
        (stable_seq - 1, LAST | index(most), CORRUPT),
        (2, LAST | index(2), CLEAN),
        (2, LAST | index(3), CORRUPT),
        (stable_seq + 2, UNSURE | index(1), CLEAN),
        (stable_seq + 2, UNSURE | index(most), CORRUPT),
        (stable_seq, LAST | index(1), CORRUPT),
    ] {
        let mut journal = Journal::new().expect("as before");
        journal.put(seq, flags, &[]);
        journal.say(code, &format!("unit {seq}, flags {flags:#x}"));
    }
}

#[test]
fn only_records_that_are_replayed_are_looked_at() {
    let Some(journal) = Journal::new() else {
        return;
    };
    let stable_seq = journal.stable_seq;
    let unknown = [9; 12];
    let flags_missing = [1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    let beyond_the_disk = [1, 1, 0, 0, 0, 0, 0, 0x10, 0xFF, 0xFF, 0xFF, 0xFF];
    let cut_off = [1, 1, 0];
    for records in [
        &unknown[..],
        &flags_missing[..],
        &beyond_the_disk[..],
        &cut_off[..],
    ] {
        for (seq, flags, code) in [
            (stable_seq - 1, LAST, CLEAN),
            (stable_seq + 2, LAST | UNSURE, CLEAN),
            (stable_seq, 0, CLEAN), // a commit without its last unit is dropped
            (stable_seq, LAST, CORRUPT),
        ] {
            let mut journal = Journal::new().expect("as before");
            journal.put(seq, flags, records);
            journal.say(code, &format!("unit {seq}, flags {flags:#x}, {records:?}"));
        }
    }
}

#[test]
fn the_last_sequence_numbers_are_refused_by_both() {
    let Some(journal) = Journal::new() else {
        return;
    };
    let end = (1 << 63) - journal.units;
    for (stable_seq, code) in [(end - 1, CLEAN), (end, CORRUPT), ((1 << 63) - 1, CORRUPT)] {
        let mut journal = Journal::new().expect("as before");
        journal.change_header(STABLE_SEQ, &u64::to_le_bytes(stable_seq));
        journal.say(code, &format!("stable_seq {stable_seq}"));
    }
    for (seq, code) in [
        (end - 2, CLEAN),
        (end - 1, CORRUPT),
        ((1 << 63) - 1, CORRUPT),
    ] {
        let mut journal = Journal::new().expect("as before");
        journal.put(seq, LAST | UNSURE, &[]);
        journal.say(code, &format!("a unit {seq} beyond the gap"));
    }
}

#[test]
fn an_entry_at_the_zero_floor_is_damage_to_both() {
    let Some(mut journal) = Journal::new() else {
        return;
    };
    journal.change_header(3416, &[1]);
    journal.say(CORRUPT, "a floor below chunks in use");
}

#[test]
fn what_is_behind_the_last_checksum_means_nothing() {
    let Some(mut journal) = Journal::new() else {
        return;
    };
    let slot = newest(&journal.image);
    for array in [3440, 3448] {
        let at = u64_at(&journal.image, slot + array) as usize;
        journal.image[at + 8..at + SLOT].fill(0xA5); // one page of table, one of bitmap
    }
    journal.say(CLEAN, "noise behind the checksums");
}
