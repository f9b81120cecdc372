//! Ownership of memory while devices work on it. The only unsafe code of the core.
//!
//! A borrow that ends when a call returns is unsound once hardware writes to the memory later, so
//! nothing here borrows. Whoever owns memory *lends* it: a linear token for a range goes out, and
//! the memory is usable again only when every byte is back.
//!
//! | lender | token that goes out | whole again |
//! | --- | --- | --- |
//! | [`Loan`] over an [`IoBuffer`] | one [`Lease`] | [`Loan::redeem`] |
//! | [`LentOp`] over a split request | a [`Lease`] per part | [`LentOp::try_whole`] |
//! | [`Arena`] over `'static` memory | [`Part`], staging [`Lease`], op records | [`Arena::finish`] |
//!
//! Invariants, on which every SAFETY argument below rests:
//! 1. **Linear.** No token is `Clone` or `Copy`, has public fields or a public constructor, and no
//!    safe code ever gets a `&mut Lease` or `&mut Record` that `mem::swap` could abuse.
//! 2. **Disjoint.** A lender cuts tokens from a cursor that only moves forward, so at any time the
//!    tokens that exist cover disjoint bytes, and no byte that its lender could still touch.
//! 3. **Conservation.** A lender counts the bytes out and takes back only tokens that lie inside its
//!    range. By 1 and 2 such a token descends from this lender, so "bytes out = 0" proves that no
//!    other token for the range exists. No tag, generation or owner id enters the argument, hence a
//!    device that mixes up its completions can confuse data but never memory.
//! 4. **Leak rather than free.** Dropping a lender or a token leaks the memory behind it. No address
//!    is ever reused while a token for it may exist.
//!
//! What this module does not do: it never forms a Rust reference to memory that is lent, except for
//! the `&[u8]`/`&mut [u8]` that callers of `copy_*` pass for the *other* side of a copy.
#![allow(unsafe_code)]

use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ops::{Deref, DerefMut};
use core::ptr::NonNull;

use crate::device::{DeviceError, OpFlags, OpKind, Status};

/// Most leases that one operation carries.
///
/// Copy-on-write of a partial block needs three (head, guest data, tail); longer guest lists are
/// split by the front end.
pub const SEGMENTS_MAX: usize = 8;

/// Alignment that an arena must have, and that staging memory gets.
pub const ARENA_ALIGN: usize = 4096;

/// Alignment of every typed part of an arena: one cache line on the targets we care about.
const PART_ALIGN: usize = 64;

// ---------------------------------------------------------------------------------------------
// Leases and loans
// ---------------------------------------------------------------------------------------------

/// The exclusive right to read and write one range of memory, on loan.
///
/// Sixteen bytes, also as `Option<Lease>`. A lease is never empty. Dropping one leaks its memory and
/// leaves the request it belongs to incomplete for ever.
#[must_use = "a dropped lease leaks its memory; give it back to its lender"]
pub struct Lease {
    ptr: NonNull<u8>,
    len: u32,
    mark: u32,
}

// SAFETY: a lease is the only right to its bytes (invariants 1 and 2), so moving it to another
// thread moves the right. It is deliberately not `Sync`.
unsafe impl Send for Lease {}

impl Lease {
    /// Bytes in the range, never 0.
    #[must_use]
    #[allow(clippy::len_without_is_empty)] // a lease is never empty
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// A word for the lender's own use, such as which part came home. 0 until set.
    #[must_use]
    pub fn mark(&self) -> u32 {
        self.mark
    }

    /// Sets the lender's word.
    pub fn set_mark(&mut self, mark: u32) {
        self.mark = mark;
    }

    fn address(&self) -> usize {
        self.ptr.as_ptr() as usize
    }

    fn lies_in(&self, ptr: NonNull<u8>, len: usize) -> bool {
        let (start, own) = (ptr.as_ptr() as usize, self.address());
        own >= start && own - start <= len && self.len as usize <= len - (own - start)
    }
}

/// Memory that can be lent to a disk.
///
/// # Safety
/// For an implementor `b`, from the call of `region` until `b` is next used or dropped:
/// 1. `region` returns a range that is initialised, valid for reads and writes of its length, and
///    accessed through nothing but the returned pointer;
/// 2. the range does not move when `b` moves;
/// 3. forgetting `b` leaves the range valid for ever (it owns it, or it is `'static`).
pub unsafe trait IoBuffer: 'static {
    /// The whole range. Lengths above `u32::MAX` bytes can not be lent.
    fn region(&mut self) -> (NonNull<u8>, usize);
}

