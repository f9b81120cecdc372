//! The core can not panic, whatever its input, its devices and its caller do: proved at link time.
//!
//! `tests/panic_free/` holds the core behind functions of which the optimiser knows nothing, and a
//! panic handler that calls a symbol which exists nowhere. The symbol is in the finished object file
//! if and only if a panic survived optimisation. Overflow is not among the panics: release builds
//! wrap, so arithmetic on hostile numbers is checked by tests and by lints instead.

use std::path::{Path, PathBuf};
use std::process::Command;

/// What the panic handler calls.
const SYMBOL: &str = "fvd_can_panic";

/// Parts of the names of what panics, to point a reader at the place.
const PANICS: &[&str] = &[
    SYMBOL,
    "panicking",
    "slice_index",
    "copy_from_slice",
    "len_mismatch",
    "unwrap_failed",
    "expect_failed",
];

/// A tool of the C compiler's. `None`, with a note, where it is missing and that may be.
fn tool(name: &str) -> Option<&str> {
    if Command::new(name).arg("--version").output().is_ok() {
        return Some(name);
    }
    println!("SKIP: {name} is missing");
    let ci = std::env::var("CI").is_ok_and(|ci| ci == "true");
    assert!(!ci, "{name} is missing, and CI may not skip");
    None
}

/// The static library, built with these features beside the default ones.
fn build(features: &str, opt_level: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    // One per level, since tests run side by side.
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("panic_free_{opt_level}"));
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["build", "--quiet", "--release", "--features", features])
        .arg("--manifest-path")
        .arg(root.join("tests/panic_free/Cargo.toml"))
        .arg("--target-dir")
        .arg(&target)
        .env("CARGO_PROFILE_RELEASE_OPT_LEVEL", opt_level);
    // Flags for the program under test, such as coverage, would end up in the library.
    for inherited in [
        "RUSTFLAGS",
        "CARGO_ENCODED_RUSTFLAGS",
        "CARGO_BUILD_TARGET",
        "RUSTC_WRAPPER",
        "RUSTC_WORKSPACE_WRAPPER",
    ] {
        cargo.env_remove(inherited);
    }
    let status = cargo.status().expect("cargo runs");
    assert!(status.success(), "tests/panic_free does not build");
    target.join("release/libpanic_free.a")
}

/// What a tool says about the library; nothing if it is missing.
fn output(tool: &str, arguments: &[&str], library: &Path) -> String {
    let output = Command::new(tool).args(arguments).arg(library).output();
    output.map_or(String::new(), |output| {
        String::from_utf8_lossy(&output.stdout).into_owned()
    })
}

/// Whether the library needs the symbol.
fn can_panic(nm: &str, library: &Path) -> bool {
    let symbols = output(nm, &[], library);
    let kept = symbols.lines().filter(|line| line.contains("3fvd")).count();
    assert!(kept > 50, "only {kept} functions of the core were kept");
    symbols.contains(SYMBOL)
}

/// Which functions panic, by the relocations in their code.
fn culprits(library: &Path) -> String {
    let listing = output("objdump", &["-dr", "-C", "--no-show-raw-insn"], library);
    let (mut function, mut found) = (String::new(), Vec::new());
    for line in listing.lines() {
        if let Some((_, name)) = line.split_once(" <").filter(|_| line.ends_with(">:")) {
            function = name.trim_end_matches(">:").to_owned();
        } else if line.contains(": R_") && PANICS.iter().any(|part| line.contains(part)) {
            let callee = line.split_whitespace().last().unwrap_or_default();
            found.push(format!("  {function}\n    -> {callee}"));
        }
    }
    found.sort();
    found.dedup();
    found.join("\n")
}

fn check(opt_level: &str) {
    let Some(nm) = tool("nm") else { return };
    let library = build("alloc", opt_level);
    assert!(
        !can_panic(nm, &library),
        "the core can panic at opt-level {opt_level}:\n{}",
        culprits(&library)
    );
}

/// Every file below `folder`.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).expect("a folder");
    let mut files = Vec::new();
    for entry in entries {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(self::files(&path));
        } else {
            files.push(path);
        }
    }
    files
}

/// The names of public functions, a word behind `fn` each.
fn public_functions(source: &str) -> impl Iterator<Item = &str> {
    let lines = source.lines().map(str::trim_start);
    lines.filter_map(|line| {
        let rest = line.strip_prefix("pub ")?;
        let rest = rest.strip_prefix("const ").unwrap_or(rest);
        let rest = rest.strip_prefix("unsafe ").unwrap_or(rest);
        let name = rest.strip_prefix("fn ")?;
        name.split(|c: char| !c.is_alphanumeric() && c != '_')
            .next()
    })
}

/// The check speaks of what is in the list only, so nothing public may be missing there.
#[test]
fn every_public_function_is_checked() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let read = |path: &PathBuf| std::fs::read_to_string(path).expect("a source");
    let list: String = files(&root.join("tests/panic_free/src"))
        .iter()
        .map(read)
        .collect();
    let words: std::collections::HashSet<&str> = list
        .split(|c: char| !c.is_alphanumeric() && c != '_')
        .collect();
    let mut missing = Vec::new();
    for path in files(&root.join("src")) {
        // Wrong variants for the simulator are off unless a feature asks for them.
        if path.ends_with("seeded.rs") {
            continue;
        }
        let source = read(&path);
        for name in public_functions(&source).filter(|name| !words.contains(name)) {
            missing.push(format!("{}: {name}", path.display()));
        }
    }
    assert!(
        missing.is_empty(),
        "not in tests/panic_free:\n{}",
        missing.join("\n")
    );
}

#[test]
fn no_panic_survives_and_a_planted_one_is_found() {
    let Some(nm) = tool("nm") else { return };
    // The control first: a check that can not fail proves nothing.
    let library = build("alloc planted", "3");
    assert!(can_panic(nm, &library), "the planted index was not found");
    println!("the control panics, as it must:\n{}", culprits(&library));
    check("3");
}

#[test]
#[ignore = "takes as long as the other; `.ci/run panics` runs it"]
fn no_panic_survives_a_build_for_size() {
    check("s");
}
