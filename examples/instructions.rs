//! Counts the instructions that the engine takes for one operation (docs/INSTRUCTIONS.md).
//!
//! `cargo run --release --example instructions` runs itself under valgrind, each case once with N
//! operations and once with 2 N, so that the difference is N operations and nothing else. Every case
//! runs on a disk and, as the same loop, on the bare device below it. Both devices do nothing but
//! complete, so what is left is the engine. Ends with 1 if a bar is missed that was met before.
//!
//! With the argument `sizes` it compares disks of 1 GiB, 1 TiB and 16 TiB instead, one operation at a
//! time, and ends with 1 if a larger disk costs more; with `scale` it does that for up to 128 in flight
//! (docs/SCALE.md).

use core::mem::MaybeUninit;
use std::process::{Command, ExitCode};

use fvd::buffer::{ARENA_ALIGN, Arena, Head, Loan, OpPool, OpQueue};
use fvd::create::CREATE_ARENA_BYTES;
use fvd::device::{BlockDevice, Null, OpFlags, OpKind, Ram, Status};
use fvd::format::{CreateParams, ImageId, JournalChoice, StoreChoice, plan_layout};
use fvd::open::OpenOptions;
use fvd::stores::Two;
use fvd::units::Instant;
use fvd::{Disk, blocking};

/// Bytes of one operation: one segment.
const OPERATION_BYTES: u64 = 4096;
/// Operations of the shorter run; a multiple of every batch.
const COUNT: u64 = 6400;
/// The batch of the bars.
const BATCH: u64 = 32;
/// Batches where sizes are compared.
const DEPTHS: [u64; 4] = [1, 8, 32, DEPTH_MAX];
const DEPTH_MAX: u64 = 128;
const CHUNK_BYTES: u64 = 1 << 20;
/// Operations of the shorter run where sizes are compared; the small disk has no room for more first
/// writes.
const COUNT_SIZES: u64 = 512;
/// Disks that are compared, in chunks.
const SIZES: [&str; 3] = ["1024", "1048576", "16777216"];
/// How many percent more a larger disk may take; a few instructions more were seen.
const PERCENT_MORE: u64 = 1;

/// How large a disk is, and which part of it is used.
#[derive(Clone, Copy)]
struct Size {
    chunks: u64,
    /// Chunks that are written to for the first time; those of the longer run at least.
    used: u64,
    /// Chunks that are mapped where a case needs mapped ones; a power of two.
    mapped: u64,
    journal: JournalChoice,
    queue_depth: u16,
}

/// A first write for each operation of the longer run, side by side.
const USUAL: Size = Size {
    chunks: 2 * COUNT,
    used: 2 * COUNT,
    mapped: 4096,
    journal: JournalChoice::Auto,
    queue_depth: OpenOptions::DEFAULT.queue_depth,
};

/// As many chunks at every size, all over the disk, and no checkpoint.
const fn spread(chunks: u64) -> Size {
    Size {
        chunks,
        used: 1024,
        mapped: 512,
        journal: JournalChoice::Bytes(4 << 20),
        queue_depth: DEPTH_MAX as u16,
    }
}

impl Size {
    const fn bytes(&self) -> u64 {
        self.chunks * CHUNK_BYTES
    }

    /// The `index`-th chunk that is used, in bytes.
    const fn chunk(&self, index: u64) -> u64 {
        index * (self.chunks / self.used) * CHUNK_BYTES
    }
}

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
        [what] if what == "sizes" => compare_sizes(&DEPTHS[..1]),
        [what] if what == "scale" => compare_sizes(&DEPTHS),
        [on, case, batch, count, chunks @ ..] => {
            let (case, ..) = CASES.iter().find(|c| c.1 == case).expect("a case");
            let number = |text: &String| text.parse().expect("a number");
            let size = chunks
                .first()
                .map_or(USUAL, |chunks| spread(number(chunks)));
            run(on == "disk", *case, number(batch), number(count), size);
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!("no arguments, `sizes` or `scale`: print a table");
            eprintln!("disk|bare CASE BATCH COUNT [CHUNKS]: run one case");
            ExitCode::from(2)
        }
    }
}