// SAFETY: a `'static` exclusive borrow is initialised, unmoving and stays valid when forgotten.
unsafe impl IoBuffer for &'static mut [u8] {
    fn region(&mut self) -> (NonNull<u8>, usize) {
        let len = self.len();
        (NonNull::from(&mut **self).cast(), len)
    }
}

#[cfg(feature = "alloc")]
extern crate alloc;

// SAFETY: the heap block is initialised, does not move with the box, and leaks when forgotten.
#[cfg(feature = "alloc")]
unsafe impl IoBuffer for alloc::boxed::Box<[u8]> {
    fn region(&mut self) -> (NonNull<u8>, usize) {
        let len = self.len();
        (NonNull::from(&mut **self).cast(), len)
    }
}

/// A buffer whose memory is out on loan.
///
/// ```
/// use fvd::buffer::Loan;
///
/// let buffer: &'static mut [u8] = Box::leak(vec![7u8; 4096].into_boxed_slice());
/// let (loan, lease) = Loan::new(buffer).unwrap_or_else(|_| unreachable!());
/// let buffer = loan.redeem(lease).unwrap_or_else(|_| unreachable!());
/// assert_eq!(buffer[0], 7);
/// ```
///
/// A lease can not be copied or made by hand:
///
/// ```compile_fail,E0599
/// let (loan, lease) = fvd::buffer::Loan::new(Box::leak(Box::new([0u8; 8])) as &'static mut [u8]).ok().unwrap();
/// let twice = (lease.clone(), lease);
/// ```
/// ```compile_fail,E0451
/// let lease = fvd::buffer::Lease { ptr: core::ptr::NonNull::dangling(), len: 1, mark: 0 };
/// ```
#[must_use = "a dropped loan leaks its buffer"]
pub struct Loan<B: IoBuffer> {
    /// `MaybeUninit`, so that moving the loan asserts nothing about who may use the memory, and so
    /// that dropping it leaks.
    buffer: MaybeUninit<B>,
    ptr: NonNull<u8>,
    len: usize,
    bytes_out: usize,
}

// SAFETY: the loan does not touch the memory; it only carries `B` home.
unsafe impl<B: IoBuffer + Send> Send for Loan<B> {}

impl<B: IoBuffer> Loan<B> {
    /// Lends the whole of `buffer`.
    ///
    /// # Errors
    /// Gives `buffer` back if it is empty or longer than `u32::MAX` bytes.
    pub fn new(mut buffer: B) -> Result<(Loan<B>, Lease), B> {
        let (ptr, len) = buffer.region();
        let Ok(len32) = u32::try_from(len) else {
            return Err(buffer);
        };
        if len32 == 0 {
            return Err(buffer);
        }
        let lease = Lease {
            ptr,
            len: len32,
            mark: 0,
        };
        Ok((
            Loan {
                buffer: MaybeUninit::new(buffer),
                ptr,
                len,
                bytes_out: len,
            },
            lease,
        ))
    }

    /// Gives the buffer back for the lease that brings home all that is still out.
    ///
    /// # Errors
    /// Gives both back if the lease is not this loan's, or if other parts are still out. Hand parts
    /// in with [`Loan::give`] and end with [`Loan::finish`].
    pub fn redeem(mut self, lease: Lease) -> Result<B, (Loan<B>, Lease)> {
        if lease.len() != self.bytes_out {
            return Err((self, lease));
        }
        match self.give(lease) {
            Err(lease) => Err((self, lease)),
            // SAFETY: see `finish`; every byte is back, since the lease was all that was out.
            Ok(()) => Ok(unsafe { self.buffer.assume_init_read() }),
        }
    }

    /// Credits a part of the loan.
    ///
    /// # Errors
    /// Gives back a lease that does not lie inside this buffer.
    pub fn give(&mut self, lease: Lease) -> Result<(), Lease> {
        if !lease.lies_in(self.ptr, self.len) || lease.len() > self.bytes_out {
            return Err(lease);
        }
        self.bytes_out -= lease.len();
        Ok(())
    }

