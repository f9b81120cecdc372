//! Claims about ownership, each tried to be broken from safe code.

use core::mem::MaybeUninit;

use super::*;
use crate::device::testing::{arena_memory, head, read, write};
use crate::device::{DeviceError, Status};

extern crate std;
use std::vec;
use std::vec::Vec;

// For `expect` on results that carry tokens. Only here: a product has nothing to print about them.
/// The error of a result whose success has nothing to print.
fn refused<T, E>(result: Result<T, E>, why: &str) -> E {
    match result {
        Ok(_) => panic!("not refused: {why}"),
        Err(refusal) => refusal,
    }
}

fn buffer(len: usize) -> &'static mut [u8] {
    vec![0u8; len].leak()
}

fn lend(len: usize) -> (Loan<&'static mut [u8]>, Lease) {
    Loan::new(buffer(len)).expect("legal length")
}

fn pool(count: u32) -> OpPool {
    let bytes = OpPool::arena_bytes(count as usize);
    let mut arena = Arena::new(arena_memory(bytes)).expect("aligned");
    OpPool::carve(&mut arena, count).expect("exact room")
}

/// An op with leases of these lengths, and what lent them.
fn op_over(pool: &mut OpPool, lens: &[usize]) -> (Op, Vec<Loan<&'static mut [u8]>>) {
    let mut op = pool.take(read(0, 0)).expect("free");
    let mut loans = Vec::new();
    for len in lens {
        let (loan, lease) = lend(*len);
        op.push(lease).expect("room");
        loans.push(loan);
    }
    (op, loans)
}

fn bytes_of(op: &Op) -> Vec<u8> {
    let mut bytes = vec![0xEE; op.bytes() as usize];
    assert_eq!(op.copy_out(0, &mut bytes), bytes.len());
    bytes
}

// --- Loan and Lease ---------------------------------------------------------------------------

#[test]
fn an_empty_buffer_can_not_be_lent() {
    assert_eq!(
        Loan::new(buffer(0)).err().map(|buffer| buffer.len()),
        Some(0)
    );
}

#[test]
fn a_loan_is_redeemed_by_its_lease() {
    let (loan, mut lease) = lend(64);
    assert_eq!((lease.len(), lease.mark()), (64, 0));
    lease.set_mark(9);
    assert_eq!(lease.mark(), 9);
    let buffer = loan.redeem(lease).expect("whole");
    assert_eq!(buffer.len(), 64);
}

#[test]
fn a_foreign_lease_redeems_nothing() {
    let ((loan_a, lease_a), (loan_b, lease_b)) = (lend(64), lend(64));
    let (loan_a, lease_b) = refused(loan_a.redeem(lease_b), "not its lease");
    assert!(loan_a.redeem(lease_a).is_ok());
    assert!(loan_b.redeem(lease_b).is_ok());
}

#[test]
fn half_a_loan_redeems_nothing() {
    let mut pool = pool(1);
    let (loan, lease) = lend(64);
    let mut op = pool.take(read(0, 64)).expect("free");
    op.push(lease).expect("room");
    let mut lent = op.lend();
    let (first, second) = (lent.cut(32).expect("32"), lent.cut(32).expect("32"));

    let (mut loan, first) = refused(loan.redeem(first), "half is out");
    loan.give(first).expect("a part of it");
    let loan = refused(loan.finish(), "half is still out");
    // What was given does not count twice: only the second half is still accepted.
    assert!(loan.redeem(second).is_ok());
}

#[test]
fn parts_in_any_order_finish_a_loan() {
    let mut pool = pool(1);
    let (mut loan, lease) = lend(96);
    let mut op = pool.take(read(0, 96)).expect("free");
    op.push(lease).expect("room");
    let mut lent = op.lend();
    let mut parts: Vec<Lease> = core::iter::from_fn(|| lent.cut(32)).collect();
    parts.reverse();
    for part in parts {
        loan.give(part).expect("a part of it");
    }
    assert_eq!(loan.finish().ok().map(|buffer| buffer.len()), Some(96));
}

