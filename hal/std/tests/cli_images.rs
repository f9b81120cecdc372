//! Images made, looked at and converted by the command.

mod common;

use core::time::Duration;
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::Command;
use std::time::Instant;

use common::cli::{Folder, allocated};
use common::{Noise, outside};
use fvd_std::drive::Driver;
use fvd_std::image::{Access, Image, Parts};
use serde_json::Value;

/// A tool of the system, run in a folder.
fn tool(folder: &Folder, name: &Path, args: &[&str]) {
    let said = common::cli::run(Command::new(name).args(args).current_dir(folder.0.path()));
    assert_eq!(said.code, 0, "{name:?} {args:?}: {said:?}");
}

/// A folder of files with content, for a file system to hold.
fn files(folder: &Folder) {
    fs::create_dir_all(folder.path("files/sub")).expect("folders");
    let mut noise = Noise::new(5);
    for (name, len) in [
        ("a", 3_000_000),
        ("b", 1),
        ("sub/c", 70_000),
        ("sub/empty", 0),
    ] {
        folder.write(&format!("files/{name}"), &noise.bytes(len));
    }
}

fn assert_same(folder: &Folder, a: &str, b: &str) {
    // Not assert_eq: nobody wants to see megabytes of numbers.
    assert!(folder.read(a) == folder.read(b), "{a} and {b} differ");
}

/// Converts `raw` to an image and back, and checks that nothing is lost and no hole filled.
fn round_trip(folder: &Folder, raw: &str, options: &str) {
    folder
        .run(&format!("convert {options} {raw} disk.fvd"))
        .ends(0);
    folder.run("check disk.fvd").ends(0);
    folder
        .run("convert -f fvd -O raw disk.fvd back.raw")
        .ends(0);
    assert_same(folder, raw, "back.raw");
    let (source, image, back) = (
        allocated(&folder.path(raw)),
        allocated(&folder.path("disk.fvd")),
        allocated(&folder.path("back.raw")),
    );
    assert!(
        back <= source,
        "{back} bytes allocated after, {source} before"
    );
    assert!(
        image <= source + (1 << 20),
        "{image} bytes allocated in the image, {source} before"
    );
    for name in ["disk.fvd", "back.raw"] {
        fs::remove_file(folder.path(name)).expect("removed");
    }
}

#[test]
fn an_ext4_file_system_survives_conversion_with_its_holes() {
    let Some(mke2fs) = outside("mke2fs") else {
        return;
    };
    let folder = Folder::new();
    files(&folder);
    let args = ["-q", "-t", "ext4", "-d", "files", "fs.raw", "96M"];
    tool(&folder, &mke2fs, &args);
    for options in [
        "",
        "--block-size 4K --chunk-size 64K",
        "--table off",
        "--block-size 1M",
    ] {
        round_trip(&folder, "fs.raw", options);
    }
}

#[test]
fn a_fat_file_system_survives_conversion_with_its_holes() {
    let (Some(mformat), Some(mcopy)) = (outside("mformat"), outside("mcopy")) else {
        return;
    };
    let folder = Folder::new();
    files(&folder);
    let image = File::create(folder.path("fs.raw")).expect("file");
    image.set_len(32 << 20).expect("length");
    tool(
        &folder,
        &mformat,
        &["-i", "fs.raw", "-T", "65536", "-h", "2", "-s", "32", "::"],
    );
    tool(
        &folder,
        &mcopy,
        &["-i", "fs.raw", "files/a", "files/sub/c", "::"],
    );
    round_trip(&folder, "fs.raw", "");
}

