//! `fvd bench`: this server and these images beside others, on this machine.
//!
//! Times on a machine that is shared prove nothing by themselves, so what is told are ratios within one
//! run, and exact counts. docs/BENCHMARKS.md explains the method to readers.
//!
//! | file | its one job |
//! | --- | --- |
//! | `args` | what it can be told |
//! | `arm` | formats, and who serves them |
//! | `plan` | what a table is before it is measured, the list of all, and the bars |
//! | `workload`, `nbd` | the tables through NBD, and how one is measured |
//! | `client`, `fio` | the clients of a server |
//! | `local` | tables without a server |
//! | `files` | tables of small files in a file system |
//! | `latency` | reads while something else goes on |
//! | `fragments` | what a random fill leaves behind |
//! | `count` | what servers ask of their host |
//! | `control` | raw with what a journal costs at least |
//! | `course`, `rounds`, `estimate` | the method: whose turn it is, rounds, medians |
//! | `server`, `tools`, `scratch`, `noise`, `machine` | other programs, folders, the machine |
//! | `results`, `markdown`, `picture` | the document, its tables, its picture |

mod args;
mod arm;
mod client;
pub(crate) mod control;
mod count;
mod course;
mod estimate;
mod files;
mod fio;
mod fragments;
mod latency;
mod local;
mod machine;
mod markdown;
mod nbd;
mod noise;
mod picture;
mod plan;
mod results;
mod rounds;
mod scratch;
mod server;
mod tools;
mod workload;

use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use signal_hook::consts::{SIGINT, SIGTERM};

pub(crate) use args::BenchArgs;
use arm::Ground;
use results::Report;
use rounds::Limits;
use scratch::Scratch;

use crate::failure::{DONE, Doing, Failure};
use crate::output::{self, Shown};
use crate::progress::Steps;

/// How much of everything.
#[derive(Clone, Copy, Debug)]
struct Scale {
    /// Disks that are written for the first time.
    disk_bytes: u64,
    /// The base of overlays, and their size.
    base_bytes: u64,
    /// What is written before it is read or overwritten.
    written_bytes: u64,
    /// What is written at random before it is read in order.
    fragmented_bytes: u64,
    /// About how long the reference takes for a measurement.
    burst: Duration,
    /// Operations from which that is estimated.
    tries: u64,
    /// Operations that are counted exactly.
    counted: u64,
    /// Likewise, reads.
    counted_reads: u64,
    /// The disk that gets a file system, and how many files are created and worked on in it.
    files_disk_bytes: u64,
    files: u32,
    /// How many are created with an `fsync` of each.
    fsync_files: u32,
    /// Wait for what others have still to write before each measurement.
    settles: bool,
}

impl Scale {
    fn of(args: &BenchArgs) -> Scale {
        if args.quick {
            return Scale {
                disk_bytes: args.size.min(2 << 30),
                base_bytes: 16 << 20,
                written_bytes: 8 << 20,
                fragmented_bytes: 4 << 20,
                burst: Duration::from_millis(30),
                tries: 32,
                counted: 32,
                counted_reads: 64,
                files_disk_bytes: 32 << 20,
                files: 50,
                fsync_files: 10,
                settles: false,
            };
        }
        Scale {
            disk_bytes: args.size,
            base_bytes: 1 << 30,
            written_bytes: 256 << 20,
            fragmented_bytes: 128 << 20,
            burst: Duration::from_millis(300),
            tries: 256,
            counted: 256,
            counted_reads: 1024,
            files_disk_bytes: 1 << 30,
            files: 2000,
            fsync_files: 300,
            settles: true,
        }
    }
}

/// What all tables share.
struct Bench<'a> {
    args: &'a BenchArgs,
    scale: Scale,
    ground: Ground,
    memory: Ground,
    /// Files that were made when they were needed for the first time.
    kept: RefCell<Vec<PathBuf>>,
    steps: RefCell<Steps>,
    interrupted: Arc<AtomicBool>,
}

impl Bench<'_> {
    /// Whether an arm was asked for.
    fn wants(&self, arm: &str) -> bool {
        self.args.arms.is_empty() || self.args.arms.iter().any(|wanted| wanted == arm)
    }

    /// Tells what is measured next.
    ///
    /// # Errors
    /// Somebody wants this to end.
    fn begin(&self, title: &str, arm: &str, round: u32) -> Result<(), Failure> {
        if self.interrupted.load(Ordering::Relaxed) {
            return Err(Failure::Failed("interrupted".into()));
        }
        let mut steps = self.steps.borrow_mut();
        steps.at(format!("{title}: round {}, {arm}", round + 1));
        Ok(())
    }

    /// Makes sure that nobody pays for what others wrote to `ground`.
    fn settle(&self, ground: &Ground) -> Result<(), Failure> {
        if self.scale.settles {
            scratch::settle(&ground.folder)?;
        }
        Ok(())
    }

    /// The base of all overlays, full of noise.
    fn base(&self) -> Result<PathBuf, Failure> {
        self.keep(self.ground.path("base.raw"), |path| {
            noise::write_file(path, self.scale.base_bytes)
        })
    }

    /// A file of noise in memory, to be copied from.
    fn source(&self) -> Result<PathBuf, Failure> {
        self.keep(self.memory.path("source.raw"), |path| {
            noise::write_file(path, self.scale.written_bytes)
        })
    }

    /// A file that is made once and then kept until the end.
    fn keep(
        &self,
        path: PathBuf,
        make: impl FnOnce(&Path) -> Result<(), Failure>,
    ) -> Result<PathBuf, Failure> {
        if !self.kept.borrow().contains(&path) {
            make(&path)?;
            self.kept.borrow_mut().push(path.clone());
        }
        Ok(path)
    }
}

