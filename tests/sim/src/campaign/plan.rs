//! What is run for every change, and what is run when there is time.

mod lines;

use fvd::device::OpKind;

use super::row::Row;
use crate::memory::KEYS_MAX;
use lines::{FIVE_STEPS, KINDS, Line, OF_2011, PREPARED, THREE_CRASHES, TORN};

/// Rows to run, and what they have to reach.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Its name.
    pub name: &'static str,
    /// The rows.
    pub rows: Vec<Row>,
    /// Fewest unique states.
    pub states_min: u64,
    /// States that one kind of disk remembers.
    pub keys_max: usize,
    /// One of this many unique states is shown to two checkers.
    pub checked_every: u64,
}

/// Rows on one kind of disk, which run one after the other.
#[derive(Clone, Debug)]
pub(super) struct Group {
    /// Letters of the disk.
    pub(super) disk: String,
    /// Rows, by their place in the plan.
    pub(super) rows: Vec<usize>,
}

impl Plan {
    /// Leaves out the rows whose words and letters do not contain `text`, and with them the demand
    /// for a number of states.
    pub fn keep(&mut self, text: &str) {
        self.rows
            .retain(|row| row.what.contains(text) || row.line.contains(text));
        self.states_min = 0;
    }

    /// Rows of the same kind of disk together, in the order of the plan; those that are required of all
    /// disks come before the first that is not.
    pub(super) fn groups(&self) -> Result<Vec<Group>, String> {
        let mut all: Vec<Group> = Vec::new();
        for required in [true, false] {
            let first = all.len();
            let rows = self.rows.iter().enumerate();
            for (index, row) in rows.filter(|(_, row)| row.required == required) {
                let disk = row.case()?.setup.to_string();
                match all[first..].iter_mut().find(|group| group.disk == disk) {
                    Some(group) => group.rows.push(index),
                    None => all.push(Group {
                        disk,
                        rows: vec![index],
                    }),
                }
            }
        }
        Ok(all)
    }
}

/// Requests that have something to do with each other, for all orders of completion.
const REQUESTS: &str = "w0,w1,w3+2,f,z0+2,d0+4";

/// Steps for disks that take long per step.
const FEW: &str = "w0,w4,f,k,o";

fn rows(length: usize, lines: &[Line]) -> impl Iterator<Item = Row> {
    let row = move |(what, line, steps, less): &Line| Row::of(what, line, steps, length - less);
    lines.iter().map(row)
}

/// For every change: all sequences of up to three steps with two crashes on every kind of disk but used
/// ones, at least five million states, and every kind of row that there is.
#[must_use]
pub fn quick() -> Plan {
    let mut all: Vec<Row> = rows(3, KINDS).collect();
    all.extend(between(1));
    all.extend(rows(2, THREE_CRASHES));
    all.extend(rows(3, PREPARED));
    all.extend(rows(3, TORN));
    all.extend(rows(3, OF_2011));
    all.extend(failing(2));
    all.extend(orders());
    all.extend(long_random(1));
    Plan {
        name: "quick",
        rows: all,
        states_min: 5_000_000,
        keys_max: KEYS_MAX,
        checked_every: 20_000,
    }
}

/// For long nights: all sequences of up to five steps on twelve kinds of disk, three crashes one in the
/// other for up to two steps, all torn models; then as far as there is time.
#[must_use]
pub fn long() -> Plan {
    let mut all: Vec<Row> = rows(5, FIVE_STEPS).collect();
    all.extend(rows(2, THREE_CRASHES));
    all.extend(rows(4, TORN));
    let mut all: Vec<Row> = all.into_iter().map(Row::required).collect();
    all.extend(between(2));
    all.extend(failing(3));
    all.extend(orders());
    all.extend(long_random(20));
    all.extend(rows(4, KINDS));
    all.extend(rows(4, PREPARED));
    all.extend(rows(4, OF_2011));
    Plan {
        name: "long",
        rows: all,
        states_min: 0,
        keys_max: KEYS_MAX,
        checked_every: 20_000,
    }
}

/// Blocks that real images have, and more happening between two crashes.
fn between(more: usize) -> Vec<Row> {
    let both = "two in flight, some orders";
    vec![
        Row::all(
            "4 KiB copy-on-write blocks",
            "g=v64b8c16B24;s=/w0,f",
            1 + more,
        )
        .selecting(1 << 6, 16),
        Row::of(
            "64 KiB copy-on-write blocks",
            "g=v512b128c128B256;s=/w0,f",
            FEW,
            more,
        )
        .selecting(1 << 4, 8),
        Row::all("richer probe", "g=B8;s=/w0,w7,w12,f", 2),
        Row::all("process kills between crashes", "g=B8d;s=/x,w4,f", 2),
        Row::all(both, "g=B8d;s=/w0,f;q=2", 2).unusual(1),
        Row::all(both, "g=B8g;s=/w0,f;q=2", 2).unusual(1),
    ]
}

