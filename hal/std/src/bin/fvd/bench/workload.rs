//! The tables through NBD: what the client does, to which disks, and the bars.

use super::arm::{
    Arm, EXTENDED, LAZY, NO_TABLE, PREALLOCATED, QCOW2, QED, QEMU_RAW, RAW, RAW_JOURNAL, TABLE,
};
use super::fio::{Job, Kind};

/// What the client finds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Disk {
    /// A new disk for each measurement.
    Fresh,
    /// A new overlay on a base full of data for each measurement.
    FreshOverlay,
    /// A disk whose first part is written already.
    Written,
    /// An overlay that nothing was written to.
    Overlay,
    /// As `Written`, in memory: what is measured is the server.
    Memory,
}

/// What an arm should reach.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Bar {
    pub(super) arm: &'static str,
    /// The arm to compare with; the reference if there is no such arm.
    pub(super) of: &'static str,
    pub(super) goal: Goal,
}

#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Goal {
    /// At least this ratio.
    Ratio(f64),
    /// No difference to be seen beyond A/A.
    Level,
}

#[derive(Clone, Debug)]
pub(super) struct Workload {
    pub(super) name: &'static str,
    pub(super) title: &'static str,
    pub(super) disk: Disk,
    pub(super) job: Job,
    pub(super) reference: Arm,
    pub(super) arms: &'static [Arm],
    pub(super) bars: &'static [Bar],
}

const FRESH: &[Arm] = &[
    QEMU_RAW,
    TABLE,
    NO_TABLE,
    QCOW2,
    EXTENDED,
    PREALLOCATED,
    LAZY,
    QED,
];
const FLUSHED: &[Arm] = &[
    QEMU_RAW,
    RAW_JOURNAL,
    TABLE,
    NO_TABLE,
    QCOW2,
    EXTENDED,
    PREALLOCATED,
    LAZY,
    QED,
];
const OVERLAYS: &[Arm] = &[QEMU_RAW, TABLE, NO_TABLE, QCOW2, EXTENDED, QED];
/// Where all tie: there the metadata are found, and nothing but data is moved.
const FOUND: &[Arm] = &[QEMU_RAW, TABLE, NO_TABLE, QCOW2, EXTENDED];
const SERVERS: &[Arm] = &[RAW];

const fn job(kind: Kind, block_bytes: u32, depth: u32, flush_every: u32) -> Job {
    Job {
        kind,
        block_bytes,
        depth,
        flush_every,
    }
}

const fn bar(arm: Arm, of: Arm, goal: Goal) -> Bar {
    Bar {
        arm: arm.name,
        of: of.name,
        goal,
    }
}

const fn both(ratio: f64) -> [Bar; 2] {
    let goal = Goal::Ratio(ratio);
    [bar(TABLE, RAW, goal), bar(NO_TABLE, RAW, goal)]
}

const fn flushed(of_raw: f64) -> [Bar; 4] {
    let [table, no_table] = both(of_raw);
    let of_journal = Goal::Ratio(0.97);
    [
        bar(TABLE, RAW_JOURNAL, of_journal),
        table,
        bar(NO_TABLE, RAW_JOURNAL, of_journal),
        no_table,
    ]
}

pub(super) const BARS_097: &[Bar] = &both(0.97);
const BARS_100: &[Bar] = &both(1.0);
pub(super) const BARS_090: &[Bar] = &both(0.90);
pub(super) const BARS_FLUSH_EACH: &[Bar] = &flushed(0.88);
pub(super) const BARS_FLUSH_32: &[Bar] = &flushed(0.96);
const BARS_LEVEL: &[Bar] = &[
    bar(TABLE, RAW, Goal::Level),
    bar(NO_TABLE, RAW, Goal::Level),
];
const BARS_SERVER_QD1: &[Bar] = &[bar(RAW, QEMU_RAW, Goal::Ratio(1.0))];
const BARS_SERVER_QD32: &[Bar] = &[bar(RAW, QEMU_RAW, Goal::Ratio(1.2))];

