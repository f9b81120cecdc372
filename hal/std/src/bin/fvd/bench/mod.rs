//! `fvd bench`: this server and these images beside others, on this machine.
//!
//! Times on a machine that is shared prove nothing by themselves, so what is told are ratios within one
//! run, and exact counts. docs/BENCHMARKS.md explains the method to readers.
//!
//! | file | its one job |
//! | --- | --- |
//! | `args` | what it can be told |
//! | `arm` | formats, and who serves them |
//! | `workload` | the tables through NBD, and the bars |
//! | `nbd` | one such table |
//! | `local` | tables without a server |
//! | `files` | tables of small files in a file system |
//! | `control` | raw with what a journal costs at least |
//! | `count`, `fragments` | what servers ask of their host; what a random fill leaves behind |
//! | `rounds`, `estimate` | the method: rounds and medians |
//! | `server`, `fio`, `tools`, `scratch`, `machine` | other programs, folders, the machine |
//! | `results`, `markdown`, `picture` | the document, its tables, its picture |

mod args;
mod arm;
pub(crate) mod control;
mod count;
mod estimate;
mod files;
mod fio;
mod fragments;
mod local;
mod machine;
mod markdown;
mod nbd;
mod picture;
mod results;
mod rounds;
mod scratch;
mod server;
mod tools;
mod workload;

use std::cell::RefCell;
use std::fs;
use std::path::PathBuf;
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
    /// The disk that gets a file system, and how many files are created and worked on in it.
    files_disk_bytes: u64,
    files: u32,
    /// Wait for what others have still to write before each measurement.
    settles: bool,
}

impl Scale {
    fn of(args: &BenchArgs) -> Scale {
        if args.quick {
            return Scale {
                disk_bytes: args.size.min(1 << 30),
                base_bytes: 16 << 20,
                written_bytes: 8 << 20,
                fragmented_bytes: 4 << 20,
                burst: Duration::from_millis(30),
                tries: 32,
                counted: 32,
                files_disk_bytes: 32 << 20,
                files: 50,
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
            files_disk_bytes: 1 << 30,
            files: 2000,
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
    /// Made when it is needed for the first time.
    base: RefCell<Option<PathBuf>>,
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
        let mut base = self.base.borrow_mut();
        if let Some(path) = &*base {
            return Ok(path.clone());
        }
        let path = self.ground.path("base.raw");
        scratch::write_noise(&path, self.scale.base_bytes)?;
        Ok(base.insert(path).clone())
    }
}

pub(crate) fn run(args: &BenchArgs) -> Result<u8, Failure> {
    if args.list {
        return list();
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
        base: RefCell::new(None),
        steps: RefCell::new(Steps::new(Duration::from_secs(args.time))),
        interrupted,
    };
    let start = Instant::now();
    let mut report = measure(&bench)?;
    report.seconds = start.elapsed().as_secs();
    drop(bench);
    publish(args, &report)
}

/// One table of the plan.
enum Part {
    Nbd(workload::Workload),
    Local(&'static local::Local),
    Files(&'static files::Files),
    Fragments,
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
    let mut parts: Vec<Part> = Vec::new();
    parts.extend(
        workload::all()
            .into_iter()
            .filter(|workload| wanted(workload.name))
            .map(Part::Nbd),
    );
    let locals = local::ALL.iter().filter(|local| wanted(local.name));
    parts.extend(locals.map(Part::Local));
    let files = files::ALL.iter().filter(|files| wanted(files.name));
    parts.extend(files.map(Part::Files));
    if wanted(fragments::NAME) {
        parts.push(Part::Fragments);
    }
    let end = Instant::now() + Duration::from_secs(args.time);
    let count = parts.len();
    for (index, part) in parts.into_iter().enumerate() {
        // What a table does not need, those behind it get.
        let left = end.saturating_duration_since(Instant::now());
        let limits = Limits {
            rounds: if args.quick { 1 } else { args.rounds },
            time: left / u32::try_from(count - index).unwrap_or(u32::MAX),
        };
        match part {
            Part::Local(local) => report.tables.push(local::measure(bench, local, limits)?),
            Part::Files(files) => report.tables.push(files::measure(bench, files, limits)?),
            Part::Nbd(workload) => report.tables.push(nbd::measure(bench, &workload, limits)?),
            Part::Fragments => report.fragments = Some(fragments::measure(bench, limits)?),
        }
    }
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
fn list() -> Result<u8, Failure> {
    let mut text = String::new();
    for count in &count::ALL {
        text += &format!("{}\n", count.name);
    }
    let mut table = |name: &str, title: &str, arms: &[arm::Arm]| {
        text += &format!("{name}: {title}\n");
        for arm in arms {
            let missing = arm.missing();
            let missing = missing.map_or_else(String::new, |why| format!(" (skipped: {why})"));
            text += &format!("  {}{missing}\n", arm.name);
        }
    };
    for workload in workload::all() {
        table(workload.name, workload.title, workload.arms);
    }
    for local in &local::ALL {
        table(local.name, local.title, local.arms);
    }
    for files in &files::ALL {
        table(files.name, files.title, files::ARMS);
    }
    if let Some(why) = files::missing() {
        text += &format!("  (skipped: {why})\n");
    }
    text += &format!("{}\n", fragments::NAME);
    output::print(text)?;
    Ok(DONE)
}