#[test]
fn a_terabyte_is_made_in_a_moment_and_takes_a_few_megabytes() {
    let folder = Folder::new();
    let start = Instant::now();
    folder.run("create disk.fvd 1T").ends(0);
    // Work that grew with the disk would take minutes; the bound leaves room for a busy machine.
    let took = start.elapsed();
    assert!(took < Duration::from_secs(10), "{took:?}");
    let taken = allocated(&folder.path("disk.fvd"));
    assert!(taken <= 9 << 20, "{taken} bytes");
    let info = folder.run("info --json disk.fvd").json();
    assert_eq!(info["virtual_size"], 1u64 << 40);
    assert_eq!(info["metadata_bytes"]["table"], 4 << 20);
    assert_eq!(info["allocated_bytes"], 0);
    let map = folder.run("map --json disk.fvd").json();
    let whole = serde_json::json!(
        [{"start": 0, "length": 1u64 << 40, "state": "zero", "offset": null}]
    );
    assert_eq!(map, whole);
    folder.run("check disk.fvd").ends(0);
}

#[test]
fn info_has_every_documented_key() {
    let folder = Folder::new();
    folder.run("create disk.fvd 10M").ends(0);
    let info = folder.run("info --json disk.fvd").json();
    let keys = [
        ("dialect", Value::from("fvd2")),
        ("version", Value::from(2)),
        ("virtual_size", Value::from(10 << 20)),
        ("block_size", Value::from(64 << 10)),
        ("chunk_size", Value::from(1 << 20)),
        ("table", Value::from(true)),
        ("base", Value::Null),
        ("data_file", Value::Null),
        ("features", serde_json::json!(["page-checksums"])),
        (
            "capabilities",
            serde_json::json!(["base-id", "discard", "hide-base"]),
        ),
        ("clean", Value::from(true)),
        ("allocated_bytes", Value::from(0)),
        (
            "file_size",
            Value::from(fs::metadata(folder.path("disk.fvd")).expect("file").len()),
        ),
        ("snapshots", serde_json::json!([])),
    ];
    for (key, expected) in keys {
        assert_eq!(info[key], expected, "{key}");
    }
    for region in ["header", "bitmap", "table", "journal", "checksums"] {
        assert!(info["metadata_bytes"][region].is_u64(), "{region}");
    }
    let text = folder.run("info disk.fvd").ends(0).out;
    assert!(text.contains("10 MiB (10485760 bytes)"), "{text}");
}

#[test]
fn sizes_are_rounded_up_and_that_is_said() {
    let folder = Folder::new();
    let said = folder.run("create disk.fvd 1000").ends(0);
    assert!(said.err.contains("from 1000 to 1024"), "{said:?}");
    assert_eq!(
        folder.run("info --json disk.fvd").json()["virtual_size"],
        1024
    );
    folder.write("odd.raw", &[7; 1000]);
    let said = folder.run("convert odd.raw odd.fvd").ends(0);
    assert!(said.err.contains("from 1000 to 1024"), "{said:?}");
    folder.run("convert -f fvd -O raw odd.fvd back.raw").ends(0);
    let mut expected = vec![7; 1000];
    expected.resize(1024, 0);
    assert_eq!(folder.read("back.raw"), expected);
    folder
        .run("create huge.fvd 18446744073709551615")
        .fails(64, &["too large"]);
    folder
        .run("create huge.fvd 16000000T")
        .fails(64, &["virtual_disk_size"]);
    assert!(!folder.names().contains(&"huge.fvd".into()));
}

#[test]
fn map_lists_the_whole_disk_in_order() {
    let folder = Folder::new();
    let raw = File::create(folder.path("raw")).expect("file");
    raw.set_len(16 << 20).expect("length");
    raw.write_all_at(&[1; 4096], 5 << 20).expect("write");
    raw.write_all_at(&[2; 4096], (16 << 20) - 4096)
        .expect("write");
    folder.run("convert raw disk.fvd").ends(0);
    let map = folder.run("map --json disk.fvd").json();
    let lines = map.as_array().expect("an array");
    let mut at = 0;
    for line in lines {
        assert_eq!(line["start"], at);
        at += line["length"].as_u64().expect("a length");
        let in_image = line["state"] == "image";
        assert!(in_image || line["state"] == "zero", "{line}");
        assert_eq!(in_image, line["offset"].is_u64(), "{line}");
    }
    assert_eq!(at, 16 << 20);
    let states: Vec<_> = lines.iter().map(|line| line["state"].as_str()).collect();
    assert_eq!(
        states,
        [Some("zero"), Some("image"), Some("zero"), Some("image")]
    );
    // The offset is where the bytes really are.
    let offset = lines[1]["offset"].as_u64().expect("an offset");
    let mut bytes = [0; 4096];
    let image = File::open(folder.path("disk.fvd")).expect("file");
    image.read_exact_at(&mut bytes, offset).expect("read");
    assert_eq!(bytes, [1; 4096]);
    assert_eq!(
        folder.run("map disk.fvd").ends(0).out.lines().count(),
        1 + 4
    );
}

