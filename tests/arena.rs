//! The memory formula is exact, and every byte of the arena comes back.

mod common;

use std::mem::MaybeUninit;

use common::{BLOCK_BYTES, CHUNK_BYTES, Client, DISK_BYTES, Rng, Setup, idle, lend, memory};
use fvd::buffer::{ARENA_ALIGN, Op};
use fvd::create::CREATE_ARENA_BYTES;
use fvd::device::{BlockDevice, Geometry, Growth, Null, OpFlags, OpKind, Ram, When};
use fvd::format::{
    BaseParams, CreateParams, ImageId, JournalChoice, Limits, StoreChoice, plan_layout,
};
use fvd::open::{
    Layout, OpenError, OpenFailure, OpenOptions, Opening, PROBE_ARENA_BYTES, Probe, Probed,
};
use fvd::stores::{One, Stores, Two, WithBase};
use fvd::units::Instant;
use fvd::{Disk, blocking};

type Memory = &'static mut [MaybeUninit<u8>];

/// Where a block of memory lies and how long it is.
fn place(memory: &Memory) -> (usize, usize) {
    (memory.as_ptr().addr(), memory.len())
}

fn probe<S: Stores>(stores: S, options: OpenOptions) -> Probed<S> {
    let scratch = memory(PROBE_ARENA_BYTES);
    let was = place(&scratch);
    let mut probe = Probe::new(stores, scratch, options);
    while probe.poll(Instant::ZERO).is_pending() {}
    let probed = probe.finish().unwrap_or_else(|f| panic!("{}", f.error));
    let back = probed.memory.as_ref().map(place);
    assert_eq!(back, Some(was), "what the probe was lent");
    probed
}

fn open<S: Stores>(stores: S, layout: Layout, memory: Memory) -> Result<Disk<S>, OpenFailure<S>> {
    let mut opening = Opening::new(stores, layout, memory);
    let mut idle = idle();
    while opening.poll(Instant::ZERO).is_pending() {
        idle(When::Now);
    }
    opening.finish()
}

/// A refusal that keeps the memory; gives both back.
fn refused<S: Stores>(stores: S, layout: Layout, memory: Memory, wanted: OpenError) -> (S, Memory) {
    let was = place(&memory);
    let Err(failure) = open(stores, layout, memory) else {
        panic!("opened, but should say: {wanted}");
    };
    assert_eq!(failure.error, wanted);
    let memory = failure.memory.expect("the memory comes back");
    assert_eq!(place(&memory), was);
    (failure.stores, memory)
}

/// Opens in every amount of memory around the right one.
fn check<S: Stores>(stores: S, options: OpenOptions, extra: usize) {
    let probed = probe(stores, options);
    let layout = probed.layout;
    let needed = layout.arena_bytes();
    assert_eq!(layout.memory().total(), needed);

    let given = needed - 1;
    let error = OpenError::ArenaTooSmall { needed, given };
    let (stores, _) = refused(probed.stores, layout, memory(given), error);
    let (stores, _) = refused(
        stores,
        layout,
        memory(0),
        OpenError::ArenaTooSmall { needed, given: 0 },
    );
    let crooked = &mut memory(needed + ARENA_ALIGN)[64..];
    let (stores, _) = refused(stores, layout, crooked, OpenError::ArenaMisaligned);

    let exact = memory(needed);
    let was = place(&exact);
    let disk = open(stores, layout, exact).unwrap_or_else(|f| panic!("{}", f.error));
    assert_eq!(disk.arena_unused_bytes(), 0, "not one byte too many");
    let closed = blocking::close(disk, idle(), drop);
    assert_eq!(closed.result, Ok(()));
    assert_eq!(closed.memory.as_ref().map(place), Some(was));

    let ample = memory(needed + extra);
    let was = place(&ample);
    let disk = open(closed.stores, layout, ample).unwrap_or_else(|f| panic!("{}", f.error));
    assert_eq!(disk.arena_unused_bytes(), extra);
    let closed = blocking::close(disk, idle(), drop);
    assert_eq!(closed.memory.as_ref().map(place), Some(was));
}

