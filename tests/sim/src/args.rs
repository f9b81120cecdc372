//! The command line.

use std::num::NonZeroUsize;

use clap::{Args, Parser, Subcommand};
use fvd::device::OpKind;
use fvd_sim::case::Replay;
use fvd_sim::crash::Bound;
use fvd_sim::explore::Limits;

#[derive(Parser)]
#[command(
    name = "fvd-sim",
    about = "A simulated disk that loses power, and an oracle that knows what a guest may see then",
    after_help = "LINE is what a failure prints, or the part of it before `c=`; docs/TESTING.md \
                  explains the letters.\nExit codes: 0 nothing was found and all was run; 1 a violation, a \
                  seeded bug that was not caught, or too few states; 2 could not run; 3 nothing was \
                  found, but a campaign ran out of time before all of its plan was run."
)]
pub(crate) struct CommandLine {
    #[command(subcommand)]
    pub(crate) verb: Verb,
    /// Turn this seeded bug on (feature _seeded-bugs)
    #[arg(long, short = 'B', value_name = "NAME", global = true)]
    pub(crate) bug: Option<String>,
}

#[derive(Subcommand)]
pub(crate) enum Verb {
    /// Run one printed line again, with a trace
    Replay {
        /// The line
        line: Replay,
    },
    /// Run one case in all ways
    Run {
        /// The case
        line: Replay,
        #[command(flatten)]
        limits: LimitArgs,
    },
    /// Run every sequence of steps as the first session of a case
    Search(SearchArgs),
    /// Look for the seeded bugs (feature _seeded-bugs)
    Hunt {
        /// Only this one
        name: Option<String>,
    },
    /// Run a whole plan and print one table
    Campaign(CampaignArgs),
}

#[derive(Args)]
pub(crate) struct LimitArgs {
    /// Unusual decisions per run
    #[arg(long, short, default_value_t = 0)]
    deviations: usize,
    /// Largest set of outcomes of one crash that is looked at whole
    #[arg(long, short = 'b', default_value_t = 1 << 12)]
    product_max: u64,
    /// Random outcomes where it is larger
    #[arg(long, short, default_value_t = 1024)]
    random_count: u32,
    /// Seed of the random outcomes
    #[arg(long, short, default_value_t = 1)]
    seed: u64,
}

impl LimitArgs {
    pub(crate) fn limits(&self) -> Limits {
        Limits {
            deviations: self.deviations,
            bound: Bound {
                product_max: self.product_max,
                random_count: self.random_count,
                seed: self.seed,
                ..Bound::default()
            },
            ..Limits::default()
        }
    }
}

#[derive(Args)]
pub(crate) struct SearchArgs {
    /// The case; its first session is replaced
    pub(crate) line: Replay,
    /// Longest sequence
    #[arg(long, short, default_value_t = 3)]
    pub(crate) length: usize,
    /// Only sequences of these steps
    #[arg(long, short = 'a', value_name = "STEPS")]
    pub(crate) steps: Option<String>,
    /// Let each operation of a kind on a store fail in turn: 0w for the writes of store 0; or `each`
    /// operation on each store, in every way
    #[arg(long, short, value_name = "FAULT", value_parser = failing)]
    pub(crate) failing: Option<Failing>,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
}

#[derive(Args)]
pub(crate) struct CampaignArgs {
    /// What every change has to pass; the default
    #[arg(long, conflicts_with = "long")]
    pub(crate) quick: bool,
    /// Much more
    #[arg(long)]
    pub(crate) long: bool,
    /// Stop after this time, and say how far it came
    #[arg(long, value_name = "N")]
    pub(crate) minutes: Option<u64>,
    /// Only rows whose words or letters contain this text
    #[arg(long, value_name = "TEXT")]
    pub(crate) only: Option<String>,
    /// Print JSON
    #[arg(long)]
    pub(crate) json: bool,
    /// Searches at the same time; as many as there are processors
    #[arg(long, value_name = "N")]
    pub(crate) threads: Option<NonZeroUsize>,
}

/// Which operations fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Failing {
    /// Each, on each store.
    Each,
    /// Those of a kind, on one store.
    Kind(u8, OpKind),
}

fn failing(text: &str) -> Result<Failing, String> {
    if text == "each" {
        return Ok(Failing::Each);
    }
    let rule: Replay = format!("g=-;i={text}0").parse()?;
    let fault = rule
        .case
        .fault
        .and_then(|(store, rule)| Some(Failing::Kind(store, rule.kind?)));
    fault.ok_or_else(|| format!("not a store and a kind: {text:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        use clap::CommandFactory;
        CommandLine::command().debug_assert();
        assert_eq!(failing("0w"), Ok(Failing::Kind(0, OpKind::Write)));
        assert!(failing("0a").is_err() && failing("w").is_err());
    }
}
