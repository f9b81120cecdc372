//! The README's code is an example that compiles and runs.

#[test]
fn the_readme_shows_the_ram_disk_example() {
    let readme = include_str!("../README.md");
    let example = include_str!("../examples/ram_disk.rs");
    let code: Vec<&str> = example
        .lines()
        .filter(|line| !line.starts_with("//!"))
        .collect();
    let code = code.join("\n");
    assert!(
        readme.contains(code.trim()),
        "README.md shows an older examples/ram_disk.rs"
    );
    assert!(example.lines().count() < 60, "short enough for a README");
}
