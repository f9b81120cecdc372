//! Leases, the buffers they come from, and loans.

use core::mem::MaybeUninit;
use core::ptr::NonNull;

/// The exclusive right to read and write one range of memory, on loan.
///
/// Sixteen bytes, also as `Option<Lease>`. A lease is never empty. Dropping one leaks its memory and
/// leaves the request it belongs to incomplete for ever.
#[must_use = "a dropped lease leaks its memory; give it back to its lender"]
pub struct Lease {
    pub(super) ptr: NonNull<u8>,
    pub(super) len: u32,
    pub(super) mark: u32,
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

    pub(super) fn address(&self) -> usize {
        self.ptr.as_ptr() as usize
    }

    pub(super) fn lies_in(&self, ptr: NonNull<u8>, len: usize) -> bool {
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

impl core::fmt::Debug for Lease {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Lease({} bytes)", self.len)
    }
}

impl<B: IoBuffer> core::fmt::Debug for Loan<B> {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "Loan({} of {} bytes out)", self.bytes_out, self.len)
    }
}
