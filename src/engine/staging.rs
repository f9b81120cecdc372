//! Memory of the engine's own that devices work on: journal units, pages, copies of base blocks.
//!
//! A block of staging memory rests in an op of its own. To send a part of it, the op is lent and the
//! part cut off; when all parts are back, the block is whole again.

use crate::buffer::{Arena, Head, Lease, LentOp, Op, OpPool};

use super::slots::NO_HEAD;

/// One block of staging memory.
pub(crate) enum Staging {
    /// All here.
    Whole(Op),
    /// Parts are out.
    Lent(LentOp),
    /// A layer kept or mangled a part; the memory is leaked.
    Lost,
}

impl Staging {
    /// Carves `bytes` of memory and takes an op to hold it.
    pub(crate) fn carve(arena: &mut Arena, pool: &mut OpPool, bytes: u32) -> Option<Staging> {
        let mut op = pool.take(NO_HEAD)?;
        op.push(arena.carve_lease(bytes)?).ok()?;
        Some(Staging::Whole(op))
    }

    /// Gives op and memory back.
    pub(crate) fn reclaim(self, arena: &mut Arena, pool: &mut OpPool) -> bool {
        let Staging::Whole(mut op) = self else {
            return false;
        };
        let Some(lease) = op.pop() else { return false };
        arena.reclaim_lease(lease).is_ok() && pool.put(op).is_ok()
    }

    /// Bytes of the block.
    pub(crate) fn bytes(&self) -> u64 {
        match self {
            Staging::Whole(op) => op.bytes(),
            Staging::Lent(_) | Staging::Lost => 0,
        }
    }

    /// Copies into the block. False if parts are out or `source` does not fit.
    pub(crate) fn copy_in(&mut self, at: u64, source: &[u8]) -> bool {
        match self {
            Staging::Whole(op) => op.copy_in(at, source) == source.len(),
            Staging::Lent(_) | Staging::Lost => false,
        }
    }

    /// Copies out of the block. False if parts are out or the block is too short.
    pub(crate) fn copy_out(&self, at: u64, target: &mut [u8]) -> bool {
        match self {
            Staging::Whole(op) => op.copy_out(at, target) == target.len(),
            Staging::Lent(_) | Staging::Lost => false,
        }
    }

    /// Sets bytes of the block. False if parts are out or the block is too short.
    pub(crate) fn fill(&mut self, at: u64, len: u64, byte: u8) -> bool {
        match self {
            Staging::Whole(op) => op.fill(at, len, byte) as u64 == len,
            Staging::Lent(_) | Staging::Lost => false,
        }
    }

    /// Cuts the next `len` bytes off, from the start of the block on. `None`, and nothing changes,
    /// if fewer are left.
    pub(crate) fn cut(&mut self, len: u64) -> Option<Lease> {
        let len = usize::try_from(len).ok()?;
        let mut lent = match core::mem::replace(self, Staging::Lost) {
            Staging::Whole(op) => op.lend(),
            Staging::Lent(lent) => lent,
            Staging::Lost => return None,
        };
        let part = if lent.contiguous() >= len {
            lent.cut(len)
        } else {
            None
        };
        *self = Staging::settled(lent);
        part
    }

    /// Cuts `len` bytes off at byte `at`, where the last cut ended. If everything that was cut has come
    /// home meanwhile, the block is whole again and would be cut from its start.
    pub(crate) fn cut_from(&mut self, at: u64, len: u64) -> Option<Lease> {
        let passed = if at != 0 && matches!(self, Staging::Whole(_)) {
            Some(self.cut(at)?)
        } else {
            None
        };
        let part = self.cut(len);
        if let Some(passed) = passed {
            self.give(passed).ok()?;
        }
        part
    }

    /// Takes a part back. A part of other memory stays with the caller.
    ///
    /// # Errors
    /// The lease, if it is not a part of this block.
    pub(crate) fn give(&mut self, part: Lease) -> Result<(), Lease> {
        let mut lent = match core::mem::replace(self, Staging::Lost) {
            Staging::Lent(lent) => lent,
            other => {
                *self = other;
                return Err(part);
            }
        };
        let result = lent.give(part);
        *self = Staging::settled(lent);
        result
    }

    /// The block, whole if no part of it is out.
    fn settled(lent: LentOp) -> Staging {
        match lent.try_whole() {
            Ok(op) => Staging::Whole(op),
            Err(lent) => Staging::Lent(lent),
        }
    }

    /// Sends the first `len` bytes under `head`, in an op from `pool`.
    pub(crate) fn send(&mut self, pool: &mut OpPool, head: Head, len: u64) -> Option<Op> {
        let mut op = pool.take(head)?;
        match self.cut(len) {
            Some(part) => op.push(part).ok().map(|()| op),
            None => {
                // The op carries nothing, so its pool takes it.
                let _ = pool.put(op);
                None
            }
        }
    }

    /// Takes the parts of an op back and the op into its pool. False if a layer kept something.
    pub(crate) fn receive(&mut self, pool: &mut OpPool, mut op: Op) -> bool {
        let mut complete = true;
        for _ in 0..crate::buffer::SEGMENTS_MAX {
            let Some(part) = op.pop() else { break };
            complete &= self.give(part).is_ok();
        }
        complete & pool.put(op).is_ok() & matches!(self, Staging::Whole(_))
    }
}