/// Smallest, usual, odd, and out of range.
fn all_options() -> Vec<OpenOptions> {
    let usual = OpenOptions::DEFAULT;
    vec![
        usual,
        OpenOptions {
            read_only: true,
            ..usual
        },
        OpenOptions {
            queue_depth: 1,
            part_ops: 4,
            pending_max: 2,
            scratch_blocks: 2,
            zero_memory_bytes: 4096,
            ..usual
        },
        OpenOptions {
            queue_depth: 3,
            part_ops: 5,
            pending_max: 67,
            scratch_blocks: 3,
            zero_memory_bytes: 12 << 10,
            ..usual
        },
        OpenOptions {
            queue_depth: 0,
            part_ops: 0,
            pending_max: 0,
            scratch_blocks: 0,
            zero_memory_bytes: 1,
            floor_step_chunks: 0,
            ..usual
        },
        OpenOptions {
            queue_depth: 1000,
            part_ops: 3001,
            pending_max: u16::MAX,
            scratch_blocks: 17,
            zero_memory_bytes: (1 << 20) + 1,
            ..usual
        },
    ]
}

#[test]
fn the_formula_is_exact_for_every_set_up_and_option() {
    for setup in common::all_setups().into_iter().filter(|s| !s.used) {
        let (mut metadata, mut data) = setup.devices();
        let mut base = setup.base();
        for (index, options) in all_options().into_iter().enumerate() {
            let extra = index * 1000 + 1;
            let metadata = &mut metadata;
            let base = &mut base;
            match (data.as_mut(), setup.base_bytes != 0) {
                (None, false) => check(One(metadata), options, extra),
                (None, true) => check(WithBase::new(One(metadata), base), options, extra),
                (Some(data), false) => check(Two::new(metadata, data), options, extra),
                (Some(data), true) => {
                    let stores = WithBase::new(Two::new(metadata, data), base);
                    check(stores, options, extra);
                }
            }
        }
    }
}

/// A device that says it can grow.
struct Growing(Null, u64);

impl BlockDevice for Growing {
    fn geometry(&self) -> Geometry {
        Geometry {
            growth: Some(Growth {
                unit_bytes: 1 << 20,
                max_bytes: self.1,
                zeroed: true,
            }),
            ..self.0.geometry()
        }
    }

    fn submit(&mut self, op: Op) -> Result<(), Op> {
        self.0.submit(op)
    }

    fn poll(&mut self, now: Instant) -> Option<Op> {
        self.0.poll(now)
    }

    fn poll_at(&self) -> When {
        self.0.poll_at()
    }
}

/// Any legal image of up to 64 GiB whose data is on another device.
fn random_params(rng: &mut Rng) -> CreateParams {
    let block_bytes = 4096 << rng.below(6);
    let chunk_bytes = block_bytes << rng.below(5);
    let most = [20, 3000, 70_000][rng.below(3) as usize];
    let chunks = 1 + rng.below(most);
    let virtual_bytes = (chunks * chunk_bytes - rng.below(chunk_bytes / 512) * 512).min(64 << 30);
    let base_bytes = rng.below(2 * virtual_bytes / 512) * 512;
    let device_bytes = (chunks + rng.below(9)) * chunk_bytes;
    CreateParams {
        block_bytes,
        chunk_bytes,
        table: rng.below(3) != 0,
        base: (rng.below(2) == 0).then(|| BaseParams {
            name: Default::default(),
            format: Default::default(),
            bytes: base_bytes,
            id: [0; 16],
            generation: 0,
        }),
        journal: JournalChoice::Auto,
        atomic_unit: 512 << rng.below(4),
        store: StoreChoice::FixedZeroed { device_bytes },
        external_data: true,
        limits: Limits::FORMAT,
        ..CreateParams::new(virtual_bytes, ImageId([3; 16]))
    }
}

#[test]
fn the_formula_is_exact_for_random_images() {
    let seed = 0xA12E_4A00;
    let (mut rng, mut opened) = (Rng(seed), 0);
    for turn in 0..300 {
        let params = random_params(&mut rng);
        let header = plan_layout(&params).unwrap_or_else(|e| panic!("turn {turn}: {e:?}"));
        let bytes = header.metadata_bytes().total() + (64 << 10);
        let mut metadata = Ram::new(common::bytes(bytes as usize, 0));
        let created = blocking::create(
            &mut metadata,
            header,
            true,
            memory(CREATE_ARENA_BYTES),
            idle(),
        );
        created
            .result
            .unwrap_or_else(|e| panic!("turn {turn}: {e}"));
        let options = all_options()[rng.below(6) as usize];
        let grown = header.store_bytes + rng.below(100) * params.chunk_bytes;
        let data = Growing(Null::new(header.store_bytes), grown);
        let stores = Two::new(metadata, data);
        let extra = rng.below(9000) as usize;
        if let Some(base) = params.base {
            check(WithBase::new(stores, Null::new(base.bytes)), options, extra);
        } else {
            check(stores, options, extra);
        }
        opened += 1;
    }
    assert_eq!(opened, 300, "seed {seed:#x}");
}

