//! An operation whose memory is out in parts.

use super::{Head, Lease, Op, SEGMENTS_MAX};

/// An operation whose leases are out in parts. A type of its own, so that nobody can complete or
/// refill an op while its memory is elsewhere.
///
/// ```compile_fail,E0616
/// fn complete_early(lent: fvd::buffer::LentOp) -> fvd::buffer::Op { lent.0 }
/// ```
#[must_use = "a dropped op never completes and leaks its memory"]
pub struct LentOp(pub(super) Op);

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

impl core::fmt::Debug for LentOp {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_tuple("LentOp").field(&self.head()).finish()
    }
}
