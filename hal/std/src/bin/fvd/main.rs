//! `fvd`: makes, looks at, checks, converts and serves Fast Virtual Disk images.
//!
//! | file | its one job |
//! | --- | --- |
//! | `args` | what may stand on the command line |
//! | `create`, `info`, `map`, `check`, `convert/`, `serve` | one verb each |
//! | `bench/` | how fast all that is beside others |
//! | `check_report` | what `check` tells |
//! | `failure` | what can go wrong, and the exit code for it |
//! | `new_file`, `new_image` | a file, an image, that appears whole or not at all |
//! | `parts` | from options to the files that an image is made of |
//! | `output`, `size`, `progress` | what people and programs get to see |

mod args;
mod bench;
mod check;
mod check_report;
mod convert;
mod create;
mod failure;
mod info;
mod map;
mod new_file;
mod new_image;
mod output;
mod parts;
mod progress;
mod room;
mod serve;
mod size;

use std::process::ExitCode;

use args::Verb;
use failure::{DONE, Failure};

fn main() -> ExitCode {
    let result = match args::read() {
        Ok(Some(verb)) => run(verb),
        // Help or the version was asked for and printed.
        Ok(None) => Ok(DONE),
        Err(failure) => Err(failure),
    };
    ExitCode::from(result.unwrap_or_else(|failure| {
        failure.print();
        failure.exit_code()
    }))
}

/// Does what was asked for. Returns the exit code.
fn run(verb: Verb) -> Result<u8, Failure> {
    match verb {
        Verb::Create(args) => create::run(&args),
        Verb::Info(args) => info::run(&args),
        Verb::Map(args) => map::run(&args),
        Verb::Check(args) => check::run(&args),
        Verb::Convert(args) => convert::run(&args),
        Verb::Serve(args) => serve::run(&args),
        Verb::Bench(args) => bench::run(&args),
    }
}
