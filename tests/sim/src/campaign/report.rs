//! What a campaign has come to: a table for people, and the same as JSON.

use core::fmt;

use serde::Serialize;

use super::machine::Machine;

/// One row's outcome.
#[derive(Clone, Debug, Default, Serialize)]
pub struct RowReport {
    /// What it is about.
    pub what: String,
    /// The case.
    pub line: String,
    /// Letters of the disk.
    pub disk: String,
    /// Torn model: 0 for atomic units.
    pub torn: String,
    /// What was enumerated.
    pub bound: String,
    /// Power losses in a row.
    pub crashes_deep: usize,
    /// Workloads that were to be run.
    pub workloads_planned: u64,
    /// Workloads that were run in all ways within the bound.
    pub workloads: u64,
    /// Runs, one per string of decisions.
    pub runs: u64,
    /// Moments at which power was cut.
    pub moments: u64,
    /// Those with too many outcomes to look at all.
    pub moments_selected: u64,
    /// Unique crash states that this row was the first to meet on this kind of disk.
    pub states: u64,
    /// Recoveries that ran.
    pub recoveries: u64,
    /// Each violation: its rule, and the shortest line found that replays it.
    pub violations: Vec<String>,
    /// Images that two checkers judged alike, before and after recovery.
    pub checked: u64,
    /// Those of them that both called corrupt.
    pub checked_corrupt: u64,
    /// Seconds on the clock.
    pub seconds: f64,
    /// Seconds on a processor.
    pub processor_seconds: f64,
}

impl RowReport {
    /// Whether all of the row was run.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.workloads == self.workloads_planned
    }

    /// Whether time ran out before all of the row was run.
    #[must_use]
    pub fn is_cut_short(&self) -> bool {
        !self.is_complete() && self.violations.is_empty()
    }

    fn rate(&self) -> f64 {
        self.states as f64 / self.processor_seconds.max(1e-3)
    }
}

/// The deliberately wrong variants of the engine.
#[derive(Clone, Debug, Default, Serialize)]
pub struct Hunt {
    /// Variants that were looked for.
    pub known: usize,
    /// Those that were not found.
    pub missed: Vec<String>,
    /// Seconds on the clock.
    pub seconds: f64,
}

/// All of it.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// Name of the plan.
    pub plan: String,
    /// Where and when.
    pub machine: Machine,
    /// Searches at the same time.
    pub threads: usize,
    /// The rows, in the order of the plan.
    pub rows: Vec<RowReport>,
    /// Unique states, all rows together.
    pub states: u64,
    /// Fewest unique states that the plan must reach.
    pub states_min: u64,
    /// Whether every row was run to its end.
    pub complete: bool,
    /// Whether two checkers were shown a sample of the states.
    pub two_checkers: bool,
    /// The seeded bugs; `None` if they are not compiled in.
    pub hunt: Option<Hunt>,
    /// Seconds on the clock, all of it.
    pub seconds: f64,
}

/// What a campaign proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// All of the plan was run, and nothing was found.
    Passed,
    /// A violation, a seeded bug that was missed, or fewer states than all of the plan must reach.
    Failed,
    /// Nothing was found in what was run, but time ran out before all of the plan was.
    CutShort,
}

impl Report {
    /// What it proves.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        if !self.problems().is_empty() {
            Outcome::Failed
        } else if self.complete {
            Outcome::Passed
        } else {
            Outcome::CutShort
        }
    }

    /// What keeps the campaign from being a success.
    #[must_use]
    pub fn problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for row in &self.rows {
            problems.extend(row.violations.iter().cloned());
        }
        let missed = self.hunt.iter().flat_map(|hunt| &hunt.missed);
        problems.extend(missed.map(|name| format!("seeded bug {name} was not caught")));
        if self.complete && self.states < self.states_min {
            let (some, all) = (grouped(self.states), grouped(self.states_min));
            problems.push(format!("{some} unique states, {all} wanted"));
        }
        problems
    }
}

/// 1234567 as "1,234,567".
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

const TITLES: [&str; 10] = [
    "what",
    "disk",
    "torn",
    "workloads",
    "deep",
    "runs",
    "unique states",
    "violations",
    "s",
    "states/s/core",
];

fn cells(row: &RowReport) -> [String; 10] {
    let (done, all) = (grouped(row.workloads), grouped(row.workloads_planned));
    let done = if row.is_complete() {
        format!("{}: {done}", row.bound)
    } else if row.is_cut_short() {
        format!("{}: CUT at {done} of {all}", row.bound)
    } else {
        format!("{}: {done} of {all}, then the violation", row.bound)
    };
    let states = match row.moments_selected {
        0 => grouped(row.states),
        some => {
            let part = 100.0 * some as f64 / row.moments.max(1) as f64;
            format!("{} ({part:.1} % sel.)", grouped(row.states))
        }
    };
    [
        row.what.clone(),
        row.disk.clone(),
        format!("T{}", row.torn),
        done,
        row.crashes_deep.to_string(),
        grouped(row.runs),
        states,
        row.violations.len().to_string(),
        format!("{:.1}", row.seconds),
        grouped(row.rate() as u64),
    ]
}