/// Some work, so that everything that can be out is out: copies, zeros, parts, pending mappings.
fn work<S: Stores>(disk: &mut Disk<S>, client: &mut Client, rng: &mut Rng) {
    let mut flying = 0;
    for tag in 0..24 {
        let kind = [
            OpKind::Write,
            OpKind::WriteZeroes,
            OpKind::Read,
            OpKind::Flush,
        ][[0, 0, 0, 1, 2, 3][rng.below(6) as usize]];
        let (offset, len) = if kind == OpKind::Flush {
            (0, 0)
        } else {
            let len = 512 * (1 + rng.below(3 * CHUNK_BYTES / 512));
            (rng.below((DISK_BYTES - len) / 512) * 512, len)
        };
        let op = if matches!(kind, OpKind::Write | OpKind::Read) {
            let (_, lease) = lend(len as usize, 0xC3);
            client.data_op(kind, offset, lease, tag)
        } else {
            client.op(kind, OpFlags::NONE, offset, len, tag)
        };
        match disk.submit(op) {
            Ok(()) => flying += 1,
            Err(op) => give_back(client, op),
        }
        if rng.below(3) == 0
            && let Some(op) = disk.poll(Instant::ZERO)
        {
            give_back(client, op);
            flying -= 1;
        }
    }
    assert!(flying > 0, "something is in flight when the disk ends");
}

fn give_back(client: &mut Client, mut op: Op) {
    while let Some(lease) = op.pop() {
        drop(lease);
    }
    client.put(op);
}

#[test]
fn nothing_leaks_over_many_sessions_in_the_same_memory() {
    let setup = Setup {
        table: true,
        base_bytes: DISK_BYTES / 2 + 1536,
        external: false,
        used: true,
    };
    let (metadata, _) = setup.devices();
    let base = setup.base();
    let mut stores = WithBase::new(One(metadata), base);
    let options = OpenOptions {
        queue_depth: 16,
        part_ops: 8,
        scratch_blocks: 2,
        zero_memory_bytes: BLOCK_BYTES as u32,
        ..common::options()
    };
    let probed = probe(stores, options);
    stores = probed.stores;
    let mut memory = memory(probed.layout.arena_bytes().max(PROBE_ARENA_BYTES));
    let was = place(&memory);
    let (mut client, mut rng) = (Client::new(64), Rng(0x1EA4));
    for session in 0..200 {
        let opened = blocking::open(stores, options, memory, idle());
        let mut disk = opened.unwrap_or_else(|f| panic!("session {session}: {}", f.error));
        work(&mut disk, &mut client, &mut rng);
        let mut closing = if session % 3 == 0 {
            disk.abandon()
        } else {
            disk.close()
        };
        let mut idle = idle();
        let closed = loop {
            let ready = closing.poll(Instant::ZERO).is_ready();
            while let Some(op) = closing.reap() {
                give_back(&mut client, op);
            }
            match closing.finish() {
                Ok(closed) => break closed,
                Err(again) => closing = again,
            }
            assert!(!ready, "session {session}: ready, but does not finish");
            idle(When::Now);
        };
        stores = closed.stores;
        memory = closed.memory.expect("all of it comes back");
        assert_eq!(place(&memory), was, "session {session}");
    }
}

/// The way that `blocking::open` documents: try, and learn how much is needed.
#[test]
fn a_refusal_says_what_is_enough() {
    let setup = Setup {
        table: true,
        base_bytes: 0,
        external: false,
        used: false,
    };
    let (metadata, _) = setup.devices();
    let tried = blocking::open(
        One(metadata),
        common::options(),
        memory(PROBE_ARENA_BYTES),
        idle(),
    );
    let Err(failure) = tried else {
        panic!("too little memory is enough");
    };
    let OpenError::ArenaTooSmall { needed, given } = failure.error else {
        panic!("{}", failure.error);
    };
    assert_eq!(given, PROBE_ARENA_BYTES);
    let again = blocking::open(failure.stores, common::options(), memory(needed), idle());
    assert!(again.is_ok());
}
