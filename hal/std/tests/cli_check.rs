//! `fvd check`: what it calls clean, damaged and unknown; and what it mends.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use common::Noise;
use common::cli::Folder;
use fvd_std::drive::Driver;
use fvd_std::image::{Access, Image, Parts};

const TABLE_OFFSET: u64 = 8192;

/// A folder with an image that holds something.
fn folder() -> Folder {
    let folder = Folder::new();
    folder.write("raw", &Noise::new(30).bytes(3 << 20));
    folder.run("convert raw disk.fvd").ends(0);
    folder
}

fn damage(folder: &Folder, at: u64, bytes: &[u8]) {
    let image = File::options()
        .write(true)
        .open(folder.path("disk.fvd"))
        .expect("image");
    image.write_all_at(bytes, at).expect("write");
}

/// Checks that the image is reported as damaged at these places, in words and in JSON, and left alone.
#[track_caller]
fn is_corrupt(folder: &Folder, places: &[&str]) {
    let before = folder.read("disk.fvd");
    let said = folder.run("check disk.fvd").ends(2);
    assert!(said.out.contains("damaged"), "{said:?}");
    let said = folder.run("check --json --repair disk.fvd").ends(2);
    let report: serde_json::Value = serde_json::from_str(&said.out).expect("JSON");
    assert_eq!(report["corruptions"], places.len(), "{report}");
    assert_eq!(report["left"], places.len(), "{report}");
    let errors = report["errors"].as_array().expect("a list");
    let found: Vec<&str> = errors
        .iter()
        .filter_map(|it| it["where"].as_str())
        .collect();
    assert_eq!(found, places, "{report}");
    for error in errors {
        assert!(error["what"].is_string(), "{report}");
        assert_eq!(error["severity"], "damage", "{report}");
        assert_eq!(error["repaired"], false, "{report}");
    }
    assert_eq!(report["repair_refused"], true, "{report}");
    assert!(folder.read("disk.fvd") == before, "the image was changed");
}

#[test]
fn a_sound_image_is_clean() {
    let folder = folder();
    let said = folder.run("check disk.fvd").ends(0);
    assert!(said.out.contains("No damage"), "{said:?}");
    let report = folder.run("check --json disk.fvd").json();
    for key in ["corruptions", "leaks", "leaked_bytes", "repaired", "left"] {
        assert_eq!(report[key], 0, "{key}");
    }
    assert_eq!(report["errors"], serde_json::json!([]));
    assert_eq!(report["notes"], serde_json::json!([]));
    assert_eq!(report["clean"], true);
    assert_eq!(report["allocated_bytes"], 3 << 20);
}

#[test]
fn a_damaged_table_is_corrupt() {
    let folder = folder();
    // The high byte of an entry, which is 0 wherever the chunk went.
    damage(&folder, TABLE_OFFSET + 8 + 3, &[1]);
    is_corrupt(&folder, &["page checksum"]);
    folder.run("info disk.fvd").ends(1);
    folder
        .run("convert -f fvd -O raw disk.fvd back")
        .fails(1, &["page checksum"]);
    assert!(!folder.names().contains(&"back".into()));
}

#[test]
fn two_damaged_headers_are_corrupt_and_one_is_not() {
    let folder = folder();
    damage(&folder, 100, &[0xFF]);
    let report = folder.run("check --json disk.fvd").json();
    assert_eq!(
        (&report["corruptions"], &report["clean"]),
        (&0.into(), &false.into())
    );
    let report = folder.run("check --json --repair disk.fvd").json();
    assert_eq!(
        (&report["repaired"], &report["clean"]),
        (&1.into(), &true.into())
    );
    assert_eq!(folder.run("check --json disk.fvd").json()["clean"], true);
    folder.run("convert -f fvd -O raw disk.fvd back").ends(0);
    assert!(folder.read("back") == folder.read("raw"));
    damage(&folder, 100, &[0xFF]);
    damage(&folder, 4096 + 100, &[0xFF]);
    is_corrupt(&folder, &["slot_crc", "slot_crc"]);
}

#[test]
fn a_truncated_image_is_corrupt() {
    let folder = folder();
    let image = File::options()
        .write(true)
        .open(folder.path("disk.fvd"))
        .expect("image");
    image.set_len(2 << 20).expect("cut");
    // One chunk is left of three.
    is_corrupt(&folder, &["table entry", "table entry", "store_bytes"]);
    image.set_len(10_000).expect("cut");
    let said = folder.run("check disk.fvd").ends(2);
    assert!(said.out.contains("damaged"), "{said:?}");
    image.set_len(5_000).expect("cut");
    is_corrupt(&folder, &["header slot"]);
}

#[test]
fn what_is_no_image_can_not_be_checked() {
    let folder = folder();
    folder.run("check raw").fails(1, &["'raw'", "magic"]);
    folder.run("check missing").fails(1, &["'missing'"]);
    folder.run("check").fails(64, &["IMAGE"]);
}

#[test]
fn a_session_that_was_cut_off_is_no_damage_and_can_be_tidied_up() {
    let folder = folder();
    let mut driver = Driver::new();
    let path = folder.path("disk.fvd");
    let image = Image::open(&mut driver, &path, Access::ReadWrite, &Parts::default());
    drop(image.expect("opened"));
    let before = folder.read("disk.fvd");
    let said = folder.run("check disk.fvd").ends(0);
    assert!(said.out.contains("cut off"), "{said:?}");
    assert_eq!(folder.run("info --json disk.fvd").json()["clean"], false);
    assert!(
        folder.read("disk.fvd") == before,
        "a look changed the image"
    );
    let report = folder.run("check --json --repair disk.fvd").json();
    assert_eq!(
        (&report["repaired"], &report["clean"]),
        (&1.into(), &true.into())
    );
    assert_eq!(folder.run("info --json disk.fvd").json()["clean"], true);
    folder.run("convert -f fvd -O raw disk.fvd back").ends(0);
    assert!(folder.read("back") == folder.read("raw"));
}

#[test]
fn looking_never_writes() {
    let folder = folder();
    let mut permissions = fs::metadata(folder.path("disk.fvd"))
        .expect("image")
        .permissions();
    permissions.set_readonly(true);
    fs::set_permissions(folder.path("disk.fvd"), permissions).expect("read-only");
    let before = folder.read("disk.fvd");
    for line in [
        "info disk.fvd",
        "map disk.fvd",
        "check disk.fvd",
        "check --repair disk.fvd",
    ] {
        folder.run(line).ends(0);
    }
    assert!(folder.read("disk.fvd") == before);
}
