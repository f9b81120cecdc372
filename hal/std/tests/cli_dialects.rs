//! Images of all three dialects, made by the command and converted into one another and to raw disks.

mod common;
#[allow(dead_code, unreachable_pub)]
#[path = "old/golden.rs"]
mod golden;
#[allow(dead_code, unreachable_pub)]
#[path = "common/sha256.rs"]
mod sha256;

use std::fs;

use common::cli::Folder;
use common::{Bench, Noise};
use fvd::device::{OpKind, Status};
use fvd_std::image::{Access, BaseFormat, Image, Parts};
use golden::Golden;
use serde_json::{Value, json};
use sha256::sha256;

const DIALECTS: [&str; 3] = ["fvd2", "spec2011", "reference"];

/// What a source or a target is: the options for it as DST, those for it as SRC, its dialect.
struct Format {
    name: &'static str,
    to: &'static str,
    from: &'static str,
    dialect: Option<&'static str>,
}

const fn image(name: &'static str, to: &'static str, dialect: &'static str) -> Format {
    Format {
        name,
        to,
        from: "-f fvd",
        dialect: Some(dialect),
    }
}

const FORMATS: [Format; 7] = [
    Format {
        name: "raw",
        to: "-O raw",
        from: "-f raw",
        dialect: None,
    },
    image("fvd2", "--dialect fvd2", "fvd2"),
    image("spec2011", "--dialect spec2011", "spec2011"),
    image("reference", "--dialect reference", "reference"),
    image("flat fvd2", "--dialect fvd2 --table off", "fvd2"),
    image(
        "flat spec2011",
        "--dialect spec2011 --table off",
        "spec2011",
    ),
    image(
        "flat reference",
        "--dialect reference --table off",
        "reference",
    ),
];

/// Noise, holes, one sector alone, and an end within a chunk.
fn disk() -> Vec<u8> {
    let mut disk = vec![0; (3 << 20) + 512 * 7];
    let mut noise = Noise::new(61);
    for (at, len) in [(0, 5000), (700 << 10, 600 << 10), (2 << 20, 512)] {
        disk[at..at + len].copy_from_slice(&noise.bytes(len));
    }
    let end = disk.len();
    disk[end - 512..].copy_from_slice(&noise.bytes(512));
    disk
}

/// Neither damage nor anything that the next session would have to mend.
#[track_caller]
fn is_clean(folder: &Folder, name: &str, parts: &str) {
    let report = folder
        .run(&format!("check --json {parts} {name}"))
        .ends(0)
        .json();
    for (key, wanted) in [
        ("corruptions", json!(0)),
        ("leaks", json!(0)),
        ("left", json!(0)),
        ("errors", json!([])),
        ("notes", json!([])),
        ("clean", json!(true)),
    ] {
        assert_eq!(report[key], wanted, "{name}: {report}");
    }
}

fn info(folder: &Folder, name: &str) -> Value {
    folder.run(&format!("info --json {name}")).json()
}

#[track_caller]
fn holds(folder: &Folder, parts: &str, name: &str, wanted: &[u8]) {
    let line = format!("convert --force -f fvd -O raw {parts} {name} back");
    folder.run(&line).ends(0);
    assert_eq!(
        sha256(&folder.read("back")),
        sha256(wanted),
        "{parts} {name}"
    );
}

#[test]
fn every_format_converts_to_every_other_without_a_change() {
    let folder = Folder::new();
    let disk = disk();
    let wanted = sha256(&disk);
    folder.write("disk", &disk);
    for source in &FORMATS {
        let line = format!("convert --force {} disk source", source.to);
        folder.run(&line).ends(0);
        let before = folder.read("source");
        for target in &FORMATS {
            let pair = format!("{} to {}", source.name, target.name);
            let line = format!(
                "convert --force {} {} source target",
                source.from, target.to
            );
            folder.run(&line).ends(0);
            assert!(folder.read("source") == before, "{pair}: SRC was changed");
            let Some(dialect) = target.dialect else {
                assert_eq!(sha256(&folder.read("target")), wanted, "{pair}");
                continue;
            };
            holds(&folder, "", "target", &disk);
            is_clean(&folder, "target", "");
            let info = info(&folder, "target");
            assert_eq!(info["dialect"], dialect, "{pair}");
            assert_eq!(info["virtual_size"], disk.len(), "{pair}");
            assert_eq!(info["table"], !target.name.starts_with("flat"), "{pair}");
            assert_eq!(info["clean"], true, "{pair}");
        }
    }
}

