//! Counts the instructions that the engine takes for one operation (docs/INSTRUCTIONS.md).
//!
//! `cargo run --release --example instructions` runs itself under valgrind, each case once with N
//! operations and once with 2 N, so that the difference is N operations and nothing else. Every case
//! runs on a disk and, as the same loop, on the bare device below it. Both devices do nothing but
//! complete, so what is left is the engine. Ends with 1 if a bar is missed that was met before.

use core::mem::MaybeUninit;
use std::process::{Command, ExitCode};

use fvd::buffer::{ARENA_ALIGN, Arena, Head, Loan, OpPool, OpQueue};
use fvd::create::CREATE_ARENA_BYTES;
use fvd::device::{BlockDevice, Null, OpFlags, OpKind, Ram, Status};
use fvd::format::{CreateParams, ImageId, StoreChoice, plan_layout};
use fvd::open::OpenOptions;
use fvd::stores::Two;
use fvd::units::Instant;
use fvd::{Disk, blocking};

/// Bytes of one operation: one segment.
const OPERATION_BYTES: u64 = 4096;
/// Operations of the shorter run; a multiple of every batch.
const COUNT: u64 = 6400;
/// Largest batch.
const BATCH: u64 = 32;
const CHUNK_BYTES: u64 = 1 << 20;
/// Chunks of the disk: a first write for each operation of the longer run.
const CHUNKS: u64 = 2 * COUNT;
/// Chunks that are mapped where a case needs mapped ones; a power of two.
const CHUNKS_MAPPED: u64 = 4096;

/// What is counted.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    MappedRead,
    MappedWrite,
    FirstWrite,
    FirstWriteFlush,
}

/// How many instructions the engine may take.
#[derive(Clone, Copy)]
struct Bar {
    most: u64,
    /// Whether missing it fails the command. A bar becomes a gate once it is met with room to spare.
    gates: bool,
}

const fn gate(most: u64) -> Bar {
    Bar { most, gates: true }
}

const fn goal(most: u64) -> Bar {
    Bar { most, gates: false }
}

/// Name for the command line, name for people, and the bars: one at a time, in batches.
const CASES: [(Case, &str, &str, [Bar; 2]); 4] = [
    (
        Case::MappedRead,
        "read",
        "mapped read",
        [gate(500), goal(250)],
    ),
    (
        Case::MappedWrite,
        "write",
        "mapped write",
        [gate(500), goal(250)],
    ),
    (
        Case::FirstWrite,
        "first",
        "first write",
        [goal(2000), goal(1000)],
    ),
    (
        Case::FirstWriteFlush,
        "flush",
        "first write + flush",
        [gate(8000), gate(3000)],
    ),
];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match &arguments[..] {
        [] => report(),
        [on, case, batch, count] => {
            let (case, ..) = CASES.iter().find(|c| c.1 == case).expect("a case");
            let number = |text: &String| text.parse().expect("a number");
            run(on == "disk", *case, number(batch), number(count));
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("no arguments: print the table; disk|bare CASE BATCH COUNT: run one case");
            ExitCode::from(2)
        }
    }
}