/// Operations that fail, once and for good, with and without effect.
fn failing(length: usize) -> Vec<Row> {
    let row = |what, line, store, kind| {
        Row::of(what, line, "w0,w1,w4,f,k,o", length).failing(store, kind)
    };
    vec![
        row("writes fail", "g=B8;s=/w0,f", 0, OpKind::Write),
        row("flushes fail", "g=B8;s=/w0,f", 0, OpKind::Flush),
        row("reads fail", "g=B8;s=/w0,f", 0, OpKind::Read),
        row("reads of the base fail", "g=B8;s=/w0,f", 2, OpKind::Read),
        row(
            "data writes fail, two in flight",
            "g=B8d;s=/w0,f;q=2",
            1,
            OpKind::Write,
        )
        .unusual(1),
        row("data flushes fail", "g=B8d;s=/w0,f", 1, OpKind::Flush),
    ]
}

/// Every order of completion of everything that is in flight.
fn orders() -> Vec<Row> {
    let all = |what, line, steps, length| Row::of(what, line, steps, length).unusual(usize::MAX);
    vec![
        all("3 in flight", "g=B8;s=;q=3!", REQUESTS, 3),
        all("3 in flight, two devices", "g=B8d;s=;q=3!", "w0,w1,w4,f", 3),
        all("3 in flight, no base", "g=-;s=;q=3!", REQUESTS, 3),
        all("3 in flight, no table", "g=t0B8;s=;q=3!", REQUESTS, 3),
        all("4 in flight", "g=B8;s=;q=4!", "w0,w1,f", 4),
        all("4 in flight, no base", "g=-;s=;q=4!", "w0,w1,w4,f", 4),
    ]
}

/// Long lives.
fn long_random(times: u32) -> Vec<Row> {
    let row = |line, count, steps| Row::random("random", line, count * times, steps);
    vec![
        row("g=v32B12;s=/w0,f", 40, 50),
        row("g=v32B12d;s=/w0,f;q=4", 40, 50),
        row("g=v64B40gQ32;s=/w0,f;q=32", 20, 200),
        row("g=v64B40g6Q32;s=/w0,f;q=32", 20, 200),
        row("g=v64B40t0Q16;s=/w0,f;q=16", 20, 200),
        row("g=v32uzx2;s=;q=8", 10, 200),
        row("g=v64B30Q32;s=/w0,f;q=32", 4, 1000),
        row("g=v64b8c16B32a8L8;s=;q=2", 4, 1000),
        row("g=v64B30d;s=", 1, 5000),
        row("g=v64B30dQ32j16;s=/w0,f;q=32", 1, 5000),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::row::Work;
    use crate::driver::Fvd;
    use crate::engine::Engine;

    #[test]
    fn every_row_is_a_legal_case_on_a_disk_that_exists() {
        for plan in [quick(), long()] {
            for row in &plan.rows {
                let case = row.case().expect(row.line);
                assert!(Fvd::plan(&case.setup).is_some(), "{}", row.line);
                assert!(row.workloads().expect(row.line) > 0);
            }
            let groups = plan.groups().expect("legal");
            let rows: usize = groups.iter().map(|group| group.rows.len()).sum();
            assert_eq!(rows, plan.rows.len());
        }
    }

    /// What the plans promise, in the words of their documentation.
    #[test]
    fn the_plans_hold_what_they_promise() {
        let whole = |row: &&Row, least: usize, crashes: usize| {
            let sessions = row.case().expect(row.line).sessions.len();
            matches!(row.work, Work::Sequences { steps: "", length } if length >= least)
                && sessions >= crashes
        };
        let count = |plan: &Plan, least, crashes| {
            let rows = plan.rows.iter().filter(|row| whole(row, least, crashes));
            rows.filter(|row| row.failing.is_none()).count()
        };
        let (quick, long) = (quick(), long());
        assert!(count(&quick, 3, 2) >= 23 && count(&quick, 2, 3) >= 4);
        assert!(count(&long, 5, 1) >= 12 && count(&long, 4, 2) >= 20);
        assert!(count(&long, 2, 3) >= 4);
        for plan in [&quick, &long] {
            for tear in 1..=5 {
                let letter = format!(";T={tear}");
                assert!(plan.rows.iter().any(|row| row.line.ends_with(&letter)));
            }
        }
        let required = |row: &&Row| row.required;
        let first = long.groups().expect("legal")[0].rows[0];
        assert!(long.rows.iter().filter(required).count() >= 12 + 4 && long.rows[first].required);
    }
}
