//! Images of the written specification of 2011 (docs/DIALECTS.md §3): read, recovered, written, checked,
//! converted, refused.
//!
//! `tests/images/spec2011/make.py` made them from the specification; it shares nothing with this
//! project's code.

#![allow(unreachable_pub)] // modules of one test

mod common;
#[allow(dead_code)]
#[path = "old/golden.rs"]
mod golden;
#[path = "old/rounds.rs"]
mod rounds;
#[path = "old/second.rs"]
mod second;
#[path = "common/sha256.rs"]
mod sha256;

use std::fs;
use std::path::Path;
use std::process::Command;

use common::cli::{Said, run};
use common::{Bench, outside};
use fvd::format::Dialect;
use fvd_std::image::{self, Access};
use golden::{Golden, images, spec_names};
use rounds::hash;
use sha256::sha256;

fn good() -> impl Iterator<Item = Golden> {
    spec_names(true)
        .into_iter()
        .map(|name| Golden::unpack_spec(&name))
}

fn damaged() -> impl Iterator<Item = Golden> {
    spec_names(false)
        .into_iter()
        .map(|name| Golden::unpack_spec(&name))
}

#[test]
fn the_script_makes_just_these_images() {
    let Some(python) = outside("python3") else {
        return;
    };
    let folder = tempfile::tempdir().expect("temporary folder");
    let script = images("spec2011").join("make.py");
    let made = Command::new(python).arg(script).arg(folder.path()).status();
    assert!(made.expect("python3").success());
    let kept = |name: &Path| name.extension().is_some_and(|kind| kind != "py");
    let list = |folder: &Path| -> Vec<_> {
        let entries = fs::read_dir(folder).expect("folder");
        let mut paths: Vec<_> = entries.map(|entry| entry.expect("entry").path()).collect();
        paths.retain(|path| kept(path));
        paths.sort();
        paths
    };
    let (here, there) = (list(&images("spec2011")), list(folder.path()));
    assert_eq!(here.len(), there.len());
    assert!(here.len() > 100, "{here:?}");
    for (here, there) in here.iter().zip(&there) {
        assert_eq!(here.file_name(), there.file_name());
        // Archives are compared by what is in them: another xz may pack them otherwise.
        if here.extension().is_some_and(|kind| kind == "json") {
            assert!(
                fs::read(here).expect("file") == fs::read(there).expect("file"),
                "{here:?}"
            );
        }
    }
}

#[test]
fn good_images_read_as_intended_and_nothing_is_written_for_that() {
    good().for_each(|golden| rounds::reads_as_intended(&golden));
}

#[test]
fn good_images_are_recovered_in_place() {
    good().for_each(|golden| rounds::recovers_in_place(&golden));
}

#[test]
fn good_images_can_be_written_and_a_second_reader_reads_what_was_written() {
    for (seed, golden) in
        (100..).zip(good().filter(|golden| golden.json["header"]["virtual_disk_size"] != 0))
    {
        rounds::takes_writes(&golden, seed);
    }
}

#[test]
fn a_recovered_image_has_an_epoch_above_all_records() {
    let epoch = |golden: &Golden| {
        let header = image::read_header(&golden.path()).expect("a header").header;
        header.core.stable_seq
    };
    for golden in good().filter(|golden| golden.unclean) {
        let before = epoch(&golden);
        let found = hash(&mut Bench::new(), &golden, Access::ReadWrite);
        assert!(found.is_ok(), "{found:?}");
        assert!(epoch(&golden) >= before, "{}", golden.name);
        if golden.name.starts_with("f2-") {
            assert!(epoch(&golden) > before, "{}", golden.name);
        }
    }
}

