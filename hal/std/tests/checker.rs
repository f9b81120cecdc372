//! A second opinion: `tests/checker/fvd_check`, written from SPEC.md alone, must say of each image
//! what `fvd check` says, and of each clean one that it maps the disk as `fvd map` does.

mod common;
#[path = "checker/damage.rs"]
mod damage;
#[path = "checker/headers.rs"]
mod headers;
#[path = "checker/journals.rs"]
mod journals;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::cli::{Folder, Said};
use common::{Bench, Noise, outside};
use fvd::device::{OpKind, Status};
use fvd_std::image::{Access, BaseFormat, Image, Parts};
use serde_json::Value;

const CLEAN: i32 = 0;
const CAN_NOT_CHECK: i32 = 1;
const CORRUPT: i32 = 2;
const SLOT: usize = 4096;
const MEBI: usize = 1 << 20;

/// A folder for images, and what runs the checker.
struct Both {
    folder: Folder,
    python: PathBuf,
}

impl Both {
    /// `None` without a Python, which is said then.
    fn new() -> Option<Both> {
        let python = outside("python3")?;
        let folder = Folder::new();
        Some(Both { folder, python })
    }

    /// What the checker says of an image.
    fn checker(&self, image: &str, data: Option<&str>) -> Said {
        let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/checker/fvd_check");
        let mut command = Command::new(&self.python);
        command.arg("-BIS").arg(program).args(["--json", "--dump"]);
        if let Some(data) = data {
            command.args(["--data-file", data]);
        }
        common::cli::run(command.arg(image).current_dir(self.folder.0.path()))
    }

    /// The verdict of both on an image, or a panic that calls the image `what`.
    #[track_caller]
    fn verdict(&self, image: &str, data: Option<&str>, what: &str) -> i32 {
        let second = self.checker(image, data);
        let options = data.map_or(String::new(), |data| format!("--data-file {data}"));
        let first = self.folder.run(&format!("check --json {options} {image}"));
        assert_eq!(
            first.code, second.code,
            "{what}: `fvd check` and the checker differ\n{first:#?}\n{second:#?}"
        );
        let report: Value = serde_json::from_str(&second.out).expect("a document of the checker");
        if first.code == CLEAN {
            let map = self.folder.run(&format!("map --json {options} {image}"));
            let (map, dump) = (merged(&map.json()), merged(&report["map"]));
            assert_eq!(map, dump, "{what}: `fvd map` and the checker differ");
        } else {
            assert_eq!(report["map"], Value::Null, "{what}");
        }
        first.code
    }

    /// The verdict on a copy with these bytes.
    #[track_caller]
    fn verdict_on(&self, bytes: &[u8], what: &str) -> i32 {
        self.folder.write("copy.fvd", bytes);
        self.verdict("copy.fvd", None, what)
    }

    /// Fails unless both say this of an image.
    #[track_caller]
    fn say(&self, code: i32, image: &str, data: Option<&str>, what: &str) {
        let found = self.verdict(image, data, what);
        let said = || self.checker(image, data).out;
        assert_eq!(found, code, "{what}: {}", said());
    }

    /// Fails unless both say this of a copy with these bytes.
    #[track_caller]
    fn say_of(&self, code: i32, bytes: &[u8], what: &str) {
        self.folder.write("copy.fvd", bytes);
        self.say(code, "copy.fvd", None, what);
    }

    /// Fails unless both refuse a copy with these bytes, whatever they call it.
    #[track_caller]
    fn refuse(&self, bytes: &[u8], what: &str) {
        self.folder.write("copy.fvd", bytes);
        let (first, second) = (
            self.folder.run("check copy.fvd"),
            self.checker("copy.fvd", None),
        );
        for said in [first, second] {
            let refused = [CORRUPT, CAN_NOT_CHECK].contains(&said.code);
            assert!(refused, "{what}: {said:?}");
        }
    }

    /// Writes a base that ends within a block, and raw data with holes.
    fn with_raw() -> Option<Both> {
        let both = Both::new()?;
        let mut noise = Noise::new(77);
        both.folder.write("base.raw", &noise.bytes(2 * MEBI + 512));
        let mut raw = vec![0; 6 * MEBI + 1536];
        for (at, len) in [(0, 512), (MEBI + 70_000, 200_000), (5 * MEBI, MEBI + 1536)] {
            raw[at..at + len].copy_from_slice(&noise.bytes(len));
        }
        both.folder.write("raw", &raw);
        Some(both)
    }

    /// `disk.fvd`, over the base, after a session that wrote to chunks of all sorts.
    fn written(end: End) -> Option<Both> {
        let both = Both::with_raw()?;
        both.folder
            .run("create --base base.raw disk.fvd 8M")
            .ends(0);
        let places = [0, 1, 2, 3, 7].map(|chunk| (chunk * MEBI as u64 + 65536 * chunk, 12288));
        session(&both.folder, &places, end);
        Some(both)
    }
}