#[test]
fn a_finished_loan_takes_no_neighbour() {
    let (mut loan, lease) = lend(64);
    loan.give(lease).expect("its own");
    let (other, foreign) = lend(64);
    let foreign = loan.give(foreign).expect_err("foreign");
    assert!(other.redeem(foreign).is_ok());
    assert!(loan.finish().is_ok());
}

// --- Op -------------------------------------------------------------------------------------

#[test]
fn an_op_travels_as_one_pointer() {
    assert_eq!(size_of::<Op>(), size_of::<usize>());
    assert_eq!(size_of::<Result<(), Op>>(), size_of::<usize>());
}

#[test]
fn an_op_carries_eight_leases_and_hands_the_ninth_back() {
    let mut pool = pool(1);
    let (mut op, mut loans) = op_over(&mut pool, &[512; SEGMENTS_MAX]);
    let (loan, ninth) = lend(16);
    let ninth = op.push(ninth).expect_err("full");
    assert!(loan.redeem(ninth).is_ok());
    assert_eq!((op.segment_count(), op.bytes()), (8, 4096));
    assert_eq!((op.segment_len(7), op.segment_len(8)), (512, 0));
    while let Some(lease) = op.pop() {
        let loan = loans.pop().expect("one per lease");
        assert!(
            loan.redeem(lease).is_ok(),
            "the last pushed is popped first"
        );
    }
    assert_eq!(op.bytes(), 0);
    pool.put(op).expect("empty");
}

#[test]
fn completion_sets_the_status_and_nothing_else() {
    let mut pool = pool(1);
    let before = Head {
        tag: 77,
        ..write(512, 1024)
    };
    let mut op = pool.take(before).expect("free");
    op.complete(Err(DeviceError::Io));
    let failed = Status::Failed(DeviceError::Io);
    assert_eq!(
        op.head(),
        Head {
            status: failed,
            ..before
        }
    );
    op.complete(Ok(()));
    assert_eq!(op.status(), Status::Done);
    op.retarget(4096, 5);
    assert_eq!((op.offset(), op.tag(), op.len()), (4096, 5, 1024));
}

#[test]
fn copies_cross_lease_borders_and_stop_at_the_end() {
    let mut pool = pool(1);
    let (mut op, _loans) = op_over(&mut pool, &[3, 5, 2]);
    assert_eq!(op.copy_in(2, &[1, 2, 3, 4, 5, 6, 7]), 7);
    assert_eq!(bytes_of(&op), [0, 0, 1, 2, 3, 4, 5, 6, 7, 0]);
    assert_eq!(op.copy_in(9, &[8, 9]), 1);
    assert_eq!(op.copy_in(10, &[1]), 0);
    assert_eq!(op.copy_in(u64::MAX, &[1]), 0);
    assert_eq!(op.fill(7, 2, 0xFF), 2);
    let mut middle = [0; 4];
    assert_eq!(op.copy_out(6, &mut middle), 4);
    assert_eq!(middle, [5, 0xFF, 0xFF, 8]);
    assert_eq!(op.fill(0, u64::MAX, 0), 10);
    assert_eq!(op.copy_out(8, &mut middle), 2);
}

#[test]
fn bytes_go_from_one_op_to_another_over_different_cuts() {
    let mut pool = pool(2);
    let (mut source, _kept) = op_over(&mut pool, &[4, 4]);
    let (mut target, _kept_too) = op_over(&mut pool, &[1, 9]);
    source.copy_in(0, &[1, 2, 3, 4, 5, 6, 7, 8]);
    assert_eq!(source.copy_to(1, &mut target, 2, 6), 6);
    assert_eq!(bytes_of(&target), [0, 0, 2, 3, 4, 5, 6, 7, 0, 0]);
}

