//! Random reads and writes over every set-up, with completions in any order, against a model.

mod common;

use common::{Client, DISK_BYTES, Rng, SECRET, Setup, Shuffled, all_setups, result_of};
use fvd::buffer::{Lease, LentOp, Op};
use fvd::device::{BlockDevice, OpFlags, OpKind, Ram};
use fvd::stores::{One, Stores, Two, WithBase};
use fvd::units::Instant;

/// Operations over all set-ups together. The number is a promise of the project.
const OPERATIONS: u64 = 1_000_000;

const SECTOR: u64 = 512;
const LONGEST_SECTORS: u64 = 128;

/// One request in flight: its range and, for a read, the model's bytes when it was submitted.
struct Flight {
    op_kind: OpKind,
    start: u64,
    end: u64,
    expected: Vec<u8>,
}

struct Run<D> {
    disk: D,
    model: Vec<u8>,
    client: Client,
    rng: Rng,
    flights: Vec<Option<Flight>>,
    /// Each slot's buffer: at home, or lent in parts.
    leases: Vec<Option<Lease>>,
    lenders: Vec<Option<LentOp>>,
    in_flight: usize,
    now: u64,
}

impl<D: BlockDevice> Run<D> {
    fn new(disk: D, model: Vec<u8>, seed: u64) -> Run<D> {
        let depth = 32;
        let leases = (0..depth).map(|_| {
            let (_, lease) = common::lend((LONGEST_SECTORS * SECTOR) as usize, 0xC7);
            Some(lease)
        });
        Run {
            disk,
            model,
            client: Client::new(2 * depth as u32),
            rng: Rng(seed),
            flights: (0..depth).map(|_| None).collect(),
            leases: leases.collect(),
            lenders: (0..depth).map(|_| None).collect(),
            in_flight: 0,
            now: 0,
        }
    }

    /// Requests that overlap have no defined outcome unless both read, so the test keeps them apart.
    fn overlaps(&self, kind: OpKind, start: u64, end: u64) -> bool {
        self.flights.iter().flatten().any(|other| {
            let both_read = kind == OpKind::Read && other.op_kind == OpKind::Read;
            !both_read && start < other.end && other.start < end
        })
    }

    fn submit_one(&mut self, depth: usize) {
        let Some(slot) = (0..depth).find(|slot| self.flights[*slot].is_none()) else {
            return;
        };
        let dice = self.rng.below(100);
        let kind = match dice {
            0..=44 => OpKind::Read,
            45..=94 => OpKind::Write,
            95..=97 => OpKind::WriteZeroes,
            _ => OpKind::Flush,
        };
        // Mostly short, sometimes long, so that every mix of partial and whole blocks occurs.
        let longest = if self.rng.below(8) == 0 {
            LONGEST_SECTORS
        } else {
            12
        };
        let sectors = 1 + self.rng.below(longest);
        let start = self.rng.below(DISK_BYTES / SECTOR - sectors) * SECTOR;
        let end = start + sectors * SECTOR;
        if kind != OpKind::Flush && self.overlaps(kind, start, end) {
            return;
        }
        let (start, end) = if kind == OpKind::Flush {
            (0, 0)
        } else {
            (start, end)
        };
        let op = self.prepare(slot, kind, start, end);
        match self.disk.submit(op) {
            Ok(()) => self.in_flight += 1,
            Err(op) => panic!("refused: {:?} {:?}", op.head(), result_of(&op)),
        }
    }

    fn prepare(&mut self, slot: usize, kind: OpKind, start: u64, end: u64) -> Op {
        let (range, len) = (start as usize..end as usize, end - start);
        let fua = if kind == OpKind::Write && self.rng.below(50) == 0 {
            OpFlags::FUA
        } else {
            OpFlags::NONE
        };
        let mut op = self.client.op(kind, fua, start, len, slot as u64);
        let mut expected = Vec::new();
        if matches!(kind, OpKind::Read | OpKind::Write) {
            self.push_leases(slot, &mut op, len);
        }
        match kind {
            OpKind::Read => {
                op.fill(0, len, 0xEE);
                expected = self.model[range].to_vec();
            }
            OpKind::Write => {
                let stamp = self.rng.next().to_le_bytes();
                for (index, byte) in self.model[range.clone()].iter_mut().enumerate() {
                    *byte = stamp[index % 8] ^ (index / 8) as u8;
                }
                op.copy_in(0, &self.model[range]);
            }
            OpKind::WriteZeroes => self.model[range].fill(0),
            _ => {}
        }
        self.flights[slot] = Some(Flight {
            op_kind: kind,
            start,
            end,
            expected,
        });
        op
    }

