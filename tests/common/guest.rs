//! A guest of a disk whose data device can be told to wait.

use fvd::Disk;
use fvd::buffer::{Head, Op};
use fvd::device::{BlockDevice, OpFlags, OpKind, Ram};
use fvd::open::OpenOptions;
use fvd::stores::{One, Stores, Two, WithBase};
use fvd::units::Instant;

use super::gate::Gate;
use super::{Client, Setup, result_of};

pub(crate) type Plain = Two<Ram, Gate>;
pub(crate) type Based = WithBase<Plain, Ram>;

/// Stores whose data device can be told to wait.
pub(crate) trait Gated: Stores {
    fn gate(&mut self) -> &mut Gate;
}

impl Gated for WithBase<One<Gate>, Ram> {
    fn gate(&mut self) -> &mut Gate {
        &mut self.parts_mut().0.0
    }
}

impl Gated for Plain {
    fn gate(&mut self) -> &mut Gate {
        self.parts_mut().1
    }
}

impl Gated for Based {
    fn gate(&mut self) -> &mut Gate {
        self.parts_mut().0.gate()
    }
}

/// A disk and whoever uses it. Time stands all but still.
pub(crate) struct Guest<S: Stores> {
    pub(crate) disk: Disk<S>,
    client: Client,
}

pub(crate) fn plain(setup: &Setup, options: OpenOptions) -> Guest<Plain> {
    let (metadata, data) = setup.devices();
    let stores = Two::new(metadata, Gate::new(data.expect("apart")));
    Guest::open(stores, options)
}

pub(crate) fn based(setup: &Setup, options: OpenOptions) -> Guest<Based> {
    let (metadata, data) = setup.devices();
    let stores = Two::new(metadata, Gate::new(data.expect("apart")));
    Guest::open(WithBase::new(stores, setup.base()), options)
}

/// No unit of the journal goes out beside data.
pub(crate) fn options() -> OpenOptions {
    OpenOptions {
        eager_after_flushes: u8::MAX,
        ..super::options()
    }
}

impl<S: Gated> Guest<S> {
    pub(crate) fn open(stores: S, options: OpenOptions) -> Guest<S> {
        let mut disk = super::open(stores, options);
        disk.stores_mut().gate().heads.clear();
        Guest {
            disk,
            client: Client::new(40),
        }
    }

    pub(crate) fn start(&mut self, kind: OpKind, offset: u64, len: u64, byte: u8) {
        let mut op = self.client.op(kind, OpFlags::NONE, offset, len, 0);
        if matches!(kind, OpKind::Read | OpKind::Write) {
            op.push(super::lend(len as usize, byte).1).expect("room");
        }
        assert!(self.disk.submit(op).is_ok());
    }

    /// Polls until all that can happen has happened. Returns how many requests ended.
    pub(crate) fn settle(&mut self) -> usize {
        (0..100)
            .filter_map(|_| self.disk.poll(Instant::ZERO))
            .map(|op| assert_eq!(result_of(&op), Ok(())))
            .count()
    }

    pub(crate) fn finish(&mut self) -> Op {
        let op = (0..10_000).find_map(|turn| self.disk.poll(Instant::from_micros(turn)));
        let op = op.expect("a request that never finishes");
        assert_eq!(result_of(&op), Ok(()));
        op
    }

    /// One request, from start to end.
    pub(crate) fn run(&mut self, kind: OpKind, offset: u64, len: u64, byte: u8) {
        self.start(kind, offset, len, byte);
        drop(self.finish());
    }

    pub(crate) fn read(&mut self, offset: u64, len: u64) -> Vec<u8> {
        self.start(OpKind::Read, offset, len, 0xEE);
        let op = self.finish();
        let mut bytes = vec![0; len as usize];
        op.copy_out(0, &mut bytes);
        bytes
    }

    pub(crate) fn hold(&mut self, kind: fn(&Head) -> bool) {
        let gate = self.disk.stores_mut().gate();
        gate.holds = kind;
        gate.heads.clear();
    }

    pub(crate) fn release(&mut self) {
        self.disk.stores_mut().gate().open();
    }

    /// What the data device was sent since it was told to wait.
    pub(crate) fn sent(&mut self) -> &[Head] {
        &self.disk.stores_mut().gate().heads
    }

    pub(crate) fn commits(&self) -> u64 {
        self.disk.stats().commits
    }
}
