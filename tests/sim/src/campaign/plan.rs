//! What is run for every change, and what is run when there is time.

use fvd::device::OpKind;

use super::row::Row;
use crate::memory::KEYS_MAX;

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
}

impl Plan {
    /// Leaves out the rows whose words and letters do not contain `text`, and with them the demand
    /// for a number of states.
    pub fn keep(&mut self, text: &str) {
        self.rows
            .retain(|row| row.what.contains(text) || row.line.contains(text));
        self.states_min = 0;
    }

    /// Rows of the same kind of disk together, each group in the order of the plan.
    pub(super) fn groups(&self) -> Result<Vec<Vec<usize>>, String> {
        let mut groups: Vec<(String, Vec<usize>)> = Vec::new();
        for (index, row) in self.rows.iter().enumerate() {
            let disk = row.case()?.setup.to_string();
            match groups.iter_mut().find(|(known, _)| *known == disk) {
                Some((_, rows)) => rows.push(index),
                None => groups.push((disk, vec![index])),
            }
        }
        Ok(groups.into_iter().map(|(_, rows)| rows).collect())
    }
}

/// Requests that have something to do with each other, for all orders of completion.
const REQUESTS: &str = "w0,w1,w3+2,f,z0+2,d0+4";

/// Steps for disks that take long per step.
const FEW: &str = "w0,w4,f,k,o";

/// For every change: at least five million states, and every kind of row that there is.
#[must_use]
pub fn quick() -> Plan {
    let mut rows = every_sequence(3);
    rows.extend(nested(1));
    rows.extend(prepared(3));
    rows.extend(torn(3));
    rows.extend(failing(2));
    rows.extend(orders());
    rows.extend(long_random(1));
    Plan {
        name: "quick",
        rows,
        states_min: 5_000_000,
        keys_max: KEYS_MAX,
    }
}

/// For long nights.
#[must_use]
pub fn long() -> Plan {
    let mut rows = Vec::new();
    for line in ["g=v8;s=", "g=v8B4;s=", "g=v8B4d;s=", "g=v8t0B4;s="] {
        rows.push(Row::all("all sequences, one crash", line, 5));
    }
    for line in [
        "g=v8;s=/w0,f",
        "g=v8B4;s=/w0,f",
        "g=v8B4d;s=/w0,f",
        "g=v8t0B4;s=/w0,f",
    ] {
        rows.push(Row::all("all sequences, two crashes", line, 4));
    }
    rows.extend(nested(2));
    rows.extend(torn(4));
    rows.extend(every_sequence(4));
    rows.extend(prepared(4));
    rows.extend(failing(3));
    rows.extend(orders());
    rows.extend(long_random(20));
    Plan {
        name: "long",
        rows,
        states_min: 0,
        keys_max: KEYS_MAX,
    }
}

/// Each kind of disk, a probe after the crash, and a second crash anywhere in recovery or probe.
fn every_sequence(length: usize) -> Vec<Row> {
    // Long ones first, so that no thread is left alone with one at the end.
    [
        (
            "used device with secrets, zeroed by writing",
            "g=u;s=/w0,f",
            1,
        ),
        ("used device, two stores", "g=du;s=/w0,f", 1),
        ("used device, base shorter", "g=uB8;s=/w0,f", 1),
        ("eager commits", "g=E;s=/w0,f", 0),
        ("eager commits, base shorter", "g=B8E;s=/w0,f", 0),
        ("eager commits, two devices", "g=B8dE;s=/w0,f", 0),
        ("no table, base longer", "g=t0B24;s=/w0,f", 0),
        ("growing file, no base", "g=g;s=/w0,f", 0),
        ("used device, two stores, base", "g=v8duB4;s=/w0,f", 1),
        ("no table, base shorter", "g=t0B8;s=/w0,f", 0),
        ("two devices, base shorter", "g=B8d;s=/w0,f", 0),
        ("growing file, base shorter", "g=B8g;s=/w0,f", 0),
        ("one device, base shorter", "g=B8;s=/w0,f", 0),
        ("base equal", "g=B16;s=/w0,f", 0),
        ("base longer", "g=B24;s=/w0,f", 0),
        ("no base", "g=-;s=/w0,f", 0),
        ("two devices, no table, base", "g=t0B8d;s=/w0,f", 0),
        ("device with FUA", "g=B8F;s=/w0,f", 0),
        (
            "device with write-zeroes, discard to zeros",
            "g=zx2;s=/w0,f",
            0,
        ),
        ("device with vague discard", "g=B8x;s=/w0,f", 0),
        ("no volatile cache", "g=B8n;s=/w0,f", 0),
        ("chunk = block", "g=b4B8;s=/w0,f", 0),
        (
            "chunk = 8 x block, base ends in a block",
            "g=bc8B7;s=/w0,f",
            0,
        ),
        ("chunk = 16 x block", "g=v32bc16B8;s=/w0,f", 0),
        ("4 KiB physical blocks", "g=a8j4B8;s=/w0,f", 0),
        (
            "4 KiB blocks of both kinds",
            "g=v64b8c16B32a8L8;s=/w0+8,f",
            0,
        ),
        ("sequence numbers pass 2^32", "g=S32B8;s=/w0,f", 1),
    ]
    .map(|(what, line, less)| Row::all(what, line, length - less))
    .into()
}

