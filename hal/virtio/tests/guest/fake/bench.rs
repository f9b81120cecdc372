//! Ops and leases for a device under test, and what its disk should hold.

use std::cell::RefCell;
use std::collections::HashMap;
use std::mem::MaybeUninit;

use fvd::buffer::{Arena, Fingerprint, Head, Lease, Op, OpPool};
use fvd::device::{BlockDevice, DeviceError, OpFlags, OpKind, Status};
use fvd::units::Instant;
use fvd_virtio::{InitError, Options, VirtioBlk};

use super::Random;
use super::device::{Device, Limits};
use super::hal::{FakeHal, Platform};
use super::registers::{FakeTransport, Handle};

pub(crate) const QUEUE: usize = 64;
pub(crate) type Blk = VirtioBlk<FakeHal, FakeTransport, QUEUE>;

const OPS: u32 = 160;
/// Lengths of the leases in stock. The two odd ones only go together.
const LENGTHS: [u32; 6] = [512, 1024, 1536, 4096, ODD_FIRST, ODD_SECOND];
const ODD_FIRST: u32 = 200;
const ODD_SECOND: u32 = 312;
const EACH: usize = 150;

/// Ops and leases, which no bench can free. The next bench of the thread takes them over.
struct Memory {
    pool: OpPool,
    stock: HashMap<usize, Vec<Lease>>,
}

thread_local! {
    static SPARE: RefCell<Option<Memory>> = const { RefCell::new(None) };
}

impl Memory {
    fn take() -> Memory {
        if let Some(memory) = SPARE.take() {
            return memory;
        }
        let mut arena = arena_of(LENGTHS.len() * EACH + 64);
        let mut stock = HashMap::new();
        for len in LENGTHS {
            let leases: Vec<Lease> = (0..EACH)
                .map(|_| arena.carve_lease(len).expect("room"))
                .collect();
            stock.insert(len as usize, leases);
        }
        let pool = OpPool::carve(&mut arena, OPS).expect("room");
        Memory { pool, stock }
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        self.blk = None;
        if self.free_ops() == OPS as usize {
            SPARE.set(self.memory.take());
        }
    }
}

/// An op under way, as the test remembers it.
pub(crate) struct Pending {
    pub(crate) kind: OpKind,
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) data: Vec<u8>,
    fingerprint: Fingerprint,
    /// For a flush: what had completed when it was submitted.
    completed: Option<Vec<u8>>,
}

pub(crate) struct Bench {
    /// `None` once a test has dropped it.
    pub(crate) blk: Option<Blk>,
    pub(crate) device: Handle,
    memory: Option<Memory>,
    pub(crate) pending: HashMap<u64, Pending>,
    next_tag: u64,
    /// What reads must return.
    pub(crate) expected: Vec<u8>,
    /// Sectors that an op in flight touches: overlapping ops have no defined result.
    touched: Vec<bool>,
    pub(crate) random: Random,
    pub(crate) finished: u64,
}

/// A head that asks for `len` bytes at `offset`.
pub(crate) fn head(kind: OpKind, offset: u64, len: u64, tag: u64) -> Head {
    Head::new(kind, offset, len).with_tag(tag)
}

