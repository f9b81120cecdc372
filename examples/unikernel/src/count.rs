//! Counts the instructions and the device operations of requests, on the disk and on the bare
//! device below it (see `cases`).
//!
//! What counts is what the CPU does for a request: submitting it, ringing the doorbell, and polling
//! when the device has finished everything that it was sent. Waiting for that does not count, and
//! neither does filling in the request and reading the clock, which a caller would do anyway.

use crate::agreed::{COUNTED, option};
use crate::arch::counter::Counter;
use crate::cases::{
    BASE_CHUNKS, BATCHES, BLOCK_BYTES, CHUNK_BYTES, Case, DISK_CHUNKS, MAPPED_CHUNKS,
    REQUEST_BYTES, ROW, ROWS_OF_CASE, WARM_UP,
};
use crate::disk::{self, Device, Disk};
use crate::platform::{BlockDevices, memory, start_info};
use core::ops::Range;
use fvd::buffer::{ARENA_ALIGN, Arena, Head, Loan, OpPool, OpQueue};
use fvd::device::{BlockDevice, OpKind, Status};
use fvd::open::OpenOptions;

const BATCH_MAX: usize = BATCHES[1] as usize;

/// Whether the command line asks for this work.
pub(crate) fn is_wanted() -> bool {
    start_info::options(option::COUNT).next().is_some()
}

/// Counts everything. The third disk is the bare device.
///
/// # Panics
///
/// If a request fails, or if the machine does not count instructions.
pub(crate) fn run(mut found: BlockDevices) {
    let Some(bare) = found.pop().filter(|_| found.len() == 2) else {
        panic!("three disks are needed: an FVD image, its base, and one to compare with");
    };
    let mut bare = disk::device(bare);
    assert!(
        bare.geometry().capacity_bytes >= DISK_CHUNKS * CHUNK_BYTES,
        "the third disk is too short"
    );
    let mut devices = disk::start(found);
    let options = OpenOptions {
        // Far enough at once that no first write below is the one that has to raise the zero floor.
        floor_step_chunks: DISK_CHUNKS as u32,
        ..OpenOptions::DEFAULT
    };
    let mut disk = disk::open_with(&mut devices, options);
    let mut caller = Caller::new();

    for chunk in BASE_CHUNKS..BASE_CHUNKS + MAPPED_CHUNKS {
        let head = data(OpKind::Write, chunk * CHUNK_BYTES);
        caller.batch(&mut disk, core::iter::once(head));
    }
    for case in Case::ALL {
        for (number, batch) in (0..).zip(BATCHES) {
            let row = Row {
                case,
                number,
                batch,
            };
            caller.row(&mut disk, "disk", row);
            caller.row(&mut bare, "bare", row);
        }
    }
    disk::close(disk);
}

/// Requests of a case, so many in flight together.
#[derive(Clone, Copy)]
struct Row {
    case: Case,
    /// Of the rows of this case, from 0.
    number: u64,
    batch: u64,
}

impl Row {
    /// Where a request goes.
    fn offset(&self, index: u64) -> u64 {
        // Far apart, whole requests.
        let scattered = index.wrapping_mul(0x9e37_79b9) % (1 << 32) * REQUEST_BYTES;
        let index = self.number * ROW + index;
        let first_chunk = BASE_CHUNKS + MAPPED_CHUNKS;
        match self.case {
            Case::BaseRead => scattered % (BASE_CHUNKS * CHUNK_BYTES),
            Case::MappedRead | Case::MappedWrite => {
                BASE_CHUNKS * CHUNK_BYTES + scattered % (MAPPED_CHUNKS * CHUNK_BYTES)
            }
            Case::FirstWrite => (first_chunk + index) * CHUNK_BYTES,
            Case::FirstWriteFlush => (first_chunk + ROWS_OF_CASE * ROW + index) * CHUNK_BYTES,
            // Not at the start of the block, so that there is something to copy on both sides.
            Case::CopyFlush => index * BLOCK_BYTES + 4 * REQUEST_BYTES,
        }
    }
}

/// What the counted requests are sent to.
trait Target: BlockDevice {
    /// The devices of the machine below.
    fn devices(&self) -> impl Iterator<Item = &Device>;

    /// Whether these have finished everything that they were sent.
    fn is_settled(&self) -> bool {
        self.devices()
            .map(Device::inner)
            .all(|device| device.completions_waiting() == device.in_flight())
    }

    fn is_idle(&self) -> bool {
        self.devices().all(|device| device.inner().in_flight() == 0)
    }
}

impl Target for Device {
    fn devices(&self) -> impl Iterator<Item = &Device> {
        core::iter::once(self)
    }
}

impl Target for Disk<'_> {
    fn devices(&self) -> impl Iterator<Item = &Device> {
        let (image, base) = self.stores().parts();
        [&*image.0, &**base].into_iter()
    }
}

