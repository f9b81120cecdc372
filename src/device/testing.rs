//! What the unit tests of the devices share: ops and buffers without ceremony.

extern crate std;

use core::mem::MaybeUninit;
use std::boxed::Box;
use std::vec;
use std::vec::Vec;

use super::{BlockDevice, OpFlags, OpKind, Status};
use crate::buffer::{ARENA_ALIGN, Arena, Head, Loan, Op, OpPool};
use crate::units::Instant;

/// Memory for an arena: leaked, aligned, one per call.
pub(crate) fn arena_memory(bytes: usize) -> &'static mut [MaybeUninit<u8>] {
    let memory: &'static mut [MaybeUninit<u8>] =
        Box::leak(vec![MaybeUninit::uninit(); bytes + ARENA_ALIGN].into_boxed_slice());
    let skip = memory.as_ptr().align_offset(ARENA_ALIGN);
    &mut memory[skip..skip + bytes]
}

impl Head {
    /// The same head under a tag.
    pub(crate) fn tagged(mut self, tag: u64) -> Head {
        self.tag = tag;
        self
    }

    /// The same head with flags.
    pub(crate) fn flagged(mut self, flags: OpFlags) -> Head {
        self.flags = flags;
        self
    }
}

/// The head of an operation.
pub(crate) fn head(kind: OpKind, offset: u64, len: u64) -> Head {
    Head::new(kind, offset, len)
}

/// The head of a read.
pub(crate) fn read(offset: u64, len: u64) -> Head {
    head(OpKind::Read, offset, len)
}

/// The head of a write.
pub(crate) fn write(offset: u64, len: u64) -> Head {
    head(OpKind::Write, offset, len)
}

/// A pool of ops, and helpers that run one operation at a time. Leaks its buffers, as tests may.
pub(crate) struct Bench {
    pool: OpPool,
}

impl Bench {
    /// What a buffer holds before a device fills it.
    pub(crate) const CANARY: u8 = 0xA5;

    pub(crate) fn new() -> Bench {
        let mut arena = Arena::new(arena_memory(OpPool::arena_bytes(128))).expect("aligned");
        Bench {
            pool: OpPool::carve(&mut arena, 128).expect("room"),
        }
    }

    /// An op with as many leased bytes as its head asks for.
    pub(crate) fn op(&mut self, head: Head) -> Op {
        let mut op = self.pool.take(head).expect("a free op");
        if matches!(head.kind, OpKind::Read | OpKind::Write) {
            let buffer: &'static mut [u8] = vec![Bench::CANARY; head.len as usize].leak();
            let (_loan, lease) = Loan::new(buffer).expect("not empty");
            op.push(lease).expect("room");
        }
        op
    }

    /// Takes an op back, whatever it carries.
    pub(crate) fn put(&mut self, mut op: Op) {
        while op.pop().is_some() {}
        self.pool.put(op).expect("from this pool");
    }

    /// Runs an operation on an otherwise idle device and returns how it ended.
    pub(crate) fn run<D: BlockDevice>(
        &mut self,
        device: &mut D,
        kind: OpKind,
        offset: u64,
        len: u64,
    ) -> Status {
        let op = self.op(head(kind, offset, len));
        let op = match device.submit(op) {
            Ok(()) => device.poll(Instant::ZERO).expect("done at once"),
            Err(op) => op,
        };
        let status = op.status();
        self.put(op);
        status
    }

    pub(crate) fn write<D: BlockDevice>(&mut self, device: &mut D, offset: u64, bytes: &[u8]) {
        let mut op = self.op(write(offset, bytes.len() as u64));
        op.copy_in(0, bytes);
        device.submit(op).expect("accepted");
        let op = device.poll(Instant::ZERO).expect("done at once");
        assert_eq!(op.status(), Status::Done);
        self.put(op);
    }

    pub(crate) fn read<D: BlockDevice>(
        &mut self,
        device: &mut D,
        offset: u64,
        len: usize,
    ) -> Vec<u8> {
        let op = self.op(read(offset, len as u64));
        device.submit(op).expect("accepted");
        let op = device.poll(Instant::ZERO).expect("done at once");
        assert_eq!(op.status(), Status::Done);
        let mut bytes = vec![0; len];
        op.copy_out(0, &mut bytes);
        self.put(op);
        bytes
    }
}
