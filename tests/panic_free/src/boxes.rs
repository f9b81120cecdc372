//! Buffers on a heap, which is whatever this program's caller links.

extern crate alloc;

use alloc::boxed::Box;
use core::alloc::{GlobalAlloc, Layout};

use fvd::buffer::{Lease, Loan};

unsafe extern "C" {
    fn fvd_heap_take(bytes: usize, align: usize) -> *mut u8;
    fn fvd_heap_give(memory: *mut u8, bytes: usize, align: usize);
}

struct Elsewhere;

#[global_allocator]
static HEAP: Elsewhere = Elsewhere;

// SAFETY: this library is looked at and never run; a program that linked it would have to define
// both functions as the trait asks.
unsafe impl GlobalAlloc for Elsewhere {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        // SAFETY: as above.
        unsafe { fvd_heap_take(layout.size(), layout.align()) }
    }

    unsafe fn dealloc(&self, memory: *mut u8, layout: Layout) {
        // SAFETY: as above.
        unsafe { fvd_heap_give(memory, layout.size(), layout.align()) }
    }
}

type Buffer = Box<[u8]>;
type Redeemed = Result<Buffer, (Loan<Buffer>, Lease)>;

keep! {
    fn(Buffer) -> Result<(Loan<Buffer>, Lease), Buffer> = Loan::new;
    fn(Loan<Buffer>, Lease) -> Redeemed = Loan::redeem;
    fn(&mut Loan<Buffer>, Lease) -> Result<(), Lease> = Loan::give;
    fn(Loan<Buffer>) -> Result<Buffer, Loan<Buffer>> = Loan::finish;
}
