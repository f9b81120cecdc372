//! Kills a process that writes to an image, again and again, and looks whether anything flushed is
//! lost. What is done in a round: `tests/kill/mod.rs`.
//!
//! ```sh
//! cargo run --release -p fvd-std --example kill_rounds -- --rounds 1000
//! ```

#[path = "../tests/kill/mod.rs"]
mod kill;

use std::env;
use std::error::Error;
use std::process::{Command, ExitCode};
use std::time::Instant;

use clap::Parser;
use fvd_std::image;
use kill::campaign::Campaign;

/// Kills a process that writes to an image, and looks whether anything flushed is lost
#[derive(Parser)]
struct Args {
    /// How often
    #[arg(short = 'n', long, default_value_t = 100)]
    rounds: u32,
    /// Chooses requests and moments; without it a random one. The same seed chooses the same, but
    /// where a process is at a moment is never twice the same
    #[arg(long)]
    seed: Option<u64>,
    /// Have the process run a wrong variant of the engine (src/seeded.rs), to see it found out; needs
    /// the feature `_seeded-bugs`
    #[arg(short = 'B', long, value_name = "NAME")]
    bug: Option<String>,
}

fn main() -> Result<ExitCode, Box<dyn Error>> {
    kill::serve_if_asked();
    let args = Args::parse();
    let program = env::current_exe()?;
    let seed = match args.seed {
        Some(seed) => seed,
        None => u64::from_ne_bytes(image::random()?),
    };
    println!("seed {seed}, in {}", env::temp_dir().display());
    let campaign = Campaign {
        rounds: args.rounds,
        seed,
        bug: args.bug.as_deref(),
        child: &|| Command::new(&program),
    };
    let start = Instant::now();
    let result = campaign.run();
    let seconds = start.elapsed().as_secs_f64();
    match result {
        Ok(table) => {
            print!("{table}");
            println!(
                "nothing flushed was lost in {} rounds ({seconds:.1} s)",
                args.rounds
            );
            Ok(ExitCode::SUCCESS)
        }
        Err(fault) => {
            println!("{} ({seconds:.1} s)", fault.text);
            Ok(ExitCode::FAILURE)
        }
    }
}
