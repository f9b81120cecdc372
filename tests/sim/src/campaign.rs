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
use core::sync::atomic::{AtomicU64, Ordering};
use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Mutex;
use std::time::Instant;

use crate::driver::Fvd;
use crate::explore::{Explorer, Limits};
use crate::memory::Memory;
use crate::opinion::Python;
use crate::session::Auditor;
use crate::shrink::shrink;
use machine::{Machine, processor_seconds};
use plan::{Group, Plan};
pub use report::{Hunt, Outcome, Report, RowReport};
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
/// A row that is not understood, or no second checker where there has to be one.
pub fn run(
    plan: &Plan,
    threads: usize,
    until: Option<Instant>,
    progress: &Progress,
) -> Result<Report, String> {
    let start = Instant::now();
    let machine = Machine::here();
    let queue = Mutex::new(Queue::new(plan)?);
    let done = Mutex::new(vec![None; plan.rows.len()]);
    let two_checkers = Python::start()?.is_some();
    let work = || {
        let mut auditor = match Python::start() {
            Ok(Some(second)) => Some(Auditor::new(Box::new(second), plan.checked_every)),
            _ => None,
        };
        while let Some((group, mut memory)) = queue.lock().ok().and_then(|mut queue| queue.take()) {
            for index in &group.rows {
                let mut hands = (memory, auditor);
                let report = run_row(&plan.rows[*index], &mut hands, until, progress);
                (memory, auditor) = hands;
                if let (Ok(report), Ok(mut ended)) = (&report, progress.ended.lock()) {
                    ended.push(report.clone());
                }
                if let Ok(mut done) = done.lock() {
                    done[*index] = Some(report);
                }
            }
            if let Ok(mut queue) = queue.lock() {
                queue.give_back(&group, memory);
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
        machine,
        threads,
        states: rows.iter().map(|row| row.states).sum(),
        states_min: plan.states_min,
        complete: rows.iter().all(RowReport::is_complete),
        two_checkers,
        rows,
        hunt: None,
        seconds: start.elapsed().as_secs_f64(),
    })
}

/// Groups that nobody has begun. Those of one disk run one after the other.
struct Queue {
    keys_max: usize,
    groups: VecDeque<Group>,
    busy: HashSet<String>,
    /// Memories of disks of which more groups will come.
    memories: HashMap<String, Memory>,
}

impl Queue {
    fn new(plan: &Plan) -> Result<Queue, String> {
        Ok(Queue {
            keys_max: plan.keys_max,
            groups: plan.groups()?.into(),
            busy: HashSet::new(),
            memories: HashMap::new(),
        })
    }

    /// The next group and the memory of its disk. Groups of a disk that is busy are left to whoever is
    /// busy with it.
    fn take(&mut self) -> Option<(Group, Memory)> {
        let is_free = |group: &Group| !self.busy.contains(&group.disk);
        let index = self.groups.iter().position(is_free)?;
        let group = self.groups.remove(index)?;
        self.busy.insert(group.disk.clone());
        let memory = self.memories.remove(&group.disk);
        Some((group, memory.unwrap_or_else(|| Memory::new(self.keys_max))))
    }

    fn give_back(&mut self, group: &Group, memory: Memory) {
        self.busy.remove(&group.disk);
        if self.groups.iter().any(|other| other.disk == group.disk) {
            self.memories.insert(group.disk.clone(), memory);
        }
    }
}

/// Runs one row; the memory of states and the auditor are handed on.
fn run_row(
    row: &Row,
    (memory, auditor): &mut (Memory, Option<Auditor>),
    until: Option<Instant>,
    progress: &Progress,
) -> Result<RowReport, String> {
    let (start, started) = (Instant::now(), processor_seconds());
    let case = row.case()?;
    let mut explorer = Explorer::<Fvd>::new(&case, &Limits::default())
        .map_err(|why| format!("{}: {why}", row.line))?;
    explorer.set_memory(core::mem::take(memory));
    explorer.set_auditor(auditor.take());
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
    *memory = explorer.take_memory();
    *auditor = explorer.set_auditor(None);
    if let Some(auditor) = auditor {
        report.checked = core::mem::take(&mut auditor.agreed);
        report.checked_corrupt = core::mem::take(&mut auditor.corrupt);
    }
    visited?;
    report.workloads_planned = row.workloads()?;
    report.bound = row.bound()?;
    Ok(report)
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
