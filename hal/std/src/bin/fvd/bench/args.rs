//! What `fvd bench` can be told.

use std::path::PathBuf;

use clap::Args;
use clap::builder::NonEmptyStringValueParser;

use crate::size;

#[derive(Args)]
pub(crate) struct BenchArgs {
    /// A smoke test: one short round of everything. Its ratios mean nothing
    #[arg(long)]
    pub(super) quick: bool,
    /// Print the JSON document instead of the tables
    #[arg(long)]
    pub(super) json: bool,
    /// Folder for the images; on the disk that is to be measured
    #[arg(long, value_name = "FOLDER", default_value = "/var/tmp")]
    pub(super) dir: PathBuf,
    /// Folder for the images of the front-end tables; in memory
    #[arg(long, value_name = "FOLDER", default_value = "/dev/shm")]
    pub(super) memory_dir: PathBuf,
    /// Folder for the results: bench.md, bench.json and bench.svg
    #[arg(long, value_name = "FOLDER", default_value = "fvd-bench")]
    pub(super) output: PathBuf,
    /// Time for everything that is repeated; each table has one round in any case
    #[arg(long, value_name = "SECONDS", default_value_t = 1500)]
    pub(super) time: u64,
    /// Rounds of a table, at most; fewer if all its intervals are narrow before
    #[arg(long, value_name = "COUNT", default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..))]
    pub(super) rounds: u32,
    /// Size of the disks that are written for the first time
    #[arg(long, value_name = "SIZE", value_parser = size::parse, default_value = "16G")]
    pub(super) size: u64,
    /// Only tables whose name begins with one of these
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = NonEmptyStringValueParser::new())]
    pub(super) only: Vec<String>,
    /// Only arms of these names, beside the references
    #[arg(long, value_name = "NAME", value_delimiter = ',', value_parser = NonEmptyStringValueParser::new())]
    pub(super) arms: Vec<String>,
    /// The `fvd` whose server is measured; this one unless said otherwise
    #[arg(long, value_name = "FILE")]
    pub(super) program: Option<PathBuf>,
    /// The program of tests/peers, which writes by Rust crates for qcow2
    #[arg(long, value_name = "FILE")]
    pub(super) peers: Option<PathBuf>,
    /// List the tables and the arms, and what is missing for them, and measure nothing
    #[arg(long)]
    pub(super) list: bool,
}