#[test]
fn a_fingerprint_tells_ops_and_memory_apart() {
    let mut pool = pool(2);
    let (mut a, _loans_a) = op_over(&mut pool, &[512]);
    let (mut b, _loans_b) = op_over(&mut pool, &[512]);
    let before = a.fingerprint();
    a.retarget(9, 9);
    a.complete(Ok(()));
    assert_eq!(a.fingerprint(), before, "the head does not count");
    assert_ne!(a.fingerprint(), b.fingerprint());
    let (from_a, from_b) = (a.pop().expect("one"), b.pop().expect("one"));
    a.push(from_b).expect("room");
    b.push(from_a).expect("room");
    assert_ne!(a.fingerprint(), before, "swapped memory is noticed");
}

// --- LentOp ---------------------------------------------------------------------------------

#[test]
fn a_lent_op_is_not_whole_while_parts_are_out() {
    let mut pool = pool(1);
    let (op, _loans) = op_over(&mut pool, &[1024]);
    let mut lent = op.lend();
    let (a, b) = (
        lent.cut(512).expect("first"),
        lent.cut(512).expect("second"),
    );
    assert!(lent.cut(1).is_none(), "nothing is left");
    lent.give(b).expect("its own");
    let mut lent = lent.try_whole().expect_err("one part is out");
    lent.give(a).expect("its own");
    assert_eq!(lent.try_whole().map(|op| op.bytes()).ok(), Some(1024));
}

#[test]
fn cuts_never_span_two_leases() {
    let mut pool = pool(1);
    let (op, _loans) = op_over(&mut pool, &[700, 300]);
    let mut lent = op.lend();
    let mut lens = Vec::new();
    let mut parts = Vec::new();
    assert!(lent.cut(0).is_none());
    while let Some(part) = lent.cut(512) {
        lens.push(part.len());
        parts.push(part);
    }
    assert_eq!(lens, [512, 188, 300]);
    assert_eq!(lent.contiguous(), 0);
    for part in parts {
        lent.give(part).expect("its own");
    }
    assert!(lent.try_whole().is_ok());
}

#[test]
fn a_foreign_lease_does_not_make_a_lent_op_whole() {
    let mut pool = pool(1);
    let (op, _loans) = op_over(&mut pool, &[64]);
    let mut lent = op.lend();
    let part = lent.cut(64).expect("all of it");
    let (other, foreign) = lend(64);
    let foreign = lent.give(foreign).expect_err("foreign");
    assert!(other.redeem(foreign).is_ok());
    let mut lent = lent.try_whole().expect_err("still out");
    lent.give(part).expect("its own");
    assert!(lent.try_whole().is_ok());
}

#[test]
fn a_part_can_be_lent_and_cut_again() {
    let mut pool = pool(2);
    let (op, _loans) = op_over(&mut pool, &[1024]);
    let mut outer = op.lend();
    let part = outer.cut(512).expect("half");
    let mut inner_op = pool.take(read(0, 512)).expect("free");
    inner_op.push(part).expect("room");
    let mut inner = inner_op.lend();
    let (a, b) = (inner.cut(256).expect("a"), inner.cut(256).expect("b"));
    // The grandchildren may go home to the outer lender: all that counts is bytes.
    outer.give(a).expect("lies inside");
    assert!(inner.try_whole().is_err());
    outer.give(b).expect("lies inside");
    assert!(outer.try_whole().is_ok());
}

#[test]
fn zeroed_bytes_are_passed_over_and_not_out() {
    let mut pool = pool(1);
    let (mut op, _loans) = op_over(&mut pool, &[4, 4]);
    op.fill(0, 8, 7);
    let mut lent = op.lend();
    assert_eq!(lent.skip_zeroed(6), 6);
    assert_eq!(lent.contiguous(), 2);
    let part = lent.cut(99).expect("the rest");
    assert_eq!(part.len(), 2);
    assert_eq!(lent.skip_zeroed(1), 0, "at the end");
    lent.give(part).expect("its own");
    let op = lent.try_whole().expect("nothing is out");
    assert_eq!(bytes_of(&op), [0, 0, 0, 0, 0, 0, 7, 7]);
}

// --- OpQueue and OpPool ---------------------------------------------------------------------

