//! Operations: records in an arena, owned by pointer.

use core::ptr::NonNull;

use super::{Lease, LentOp, SEGMENTS_MAX};
use crate::device::{DeviceError, OpFlags, OpKind, Status};

/// What an operation asks for. Small and copied out by value, so that nobody can swap it whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// What to do.
    pub kind: OpKind,
    /// How to do it.
    pub flags: OpFlags,
    /// Outcome; [`Status::Pending`] until the device completes the operation.
    pub status: Status,
    /// First byte on the device.
    pub offset: u64,
    /// Bytes on the device. For reads and writes this equals the bytes of the leases.
    pub len: u64,
    /// The submitter's word; a device returns it unchanged.
    pub tag: u64,
}

impl Head {
    /// An operation of `kind` on `len` bytes from `offset`, without flags, tagged 0.
    #[must_use]
    pub const fn new(kind: OpKind, offset: u64, len: u64) -> Head {
        let (flags, status, tag) = (OpFlags::NONE, Status::Pending, 0);
        Head {
            kind,
            flags,
            status,
            offset,
            len,
            tag,
        }
    }

    /// The same with these flags.
    #[must_use]
    pub const fn with_flags(self, flags: OpFlags) -> Head {
        Head { flags, ..self }
    }

    /// The same with this tag.
    #[must_use]
    pub const fn with_tag(self, tag: u64) -> Head {
        Head { tag, ..self }
    }
}

pub(super) const EMPTY_HEAD: Head = Head {
    kind: OpKind::Flush,
    flags: OpFlags::NONE,
    status: Status::Pending,
    offset: 0,
    len: 0,
    tag: 0,
};

/// Backing memory of an [`Op`]; lives in an arena and is only reached through its owner.
pub(super) struct Record {
    pub(super) head: Head,
    /// Intrusive link: free list, wait list or a device's queue, whoever owns the op.
    pub(super) next: Option<NonNull<Record>>,
    /// Bytes of all segments together.
    pub(super) bytes: u64,
    /// While lent: bytes cut off and not yet back.
    pub(super) bytes_out: u64,
    /// While lent: where the next cut starts.
    pub(super) cursor_segment: u32,
    pub(super) cursor_offset: u32,
    pub(super) count: u32,
    pub(super) segments: [Option<Lease>; SEGMENTS_MAX],
}

/// One operation with its leases: a request, a refusal and a completion are all this.
///
/// An owned pointer to a record in an arena, eight bytes, so that it travels in a register through
/// any number of layers.
///
/// A lease inside an op can not be reached for swapping:
///
/// ```compile_fail,E0624
/// fn swap(a: &mut fvd::buffer::Op, b: &mut fvd::buffer::Op) {
///     core::mem::swap(a.record_mut(), b.record_mut());
/// }
/// ```
#[must_use = "a dropped op never completes and leaks its memory"]
pub struct Op(pub(super) NonNull<Record>);

// SAFETY: an op is the only path to its record (invariant 1) and to the leases in it, both `Send`.
unsafe impl Send for Op {}

impl core::fmt::Debug for Op {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Op")
            .field("head", &self.head())
            .field("bytes", &self.bytes())
            .finish()
    }
}

/// What an engine remembers of an op it forwards, to know that the same one came home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint {
    record: usize,
    first: usize,
    bytes: u64,
    count: u32,
}

impl Fingerprint {
    /// What no op has.
    pub const NONE: Fingerprint = Fingerprint {
        record: 0,
        first: 0,
        bytes: 0,
        count: 0,
    };
}

impl Op {
    pub(super) fn record(&self) -> &Record {
        // SAFETY: the record outlives the op (it lies in an arena, invariant 4) and `&self` of its
        // only owner keeps others from writing to it.
        unsafe { self.0.as_ref() }
    }

    pub(super) fn record_mut(&mut self) -> &mut Record {
        // SAFETY: as above, and `&mut self` makes the access exclusive. Never handed to callers.
        unsafe { self.0.as_mut() }
    }

    /// The operation's head, by value.
    #[must_use]
    pub fn head(&self) -> Head {
        self.record().head
    }

    /// What to do.
    #[must_use]
    pub fn kind(&self) -> OpKind {
        self.record().head.kind
    }

    /// How to do it.
    #[must_use]
    pub fn flags(&self) -> OpFlags {
        self.record().head.flags
    }

