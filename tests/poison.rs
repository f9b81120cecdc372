//! One device operation fails, each in turn: what is acknowledged afterwards, what reads, and what the
//! next session finds.

mod common;

use common::{BLOCK_BYTES, CHUNK_BYTES, Client, DISK_BYTES, Setup, result_of};
use fvd::device::{BlockDevice, DeviceError, FailNth, Fault, OpFlags, OpKind, Ram};
use fvd::open::OpenOptions;
use fvd::stores::{One, Stores, Two, WithBase};
use fvd::units::Instant;
use fvd::{Closed, Disk, blocking};

/// What a guest does, one step after the other. Blocks are numbered over the disk.
#[derive(Clone, Copy)]
enum Step {
    /// Writes a whole block.
    Write(u64),
    /// Writes a block and wants it durable.
    Fua(u64),
    Zero(u64),
    Flush,
    Checkpoint,
}

const BLOCKS_PER_CHUNK: u64 = CHUNK_BYTES / BLOCK_BYTES;

/// First writes, rewrites, zeros; single mappings and several; with and without a checkpoint between.
const STEPS: &[Step] = &[
    Step::Write(0),
    Step::Flush,
    Step::Write(0),
    Step::Write(1),
    Step::Write(BLOCKS_PER_CHUNK * 3),
    Step::Flush,
    Step::Fua(BLOCKS_PER_CHUNK * 9 + 2),
    Step::Checkpoint,
    Step::Write(BLOCKS_PER_CHUNK * 20),
    Step::Flush,
    Step::Zero(1),
    Step::Zero(BLOCKS_PER_CHUNK * 5),
    Step::Flush,
    Step::Write(1),
    Step::Fua(0),
    Step::Checkpoint,
    Step::Write(BLOCKS_PER_CHUNK * 40),
    Step::Flush,
    Step::Flush,
];

/// What a block may hold: the value of the last flush that was acknowledged, and all later ones.
#[derive(Clone)]
struct Block {
    may_hold: Vec<u8>,
    /// The last value whose write was acknowledged, if none failed since.
    reads: Option<u8>,
}

/// A guest and what it was promised.
struct Guest {
    client: Client,
    blocks: Vec<Block>,
    failed: usize,
    /// A write or a flush was answered `Poisoned`.
    poisoned: bool,
}

/// A value that no block has at first: steps are numbered from here.
const FIRST_VALUE: u8 = 100;

fn options() -> OpenOptions {
    OpenOptions {
        queue_depth: 4,
        part_ops: 8,
        pending_max: 16,
        scratch_blocks: 2,
        zero_memory_bytes: 4096,
        ..common::options()
    }
}

/// The base holds one value per block, so that one byte tells where a block is from.
fn base_value(block: u64) -> u8 {
    (block % 90) as u8 + 1
}

fn base() -> Ram {
    let memory = common::bytes(DISK_BYTES as usize, 0);
    for (block, bytes) in memory.chunks_mut(BLOCK_BYTES as usize).enumerate() {
        bytes.fill(base_value(block as u64));
    }
    Ram::new(memory).read_only()
}

impl Guest {
    fn new(setup: &Setup) -> Guest {
        let blocks = (0..DISK_BYTES / BLOCK_BYTES).map(|block| {
            let value = if setup.base_bytes == 0 {
                0
            } else {
                base_value(block)
            };
            Block {
                may_hold: vec![value],
                reads: Some(value),
            }
        });
        Guest {
            client: Client::new(2),
            blocks: blocks.collect(),
            failed: 0,
            poisoned: false,
        }
    }

