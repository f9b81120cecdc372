//! The two sets of dirty pages.

use super::*;

fn pages(count: usize) -> DirtyPages {
    let mut arena = Arena::new(arena_memory(DirtyPages::arena_bytes(count))).expect("aligned");
    let pages = DirtyPages::carve(&mut arena, count).expect("exact room");
    assert_eq!(arena.remaining(), 0);
    pages
}

/// All pages of `old`, in order.
fn old(pages: &DirtyPages) -> Vec<u32> {
    core::iter::successors(pages.next_old(0), |page| pages.next_old(page + 1)).collect()
}

#[test]
fn a_cut_moves_what_was_marked_and_leaves_an_empty_set() {
    let mut pages = pages(100);
    for page in [3, 99, 0, 3] {
        pages.mark(page);
        assert!(pages.is_current(page));
    }
    pages.mark(100);
    assert!(!pages.is_current(100), "no such page");
    assert_eq!(old(&pages), []);
    pages.cut();
    assert_eq!(old(&pages), [0, 3, 99]);
    assert!(!pages.is_current(3));
    assert_eq!(pages.next_old(4), Some(99));
    assert_eq!(pages.next_old(100), None);
}

#[test]
fn a_page_changed_while_it_is_written_is_in_the_next_cut_again() {
    let mut pages = pages(10);
    pages.mark(1);
    pages.mark(2);
    pages.cut();
    pages.mark(1);
    pages.clear_old(1);
    pages.clear_old(1);
    assert_eq!(old(&pages), [2], "clearing twice forgets no other page");
    pages.clear_old(2);
    assert_eq!(old(&pages), []);
    assert!(pages.is_current(1));
    pages.cut();
    assert_eq!(old(&pages), [1]);
}

#[test]
fn a_leftover_joins_the_next_cut() {
    let mut pages = pages(10);
    pages.mark(1);
    pages.mark(2);
    pages.cut();
    pages.mark(2);
    pages.mark(3);
    pages.cut();
    assert_eq!(old(&pages), [1, 2, 3]);
    for page in [1, 2, 3] {
        pages.clear_old(page);
    }
    assert_eq!(pages.old_count, 0, "each was counted once");
}

#[test]
fn emptying_one_set_leaves_the_other() {
    let mut pages = pages(10);
    pages.mark(1);
    pages.cut();
    pages.mark(1);
    pages.mark(2);
    pages.clear_current();
    assert!(!pages.is_current(1) && !pages.is_current(2));
    assert_eq!(old(&pages), [1]);
}

#[test]
fn memory_comes_back_to_the_arena_that_lent_it() {
    let memory = || Arena::new(arena_memory(4096)).expect("aligned");
    let (mut ours, mut other) = (memory(), memory());
    let pages = DirtyPages::carve(&mut ours, 70).expect("room");
    assert!(
        !DirtyPages::carve(&mut other, 70)
            .expect("room")
            .reclaim(&mut ours)
    );
    assert!(pages.reclaim(&mut ours));
    assert!(ours.finish().is_ok());
}