/// Sends requests one batch after the other.
struct Caller {
    counter: Counter,
    /// Ops with a buffer each.
    data: OpQueue,
    /// The op of flushes.
    flush: OpQueue,
}

impl Caller {
    fn new() -> Caller {
        let count = BATCH_MAX + 1;
        let bytes = OpPool::arena_bytes(count).next_multiple_of(ARENA_ALIGN);
        let pool = Arena::new(disk::region(bytes))
            .ok()
            .and_then(|mut arena| OpPool::carve(&mut arena, count as u32));
        let Some(mut pool) = pool else {
            panic!("{bytes} bytes are too few for the requests");
        };
        let mut data = OpQueue::new();
        let mut flush = OpQueue::new();
        while let Some(mut op) = pool.take(Head::new(OpKind::Flush, 0, 0)) {
            if flush.is_empty() {
                flush.push_back(op);
                continue;
            }
            // Its buffer stays with it: nobody here looks at what is read.
            let lease = memory::take_zeroed(REQUEST_BYTES as usize)
                .and_then(|buffer| Loan::new(buffer).ok())
                .map(|(_, lease)| lease);
            let full = lease.is_none_or(|lease| op.push(lease).is_err());
            assert!(!full, "no memory left for requests");
            data.push_back(op);
        }
        Caller {
            counter: Counter::new(),
            data,
            flush,
        }
    }

    /// Counts the requests of a row and prints what came out.
    fn row<T: Target>(&mut self, target: &mut T, on: &str, row: Row) {
        self.flush(target);
        self.requests(target, row, 0..WARM_UP);
        let before = figures(target);
        self.counter.take();
        self.requests(target, row, WARM_UP..ROW);
        let instructions = self.counter.take();
        print!(
            "{COUNTED} case={} on={on} batch={} instructions={instructions}",
            row.case.name(),
            row.batch
        );
        for ((name, after), (_, before)) in figures(target).into_iter().zip(before) {
            print!(" {name}={}", after - before);
        }
        println!();
    }

    /// One batch after the other, each with its flush if the case has them.
    fn requests<T: Target>(&mut self, target: &mut T, row: Row, indices: Range<u64>) {
        let kind = if row.case.reads() {
            OpKind::Read
        } else {
            OpKind::Write
        };
        for first in indices.step_by(row.batch as usize) {
            let batch = first..first + row.batch;
            let heads = batch.map(|index| data(kind, row.offset(index)));
            self.batch(target, heads);
            if row.case.flushes() {
                self.flush(target);
            }
        }
    }

    fn batch<T: Target>(&mut self, target: &mut T, heads: impl Iterator<Item = Head>) {
        send(&mut self.counter, target, &mut self.data, heads);
    }

    fn flush<T: Target>(&mut self, target: &mut T) {
        let head = Head::new(OpKind::Flush, 0, 0);
        send(
            &mut self.counter,
            target,
            &mut self.flush,
            core::iter::once(head),
        );
    }
}

fn data(kind: OpKind, offset: u64) -> Head {
    Head::new(kind, offset, REQUEST_BYTES)
}

/// Sends an op for each head, rings once, and polls until all are back and the devices have nothing
/// left to do.
fn send<T: Target>(
    counter: &mut Counter,
    target: &mut T,
    ops: &mut OpQueue,
    heads: impl Iterator<Item = Head>,
) {
    let mut in_flight = 0;
    for head in heads {
        let Some(mut op) = ops.pop_front() else {
            panic!("more requests than ops");
        };
        op.set_head(head);
        if let Err(op) = counter.count(|| target.submit(op)) {
            panic!("{op:?} was refused: {:?}", op.status());
        }
        in_flight += 1;
    }
    counter.count(|| target.notify());
    while in_flight > 0 || !target.is_idle() {
        while !target.is_settled() {
            core::hint::spin_loop();
        }
        let now = disk::now();
        if let Some(op) = counter.count(|| target.poll(now)) {
            assert!(op.status() == Status::Done, "{op:?}: {:?}", op.status());
            ops.push_back(op);
            in_flight -= 1;
        }
    }
}

/// What was asked of the devices so far.
fn figures<T: Target>(target: &T) -> [(&'static str, u64); 9] {
    let mut counts = target.devices().map(Device::counts);
    let image = counts.next().unwrap_or_default();
    let base = counts.next().unwrap_or_default();
    let doorbells = target
        .devices()
        .map(|device| device.inner().stats().notifications);
    [
        ("reads", image.reads),
        ("read_bytes", image.read_bytes),
        ("writes", image.writes),
        ("write_bytes", image.write_bytes),
        ("flushes", image.flushes),
        (
            "others",
            image.operations() - image.reads - image.writes - image.flushes,
        ),
        ("base_reads", base.reads),
        ("base_read_bytes", base.read_bytes),
        ("doorbells", doorbells.sum()),
    ]
}
