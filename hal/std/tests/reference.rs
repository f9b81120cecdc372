//! Images of the reference implementation (docs/DIALECTS.md): read, recovered, written, refused.
//!
//! `tests/images/reference` has images that it made. Its images are the test, not its source.

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

use common::Bench;
use fvd::format::Dialect;
use fvd_std::image::{self, Access};
use golden::{Golden, names};
use rounds::hash;

#[test]
fn good_images_read_as_intended_and_nothing_is_written_for_that() {
    for name in names(true) {
        rounds::reads_as_intended(&Golden::unpack(&name));
    }
}

#[test]
fn good_images_are_recovered_in_place() {
    for name in names(true) {
        rounds::recovers_in_place(&Golden::unpack(&name));
    }
}

#[test]
fn good_images_can_be_written_and_the_reference_reads_what_was_written() {
    for (seed, name) in (1..).zip(names(true)) {
        rounds::takes_writes(&Golden::unpack(&name), seed);
    }
}

#[test]
fn headers_are_read_field_by_field() {
    for name in names(true) {
        let golden = Golden::unpack(&name);
        let found = image::read_header(&golden.path()).expect("a header").header;
        let core = &found.core;
        let wanted = &golden.json["header"];
        let number = |field: &str| wanted[field].as_u64().expect("a number");
        let text = |field: &str| wanted[field].as_str().expect("a text").as_bytes().to_vec();
        assert_eq!(found.dialect, Dialect::Reference);
        assert_eq!(core.virtual_bytes, number("virtual_disk_size"), "{name}");
        assert_eq!(core.base_bytes, number("base_img_size"), "{name}");
        assert_eq!(core.base_name.as_bytes(), text("base_img"), "{name}");
        assert_eq!(core.data_file.as_bytes(), text("data_file"), "{name}");
        assert_eq!(core.block_bytes, number("block_size"), "{name}");
        assert_eq!(core.chunk_bytes, number("chunk_size"), "{name}");
        assert_eq!(core.journal.bytes, number("journal_size"), "{name}");
        assert_eq!(core.clean_shutdown, number("clean_shutdown") == 1, "{name}");
        assert_eq!(core.clean_shutdown, !golden.unclean, "{name}");
        assert_eq!(core.need_zero_init, number("need_zero_init") == 1, "{name}");
        assert_eq!(found.has_table(), number("compact_image") == 1, "{name}");
        assert_eq!(
            found.has_bitmap(),
            number("all_data_in_fvd_img") == 0,
            "{name}"
        );
        if found.has_bitmap() {
            assert_eq!(core.bitmap.offset, number("bitmap_offset"), "{name}");
            assert_eq!(core.bitmap.bytes, number("bitmap_size"), "{name}");
            assert_eq!(
                core.copy.prefetch_slots,
                number("num_prefetch_slots") as u32
            );
            assert_eq!(core.copy.prefetch_bytes, number("bytes_per_prefetch"));
            assert_eq!(core.copy.throttle_ms_max, number("prefetch_throttle_time"));
        }
        if found.has_table() {
            assert_eq!(core.table.offset, number("table_offset"), "{name}");
        }
        if core.data_file.is_empty() {
            assert_eq!(
                core.data_offset,
                number("metadata_size") / 512 * 512,
                "{name}"
            );
        }
    }
}

/// What is sane to make of an image that was damaged.
enum Sane {
    /// Refused, with an error that has these words in it.
    Refused(&'static str),
    /// Read as it was before the damage.
    Intended,
    /// Read as the reference reads it after recovery.
    AsReference,
    /// Read as the format says, where the reference does not.
    AsFormat,
    /// Read, whatever it is that is left.
    Something,
}

const DAMAGED: [(&str, Sane); 29] = [
    ("m03-trunc-100", Sane::Refused("header slot")),
    ("m04-trunc-4335", Sane::Refused("header slot")),
    ("m05-trunc-in-table", Sane::Refused("table_offset")),
    ("m06-vsize-odd", Sane::Refused("virtual_disk_size")),
    ("m09-vsize-huge", Sane::Refused("virtual_disk_size")),
    ("m10-table-beyond-eof", Sane::Refused("table entry")),
    ("m11-table-id-max", Sane::Refused("table entry")),
    ("m13-table-duplicate-chunk", Sane::Refused("table entry")),
    ("m16-chunk-size-700", Sane::Refused("chunk_size")),
    ("m18-metadata-size-zero", Sane::Refused("data start")),
    ("m22-unclean-flag-only", Sane::Intended),
    ("m24-journal-unknown-type", Sane::AsReference),
    ("m34-journal-bitmap-huge-count", Sane::AsReference),
    ("m35-journal-bitmap-count-zero", Sane::AsReference),
    ("m36-journal-two-bitmap-records", Sane::AsFormat),
    ("m38-block-size-zero", Sane::Refused("block_size")),
    ("m40-bitmap-size-too-small", Sane::Refused("bitmap_size")),
    (
        "m41-bitmap-offset-beyond-eof",
        Sane::Refused("bitmap_offset"),
    ),
    ("m42-bitmap-trailing-bits", Sane::Intended),
    ("m43-base-missing", Sane::Refused("--base")),
    (
        "m44-base-shrunk",
        Sane::Refused("the base has 2097152 bytes"),
    ),
    ("m46-base-size-gt-vsize", Sane::Refused("the base has")),
    ("m47-all-data-flag-set", Sane::AsReference),
    ("m48-all-data-flag-set-base-missing", Sane::AsReference),
    ("m51-torn-journal-sector", Sane::Something),
    (
        "m53-compact-grown-past-table",
        Sane::Refused("journal_offset"),
    ),
    ("m49-no-base-name", Sane::Refused("--base")),
    ("m52-compact-grown-in-page", Sane::Intended),
    ("c4-rawlike-never-opened", Sane::AsReference),
];

#[test]
fn damaged_images_give_what_is_sane_or_are_refused() {
    let mut bench = Bench::new();
    let unpacked = names(false);
    for name in &unpacked {
        assert!(DAMAGED.iter().any(|(known, _)| known == name), "{name}");
    }
    for (name, sane) in DAMAGED.iter().filter(|_| !unpacked.is_empty()) {
        let mut golden = Golden::unpack(name);
        golden.by_name = name.starts_with("m49");
        let wanted = match sane {
            Sane::Intended => Some(golden.intended.clone()),
            Sane::AsReference => Some(golden.after_rw.clone()),
            Sane::AsFormat => {
                let model = golden.json["results"]["model_sha256"].as_str();
                Some(model.expect("a hash").to_string())
            }
            Sane::Refused(_) | Sane::Something => None,
        };
        let before = golden.files();
        for access in [Access::ReadOnly, Access::ReadWrite, Access::ReadOnly] {
            let found = hash(&mut bench, &golden, access);
            match (sane, found) {
                (Sane::Refused(words), Err(error)) => {
                    assert!(error.contains(words), "{name}: {error}");
                    assert!(golden.files() == before, "{name} was written to");
                }
                (Sane::Refused(_), Ok(_)) => panic!("{name} was opened"),
                (_, found) => {
                    let found = found.unwrap_or_else(|error| panic!("{name}: {error}"));
                    assert!(
                        wanted.as_ref().is_none_or(|wanted| *wanted == found),
                        "{name}"
                    );
                }
            }
        }
    }
}
