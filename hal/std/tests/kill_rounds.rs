//! A process that writes to an image is killed, a hundred times: nothing flushed is lost.
//!
//! More rounds, with a table at the end: `cargo run --release -p fvd-std --example kill_rounds -- -n
//! 1000`.

mod kill;

use std::env;
use std::process::Command;
use std::time::Instant;

use fvd_std::image;
use kill::campaign::{Campaign, Fault, Table};

const ROUNDS: u32 = 100;

/// Starts this very program again, to run nothing but the test [`child`].
fn child_command() -> Command {
    let mut command = Command::new(env::current_exe().expect("this program"));
    command.args(["--exact", "child", "--test-threads=1", "--nocapture"]);
    command
}

/// Not a test but the child of one: without a parent there is nothing to do.
#[test]
fn child() {
    kill::serve_if_asked();
}

fn run(rounds: u32, bug: Option<&str>) -> Result<Table, Fault> {
    let campaign = Campaign {
        rounds,
        seed: u64::from_ne_bytes(image::random().expect("randomness")),
        bug,
        child: &child_command,
    };
    campaign.run()
}

#[test]
fn what_a_killed_process_flushed_is_there() {
    let start = Instant::now();
    let table = match run(ROUNDS, None) {
        Ok(table) => table,
        Err(fault) => panic!("{}", fault.text),
    };
    println!("{table}{:.1} s", start.elapsed().as_secs_f64());
    // It was killed in all phases, and there was something to lose.
    for phase in ["opening", "running", "closing"] {
        assert_ne!(table.total(phase, |_| true), 0, "{phase}");
    }
    assert!(table.total("durable", |_| true) > 10_000);
    assert!(table.total("free", |_| true) > 1_000);
    assert!(table.total("checkpts", |ground| ground.has_journal()) > 100);
    assert!(table.total("growths", |ground| ground.grows()) > 100);
    assert!(table.total("fills", |ground| ground.has_base()) > 300);
}

/// The test can fail: children that run a wrong variant of the engine are found out. These are the
/// ones that show without a power cut, and soon.
#[test]
#[cfg(feature = "_seeded-bugs")]
fn seeded_bugs_are_found_out() {
    for bug in [
        "FuaWithoutMapping",
        "CutAtEnd",
        "CutOffByOne",
        "OneDirtySet",
        "FloorNotInHeader",
        "FloorNotReplayed",
        "AllFreeIsZero",
        "PartialBlockZeroFilled",
        "OverlapIgnored",
    ] {
        let found = run(10 * ROUNDS, Some(bug)).err();
        let fault = found.unwrap_or_else(|| panic!("{bug} was not noticed"));
        println!("{bug}: {}", fault.text);
    }
}