#[test]
fn without_a_table_data_lie_as_in_a_raw_file() {
    let folder = Folder::new();
    let mut noise = Noise::new(6);
    folder.write("raw", &noise.bytes(3 << 20));
    folder
        .run("convert --table off --journal-size none raw disk.fvd")
        .ends(0);
    let map = folder.run("map --json disk.fvd").json();
    assert_eq!(map.as_array().map(Vec::len), Some(1));
    let offset = map[0]["offset"].as_u64().expect("an offset") as usize;
    assert!(folder.read("disk.fvd")[offset..] == folder.read("raw"));
    let info = folder.run("info --json disk.fvd").json();
    assert_eq!(
        (&info["table"], &info["metadata_bytes"]["journal"]),
        (&false.into(), &0.into())
    );
}

#[test]
fn data_in_a_file_of_their_own_are_a_raw_disk_without_a_table() {
    let folder = Folder::new();
    let mut noise = Noise::new(7);
    folder.write("raw", &noise.bytes(2 << 20));
    folder
        .run("convert --table off --target-data-file data raw disk.fvd")
        .ends(0);
    assert_same(&folder, "raw", "data");
    let info = folder.run("info --json disk.fvd").json();
    assert_eq!(info["data_file"], "data");
    let missing = folder.run("convert -f fvd -O raw disk.fvd back");
    missing.fails(1, &["'data'", "--data-file", "--follow-names"]);
    folder
        .run("convert -f fvd -O raw --data-file data disk.fvd back")
        .ends(0);
    assert_same(&folder, "raw", "back");
    folder
        .run("convert -f fvd -O raw --follow-names disk.fvd back2")
        .ends(0);
    assert_same(&folder, "raw", "back2");
    // With a table, too, and metadata alone can be looked at without the data.
    folder
        .run("convert --target-data-file data2 raw disk2.fvd")
        .ends(0);
    folder.run("check disk2.fvd").ends(0);
    folder
        .run("convert -f fvd -O raw --data-file data2 disk2.fvd back3")
        .ends(0);
    assert_same(&folder, "raw", "back3");
}

#[test]
fn an_image_in_use_is_refused_and_can_still_be_described() {
    let folder = Folder::new();
    folder.run("create disk.fvd 10M").ends(0);
    let mut driver = Driver::new();
    let path = folder.path("disk.fvd");
    let image = Image::open(&mut driver, &path, Access::ReadWrite, &Parts::default());
    let image = image.expect("unlocked");
    let locked = ["'disk.fvd'", "locked"];
    folder
        .run("convert -f fvd -O raw disk.fvd back")
        .fails(1, &locked);
    folder.run("create --force disk.fvd 1M").fails(1, &locked);
    folder.run("map disk.fvd").fails(1, &locked);
    folder.run("check disk.fvd").fails(1, &locked);
    let info = folder.run("info --json disk.fvd").json();
    assert_eq!(
        (&info["virtual_size"], &info["clean"]),
        (&(10 << 20).into(), &false.into())
    );
    assert_eq!(info["allocated_bytes"], Value::Null);
    image.close(&mut driver).expect("closed");
    folder.run("check disk.fvd").ends(0);
    assert_eq!(folder.names(), ["disk.fvd"]);
}