#[test]
fn a_queue_is_first_in_first_out_with_a_place_in_front() {
    let mut pool = pool(4);
    let mut queue = OpQueue::new();
    assert!(queue.pop_front().is_none());
    for tag in [1, 2, 3] {
        let op = pool.take(Head {
            tag,
            ..head(crate::device::OpKind::Flush, 0, 0)
        });
        queue.push_back(op.expect("free"));
    }
    let refused = queue.pop_front().expect("three are in it");
    queue.push_front(refused);
    assert_eq!((queue.len(), queue.is_empty()), (3, false));
    for tag in [1, 2, 3] {
        let op = queue.pop_front().expect("three are in it");
        assert_eq!(op.tag(), tag);
        pool.put(op).expect("from this pool");
    }
    assert!(queue.is_empty() && queue.pop_front().is_none());
    let op = pool.take(read(0, 0)).expect("free");
    queue.push_front(op);
    let op = pool.take(read(0, 1)).expect("free");
    queue.push_back(op);
    assert_eq!(queue.pop_front().map(|op| op.len()), Some(0));
    assert_eq!(queue.pop_front().map(|op| op.len()), Some(1));
}

#[test]
fn a_pool_takes_back_only_its_own_empty_ops() {
    let (mut pool_a, mut pool_b) = (pool(1), pool(1));
    let (op, _loans) = op_over(&mut pool_a, &[8]);
    assert!(pool_a.take(read(0, 0)).is_none(), "one record only");
    let mut op = pool_a.put(op).expect_err("it still carries a lease");
    let _lease = op.pop();
    let op = pool_b.put(op).expect_err("not from this pool");
    pool_a.put(op).expect("from this pool, and empty");
    assert_eq!(pool_a.free_count(), 1);
}

#[test]
fn records_go_home_only_when_all_ops_are_free() {
    let memory = arena_memory(OpPool::arena_bytes(2));
    let mut arena = Arena::new(memory).expect("aligned");
    let mut pool = OpPool::carve(&mut arena, 2).expect("exact room");
    let op = pool.take(read(0, 0)).expect("free");
    let mut pool = refused(pool.reclaim(&mut arena), "one op is out");
    pool.put(op).expect("its own");
    let mut other = Arena::new(arena_memory(4096)).expect("aligned");
    let pool = refused(pool.reclaim(&mut other), "another arena");
    assert!(pool.reclaim(&mut arena).is_ok());
    assert!(arena.finish().is_ok());
}

// --- Arena ----------------------------------------------------------------------------------

#[test]
fn sizes_beyond_any_memory_are_the_largest_number() {
    const MOST: usize = usize::MAX;
    assert_eq!(Arena::part_bytes::<u8>(MOST), MOST);
    assert_eq!(
        Arena::part_bytes::<u8>(MOST - 63),
        MOST - 63,
        "a whole part"
    );
    assert_eq!(Arena::part_bytes::<u8>(MOST - 62), MOST);
    assert_eq!(Arena::part_bytes::<u64>(MOST / 2), MOST);
    assert_eq!(Arena::staging_bytes(MOST), MOST);
    assert_eq!(
        Arena::staging_bytes(MOST - 4095),
        MOST - 4095,
        "whole pages"
    );
    assert_eq!(OpPool::arena_bytes(MOST), MOST);
}

#[test]
fn misaligned_memory_is_no_arena() {
    let memory = arena_memory(8192);
    let (_, odd) = memory.split_at_mut(64);
    assert!(Arena::new(odd).is_err());
}