impl fmt::Display for RowReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cells = cells(self);
        write!(f, "{} {}", cells[0], self.line)?;
        for (title, cell) in TITLES.iter().zip(&cells).skip(3) {
            write!(f, ", {title} {cell}")?;
        }
        Ok(())
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut lines = vec![TITLES.map(String::from)];
        lines.extend(self.rows.iter().map(cells));
        let width = |column: usize| lines.iter().map(|line| line[column].chars().count()).max();
        let widths: Vec<usize> = (0..TITLES.len()).map(|at| width(at).unwrap_or(0)).collect();
        for (index, line) in lines.iter().enumerate() {
            for (column, (cell, width)) in line.iter().zip(&widths).enumerate() {
                let width = *width;
                match column {
                    0..4 => write!(f, "| {cell:width$} ")?,
                    _ => write!(f, "| {cell:>width$} ")?,
                }
            }
            writeln!(f, "|")?;
            if index == 0 {
                for (column, width) in widths.iter().enumerate() {
                    let colon = if column < 4 { '-' } else { ':' };
                    write!(f, "| {:-<width$}{colon}", "", width = width)?;
                }
                writeln!(f, "|")?;
            }
        }
        writeln!(f)?;
        self.totals(f)
    }
}

impl Report {
    fn totals(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sum = |of: fn(&RowReport) -> u64| self.rows.iter().map(of).sum::<u64>();
        let processor: f64 = self.rows.iter().map(|row| row.processor_seconds).sum();
        let rate = self.states as f64 / processor.max(1e-3);
        let violations = sum(|row| row.violations.len() as u64);
        writeln!(
            f,
            "{} plan: {} unique crash states, {} recoveries, {} runs of {} workloads, {violations} \
             violations",
            self.plan,
            grouped(self.states),
            grouped(sum(|row| row.recoveries)),
            grouped(sum(|row| row.runs)),
            grouped(sum(|row| row.workloads)),
        )?;
        writeln!(
            f,
            "{:.0} s with {} threads; {} unique states/s per core",
            self.seconds,
            self.threads,
            grouped(rate as u64)
        )?;
        let (images, corrupt) = (sum(|row| row.checked), sum(|row| row.checked_corrupt));
        match self.two_checkers {
            true => writeln!(
                f,
                "shown to both checkers: {} images, {} of them corrupt; they agree on all but the violations",
                grouped(images),
                grouped(corrupt)
            )?,
            false => writeln!(f, "SKIP: checkers not compared, python3 is not installed")?,
        }
        let cut = sum(|row| u64::from(row.is_cut_short()));
        if cut > 0 {
            let all = self.rows.len();
            writeln!(
                f,
                "NOT COMPLETE: {cut} of {all} rows were cut: CUT in their lines"
            )?;
        }
        match &self.hunt {
            Some(hunt) => writeln!(
                f,
                "seeded bugs caught: {} of {}",
                hunt.known - hunt.missed.len(),
                hunt.known
            )?,
            None => writeln!(f, "seeded bugs: not looked for")?,
        }
        let Machine {
            processor,
            cores,
            memory_gib,
            kernel,
            rustc,
            commit,
            date,
        } = &self.machine;
        writeln!(
            f,
            "{processor}, {cores} cores, {memory_gib} GiB, {kernel}; {rustc}; commit {commit}; {date}"
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_grouped() {
        assert_eq!(
            [0, 999, 1000, 1_234_567].map(grouped),
            ["0", "999", "1,000", "1,234,567"]
        );
    }

    #[test]
    fn a_row_that_was_stopped_says_so() {
        let row = RowReport {
            workloads: 3,
            workloads_planned: 9,
            bound: "all".into(),
            ..RowReport::default()
        };
        assert_eq!(cells(&row)[3], "all: CUT at 3 of 9");
        let row = RowReport {
            violations: vec!["R1".into()],
            ..row
        };
        assert_eq!(cells(&row)[3], "all: 3 of 9, then the violation");
    }

    #[test]
    fn a_plan_that_was_cut_neither_passes_nor_fails() {
        let row = |workloads| RowReport {
            workloads,
            workloads_planned: 9,
            ..RowReport::default()
        };
        let report = |rows: Vec<RowReport>| Report {
            plan: "a".into(),
            machine: Machine::here(),
            threads: 1,
            complete: rows.iter().all(RowReport::is_complete),
            rows,
            states: 1,
            states_min: 2,
            two_checkers: true,
            hunt: None,
            seconds: 1.0,
        };
        let mut cut = report(vec![row(9), row(3)]);
        assert_eq!(cut.outcome(), Outcome::CutShort);
        assert!(cut.to_string().contains("NOT COMPLETE: 1 of 2 rows"));
        cut.rows[1].violations.push("R1".into());
        assert_eq!(cut.outcome(), Outcome::Failed);
        // Complete, but with fewer states than it must reach.
        let mut whole = report(vec![row(9)]);
        assert_eq!(whole.outcome(), Outcome::Failed);
        whole.states_min = 1;
        assert_eq!(whole.outcome(), Outcome::Passed);
        assert!(!whole.to_string().contains("CUT"));
    }
}
