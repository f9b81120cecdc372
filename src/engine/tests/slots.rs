//! The request table and its lists.

use super::std::vec::Vec;

use super::super::slots::{Held, NO_HEAD, Slot, SlotList, Slots, State};
use crate::buffer::Arena;
use crate::device::testing::{Bench, arena_memory, head, write};
use crate::device::{DeviceError, OpKind};

fn slots(depth: u16) -> Slots {
    let mut arena = Arena::new(arena_memory(Slots::arena_bytes(depth))).expect("aligned");
    let slots = Slots::carve(&mut arena, depth).expect("exact room");
    assert_eq!(arena.remaining(), 0);
    slots
}

/// Takes a slot and puts it to use.
fn start(slots: &mut Slots) -> Option<(u16, u16)> {
    let (id, slot) = slots.take(NO_HEAD)?;
    slot.state = State::Queued;
    Some((id.slot, id.generation))
}

fn in_use(slots: &Slots) -> Vec<u16> {
    slots.iter().map(|(index, _)| index).collect()
}

#[test]
fn every_slot_can_be_taken_once_and_again_after_its_release() {
    for depth in [1, 2, 5, 64] {
        let mut slots = slots(depth);
        assert_eq!(slots.capacity(), usize::from(depth));
        for round in 0..3 {
            for used in 0..depth {
                assert_eq!(slots.used(), used);
                let (_, generation) = start(&mut slots).expect("free");
                assert_eq!(generation, round, "ids of the last round are stale");
            }
            assert!(start(&mut slots).is_none(), "{depth} are in use");
            assert_eq!(slots.used(), depth);
            assert!(in_use(&slots).into_iter().eq(0..depth));
            for index in 0..depth {
                slots.release(index);
            }
            assert_eq!(slots.used(), 0);
            assert!(in_use(&slots).is_empty());
        }
    }
}

#[test]
fn the_slot_released_last_is_taken_first() {
    let mut slots = slots(4);
    for _ in 0..4 {
        start(&mut slots);
    }
    slots.release(2);
    slots.release(1);
    slots.release(9);
    assert_eq!(start(&mut slots).map(|(index, _)| index), Some(1));
    assert_eq!(start(&mut slots).map(|(index, _)| index), Some(2));
    assert_eq!(start(&mut slots), None);
}

#[test]
fn a_new_request_finds_nothing_of_the_one_before() {
    let mut slots = slots(1);
    let (id, slot) = slots.take(NO_HEAD).expect("free");
    slot.fail(DeviceError::Io);
    slot.outstanding = 3;
    (slot.holds, slot.to_zero, slot.copies_sent) = (1, 2, [3, 4]);
    (slot.exclusive, slot.cancelled) = (true, true);
    slot.unit_sent = true;
    slots.release(id.slot);
    let (_, slot) = slots.take(NO_HEAD).expect("free again");
    assert_eq!((slot.outstanding, slot.exclusive), (0, false));
    assert!(matches!(slot.held, Held::Out));
    slot.head = write(512, 1024);
    slot.queue(Bench::new().op(slot.head), 7);
    assert_eq!(
        (slot.error, slot.ticket, slot.guard()),
        (None, 7, (512, 1536))
    );
    assert_eq!((slot.holds, slot.to_zero, slot.copies_sent), (0, 0, [0, 0]));
    assert!(!slot.cancelled && !slot.unit_sent);
    assert!(matches!(slot.held, Held::Whole(_)));
}

#[test]
fn a_request_that_was_sent_on_guards_its_own_range() {
    let mut slots = slots(1);
    let (_, slot) = slots.take(NO_HEAD).expect("free");
    slot.head = write(512, 1024);
    (slot.guard_start, slot.guard_end) = (0, 4096);
    slot.state = State::Forwarded;
    assert_eq!(slot.guard(), (512, 1536));
    slot.state = State::Writing;
    assert_eq!(slot.guard(), (0, 4096));
}

#[test]
fn a_request_knows_its_range_its_kind_and_its_first_error() {
    let mut slots = slots(1);
    let (_, slot): (_, &mut Slot) = slots.take(NO_HEAD).expect("free");
    slot.head = write(512, 1024);
    assert_eq!((slot.start(), slot.end()), (512, 1536));
    for (kind, writes) in [
        (OpKind::Read, false),
        (OpKind::Flush, false),
        (OpKind::Write, true),
        (OpKind::WriteZeroes, true),
        (OpKind::Discard, true),
    ] {
        slot.head = head(kind, 0, 512);
        assert_eq!(slot.is_write(), writes, "{kind:?}");
    }
    slot.fail(DeviceError::NoSpace);
    slot.fail(DeviceError::Io);
    assert_eq!(slot.error, Some(DeviceError::NoSpace));
}

#[test]
fn a_list_is_first_in_first_out_and_names_a_slot_once() {
    let mut slots = slots(4);
    for _ in 0..4 {
        start(&mut slots);
    }
    let mut list = SlotList::EMPTY;
    assert!(list.is_empty());
    assert_eq!(list.pop(&mut slots), None);
    for index in [2, 0, 2, 3, 9] {
        list.push(&mut slots, index);
    }
    let mut other = SlotList::EMPTY;
    other.push(&mut slots, 0);
    assert!(other.is_empty(), "a slot is in one list at most");
    assert!(!list.is_empty());
    assert_eq!(list.pop(&mut slots), Some(2));
    list.push(&mut slots, 2);
    for wanted in [Some(0), Some(3), Some(2), None] {
        assert_eq!(list.pop(&mut slots), wanted);
    }
    assert!(list.is_empty());
    list.push(&mut slots, 1);
    assert_eq!(
        list.pop(&mut slots),
        Some(1),
        "used again after it was empty"
    );
}

#[test]
fn memory_comes_back_to_the_arena_that_lent_it() {
    let arena = || Arena::new(arena_memory(Slots::arena_bytes(3))).expect("aligned");
    let (mut ours, mut other) = (arena(), arena());
    let slots = Slots::carve(&mut ours, 3).expect("exact room");
    let stranger = Slots::carve(&mut other, 3).expect("exact room");
    assert!(!stranger.reclaim(&mut ours));
    assert!(slots.reclaim(&mut ours));
    assert!(ours.finish().is_ok());
}