    /// First byte on the device.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.record().head.offset
    }

    /// Bytes on the device.
    #[must_use]
    #[allow(clippy::len_without_is_empty)] // a flush has length 0 and is not "empty"
    pub fn len(&self) -> u64 {
        self.record().head.len
    }

    /// The submitter's word.
    #[must_use]
    pub fn tag(&self) -> u64 {
        self.record().head.tag
    }

    /// Outcome so far.
    #[must_use]
    pub fn status(&self) -> Status {
        self.record().head.status
    }

    /// Sets what the operation asks for, `status` included. Leases stay.
    pub fn set_head(&mut self, head: Head) {
        self.record_mut().head = head;
    }

    /// Sets where the operation goes on the device below, and the tag it travels under.
    pub fn retarget(&mut self, offset: u64, tag: u64) {
        let head = &mut self.record_mut().head;
        head.offset = offset;
        head.tag = tag;
    }

    /// Sets the tag that it travels under.
    pub fn set_tag(&mut self, tag: u64) {
        self.record_mut().head.tag = tag;
    }

    /// Sets the outcome. A device calls this once, before it returns the op.
    pub fn complete(&mut self, result: Result<(), DeviceError>) {
        self.record_mut().head.status = match result {
            Ok(()) => Status::Done,
            Err(error) => Status::Failed(error),
        };
    }

    /// Bytes of all leases together.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.record().bytes
    }

    /// Number of leases, at most [`SEGMENTS_MAX`].
    #[must_use]
    pub fn segment_count(&self) -> usize {
        self.record().count as usize
    }

    /// Bytes of lease `index`, or 0 if there is none.
    #[must_use]
    pub fn segment_len(&self, index: usize) -> usize {
        match self.record().segments.get(index) {
            Some(Some(lease)) => lease.len(),
            _ => 0,
        }
    }

    /// Appends a lease.
    ///
    /// # Errors
    /// Gives the lease back if all [`SEGMENTS_MAX`] places are taken.
    pub fn push(&mut self, lease: Lease) -> Result<(), Lease> {
        let record = self.record_mut();
        match record.segments.get_mut(record.count as usize) {
            Some(place) => {
                record.bytes += u64::from(lease.len);
                *place = Some(lease);
                record.count += 1;
                Ok(())
            }
            None => Err(lease),
        }
    }

    /// Takes the last lease off.
    pub fn pop(&mut self) -> Option<Lease> {
        let record = self.record_mut();
        let last = record.count.checked_sub(1)?;
        let lease = record.segments.get_mut(last as usize)?.take()?;
        record.count = last;
        record.bytes -= u64::from(lease.len);
        Some(lease)
    }

    /// Identity of this op and of the memory it carries.
    #[must_use]
    pub fn fingerprint(&self) -> Fingerprint {
        let record = self.record();
        let first = match record.segments.first() {
            Some(Some(lease)) => lease.address(),
            _ => 0,
        };
        Fingerprint {
            record: self.0.as_ptr() as usize,
            first,
            bytes: record.bytes,
            count: record.count,
        }
    }

    /// Copies `source` into the leases, starting `at` bytes into them. Returns the bytes copied,
    /// fewer than `source` only where the leases end.
    pub fn copy_in(&mut self, at: u64, source: &[u8]) -> usize {
        self.each_piece(at, source.len(), |target, done, len| {
            // SAFETY:
            // 1. `target` is valid for `len` writes: a piece of a lease this op owns;
            // 2. `source[done..done + len]` is in bounds, since pieces add up to `source.len()`;
            // 3. they do not overlap: nobody else can hold a reference to leased memory.
            unsafe {
                let from = source.as_ptr().add(done);
                core::ptr::copy_nonoverlapping(from, target.as_ptr(), len);
            }
        })
    }

    /// Copies from the leases into `target`, starting `at` bytes into them. Returns the bytes copied,
    /// fewer than `target` only where the leases end.
    pub fn copy_out(&self, at: u64, target: &mut [u8]) -> usize {
        let base = target.as_mut_ptr();
        self.each_piece(at, target.len(), |source, done, len| {
            // SAFETY: as in `copy_in`, with the roles exchanged.
            unsafe {
                let to = base.add(done);
                core::ptr::copy_nonoverlapping(source.as_ptr().cast_const(), to, len);
            }
        })
    }

    /// Sets `len` bytes of the leases to `byte`, starting `at` bytes into them. Returns the bytes
    /// set.
    pub fn fill(&mut self, at: u64, len: u64, byte: u8) -> usize {
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        self.each_piece(at, len, |target, _, len| {
            // SAFETY: `target` is valid for `len` writes: a piece of a lease this op owns.
            unsafe { core::ptr::write_bytes(target.as_ptr(), byte, len) }
        })
    }

    /// Copies from this op's leases into another op's, both from their start.
    pub fn copy_to(&self, at: u64, target: &mut Op, target_at: u64, len: usize) -> usize {
        self.each_piece(at, len, |source, done, piece| {
            // SAFETY: a piece of a lease this op owns is initialised and valid for `piece` reads,
            // and nobody writes to it while `copy_in` runs: the other op's leases are disjoint
            // (invariant 2).
            let bytes = unsafe { core::slice::from_raw_parts(source.as_ptr(), piece) };
            target.copy_in(target_at + done as u64, bytes);
        })
    }

    /// Calls `f(pointer, bytes done before, bytes here)` for each contiguous piece of the range.
    #[inline]
    fn each_piece(
        &self,
        at: u64,
        len: usize,
        mut f: impl FnMut(NonNull<u8>, usize, usize),
    ) -> usize {
        let (mut skip, mut done) = (at, 0);
        for lease in self.record().segments.iter().flatten() {
            if done >= len {
                break;
            }
            let own = u64::from(lease.len);
            if skip >= own {
                skip -= own;
                continue;
            }
            let piece = (len - done).min((own - skip) as usize);
            // SAFETY: `skip` < the lease's length, so the result is inside the leased range.
            f(unsafe { lease.ptr.add(skip as usize) }, done, piece);
            done += piece;
            skip = 0;
        }
        done
    }

    /// Address and length of lease `index`, for hardware and system calls.
    ///
    /// # Safety
    /// The caller may read (for writes) or write (for reads) the range only while it owns this op,
    /// and must have ended every access before it gives the op away.
    #[must_use]
    pub unsafe fn segment_raw(&self, index: usize) -> Option<(NonNull<u8>, usize)> {
        match self.record().segments.get(index) {
            Some(Some(lease)) => Some((lease.ptr, lease.len())),
            _ => None,
        }
    }

    /// Lends out the memory of this op in parts, to serve it by several operations.
    pub fn lend(mut self) -> LentOp {
        let record = self.record_mut();
        record.bytes_out = 0;
        record.cursor_segment = 0;
        record.cursor_offset = 0;
        LentOp(self)
    }
}
