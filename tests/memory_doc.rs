//! The tables of docs/MEMORY.md are what the program prints now.

#[allow(dead_code)] // its `main`
#[path = "../examples/memory_table.rs"]
mod memory_table;

#[test]
#[cfg_attr(
    not(target_pointer_width = "64"),
    ignore = "the tables are those of 64 bits"
)]
fn the_tables_are_what_the_program_prints() {
    let doc = include_str!("../docs/MEMORY.md");
    for (heading, table) in memory_table::tables() {
        assert!(
            doc.contains(&format!("## {heading}\n\n{table}")),
            "docs/MEMORY.md is stale under \"{heading}\": paste the output of\n\
             cargo run --example memory_table"
        );
    }
}
