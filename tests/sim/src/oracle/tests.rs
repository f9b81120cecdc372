//! Claims about what a guest may see.

use super::*;

const WRITE: What = What::Write { fua: false };

fn oracle() -> Oracle {
    Oracle::new(2, |sector| {
        if sector == 0 {
            Value::BASE
        } else {
            Value::ZERO
        }
    })
}

fn write(oracle: &mut Oracle, sector: usize) -> Value {
    let ticket = oracle.begin(WRITE, sector, 1);
    oracle.end(ticket, true);
    ticket.value
}

fn flush(oracle: &mut Oracle) {
    let ticket = oracle.begin(What::Flush, 0, 0);
    oracle.end(ticket, true);
}

fn read(oracle: &mut Oracle, sector: usize, value: Value) -> bool {
    let ticket = oracle.begin(What::Read, sector, 1);
    oracle.check_read(ticket, sector, value).is_ok()
}

fn survivors(oracle: &Oracle, sector: usize, of: &[Value]) -> Vec<bool> {
    of.iter()
        .map(|value| oracle.check_recovered(sector, *value).is_ok())
        .collect()
}

#[test]
fn an_unflushed_write_may_be_lost_and_a_flushed_one_may_not() {
    let mut oracle = oracle();
    let a = write(&mut oracle, 0);
    assert_eq!(
        survivors(&oracle, 0, &[Value::BASE, a, Value::ZERO]),
        [true, true, false]
    );
    flush(&mut oracle);
    let b = write(&mut oracle, 0);
    assert_eq!(
        survivors(&oracle, 0, &[Value::BASE, a, b]),
        [false, true, true]
    );
    assert_eq!(survivors(&oracle, 1, &[Value::ZERO, a]), [true, false]);
}

#[test]
fn a_flush_covers_only_what_completed_before_it_was_submitted() {
    let mut oracle = oracle();
    let late = oracle.begin(WRITE, 0, 1);
    let flush = oracle.begin(What::Flush, 0, 0);
    oracle.end(late, true);
    oracle.end(flush, true);
    assert_eq!(
        survivors(&oracle, 0, &[Value::BASE, late.value]),
        [true, true]
    );
}

#[test]
fn a_fua_write_is_sure_and_covers_nothing_else() {
    let mut oracle = oracle();
    let other = write(&mut oracle, 1);
    let ticket = oracle.begin(What::Write { fua: true }, 0, 1);
    oracle.end(ticket, true);
    assert_eq!(
        survivors(&oracle, 0, &[Value::BASE, ticket.value]),
        [false, true]
    );
    assert_eq!(survivors(&oracle, 1, &[Value::ZERO, other]), [true, true]);
}

#[test]
fn reads_see_the_last_completed_write() {
    let mut oracle = oracle();
    let a = write(&mut oracle, 0);
    assert!(read(&mut oracle, 0, a));
    assert!(!read(&mut oracle, 0, Value::BASE));
    let open = oracle.begin(WRITE, 0, 1);
    assert!(read(&mut oracle, 0, a) && read(&mut oracle, 0, open.value));
    oracle.end(open, true);
    assert!(!read(&mut oracle, 0, a));
}

#[test]
fn overlapping_writes_end_in_any_order_but_stay() {
    let mut oracle = oracle();
    let (a, b) = (oracle.begin(WRITE, 0, 1), oracle.begin(WRITE, 0, 1));
    oracle.end(b, true);
    oracle.end(a, true);
    assert!(read(&mut oracle, 0, b.value));
    assert!(!read(&mut oracle, 0, a.value), "b was shown");
    assert!(!read(&mut oracle, 0, Value::BASE));
}

#[test]
fn a_failed_write_is_old_or_new_and_then_stays() {
    let mut oracle = oracle();
    let failed = oracle.begin(WRITE, 0, 1);
    oracle.end(failed, false);
    assert!(read(&mut oracle, 0, Value::BASE));
    assert!(!read(&mut oracle, 0, failed.value));
    assert_eq!(
        survivors(&oracle, 0, &[Value::BASE, failed.value]),
        [true, true]
    );
    flush(&mut oracle);
    assert_eq!(
        survivors(&oracle, 0, &[Value::BASE, failed.value]),
        [true, false]
    );
    let next = write(&mut oracle, 0);
    flush(&mut oracle);
    assert_eq!(survivors(&oracle, 0, &[Value::BASE, next]), [false, true]);
}