    /// The buffer, when every byte is back.
    ///
    /// # Errors
    /// Gives the loan back while bytes are out.
    pub fn finish(self) -> Result<B, Loan<B>> {
        if self.bytes_out != 0 {
            return Err(self);
        }
        // SAFETY:
        // 1. `buffer` was initialised in `new` and `self` is consumed, so it is taken once;
        // 2. no lease for its memory exists (invariant 3), so `B` may be used again.
        Ok(unsafe { self.buffer.assume_init_read() })
    }
}

// ---------------------------------------------------------------------------------------------
// Operation records
// ---------------------------------------------------------------------------------------------

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

const EMPTY_HEAD: Head = Head {
    kind: OpKind::Flush,
    flags: OpFlags::NONE,
    status: Status::Pending,
    offset: 0,
    len: 0,
    tag: 0,
};

/// Backing memory of an [`Op`]; lives in an arena and is only reached through its owner.
struct Record {
    head: Head,
    /// Intrusive link: free list, wait list or a device's queue, whoever owns the op.
    next: Option<NonNull<Record>>,
    /// Bytes of all segments together.
    bytes: u64,
    /// While lent: bytes cut off and not yet back.
    bytes_out: u64,
    /// While lent: where the next cut starts.
    cursor_segment: u32,
    cursor_offset: u32,
    count: u32,
    segments: [Option<Lease>; SEGMENTS_MAX],
}

static_assertions::assert_eq_size!(Option<Op>, usize);
static_assertions::assert_eq_size!(Option<LentOp>, usize);
static_assertions::assert_impl_all!(Op: Send);
static_assertions::assert_not_impl_any!(Op: Sync, Clone, Copy);
static_assertions::assert_impl_all!(Lease: Send);
static_assertions::assert_not_impl_any!(Lease: Sync, Clone, Copy);
#[cfg(target_pointer_width = "64")]
static_assertions::const_assert!(core::mem::size_of::<Option<Lease>>() == 16);

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
pub struct Op(NonNull<Record>);

// SAFETY: an op is the only path to its record (invariant 1) and to the leases in it, both `Send`.
unsafe impl Send for Op {}

impl core::fmt::Debug for Lease {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Lease({} bytes)", self.len)
    }
}

impl core::fmt::Debug for LentOp {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("LentOp").field(&self.head()).finish()
    }
}

impl<B: IoBuffer> core::fmt::Debug for Loan<B> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Loan({} of {} bytes out)", self.bytes_out, self.len)
    }
}

