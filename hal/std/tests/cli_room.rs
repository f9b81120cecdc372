//! How long a new image's files are, and how much space they take.

mod common;

use std::fs;

use common::cli::{Folder, allocated};
use common::{Bench, LoopDevice};
use fvd::device::{BlockDevice, DeviceError, Status};
use fvd_std::file::{FileDevice, FileOptions};
use fvd_std::image::{self, Access, Devices, Image};

const MIB: u64 = 1 << 20;

fn length(folder: &Folder, name: &str) -> u64 {
    fs::metadata(folder.path(name)).expect("file").len()
}

/// Opens an image as a machine sees it whose disks can not grow.
fn open_fixed(bench: &mut Bench, folder: &Folder) -> Image {
    let options = FileOptions {
        grow_unit_bytes: None,
        ..FileOptions::default()
    };
    let devices = Devices {
        metadata: FileDevice::open(&folder.path("disk.fvd"), &options).expect("a device"),
        data: None,
        base: None,
    };
    let options = image::open_options(Access::ReadWrite).expect("randomness");
    Image::on(&mut bench.driver, devices, options).expect("an image")
}

/// Writes the first sector of each chunk in turn. Returns how many there was room for.
fn fill(bench: &mut Bench, image: &mut Image) -> u64 {
    let chunks = image.geometry().capacity_bytes / MIB;
    let full = Status::Failed(DeviceError::NoSpace);
    (0..chunks)
        .take_while(|chunk| {
            let status = bench.write(image, chunk * MIB, &[7; 512]);
            assert!(status == Status::Done || status == full, "{status:?}");
            status == Status::Done
        })
        .count() as u64
}

#[test]
fn a_whole_store_holds_every_chunk_without_growing() {
    for (options, room) in [
        ("", 0),
        ("--store-size whole", 10),
        ("--preallocation falloc", 10),
        ("--preallocation full", 10),
        ("--store-size 5M", 4),
        ("--store-size 5M --preallocation falloc", 4),
        ("--store-size 20M", 10),
    ] {
        let (folder, mut bench) = (Folder::new(), Bench::new());
        folder
            .run(&format!("create {options} disk.fvd 10M"))
            .ends(0);
        let before = length(&folder, "disk.fvd");
        let mut image = open_fixed(&mut bench, &folder);
        assert_eq!(fill(&mut bench, &mut image), room, "{options}");
        // The file is new, so nothing of it has to be zeroed first.
        assert_eq!(image.stats().chunks_zeroed, 0, "{options}");
        image.close(&mut bench.driver).expect("closed");
        assert_eq!(length(&folder, "disk.fvd"), before, "{options}");
        folder.run("check disk.fvd").ends(0);
        // On a host the same file still grows.
        let image = Image::open(
            &mut bench.driver,
            &folder.path("disk.fvd"),
            Access::ReadWrite,
            &image::Parts::default(),
        );
        let mut image = image.expect("an image");
        assert_eq!(fill(&mut bench, &mut image), 10, "{options}");
        image.close(&mut bench.driver).expect("closed");
        folder.run("check disk.fvd").ends(0);
    }
}

#[test]
fn space_is_taken_when_it_is_asked_for_and_not_before() {
    let folder = Folder::new();
    let mut lengths = Vec::new();
    for (options, takes_all) in [
        ("--store-size whole", false),
        ("--preallocation falloc", true),
        ("--preallocation full", true),
    ] {
        for table in ["on", "off"] {
            let shape = format!("--force --table {table} {options} disk.fvd 10M");
            let line = format!("create {shape}");
            folder.run(&line).ends(0);
            let (len, taken) = (
                length(&folder, "disk.fvd"),
                allocated(&folder.path("disk.fvd")),
            );
            assert!(len >= 10 * MIB, "{line}: {len} bytes");
            assert_eq!(taken >= 10 * MIB, takes_all, "{line}: {taken} bytes");
            lengths.push(len);

            let line = format!("create --data-file data {shape}");
            folder.run(&line).ends(0);
            let taken = allocated(&folder.path("data"));
            assert_eq!(length(&folder, "data"), 10 * MIB, "{line}");
            assert_eq!(taken >= 10 * MIB, takes_all, "{line}: {taken} bytes");
        }
    }
    // How much of it is held changes nothing about the length.
    assert!(
        lengths.chunks(2).all(|pair| *pair == lengths[..2]),
        "{lengths:?}"
    );
}

#[test]
fn a_conversion_keeps_the_space_it_was_given() {
    let folder = Folder::new();
    folder.write("raw", &[vec![9; 1000], vec![0; 5 * MIB as usize]].concat());
    for mode in ["falloc", "full"] {
        folder
            .run(&format!(
                "convert --force --preallocation {mode} raw disk.fvd"
            ))
            .ends(0);
        assert!(allocated(&folder.path("disk.fvd")) >= 6 * MIB, "{mode}");
        folder.run("check disk.fvd").ends(0);
        folder
            .run("convert -f fvd -O raw --force disk.fvd back")
            .ends(0);
        assert!(
            folder.read("back").starts_with(&folder.read("raw")),
            "{mode}"
        );
    }
}

#[test]
fn sizes_that_can_not_be_are_refused() {
    let folder = Folder::new();
    for (line, words) in [
        (
            "--store-size 4K disk.fvd 10M",
            ["--store-size 4096", "needed"],
        ),
        (
            "--table off --store-size 10M disk.fvd 10M",
            ["--store-size 10485760", "needed"],
        ),
        (
            "--store-size 9000000T disk.fvd 10M",
            ["store_bytes", "disk.fvd"],
        ),
        ("--preallocation metadata disk.fvd 10M", ["falloc", "full"]),
    ] {
        folder.run(&format!("create {line}")).fails(64, &words);
        assert!(folder.names().is_empty(), "{line}");
    }
    let said = folder
        .run("create --store-size 5000000 disk.fvd 10M")
        .ends(0);
    assert!(said.err.contains("from 5000000 to 5000192"), "{said:?}");
    folder.run("check disk.fvd").ends(0);
}

#[test]
fn a_block_device_is_as_long_as_it_is() {
    let folder = Folder::new();
    folder.write("medium", &vec![1; 4 << 20]);
    let Some(device) = LoopDevice::new(&folder.path("medium")) else {
        return;
    };
    let device = device.path.to_str().expect("a plain name");
    for option in [
        "--store-size 2M",
        "--store-size whole",
        "--preallocation full",
    ] {
        let name = option.split(' ').next().expect("a word");
        folder
            .run(&format!("create --force {option} {device} 10M"))
            .fails(64, &[name, "block device"]);
    }
    assert!(folder.read("medium").iter().all(|byte| *byte == 1));
}