    /// One to four leases of whole sectors, cut from the slot's buffer.
    fn push_leases(&mut self, slot: usize, op: &mut Op, len: u64) {
        let whole = self.leases[slot].take().expect("at home");
        let mut holder = self.client.op(OpKind::Flush, OpFlags::NONE, 0, 0, 0);
        holder.push(whole).expect("room");
        let mut lent = holder.lend();
        let mut left = len;
        for part in (0..4).rev() {
            if left == 0 {
                break;
            }
            let sectors = left / SECTOR;
            let take = if part == 0 {
                left
            } else {
                (1 + self.rng.below(sectors)) * SECTOR
            };
            op.push(lent.cut(take as usize).expect("fits"))
                .expect("room");
            left -= take;
        }
        self.lenders[slot] = Some(lent);
    }
    fn reap(&mut self) -> bool {
        self.now += 1;
        let Some(mut op) = self.disk.poll(Instant::from_micros(self.now)) else {
            return false;
        };
        let slot = op.tag() as usize;
        let flight = self.flights[slot].take().expect("in flight");
        assert_eq!(
            result_of(&op),
            Ok(()),
            "{:?} {}..{}",
            flight.op_kind,
            flight.start,
            flight.end
        );
        if flight.op_kind == OpKind::Read {
            let mut got = vec![0; flight.expected.len()];
            op.copy_out(0, &mut got);
            if let Some(at) = (0..got.len()).find(|at| got[*at] != flight.expected[*at]) {
                let (got, wanted) = (got[at], flight.expected[at]);
                panic!(
                    "byte {} reads {got:#x}, not {wanted:#x}",
                    flight.start as usize + at
                );
            }
            assert!(!got.iter().all(|byte| *byte == SECRET) || flight.expected.contains(&SECRET));
        }
        while let Some(part) = op.pop() {
            self.lenders[slot]
                .as_mut()
                .expect("lent")
                .give(part)
                .expect("its own part");
        }
        if let Some(lent) = self.lenders[slot].take() {
            let mut holder = lent
                .try_whole()
                .unwrap_or_else(|_| panic!("all parts are back"));
            self.leases[slot] = holder.pop();
            self.client.put(holder);
        }
        self.client.put(op);
        self.in_flight -= 1;
        true
    }

    fn run(&mut self, operations: u64) {
        let mut done = 0;
        while done < operations {
            let depth = 1 + self.rng.below(32) as usize;
            for _ in 0..64 {
                while self.in_flight < depth {
                    let before = self.in_flight;
                    self.submit_one(depth);
                    if self.in_flight == before {
                        break;
                    }
                }
                done += u64::from(self.reap());
            }
        }
        while self.in_flight > 0 {
            self.reap();
        }
    }
}

fn exercise<S: Stores>(stores: S, setup: &Setup, operations: u64, seed: u64) {
    let disk = common::open(stores, common::options());
    let mut run = Run::new(disk, setup.initial_bytes(), seed);
    run.run(operations);
    let Run { disk, model, .. } = run;
    // Open again: the same bytes, twice, the second time after more writes.
    let stores = common::close(disk);
    let mut again = Run::new(common::open(stores, common::options()), model, seed ^ 1);
    again.run(operations / 8);
    let Run { disk, model, .. } = again;
    let stores = common::close(disk);
    let options = fvd::open::OpenOptions {
        read_only: true,
        ..common::options()
    };
    let disk = common::open(stores, options);
    let memory = common::memory(1 << 20);
    let mut blocking = fvd::blocking::Blocking::new(disk, memory, common::idle())
        .unwrap_or_else(|_| panic!("room"));
    let mut all = vec![0; DISK_BYTES as usize];
    blocking.read_at(0, &mut all).expect("reads");
    assert!(all == model, "{setup:?}: differs after opening again");
}

/// Images per set-up: the paths for first writes matter most, and a disk fills up quickly.
const ROUNDS: u64 = 4;

#[test]
fn a_million_random_requests_agree_with_a_model_on_every_setup() {
    let setups = all_setups();
    let share = OPERATIONS / (setups.len() as u64 * ROUNDS) + 1;
    for (index, setup) in setups.iter().enumerate() {
        for round in 0..ROUNDS {
            one_image(setup, share, 0xF0D + index as u64 * ROUNDS + round);
        }
    }
}

fn one_image(setup: &Setup, share: u64, seed: u64) {
    let (metadata, data) = setup.devices();
    let shuffled = |ram: Ram, salt: u64| Shuffled::new(ram, seed ^ salt);
    let base = || Shuffled::new(setup.base(), seed ^ 3);
    let metadata = shuffled(metadata, 1);
    match (data, setup.base_bytes != 0) {
        (None, false) => exercise(One(metadata), setup, share, seed),
        (None, true) => exercise(WithBase::new(One(metadata), base()), setup, share, seed),
        (Some(data), false) => {
            exercise(Two::new(metadata, shuffled(data, 2)), setup, share, seed);
        }
        (Some(data), true) => {
            let stores = Two::new(metadata, shuffled(data, 2));
            exercise(WithBase::new(stores, base()), setup, share, seed);
        }
    }
}