/// Every table through NBD.
pub(super) fn all() -> Vec<Workload> {
    let mut all = vec![
        fresh(
            "fresh-qd1",
            "first 4 KiB writes, random, QD1",
            job(Kind::RandomWrite, 4096, 1, 0),
            BARS_097,
        ),
        fresh(
            "fresh-qd32",
            "first 4 KiB writes, random, QD32",
            job(Kind::RandomWrite, 4096, 32, 0),
            BARS_097,
        ),
        fresh(
            "fresh-sequential",
            "first 64 KiB writes, sequential, QD8",
            job(Kind::Write, 64 << 10, 8, 0),
            BARS_100,
        ),
        flush(
            "flush-each",
            "first 4 KiB write + flush, random",
            1,
            BARS_FLUSH_EACH,
        ),
        flush(
            "flush-32",
            "first 4 KiB writes, random, a flush after every 32",
            32,
            BARS_FLUSH_32,
        ),
        overlay(
            "cow-qd1",
            "copy-on-write: first 4 KiB writes to an overlay, random, QD1",
            Disk::FreshOverlay,
            job(Kind::RandomWrite, 4096, 1, 0),
            BARS_097,
        ),
        overlay(
            "cow-qd32",
            "copy-on-write: first 4 KiB writes to an overlay, random, QD32",
            Disk::FreshOverlay,
            job(Kind::RandomWrite, 4096, 32, 0),
            BARS_090,
        ),
    ];
    for (name, title, kind, depth) in [
        (
            "read-qd1",
            "reads of 4 KiB that were written, random, QD1",
            Kind::RandomRead,
            1,
        ),
        (
            "read-qd32",
            "reads of 4 KiB that were written, random, QD32",
            Kind::RandomRead,
            32,
        ),
        (
            "write-qd1",
            "4 KiB writes over what was written, random, QD1",
            Kind::RandomWrite,
            1,
        ),
        (
            "write-qd32",
            "4 KiB writes over what was written, random, QD32",
            Kind::RandomWrite,
            32,
        ),
    ] {
        all.push(overlay(
            name,
            title,
            Disk::Written,
            job(kind, 4096, depth, 0),
            BARS_LEVEL,
        ));
    }
    for (name, title, depth) in [
        (
            "base-qd1",
            "4 KiB reads of the base through an overlay, random, QD1",
            1,
        ),
        (
            "base-qd32",
            "4 KiB reads of the base through an overlay, random, QD32",
            32,
        ),
    ] {
        all.push(overlay(
            name,
            title,
            Disk::Overlay,
            job(Kind::RandomRead, 4096, depth, 0),
            BARS_LEVEL,
        ));
    }
    for (name, title, kind, depth) in [
        (
            "server-read-qd1",
            "front end: 4 KiB reads of a raw file in memory, QD1",
            Kind::RandomRead,
            1,
        ),
        (
            "server-read-qd32",
            "front end: 4 KiB reads of a raw file in memory, QD32",
            Kind::RandomRead,
            32,
        ),
        (
            "server-write-qd1",
            "front end: 4 KiB writes to a raw file in memory, QD1",
            Kind::RandomWrite,
            1,
        ),
        (
            "server-write-qd32",
            "front end: 4 KiB writes to a raw file in memory, QD32",
            Kind::RandomWrite,
            32,
        ),
    ] {
        let bars = if depth == 1 {
            BARS_SERVER_QD1
        } else {
            BARS_SERVER_QD32
        };
        all.push(Workload {
            name,
            title,
            disk: Disk::Memory,
            job: job(kind, 4096, depth, 0),
            reference: QEMU_RAW,
            arms: SERVERS,
            bars,
        });
    }
    all
}

fn fresh(name: &'static str, title: &'static str, job: Job, bars: &'static [Bar]) -> Workload {
    Workload {
        name,
        title,
        disk: Disk::Fresh,
        job,
        reference: RAW,
        arms: FRESH,
        bars,
    }
}

fn flush(name: &'static str, title: &'static str, every: u32, bars: &'static [Bar]) -> Workload {
    Workload {
        arms: FLUSHED,
        ..fresh(name, title, job(Kind::RandomWrite, 4096, 1, every), bars)
    }
}

fn overlay(
    name: &'static str,
    title: &'static str,
    disk: Disk,
    job: Job,
    bars: &'static [Bar],
) -> Workload {
    Workload {
        disk,
        arms: if disk == Disk::FreshOverlay {
            OVERLAYS
        } else {
            FOUND
        },
        ..fresh(name, title, job, bars)
    }
}
