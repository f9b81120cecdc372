//! Images and raw disks on block devices, and on file systems that run full.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::Command;

use common::cli::{Folder, Said};
use common::{LoopDevice, Noise, outside};

/// A folder with a block device of 16 MiB that was used before, if that is allowed.
fn with_device() -> Option<(Folder, LoopDevice)> {
    let folder = Folder::new();
    let mut noise = Noise::new(41);
    folder.write("medium", &noise.bytes(16 << 20));
    let device = LoopDevice::new(&folder.path("medium"))?;
    // Half data, a hole, and data in the last sector.
    let disk = File::create(folder.path("raw")).expect("file");
    disk.set_len(8 << 20).expect("length");
    disk.write_all_at(&noise.bytes(4 << 20), 0).expect("write");
    disk.write_all_at(&noise.bytes(512), (8 << 20) - 512)
        .expect("write");
    Some((folder, device))
}

fn fvd(folder: &Folder, device: &LoopDevice, line: &str) -> Said {
    let device = device.path.to_str().expect("a plain name");
    folder.run(&line.replace("DEVICE", device))
}

#[test]
fn a_block_device_takes_a_raw_disk_with_all_its_zeros() {
    let Some((folder, device)) = with_device() else {
        return;
    };
    fvd(&folder, &device, "convert -O raw raw DEVICE").fails(1, &["exists", "--force"]);
    fvd(&folder, &device, "convert -O raw --force raw DEVICE").ends(0);
    fvd(&folder, &device, "convert -O raw DEVICE back").ends(0);
    let (raw, back) = (folder.read("raw"), folder.read("back"));
    assert!(back.len() == 16 << 20 && back[..raw.len()] == raw);
    // The rest of the device is none of our business.
    let medium = folder.read("medium");
    assert!(medium[raw.len()..] == back[raw.len()..]);
    folder.write("long", &vec![1; 17 << 20]);
    fvd(&folder, &device, "convert -O raw --force long DEVICE").fails(1, &["too small"]);
}

#[test]
fn a_used_block_device_holds_an_image_that_reads_zeros_where_nothing_was_written() {
    let Some((folder, device)) = with_device() else {
        return;
    };
    for options in ["", "--table off"] {
        fvd(
            &folder,
            &device,
            &format!("convert {options} --force raw DEVICE"),
        )
        .ends(0);
        fvd(&folder, &device, "check DEVICE").ends(0);
        fvd(
            &folder,
            &device,
            "convert -f fvd -O raw --force DEVICE back",
        )
        .ends(0);
        assert!(folder.read("back") == folder.read("raw"), "{options}");
    }
    fvd(&folder, &device, "create --force DEVICE 1G").ends(0);
    assert_eq!(
        fvd(&folder, &device, "info --json DEVICE").json()["file_size"],
        16 << 20
    );
}

#[test]
fn a_failed_conversion_leaves_no_image_on_a_block_device() {
    let Some((folder, device)) = with_device() else {
        return;
    };
    folder.write("long", &Noise::new(42).bytes(20 << 20));
    fvd(&folder, &device, "convert --force long DEVICE").fails(1, &["no space left"]);
    fvd(&folder, &device, "info DEVICE").fails(1, &["magic"]);
    fvd(&folder, &device, "create --force --table off DEVICE 1G").fails(1, &["too small"]);
}

#[test]
fn data_can_lie_on_a_block_device() {
    let Some((folder, device)) = with_device() else {
        return;
    };
    let line = "convert --target-data-file DEVICE --force raw disk.fvd";
    fvd(&folder, &device, line).ends(0);
    let line = "convert -f fvd -O raw --data-file DEVICE disk.fvd back";
    fvd(&folder, &device, line).ends(0);
    assert!(folder.read("back") == folder.read("raw"));
}

/// Runs `fvd` with an empty file system of 4 MiB at the folder `small`. Says what is left there.
/// `None` if that is not allowed.
fn on_small_file_system(folder: &Folder, line: &str) -> Option<Said> {
    let unshare = outside("unshare")?;
    let small = folder.path("small");
    if !Path::exists(&small) {
        fs::create_dir(&small).expect("folder");
    }
    let script =
        r#"mount -t tmpfs -o size=4m none "$0" || exit 77; "$@"; code=$?; ls -A "$0"; exit $code"#;
    let mut command = Command::new(unshare);
    command.args(["--user", "--map-root-user", "--mount", "sh", "-c", script]);
    command
        .arg(&small)
        .arg(env!("CARGO_BIN_EXE_fvd"))
        .args(line.split_whitespace());
    let said = common::cli::run(command.current_dir(folder.0.path()));
    if said.code == 77 || said.err.contains("unshare failed") {
        println!(
            "SKIP: not allowed to mount a small file system: {}",
            said.err
        );
        return None;
    }
    Some(said)
}

#[test]
fn a_full_file_system_fails_the_conversion_and_is_left_empty() {
    let folder = Folder::new();
    folder.write("raw", &Noise::new(43).bytes(6 << 20));
    for line in [
        "convert raw small/disk.fvd",
        "convert -O raw raw small/disk.raw",
        "convert --target-data-file small/data raw small/disk.fvd",
        "convert --target-data-file small/data raw disk.fvd",
    ] {
        let Some(said) = on_small_file_system(&folder, line) else {
            return;
        };
        said.fails(1, &["no space left"]);
    }
    assert_eq!(folder.names(), ["raw", "small"]);
    // A sparse image fits however large its disk is.
    let said = on_small_file_system(&folder, "create small/disk.fvd 100G");
    assert_eq!(said.expect("allowed before").ends(0).out.trim(), "disk.fvd");
}

#[test]
fn an_image_and_its_data_appear_together_or_not_at_all() {
    let folder = Folder::new();
    folder
        .run("create --data-file same same 1M")
        .fails(1, &["'same'"]);
    assert!(folder.names().is_empty());
    folder.write("data", b"precious");
    folder
        .run("create --data-file data disk.fvd 1M")
        .fails(1, &["'data'", "--force"]);
    assert_eq!(
        (folder.names(), folder.read("data")),
        (vec!["data".into()], b"precious".to_vec())
    );
}
