//! A raw file with what any journal costs at least: one page more for each flush.
//!
//! The page goes out with the first write after a flush, so that it costs no round trip of its own, and
//! the next flush waits for it. No journaled format can do with less, so this is what one is measured
//! against.

use core::task::Waker;
use std::io;

use fvd::buffer::{Arena, Head, Loan, Op, OpPool, OpQueue};
use fvd::device::{BlockDevice, DeviceError, Geometry, OpKind, Status, When};
use fvd::units::Instant;
use fvd_std::aligned::AlignedBuffer;
use fvd_std::arena::leak_arena;
use fvd_std::file::FileDevice;
use fvd_std::serve::{Allocation, Disk};

/// Bytes at the end of the file that pages go to, in turn.
pub(crate) const AREA_BYTES: u64 = 1 << 20;

const PAGE_BYTES: u64 = 4096;

/// Tag of the operation that carries the page; those of the server are small.
const PAGE_TAG: u64 = u64::MAX;

pub(crate) struct JournalControl {
    device: FileDevice,
    /// Bytes of the disk, which the area is behind.
    disk_bytes: u64,
    /// The operation that writes the page, with the page, while it is not with the device.
    page: Option<Op>,
    /// Keeps the memory of the page.
    _loan: Loan<AlignedBuffer>,
    /// Pages written.
    count: u64,
    /// Nothing was written since the last flush.
    is_flushed: bool,
    /// Flushes that wait for the page.
    waiting: OpQueue,
    failed: bool,
}

impl JournalControl {
    /// # Errors
    /// There is no memory, or no room behind the disk.
    pub(crate) fn new(device: FileDevice) -> io::Result<JournalControl> {
        let disk_bytes = device.geometry().capacity_bytes.checked_sub(AREA_BYTES);
        let disk_bytes = disk_bytes.ok_or_else(|| io::Error::other("the file is too short"))?;
        let (page, loan) = page().ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        Ok(JournalControl {
            device,
            disk_bytes,
            page: Some(page),
            _loan: loan,
            count: 0,
            is_flushed: true,
            waiting: OpQueue::new(),
            failed: false,
        })
    }

    fn send_page(&mut self) {
        let Some(mut page) = self.page.take() else {
            return;
        };
        let at = self.disk_bytes + self.count * PAGE_BYTES % AREA_BYTES;
        page.set_head(Head::new(OpKind::Write, at, PAGE_BYTES).with_tag(PAGE_TAG));
        self.count += 1;
        self.is_flushed = false;
        if let Err(page) = self.device.submit(page) {
            self.failed = true;
            self.page = Some(page);
        }
    }

    /// The page is home: what waited for it goes on. Returns a flush that ends thereby.
    fn send_waiting(&mut self) -> Option<Op> {
        let mut flush = self.waiting.pop_front()?;
        if self.failed {
            flush.complete(Err(DeviceError::Io));
            return Some(flush);
        }
        self.device.submit(flush).err()
    }
}

/// A page, and the operation that carries it.
fn page() -> Option<(Op, Loan<AlignedBuffer>)> {
    let mut arena = Arena::new(leak_arena(OpPool::arena_bytes(1))?).ok()?;
    let head = Head::new(OpKind::Write, 0, PAGE_BYTES);
    let mut op = OpPool::carve(&mut arena, 1)?.take(head)?;
    let (loan, lease) = Loan::new(AlignedBuffer::new(PAGE_BYTES as usize)?).ok()?;
    op.push(lease).ok()?;
    Some((op, loan))
}

impl BlockDevice for JournalControl {
    fn geometry(&self) -> Geometry {
        Geometry {
            capacity_bytes: self.disk_bytes,
            ..self.device.geometry()
        }
    }

    fn submit(&mut self, op: Op) -> Result<(), Op> {
        match op.kind() {
            OpKind::Write if self.is_flushed => self.send_page(),
            OpKind::Flush => {
                self.is_flushed = true;
                if self.page.is_none() {
                    self.waiting.push_back(op);
                    return Ok(());
                }
            }
            _ => {}
        }
        self.device.submit(op)
    }

    fn notify(&mut self) {
        self.device.notify();
    }

    fn poll(&mut self, now: Instant) -> Option<Op> {
        loop {
            while self.page.is_some() && !self.waiting.is_empty() {
                if let Some(flush) = self.send_waiting() {
                    return Some(flush);
                }
            }
            let op = self.device.poll(now)?;
            if op.tag() != PAGE_TAG {
                return Some(op);
            }
            self.failed |= op.status() != Status::Done;
            self.page = Some(op);
        }
    }

    fn poll_at(&self) -> When {
        self.device.poll_at()
    }

    fn set_waker(&mut self, waker: &Waker) -> bool {
        self.device.set_waker(waker)
    }
}

impl Disk for JournalControl {
    fn extent_at(&self, offset: u64) -> Option<(u64, Allocation)> {
        let left = self
            .disk_bytes
            .checked_sub(offset)
            .filter(|left| *left != 0)?;
        let (bytes, allocation) = self.device.extent_at(offset)?;
        Some((bytes.min(left), allocation))
    }
}
