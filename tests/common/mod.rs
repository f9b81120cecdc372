//! What the integration tests share: memory, devices, small images of every set-up.
#![allow(dead_code)] // each test file uses a part

pub(crate) mod gate;
pub(crate) mod guest;
pub(crate) mod tamper;

use std::mem::MaybeUninit;

use fvd::blocking;
use fvd::buffer::{Arena, Head, Lease, Loan, Op, OpPool};
use fvd::create::CREATE_ARENA_BYTES;
use fvd::device::{BlockDevice, DeviceError, Geometry, OpFlags, OpKind, Ram, Status, When};
use fvd::format::{
    BaseParams, CreateParams, Header, ImageId, JournalChoice, Limits, StoreChoice, plan_layout,
};
use fvd::open::{OpenOptions, Opening, Probe};
use fvd::stores::Stores;
use fvd::units::Instant;
use fvd::{Closed, Disk};

/// Memory that is never given back, aligned as arenas must be.
pub(crate) fn memory(bytes: usize) -> &'static mut [MaybeUninit<u8>] {
    aligned(vec![MaybeUninit::uninit(); bytes + ALIGN].leak(), bytes)
}

/// The same, filled.
pub(crate) fn bytes(len: usize, value: u8) -> &'static mut [u8] {
    aligned(vec![value; len + ALIGN].leak(), len)
}

const ALIGN: usize = fvd::buffer::ARENA_ALIGN;

fn aligned<T>(memory: &'static mut [T], len: usize) -> &'static mut [T] {
    let skip = memory.as_ptr().addr().next_multiple_of(ALIGN) - memory.as_ptr().addr();
    &mut memory[skip..skip + len]
}

/// A clock that stands still and an idle that gives up when nothing can happen any more.
pub(crate) fn idle() -> impl FnMut(When) -> Instant {
    let mut turns = 0u64;
    move |_| {
        turns += 1;
        assert!(turns < 50_000_000, "waits for ever");
        Instant::ZERO
    }
}

/// A small deterministic generator (splitmix64).
#[derive(Clone)]
pub(crate) struct Rng(pub(crate) u64);

impl Rng {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit.max(1)
    }
}

/// Completes in random order: collects what the inner device finished and returns any of it.
pub(crate) struct Shuffled<D> {
    pub(crate) inner: D,
    held: Vec<Op>,
    rng: Rng,
}

impl<D> Shuffled<D> {
    pub(crate) fn new(inner: D, seed: u64) -> Shuffled<D> {
        Shuffled {
            inner,
            held: Vec::new(),
            rng: Rng(seed),
        }
    }
}

impl<D: BlockDevice> BlockDevice for Shuffled<D> {
    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn submit(&mut self, op: Op) -> Result<(), Op> {
        self.inner.submit(op)
    }

    fn notify(&mut self) {
        self.inner.notify();
    }

    fn poll(&mut self, now: Instant) -> Option<Op> {
        while let Some(op) = self.inner.poll(now) {
            self.held.push(op);
        }
        // Sometimes nothing is ready, so that requests overlap.
        if self.held.is_empty() || self.rng.below(3) == 0 {
            return None;
        }
        let index = self.rng.below(self.held.len() as u64) as usize;
        Some(self.held.swap_remove(index))
    }

    fn poll_at(&self) -> When {
        When::Now
    }
}

/// One of the set-ups of the test matrix.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Setup {
    pub(crate) table: bool,
    /// Bytes of the base, 0 = none.
    pub(crate) base_bytes: u64,
    pub(crate) external: bool,
    /// Whether the store held something before.
    pub(crate) used: bool,
}

/// Thin, without a base, on one new device.
pub(crate) const TABLE: Setup = Setup {
    table: true,
    base_bytes: 0,
    external: false,
    used: false,
};
/// The same without a table: like a raw disk.
pub(crate) const RAW: Setup = Setup {
    table: false,
    ..TABLE
};

