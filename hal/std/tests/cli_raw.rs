//! `fvd convert` between raw files: the part of it that needs no image.

mod common;

use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use common::Noise;
use common::cli::{Folder, allocated};
use fvd_std::file::{FileDevice, FileOptions};

/// A sparse file of 40 MiB and a bit: islands of noise, of zeros, and of both.
fn sparse(folder: &Folder, name: &str, len: u64) {
    let file = File::create(folder.path(name)).expect("file");
    file.set_len(len).expect("length");
    let mut noise = Noise::new(11);
    for _ in 0..40 {
        let at = noise.below(len - (300 << 10));
        let island = 1 + noise.below(256 << 10) as usize;
        let mut island = noise.bytes(island);
        if noise.below(3) == 0 {
            island.fill(0);
        } else if noise.below(3) == 0 {
            let half = island.len() / 2;
            island[half..].fill(0);
        }
        file.write_all_at(&island, at).expect("write");
    }
}

#[test]
fn a_copy_of_a_raw_file_is_identical_and_at_least_as_sparse() {
    let folder = Folder::new();
    for len in [(40 << 20) + 1000, 40 << 20, 4096 * 77 + 512] {
        sparse(&folder, "source", len);
        folder.run("convert -O raw source copy").ends(0);
        assert!(folder.read("source") == folder.read("copy"), "{len} bytes");
        let (source, copy) = (
            allocated(&folder.path("source")),
            allocated(&folder.path("copy")),
        );
        assert!(copy <= source, "{copy} of {source} bytes allocated");
        fs::remove_file(folder.path("copy")).expect("removed");
    }
}

#[test]
fn zeros_that_were_written_out_become_holes() {
    let folder = Folder::new();
    let mut bytes = vec![0; 8 << 20];
    bytes[5 << 20] = 1;
    folder.write("source", &bytes);
    folder.run("convert -f raw -O raw source copy").ends(0);
    assert!(folder.read("copy") == bytes);
    assert!(allocated(&folder.path("copy")) <= 64 << 10);
}

#[test]
fn an_empty_disk_is_a_disk() {
    let folder = Folder::new();
    folder.write("source", &[]);
    folder.run("convert -O raw source copy").ends(0);
    assert!(folder.read("copy").is_empty());
}

#[test]
fn an_existing_target_is_replaced_only_by_force() {
    let folder = Folder::new();
    folder.write("source", &[1; 4096]);
    folder.write("copy", b"precious");
    folder
        .run("convert -O raw source copy")
        .fails(1, &["'copy'", "exists", "--force"]);
    assert_eq!(folder.read("copy"), b"precious");
    folder.run("convert -O raw --force source copy").ends(0);
    assert_eq!(folder.read("copy"), [1; 4096]);
    assert_eq!(folder.names(), ["copy", "source"]);
}

#[test]
fn a_source_is_never_its_own_target() {
    let folder = Folder::new();
    folder.write("source", &[1; 4096]);
    folder
        .run("convert -O raw --force source source")
        .fails(1, &["'source'", "locked"]);
    std::os::unix::fs::symlink("source", folder.path("link")).expect("link");
    folder
        .run("convert -O raw --force source link")
        .fails(1, &["locked"]);
    assert_eq!(folder.read("source"), [1; 4096]);
}

#[test]
fn a_failure_leaves_nothing_behind() {
    let folder = Folder::new();
    folder
        .run("convert -O raw missing copy")
        .fails(1, &["'missing'", "No such file"]);
    folder.write("source", &[1; 4096]);
    folder
        .run("convert -O raw source no/such/folder/copy")
        .fails(1, &["'no/such/folder/copy'"]);
    fs::create_dir(folder.path("folder")).expect("folder");
    folder
        .run("convert -O raw folder copy")
        .fails(1, &["neither a regular file"]);
    folder
        .run("convert -O raw --force source folder")
        .fails(1, &["neither a regular file"]);
    assert_eq!(folder.names(), ["folder", "source"]);
}

#[test]
fn a_source_that_somebody_writes_to_is_refused() {
    let folder = Folder::new();
    folder.write("source", &[1; 4096]);
    let writer = FileDevice::open(&folder.path("source"), &FileOptions::default());
    let writer = writer.expect("unlocked");
    folder
        .run("convert -O raw source copy")
        .fails(1, &["'source'", "locked"]);
    drop(writer);
    let reader = FileDevice::open(&folder.path("source"), &FileOptions::read_only());
    let _reader = reader.expect("unlocked");
    folder.run("convert -O raw source copy").ends(0);
}

#[test]
fn wrong_usage_is_64_and_says_why() {
    let folder = Folder::new();
    folder.write("source", &[1; 4096]);
    folder.run("").fails(64, &["Usage: fvd"]);
    folder.run("frobnicate").fails(64, &["frobnicate"]);
    folder.run("convert source").fails(64, &["DST"]);
    folder
        .run("convert -f qcow2 source copy")
        .fails(64, &["qcow2"]);
    folder
        .run("convert --no-such-option source copy")
        .fails(64, &["--no-such-option"]);
    folder
        .run("convert -O raw --target-base source source copy")
        .fails(64, &["-O fvd"]);
    folder.run("create image").fails(64, &["SIZE"]);
    folder.run("create image 12Q").fails(64, &["12Q", "unit"]);
    folder
        .run("create --block-size 64X image 1G")
        .fails(64, &["--block-size"]);
    folder
        .run("create --journal-size none image 1G")
        .fails(64, &["--table off"]);
    folder
        .run("create --base-id 12 --base source image")
        .fails(64, &["32 hexadecimal digits"]);
    assert_eq!(folder.names(), ["source"]);
}

#[test]
fn help_and_version_are_results() {
    let folder = Folder::new();
    let help = folder.run("--help").ends(0);
    for verb in ["create", "info", "map", "check", "convert"] {
        assert!(help.out.contains(verb), "{help:?}");
    }
    assert!(
        folder
            .run("convert --help")
            .ends(0)
            .out
            .contains("--target-base")
    );
    let version = folder.run("--version").ends(0);
    assert_eq!(
        version.out.trim(),
        concat!("fvd ", env!("CARGO_PKG_VERSION"))
    );
}

#[test]
fn names_can_not_draw_on_the_terminal() {
    let folder = Folder::new();
    let said = folder
        .fvd(&["info", "no\x1b[2Jfile\nhere"])
        .fails(1, &[r"'no\u{1b}[2Jfile\nhere'"]);
    assert!(!said.err.contains('\x1b'), "{said:?}");
}