    /// Runs one request; for a read, also its first byte, if all are the same.
    fn run<S: Stores>(
        &mut self,
        disk: &mut Disk<S>,
        kind: OpKind,
        flags: OpFlags,
        block: u64,
        value: u8,
    ) -> (Result<(), DeviceError>, Option<u8>) {
        let (offset, len) = if kind == OpKind::Flush {
            (0, 0)
        } else {
            (block * BLOCK_BYTES, BLOCK_BYTES)
        };
        let mut op = self.client.op(kind, flags, offset, len, 0);
        if matches!(kind, OpKind::Read | OpKind::Write) {
            op.push(common::lend(len as usize, value).1).expect("room");
        }
        let mut op = match disk.submit(op) {
            Err(op) => op,
            Ok(()) => (0..10_000)
                .find_map(|turn| disk.poll(Instant::from_micros(turn)))
                .expect("a request that never finishes"),
        };
        let mut bytes = [0; BLOCK_BYTES as usize];
        let read =
            op.copy_out(0, &mut bytes) == bytes.len() && bytes.iter().all(|b| *b == bytes[0]);
        let result = result_of(&op);
        while op.pop().is_some() {}
        self.client.put(op);
        (result, read.then_some(bytes[0]))
    }

    fn step<S: Stores>(&mut self, disk: &mut Disk<S>, step: Step, value: u8) {
        let fua = OpFlags::FUA;
        let (kind, flags, block, value) = match step {
            Step::Write(block) => (OpKind::Write, OpFlags::NONE, block, value),
            Step::Fua(block) => (OpKind::Write, fua, block, value),
            Step::Zero(block) => (OpKind::WriteZeroes, OpFlags::NONE, block, 0),
            Step::Flush => (OpKind::Flush, OpFlags::NONE, 0, 0),
            Step::Checkpoint => {
                disk.request_checkpoint();
                return (0..100).for_each(|_| assert!(disk.poll(Instant::ZERO).is_none()));
            }
        };
        let was_poisoned = disk.is_poisoned();
        let (result, _) = self.run(disk, kind, flags, block, value);
        self.failed += usize::from(result.is_err());
        if was_poisoned || self.poisoned {
            assert_eq!(result, Err(DeviceError::Poisoned), "law 9");
        }
        self.poisoned |= result == Err(DeviceError::Poisoned);
        if kind == OpKind::Flush {
            if result.is_ok() {
                self.blocks.iter_mut().for_each(Block::flushed);
            } else {
                assert!(disk.is_poisoned(), "a failed flush ends the promises");
            }
            return;
        }
        let block = &mut self.blocks[block as usize];
        block.may_hold.push(value);
        block.reads = result.is_ok().then_some(value);
        if flags == fua {
            block.flushed();
        }
    }

    /// Reads every block that was touched, and the one after it.
    fn check<S: Stores>(&mut self, disk: &mut Disk<S>, reopened: bool, context: &str) {
        for block in 0..self.blocks.len() as u64 {
            if block % BLOCKS_PER_CHUNK > 3 {
                continue;
            }
            let (result, read) = self.run(disk, OpKind::Read, OpFlags::NONE, block, 0xEE);
            assert_eq!(result, Ok(()), "{context}: block {block}");
            let read = read.expect("a block is written whole or not at all");
            let wanted = &self.blocks[block as usize];
            match wanted.reads {
                Some(value) if !reopened => assert_eq!(read, value, "{context}: block {block}"),
                _ => assert!(
                    wanted.may_hold.contains(&read),
                    "{context}: block {block} reads {read}, not one of {:?}",
                    wanted.may_hold
                ),
            }
        }
    }
}

impl Block {
    /// A flush was acknowledged: what a write before it was acknowledged with can not be lost.
    fn flushed(&mut self) {
        if let Some(value) = self.reads {
            self.may_hold = vec![value];
        }
    }
}

/// How a session ends.
#[derive(Clone, Copy, Debug)]
enum Ending {
    Close,
    Crash,
}

type Faulty = Fault<Ram, FailNth>;

/// The plan of the device that fails.
type PlanOf<S> = fn(&mut S) -> &mut FailNth;

const NONE: FailNth = FailNth::once(None, u64::MAX);

fn healthy(ram: Ram) -> Faulty {
    Fault::new(ram, NONE)
}