/// A folder with a base of 3 MiB, and for each dialect an image over it that shows `disk`.
fn over_a_base() -> (Folder, Vec<u8>) {
    let folder = Folder::new();
    let mut noise = Noise::new(62);
    let mut disk = noise.bytes(3 << 20);
    folder.write("base.raw", &disk);
    disk.resize((4 << 20) + 512 * 5, 0);
    disk[70 << 10..][..100].copy_from_slice(&noise.bytes(100));
    disk[1 << 20..][..200 << 10].fill(0);
    let end = disk.len();
    disk[end - 512..].copy_from_slice(&noise.bytes(512));
    folder.write("disk", &disk);
    for dialect in DIALECTS {
        let line = format!("convert --dialect {dialect} --target-base base.raw disk {dialect}");
        folder.run(&line).ends(0);
    }
    (folder, disk)
}

/// Bytes of the guest's disk by where they live.
fn lives(folder: &Folder, name: &str, state: &str) -> u64 {
    let map = folder.run(&format!("map --json {name}")).json();
    let lines = map.as_array().expect("lines").iter();
    lines
        .filter(|line| line["state"] == state)
        .map(|line| line["length"].as_u64().expect("a length"))
        .sum()
}

#[test]
fn the_base_is_kept_between_all_pairs_of_dialects() {
    let (folder, disk) = over_a_base();
    let base = folder.read("base.raw");
    for source in DIALECTS {
        for target in DIALECTS {
            let line = format!(
                "convert --force -f fvd --base base.raw --dialect {target} --target-base base.raw \
                 {source} target"
            );
            folder.run(&line).ends(0);
            holds(&folder, "--base base.raw", "target", &disk);
            holds(&folder, "--follow-names", "target", &disk);
            is_clean(&folder, "target", "");
            let info = info(&folder, "target");
            assert_eq!(info["dialect"], target, "{source} to {target}");
            let wanted = json!({
                "name": "base.raw", "format": "raw", "size": 3 << 20, "id": null, "needed": true,
            });
            assert_eq!(info["base"], wanted, "{source} to {target}");
            // What did not change is not copied: all but 1 block, the zeroed 200 KiB and their blocks.
            let kept = lives(&folder, "target", "base");
            assert_eq!(kept, (3 << 20) - ((5 * 64) << 10), "{source} to {target}");
            // Zeros hide the base without space where the dialect can do that.
            let whole_blocks = if target == "fvd2" { (3 * 64) << 10 } else { 0 };
            let behind_base = lives(&folder, "target", "zero") - whole_blocks;
            assert!(behind_base <= 1 << 20, "{source} to {target}");
            let takes = info["allocated_bytes"].as_u64().expect("a number");
            assert!(takes <= 3 << 20, "{source} to {target}: {takes}");
        }
    }
    assert!(folder.read("base.raw") == base);
}

#[test]
fn a_base_may_be_of_any_dialect() {
    let (folder, disk) = over_a_base();
    let mut top = disk.clone();
    top[512 * 3..][..700].fill(0x77);
    folder.write("top.raw", &top);
    for base in DIALECTS {
        for dialect in DIALECTS {
            let options = format!("--base {base} --base-format fvd --follow-names --force");
            let line = format!("create --dialect {dialect} {options} top");
            folder.run(&line).ends(0);
            holds(&folder, "--follow-names", "top", &disk);
            let options = format!("--target-base {base} --target-base-format fvd --follow-names");
            let line = format!("convert --force --dialect {dialect} {options} top.raw top");
            folder.run(&line).ends(0);
            holds(&folder, "--follow-names", "top", &top);
            is_clean(&folder, "top", "");
            assert!(lives(&folder, "top", "image") <= 1 << 20);
            let found = info(&folder, "top");
            assert_eq!(
                (&found["dialect"], &found["base"]["format"]),
                (&json!(dialect), &json!("fvd"))
            );
            // An id is recorded where both have one.
            let ids = base == "fvd2" && dialect == "fvd2";
            assert_eq!(
                found["base"]["id"].is_string(),
                ids,
                "{dialect} over {base}"
            );
        }
    }
}