pub(crate) const DISK_BYTES: u64 = 1 << 20;
pub(crate) const BLOCK_BYTES: u64 = 4096;
pub(crate) const CHUNK_BYTES: u64 = 16 << 10;
/// Extra chunks of the store beyond what the disk can map.
pub(crate) const SPARE_CHUNKS: u64 = 8;
pub(crate) const SECRET: u8 = 0x5E;

/// Every set-up: table, base (none, shorter with a ragged end, equal, longer), data apart, used store.
pub(crate) fn all_setups() -> Vec<Setup> {
    let mut all = Vec::new();
    for table in [false, true] {
        for base_bytes in [0, DISK_BYTES / 2 + 1536, DISK_BYTES, DISK_BYTES * 2] {
            for external in [false, true] {
                for used in [false, true] {
                    all.push(Setup {
                        table,
                        base_bytes,
                        external,
                        used,
                    });
                }
            }
        }
    }
    all
}

impl Setup {
    pub(crate) fn params(&self) -> CreateParams {
        let data_bytes = DISK_BYTES + SPARE_CHUNKS * CHUNK_BYTES;
        // On one device the store also holds the metadata; its size is patched in by `header`.
        let device_bytes = if self.external {
            data_bytes
        } else {
            data_bytes + (1 << 20)
        };
        CreateParams {
            block_bytes: BLOCK_BYTES,
            chunk_bytes: CHUNK_BYTES,
            table: self.table,
            base: (self.base_bytes != 0).then(|| BaseParams {
                name: Default::default(),
                format: Default::default(),
                bytes: self.base_bytes,
                id: [0; 16],
                generation: 0,
            }),
            journal: if self.table || self.base_bytes != 0 {
                JournalChoice::Bytes(16 << 10)
            } else {
                JournalChoice::None
            },
            atomic_unit: 512,
            store: if self.used {
                StoreChoice::FixedUsed { device_bytes }
            } else {
                StoreChoice::FixedZeroed { device_bytes }
            },
            external_data: self.external,
            limits: Limits::FORMAT,
            ..CreateParams::new(DISK_BYTES, ImageId([7; 16]))
        }
    }

    pub(crate) fn header(&self) -> Header {
        plan_layout(&self.params()).expect("a legal set-up")
    }

    /// Bytes of the metadata device, and of the data device if it is another one.
    pub(crate) fn device_bytes(&self) -> (usize, usize) {
        let data = (DISK_BYTES + SPARE_CHUNKS * CHUNK_BYTES) as usize;
        if self.external {
            (1 << 20, data)
        } else {
            (data + (1 << 20), 0)
        }
    }

    fn fill(&self) -> u8 {
        if self.used { SECRET } else { 0 }
    }

    /// New devices with an image on them: metadata (and data), data if apart.
    pub(crate) fn devices(&self) -> (Ram, Option<Ram>) {
        let (metadata, data) = self.device_bytes();
        let metadata = Ram::new(bytes(metadata, self.fill()));
        let header = self.header();
        let created = blocking::create(
            metadata,
            header,
            !self.used,
            memory(CREATE_ARENA_BYTES),
            idle(),
        );
        created.result.expect("created");
        (
            created.device,
            self.external.then(|| Ram::new(bytes(data, self.fill()))),
        )
    }

    /// What the guest sees before it writes anything.
    pub(crate) fn initial_bytes(&self) -> Vec<u8> {
        let raw_secret = self.used && !self.table && self.base_bytes == 0;
        let mut model = vec![if raw_secret { SECRET } else { 0 }; DISK_BYTES as usize];
        for (index, byte) in model.iter_mut().enumerate().take(self.base_bytes as usize) {
            *byte = base_byte(index);
        }
        if !self.table && self.base_bytes != 0 {
            // Without a table, what lies beyond the base is the store itself, like on a raw disk.
            let blocks = self.base_bytes.div_ceil(BLOCK_BYTES) * BLOCK_BYTES;
            let beyond = if self.used { SECRET } else { 0 };
            model[(blocks.min(DISK_BYTES)) as usize..].fill(beyond);
        }
        model
    }