/// Extents of a map, those that continue each other as one.
fn merged(map: &Value) -> Vec<(u64, u64, String, Option<u64>)> {
    let mut extents: Vec<(u64, u64, String, Option<u64>)> = Vec::new();
    for line in map.as_array().expect("extents") {
        let number = |key: &str| line[key].as_u64();
        let (start, length) = (
            number("start").expect("start"),
            number("length").expect("length"),
        );
        let (state, offset) = (line["state"].as_str().expect("state"), number("offset"));
        match extents.last_mut() {
            Some(last) if last.2 == state && last.3.map(|offset| offset + last.1) == offset => {
                last.1 += length;
            }
            _ => extents.push((start, length, state.into(), offset)),
        }
    }
    extents
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

/// Where the slot that counts is, if both are valid or one is zero.
fn newest(image: &[u8]) -> usize {
    let generation = |at: usize| u64_at(image, at + 3360);
    if generation(0) > generation(SLOT) {
        0
    } else {
        SLOT
    }
}

/// How a session ends: as it should, or cut off by a crash, with or without flushes before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Closed,
    Flushed,
    Cut,
}

/// Opens `disk.fvd` and writes noise to these ranges, with flushes unless it shall end without any.
fn session(folder: &Folder, writes: &[(u64, usize)], end: End) {
    let mut bench = Bench::new();
    let parts = Parts {
        base: Some((folder.path("base.raw"), BaseFormat::Raw)),
        ..Parts::default()
    };
    let path = folder.path("disk.fvd");
    let opened = Image::open(&mut bench.driver, &path, Access::ReadWrite, &parts);
    let mut image = opened.expect("opened");
    let mut noise = Noise::new(writes.len() as u64);
    for (at, len) in writes {
        let status = bench.write(&mut image, *at, &noise.bytes(*len));
        assert_eq!(status, Status::Done);
        if end != End::Cut {
            let status = bench.run(&mut image, OpKind::Flush, 0, 0);
            assert_eq!(status, Status::Done);
        }
    }
    if end == End::Closed {
        image.close(&mut bench.driver).expect("closed");
    }
}

#[test]
fn new_images_are_clean_to_both() {
    let Some(both) = Both::with_raw() else { return };
    for options in [
        "",
        "--base base.raw",
        "--table off",
        "--table off --base base.raw",
        "--table off --journal-size none",
        "--block-size 512 --chunk-size 4K --base base.raw",
        "--block-size 4K --chunk-size 64K --journal-size 16K",
        "--block-size 1M --chunk-size 1M --base base.raw --copy-on-read",
        "--grow-unit 8M --base base.raw --base-id 00112233445566778899aabbccddeeff",
    ] {
        for size in ["512", "2097664", "5000192", "1G"] {
            for data in [None, Some("data")] {
                let place = data.map_or(String::new(), |data| format!("--data-file {data}"));
                let what = format!("create --force {options} {place} disk.fvd {size}");
                both.folder.run(&what).ends(0);
                both.say(CLEAN, "disk.fvd", data, &what);
            }
        }
    }
}

#[test]
fn converted_images_are_clean_to_both() {
    let Some(both) = Both::with_raw() else { return };
    for options in [
        "",
        "--table off",
        "--target-base base.raw",
        "--target-base base.raw --table off",
        "--target-base base.raw --block-size 4K --chunk-size 64K",
        "--chunk-size 128K --grow-unit 1M",
    ] {
        for data in [None, Some("data")] {
            let place = data.map_or(String::new(), |data| format!("--target-data-file {data}"));
            let what = format!("convert --force {options} {place} raw disk.fvd");
            both.folder.run(&what).ends(0);
            both.say(CLEAN, "disk.fvd", data, &what);
        }
    }
}

#[test]
fn sessions_leave_what_is_clean_to_both() {
    for options in [
        "",
        "--table off",
        "--block-size 4K --chunk-size 64K --journal-size 32K",
    ] {
        let Some(both) = Both::with_raw() else { return };
        let create = format!("create --base base.raw {options} disk.fvd 8M");
        both.folder.run(&create).ends(0);
        let mut noise = Noise::new(5);
        for end in [End::Cut, End::Flushed, End::Flushed, End::Closed, End::Cut] {
            let places: Vec<(u64, usize)> = (0..12)
                .map(|_| (noise.below(2000), 1 + noise.below(8) as usize))
                .map(|(at, len)| (at * 4096, len * 4096))
                .collect();
            session(&both.folder, &places, end);
            let what = format!("{create}, then a session: {end:?}");
            both.say(CLEAN, "disk.fvd", None, &what);
        }
    }
}