#[test]
fn a_conversion_without_a_target_base_needs_none_afterwards() {
    let (folder, disk) = over_a_base();
    for source in DIALECTS {
        for target in DIALECTS {
            let line = format!(
                "convert --force -f fvd --base base.raw --dialect {target} {source} target"
            );
            folder.run(&line).ends(0);
            assert_eq!(info(&folder, "target")["base"], Value::Null);
            holds(&folder, "", "target", &disk);
        }
        // The name that the source has is not followed by itself.
        let line = format!("convert --force -f fvd {source} target");
        folder
            .run(&line)
            .fails(1, &["base.raw", "--base", "--follow-names"]);
    }
}

#[test]
fn a_separate_data_file_is_kept_between_all_pairs_of_dialects() {
    let folder = Folder::new();
    let disk = disk();
    folder.write("disk", &disk);
    for source in DIALECTS {
        let line = format!("convert --force --dialect {source} --target-data-file s.dat disk s");
        folder.run(&line).ends(0);
        for target in DIALECTS {
            let line = format!(
                "convert --force -f fvd --data-file s.dat --dialect {target} --target-data-file t.dat s t"
            );
            folder.run(&line).ends(0);
            assert_eq!(info(&folder, "t")["data_file"], "t.dat");
            is_clean(&folder, "t", "--data-file t.dat");
            holds(&folder, "--data-file t.dat", "t", &disk);
            let line = "convert --force -f fvd -O raw t back";
            folder
                .run(line)
                .fails(1, &["t.dat", "--data-file", "--follow-names"]);
        }
    }
}

/// What a dialect can not do is refused with what to do instead, and leaves nothing behind.
#[test]
fn what_a_dialect_lacks_is_refused_by_name() {
    let folder = Folder::new();
    folder.write("base.raw", &[1; 1 << 20]);
    let id = "00112233445566778899aabbccddeeff";
    for dialect in ["spec2011", "reference"] {
        for lacking in ["--detect-zeroes", &format!("--base-id {id}")] {
            let line = format!("create --dialect {dialect} --base base.raw {lacking} image");
            let option = lacking.split(' ').next().expect("an option");
            folder.run(&line).fails(64, &[option, "--dialect fvd2"]);
        }
        let line = format!(
            "convert --dialect {dialect} --target-base base.raw --target-base-id {id} base.raw image"
        );
        folder
            .run(&line)
            .fails(64, &["--target-base-id", "--dialect fvd2"]);
        let line = format!(
            "convert --dialect {dialect} --target-base base.raw --detect-zeroes base.raw image"
        );
        folder
            .run(&line)
            .fails(64, &["--detect-zeroes", "--dialect fvd2"]);
    }
    // Shapes that only some have: (options, where they are refused, by what).
    let shapes: [(&str, &[&str], &str); 6] = [
        ("--chunk-size 96K --block-size 32K", &["fvd2"], "chunk_size"),
        ("--chunk-size 4M --block-size 64K", &["fvd2"], "chunk_size"),
        ("--chunk-size 64K --block-size 1M", &["fvd2"], "chunk_size"),
        (
            "--chunk-size 6K --block-size 1K",
            &["fvd2", "reference"],
            "chunk_size",
        ),
        ("--chunk-size 700 --block-size 512", &DIALECTS, "chunk_size"),
        ("--journal-size none", &["fvd2"], "--journal-size"),
    ];
    for (options, refusing, word) in shapes {
        for dialect in DIALECTS {
            let line = format!("create --dialect {dialect} {options} image 1M");
            if refusing.contains(&dialect) {
                folder.run(&line).fails(64, &[word]);
            } else {
                folder.run(&line).ends(0);
                is_clean(&folder, "image", "");
                fs::remove_file(folder.path("image")).expect("removed");
            }
        }
    }
    assert_eq!(folder.names(), ["base.raw"]);
}