#[test]
fn what_is_no_image_is_refused_and_left_alone() {
    let folder = Folder::new();
    let mut reference = vec![0; 16 << 10];
    reference[..8].copy_from_slice(&[0xA9, 0xF5, 0x43, 0x51, 1, 0, 0, 0]);
    let mut spec2011 = vec![0; 16 << 10];
    spec2011[..8].copy_from_slice(b"FVD\0\x01\0\0\0");
    let cases: [(&str, Vec<u8>, &str); 6] = [
        ("empty", vec![], "corrupt"),
        ("short", vec![7; 1000], "corrupt"),
        ("zeros", vec![0; 1 << 20], "magic"),
        ("noise", Noise::new(3).bytes(1 << 20), "magic"),
        ("reference", reference, "reference"),
        ("spec2011", spec2011, "2011"),
    ];
    for (name, bytes, word) in cases {
        folder.write(name, &bytes);
        for line in ["info", "map", "convert -f fvd -O raw --force"] {
            let target = if line.starts_with("convert") {
                "out"
            } else {
                ""
            };
            folder
                .run(&format!("{line} {name} {target}"))
                .fails(1, &[name, word]);
        }
        assert!(folder.read(name) == bytes, "{name} was changed");
        assert!(!folder.names().contains(&"out".into()), "{name}");
    }
}

#[test]
fn raw_data_are_never_taken_for_an_image() {
    let folder = Folder::new();
    folder.run("create inner.fvd 1M").ends(0);
    // The default is raw: the image itself is the content of the new disk.
    folder.run("convert inner.fvd outer.fvd").ends(0);
    folder.run("convert -f fvd -O raw outer.fvd back").ends(0);
    let (inner, back) = (folder.read("inner.fvd"), folder.read("back"));
    assert!(back.starts_with(&inner) && back.len() < inner.len() + 512);
}

#[test]
fn a_killed_conversion_leaves_nothing_behind() {
    let folder = Folder::new();
    folder.write("raw", &Noise::new(9).bytes(24 << 20));
    for wait in [0, 5, 20, 60] {
        let mut child = Command::new(env!("CARGO_BIN_EXE_fvd"))
            .args(["convert", "raw", "disk.fvd"])
            .current_dir(folder.0.path())
            .spawn()
            .expect("started");
        std::thread::sleep(Duration::from_millis(wait));
        child.kill().expect("killed");
        child.wait().expect("ended");
        if folder.names().contains(&"disk.fvd".into()) {
            // It was faster: then it is whole.
            folder.run("check disk.fvd").ends(0);
            folder.run("convert -f fvd -O raw disk.fvd back").ends(0);
            assert_same(&folder, "raw", "back");
            fs::remove_file(folder.path("back")).expect("removed");
            fs::remove_file(folder.path("disk.fvd")).expect("removed");
        }
        assert_eq!(folder.names(), ["raw"]);
    }
}

#[test]
fn a_replaced_image_keeps_its_permissions() {
    use std::os::unix::fs::PermissionsExt;
    let folder = Folder::new();
    folder.run("create disk.fvd 1M").ends(0);
    let path: &Path = &folder.path("disk.fvd");
    fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("permissions");
    folder
        .run("create disk.fvd 2M")
        .fails(1, &["exists", "--force"]);
    folder.run("create --force disk.fvd 2M").ends(0);
    assert_eq!(fs::metadata(path).expect("file").mode() & 0o777, 0o600);
    assert_eq!(
        folder.run("info --json disk.fvd").json()["virtual_size"],
        2 << 20
    );
}

#[test]
fn a_checkerboard_of_small_holes_survives() {
    let folder = Folder::new();
    let mut noise = Noise::new(50);
    let mut bytes = noise.bytes(1 << 20);
    for granule in bytes.chunks_mut(4096).step_by(2) {
        granule.fill(0);
    }
    folder.write("raw", &bytes);
    for options in [
        "",
        "--block-size 4K --chunk-size 4K",
        "--block-size 512 --chunk-size 8K",
    ] {
        folder
            .run(&format!("convert --force {options} raw disk.fvd"))
            .ends(0);
        folder
            .run("convert -f fvd -O raw --force disk.fvd back")
            .ends(0);
        assert_same(&folder, "raw", "back");
        folder.run("check disk.fvd").ends(0);
    }
    // Every other granule of the copy is a hole.
    assert!(allocated(&folder.path("back")) <= 768 << 10);
}
