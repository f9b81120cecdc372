//! A process that is killed leaves the devices' caches as they are. What the next session finds there
//! it may show, but must not build on before it is durable.
//!
//! The promise has one condition: no operation of the dead process may land once the image is open
//! again. A host that shares a device between processes has to drain or fence it first; the
//! simulator's `x` does, each operation in flight having landed by then or never.

use crate::rig::no_violation;

#[test]
fn what_landed_after_the_death_is_covered_by_the_first_flush_of_recovery() {
    // One or two operations in flight at the death: an overwrite, a data write into a new chunk,
    // journal units, pages and header of a checkpoint.
    for disk in ["-", "B8", "d", "B8d", "t0B8d"] {
        no_violation(&format!("g={disk};p=w0,f;s=w0,w4,x/w0,f;q=2"), 2);
        no_violation(&format!("g={disk};p=w0,f;s=w4,f,x/w0,f;q=2"), 2);
        no_violation(&format!("g={disk};p=w0,w4,f;s=k,x/w0,f;q=2"), 2);
    }
}

#[test]
fn f28_space_that_a_dead_process_added_is_durable_before_a_header_names_it() {
    for disk in ["gs0", "gs0d", "gs0B8d"] {
        no_violation(&format!("g={disk};s=w0,x/w0,f;q=2"), 2);
        no_violation(&format!("g={disk};p=w0,f;s=w4,w8,x/w12,f;q=2"), 2);
    }
}