/// `info` names what a dialect can do, and that is what images of it do.
#[test]
fn capabilities_are_what_images_can_do() {
    let (folder, _) = over_a_base();
    let base = folder.read("base.raw");
    let mut bench = Bench::new();
    for dialect in DIALECTS {
        let found = info(&folder, dialect);
        let can = |what: &str| {
            let list = found["capabilities"].as_array().expect("a list");
            list.contains(&what.into())
        };
        let text = folder.run(&format!("info {dialect}")).ends(0);
        assert!(text.out.contains("capabilities:"), "{text:?}");
        let parts = Parts {
            base: Some((folder.path("base.raw"), BaseFormat::Raw)),
            ..Parts::default()
        };
        let path = folder.path(dialect);
        let opened = Image::open(&mut bench.driver, &path, Access::ReadWrite, &parts);
        let mut image = opened.expect("opened");
        let allocated = image.usage().allocated_bytes;
        let (discarded, zeroed, len) = (2 << 20, (2 << 20) + (512 << 10), 64 << 10);
        for (kind, at) in [(OpKind::Discard, discarded), (OpKind::WriteZeroes, zeroed)] {
            let status = bench.run(&mut image, kind, at, len);
            assert_eq!(status, Status::Done, "{dialect}");
        }
        let found = bench
            .read(&mut image, discarded, len as usize)
            .expect("read");
        let shown = if can("discard") {
            vec![0; len as usize]
        } else {
            base[2 << 20..][..len as usize].to_vec()
        };
        assert!(found == shown, "{dialect}");
        let found = bench.read(&mut image, zeroed, len as usize).expect("read");
        assert!(found.iter().all(|byte| *byte == 0), "{dialect}");
        let takes = image.usage().allocated_bytes - allocated;
        assert_eq!(takes == 0, can("hide-base"), "{dialect}: {takes}");
        image.close(&mut bench.driver).expect("closed");
        is_clean(&folder, dialect, "");
        let id = "00112233445566778899aabbccddeeff";
        let options = format!("--base base.raw --base-id {id} --force");
        let line = format!("create --dialect {dialect} {options} image");
        assert_eq!(folder.run(&line).code == 0, can("base-id"), "{dialect}");
    }
}

/// Images that others left unclean convert with all that their journals hold, and stay as they are;
/// `check --repair` makes them clean.
#[test]
fn unclean_images_of_2011_convert_and_are_repaired() {
    let folder = Folder::new();
    let unpack = |unpack: fn(&str) -> Golden, names: Vec<String>| {
        let goldens = names.into_iter().map(move |name| unpack(&name));
        goldens
            .filter(|golden| golden.unclean)
            .take(3)
            .collect::<Vec<_>>()
    };
    let mut goldens = unpack(Golden::unpack, golden::names(true));
    goldens.extend(unpack(Golden::unpack_spec, golden::spec_names(true)));
    for golden in &goldens {
        let name = &golden.name;
        let before = golden.files();
        let parts = options(golden);
        for target in [
            "-O raw",
            "--dialect fvd2",
            "--dialect spec2011",
            "--dialect reference",
        ] {
            let path = golden.path();
            let source = path.to_str().expect("a plain name");
            let line = format!("convert --force -f fvd {target} {parts} {source} target");
            folder.run(&line).ends(0);
            if target == "-O raw" {
                assert_eq!(sha256(&folder.read("target")), golden.intended, "{name}");
                folder.write("disk", &folder.read("target"));
            } else {
                holds(&folder, "", "target", &folder.read("disk"));
                is_clean(&folder, "target", "");
            }
            assert!(golden.files() == before, "{name}: SRC was changed");
        }
        let path = golden.path();
        let image = path.to_str().expect("a plain name");
        folder
            .run(&format!("check --json --repair {parts} {image}"))
            .ends(0);
        is_clean(&folder, image, &parts);
        assert_eq!(info(&folder, image)["clean"], true, "{name}");
        holds(&folder, &parts, image, &folder.read("disk"));
    }
}

/// The parts of an image as options.
fn options(golden: &Golden) -> String {
    let parts = golden.parts();
    let mut options = String::new();
    if let Some((path, format)) = parts.base {
        let format = format.label();
        options += &format!(" --base {} --base-format {format}", path.display());
    }
    if let Some(path) = parts.data_file {
        options += &format!(" --data-file {}", path.display());
    }
    options
}