    /// A base with a byte pattern.
    pub(crate) fn base(&self) -> Ram {
        Ram::new(base_bytes(self.base_bytes as usize)).read_only()
    }
}

/// What byte `index` of every base holds.
pub(crate) fn base_byte(index: usize) -> u8 {
    (index / 512).wrapping_mul(37).wrapping_add(index % 251) as u8 | 1
}

pub(crate) fn base_bytes(len: usize) -> &'static mut [u8] {
    let memory = bytes(len, 0);
    for (index, byte) in memory.iter_mut().enumerate() {
        *byte = base_byte(index);
    }
    memory
}

pub(crate) fn options() -> OpenOptions {
    OpenOptions {
        queue_depth: 40,
        floor_step_chunks: 16,
        ..OpenOptions::DEFAULT
    }
}

/// Opens with exactly the memory that the formula asks for.
pub(crate) fn open<S: Stores>(stores: S, options: OpenOptions) -> Disk<S> {
    try_open(stores, options).unwrap_or_else(|error| panic!("does not open: {error}"))
}

pub(crate) fn try_open<S: Stores>(
    stores: S,
    options: OpenOptions,
) -> Result<Disk<S>, fvd::open::OpenError> {
    let mut idle = idle();
    let mut probe = Probe::new(stores, memory(fvd::open::PROBE_ARENA_BYTES), options);
    while probe.poll(Instant::ZERO).is_pending() {
        idle(When::Now);
    }
    let probed = probe.finish().map_err(|failure| failure.error)?;
    let mut opening = Opening::new(
        probed.stores,
        probed.layout,
        memory(probed.layout.arena_bytes()),
    );
    while opening.poll(Instant::ZERO).is_pending() {
        idle(When::Now);
    }
    opening.finish().map_err(|failure| failure.error)
}

/// Closes and insists that it was clean and that all memory came back.
pub(crate) fn close<S: Stores>(disk: Disk<S>) -> S {
    let Closed {
        stores,
        memory,
        result,
        stats,
    } = blocking::close(disk, idle(), drop);
    result.expect("a clean close");
    assert!(memory.is_some(), "the arena came back");
    assert_eq!(stats.protocol_errors, 0);
    stores
}

/// Ops and buffers of a caller.
pub(crate) struct Client {
    pool: OpPool,
}

impl Client {
    pub(crate) fn new(ops: u32) -> Client {
        let mut arena = Arena::new(memory(OpPool::arena_bytes(ops as usize))).expect("aligned");
        Client {
            pool: OpPool::carve(&mut arena, ops).expect("room"),
        }
    }

    pub(crate) fn op(
        &mut self,
        kind: OpKind,
        flags: OpFlags,
        offset: u64,
        len: u64,
        tag: u64,
    ) -> Op {
        let head = Head::new(kind, offset, len).with_flags(flags).with_tag(tag);
        self.pool.take(head).expect("enough ops")
    }

    pub(crate) fn data_op(&mut self, kind: OpKind, offset: u64, lease: Lease, tag: u64) -> Op {
        let len = lease.len() as u64;
        let mut op = self.op(kind, OpFlags::NONE, offset, len, tag);
        op.push(lease).expect("room for a lease");
        op
    }

    pub(crate) fn put(&mut self, op: Op) {
        self.pool.put(op).expect("an op of this client");
    }
}

/// A buffer on loan, for tests that keep it out until they are done with it.
pub(crate) fn lend(len: usize, value: u8) -> (Loan<&'static mut [u8]>, Lease) {
    Loan::new(bytes(len, value)).unwrap_or_else(|_| panic!("not empty"))
}

pub(crate) fn result_of(op: &Op) -> Result<(), DeviceError> {
    match op.status() {
        Status::Done => Ok(()),
        Status::Failed(error) => Err(error),
        Status::Pending => panic!("completed without an outcome"),
    }
}
