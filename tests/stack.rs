//! How deep the stack gets: each call of the engine runs on a painted stack of its own, and the
//! paint that is left tells.
//!
//! `cargo test --release --test stack -- --nocapture` prints the numbers of docs/SIZE.md.
#![cfg(target_arch = "x86_64")]
#![allow(unsafe_code)] // to change stacks

mod common;

use core::arch::asm;
use core::task::Poll;
use std::collections::BTreeMap;

use common::{BLOCK_BYTES, DISK_BYTES, Rng, Setup};
use fvd::buffer::{Lease, Loan, Op};
use fvd::device::{BlockDevice, OpFlags, OpKind};
use fvd::open::{Opening, PROBE_ARENA_BYTES, Probe};
use fvd::stores::{One, Stores, WithBase};
use fvd::units::Instant;

/// Large enough for a panic to be reported from it.
const STACK_BYTES: usize = 192 << 10;
const PAINT: u8 = 0xB7;

/// A call and its outcome, on the way to the other stack and back.
struct Call<F, R> {
    act: Option<F>,
    result: Option<R>,
}

/// Runs the call. A panic that reaches it aborts, as in every `extern "C"` function.
extern "C" fn enter<F: FnOnce() -> R, R>(call: *mut Call<F, R>) {
    // SAFETY: `depth_of` passes a pointer to its own local, which nobody else uses meanwhile.
    let call = unsafe { &mut *call };
    if let Some(act) = call.act.take() {
        call.result = Some(act());
    }
}

/// Runs `act` on a painted stack. Returns how many bytes of it were touched.
fn depth_of<F: FnOnce() -> R, R>(stack: &mut [u8], act: F) -> (usize, R) {
    stack.fill(PAINT);
    let mut call = Call {
        act: Some(act),
        result: None,
    };
    let end = stack.as_mut_ptr_range().end.addr() & !63;
    let top = stack.as_mut_ptr().with_addr(end);
    // SAFETY:
    // 1. `top` is the aligned end of a buffer that is borrowed mutably for the call: nobody else
    //    sees what is pushed there. Overflow of 192 KiB is what the test would find long before.
    // 2. `enter` follows the C calling convention: it returns, does not unwind, keeps r12 and
    //    takes its one argument in rdi; everything else it may change is given as clobbered.
    // 3. The old stack pointer is back before the block ends.
    unsafe {
        asm!(
            "xchg rsp, r12",
            "call {enter}",
            "mov rsp, r12",
            enter = in(reg) enter::<F, R> as extern "C" fn(*mut Call<F, R>),
            in("rdi") &raw mut call,
            inout("r12") top => _,
            clobber_abi("C"),
        );
    }
    let untouched = stack.iter().take_while(|byte| **byte == PAINT).count();
    let used = end - stack.as_ptr().addr() - untouched;
    (used, call.result.expect("the call was made"))
}

/// The deepest call of each kind.
struct Depths {
    stack: Vec<u8>,
    deepest: BTreeMap<&'static str, usize>,
}

impl Depths {
    fn of<R>(&mut self, kind: &'static str, act: impl FnOnce() -> R) -> R {
        let (used, result) = depth_of(&mut self.stack, act);
        let deepest = self.deepest.entry(kind).or_default();
        *deepest = used.max(*deepest);
        result
    }
}

