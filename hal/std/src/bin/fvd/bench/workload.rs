//! The tables through NBD: what the client does, to which disks, and the bars.

use super::arm::{
    Arm, EXTENDED, LAZY, NO_TABLE, PREALLOCATED, QCOW2, QED, QEMU_RAW, QEMU_RAW_URING, RAW,
    RAW_JOURNAL, TABLE,
};
use super::client::Client;
use super::fio::{Job, Kind};
use super::plan::{
    BARS_090, BARS_097, BARS_100, BARS_FLUSH_32, BARS_FLUSH_EACH, BARS_LEVEL, Bar, Disk, Goal,
    Plan, What, bar,
};

const FRESH: &[Arm] = &[
    QEMU_RAW,
    QEMU_RAW_URING,
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
const FOUND: &[Arm] = &[QEMU_RAW, QEMU_RAW_URING, TABLE, NO_TABLE, QCOW2, EXTENDED];
const BASE: &[Arm] = &[QEMU_RAW, TABLE, NO_TABLE, QCOW2, EXTENDED];
const SERVERS: &[Arm] = &[RAW];

const BARS_SERVER_QD1: &[Bar] = &[bar(RAW, QEMU_RAW, Goal::Ratio(1.0))];
const BARS_SERVER_QD32: &[Bar] = &[bar(RAW, QEMU_RAW, Goal::Ratio(1.2))];

/// 4 KiB each, in no order.
const fn random(kind: Kind, depth: u32, flush_every: u32) -> Client {
    Client::Fio(Job {
        kind,
        block_bytes: 4096,
        depth,
        flush_every,
    })
}

const WRITE_QD1: Client = random(Kind::RandomWrite, 1, 0);
const WRITE_QD32: Client = random(Kind::RandomWrite, 32, 0);
const READ_QD1: Client = random(Kind::RandomRead, 1, 0);
const READ_QD32: Client = random(Kind::RandomRead, 32, 0);
const SEQUENTIAL: Client = Client::Fio(Job {
    kind: Kind::Write,
    block_bytes: 64 << 10,
    depth: 8,
    flush_every: 0,
});

const fn img(writes: bool) -> Client {
    Client::Img { writes, depth: 32 }
}

/// Name, title, disk, client, arms, bars.
type Line = (
    &'static str,
    &'static str,
    Disk,
    Client,
    &'static [Arm],
    &'static [Bar],
);

#[rustfmt::skip]
const LINES: &[Line] = &[
    ("fresh-qd1", "first 4 KiB writes, random, QD1",
        Disk::Fresh, WRITE_QD1, FRESH, BARS_097),
    ("fresh-qd32", "first 4 KiB writes, random, QD32",
        Disk::Fresh, WRITE_QD32, FRESH, BARS_097),
    ("fresh-sequential", "first 64 KiB writes, sequential, QD8",
        Disk::Fresh, SEQUENTIAL, FRESH, BARS_100),
    ("flush-each", "first 4 KiB write + flush, random",
        Disk::Fresh, random(Kind::RandomWrite, 1, 1), FLUSHED, BARS_FLUSH_EACH),
    ("flush-32", "first 4 KiB writes, random, a flush after every 32",
        Disk::Fresh, random(Kind::RandomWrite, 1, 32), FLUSHED, BARS_FLUSH_32),
    ("cow-qd1", "copy-on-write: first 4 KiB writes to an overlay, random, QD1",
        Disk::FreshOverlay, WRITE_QD1, OVERLAYS, BARS_097),
    ("cow-qd32", "copy-on-write: first 4 KiB writes to an overlay, random, QD32",
        Disk::FreshOverlay, WRITE_QD32, OVERLAYS, BARS_090),
    ("read-qd1", "reads of 4 KiB that were written, random, QD1",
        Disk::Written, READ_QD1, FOUND, BARS_LEVEL),
    ("read-qd32", "reads of 4 KiB that were written, random, QD32",
        Disk::Written, READ_QD32, FOUND, BARS_LEVEL),
    ("write-qd1", "4 KiB writes over what was written, random, QD1",
        Disk::Written, WRITE_QD1, FOUND, BARS_LEVEL),
    ("write-qd32", "4 KiB writes over what was written, random, QD32",
        Disk::Written, WRITE_QD32, FOUND, BARS_LEVEL),
    ("base-qd1", "4 KiB reads of the base through an overlay, random, QD1",
        Disk::Overlay, READ_QD1, BASE, BARS_LEVEL),
    ("base-qd32", "4 KiB reads of the base through an overlay, random, QD32",
        Disk::Overlay, READ_QD32, BASE, BARS_LEVEL),
    ("copy-out", "nbdcopy: all of a disk that was written, to nowhere",
        Disk::Written, Client::CopyOut, BASE, &[]),
    ("copy-in", "nbdcopy: a file in memory into a new disk, and a flush",
        Disk::Fresh, Client::CopyIn, BASE, &[]),
    ("img-read", "qemu-img bench: 4 KiB reads of what was written, sequential, QD32",
        Disk::Written, img(false), BASE, &[]),
    ("img-write", "qemu-img bench: first 4 KiB writes, sequential, QD32",
        Disk::Fresh, img(true), BASE, &[]),
    ("server-read-qd1", "front end: 4 KiB reads of a raw file in memory, QD1",
        Disk::Memory, READ_QD1, SERVERS, BARS_SERVER_QD1),
    ("server-read-qd32", "front end: 4 KiB reads of a raw file in memory, QD32",
        Disk::Memory, READ_QD32, SERVERS, BARS_SERVER_QD32),
    ("server-write-qd1", "front end: 4 KiB writes to a raw file in memory, QD1",
        Disk::Memory, WRITE_QD1, SERVERS, BARS_SERVER_QD1),
    ("server-write-qd32", "front end: 4 KiB writes to a raw file in memory, QD32",
        Disk::Memory, WRITE_QD32, SERVERS, BARS_SERVER_QD32),
];

/// Every table through NBD.
pub(super) fn plans() -> Vec<Plan> {
    let plan = |&(name, title, disk, client, arms, bars): &Line| Plan {
        name,
        title,
        what: What::Nbd(disk, client),
        reference: if disk == Disk::Memory { QEMU_RAW } else { RAW },
        arms,
        bars,
    };
    LINES.iter().map(plan).collect()
}
