//! The example of a user's own layer does what it says.

#[path = "../examples/middleware.rs"]
mod example;

use example::{Careless, Right, search};
use fvd_sim::middleware::{Alone, Under};

#[test]
fn a_right_layer_passes_alone_and_below_fvd() {
    for (states, found) in [
        search::<Alone<Right>>("v4", "w0,w1,f,o", 3),
        search::<Under<Right>>("-", "w0,w4,f", 3),
        search::<Under<Right>>("B8d", "w0,w4,f", 2),
    ] {
        assert!(found.is_none(), "{}", found.expect("some"));
        assert!(states > 100, "{states} states");
    }
}

#[test]
fn a_careless_layer_is_caught_alone_and_below_fvd() {
    for (_, found) in [
        search::<Alone<Careless>>("v4", "w0,f", 3),
        search::<Under<Careless>>("t0", "w0,f", 4),
    ] {
        let found = found.expect("a write is lost");
        assert_eq!(found.failure.violation.rule, "R1", "{found}");
        // `fvd-sim` knows no engines but its own, so another way to run the line again is told.
        let text = found.to_string();
        assert!(!text.contains("fvd-sim replay"), "{text}");
        assert!(text.contains(&found.replay.to_string()), "{text}");
        assert!(text.contains("Careless>>::new(&line.case"), "{text}");
    }
}
