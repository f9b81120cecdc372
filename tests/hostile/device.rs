//! Devices that are stricter than any real one.
//!
//! 1. An operation outside the device, misaligned or not allowed is a broken promise of the engine,
//!    not an error to be handled: it is remembered and fails the test.
//! 2. Every write is searched for memory that nobody ever wrote to, and can be undone.
//! 3. Operations are counted, and one of them can fail.
//! 4. Bytes of the metadata device can be unreadable for good.

use core::ops::Range;

use fvd::buffer::{Head, Op, OpQueue};
use fvd::device::{DeviceError, Geometry, OpKind, When, refuse};
use fvd::stores::{Role, Stores};
use fvd::units::Instant;

/// What memory holds before it is lent to the engine.
pub(crate) const UNWRITTEN: u8 = 0xC5;
/// What a guest's buffer holds before a read.
pub(crate) const UNREAD: u8 = 0xD3;
/// What the device holds where the image never wrote: somebody else's data.
pub(crate) const FOREIGN: u8 = 0xF6;

/// Whether `bytes` hold a run of one canary that no test data has.
pub(crate) fn holds(bytes: &[u8], canary: u8) -> bool {
    // Any 16 bytes in a row cover an aligned group of 8.
    bytes
        .chunks_exact(8)
        .any(|group| group.iter().all(|byte| *byte == canary))
}

/// The bytes of one device.
pub(crate) struct Medium {
    pub(crate) bytes: Vec<u8>,
    pub(crate) geometry: Geometry,
    /// What writes replaced, oldest first.
    undo: Vec<(usize, Vec<u8>)>,
}

impl Medium {
    pub(crate) fn new(bytes: Vec<u8>, read_only: bool) -> Medium {
        let capacity = bytes.len() as u64 & !511;
        let geometry = Geometry {
            read_only,
            ..Geometry::basic(capacity)
        };
        Medium {
            bytes,
            geometry,
            undo: Vec::new(),
        }
    }

    pub(crate) fn writes(&self) -> usize {
        self.undo.len()
    }

    /// Takes every write back.
    pub(crate) fn rewind(&mut self) {
        while let Some((at, old)) = self.undo.pop() {
            self.bytes[at..at + old.len()].copy_from_slice(&old);
        }
    }

    /// Performs an operation that `Geometry::check` let through. Returns what is wrong with it.
    fn perform(&mut self, op: &mut Op) -> Option<&'static str> {
        let (at, len) = (op.offset() as usize, op.len() as usize);
        match op.kind() {
            OpKind::Read => {
                op.copy_in(0, &self.bytes[at..at + len]);
                None
            }
            OpKind::Write => {
                let target = &mut self.bytes[at..at + len];
                self.undo.push((at, target.to_vec()));
                op.copy_out(0, target);
                holds(target, UNWRITTEN).then_some("a write of memory that nobody wrote to")
            }
            OpKind::Flush => None,
            _ => Some("an operation that the device does not offer"),
        }
    }
}

/// All devices of an image, `SHARED` if metadata and data are one.
pub(crate) struct Devices<const SHARED: bool> {
    pub(crate) metadata: Medium,
    pub(crate) data: Option<Medium>,
    pub(crate) base: Option<Medium>,
    done: OpQueue,
    /// Operations so far.
    pub(crate) operations: u64,
    /// The operation that fails, counted from 0.
    pub(crate) fail_at: Option<u64>,
    /// What the operation that failed was.
    pub(crate) failed: Option<OpKind>,
    /// Bytes of the metadata device that can not be read, however often one tries.
    pub(crate) unreadable: Range<u64>,
    /// Promises that the engine broke.
    pub(crate) faults: Vec<String>,
}

impl<const SHARED: bool> Devices<SHARED> {
    pub(crate) fn new(
        metadata: Vec<u8>,
        data: Option<Vec<u8>>,
        base: Option<Vec<u8>>,
    ) -> Devices<SHARED> {
        Devices {
            metadata: Medium::new(metadata, false),
            data: data.map(|bytes| Medium::new(bytes, false)),
            base: base.map(|bytes| Medium::new(bytes, true)),
            done: OpQueue::new(),
            operations: 0,
            fail_at: None,
            failed: None,
            unreadable: 0..0,
            faults: Vec::new(),
        }
    }

    fn medium(&mut self, role: Role) -> Option<&mut Medium> {
        match role {
            Role::Data if !SHARED => self.data.as_mut(),
            Role::Metadata | Role::Data => Some(&mut self.metadata),
            Role::Base => self.base.as_mut(),
        }
    }

    /// Writes to all devices since the last rewind.
    pub(crate) fn writes(&self) -> usize {
        [&self.data, &self.base]
            .into_iter()
            .flatten()
            .fold(self.metadata.writes(), |sum, medium| sum + medium.writes())
    }

    /// Brings all devices back to how they were, for the next try.
    pub(crate) fn rewind(&mut self) {
        self.metadata.rewind();
        for medium in [&mut self.data, &mut self.base].into_iter().flatten() {
            medium.rewind();
        }
        self.operations = 0;
        self.fail_at = None;
        self.failed = None;
        self.unreadable = 0..0;
    }

    /// Whether the medium refuses to read this.
    fn is_unreadable(&self, role: Role, head: &Head) -> bool {
        let own = role == Role::Metadata || (SHARED && role == Role::Data);
        let end = head.offset.saturating_add(head.len);
        let bad = &self.unreadable;
        own && head.kind == OpKind::Read && head.offset < bad.end && bad.start < end
    }
}

impl<const SHARED: bool> Stores for Devices<SHARED> {
    const SHARED: bool = SHARED;

    fn geometry(&self, role: Role) -> Option<Geometry> {
        let medium = match role {
            Role::Data if !SHARED => self.data.as_ref(),
            Role::Metadata | Role::Data => Some(&self.metadata),
            Role::Base => self.base.as_ref(),
        };
        medium.map(|medium| medium.geometry)
    }

    fn submit(&mut self, role: Role, mut op: Op) -> Result<(), Op> {
        let index = self.operations;
        self.operations += 1;
        let head = op.head();
        let unreadable = self.is_unreadable(role, &head);
        let fails = self.fail_at == Some(index) || unreadable;
        let fault = match self.medium(role) {
            None => Some("an operation on a device that is not there"),
            Some(medium) if medium.geometry.check(&op).is_err() => Some("out of range"),
            Some(_) if fails => None,
            Some(medium) => medium.perform(&mut op),
        };
        if let Some(fault) = fault {
            self.faults.push(format!("{fault}: {role:?} {head:?}"));
            return refuse(op, DeviceError::Invalid);
        }
        self.failed = self.failed.or(fails.then_some(head.kind));
        op.complete(match fails {
            true if unreadable => Err(DeviceError::Unreadable),
            true => Err(DeviceError::Io),
            false => Ok(()),
        });
        self.done.push_back(op);
        Ok(())
    }

    fn notify(&mut self) {}

    fn poll(&mut self, _: Instant) -> Option<Op> {
        self.done.pop_front()
    }

    fn poll_at(&self) -> When {
        if self.done.is_empty() {
            When::Event
        } else {
            When::Now
        }
    }

    fn set_waker(&mut self, _: &core::task::Waker) -> bool {
        false
    }
}
