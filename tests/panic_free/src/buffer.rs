//! Memory on loan, ops and arenas.

use core::mem::MaybeUninit;

use fvd::buffer::{Arena, Fingerprint, Head, Lease, LentOp, Loan, Op, OpPool, OpQueue};
use fvd::device::DeviceError;

type Slice = &'static mut [u8];
type Memory = &'static mut [MaybeUninit<u8>];
type Redeemed = Result<Slice, (Loan<Slice>, Lease)>;

keep! {
    fn(Slice) -> Result<(Loan<Slice>, Lease), Slice> = Loan::new;
    fn(Loan<Slice>, Lease) -> Redeemed = Loan::redeem;
    fn(&mut Loan<Slice>, Lease) -> Result<(), Lease> = Loan::give;
    fn(Loan<Slice>) -> Result<Slice, Loan<Slice>> = Loan::finish;

    fn(&mut Op, Result<(), DeviceError>) = Op::complete;
    fn(&Op, usize) -> usize = Op::segment_len;
    fn(&mut Op, Lease) -> Result<(), Lease> = Op::push;
    fn(&mut Op) -> Option<Lease> = Op::pop;
    fn(&Op) -> Fingerprint = Op::fingerprint;
    fn(&mut Op, u64, &[u8]) -> usize = Op::copy_in;
    fn(&Op, u64, &mut [u8]) -> usize = Op::copy_out;
    fn(&mut Op, u64, u64, u8) -> usize = Op::fill;
    fn(&Op, u64, &mut Op, u64, usize) -> usize = Op::copy_to;
    fn(Op) -> LentOp = Op::lend;

    fn(&LentOp) -> usize = LentOp::contiguous;
    fn(&mut LentOp, usize) -> Option<Lease> = LentOp::cut;
    fn(&mut LentOp, usize) -> usize = LentOp::skip_zeroed;
    fn(&mut LentOp, Lease) -> Result<(), Lease> = LentOp::give;
    fn(LentOp) -> Result<Op, LentOp> = LentOp::try_whole;

    fn(&mut OpQueue, Op) = OpQueue::push_back;
    fn(&mut OpQueue, Op) = OpQueue::push_front;
    fn(&mut OpQueue) -> Option<Op> = OpQueue::pop_front;

    fn(&mut Arena, u32) -> Option<OpPool> = OpPool::carve;
    fn(&mut OpPool, Head) -> Option<Op> = OpPool::take;
    fn(&mut OpPool, Op) -> Result<(), Op> = OpPool::put;
    fn(OpPool, &mut Arena) -> Result<(), OpPool> = OpPool::reclaim;

    fn(Memory) -> Result<Arena, Memory> = Arena::new;
    fn(&mut Arena) -> Option<()> = Arena::align_staging;
    fn(&mut Arena, u32) -> Option<Lease> = Arena::carve_lease;
    fn(&mut Arena, Lease) -> Result<(), Lease> = Arena::reclaim_lease;
    fn(Arena) -> Result<Memory, Arena> = Arena::finish;
}