/// Blocks that real images have, and crashes one inside the other.
fn nested(more: usize) -> Vec<Row> {
    let mut rows = vec![
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
        Row::all("three crashes", "g=v8B4;s=/w0,f/w4,f", more),
        Row::all("three crashes, no base", "g=v8;s=/w0,f/w4,f", more),
        Row::all("richer probe", "g=B8;s=/w0,w7,w12,f", 2),
        Row::all("process kills between crashes", "g=B8d;s=/x,w4,f", 2),
        Row::all("two in flight, some orders", "g=B8d;s=/w0,f;q=2", 2).unusual(1),
        Row::all("two in flight, some orders", "g=B8g;s=/w0,f;q=2", 2).unusual(1),
    ];
    if more > 1 {
        rows.push(Row::all("three crashes", "g=v8B4d;s=/w0,f/w4,f", more));
        rows.push(Row::all("three crashes", "g=v8t0B4;s=/w0,f/w4,f", more));
    }
    rows
}

/// Disks that are somewhere in their life already.
fn prepared(length: usize) -> Vec<Row> {
    [
        ("journal of two units", "g=j2;s=/w0,f", 0),
        ("journal nearly full", "g=B8j4;p=w0,f,w4,f,w8,f;s=/w0,f", 0),
        (
            "in the middle of a checkpoint",
            "g=B8j4;p=w0,f,w4,f,k1;s=/w0,f",
            0,
        ),
        (
            "journal come round several times",
            "g=B8;p=w0,f,o,w4,f,o,w8,f,o;s=/w0,f",
            1,
        ),
        ("no table, written before", "g=t0B8;p=w0,f,w4,f;s=/w0,f", 1),
        ("every chunk mapped", "g=-;p=w0,w4,w8,w12,f;s=/w0,f", 1),
    ]
    .map(|(what, line, less)| Row::all(what, line, length - less))
    .into()
}

/// Units torn, lost, or worse.
fn torn(length: usize) -> Vec<Row> {
    [
        ("torn inside a unit", "g=-;s=/w0,f;T=1", "w0,w4,f,k,o,x"),
        ("torn inside a unit, base", "g=B8;s=/w0,f;T=1", "w0,w1,f,k"),
        (
            "torn inside a unit, two devices",
            "g=B8d;s=/w0,f;T=1",
            "w0,w4,f,k",
        ),
        (
            "random bytes in a unit",
            "g=B8;s=/w0,f;T=3",
            "w0,w4,f,k,o,x",
        ),
        (
            "random bytes in a unit, no table",
            "g=t0B8;s=/w0,f;T=3",
            "w0,w4,f,k,o,x",
        ),
    ]
    .map(|(what, line, steps)| Row::of(what, line, steps, length))
    .into()
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
            assert_eq!(groups.iter().flatten().count(), plan.rows.len());
        }
    }
}
