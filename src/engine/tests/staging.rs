//! Staging memory: whole, lent, whole again.

use super::super::staging::Staging;
use crate::buffer::{Arena, Op, OpPool};
use crate::device::testing::{arena_memory, write};

const BYTES: u32 = 4096;

struct Bench {
    arena: Arena,
    holders: OpPool,
    /// Two ops to send parts in.
    ops: OpPool,
    block: Staging,
}

fn bench() -> Bench {
    let bytes = Arena::staging_bytes(BYTES as usize) + 2 * OpPool::arena_bytes(2);
    let mut arena = Arena::new(arena_memory(bytes)).expect("aligned");
    // Staging memory first: it has the stricter alignment.
    let lease = arena.carve_lease(BYTES).expect("room");
    let mut holders = OpPool::carve(&mut arena, 2).expect("room");
    let ops = OpPool::carve(&mut arena, 2).expect("room");
    let mut op = holders.take(write(0, 0)).expect("free");
    op.push(lease).expect("room");
    Bench {
        arena,
        holders,
        ops,
        block: Staging::Whole(op),
    }
}

fn whole(block: &Staging) -> bool {
    matches!(block, Staging::Whole(_))
}

fn send(bench: &mut Bench, len: u64) -> Option<Op> {
    bench.block.send(&mut bench.ops, write(512, len), len)
}

#[test]
fn bytes_go_in_and_out_within_the_block() {
    let mut block = bench().block;
    assert_eq!(block.bytes(), u64::from(BYTES));
    assert!(block.copy_in(4090, b"at end"));
    assert!(!block.copy_in(4091, b"at end"), "one byte too far");
    let mut got = [0; 6];
    assert!(block.copy_out(4090, &mut got));
    assert!(!block.copy_out(4091, &mut got));
    assert!(block.fill(4000, 96, 0x7A));
    assert!(!block.fill(4001, 96, 0x7A));
    assert!(block.copy_out(4090, &mut got));
    assert_eq!(&got, b"zzzzzz");
}

#[test]
fn a_block_with_a_part_out_is_nobodys_to_touch() {
    let mut bench = bench();
    let op = send(&mut bench, 1024).expect("room");
    assert_eq!((op.bytes(), op.head()), (1024, write(512, 1024)));
    let block = &mut bench.block;
    assert_eq!(block.bytes(), 0);
    assert!(!block.copy_in(0, b"x") && !block.copy_out(0, &mut [0]) && !block.fill(0, 1, 0));
    assert!(block.receive(&mut bench.ops, op));
    assert!(whole(block) && block.copy_in(0, b"x"));
    assert_eq!(bench.ops.free_count(), 2);
}

#[test]
fn a_block_is_whole_when_the_last_part_is_back() {
    let mut bench = bench();
    let first = send(&mut bench, 1024).expect("room");
    let second = send(&mut bench, 3072).expect("room");
    assert!(!bench.block.receive(&mut bench.ops, first), "a part is out");
    assert!(bench.block.receive(&mut bench.ops, second));
    assert!(whole(&bench.block));
}

#[test]
fn what_can_not_be_sent_changes_nothing() {
    let mut bench = bench();
    assert!(send(&mut bench, u64::from(BYTES) + 1).is_none(), "too long");
    assert!(whole(&bench.block));
    assert_eq!(bench.ops.free_count(), 2, "its op went home");
    let taken = [write(0, 0); 2].map(|head| bench.ops.take(head).expect("free"));
    assert!(send(&mut bench, 512).is_none(), "no op");
    assert!(whole(&bench.block));
    for op in taken {
        assert!(bench.ops.put(op).is_ok());
    }
    let whole_block = send(&mut bench, u64::from(BYTES)).expect("exactly");
    assert!(send(&mut bench, 1).is_none(), "nothing left to send");
    assert!(bench.block.receive(&mut bench.ops, whole_block));
}

#[test]
fn memory_of_another_block_is_not_taken() {
    let (mut ours, mut other) = (bench(), bench());
    let mut foreign = send(&mut other, 512).expect("room");
    let part = foreign.pop().expect("one part");
    let part = ours.block.give(part).expect_err("nothing of ours is out");
    let own = send(&mut ours, 512).expect("room");
    let part = ours.block.give(part).expect_err("not ours");
    foreign.push(part).expect("room");
    assert!(!ours.block.receive(&mut ours.ops, foreign));
    assert!(
        ours.block.receive(&mut ours.ops, own),
        "ours is still whole"
    );
}

#[test]
fn a_block_at_rest_gives_all_its_memory_back() {
    let mut bench = bench();
    assert!(bench.block.reclaim(&mut bench.arena, &mut bench.holders));
    assert!(bench.holders.reclaim(&mut bench.arena).is_ok());
    assert!(bench.ops.reclaim(&mut bench.arena).is_ok());
    assert!(bench.arena.finish().is_ok());
}

#[test]
fn a_block_is_reclaimed_only_at_rest_and_where_it_came_from() {
    let mut lent = bench();
    let _out = send(&mut lent, 512).expect("room");
    assert!(!lent.block.reclaim(&mut lent.arena, &mut lent.holders));
    let (mut ours, mut other) = (bench(), bench());
    assert!(!other.block.reclaim(&mut ours.arena, &mut other.holders));
    let mut third = bench();
    assert!(!third.block.reclaim(&mut third.arena, &mut ours.holders));
}