#[test]
fn a_discard_leaves_old_or_zeros_and_never_the_base_again() {
    let mut oracle = oracle();
    let a = write(&mut oracle, 0);
    flush(&mut oracle);
    let discard = oracle.begin(What::Discard, 0, 1);
    oracle.end(discard, true);
    let of = [a, Value::ZERO, Value::BASE];
    assert_eq!(survivors(&oracle, 0, &of), [true, true, false]);
    assert!(read(&mut oracle, 0, Value::ZERO) && !read(&mut oracle, 0, a));
    let zeroes = oracle.begin_with(WRITE, 0, 1, Value::ZERO);
    oracle.end(zeroes, true);
    flush(&mut oracle);
    assert_eq!(survivors(&oracle, 0, &of), [false, true, false]);
}

#[test]
fn a_kill_loses_what_only_memory_held() {
    let mut oracle = oracle();
    let acknowledged = write(&mut oracle, 0);
    let in_flight = oracle.begin(WRITE, 0, 1).value;
    oracle.kill();
    let all = [Value::BASE, acknowledged, in_flight];
    assert_eq!(survivors(&oracle, 0, &all), [true; 3]);
    assert!(read(&mut oracle, 0, acknowledged));
    assert!(!read(&mut oracle, 0, in_flight), "something else was shown");
    assert_eq!(survivors(&oracle, 0, &all), [true; 3], "until a flush");
    flush(&mut oracle);
    assert_eq!(survivors(&oracle, 0, &all), [false, true, false]);
}

#[test]
fn a_read_beside_a_write_and_its_flush_may_see_what_was_there_before() {
    let mut oracle = oracle();
    let early = oracle.begin(What::Read, 0, 1);
    let a = write(&mut oracle, 0);
    flush(&mut oracle);
    oracle.end(early, true);
    assert!(oracle.check_read(early, 0, Value::BASE).is_ok());
    assert!(oracle.check_read(early, 0, Value::ZERO).is_err());
    assert_eq!(survivors(&oracle, 0, &[Value::BASE, a]), [false, true]);
    assert!(!read(&mut oracle, 0, Value::BASE), "a later read does not");
    assert!(read(&mut oracle, 0, a));
}

#[test]
fn only_what_no_flush_has_covered_may_be_torn() {
    let mut oracle = oracle();
    let (lost, garbage) = (Value::LOST, Value::garbage(7));
    let excused = |oracle: &Oracle, sector: usize, unit: usize| {
        [
            oracle.excuses(Tear::Unreadable, unit, sector, lost),
            oracle.excuses(Tear::Garbage, unit, sector, garbage),
            oracle.excuses(Tear::Unreadable, unit, sector, garbage),
            oracle.excuses(Tear::None, unit, sector, lost),
            oracle.excuses(Tear::Cut, unit, sector, garbage),
        ]
    };
    assert_eq!(excused(&oracle, 0, 1), [false; 5], "nothing was written");
    write(&mut oracle, 0);
    assert_eq!(excused(&oracle, 0, 1), [true, true, false, false, false]);
    assert_eq!(excused(&oracle, 1, 1), [false; 5], "a neighbour");
    assert_eq!(excused(&oracle, 1, 2)[..2], [true; 2], "in the same unit");
    flush(&mut oracle);
    assert_eq!(excused(&oracle, 0, 2), [false; 5]);
    // A discard leaves two values for good, but a flush makes one of them sure on the device.
    let discard = oracle.begin(What::Discard, 0, 1);
    oracle.end(discard, true);
    assert!(oracle.excuses(Tear::Unreadable, 1, 0, lost));
    flush(&mut oracle);
    assert!(!oracle.excuses(Tear::Unreadable, 1, 0, lost));
}

#[test]
fn a_metastable_sector_shows_any_of_its_values_until_it_is_written() {
    let mut oracle = oracle();
    let a = write(&mut oracle, 0);
    oracle.restart_metastable([Value::BASE, Value::ZERO].into_iter());
    for value in [a, Value::BASE, a] {
        assert!(read(&mut oracle, 0, value));
    }
    assert!(!read(&mut oracle, 1, a), "flushed");
    flush(&mut oracle);
    assert!(read(&mut oracle, 0, a) && read(&mut oracle, 0, Value::BASE));
    let b = write(&mut oracle, 0);
    assert!(read(&mut oracle, 0, b) && !read(&mut oracle, 0, a));
    assert_eq!(survivors(&oracle, 0, &[Value::BASE, a, b]), [true; 3]);
    flush(&mut oracle);
    assert_eq!(
        survivors(&oracle, 0, &[Value::BASE, a, b]),
        [false, false, true]
    );
}
