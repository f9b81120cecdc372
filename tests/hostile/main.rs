//! Images made by an enemy: whatever one says, the answer is right, bounded, and harmless.
//!
//! [`row::Row`] is one image and what must come of it; the files are the letters of the catalogue.
//! What must hold for every image, whatever its row says, is in `bench.rs` and `row.rs`.

#[path = "../common/mod.rs"]
mod common;

mod bench;
mod bitmap;
mod device;
mod guest;
mod header;
mod image;
mod inert;
mod journal;
mod mutations;
mod old;
#[allow(dead_code)] // a part is for tests/fuzz
mod old_image;
mod row;
mod table;
mod unreadable;

use std::collections::BTreeSet;

use bench::Bench;
use row::Row;

/// Rows of the catalogue that need no image here, and why.
const ELSEWHERE: [(&str, &str); 22] = [
    ("H5", "old.rs: version 1 only"),
    ("T7", "no snapshots yet"),
    ("T9", "table.rs, a test of its own"),
    ("T11", "an entry names a place, never another entry"),
    ("S1", "no snapshots yet"),
    ("S2", "no snapshots yet"),
    ("S3", "no snapshots yet"),
    ("S4", "no snapshots yet"),
    ("S5", "no snapshots yet"),
    ("S6", "no snapshots yet"),
    ("S7", "no snapshots yet"),
    ("S8", "no snapshots yet"),
    ("S9", "no snapshots yet"),
    ("S10", "no snapshots yet"),
    ("S11", "no snapshots yet"),
    ("S12", "no snapshots yet"),
    (
        "X1",
        "row.rs: every row, with every operation failing in turn",
    ),
    ("X3", "inert.rs"),
    (
        "X4",
        "hal/std/tests/cli_bases.rs: the host compares files and counts the depth",
    ),
    ("X5", "mutations.rs"),
    ("X6", "mutations.rs"),
    ("X2", "inert.rs"),
];

/// Letters of the catalogue and how many rows each has.
const CATALOGUE: [(char, u32); 6] = [
    ('H', 32),
    ('B', 7),
    ('T', 11),
    ('J', 21),
    ('S', 12),
    ('X', 6),
];

#[test]
fn no_row_of_the_catalogue_is_missing() {
    let rows = [
        header::rows(),
        bitmap::rows(),
        table::rows(),
        journal::rows(),
    ];
    let here: BTreeSet<&str> = rows.iter().flatten().map(|row| row.id).collect();
    for (letter, count) in CATALOGUE {
        for number in 1..=count {
            let id = format!("{letter}{number}");
            let elsewhere = ELSEWHERE.iter().any(|(row, _)| *row == id);
            assert!(
                here.contains(id.as_str()) != elsewhere,
                "{id}: once, here or elsewhere"
            );
        }
    }
    let images: usize = rows.iter().map(Vec::len).sum();
    println!("{images} images for {} rows", here.len());
}

#[test]
fn no_row_of_the_catalogue_is_missing_for_an_old_dialect() {
    for fields in old::DIALECTS {
        let rows = old::rows(fields);
        let here: BTreeSet<&str> = rows.iter().map(|row| row.id).collect();
        for (letter, count) in CATALOGUE {
            for number in 1..=count {
                let id = format!("{letter}{number}");
                assert!(
                    here.contains(id.as_str()) != old::is_elsewhere(&id),
                    "{:?} {id}: once, here or elsewhere",
                    fields.dialect
                );
            }
        }
        println!(
            "{:?}: {} images for {} rows",
            fields.dialect,
            rows.len(),
            here.len()
        );
    }
}

#[test]
fn old_dialects() {
    old::DIALECTS
        .into_iter()
        .for_each(|fields| judge(old::rows(fields)));
}

#[track_caller]
fn judge(rows: Vec<Row>) {
    let mut bench = Bench::new();
    for row in rows {
        row.judge(&mut bench);
    }
}

#[test]
fn headers() {
    judge(header::rows());
}

#[test]
fn bitmaps() {
    judge(bitmap::rows());
}

#[test]
fn tables() {
    judge(table::rows());
}

#[test]
fn journals() {
    judge(journal::rows());
}
