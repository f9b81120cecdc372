//! Small sets: work to do, places of chunks.

use super::std::vec::Vec;

use super::super::{Work, places};

#[test]
fn places_names_each_member_in_order() {
    let named = |set: u64| places(set).collect::<Vec<_>>();
    assert_eq!(named(0), []);
    assert_eq!(named(0b1011), [0, 1, 3]);
    assert_eq!(named(1 << 63 | 1), [0, 63]);
    assert_eq!(places(u64::MAX).count(), 64);
}

#[test]
fn work_is_taken_once_and_alone() {
    let mut work = Work::NONE;
    assert!(work.is_none());
    work.insert(Work::RETRY);
    work.insert(Work::NOTIFY);
    work.insert(Work::NOTIFY);
    assert!(!work.is_none());
    assert!(!work.take(Work::READY));
    assert!(work.take(Work::NOTIFY));
    assert!(!work.take(Work::NOTIFY), "taken already");
    assert!(work.take(Work::RETRY), "untouched by the others");
    assert!(work.is_none());
}
