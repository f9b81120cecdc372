//! `fvd check --repair`: everything that is wrong is reported, what needs no guess is mended, and an
//! image with damage is left as it is.

mod common;

use common::cli::Folder;
use common::{Bench, Noise};
use fvd::device::{OpKind, Status};
use fvd::format::page::{page_checksum, write_checksum};
use fvd::format::table::{TableEntry, write_entry};
use fvd::format::{Header, Limits, SLOT_BYTES, choose_slot};
use fvd::units::{ChunkIndex, StoreChunk};
use fvd_std::image::{Access, BaseFormat, Image, Parts};
use serde_json::{Value, json};

const MEBI: u64 = 1 << 20;
const PAGE: usize = 4096;

/// An image and ways to make it wrong under right checksums.
struct Patient {
    folder: Folder,
    bytes: Vec<u8>,
}

impl Patient {
    /// A closed image of 8 MiB over a base of 3 MiB, with chunks 0, 2 and 5 written and spare space
    /// at its end.
    fn new() -> Patient {
        let folder = Folder::new();
        folder.write("base", &Noise::new(8).bytes(3 << 20));
        folder
            .run("create --base base --grow-unit 2M disk.fvd 8M")
            .ends(0);
        let patient = Patient {
            folder,
            bytes: Vec::new(),
        };
        let mut bench = Bench::new();
        let mut image = patient.open(&mut bench);
        for chunk in [0, 2, 5] {
            let data = Noise::new(chunk).bytes(70_000 / 512 * 512);
            let status = bench.write(&mut image, chunk * MEBI + 4096, &data);
            assert_eq!(status, Status::Done);
        }
        image.close(&mut bench.driver).expect("closed");
        patient.loaded()
    }

    fn open(&self, bench: &mut Bench) -> Image {
        let parts = Parts {
            base: Some((self.folder.path("base"), BaseFormat::Raw)),
            ..Parts::default()
        };
        let path = self.folder.path("disk.fvd");
        Image::open(&mut bench.driver, &path, Access::ReadWrite, &parts).expect("opened")
    }

    fn loaded(mut self) -> Patient {
        self.bytes = self.folder.read("disk.fvd");
        self
    }

    fn store(&self) {
        self.folder.write("disk.fvd", &self.bytes);
    }

    fn header(&self) -> Header {
        let (first, rest) = self.bytes.split_at(SLOT_BYTES);
        let chosen = choose_slot(first, &rest[..SLOT_BYTES], &Limits::FORMAT);
        chosen.expect("a header").header
    }

    /// Writes the header anew, to both slots.
    fn set_header(&mut self, change: impl FnOnce(&mut Header)) {
        let mut header = self.header();
        change(&mut header);
        for slot in [0, SLOT_BYTES] {
            let slot = self.bytes[slot..].first_chunk_mut().expect("a slot");
            header.encode(slot).expect("legal");
        }
    }

    fn table(&mut self) -> &mut [u8] {
        let table = self.header().core.table;
        &mut self.bytes[table.offset as usize..][..table.bytes as usize]
    }

    fn bitmap(&mut self) -> &mut [u8] {
        let bitmap = self.header().core.bitmap;
        &mut self.bytes[bitmap.offset as usize..][..bitmap.bytes as usize]
    }

    /// Gives every page a right checksum.
    fn seal_pages(&mut self) {
        let header = self.header();
        let array = header.checksum_region(header.checksum_active).offset as usize;
        for (number, region) in [(0, header.core.table), (1, header.core.bitmap)] {
            let page = self.bytes[region.offset as usize..].first_chunk::<PAGE>();
            let sum = page_checksum(&header.image_id, number, page.expect("a page"));
            assert!(write_checksum(&mut self.bytes[array..], number, sum));
        }
    }

    fn set_entry(&mut self, chunk: u32, entry: TableEntry) {
        assert!(write_entry(self.table(), ChunkIndex(chunk), entry));
        self.seal_pages();
    }

    fn check(&self, options: &str, code: i32) -> Value {
        let said = self.folder.run(&format!("check --json {options} disk.fvd"));
        let said = said.ends(code);
        serde_json::from_str(&said.out).expect("JSON")
    }

    /// What the guest reads.
    fn content(&self) -> Vec<u8> {
        let convert = "convert --force -f fvd -O raw --base base disk.fvd back";
        self.folder.run(convert).ends(0);
        self.folder.read("back")
    }

