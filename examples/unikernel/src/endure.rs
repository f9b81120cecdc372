//! What the kernel does until somebody kills the machine: checks that the disk holds everything that
//! was flushed before the last time, and sends on (see `promise`).
//!
//! Invariants:
//! 1. A request is sent only after the line was printed that says so (`limit`), and nothing is said
//!    to be durable before it is.
//! 2. Requests are sent in the order of their numbers. One that touches a sector of another in flight
//!    waits, and so do all after it.

use crate::agreed::{event, option};
use crate::disk::{self, Disk};
use crate::platform::{BlockDevices, memory, start_info};
use crate::promise::{DISK_SECTORS, Kind, Ledger, Request, SECTOR_BYTES, SIZES, Sector, Value};
use core::ops::Range;
use fvd::buffer::{ARENA_ALIGN, Arena, Head, Loan, Op, OpPool};
use fvd::device::{BlockDevice, OpFlags, OpKind, Status};
use heapless::Vec;

const DEPTH: usize = SIZES.len();

/// So many requests apart a flush is sent among the others.
const FLUSH_INTERVAL: u32 = 12;

/// So many requests are announced at a time.
const LIMIT_STEP: u32 = 256;

/// The tag of flushes. Other tags are numbers of requests.
const FLUSH_TAG: u64 = u64::MAX;

static SECTORS: spin::Mutex<[Sector; DISK_SECTORS as usize]> = spin::Mutex::new(
    [Sector {
        durable: None,
        zeroed: None,
    }; DISK_SECTORS as usize],
);

/// The requests to send, if the command line asks for this work.
pub(crate) fn wanted() -> Option<Range<u32>> {
    start_info::options(option::LOAD).next().map(range)
}

/// Reads `from+count`.
fn range(word: &str) -> Range<u32> {
    let parsed = word.split_once('+').and_then(|(from, count)| {
        let from: u32 = from.parse().ok()?;
        Some(from..from.checked_add(count.parse().ok()?)?)
    });
    match parsed {
        Some(range) => range,
        None => panic!("not a range of requests: {word}"),
    }
}

/// Verifies the disk, sends the requests, and closes it.
///
/// # Panics
///
/// If something is missing that was flushed, or if a request fails.
pub(crate) fn run(devices: BlockDevices, seed: u64, numbers: Range<u32>) {
    let mut devices = disk::start(devices);
    println!("{}", event::OPENING);
    let disk = disk::open(&mut devices);
    println!("{}", event::OPENED);
    let disk = verify(disk, seed, numbers.start);
    let disk = Load::new(disk, seed, numbers).run();
    println!("{}", event::CLOSING);
    disk::close(disk);
    println!("{}", event::CLOSED);
}

/// Reads every sector and holds it against the requests before `end`.
fn verify(disk: Disk<'_>, seed: u64, end: u32) -> Disk<'_> {
    let Some(piece) = memory::take_zeroed(256 * SECTOR_BYTES) else {
        panic!("no memory left to read into");
    };
    let mut sectors = SECTORS.lock();
    let mut ledger = Ledger::new(seed, end, &mut *sectors);
    for word in start_info::options(option::DURABLE) {
        ledger.add_durable(range(word));
    }
    let mut disk = disk::waiting(disk);
    let mut number = 0;
    while number < DISK_SECTORS {
        if let Err(error) = disk.read_at(u64::from(number) * SECTOR_BYTES as u64, piece) {
            panic!("cannot read sector {number}: {error}");
        }
        for sector in piece.chunks(SECTOR_BYTES) {
            if let Err(fault) = ledger.check(number, sector) {
                panic!("{fault}");
            }
            number += 1;
        }
    }
    println!("{}", event::VERIFIED);
    let (disk, _memory) = disk.into_parts();
    disk
}

/// A request at rest, or what stays here of one that the disk has.
struct Slot {
    op: Option<Op>,
    buffer: Option<&'static mut [u8]>,
    loan: Option<Loan<&'static mut [u8]>>,
    in_flight: Option<(u32, Request)>,
}

struct Load<'d> {
    disk: Disk<'d>,
    seed: u64,
    numbers: Range<u32>,
    limit: u32,
    slots: Vec<Slot, DEPTH>,
    flush: Option<Op>,
    /// Everything below was done when the flush in flight was sent.
    flush_covers: u32,
}