#[test]
fn headers_are_read_field_by_field() {
    for golden in good() {
        let name = &golden.name;
        let found = image::read_header(&golden.path()).expect("a header").header;
        let (core, copy) = (&found.core, &found.core.copy);
        let wanted = &golden.json["header"];
        let number = |field: &str| wanted[field].as_u64().expect("a number");
        let text = |field: &str| {
            let mut text = wanted[field].as_str().expect("a text").as_bytes().to_vec();
            text.truncate(255); // what is kept of a longer one
            text
        };
        assert_eq!(found.dialect, Dialect::Spec2011);
        assert_eq!(core.virtual_bytes, number("virtual_disk_size"), "{name}");
        assert_eq!(core.data_offset, number("data_offset"), "{name}");
        assert_eq!(core.data_file.as_bytes(), text("data_file"), "{name}");
        assert_eq!(core.base_name.as_bytes(), text("base_img"), "{name}");
        assert_eq!(core.base_bytes, number("base_img_size"), "{name}");
        assert_eq!(
            core.add_storage_command.as_bytes(),
            text("add_storage_cmd"),
            "{name}"
        );
        assert_eq!(core.journal.offset, number("journal_offset"), "{name}");
        assert_eq!(core.journal.bytes, number("journal_size"), "{name}");
        assert_eq!(core.stable_seq, number("stable_journal_epoch"), "{name}");
        assert_eq!(core.clean_shutdown, number("clean_shutdown") == 1, "{name}");
        assert_eq!(core.clean_shutdown, !golden.unclean, "{name}");
        assert_eq!(
            core.base_fully_prefetched,
            number("base_img_fully_prefetched") == 1,
            "{name}"
        );
        assert_eq!(core.need_zero_init, number("need_zero_init") == 1, "{name}");
        assert_eq!(
            core.grow_bytes.map(u64::from),
            Some(number("storage_grow_unit")),
            "{name}"
        );
        assert_eq!(found.has_table(), number("table_size") != 0, "{name}");
        if found.has_bitmap() {
            assert_eq!(core.block_bytes, number("block_size"), "{name}");
            assert_eq!(core.bitmap.offset, number("bitmap_offset"), "{name}");
        }
        if found.has_table() {
            assert_eq!(core.chunk_bytes, number("chunk_size"), "{name}");
            assert_eq!(core.table.offset, number("table_offset"), "{name}");
        }
        assert_eq!(copy.copy_on_read, number("copy_on_read") == 1, "{name}");
        assert_eq!(
            copy.copy_on_read_bytes_max,
            number("max_outstanding_copy_on_read_data")
        );
        assert_eq!(
            copy.prefetch_start_delay_s,
            number("prefetch_start_delay") as i64
        );
        assert_eq!(u64::from(copy.prefetch_slots), number("num_prefetch_slots"));
        assert_eq!(copy.prefetch_bytes, number("bytes_per_prefetch"));
        assert_eq!(
            copy.read_throughput_min,
            number("prefetch_min_read_throughput")
        );
        assert_eq!(
            copy.read_throughput_max,
            number("prefetch_max_read_throughput")
        );
        assert_eq!(
            copy.write_throughput_min,
            number("prefetch_min_write_throughput")
        );
        assert_eq!(
            copy.write_throughput_max,
            number("prefetch_max_write_throughput")
        );
        assert_eq!(copy.throttle_ms_max, number("prefetch_throttle_time"));
        assert_eq!(
            copy.read_measure_ms,
            number("prefetch_read_throughput_measure_time")
        );
        assert_eq!(
            copy.write_measure_ms,
            number("prefetch_write_throughput_measure_time")
        );
    }
}

#[test]
fn damaged_images_are_refused_by_name_and_left_alone() {
    let mut bench = Bench::new();
    for golden in damaged() {
        let before = golden.files();
        let words = golden.json["error"].as_str().expect("words");
        for access in [Access::ReadOnly, Access::ReadWrite] {
            let error = hash(&mut bench, &golden, access).expect_err(&golden.name);
            assert!(error.contains(words), "{}: {error}", golden.name);
            assert!(golden.files() == before, "{} was written to", golden.name);
        }
    }
}

/// Runs `fvd` where the image is; `PARTS` stands for the options that name its parts.
fn fvd(golden: &Golden, line: &str) -> Said {
    let file = |name: &str| golden.folder().join(name).exists();
    let mut parts = String::new();
    if file("base.raw") {
        parts += " --base base.raw --base-format raw";
    }
    if file("data.dat") {
        parts += " --data-file data.dat";
    }
    let line = line.replace("PARTS", &parts);
    run(Command::new(env!("CARGO_BIN_EXE_fvd"))
        .args(line.split_whitespace())
        .current_dir(golden.folder()))
}

#[test]
fn check_finds_good_images_clean_and_damaged_ones_damaged() {
    for golden in good() {
        let name = &golden.name;
        let before = golden.files();
        let report = fvd(&golden, "check --json PARTS image.fvd");
        assert_eq!(report.code, 0, "{name}: {report:?}");
        if name.starts_with('e') && !name.starts_with("e3") {
            // How long the data file is, is recorded nowhere.
            fvd(&golden, "check image.fvd").fails(1, &["'data.dat'", "--data-file"]);
            let info = fvd(&golden, "info --json image.fvd").json();
            assert!(info["allocated_bytes"].is_null(), "{info}");
        }
        assert!(golden.files() == before, "{name} was written to");
        let repaired = fvd(&golden, "check --json --repair PARTS image.fvd");
        assert_eq!(repaired.code, 0, "{name}: {repaired:?}");
        let found = hash(&mut Bench::new(), &golden, Access::ReadOnly);
        assert_eq!(found.as_ref(), Ok(&golden.intended), "{name}");
    }
    for golden in damaged() {
        let name = &golden.name;
        let code = match &name[..3] {
            // Not damaged: of another version, larger than this takes, or on another base.
            "m04" | "m12" | "m22" => 1,
            _ => 2,
        };
        let before = golden.files();
        for line in ["check PARTS image.fvd", "check --repair PARTS image.fvd"] {
            let report = fvd(&golden, line);
            assert_eq!(report.code, code, "{name}: {line}: {report:?}");
            assert!(golden.files() == before, "{name} was written to");
        }
    }
}

#[test]
fn good_images_are_converted_to_every_format() {
    for golden in good() {
        let name = &golden.name;
        fvd(&golden, "convert -f fvd -O raw PARTS image.fvd out.raw").ends(0);
        let raw = fs::read(golden.folder().join("out.raw")).expect("raw");
        assert_eq!(sha256(&raw), golden.intended, "{name}");
        fvd(&golden, "convert -f fvd -O fvd PARTS image.fvd out.fvd").ends(0);
        fvd(&golden, "convert --force -f fvd -O raw out.fvd out.raw").ends(0);
        assert!(
            fs::read(golden.folder().join("out.raw")).expect("raw") == raw,
            "{name}"
        );
    }
}
