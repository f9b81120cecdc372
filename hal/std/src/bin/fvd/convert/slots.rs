//! Slots of the copier: one piece of the disk each, its memory and its operations.

use fvd::buffer::{Arena, Head, Lease, LentOp, Loan, Op, OpPool};
use fvd::device::{OpFlags, OpKind, Status};
use fvd_std::arena::leak_arena;

use super::runs::{Run, Runs};
use crate::failure::Failure;

/// Memory of a piece.
pub(super) type Piece = Box<[u8]>;

/// A piece of the disk on its way.
pub(super) struct Slot {
    pub(super) state: State,
    /// Carries the piece out of the source; with it here, the slot has no source read in flight.
    pub(super) source_op: Option<Op>,
    /// Carries the target's content of the same place.
    pub(super) target_op: Option<Op>,
    /// Memory of the piece before, to be used again.
    pub(super) spare: [Option<Piece>; 2],
}

/// What a slot waits for.
pub(super) enum State {
    /// A piece.
    Idle,
    /// The source's content.
    ReadSource { start: u64, loan: Loan<Piece> },
    /// The target's content of the same place.
    ReadTarget {
        start: u64,
        data: Piece,
        loan: Loan<Piece>,
    },
    /// Its writes, some of which may not be submitted yet.
    Write(Writing),
}

/// What is left to do for a piece whose content is known.
pub(super) struct Writing {
    pub(super) runs: Runs,
    /// The piece's memory; `None` for a piece of known zeros.
    pub(super) memory: Option<LentPiece>,
    /// Writes in flight.
    pub(super) outstanding: u32,
}

/// Memory of a piece, out in parts.
pub(super) struct LentPiece {
    lent: LentOp,
    loan: Loan<Piece>,
    /// Place on the disk of the first byte that was neither cut nor passed.
    at: u64,
}

impl LentPiece {
    /// Lends the memory of the piece at `start`, through the op that read it.
    pub(super) fn new(start: u64, mut op: Op, data: Piece) -> Option<LentPiece> {
        let (loan, lease) = Loan::new(data).ok()?;
        op.push(lease).ok()?;
        Some(LentPiece {
            lent: op.lend(),
            loan,
            at: start,
        })
    }

    /// The memory of `run`, which lies behind all runs before.
    pub(super) fn cut(&mut self, run: &Run) -> Option<Lease> {
        while self.at < run.start {
            let skip = usize::try_from(run.start - self.at).ok()?;
            let passed = self.lent.cut(skip)?;
            self.at += passed.len() as u64;
            self.lent.give(passed).ok()?;
        }
        let lease = self.lent.cut(usize::try_from(run.len).ok()?)?;
        self.at += lease.len() as u64;
        Some(lease)
    }

    /// Takes a part back.
    pub(super) fn give(&mut self, lease: Lease) -> Option<()> {
        self.lent.give(lease).ok()
    }

    /// The op and the memory, when all parts are back.
    pub(super) fn finish(self) -> Option<(Op, Piece)> {
        let mut op = self.lent.try_whole().ok()?;
        let data = self.loan.redeem(op.pop()?).ok()?;
        Some((op, data))
    }
}

/// Makes `depth` slots, and a pool of `writes` ops.
pub(super) fn make(depth: usize, writes: u32) -> Option<(Vec<Slot>, OpPool)> {
    let reads = 2 * depth;
    let bytes = OpPool::arena_bytes(reads) + OpPool::arena_bytes(writes as usize);
    let mut arena = Arena::new(leak_arena(bytes)?).ok()?;
    let mut ops = OpPool::carve(&mut arena, u32::try_from(reads).ok()?)?;
    let mut take = || ops.take(head(OpKind::Read, OpFlags::NONE, 0, 0, 0));
    let slots = (0..depth).map(|_| Slot {
        state: State::Idle,
        source_op: take(),
        target_op: take(),
        spare: [None, None],
    });
    Some((slots.collect(), OpPool::carve(&mut arena, writes)?))
}

/// What to ask of a device for slot `index`.
pub(super) fn head(kind: OpKind, flags: OpFlags, offset: u64, len: u64, index: usize) -> Head {
    let tag = index as u64;
    Head::new(kind, offset, len).with_flags(flags).with_tag(tag)
}

/// Has `op` read `len` bytes at `start` into memory, if possible into that of the piece before.
pub(super) fn fill_read(
    mut op: Op,
    index: usize,
    start: u64,
    len: u64,
    spare: Option<Piece>,
) -> Option<(Op, Loan<Piece>)> {
    let len = usize::try_from(len).ok()?;
    let data = spare.filter(|spare| spare.len() == len);
    let (loan, lease) = Loan::new(data.unwrap_or_else(|| vec![0; len].into())).ok()?;
    op.set_head(head(OpKind::Read, OpFlags::NONE, start, len as u64, index));
    op.push(lease).ok()?;
    Some((op, loan))
}

/// Takes the memory of a read home.
///
/// # Errors
/// The read's failure.
pub(super) fn take_home(mut op: Op, loan: Loan<Piece>, side: &str) -> Result<(Op, Piece), Failure> {
    if let Some(failure) = failure_of(&op, side) {
        return Err(failure);
    }
    let data = op.pop().and_then(|lease| loan.redeem(lease).ok());
    data.map(|data| (op, data)).ok_or_else(|| broken(side))
}

/// The failure of an op that came home, in words.
pub(super) fn failure_of(op: &Op, side: &str) -> Option<Failure> {
    let why = match op.status() {
        Status::Done => return None,
        Status::Failed(error) => error.to_string(),
        Status::Pending => "no answer".into(),
    };
    let verb = if op.kind() == OpKind::Read {
        "read"
    } else {
        "write"
    };
    let (start, len) = (op.offset(), op.len());
    let what = format!("cannot {verb} {len} bytes at {start} of {side}");
    Some(Failure::because(what, why))
}

/// A device that broke its contract.
pub(super) fn broken(side: &str) -> Failure {
    Failure::Failed(format!("{side} mixed up its answers"))
}