    /// Fails unless a repair mends the image, calls it by `name`, and leaves what the guest reads.
    #[track_caller]
    fn is_mended(&self, name: &str, content: &[u8]) {
        let seen = self.check("", 2);
        assert_eq!(names(&seen["errors"]), [name], "{seen}");
        assert_eq!(seen["errors"][0]["severity"], "repairable", "{seen}");
        assert_eq!(seen["repaired"], 0, "{seen}");
        assert!(
            self.folder.read("disk.fvd") == self.bytes,
            "a look changed it"
        );
        let convert = "convert --force -f fvd -O raw --base base disk.fvd back";
        self.folder.run(convert).ends(1);
        let report = self.check("--repair", 0);
        assert_eq!(report["errors"][0]["repaired"], true, "{report}");
        assert_eq!(
            (&report["corruptions"], &report["left"], &report["clean"]),
            (&json!(0), &json!(0), &json!(true)),
            "{report}"
        );
        let again = self.check("--repair", 0);
        assert_eq!((&again["repaired"], &again["left"]), (&json!(0), &json!(0)));
        assert!(self.content() == content, "the content changed");
    }

    /// Fails unless a check finds exactly this damage, and a repair leaves the image as it is.
    #[track_caller]
    fn is_refused(&self, expected: &[&str]) -> Value {
        let report = self.check("--repair", 2);
        assert_eq!(names(&report["errors"]), expected, "{report}");
        assert_eq!(report["left"], expected.len(), "{report}");
        assert_eq!(report["repair_refused"], true, "{report}");
        assert!(self.folder.read("disk.fvd") == self.bytes, "it was changed");
        let said = self.folder.run("check --repair disk.fvd").ends(2);
        assert!(said.out.contains("not repaired"), "{said:?}");
        report
    }
}

fn names(list: &Value) -> Vec<&str> {
    let list = list.as_array().expect("a list");
    list.iter().filter_map(|it| it["name"].as_str()).collect()
}

#[test]
fn a_store_that_lost_nothing_but_spare_space_is_mended() {
    let mut patient = Patient::new();
    let content = patient.content();
    let header = patient.header();
    let used = header.core.data_offset + 3 * header.core.chunk_bytes;
    assert!(patient.bytes.len() as u64 > used, "no space to spare");
    patient.bytes.truncate(used as usize + 512);
    patient.store();
    patient.is_mended("short-store", &content);
    patient.bytes.truncate(used as usize - 512);
    patient.store();
    let report = patient.is_refused(&["lost-chunk", "short-store"]);
    let lost = json!({"start": 5 * MEBI, "length": MEBI});
    assert_eq!(report["errors"][0]["guest"], lost, "{report}");
}

#[test]
fn a_zero_floor_that_is_too_low_is_raised() {
    let mut patient = Patient::new();
    let content = patient.content();
    patient.set_header(|header| header.zero_floor_chunk = 1);
    patient.store();
    patient.is_mended("zero-floor", &content);
    let header = patient.loaded().header();
    let chunks = u64::from(header.chunks_in(header.store_bytes));
    assert_eq!(header.zero_floor_chunk, chunks, "nothing is known of any");
}

#[test]
fn what_stands_behind_table_and_bitmap_is_cleared() {
    for (name, in_table) in [("table-tail", true), ("bitmap-tail", false)] {
        let mut patient = Patient::new();
        let content = patient.content();
        let last = PAGE - 1;
        if in_table {
            patient.table()[last] = 7;
        } else {
            patient.bitmap()[last] = 7;
        }
        patient.store();
        patient.is_mended(name, &content);
    }
}

#[test]
fn a_journal_is_replayed_and_a_lost_header_written_anew() {
    let patient = Patient::new();
    let mut bench = Bench::new();
    let mut image = patient.open(&mut bench);
    let data = Noise::new(9).bytes(8192);
    assert_eq!(bench.write(&mut image, 7 * MEBI, &data), Status::Done);
    assert_eq!(bench.run(&mut image, OpKind::Flush, 0, 0), Status::Done);
    drop(image);
    let mut patient = patient.loaded();
    let content = patient.content();
    assert!(content[7 << 20..].starts_with(&data));
    let older = {
        let (first, rest) = patient.bytes.split_at(SLOT_BYTES);
        let chosen = choose_slot(first, &rest[..SLOT_BYTES], &Limits::FORMAT);
        chosen.expect("a header").slot.other().offset() as usize
    };
    patient.bytes[older + 100] ^= 1;
    patient.store();
    let seen = patient.check("", 0);
    let expected = ["lost-header", "unfinished-session"];
    assert_eq!(names(&seen["notes"]), expected, "{seen}");
    assert_eq!(seen["notes"][1]["value"], 1, "one record waits: {seen}");
    let report = patient.check("--repair", 0);
    assert_eq!(
        (&report["repaired"], &report["left"]),
        (&json!(2), &json!(0))
    );
    assert_eq!(names(&patient.check("", 0)["notes"]), [""; 0]);
    assert!(patient.content() == content);
}

