//! What a request waits for and what it does not, and how little it sends when it goes.

mod common;

use common::guest::{based, options, plain};
use common::{BLOCK_BYTES, CHUNK_BYTES, DISK_BYTES, Setup};
use fvd::buffer::Head;
use fvd::device::OpKind;
use fvd::open::OpenOptions;

const TABLE: Setup = Setup {
    table: true,
    base_bytes: 0,
    external: true,
    used: false,
};
const USED: Setup = Setup {
    used: true,
    ..TABLE
};
const OVER_BASE: Setup = Setup {
    base_bytes: DISK_BYTES,
    ..TABLE
};

/// A request may touch four chunks, and nothing else may then be on its way to the journal.
fn four_mappings() -> OpenOptions {
    OpenOptions {
        pending_max: 4,
        ..options()
    }
}

fn is_write(head: &Head) -> bool {
    head.kind == OpKind::Write
}

fn is_flush(head: &Head) -> bool {
    head.kind == OpKind::Flush
}

#[test]
fn two_writes_of_a_fresh_chunk_run_side_by_side() {
    // Also when the chunk is the only one that is fresh.
    for floor_step_chunks in [16, 1] {
        let options = OpenOptions {
            floor_step_chunks,
            ..options()
        };
        let mut guest = plain(&TABLE, options);
        guest.hold(is_write);
        guest.start(OpKind::Write, 0, 512, 1);
        guest.start(OpKind::Write, BLOCK_BYTES, 512, 2);
        assert_eq!(guest.settle(), 0);
        assert_eq!(guest.sent().len(), 2, "{floor_step_chunks}");
        // Nothing orders what the guest sends at once.
        guest.start(OpKind::Write, 0, 1024, 3);
        assert_eq!(guest.settle(), 0);
        assert_eq!(guest.sent().len(), 3);
        guest.release();
        assert_eq!(guest.settle(), 3);
        common::close(guest.disk);
    }
}

#[test]
fn two_blocks_of_a_used_chunk_that_the_base_hides_are_written_side_by_side_and_nothing_is_zeroed() {
    let setup = Setup {
        used: true,
        ..OVER_BASE
    };
    let mut guest = based(&setup, options());
    guest.hold(is_write);
    guest.start(OpKind::Write, 0, BLOCK_BYTES, 1);
    guest.start(OpKind::Write, BLOCK_BYTES, BLOCK_BYTES, 2);
    assert_eq!(guest.settle(), 0);
    assert_eq!(guest.sent().len(), 2);
    guest.release();
    assert_eq!(guest.settle(), 2);
    assert_eq!(guest.disk.stats().chunks_zeroed, 0);
    common::close(guest.disk);
}

#[test]
fn nobody_writes_to_a_used_chunk_while_it_is_zeroed() {
    let mut guest = plain(&USED, options());
    guest.hold(is_write);
    guest.start(OpKind::Write, 0, 512, 1);
    guest.start(OpKind::Write, BLOCK_BYTES, 512, 2);
    assert_eq!(guest.settle(), 0);
    let [zeros] = guest.sent() else {
        panic!("not only the zeros: {:?}", guest.sent());
    };
    assert_eq!(zeros.len, CHUNK_BYTES);
    guest.release();
    assert_eq!(guest.settle(), 2);
    let mut expected = vec![0; CHUNK_BYTES as usize];
    expected[..512].fill(1);
    expected[BLOCK_BYTES as usize..][..512].fill(2);
    assert_eq!(guest.read(0, CHUNK_BYTES), expected);
    common::close(guest.disk);
}

#[test]
fn a_write_waits_for_zeros_on_the_same_block_and_otherwise_is_sent_at_once() {
    let mut guest = plain(&TABLE, options());
    guest.run(OpKind::Write, 0, CHUNK_BYTES, 1);
    guest.run(OpKind::Flush, 0, 0, 0);
    guest.hold(is_write);
    // Nothing polls the disk.
    guest.start(OpKind::Write, 0, 512, 2);
    assert_eq!(guest.sent().len(), 1);
    guest.release();
    assert_eq!(guest.settle(), 1);

    guest.hold(is_write);
    guest.start(OpKind::WriteZeroes, 0, BLOCK_BYTES, 0);
    assert_eq!(guest.settle(), 0);
    guest.start(OpKind::Write, 0, 512, 3);
    assert_eq!(guest.settle(), 0);
    assert_eq!(guest.sent().len(), 1);
    guest.release();
    assert_eq!(guest.settle(), 2);
    let mut expected = vec![0; BLOCK_BYTES as usize];
    expected[..512].fill(3);
    assert_eq!(guest.read(0, BLOCK_BYTES), expected);
    common::close(guest.disk);
}