impl<'d> Load<'d> {
    fn new(disk: Disk<'d>, seed: u64, numbers: Range<u32>) -> Load<'d> {
        let bytes = OpPool::arena_bytes(DEPTH + 1).next_multiple_of(ARENA_ALIGN);
        let pool = Arena::new(disk::region(bytes))
            .ok()
            .and_then(|mut arena| OpPool::carve(&mut arena, DEPTH as u32 + 1));
        let Some(mut pool) = pool else {
            panic!("{bytes} bytes are too few for the requests");
        };
        let mut slots = Vec::new();
        for sectors in SIZES {
            let slot = Slot {
                op: pool.take(Head::new(OpKind::Flush, 0, 0)),
                buffer: memory::take_zeroed(sectors as usize * SECTOR_BYTES),
                loan: None,
                in_flight: None,
            };
            assert!(slot.buffer.is_some(), "no memory left for requests");
            // It has as many places as the loop has turns.
            let _ = slots.push(slot);
        }
        Load {
            disk,
            seed,
            limit: numbers.start,
            flush_covers: numbers.start,
            numbers,
            slots,
            flush: pool.take(Head::new(OpKind::Flush, 0, 0)),
        }
    }

    fn run(mut self) -> Disk<'d> {
        loop {
            self.send_flush();
            while self.send_next() {}
            self.disk.notify();
            let at_rest = self.slots.iter().all(|slot| slot.in_flight.is_none());
            if at_rest && self.flush.is_some() && self.numbers.is_empty() {
                return self.disk;
            }
            match self.disk.poll(disk::now()) {
                Some(op) => self.receive(op),
                None => {
                    disk::idle(self.disk.poll_at());
                }
            }
        }
    }

    /// Everything below this number is done.
    fn done_below(&self) -> u32 {
        let in_flight = self.slots.iter().filter_map(|slot| slot.in_flight);
        let oldest = in_flight.map(|(number, _)| number).min();
        oldest.unwrap_or(self.numbers.start)
    }

    /// Sends a flush if one is due and none is in flight.
    fn send_flush(&mut self) {
        let covers = self.done_below();
        if covers < self.flush_covers + FLUSH_INTERVAL {
            return;
        }
        if let Some(mut op) = self.flush.take() {
            self.flush_covers = covers;
            op.set_head(Head {
                tag: FLUSH_TAG,
                ..Head::new(OpKind::Flush, 0, 0)
            });
            self.submit(op);
        }
    }

    /// Sends one more request. False if there is none, or none that can be sent now.
    fn send_next(&mut self) -> bool {
        let number = self.numbers.start;
        let request = Request::numbered(self.seed, number);
        let overlaps = |slot: &Slot| {
            slot.in_flight.is_some_and(|(_, other)| {
                request.sector < other.sectors().end && other.sector < request.sectors().end
            })
        };
        if self.numbers.is_empty() || self.slots.iter().any(overlaps) {
            return false;
        }
        let index = number as usize % DEPTH;
        if self.slots[index].in_flight.is_some() {
            return false;
        }
        if number >= self.limit {
            self.limit = number + LIMIT_STEP;
            println!("{} {}", event::LIMIT, self.limit);
        }
        self.numbers.start += 1;
        let op = self.prepare(index, number, request);
        self.submit(op);
        true
    }

    /// Makes the op of a request from the slot at `index`.
    fn prepare(&mut self, index: usize, number: u32, request: Request) -> Op {
        let slot = &mut self.slots[index];
        let (Some(mut op), Some(buffer)) = (slot.op.take(), slot.buffer.take()) else {
            panic!("a slot at rest without its op or its buffer");
        };
        slot.in_flight = Some((number, request));
        let (kind, flags) = match request.kind {
            Kind::Write => (OpKind::Write, OpFlags::NONE),
            Kind::FuaWrite => (OpKind::Write, OpFlags::FUA),
            Kind::Zeroes => (OpKind::WriteZeroes, OpFlags::NONE),
        };
        let offset = u64::from(request.sector) * SECTOR_BYTES as u64;
        op.set_head(Head {
            tag: u64::from(number),
            ..Head::new(kind, offset, buffer.len() as u64).with_flags(flags)
        });
        if kind == OpKind::WriteZeroes {
            slot.buffer = Some(buffer);
            return op;
        }
        let value = Value::of_request(number);
        let sectors = buffer.chunks_mut(SECTOR_BYTES);
        for (sector, content) in request.sectors().zip(sectors) {
            value.fill(self.seed, sector, content);
        }
        let Ok((loan, lease)) = Loan::new(buffer) else {
            panic!("a buffer that cannot be lent");
        };
        slot.loan = Some(loan);
        if op.push(lease).is_err() {
            panic!("an op at rest had leases");
        }
        op
    }

    /// Hands an op to the disk, which has room for it: it takes 64 at once.
    fn submit(&mut self, op: Op) {
        if let Err(op) = self.disk.submit(op) {
            panic!("{op:?} was refused: {:?}", op.status());
        }
    }

    /// Takes a completed request back and says what became durable by it.
    fn receive(&mut self, mut op: Op) {
        assert!(op.status() == Status::Done, "{op:?}: {:?}", op.status());
        if op.tag() == FLUSH_TAG {
            self.flush = Some(op);
            println!("{} {}", event::FLUSHED, self.flush_covers);
            return;
        }
        let slot = &mut self.slots[op.tag() as usize % DEPTH];
        if let (Some(loan), Some(lease)) = (slot.loan.take(), op.pop()) {
            slot.buffer = loan.redeem(lease).ok();
        }
        assert!(
            slot.buffer.is_some(),
            "a request came home without its buffer"
        );
        slot.op = Some(op);
        if let Some((number, request)) = slot.in_flight.take()
            && request.kind == Kind::FuaWrite
        {
            println!("{} {number}", event::DURABLE);
        }
    }
}
