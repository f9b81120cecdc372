//! Images of the reference implementation (docs/DIALECTS.md): read, recovered, written, refused.
//!
//! `tests/images/reference` has images that it made. Its images are the test, not its source.

#![allow(unreachable_pub)] // modules of one test

mod common;
#[path = "reference/golden.rs"]
mod golden;
#[path = "reference/second.rs"]
mod second;
#[path = "common/sha256.rs"]
mod sha256;

use common::{Bench, Noise};
use fvd::device::{BlockDevice, OpKind, Status};
use fvd::format::Dialect;
use fvd_std::image::{self, Access, Image};
use golden::{Golden, contents, names};
use second::Second;
use sha256::sha256;

/// Opens, reads everything and closes. Returns the hash of what the guest sees.
fn hash(bench: &mut Bench, golden: &Golden, access: Access) -> Result<String, String> {
    let image = golden.open(bench, access);
    let mut image = image.map_err(|error| error.to_string())?;
    let bytes = contents(bench, &mut image)?;
    let closed = image.close(&mut bench.driver);
    closed.map_err(|error| error.to_string())?;
    Ok(sha256(&bytes))
}

#[test]
fn good_images_read_as_intended_and_nothing_is_written_for_that() {
    let mut bench = Bench::new();
    for name in names(true) {
        let golden = Golden::unpack(&name);
        let before = golden.files();
        let found = hash(&mut bench, &golden, Access::ReadOnly);
        assert_eq!(found.as_ref(), Ok(&golden.intended), "{name}");
        assert!(golden.files() == before, "{name} was written to");
    }
}

#[test]
fn good_images_are_recovered_in_place() {
    let mut bench = Bench::new();
    for name in names(true) {
        let golden = Golden::unpack(&name);
        let found = hash(&mut bench, &golden, Access::ReadWrite);
        assert_eq!(found.as_ref(), Ok(&golden.intended), "{name}");
        let base = golden.base_contents(&mut bench);
        let second = Second::read(&golden.folder(), base);
        assert!(second.is_clean(), "{name}");
        assert_eq!(sha256(&second.contents()), golden.intended, "{name}");
        let again = hash(&mut bench, &golden, Access::ReadOnly);
        assert_eq!(again.as_ref(), Ok(&golden.intended), "{name}");
    }
}

/// Writes, zeroes and discards here and there; `disk` is what must be there then.
fn scribble(bench: &mut Bench, noise: &mut Noise, image: &mut Image, disk: &mut [u8]) {
    let most = u64::from(image.geometry().transfer_max_bytes).min(300 << 10) / 512;
    let sectors = disk.len() as u64 / 512;
    for step in 0..120 {
        let len = 1 + noise.below(most.min(sectors));
        let at = noise.below(sectors - len + 1) * 512;
        let range = at as usize..(at + len * 512) as usize;
        let status = match noise.below(8) {
            0 => {
                disk[range].fill(0);
                bench.run(image, OpKind::WriteZeroes, at, len * 512)
            }
            // A discard must not change what is mapped to anything but what was there or zeros; here
            // it does nothing.
            1 => bench.run(image, OpKind::Discard, at, len * 512),
            _ => {
                let data = noise.bytes(range.len());
                disk[range].copy_from_slice(&data);
                bench.write(image, at, &data)
            }
        };
        assert_eq!(status, Status::Done, "step {step}: {at}+{len}");
        if step % 17 == 0 {
            assert_eq!(bench.run(image, OpKind::Flush, 0, 0), Status::Done);
        }
    }
}

#[test]
fn good_images_can_be_written_and_the_reference_reads_what_was_written() {
    let mut bench = Bench::new();
    for (seed, name) in names(true).into_iter().enumerate() {
        let golden = Golden::unpack(&name);
        let mut noise = Noise::new(seed as u64 + 1);
        let base = golden.base_contents(&mut bench);
        let opened = golden.open(&mut bench, Access::ReadWrite);
        let mut image = opened.unwrap_or_else(|error| panic!("{name}: {error}"));
        let mut disk = contents(&mut bench, &mut image).expect("contents");
        assert_eq!(sha256(&disk), golden.intended, "{name}");
        for round in 0..3 {
            scribble(&mut bench, &mut noise, &mut image, &mut disk);
            let found = contents(&mut bench, &mut image).expect("contents");
            assert!(found == disk, "{name} round {round}");
            image.close(&mut bench.driver).expect("closed");
            let second = Second::read(&golden.folder(), base.clone());
            assert!(second.contents() == disk, "{name} round {round}");
            assert_eq!(second.bits_without_entry(), 0, "{name} round {round}");
            image = golden
                .open(&mut bench, Access::ReadWrite)
                .expect("opened again");
        }
        image.close(&mut bench.driver).expect("closed");
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