/// Counts every case and prints the table.
fn report() -> ExitCode {
    if is_slow() {
        return ExitCode::from(2);
    }
    println!("| operation | in flight | disk | bare device | **engine** | bar |");
    println!("| --- | ---: | ---: | ---: | ---: | ---: |");
    let mut broken = false;
    for (_, case, name, bars) in CASES {
        for (batch, bar) in [1, BATCH].into_iter().zip(bars) {
            let disk = instructions(&["disk", case], batch, COUNT, &[]);
            let bare = instructions(&["bare", case], batch, COUNT, &[]);
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

/// Counts every case on small and large disks, at each of these depths, and prints the table.
fn compare_sizes(depths: &[u64]) -> ExitCode {
    if is_slow() {
        return ExitCode::from(2);
    }
    println!("| operation | in flight | 1 GiB | 1 TiB | 16 TiB |");
    println!("| --- | ---: | ---: | ---: | ---: |");
    let mut is_flat = true;
    for (_, case, name, _) in CASES {
        for &depth in depths {
            let count = |chunks| instructions(&["disk", case], depth, COUNT_SIZES, &[chunks]);
            let [small, medium, large] = SIZES.map(count);
            is_flat &= medium.max(large) <= small + small * PERCENT_MORE / 100;
            println!("| {name} | {depth} | {small} | {medium} | {large} |");
        }
    }
    if !is_flat {
        eprintln!("a larger disk costs more");
        return ExitCode::FAILURE;
    }
    ExitCode::SUCCESS
}

/// Whether this build is not worth counting; says so.
fn is_slow() -> bool {
    if cfg!(debug_assertions) {
        eprintln!("this is a debug build: add --release");
    }
    cfg!(debug_assertions)
}

/// Instructions per operation: the difference of two runs, which go on side by side.
fn instructions(what: &[&str], batch: u64, count: u64, size: &[&str]) -> u64 {
    let run = |count: u64| {
        let numbers = [batch.to_string(), count.to_string()];
        let numbers = numbers.iter().map(String::as_str);
        let words = what.iter().copied().chain(numbers);
        collected(words.chain(size.iter().copied()))
    };
    let (once, twice) = std::thread::scope(|scope| {
        let once = scope.spawn(|| run(count));
        let twice = run(2 * count);
        (once.join().expect("a number"), twice)
    });
    (twice - once + count / 2) / count
}

/// Instructions of one run under valgrind.
fn collected<'a>(arguments: impl Iterator<Item = &'a str>) -> u64 {
    let program = std::env::current_exe().expect("this program has a path");
    let output = Command::new("valgrind")
        .args(["--tool=callgrind", "--callgrind-out-file=/dev/null"])
        .arg(program)
        .args(arguments)
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

fn run(on_disk: bool, case: Case, batch: u64, count: u64, size: Size) {
    let mut caller = Caller::new(size);
    if on_disk {
        let mut disk = disk(&size);
        let mapped = matches!(case, Case::MappedRead | Case::MappedWrite);
        for first in (0..if mapped { size.mapped } else { 0 }).step_by(BATCH as usize) {
            caller.first_writes(&mut disk, first, BATCH);
            caller.flushes(&mut disk, 1);
        }
        caller.operations(&mut disk, case, batch, count);
        let stats = disk.stats();
        assert_eq!(stats.protocol_errors, 0);
        println!("{stats:?}");
    } else {
        let mut device = Null::new(size.bytes());
        caller.operations(&mut device, case, batch, count);
    }
}

/// A disk with a table and no base. Its metadata is in RAM, since opening reads it; its data is
/// nowhere.
fn disk(size: &Size) -> Disk<Two<Ram, Null>> {
    let device_bytes = size.bytes() + 64 * CHUNK_BYTES;
    let header = plan_layout(&CreateParams {
        store: StoreChoice::FixedZeroed { device_bytes },
        external_data: true,
        journal: size.journal,
        ..CreateParams::new(size.bytes(), ImageId(*b"made at random!!"))
    })
    .expect("a legal image");
    let wait = |_| Instant::ZERO;
    // Table, checksums, free map: less than 6 bytes for each chunk.
    let grows = 6 * size.chunks as usize;
    let metadata = Ram::new(vec![0; (6 << 20) + grows].leak());
    let made = blocking::create(metadata, header, true, memory(CREATE_ARENA_BYTES), wait);
    made.result.expect("created");
    let stores = Two::new(made.device, Null::new(device_bytes));
    let options = OpenOptions {
        queue_depth: size.queue_depth,
        ..OpenOptions::DEFAULT
    };
    let opened = blocking::open(stores, options, memory((2 << 20) + grows), wait);
    opened.unwrap_or_else(|failure| panic!("{}", failure.error))
}

fn memory(bytes: usize) -> &'static mut [MaybeUninit<u8>] {
    let block = vec![MaybeUninit::uninit(); bytes + ARENA_ALIGN].leak();
    let skip = block.as_ptr().align_offset(ARENA_ALIGN);
    &mut block[skip..skip + bytes]
}

/// A guest with a fixed set of ops, each with its buffer, and ops for flushes.
struct Caller {
    size: Size,
    data: OpQueue,
    flush: OpQueue,
}

impl Caller {
    fn new(size: Size) -> Caller {
        let ops = 2 * DEPTH_MAX as u32;
        let mut arena = Arena::new(memory(OpPool::arena_bytes(ops as usize))).expect("aligned");
        let mut pool = OpPool::carve(&mut arena, ops).expect("room");
        let (mut data, mut flush) = (OpQueue::new(), OpQueue::new());
        for _ in 0..DEPTH_MAX {
            let buffer: &'static mut [u8] = vec![1; OPERATION_BYTES as usize].leak();
            let (_, lease) = Loan::new(buffer).expect("not empty");
            let mut op = pool.take(head(OpKind::Write, 0, 0)).expect("room");
            op.push(lease).expect("room");
            data.push_back(op);
            flush.push_back(pool.take(head(OpKind::Flush, 0, 0)).expect("room"));
        }
        Caller { size, data, flush }
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
        const IN_CHUNK: u64 = CHUNK_BYTES / OPERATION_BYTES;
        let size = self.size;
        let place = |index: u64| {
            let place = index.wrapping_mul(0x9E37_79B9) % (size.mapped * IN_CHUNK);
            size.chunk(place / IN_CHUNK) + place % IN_CHUNK * OPERATION_BYTES
        };
        let heads = (first..first + batch).map(|index| head(kind, place(index), OPERATION_BYTES));
        requests(device, &mut self.data, heads);
    }

    /// One write to each of the chunks from `first` on.
    fn first_writes<D: BlockDevice>(&mut self, device: &mut D, first: u64, batch: u64) {
        let size = self.size;
        let heads = (first..first + batch)
            .map(|index| head(OpKind::Write, size.chunk(index), OPERATION_BYTES));
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
