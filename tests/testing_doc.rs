//! The fault table of docs/TESTING.md names tests that exist.

use std::fs;
use std::path::{Path, PathBuf};

/// Where tests are.
const FOLDERS: [&str; 3] = ["src", "tests", "hal"];

/// Beginnings of what stands in the table beside names: commands and parts of replay lines.
const COMMANDS: [&str; 3] = ["cargo ", "search ", "g="];

/// Path below the root and contents of each source file.
fn sources(root: &Path, folder: &Path, all: &mut Vec<(PathBuf, String)>) {
    for entry in fs::read_dir(folder).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            if path.file_name().is_some_and(|name| name != "target") {
                sources(root, &path, all);
            }
        } else if path.extension().is_some_and(|end| end == "rs") {
            let text = fs::read_to_string(&path).expect("text");
            let path = path.strip_prefix(root).expect("below the root").to_owned();
            all.push((path, text));
        }
    }
}

/// What the last column of the table has between backticks.
fn names(text: &str) -> Vec<&str> {
    let (_, table) = text.split_once("\n## Faults\n").expect("the fault table");
    let (table, _) = table.split_once("\n## ").expect("a section behind it");
    let rows = table.lines().filter(|line| line.starts_with("| ")).skip(2);
    rows.flat_map(|row| {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").collect();
        assert_eq!(cells.len(), 4, "{row}");
        cells[3].split('`').skip(1).step_by(2)
    })
    .collect()
}

fn exists(name: &str, root: &Path, all: &[(PathBuf, String)]) -> bool {
    let function = |start: &str| all.iter().any(|(_, text)| text.contains(start));
    if COMMANDS.iter().any(|command| name.starts_with(command)) {
        return true;
    }
    if name.ends_with(".rs") {
        return all.iter().any(|(path, _)| path.ends_with(name));
    }
    if name.contains('/') {
        return root.join(name).exists();
    }
    if let Some(module) = name.strip_suffix("::tests") {
        let folder = root.join("src").join(module);
        return folder.join("tests").exists() || folder.join("tests.rs").exists();
    }
    if let Some(start) = name.strip_suffix('*') {
        return function(&format!("fn {start}"));
    }
    // A test, or a module of tests.
    let is_module = |path: &Path| path.file_stem().is_some_and(|stem| stem == name);
    root.join("tests/sim/tests").join(name).exists()
        || all.iter().any(|(path, _)| is_module(path))
        || function(&format!("fn {name}("))
}

#[test]
fn the_fault_table_names_tests_that_exist() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut all = Vec::new();
    for folder in FOLDERS {
        sources(root, &root.join(folder), &mut all);
    }
    let text = fs::read_to_string(root.join("docs/TESTING.md")).expect("text");
    let names = names(&text);
    assert!(names.len() > 40, "{} names", names.len());
    let missing: Vec<&&str> = names
        .iter()
        .filter(|name| !exists(name, root, &all))
        .collect();
    assert_eq!(missing, [&""; 0], "named in docs/TESTING.md");
    assert!(
        !exists(concat!("f09_no_such", "_*"), root, &all),
        "anything would do"
    );
    assert!(!exists(concat!("no_such", "_test"), root, &all));
}