impl core::fmt::Debug for Arena {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Arena({} of {} bytes used)", self.used, self.len)
    }
}

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
    fn record(&self) -> &Record {
        // SAFETY: the record outlives the op (it lies in an arena, invariant 4) and `&self` of its
        // only owner keeps others from writing to it.
        unsafe { self.0.as_ref() }
    }

    fn record_mut(&mut self) -> &mut Record {
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

/// An operation whose leases are out in parts. A type of its own, so that nobody can complete or
/// refill an op while its memory is elsewhere.
///
/// ```compile_fail,E0616
/// fn complete_early(lent: fvd::buffer::LentOp) -> fvd::buffer::Op { lent.0 }
/// ```
#[must_use = "a dropped op never completes and leaks its memory"]
pub struct LentOp(Op);

impl LentOp {
    /// The operation's head, by value.
    #[must_use]
    pub fn head(&self) -> Head {
        self.0.head()
    }

    /// Bytes not cut off yet.
    #[must_use]
    pub fn contiguous(&self) -> usize {
        let record = self.0.record();
        match record.segments.get(record.cursor_segment as usize) {
            Some(Some(lease)) => (lease.len - record.cursor_offset) as usize,
            _ => 0,
        }
    }

    /// Cuts the next contiguous part, at most `max` bytes. `None` at the end or for `max` = 0.
    pub fn cut(&mut self, max: usize) -> Option<Lease> {
        let record = self.0.record_mut();
        let lease = record
            .segments
            .get(record.cursor_segment as usize)?
            .as_ref()?;
        let rest = lease.len - record.cursor_offset;
        let len = u32::try_from(max).unwrap_or(u32::MAX).min(rest);
        if len == 0 {
            return None;
        }
        // SAFETY: `cursor_offset` < the lease's length. The part is disjoint from all earlier ones,
        // since the cursor only moves forward until everything is back.
        let ptr = unsafe { lease.ptr.add(record.cursor_offset as usize) };
        record.bytes_out += u64::from(len);
        if len == rest {
            record.cursor_segment += 1;
            record.cursor_offset = 0;
        } else {
            record.cursor_offset += len;
        }
        Some(Lease { ptr, len, mark: 0 })
    }

    /// Fills the next `len` bytes with zeros and passes over them, without cutting. Returns the bytes
    /// passed, fewer only at the end.
    pub fn skip_zeroed(&mut self, len: usize) -> usize {
        let mut done = 0;
        for _ in 0..SEGMENTS_MAX {
            if done >= len {
                break;
            }
            let Some(part) = self.cut(len - done) else {
                break;
            };
            // SAFETY: the part was just cut, so this is the only access to its bytes.
            unsafe { core::ptr::write_bytes(part.ptr.as_ptr(), 0, part.len()) };
            done += part.len();
            self.0.record_mut().bytes_out -= u64::from(part.len);
        }
        done
    }

    /// Credits a part that came home.
    ///
    /// # Errors
    /// Gives back a lease that is not part of this op.
    pub fn give(&mut self, lease: Lease) -> Result<(), Lease> {
        let record = self.0.record_mut();
        let ours = record
            .segments
            .iter()
            .flatten()
            .any(|own| lease.lies_in(own.ptr, own.len()));
        if !ours || u64::from(lease.len) > record.bytes_out {
            return Err(lease);
        }
        record.bytes_out -= u64::from(lease.len);
        Ok(())
    }

    /// The op with its leases, when every byte is back.
    ///
    /// # Errors
    /// Gives itself back while bytes are out.
    pub fn try_whole(self) -> Result<Op, LentOp> {
        if self.0.record().bytes_out == 0 {
            Ok(self.0)
        } else {
            Err(self)
        }
    }
}

/// A first-in first-out list of ops, linked through the ops themselves: no storage of its own.
#[must_use = "dropping a queue leaks the ops in it"]
pub struct OpQueue {
    head: Option<NonNull<Record>>,
    tail: Option<NonNull<Record>>,
    len: u32,
}

// SAFETY: the queue owns its ops, which are `Send`.
unsafe impl Send for OpQueue {}

impl Default for OpQueue {
    fn default() -> OpQueue {
        OpQueue::new()
    }
}

impl OpQueue {
    /// An empty queue.
    pub const fn new() -> OpQueue {
        OpQueue {
            head: None,
            tail: None,
            len: 0,
        }
    }

    /// Ops in the queue.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether the queue holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.head.is_none()
    }

    /// Appends an op.
    pub fn push_back(&mut self, mut op: Op) {
        op.record_mut().next = None;
        match self.tail {
            // SAFETY: `tail` is a record this queue owns; nobody else has a reference to it.
            Some(mut tail) => unsafe { tail.as_mut().next = Some(op.0) },
            None => self.head = Some(op.0),
        }
        self.tail = Some(op.0);
        self.len += 1;
    }

    /// Prepends an op, such as one a device refused.
    pub fn push_front(&mut self, mut op: Op) {
        op.record_mut().next = self.head;
        if self.head.is_none() {
            self.tail = Some(op.0);
        }
        self.head = Some(op.0);
        self.len += 1;
    }

    /// Takes the oldest op.
    pub fn pop_front(&mut self) -> Option<Op> {
        let mut op = Op(self.head?);
        self.head = op.record_mut().next.take();
        if self.head.is_none() {
            self.tail = None;
        }
        self.len = self.len.saturating_sub(1);
        Some(op)
    }
}

/// A fixed number of op records, all from one arena.
pub struct OpPool {
    free: OpQueue,
    start: NonNull<Record>,
    count: u32,
}

// SAFETY: the pool owns its free ops and only compares `start` by address.
unsafe impl Send for OpPool {}

impl OpPool {
    /// Bytes of arena that `count` records take.
    #[must_use]
    pub const fn arena_bytes(count: usize) -> usize {
        Arena::part_bytes::<Record>(count)
    }

    /// Carves `count` records from an arena. `None` if it has too little room.
    #[must_use]
    pub fn carve(arena: &mut Arena, count: u32) -> Option<OpPool> {
        let part = arena.carve_with(count as usize, |_| Record {
            head: EMPTY_HEAD,
            next: None,
            bytes: 0,
            bytes_out: 0,
            cursor_segment: 0,
            cursor_offset: 0,
            count: 0,
            segments: [const { None }; SEGMENTS_MAX],
        })?;
        let start = part.ptr;
        let mut free = OpQueue::new();
        for index in 0..count as usize {
            // SAFETY: `index` < the part's length. Each record becomes one op, once; the part
            // itself ends here and comes back through `reclaim` when all ops are free.
            free.push_back(Op(unsafe { start.add(index) }));
        }
        Some(OpPool { free, start, count })
    }

