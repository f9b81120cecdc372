//! `fvd bench`, in short: what it writes is whole. What it measures then means nothing.

mod common;

use common::cli::Folder;
use common::outside;
use serde_json::Value;

/// Runs a smoke test of some tables and arms. `None` if there is no client.
fn quick(folder: &Folder, only: &str, arms: &str) -> Option<Value> {
    outside("fio")?;
    let line = "bench --quick --json --dir . --memory-dir . --output out --only";
    let mut words: Vec<&str> = line.split(' ').collect();
    words.extend([only, "--arms", arms]);
    Some(folder.fvd(&words).json())
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
    let names: Vec<&Value> = tables.iter().map(|table| &table["name"]).collect();
    assert_eq!(
        names,
        [
            "files",
            "files-device",
            "files-overlay",
            "files-fsync",
            "files-fsync-overlay"
        ]
    );
    all_measured_or_skipped(tables);
}

fn all_measured_or_skipped(tables: &[Value]) {
    for row in tables.iter().flat_map(rows) {
        match &row["outcome"]["skipped"] {
            Value::Null => assert!(row["outcome"]["measured"].is_object(), "{row}"),
            why => println!("SKIP: {}: {why}", row["arm"]),
        }
    }
}

#[test]
fn other_clients_are_used_where_they_are_installed() {
    let folder = Folder::new();
    let arms = "fvd,qcow2,qemu raw io_uring";
    let Some(report) = quick(&folder, "copy,img,write-qd1", arms) else {
        return;
    };
    let tables = report["tables"].as_array().expect("tables");
    let measured: Vec<(&Value, usize)> = tables
        .iter()
        .map(|table| (&table["name"], rows(table).len()))
        .collect();
    for (found, wanted) in measured.iter().zip([
        ("write-qd1", 3),
        ("copy-out", 2),
        ("copy-in", 2),
        ("img-read", 2),
        ("img-write", 2),
    ]) {
        assert_eq!((found.0.as_str(), found.1), (Some(wanted.0), wanted.1));
    }
    all_measured_or_skipped(tables);
    assert_eq!(folder.names(), ["out"], "images are gone");
}

#[test]
fn reads_are_watched_while_something_else_goes_on() {
    let folder = Folder::new();
    let Some(report) = quick(&folder, "latency", "fvd,fvd idle,raw idle") else {
        return;
    };
    let [median, slow] = &report["tables"].as_array().expect("tables")[..] else {
        panic!("{report}")
    };
    assert_eq!(median["name"], "latency-p50");
    assert_eq!(slow["name"], "latency-p99");
    for table in [median, slow] {
        assert_eq!(table["beside"], "to itself under load");
        let measured = rows(table).iter().map(|row| {
            let ratio = &row["outcome"]["measured"]["ratio"]["median"];
            assert!(ratio.as_f64().is_some_and(|ratio| ratio > 0.0), "{row}");
            (row["arm"].as_str(), row["beside"].is_object())
        });
        assert_eq!(
            measured.collect::<Vec<_>>(),
            [
                (Some("raw idle"), true),
                (Some("fvd"), false),
                (Some("fvd idle"), true)
            ]
        );
    }
}

#[test]
fn reads_after_open_read_data_and_nothing_else() {
    let folder = Folder::new();
    let arms = "raw,fvd,fvd --table off,qcow2";
    let Some(report) = quick(&folder, "count-read", arms) else {
        return;
    };
    if outside("strace").is_none() {
        return;
    }
    for row in rows(&report["counts"][0]) {
        let counted = &row["counted"]["Ok"];
        let [reads, bytes] = ["reads", "read_bytes"].map(|key| counted[key].as_f64());
        if row["arm"] != "qcow2" {
            assert_eq!((reads, bytes), (Some(1.0), Some(4096.0)), "{row}");
        } else if outside("qemu-nbd").is_some() {
            assert!(
                reads.is_some_and(|reads| reads > 1.5),
                "its metadata: {row}"
            );
        }
    }
}

#[test]
fn it_says_what_there_is_and_what_it_can_not_do() {
    let folder = Folder::new();
    let list = folder.run("bench --list").ends(0).out;
    for name in [
        "fresh-qd1",
        "copy-in",
        "img-read",
        "local-flush-32",
        "files-fsync-overlay",
        "latency",
        "fragments",
        "count-flush",
        "count-read",
        "qcow2 extended_l2",
        "qemu raw io_uring",
    ] {
        assert!(list.contains(name), "{list}");
    }
    folder.run("bench --rounds 0").fails(64, &["--rounds"]);
    // An empty name would begin all of them.
    folder.run("bench --only fresh,").fails(64, &["--only"]);
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