fn arena_of(pages: usize) -> Arena {
    #[repr(align(4096))]
    #[derive(Clone, Copy)]
    struct Page(#[allow(dead_code)] [MaybeUninit<u8>; 4096]);
    let memory: &'static mut [Page] = vec![Page([MaybeUninit::uninit(); 4096]); pages].leak();
    // SAFETY: the same bytes, whose type allows any content, for the same `'static` lifetime.
    let bytes = unsafe {
        core::slice::from_raw_parts_mut(memory.as_mut_ptr().cast(), pages * size_of::<Page>())
    };
    Arena::new(bytes).unwrap_or_else(|_| unreachable!("pages are aligned"))
}

impl Bench {
    pub(crate) fn new(limits: Limits, options: Options, seed: u64) -> Bench {
        Bench::try_new(limits, options, seed, |_| {}).expect("the device can be used")
    }

    pub(crate) fn try_new(
        limits: Limits,
        options: Options,
        seed: u64,
        prepare: impl FnOnce(&mut Device),
    ) -> Result<Bench, InitError> {
        Platform::restart();
        let device = Device::create(limits, seed);
        prepare(&mut device.0.borrow_mut());
        let blk = Blk::new(FakeTransport(device.clone()), options)?;
        let expected = device.0.borrow().current.clone();
        Ok(Bench {
            blk: Some(blk),
            device,
            memory: Some(Memory::take()),
            pending: HashMap::new(),
            next_tag: 1,
            touched: vec![false; expected.len() / 512],
            expected,
            random: Random::new(seed ^ 0x5eed),
            finished: 0,
        })
    }

    pub(crate) fn blk(&mut self) -> &mut Blk {
        self.blk.as_mut().expect("not dropped")
    }

    fn memory(&mut self) -> &mut Memory {
        self.memory.as_mut().expect("until drop")
    }

    /// Ops that are neither in flight nor lost.
    pub(crate) fn free_ops(&self) -> usize {
        let memory = self.memory.as_ref().expect("until drop");
        memory.pool.free_count()
    }

    pub(crate) fn with_device<R>(&self, f: impl FnOnce(&mut Device) -> R) -> R {
        f(&mut self.device.0.borrow_mut())
    }

    pub(crate) fn lease(&mut self, len: usize) -> Lease {
        let leases = self
            .memory()
            .stock
            .get_mut(&len)
            .expect("a length in stock");
        leases.pop().expect("enough leases")
    }

    /// Takes back an op and its leases.
    pub(crate) fn give_back(&mut self, mut op: Op) {
        while let Some(lease) = op.pop() {
            self.memory()
                .stock
                .get_mut(&lease.len())
                .expect("ours")
                .push(lease);
        }
        self.memory()
            .pool
            .put(op)
            .unwrap_or_else(|_| panic!("not our op"));
    }

    pub(crate) fn make(&mut self, kind: OpKind, offset: u64, len: u64, leases: &[usize]) -> Op {
        let tag = self.next_tag;
        self.next_tag += 1;
        let op = self.memory().pool.take(head(kind, offset, len, tag));
        let mut op = op.expect("enough ops");
        for len in leases {
            let lease = self.lease(*len);
            op.push(lease).unwrap_or_else(|_| panic!("too many leases"));
        }
        op
    }

    /// A read or write with leases that are right for it.
    pub(crate) fn transfer(&mut self, kind: OpKind, offset: u64, leases: &[usize]) -> Op {
        let len = leases.iter().sum::<usize>() as u64;
        let mut op = self.make(kind, offset, len, leases);
        if kind == OpKind::Write {
            let mut data = vec![0; len as usize];
            self.random.fill(&mut data);
            op.copy_in(0, &data);
        } else {
            op.fill(0, len, 0xee);
        }
        op
    }

    /// Submits an op and remembers what it should do. Gives a refused op back with its reason.
    pub(crate) fn submit(&mut self, op: Op) -> Result<u64, (Op, DeviceError)> {
        let mut data = vec![0; op.bytes() as usize];
        op.copy_out(0, &mut data);
        let pending = Pending {
            kind: op.kind(),
            offset: op.offset(),
            len: op.len(),
            data,
            fingerprint: op.fingerprint(),
            completed: (op.kind() == OpKind::Flush).then(|| self.expected.clone()),
        };
        let (tag, fingerprint) = (op.tag(), op.fingerprint());
        match self.blk().submit(op) {
            Ok(()) => {
                self.touch(pending.offset, pending.len, true);
                self.pending.insert(tag, pending);
                Ok(tag)
            }
            Err(op) => {
                assert_eq!(op.fingerprint(), fingerprint, "a refused op is unchanged");
                let Status::Failed(reason) = op.status() else {
                    panic!("refused without a reason");
                };
                Err((op, reason))
            }
        }
    }

    fn touch(&mut self, offset: u64, len: u64, touched: bool) {
        let (first, count) = ((offset / 512) as usize, (len / 512) as usize);
        self.touched[first..first + count].fill(touched);
    }

    fn is_free(&self, offset: u64, len: u64) -> bool {
        let (first, count) = ((offset / 512) as usize, (len / 512) as usize);
        !self.touched[first..first + count].contains(&true)
    }

    /// Polls once, checks what comes, and gives its tag and status.
    pub(crate) fn poll(&mut self) -> Option<(u64, Status)> {
        let op = self.blk().poll(Instant::ZERO)?;
        let (tag, status) = (op.tag(), op.status());
        let pending = self.pending.remove(&tag);
        let pending = pending.expect("an op came back that was not in flight");
        assert_eq!(
            op.fingerprint(),
            pending.fingerprint,
            "another op came back"
        );
        assert_eq!((op.offset(), op.len()), (pending.offset, pending.len));
        self.touch(pending.offset, pending.len, false);
        if status == Status::Done {
            self.verify(&op, &pending);
        }
        self.give_back(op);
        self.finished += 1;
        Some((tag, status))
    }

    fn verify(&mut self, op: &Op, pending: &Pending) {
        let range = pending.offset as usize..(pending.offset + pending.len) as usize;
        match pending.kind {
            OpKind::Read => {
                let mut data = vec![0; pending.len as usize];
                op.copy_out(0, &mut data);
                assert!(data == self.expected[range], "a read returned other data");
            }
            OpKind::Write => self.expected[range].copy_from_slice(&pending.data),
            OpKind::WriteZeroes => self.expected[range].fill(0),
            OpKind::Discard => {
                let device = self.device.0.borrow();
                self.expected[range.clone()].copy_from_slice(&device.current[range]);
            }
            OpKind::Flush => {
                let completed = pending.completed.as_ref().expect("a flush");
                self.check_durable(completed);
            }
            kind => panic!("{kind:?}"),
        }
    }

    /// What had completed before a flush was submitted is durable, wherever no later op may have
    /// changed it since.
    fn check_durable(&self, completed: &[u8]) {
        let device = self.device.0.borrow();
        for (sector, before) in completed.chunks(512).enumerate() {
            let at = sector * 512..sector * 512 + 512;
            let unchanged = self.expected[at.clone()] == *before && !self.touched[sector];
            if unchanged {
                assert!(
                    device.durable[at] == *before,
                    "sector {sector} was not flushed"
                );
            }
        }
    }

    /// A random op that overlaps none in flight, of one of `kinds`.
    pub(crate) fn random_op(&mut self, kinds: &[OpKind]) -> Option<Op> {
        let kind = kinds[self.random.below(kinds.len() as u64) as usize];
        let leases = match kind {
            OpKind::Read | OpKind::Write => self.random_leases(),
            OpKind::Flush => return Some(self.make(OpKind::Flush, 0, 0, &[])),
            _ => Vec::new(),
        };
        let len = match kind {
            OpKind::Read | OpKind::Write => leases.iter().sum::<usize>() as u64,
            _ => 512 * (1 + self.random.below(64)),
        };
        let sectors = (self.expected.len() as u64 - len) / 512;
        let offset = 512 * self.random.below(sectors + 1);
        if !self.is_free(offset, len) {
            return None;
        }
        Some(match kind {
            OpKind::Read | OpKind::Write => self.transfer(kind, offset, &leases),
            _ => {
                let mut op = self.make(kind, offset, len, &[]);
                if kind == OpKind::WriteZeroes && self.random.one_in(2) {
                    let mut head = op.head();
                    head.flags = OpFlags::MAY_UNMAP;
                    op.set_head(head);
                }
                op
            }
        })
    }

    fn random_leases(&mut self) -> Vec<usize> {
        let most = u64::from(self.blk().geometry().segments_max);
        let longest = self.blk().geometry().segment_max_bytes as usize;
        let count = 1 + self.random.below(most) as usize;
        let mut leases = Vec::new();
        while leases.len() < count {
            if leases.len() + 2 <= count && self.random.one_in(4) {
                leases.extend([ODD_FIRST as usize, ODD_SECOND as usize]);
            } else {
                let len = LENGTHS[self.random.below(4) as usize] as usize;
                leases.push(len.min(longest));
            }
        }
        leases
    }
}