/// Runs the steps while one operation fails, closes, and opens what the devices hold. Returns whether
/// the fault struck, and how many requests failed.
fn session<S: Stores>(
    stores: S,
    setup: &Setup,
    plan_of: PlanOf<S>,
    (plan, eager_after_flushes, ending): (FailNth, u8, Ending),
) -> (bool, usize) {
    let context = format!("{setup:?} {plan:?} eager after {eager_after_flushes}, {ending:?}");
    let options = || OpenOptions {
        eager_after_flushes,
        ..options()
    };
    let mut guest = Guest::new(setup);
    let mut disk = common::open(stores, options());
    *plan_of(disk.stores_mut()) = plan;
    for (step, value) in STEPS.iter().zip(FIRST_VALUE..) {
        // A checkpoint would bring into place what the journal should have had.
        if !matches!((step, ending), (Step::Checkpoint, Ending::Crash)) {
            guest.step(&mut disk, *step, value);
        }
    }
    guest.check(&mut disk, false, &context);
    let poisoned = disk.is_poisoned();
    let mut closed = match ending {
        Ending::Close => blocking::close(disk, common::idle(), drop),
        Ending::Crash => crash(disk),
    };
    assert!(closed.memory.is_some(), "{context}: memory was lost");
    if poisoned {
        assert_eq!(closed.result, Err(DeviceError::Poisoned), "{context}");
    }
    if closed.result.is_ok() {
        guest.blocks.iter_mut().for_each(Block::flushed);
    }
    let struck = core::mem::replace(plan_of(&mut closed.stores), NONE).has_struck();
    let mut disk = common::open(closed.stores, options());
    guest.check(&mut disk, true, &context);
    common::close(disk);
    (struck, guest.failed)
}

/// Power fails at rest: what no flush covered may be there or not, and here it is.
fn crash<S: Stores>(disk: Disk<S>) -> Closed<S> {
    let mut closing = disk.abandon();
    while closing.poll(Instant::ZERO).is_pending() {}
    closing.finish().unwrap_or_else(|_| panic!("at rest"))
}

/// Lets the operations of each kind fail one after the other, until there is none left to fail; on a
/// disk that always sends the journal unit of a first write along, and on one that never does.
fn each_in_turn(mut session: impl FnMut((FailNth, u8, Ending)) -> (bool, usize)) {
    let runs = [(0, Ending::Close), (0, Ending::Crash), (255, Ending::Crash)];
    let kinds = [OpKind::Write, OpKind::Flush];
    for (kind, (eager, ending)) in kinds
        .into_iter()
        .flat_map(|kind| runs.map(|run| (kind, run)))
    {
        let mut failed = 0;
        let passed = (0..1000).find(|nth| {
            let (struck, failures) = session((FailNth::once(Some(kind), *nth), eager, ending));
            failed += failures;
            !struck
        });
        assert!(passed > Some(4), "only {passed:?} of {kind:?}");
        assert!(failed > 4, "device errors that nobody heard of");
    }
}

fn setup(base_bytes: u64, external: bool) -> Setup {
    Setup {
        table: true,
        base_bytes,
        external,
        used: false,
    }
}

#[test]
fn on_one_device() {
    for base_bytes in [0, DISK_BYTES] {
        let setup = setup(base_bytes, false);
        each_in_turn(|plan| {
            let stores = One(healthy(setup.devices().0));
            if base_bytes == 0 {
                session(stores, &setup, |One(store)| store.plan_mut(), plan)
            } else {
                let stores = WithBase::new(stores, base());
                session(stores, &setup, |s| s.parts_mut().0.0.plan_mut(), plan)
            }
        });
    }
}

#[test]
fn on_either_of_two_devices() {
    let plans: [PlanOf<Two<Faulty, Faulty>>; 2] = [
        |stores| stores.parts_mut().0.plan_mut(),
        |stores| stores.parts_mut().1.plan_mut(),
    ];
    for plan_of in plans {
        let setup = setup(0, true);
        each_in_turn(|plan| {
            let (metadata, data) = setup.devices();
            let stores = Two::new(healthy(metadata), healthy(data.expect("apart")));
            session(stores, &setup, plan_of, plan)
        });
    }
}