pub(crate) fn run(args: &BenchArgs) -> Result<u8, Failure> {
    if args.list {
        return list(args);
    }
    if let Some(why) = tools::missing(&["fio"]) {
        return Err(Failure::because("cannot measure", why));
    }
    let interrupted = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        let registered = signal_hook::flag::register(signal, Arc::clone(&interrupted));
        registered.doing(|| "cannot watch for signals")?;
    }
    let (disk, memory) = (
        Scratch::new(&args.dir, "disk")?,
        Scratch::new(&args.memory_dir, "memory")?,
    );
    let program = tools::own(args.program.as_deref())?;
    let ground = |scratch: &Scratch| -> Result<Ground, Failure> {
        Ok(Ground {
            program: program.clone(),
            folder: scratch.path().to_path_buf(),
            direct: scratch.is_direct()?,
        })
    };
    let bench = Bench {
        args,
        scale: Scale::of(args),
        ground: ground(&disk)?,
        memory: ground(&memory)?,
        kept: RefCell::default(),
        steps: RefCell::new(Steps::new(Duration::from_secs(args.time))),
        interrupted,
    };
    let start = Instant::now();
    let mut report = measure(&bench)?;
    report.seconds = start.elapsed().as_secs();
    drop(bench);
    publish(args, &report)
}

fn measure(bench: &Bench<'_>) -> Result<Report, Failure> {
    let args = bench.args;
    let wanted = |name: &str| {
        args.only.is_empty() || args.only.iter().any(|only| name.starts_with(only.as_str()))
    };
    let mut report = Report {
        machine: machine::look(
            &bench.ground.program,
            &bench.ground.folder,
            &bench.memory.folder,
        ),
        quick: args.quick,
        seconds: 0,
        tables: Vec::new(),
        counts: Vec::new(),
        fragments: None,
    };
    for count in count::ALL.iter().filter(|count| wanted(count.name)) {
        report.counts.push(count::measure(bench, count)?);
    }
    let mut plans = plan::all();
    plans.retain(|plan| plan.captions().iter().any(|(name, _)| wanted(name)));
    let limits = Limits {
        rounds: if args.quick { 1 } else { args.rounds },
        time: Duration::from_secs(args.time),
    };
    course::run(bench, &plans, limits, &mut report)?;
    Ok(report)
}

/// Writes the results and prints them. Fails if an arm did, when all is written.
fn publish(args: &BenchArgs, report: &Report) -> Result<u8, Failure> {
    let folder = &args.output;
    let cannot = || format!("cannot write the results to {}", Shown(folder));
    let json = serde_json::to_string_pretty(report).doing(cannot)? + "\n";
    let markdown = markdown::report(report);
    fs::create_dir_all(folder).doing(cannot)?;
    for (name, text) in [
        ("bench.json", &json),
        ("bench.md", &markdown),
        ("bench.svg", &picture::draw(report)),
    ] {
        fs::write(folder.join(name), text).doing(cannot)?;
    }
    output::print(if args.json { &json } else { &markdown })?;
    let mut failed = Vec::new();
    for table in &report.tables {
        failed.extend(
            table
                .failures()
                .map(|(arm, _)| format!("{arm} in {}", table.name)),
        );
    }
    if failed.is_empty() {
        return Ok(DONE);
    }
    Err(Failure::because("arms failed", failed.join(", ")))
}

/// Prints what there is to measure.
fn list(args: &BenchArgs) -> Result<u8, Failure> {
    let mut text = String::new();
    for count in &count::ALL {
        text += &format!("{}: {}\n", count.name, count.title);
    }
    for plan in plan::all() {
        text += &format!("{}: {}\n", plan.name, plan.title);
        for arm in plan.arms {
            let missing = plan.missing(args, arm);
            let missing = missing.map_or_else(String::new, |why| format!(" (skipped: {why})"));
            text += &format!("  {}{missing}\n", arm.name);
        }
    }
    output::print(text)?;
    Ok(DONE)
}
