//! Exit codes of `fvd-sim`, for scripts.

use std::process::Command;

/// Exit code and standard output.
fn run(line: &str) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_fvd-sim"));
    let output = command.args(line.split(' ')).output().expect("it runs");
    let code = output.status.code().expect("it ends by itself");
    (code, String::from_utf8(output.stdout).expect("text"))
}

#[test]
fn a_campaign_that_ended_and_one_that_was_cut_have_exit_codes_of_their_own() {
    let (code, table) = run("campaign --only T=2;none");
    assert_eq!(code, 2, "nothing to run: {table}");
    let (code, table) = run("campaign --only g=v8;s=/w0,f/w4,f");
    assert_eq!(code, 0, "{table}");
    assert!(table.contains("all ≤2 of 12: 156"), "{table}");
    assert!(!table.contains("CUT"), "{table}");
    let (code, table) = run("campaign --minutes 0 --only g=v8;s=/w0,f/w4,f");
    assert_eq!(code, 3, "{table}");
    assert!(table.contains("CUT at 0 of 156"), "{table}");
    assert!(table.contains("NOT COMPLETE: 1 of 1 rows"), "{table}");
    let (code, json) = run("campaign --minutes 0 --json --only g=v8;s=/w0,f/w4,f");
    assert_eq!(code, 3, "{json}");
    assert!(json.contains("\"complete\": false"), "{json}");
}

#[test]
fn wrong_usage_and_cases_that_do_not_exist_could_not_run() {
    for line in ["replay g=q", "run g=D2B8d;s=w0", "no-such-verb"] {
        assert_eq!(run(line).0, 2, "{line}");
    }
    assert_eq!(run("search g=v8;s= -l 1").0, 0);
}