    /// An op without leases, set to `head`. `None` if all are in use.
    pub fn take(&mut self, head: Head) -> Option<Op> {
        let mut op = self.free.pop_front()?;
        op.record_mut().head = head;
        Some(op)
    }

    /// Ops that can be taken.
    #[must_use]
    pub fn free_count(&self) -> usize {
        self.free.len()
    }

    /// Takes an op back. It must carry no leases.
    ///
    /// # Errors
    /// Gives back an op that still carries leases or that is not from this pool.
    pub fn put(&mut self, op: Op) -> Result<(), Op> {
        let (start, own) = (self.start.as_ptr() as usize, op.0.as_ptr() as usize);
        let ours = own >= start && own - start < self.count as usize * size_of::<Record>();
        if !ours || op.segment_count() != 0 {
            return Err(op);
        }
        self.free.push_front(op);
        Ok(())
    }

    /// Gives the records back to the arena they came from.
    ///
    /// # Errors
    /// Gives the pool back while ops are out, or if the arena is another one.
    pub fn reclaim(self, arena: &mut Arena) -> Result<(), OpPool> {
        if self.free.len() != self.count as usize {
            return Err(self);
        }
        let part: Part<Record> = Part {
            ptr: self.start,
            len: self.count as usize,
            owns: PhantomData,
        };
        // All ops are in `free`, which is forgotten with `self`: the part is the only owner again.
        arena.reclaim(part).map_err(|_| self)
    }
}

// ---------------------------------------------------------------------------------------------
// Arena
// ---------------------------------------------------------------------------------------------

/// Typed memory from an arena, owned by whoever holds this. Has no `Drop`: dropping it leaks.
pub struct Part<T> {
    ptr: NonNull<T>,
    len: usize,
    owns: PhantomData<T>,
}

// SAFETY: a part owns its elements exclusively, like a boxed slice.
unsafe impl<T: Send> Send for Part<T> {}
// SAFETY: sharing a part only shares its elements.
unsafe impl<T: Sync> Sync for Part<T> {}

impl<T> Deref for Part<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        // SAFETY: `len` initialised elements that this part owns; `'static` arena memory.
        unsafe { core::slice::from_raw_parts(self.ptr.as_ptr(), self.len) }
    }
}

impl<T> DerefMut for Part<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        // SAFETY: as above, and `&mut self` is exclusive.
        unsafe { core::slice::from_raw_parts_mut(self.ptr.as_ptr(), self.len) }
    }
}

impl<T> Part<T> {
    /// A part of no elements.
    #[must_use]
    pub const fn empty() -> Part<T> {
        Part {
            ptr: NonNull::dangling(),
            len: 0,
            owns: PhantomData,
        }
    }
}

/// The one block of memory that a caller lends to a disk.
///
/// Everything a disk needs is carved from it front to back; [`Arena::finish`] gives it back when all
/// parts have returned.
pub struct Arena {
    start: NonNull<u8>,
    len: usize,
    used: usize,
    returned: usize,
}

// SAFETY: the arena is the only owner of the bytes that it has not handed out.
unsafe impl Send for Arena {}

