//! The whole search with one command: a plan of rows, run on all processors, and one table.
//!
//! Rows on the same kind of disk share one memory of states and run one after the other, so a state
//! counts once however many of them meet it; kinds of disk run side by side. What a row finds is
//! therefore the same whatever the number of threads.

mod machine;
pub mod plan;
mod report;
pub mod row;

use core::ops::ControlFlow;
use core::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::Mutex;
use std::time::Instant;

use crate::driver::Fvd;
use crate::explore::{Explorer, Limits};
use crate::memory::Memory;
use crate::shrink::shrink;
use machine::{Machine, processor_seconds};
use plan::Plan;
pub use report::{Hunt, Report, RowReport};
use row::Row;

/// How far a campaign has come; any thread may look.
#[derive(Debug, Default)]
pub struct Progress {
    /// Unique states so far.
    pub states: AtomicU64,
    /// Workloads that are behind.
    pub workloads: AtomicU64,
    /// Violations so far.
    pub violations: AtomicU64,
    /// Rows that ended and that nobody has looked at.
    pub ended: Mutex<Vec<RowReport>>,
}

/// Runs a plan with `threads` searches at the same time, until `until` at the longest.
///
/// # Errors
/// A row that is not understood.
pub fn run(
    plan: &Plan,
    threads: usize,
    until: Option<Instant>,
    progress: &Progress,
) -> Result<Report, String> {
    let start = Instant::now();
    let groups = plan.groups()?;
    let next = AtomicUsize::new(0);
    let done = Mutex::new(vec![None; plan.rows.len()]);
    let work = || {
        while let Some(group) = groups.get(next.fetch_add(1, Ordering::Relaxed)) {
            let mut memory = Memory::new(plan.keys_max);
            for index in group {
                let (report, used) = run_row(&plan.rows[*index], memory, until, progress);
                memory = used;
                if let (Ok(report), Ok(mut ended)) = (&report, progress.ended.lock()) {
                    ended.push(report.clone());
                }
                if let Ok(mut done) = done.lock() {
                    done[*index] = Some(report);
                }
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(work);
        }
    });
    let done = done.into_inner().map_err(|_| "a search has panicked")?;
    let rows: Vec<RowReport> = done.into_iter().flatten().collect::<Result<_, _>>()?;
    Ok(Report {
        plan: plan.name.into(),
        machine: Machine::here(),
        threads,
        states: rows.iter().map(|row| row.states).sum(),
        states_min: plan.states_min,
        rows,
        hunt: None,
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// Runs one row, and hands the memory of states on.
fn run_row(
    row: &Row,
    memory: Memory,
    until: Option<Instant>,
    progress: &Progress,
) -> (Result<RowReport, String>, Memory) {
    let (start, started) = (Instant::now(), processor_seconds());
    let case = match row.case() {
        Ok(case) => case,
        Err(why) => return (Err(why), memory),
    };
    let mut explorer = match Explorer::<Fvd>::new(&case, &Limits::default()) {
        Ok(explorer) => explorer,
        Err(why) => return (Err(format!("{}: {why}", row.line)), memory),
    };
    explorer.set_memory(memory);
    let mut report = RowReport {
        what: row.what.into(),
        line: row.line.into(),
        disk: case.setup.to_string(),
        torn: case.tear.letter().into(),
        crashes_deep: case.sessions.len(),
        ..RowReport::default()
    };
    let mut states = 0;
    let visited = row.each(&mut |case, limits| {
        let limits = Limits { until, ..*limits };
        if limits.is_over() {
            return ControlFlow::Break(());
        }
        let found = match row.failing {
            Some((store, kind)) => explorer.run_failing(case, store, kind, &limits),
            None => explorer.run(case, &limits),
        };
        let now = explorer.stats().states;
        progress.states.fetch_add(now - states, Ordering::Relaxed);
        states = now;
        if let Err(found) = found {
            let shrunk = shrink::<Fvd>(&found);
            report.violations.push(shrunk.to_string());
            progress.violations.fetch_add(1, Ordering::Relaxed);
            return ControlFlow::Break(());
        }
        if explorer.is_cut_short() {
            return ControlFlow::Break(());
        }
        report.workloads += 1;
        progress.workloads.fetch_add(1, Ordering::Relaxed);
        ControlFlow::Continue(())
    });
    let stats = explorer.stats();
    (report.runs, report.moments) = (stats.runs, stats.moments);
    (report.states, report.recoveries) = (stats.states, stats.recoveries);
    report.moments_selected = stats.selected;
    report.seconds = start.elapsed().as_secs_f64();
    let spent = started.and_then(|started| Some(processor_seconds()? - started));
    report.processor_seconds = spent.unwrap_or(report.seconds);
    let described = visited.and_then(|()| {
        report.workloads_planned = row.workloads()?;
        report.bound = row.bound()?;
        Ok(report)
    });
    (described, explorer.take_memory())
}

#[cfg(feature = "_seeded-bugs")]
/// Looks for every seeded bug where it is known to show, and then everywhere.
///
/// Not while a campaign runs: the switch is one for the whole process.
///
/// # Errors
/// A ground that is no legal case.
pub fn hunt_all(states_max: u64) -> Result<Hunt, String> {
    let start = Instant::now();
    let mut hunt = Hunt::default();
    for known in crate::hunt::ALL {
        hunt.known += 1;
        if crate::hunt::hunt(known, states_max)?.found.is_none() {
            hunt.missed.push(known.name.into());
        }
    }
    hunt.seconds = start.elapsed().as_secs_f64();
    Ok(hunt)
}
