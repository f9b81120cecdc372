//! `fvd bench`, in short: what it writes is whole. What it measures then means nothing.

mod common;

use common::cli::Folder;
use common::outside;
use serde_json::Value;

/// Runs a smoke test of some tables and arms. `None` if there is no client.
fn quick(folder: &Folder, only: &str, arms: &str) -> Option<Value> {
    outside("fio")?;
    let line = format!(
        "bench --quick --json --dir . --memory-dir . --output out --only {only} --arms {arms}"
    );
    Some(folder.run(&line).json())
}

fn rows(table: &Value) -> &Vec<Value> {
    table["rows"].as_array().expect("rows")
}

#[test]
fn tables_pictures_and_documents_agree() {
    let folder = Folder::new();
    let only = "flush-each,server-read-qd1";
    let Some(report) = quick(&folder, only, "fvd,raw,raw+J,qcow2") else {
        return;
    };
    let [flush, server] = &report["tables"].as_array().expect("tables")[..] else {
        panic!("{report}")
    };
    assert_eq!(
        (&flush["name"], &flush["rounds"]),
        (&"flush-each".into(), &1.into())
    );
    assert_eq!(server["reference"], "qemu raw");
    assert_eq!(rows(flush).len(), 3);
    for row in rows(flush).iter().chain(rows(server)) {
        match &row["outcome"]["measured"]["ratio"]["median"] {
            Value::Null => assert!(row["outcome"]["skipped"].is_string(), "{row}"),
            ratio => assert!(ratio.as_f64().is_some_and(|ratio| ratio > 0.0), "{row}"),
        }
    }
    let ours = rows(flush)
        .iter()
        .find(|row| row["arm"] == "fvd")
        .expect("a row");
    assert_eq!(ours["verdicts"].as_array().expect("verdicts").len(), 2);

    let written: Value = serde_json::from_slice(&folder.read("out/bench.json")).expect("JSON");
    assert_eq!(written, report);
    let text = String::from_utf8(folder.read("out/bench.md")).expect("text");
    for table in [flush, server] {
        let heading = format!("### `{}`: ", table["name"].as_str().expect("a name"));
        assert!(text.contains(&heading), "{text}");
    }
    let picture = String::from_utf8(folder.read("out/bench.svg")).expect("text");
    let picture = roxmltree::Document::parse(&picture).expect("well-formed");
    let of_class = |class: &str| {
        let nodes = picture.descendants();
        nodes
            .filter(|node| node.attribute("class") == Some(class))
            .count()
    };
    assert_eq!(of_class("title"), 2, "a heading for each table");
    assert_eq!(of_class("again"), 2, "the A/A band");
    assert!(of_class("bar") >= 1, "the bar");
    assert_eq!(folder.names(), ["out"], "images are gone");
}

#[test]
fn what_servers_ask_of_their_host_is_counted_exactly() {
    let folder = Folder::new();
    let Some(report) = quick(&folder, "count-flush,count-cow", "fvd,raw,raw+J") else {
        return;
    };
    if outside("strace").is_none() {
        return;
    }
    let counted = |table: usize, arm: &str| {
        let table = &report["counts"][table];
        let row = rows(table)
            .iter()
            .find(|row| row["arm"] == arm)
            .expect("a row");
        let counted = &row["counted"]["Ok"];
        ["writes", "written_bytes", "syncs", "read_bytes"]
            .map(|key| counted[key].as_f64().unwrap_or_else(|| panic!("{row}")))
    };
    assert_eq!(counted(0, "raw"), [1.0, 4096.0, 1.0, 0.0]);
    assert_eq!(counted(0, "raw+J"), [2.0, 8192.0, 1.0, 0.0]);
    assert_eq!(
        counted(1, "raw+J"),
        [1.0 + 1.0 / 32.0, 4096.0 + 128.0, 1.0 / 32.0, 0.0]
    );
    // A journal unit for each flush, and a small share in checkpoints and growth. A place may be in a
    // chunk that was written before.
    let [writes, bytes, syncs, reads] = counted(0, "fvd");
    assert!((1.9..2.1).contains(&writes), "{writes}");
    assert!((7800.0..8600.0).contains(&bytes), "{bytes}");
    assert!((1.0..1.1).contains(&syncs) && reads == 0.0, "{syncs}");
}

#[test]
fn a_random_fill_leaves_extents() {
    let folder = Folder::new();
    let Some(report) = quick(&folder, "fragments", "fvd") else {
        return;
    };
    let fragments = &report["fragments"];
    let names: Vec<&Value> = rows(fragments).iter().map(|row| &row["arm"]).collect();
    assert_eq!(names, ["raw", "fvd"]);
    let written = fragments["written_bytes"].as_u64().expect("bytes");
    for row in rows(fragments) {
        assert!(
            row["allocated_bytes"].as_u64().expect("bytes") >= written,
            "{row}"
        );
    }
    assert_eq!(rows(&fragments["reads"]).len(), 1);
}

#[test]
fn the_engine_is_measured_without_a_server_too() {
    let folder = Folder::new();
    let Some(report) = quick(&folder, "local", "fvd,raw+J,pwrite") else {
        return;
    };
    let tables = report["tables"].as_array().expect("tables");
    let measured: Vec<usize> = tables.iter().map(|table| rows(table).len()).collect();
    assert_eq!(measured, [2, 1, 3, 3]);
    for row in tables.iter().flat_map(rows) {
        assert!(row["outcome"]["measured"].is_object(), "{row}");
    }
}

#[test]
fn small_files_are_created_in_a_file_system_on_an_image() {
    let folder = Folder::new();
    let Some(report) = quick(&folder, "files", "fvd,qed") else {
        return;
    };
    let tables = report["tables"].as_array().expect("tables");
    assert_eq!(tables.len(), 2);
    for row in tables.iter().flat_map(rows) {
        match &row["outcome"]["skipped"] {
            Value::Null => assert!(row["outcome"]["measured"].is_object(), "{row}"),
            why => println!("SKIP: {}: {why}", row["arm"]),
        }
    }
}

#[test]
fn it_says_what_there_is_and_what_it_can_not_do() {
    let folder = Folder::new();
    let list = folder.run("bench --list").ends(0).out;
    for name in ["fresh-qd1", "count-flush", "fragments", "qcow2 extended_l2"] {
        assert!(list.contains(name), "{list}");
    }
    folder.run("bench --rounds 0").fails(64, &["--rounds"]);
    if outside("fio").is_some() {
        folder
            .run("bench --quick --dir missing")
            .fails(1, &["missing"]);
    }
    folder.run("create disk.fvd 1M").ends(0);
    folder
        .run("serve --journal-control --socket s disk.fvd")
        .fails(64, &["-f raw"]);
}