#[test]
fn a_flush_never_joins_a_commit_that_is_under_way() {
    let mut guest = plain(&TABLE, options());
    guest.run(OpKind::Write, 0, 512, 1);
    let before = guest.commits();
    guest.hold(is_flush);
    guest.start(OpKind::Flush, 0, 0, 0);
    assert_eq!(guest.settle(), 0);
    // The flush of the first commit need not cover this one.
    guest.run(OpKind::Write, CHUNK_BYTES, 512, 2);
    guest.start(OpKind::Flush, 0, 0, 0);
    assert_eq!(guest.settle(), 0);
    guest.release();
    assert_eq!(guest.settle(), 2);
    assert_eq!(guest.commits(), before + 2);
    common::close(guest.disk);
}

#[test]
fn with_too_few_places_for_mappings_a_write_waits_and_then_ends() {
    let mut guest = plain(&TABLE, four_mappings());
    guest.run(OpKind::Write, 50 * CHUNK_BYTES, 512, 1);
    guest.run(OpKind::Flush, 0, 0, 0);
    let before = guest.commits();
    guest.hold(is_write);
    guest.start(OpKind::Write, 0, 3 * CHUNK_BYTES, 2);
    guest.start(OpKind::Write, 8 * CHUNK_BYTES, 2 * CHUNK_BYTES, 3);
    assert_eq!(guest.settle(), 0);
    assert_eq!(guest.sent().len(), 1, "there is room for the first only");
    assert_eq!(guest.commits(), before, "a commit of nothing");
    guest.release();
    assert_eq!(guest.settle(), 2);
    assert_eq!(guest.read(2 * CHUNK_BYTES, 512), [2; 512]);
    assert_eq!(guest.read(9 * CHUNK_BYTES, 512), [3; 512]);
    common::close(guest.disk);
}

#[test]
fn with_too_few_places_for_mappings_zeros_over_the_base_wait_and_then_end() {
    let mut guest = based(&OVER_BASE, four_mappings());
    guest.run(OpKind::Write, 50 * CHUNK_BYTES, BLOCK_BYTES, 1);
    guest.run(OpKind::Flush, 0, 0, 0);
    guest.run(OpKind::Discard, 40 * CHUNK_BYTES, BLOCK_BYTES, 0);
    let before = guest.commits();
    guest.hold(is_write);
    guest.start(OpKind::Write, 0, 3 * CHUNK_BYTES, 2);
    assert_eq!(guest.settle(), 0);
    // All four are taken. This one has its place already:
    let next = 40 * CHUNK_BYTES + BLOCK_BYTES;
    guest.start(OpKind::WriteZeroes, next, BLOCK_BYTES, 0);
    assert_eq!(guest.settle(), 1);
    assert_eq!(guest.commits(), before);
    // With nothing to be committed but what is there, waiting asks for it.
    guest.start(OpKind::WriteZeroes, 20 * CHUNK_BYTES, 2 * CHUNK_BYTES, 0);
    assert_eq!(guest.settle(), 0);
    assert_eq!(guest.commits(), before + 1);
    guest.release();
    assert_eq!(guest.settle(), 2);
    assert_eq!(guest.read(next, 512), [0; 512]);
    assert_eq!(guest.read(21 * CHUNK_BYTES, 512), [0; 512]);
    common::close(guest.disk);
}

#[test]
fn zeros_that_wait_for_a_place_do_not_commit_nothing() {
    let mut guest = based(&OVER_BASE, four_mappings());
    guest.run(OpKind::Write, 50 * CHUNK_BYTES, BLOCK_BYTES, 1);
    guest.run(OpKind::Flush, 0, 0, 0);
    let before = guest.commits();
    guest.hold(is_write);
    guest.start(OpKind::Write, 0, 3 * CHUNK_BYTES, 2);
    guest.start(OpKind::WriteZeroes, 20 * CHUNK_BYTES, 2 * CHUNK_BYTES, 0);
    assert_eq!(guest.settle(), 0);
    assert_eq!(guest.commits(), before);
    guest.release();
    assert_eq!(guest.settle(), 2);
    common::close(guest.disk);
}

#[test]
fn a_request_that_needs_every_place_for_mappings_does_not_wait_for_the_timer() {
    for kind in [OpKind::Write, OpKind::WriteZeroes] {
        let mut guest = based(&OVER_BASE, four_mappings());
        guest.run(OpKind::Write, 0, BLOCK_BYTES, 1);
        // Four chunks, with one mapping unsaved.
        let start = 8 * CHUNK_BYTES + BLOCK_BYTES;
        guest.run(kind, start, 3 * CHUNK_BYTES, 0);
        assert_eq!(guest.read(start, 512), [0; 512]);
        common::close(guest.disk);
    }
}

#[test]
fn new_chunks_that_lie_together_are_written_in_the_guests_own_operation() {
    let mut guest = plain(&TABLE, options());
    guest.run(OpKind::Write, 9 * CHUNK_BYTES, 512, 1);
    guest.hold(|_| false);
    let before = guest.disk.stats();
    guest.run(OpKind::Write, CHUNK_BYTES, 2 * CHUNK_BYTES, 2);
    let after = guest.disk.stats();
    assert_eq!(guest.sent().len(), 1);
    assert_eq!(
        (after.forwarded, after.parts),
        (before.forwarded + 1, before.parts)
    );
    common::close(guest.disk);
}