/// Counts every case and prints the table.
fn report() -> ExitCode {
    if cfg!(debug_assertions) {
        eprintln!("this is a debug build: add --release");
        return ExitCode::from(2);
    }
    println!("| operation | in flight | disk | bare device | **engine** | bar |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: |");
    let mut broken = false;
    for (_, case, name, bars) in CASES {
        for (batch, bar) in [1, BATCH].into_iter().zip(bars) {
            let disk = instructions("disk", case, batch);
            let bare = instructions("bare", case, batch);
            let engine = disk.saturating_sub(bare);
            let missed = engine > bar.most;
            broken |= missed && bar.gates;
            let verdict = if missed { ", missed" } else { "" };
            let most = bar.most;
            println!("| {name} | {batch} | {disk} | {bare} | **{engine}** | {most}{verdict} |");
        }
    }
    if broken {
        eprintln!("a bar that was met is missed now");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Instructions per operation: the difference of two runs.
fn instructions(on: &str, case: &str, batch: u64) -> u64 {
    let [once, twice] = [COUNT, 2 * COUNT].map(|count| collected(on, case, batch, count));
    (twice - once + COUNT / 2) / COUNT
}

/// Instructions of one run under valgrind.
fn collected(on: &str, case: &str, batch: u64, count: u64) -> u64 {
    let program = std::env::current_exe().expect("this program has a path");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args([on, case, &batch.to_string(), &count.to_string()])
        .output()
        .expect("valgrind runs (`.ci/run setup` installs it)");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    let number = said.lines().find_map(|line| line.split_once("Collected :"));
    let (_, number) = number.unwrap_or_else(|| panic!("no count in: {said}"));
    number.trim().parse().expect("a number")
}

// ---------------------------------------------------------------------------------------------
// One run
// ---------------------------------------------------------------------------------------------

fn run(on_disk: bool, case: Case, batch: u64, count: u64) {
    let mut caller = Caller::new();
    if on_disk {
        let mut disk = disk();
        let mapped = matches!(case, Case::MappedRead | Case::MappedWrite);
        for first in (0..if mapped { CHUNKS_MAPPED } else { 0 }).step_by(BATCH as usize) {
            caller.first_writes(&mut disk, first, BATCH);
            caller.flushes(&mut disk, 1);
        }
        caller.operations(&mut disk, case, batch, count);
        let stats = disk.stats();
        assert_eq!(stats.protocol_errors, 0);
        println!("{stats:?}");
    } else {
        let mut device = Null::new(CHUNKS * CHUNK_BYTES);
        caller.operations(&mut device, case, batch, count);
    }
}

/// A disk with a table and no base. Its metadata is in RAM, since opening reads it; its data is
/// nowhere.
fn disk() -> Disk<Two<Ram, Null>> {
    let device_bytes = (CHUNKS + 64) * CHUNK_BYTES;
    let header = plan_layout(&CreateParams {
        store: StoreChoice::FixedZeroed { device_bytes },
        external_data: true,
        ..CreateParams::new(CHUNKS * CHUNK_BYTES, ImageId(*b"made at random!!"))
    })
    .expect("a legal image");
    let wait = |_| Instant::ZERO;
    let metadata = Ram::new(vec![0; 1 << 20].leak());
    let made = blocking::create(metadata, header, true, memory(CREATE_ARENA_BYTES), wait);
    made.result.expect("created");
    let stores = Two::new(made.device, Null::new(device_bytes));
    let opened = blocking::open(stores, OpenOptions::DEFAULT, memory(2 << 20), wait);
    opened.unwrap_or_else(|failure| panic!("{}", failure.error))
}

fn memory(bytes: usize) -> &'static mut [MaybeUninit<u8>] {
    let block = vec![MaybeUninit::uninit(); bytes + ARENA_ALIGN].leak();
    let skip = block.as_ptr().align_offset(ARENA_ALIGN);
    &mut block[skip..skip + bytes]
}

/// A guest with a fixed set of ops, each with its buffer, and ops for flushes.
struct Caller {
    data: OpQueue,
    flush: OpQueue,
}

impl Caller {
    fn new() -> Caller {
        let ops = 2 * BATCH as u32;
        let mut arena = Arena::new(memory(OpPool::arena_bytes(ops as usize))).expect("aligned");
        let mut pool = OpPool::carve(&mut arena, ops).expect("room");
        let (mut data, mut flush) = (OpQueue::new(), OpQueue::new());
        for _ in 0..BATCH {
            let buffer: &'static mut [u8] = vec![1; OPERATION_BYTES as usize].leak();
            let (_, lease) = Loan::new(buffer).expect("not empty");
            let mut op = pool.take(head(OpKind::Write, 0, 0)).expect("room");
            op.push(lease).expect("room");
            data.push_back(op);
            flush.push_back(pool.take(head(OpKind::Flush, 0, 0)).expect("room"));
        }
        Caller { data, flush }
    }

    fn operations<D: BlockDevice>(&mut self, device: &mut D, case: Case, batch: u64, count: u64) {
        for first in (0..count).step_by(batch as usize) {
            match case {
                Case::MappedRead => self.anywhere(device, OpKind::Read, first, batch),
                Case::MappedWrite => self.anywhere(device, OpKind::Write, first, batch),
                Case::FirstWrite => self.first_writes(device, first, batch),
                Case::FirstWriteFlush => {
                    self.first_writes(device, first, batch);
                    self.flushes(device, batch);
                }
            }
        }
    }

    /// Requests at scattered places of the mapped part.
    fn anywhere<D: BlockDevice>(&mut self, device: &mut D, kind: OpKind, first: u64, batch: u64) {
        const PLACES: u64 = CHUNKS_MAPPED * CHUNK_BYTES / OPERATION_BYTES;
        let place = |index: u64| index.wrapping_mul(0x9E37_79B9) % PLACES * OPERATION_BYTES;
        let heads = (first..first + batch).map(|index| head(kind, place(index), OPERATION_BYTES));
        requests(device, &mut self.data, heads);
    }

    /// One write to each of the chunks from `first` on.
    fn first_writes<D: BlockDevice>(&mut self, device: &mut D, first: u64, batch: u64) {
        let heads = (first..first + batch)
            .map(|chunk| head(OpKind::Write, chunk * CHUNK_BYTES, OPERATION_BYTES));
        requests(device, &mut self.data, heads);
    }

    fn flushes<D: BlockDevice>(&mut self, device: &mut D, batch: u64) {
        let heads = (0..batch).map(|_| head(OpKind::Flush, 0, 0));
        requests(device, &mut self.flush, heads);
    }
}

fn head(kind: OpKind, offset: u64, len: u64) -> Head {
    Head {
        kind,
        flags: OpFlags::NONE,
        status: Status::Pending,
        offset,
        len,
        tag: 0,
    }
}

/// Submits one op for each head, notifies once, and polls until all are back.
fn requests<D: BlockDevice>(device: &mut D, ops: &mut OpQueue, heads: impl Iterator<Item = Head>) {
    let mut flying = 0;
    for head in heads {
        let mut op = ops.pop_front().expect("an op for each request");
        op.set_head(head);
        assert!(device.submit(op).is_ok(), "refused");
        flying += 1;
    }
    device.notify();
    while flying > 0 {
        if let Some(op) = device.poll(Instant::ZERO) {
            assert!(op.status() == Status::Done, "failed");
            ops.push_back(op);
            flying -= 1;
        }
    }
}