/// Opens, works and closes. What the engine's values themselves take is the caller's: they are in
/// boxes here.
fn session<S: Stores>(depths: &mut Depths, stores: S, seed: u64) -> S {
    let memory = common::memory(PROBE_ARENA_BYTES);
    let mut probe = Box::new(Probe::new(stores, memory, common::options()));
    while depths.of("Probe::poll", || probe.poll(Instant::ZERO)) == Poll::Pending {}
    let probed = probe
        .finish()
        .unwrap_or_else(|failure| panic!("{}", failure.error));
    let memory = common::memory(probed.layout.arena_bytes());
    let mut opening = Box::new(Opening::new(probed.stores, probed.layout, memory));
    while depths.of("Opening::poll", || opening.poll(Instant::ZERO)) == Poll::Pending {}
    let opened = opening.finish();
    let mut disk = Box::new(opened.unwrap_or_else(|failure| panic!("{}", failure.error)));
    let mut client = common::Client::new(16);
    let mut rng = Rng(seed);
    let (loan, lease) = common::lend(128 << 10, 7);
    let mut lease: Option<Lease> = Some(lease);
    for turn in 0..250 {
        let op = match rng.below(8) {
            0 => client.op(OpKind::Flush, OpFlags::NONE, 0, 0, turn),
            1 => {
                let at = rng.below(DISK_BYTES / BLOCK_BYTES - 9) * BLOCK_BYTES;
                client.op(
                    OpKind::WriteZeroes,
                    OpFlags::NONE,
                    at,
                    9 * BLOCK_BYTES,
                    turn,
                )
            }
            2 => {
                let at = rng.below(DISK_BYTES / BLOCK_BYTES - 9) * BLOCK_BYTES;
                client.op(OpKind::Discard, OpFlags::NONE, at, 9 * BLOCK_BYTES, turn)
            }
            pick => {
                let kind = if pick < 5 {
                    OpKind::Read
                } else {
                    OpKind::Write
                };
                let at = rng.below((DISK_BYTES - (128 << 10)) / 512) * 512;
                client.data_op(kind, at, lease.take().expect("home"), turn)
            }
        };
        let refused = depths.of("Disk::submit", || disk.submit(op));
        assert!(refused.is_ok());
        depths.of("Disk::notify", || disk.notify());
        let mut op: Op = loop {
            if let Some(op) = depths.of("Disk::poll", || disk.poll(Instant::ZERO)) {
                break op;
            }
        };
        lease = op.pop().or(lease);
        client.put(op);
    }
    let mut closing = Box::new(disk.close());
    while depths.of("Closing::poll", || closing.poll(Instant::ZERO)) == Poll::Pending {}
    let closed = closing.finish().unwrap_or_else(|_| panic!("all is home"));
    assert_eq!(closed.result, Ok(()));
    let _: &'static mut [u8] = redeem(loan, lease.expect("home"));
    closed.stores
}

fn redeem(loan: Loan<&'static mut [u8]>, lease: Lease) -> &'static mut [u8] {
    loan.redeem(lease)
        .unwrap_or_else(|_| panic!("the same lease"))
}

/// Deepest call there may be, bytes, and what the checks of a test build add.
const BOUND_BYTES: usize = if cfg!(debug_assertions) {
    12 << 10
} else {
    4 << 10
};

#[test]
fn no_call_of_the_engine_takes_more_stack_than_promised() {
    let mut depths = Depths {
        stack: vec![0; STACK_BYTES],
        deepest: BTreeMap::new(),
    };
    // The measure itself: a frame of 3000 bytes shows, and nothing much beside it.
    let frame = depths.of("control", || core::hint::black_box([1u8; 3000]).len());
    assert_eq!(frame, 3000);
    let control = depths.deepest.remove("control").expect("measured");
    assert!((3000..9500).contains(&control), "{control}");
    for used in [false, true] {
        let setup = Setup {
            table: true,
            base_bytes: DISK_BYTES / 2 + 1536,
            external: false,
            used,
        };
        let stores = WithBase::new(One(setup.devices().0), setup.base());
        let stores = session(&mut depths, stores, 3);
        // Once more, on what the first session left.
        session(&mut depths, stores, 4);
    }
    for (call, bytes) in &depths.deepest {
        println!("{call}: {bytes} bytes");
    }
    for (call, bytes) in depths.deepest {
        assert!(bytes <= BOUND_BYTES, "{call} takes {bytes} bytes of stack");
    }
}