impl Arena {
    /// Takes memory that starts at a multiple of [`ARENA_ALIGN`].
    ///
    /// # Errors
    /// Gives the memory back if it is not aligned so.
    pub fn new(
        memory: &'static mut [MaybeUninit<u8>],
    ) -> Result<Arena, &'static mut [MaybeUninit<u8>]> {
        if !(memory.as_ptr() as usize).is_multiple_of(ARENA_ALIGN) {
            return Err(memory);
        }
        let len = memory.len();
        Ok(Arena {
            start: NonNull::from(memory).cast(),
            len,
            used: 0,
            returned: 0,
        })
    }

    /// Bytes that a part of `count` elements takes.
    #[must_use]
    pub const fn part_bytes<T>(count: usize) -> usize {
        size_of::<T>()
            .saturating_mul(count)
            .next_multiple_of(PART_ALIGN)
    }

    /// Bytes that a staging lease takes.
    #[must_use]
    pub const fn staging_bytes(len: usize) -> usize {
        len.next_multiple_of(ARENA_ALIGN)
    }

    /// Bytes not handed out yet.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.len - self.used
    }

    fn take(&mut self, bytes: usize) -> Option<NonNull<u8>> {
        if bytes > self.remaining() {
            return None;
        }
        // SAFETY: `used + bytes` <= `len`.
        let ptr = unsafe { self.start.add(self.used) };
        self.used += bytes;
        Some(ptr)
    }

    /// Carves `count` elements, each made by `make(index)`. `None` if there is too little room.
    #[must_use]
    pub fn carve_with<T>(
        &mut self,
        count: usize,
        mut make: impl FnMut(usize) -> T,
    ) -> Option<Part<T>> {
        const { assert!(align_of::<T>() <= PART_ALIGN) }
        if count == 0 {
            return Some(Part::empty());
        }
        if size_of::<T>()
            .checked_mul(count)
            .is_none_or(|bytes| bytes > self.remaining())
        {
            return None;
        }
        let ptr = self.take(Arena::part_bytes::<T>(count))?.cast::<T>();
        for index in 0..count {
            // SAFETY: the range is ours, `count` elements long, and aligned: the arena starts at a
            // multiple of 4096 and every part is a multiple of `PART_ALIGN` long.
            unsafe { ptr.add(index).write(make(index)) };
        }
        Some(Part {
            ptr,
            len: count,
            owns: PhantomData,
        })
    }

    /// Carves `count` copies of `value`. `None` if there is too little room.
    #[must_use]
    pub fn carve<T: Copy>(&mut self, count: usize, value: T) -> Option<Part<T>> {
        self.carve_with(count, |_| value)
    }

    /// Passes over bytes up to the next multiple of [`ARENA_ALIGN`], so that staging memory can be
    /// carved. `None` if there is too little room.
    #[must_use]
    pub fn align_staging(&mut self) -> Option<()> {
        let padding = self.used.next_multiple_of(ARENA_ALIGN) - self.used;
        self.take(padding)?;
        self.returned += padding;
        Some(())
    }

    /// Carves zeroed staging memory that devices can work on. `None` if there is too little room or
    /// `len` is 0. Carve staging memory first: it takes multiples of [`ARENA_ALIGN`].
    #[must_use]
    pub fn carve_lease(&mut self, len: u32) -> Option<Lease> {
        if len == 0 || !self.used.is_multiple_of(ARENA_ALIGN) {
            return None;
        }
        let ptr = self.take(Arena::staging_bytes(len as usize))?;
        // The padding is never handed out, so it counts as returned at once; the lease counts to the
        // byte, whole or in parts.
        self.returned += Arena::staging_bytes(len as usize) - len as usize;
        // SAFETY: the range is ours and at least `len` bytes long.
        unsafe { ptr.write_bytes(0, len as usize) };
        Some(Lease { ptr, len, mark: 0 })
    }

    /// Takes a part back.
    ///
    /// # Errors
    /// Gives back a part of another arena.
    pub fn reclaim<T>(&mut self, part: Part<T>) -> Result<(), Part<T>> {
        if part.len == 0 {
            return Ok(());
        }
        let bytes = Arena::part_bytes::<T>(part.len);
        if !self.holds(part.ptr.as_ptr() as usize, bytes) {
            return Err(part);
        }
        self.returned += bytes;
        Ok(())
    }

    /// Takes a staging lease back, whole or in parts.
    ///
    /// # Errors
    /// Gives back a lease of other memory.
    pub fn reclaim_lease(&mut self, lease: Lease) -> Result<(), Lease> {
        if !self.holds(lease.address(), lease.len()) {
            return Err(lease);
        }
        self.returned += lease.len();
        Ok(())
    }

    fn holds(&self, address: usize, bytes: usize) -> bool {
        let start = self.start.as_ptr() as usize;
        address >= start
            && address - start <= self.used
            && bytes <= self.used - (address - start)
            && bytes <= self.used - self.returned
    }

    /// The memory, when every part is back.
    ///
    /// # Errors
    /// Gives the arena back while parts are out.
    pub fn finish(self) -> Result<&'static mut [MaybeUninit<u8>], Arena> {
        if self.returned != self.used {
            return Err(self);
        }
        // SAFETY: `start` and `len` are those of the `'static` exclusive slice given to `new`, and no
        // token for any byte of it exists any more (invariant 3). `MaybeUninit` allows any content.
        Ok(unsafe { core::slice::from_raw_parts_mut(self.start.as_ptr().cast(), self.len) })
    }
}

#[cfg(test)]
mod tests;
