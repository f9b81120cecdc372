//! Dependencies point one way: a module uses only what lies below it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules from the bottom up. A module may use those in earlier rows, and its own.
///
/// `buffer` and `device` define each other's vocabulary, and so do `engine`, `journal` and `open`:
/// one disk, three jobs. Everything else is strictly ordered.
const LAYERS: &[&[&str]] = &[
    &["units", "seeded"],
    &["buffer", "device"],
    &["format"],
    &["alloc", "meta", "stores"],
    &["engine", "journal", "open"],
    &["check", "create", "repair"],
    &["blocking"],
    &["io", "shared"],
];

fn layer_of(module: &str) -> Option<usize> {
    LAYERS.iter().position(|layer| layer.contains(&module))
}

fn rust_files(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).expect("readable") {
        let path = entry.expect("readable").path();
        if path.is_dir() {
            rust_files(&path, files);
        } else if path.extension().is_some_and(|end| end == "rs") {
            files.push(path);
        }
    }
}

/// The top-level module that a source file belongs to.
fn module_of(path: &Path, root: &Path) -> String {
    let inside = path.strip_prefix(root).expect("below src");
    let first = inside.components().next().expect("not empty");
    first
        .as_os_str()
        .to_string_lossy()
        .trim_end_matches(".rs")
        .to_owned()
}

/// Every `crate::module` that a line of code names, also inside `use crate::{a, b}` groups.
fn uses(text: &str) -> Vec<String> {
    let code: Vec<&str> = text
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .collect();
    let mut found = Vec::new();
    for part in code.join("\n").split("crate::").skip(1) {
        assert!(
            !part.starts_with('{'),
            "name modules one by one, so that this test can read them"
        );
        let name: String = part
            .chars()
            .take_while(|c| c.is_alphanumeric() || *c == '_')
            .collect();
        found.push(name);
    }
    found
}

#[test]
fn modules_use_only_what_lies_below_them() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    let mut seen = BTreeMap::new();
    for path in files {
        let module = module_of(&path, &root);
        if module == "lib" {
            continue;
        }
        let own = layer_of(&module).unwrap_or_else(|| panic!("module `{module}` is in no layer"));
        for used in uses(&fs::read_to_string(&path).expect("readable")) {
            let Some(layer) = layer_of(&used) else {
                panic!("{}: `crate::{used}` is in no layer", path.display());
            };
            assert!(
                layer <= own,
                "{}: {module} may not use {used}",
                path.display()
            );
            *seen.entry((module.clone(), used)).or_insert(0) += 1;
        }
    }
    assert!(seen.len() > 20, "the test reads the sources");
}

#[test]
fn unsafe_code_is_in_one_module() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    rust_files(&root, &mut files);
    for path in files {
        let text = fs::read_to_string(&path).expect("readable");
        let allows = text.contains("allow(unsafe_code)");
        assert_eq!(
            allows,
            path.ends_with("src/buffer.rs"),
            "{}",
            path.display()
        );
    }
}

#[test]
fn the_core_is_free_of_std() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    assert!(
        fs::read_to_string(root.join("lib.rs"))
            .expect("readable")
            .contains("#![no_std]")
    );
}