#[test]
fn arena_sizes_are_exact_to_the_byte() {
    let bytes = Arena::staging_bytes(100)
        + Arena::part_bytes::<u64>(9)
        + Arena::part_bytes::<u8>(1)
        + OpPool::arena_bytes(3);
    let carve = |bytes: usize| {
        let mut arena = Arena::new(arena_memory(bytes)).ok()?;
        let lease = arena.carve_lease(100)?;
        let words = arena.carve(9, 5u64)?;
        let byte = arena.carve_with(1, |index| index as u8)?;
        let pool = OpPool::carve(&mut arena, 3)?;
        assert_eq!((&words[..], &byte[..]), (&[5u64; 9][..], &[0u8][..]));
        assert_eq!(arena.remaining(), 0);
        Some((arena, lease, words, byte, pool))
    };
    assert!(carve(bytes - 64).is_none(), "one line short");
    let (mut arena, lease, words, byte, pool) = carve(bytes).expect("exact");
    arena = refused(arena.finish(), "all is out");
    assert!(arena.reclaim(byte).is_ok() && arena.reclaim_lease(lease).is_ok());
    assert!(pool.reclaim(&mut arena).is_ok());
    arena = refused(arena.finish(), "the words are out");
    assert!(arena.reclaim(words).is_ok());
    assert_eq!(arena.finish().ok().map(|memory| memory.len()), Some(bytes));
}

#[test]
fn an_arena_takes_back_only_what_it_gave() {
    let mut a = Arena::new(arena_memory(8192)).expect("aligned");
    let mut b = Arena::new(arena_memory(8192)).expect("aligned");
    let (lease, part) = (
        a.carve_lease(4096).expect("room"),
        a.carve(8, 0u32).expect("room"),
    );
    let lease = b.reclaim_lease(lease).expect_err("foreign");
    let part = refused(b.reclaim(part), "foreign");
    assert!(b.finish().is_ok(), "nothing of it was ever out");
    assert!(a.reclaim_lease(lease).is_ok() && a.reclaim(part).is_ok());
    assert!(a.finish().is_ok());
}

#[test]
fn parts_that_are_too_large_are_refused_and_cost_nothing() {
    let mut arena = Arena::new(arena_memory(4096)).expect("aligned");
    assert!(arena.carve(usize::MAX / 2, 0u64).is_none());
    assert!(arena.carve(513, 0u64).is_none());
    assert!(arena.carve_lease(4097).is_none());
    assert!(arena.carve_lease(0).is_none());
    assert_eq!(arena.remaining(), 4096);
    assert!(arena.carve::<u64>(0, 0).expect("nothing").is_empty());
    let part = arena.carve(8, 1u64).expect("room");
    assert!(
        arena.carve_lease(64).is_none(),
        "staging memory is carved first"
    );
    assert!(arena.reclaim(part).is_ok());
}

#[test]
fn staging_memory_is_zeroed_whatever_was_there() {
    let memory = arena_memory(4096);
    memory.fill(MaybeUninit::new(0xDD));
    let mut arena = Arena::new(memory).expect("aligned");
    let lease = arena.carve_lease(4096).expect("room");
    let mut pool = pool(1);
    let mut op = pool.take(read(0, 4096)).expect("free");
    op.push(lease).expect("room");
    assert!(bytes_of(&op).iter().all(|byte| *byte == 0));
}

#[test]
fn an_arena_is_used_again_after_it_came_home() {
    let mut memory = arena_memory(8192);
    for round in 0..3u8 {
        let mut arena = Arena::new(memory).expect("aligned");
        let mut part = arena.carve(100, round).expect("room");
        assert!(part.iter().all(|byte| *byte == round));
        part[99] = 0xFF;
        assert!(arena.reclaim(part).is_ok());
        memory = arena.finish().expect("all is back");
    }
}

#[test]
fn a_cut_staging_lease_never_counts_for_more_than_it_is() {
    // A one-byte part at the start of a page must not pay for the page: the memory behind it may
    // still be with a device.
    let mut arena = Arena::new(arena_memory(8192)).expect("aligned");
    let lease = arena.carve_lease(8192).expect("room");
    let mut pool = pool(1);
    let mut op = pool.take(read(0, 8192)).expect("free");
    op.push(lease).expect("room");
    let mut lent = op.lend();
    let first = lent.cut(1).expect("a byte");
    let still_out = lent.cut(4095).expect("the rest of its page");
    let second = lent.cut(4096).expect("a page");
    let _ = arena.reclaim_lease(first);
    let _ = arena.reclaim_lease(second);
    assert!(arena.finish().is_err(), "{} bytes are out", still_out.len());
}