#[test]
fn all_damage_is_reported_with_what_it_concerns() {
    let mut patient = Patient::new();
    patient.set_entry(1, TableEntry::Chunk(StoreChunk(0)));
    patient.set_entry(3, TableEntry::Chunk(StoreChunk(99)));
    let entry = 4 * 4;
    patient.table()[entry..entry + 4].copy_from_slice(&0x8000_0001_u32.to_le_bytes());
    patient.seal_pages();
    patient.bitmap()[1] ^= 1;
    patient.store();
    let report = patient.is_refused(&[
        "shared-chunk",
        "table-entry",
        "table-entry",
        "page-checksum",
    ]);
    let errors = report["errors"].as_array().expect("a list");
    let what = errors[0]["what"].as_str().expect("text");
    assert!(
        what.contains("entry 1") && what.contains("as entry 0"),
        "{what}"
    );
    let guest: Vec<&Value> = errors
        .iter()
        .map(|error| &error["guest"]["start"])
        .collect();
    assert_eq!(
        guest,
        [&json!(MEBI), &json!(3 * MEBI), &json!(4 * MEBI), &json!(0)]
    );
    assert_eq!(
        errors[3]["guest"]["length"],
        3 * MEBI,
        "what the base covers"
    );
    assert_eq!(errors[1]["place"]["region"], "table entry");
    assert_eq!(
        (&errors[1]["place"]["number"], &errors[1]["value"]),
        (&json!(3), &json!(99))
    );
}

#[test]
fn damage_keeps_what_could_be_mended_from_being_mended() {
    let mut patient = Patient::new();
    patient.set_header(|header| header.zero_floor_chunk = 1);
    patient.set_entry(1, TableEntry::Chunk(StoreChunk(0)));
    patient.store();
    patient.is_refused(&["shared-chunk", "zero-floor"]);
}

#[test]
fn damaged_units_are_all_reported() {
    let patient = Patient::new();
    let mut bench = Bench::new();
    let mut image = patient.open(&mut bench);
    for chunk in [1, 3, 4, 6, 7] {
        let data = Noise::new(chunk).bytes(4096);
        assert_eq!(bench.write(&mut image, chunk * MEBI, &data), Status::Done);
        assert_eq!(bench.run(&mut image, OpKind::Flush, 0, 0), Status::Done);
    }
    drop(image);
    let mut patient = patient.loaded();
    let header = patient.header();
    let unit = u64::from(header.atomic_unit);
    let slot = header.core.stable_seq % header.journal_units();
    patient.bytes[(header.core.journal.offset + slot * unit) as usize] ^= 1;
    patient.store();
    let report = patient.check("--repair", 2);
    let errors = report["errors"].as_array().expect("a list");
    let units = errors
        .iter()
        .filter(|error| error["name"] == "journal")
        .count();
    assert!(units >= 3, "{report}");
    assert!(
        patient.folder.read("disk.fvd") == patient.bytes,
        "it was changed"
    );
}

#[test]
fn a_repair_wants_the_data_file_but_not_the_base() {
    let folder = Folder::new();
    folder.write("base", &Noise::new(8).bytes(3 << 20));
    folder
        .run("create --base base --data-file data disk.fvd 8M")
        .ends(0);
    let mut bench = Bench::new();
    let parts = Parts {
        base: Some((folder.path("base"), BaseFormat::Raw)),
        data_file: Some(folder.path("data")),
        ..Parts::default()
    };
    let path = folder.path("disk.fvd");
    let image = Image::open(&mut bench.driver, &path, Access::ReadWrite, &parts);
    drop(image.expect("opened"));
    let before = folder.read("disk.fvd");
    folder.run("check disk.fvd").ends(0);
    folder
        .run("check --repair disk.fvd")
        .fails(1, &["cannot repair", "--data-file"]);
    assert!(folder.read("disk.fvd") == before);
    folder
        .run("check --repair --data-file data disk.fvd")
        .ends(0);
    assert_eq!(folder.run("check --json disk.fvd").json()["clean"], true);
}
