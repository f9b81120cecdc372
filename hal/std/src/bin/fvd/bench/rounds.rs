//! The method: the reference, the arms in rotated order, the reference again.
//!
//! The machine drifts, so a rate means nothing by itself. In each round the rate of an arm is divided by
//! the mean of the two of the reference around it; what is told is the median of these ratios. The
//! reference divided by itself shows how much of a difference is the machine's (A/A).

use std::time::{Duration, Instant};

use super::estimate::{Estimate, SAMPLES_MIN};
use crate::failure::Failure;

/// An interval this narrow on either side of its median needs no more rounds.
const NARROW: f64 = 0.03;

/// When to stop.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) rounds: u32,
    pub(super) time: Duration,
}

/// Who is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Turn {
    Reference,
    Arm(usize),
}

/// Ratios to the reference, a sample for each round.
#[derive(Debug, Default)]
pub(super) struct Samples {
    /// The second measurement of the reference in a round, divided by the first.
    pub(super) again: Vec<f64>,
    /// Of each arm, or why there are none.
    pub(super) arms: Vec<Result<Vec<f64>, String>>,
}

/// Measures `arms` arms against the reference; `rate` measures one of them in a round, counted from 0.
///
/// An arm that fails is left out from then on.
///
/// # Errors
/// The reference failed: without it there is nothing to be said.
pub(super) fn measure(
    arms: usize,
    limits: Limits,
    mut rate: impl FnMut(Turn, u32) -> Result<f64, Failure>,
) -> Result<Samples, Failure> {
    let start = Instant::now();
    let mut samples = Samples {
        again: Vec::new(),
        arms: vec![Ok(Vec::new()); arms],
    };
    for round in 0..limits.rounds {
        let first = rate(Turn::Reference, round)?;
        let mut rates = vec![None; arms];
        for turn in 0..arms {
            let arm = (turn + round as usize) % arms;
            if samples.arms[arm].is_err() {
                continue;
            }
            match rate(Turn::Arm(arm), round) {
                Ok(rate) => rates[arm] = Some(rate),
                Err(failure) => samples.arms[arm] = Err(failure.to_string()),
            }
        }
        let second = rate(Turn::Reference, round)?;
        samples.again.push(second / first);
        for (ratios, rate) in samples.arms.iter_mut().zip(rates) {
            if let (Ok(ratios), Some(rate)) = (ratios, rate) {
                ratios.push(rate / f64::midpoint(first, second));
            }
        }
        if is_settled(&samples) || is_late(limits, start.elapsed(), round + 1) {
            break;
        }
    }
    Ok(samples)
}

/// Whether the next round, in which half of the time of one may be too much, has no time left. Too few
/// rounds say so little that they get twice the time.
fn is_late(limits: Limits, spent: Duration, rounds: u32) -> bool {
    let enough = rounds as usize >= SAMPLES_MIN;
    let time = limits.time * if enough { 1 } else { 2 };
    spent + spent / rounds / 2 > time
}

fn is_settled(samples: &Samples) -> bool {
    let mut ratios = samples.arms.iter().flatten();
    ratios.all(|ratios| Estimate::of(ratios).is_some_and(|ratio| ratio.is_within(NARROW)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Limits = Limits {
        rounds: 12,
        time: Duration::from_secs(3600),
    };

    #[test]
    fn arms_take_turns_between_two_references() {
        let mut order = Vec::new();
        let limits = Limits { rounds: 2, ..LONG };
        let samples = measure(2, limits, |turn, _| {
            order.push(turn);
            Ok(1.0)
        });
        assert_eq!(samples.expect("rates").again, [1.0, 1.0]);
        let reference = Turn::Reference;
        let (one, two) = (Turn::Arm(0), Turn::Arm(1));
        assert_eq!(
            order,
            [
                reference, one, two, reference, reference, two, one, reference
            ]
        );
    }

    #[test]
    fn drift_between_rounds_does_not_show() {
        let mut speed = 1.0;
        let samples = measure(1, LONG, |turn, _| {
            speed *= 1.1;
            Ok(if turn == Turn::Arm(0) {
                speed / 2.0
            } else {
                speed
            })
        });
        let ratios = samples.expect("rates").arms.remove(0).expect("ratios");
        assert_eq!(ratios.len(), 6, "steady ratios end it as soon as may be");
        assert!(ratios.iter().all(|ratio| (0.49..0.51).contains(ratio)));
    }

    #[test]
    fn wild_ratios_use_all_rounds() {
        let samples = measure(1, LONG, |turn, round| {
            Ok(if turn == Turn::Reference {
                1.0
            } else {
                f64::from(round + 1)
            })
        });
        assert_eq!(samples.expect("rates").again.len(), 12);
    }

    #[test]
    fn an_arm_that_fails_is_left_out_and_the_rest_goes_on() {
        let samples = measure(2, LONG, |turn, _| match turn {
            Turn::Arm(0) => Err(Failure::Failed("no luck".into())),
            _ => Ok(1.0),
        });
        let samples = samples.expect("rates");
        assert_eq!(samples.arms[0], Err("no luck".into()));
        assert_eq!(samples.arms[1], Ok(vec![1.0; 6]));
        let fails = |_, _| Err(Failure::Failed("no luck".into()));
        assert!(measure(1, LONG, fails).is_err());
    }

    #[test]
    fn few_rounds_may_take_twice_the_time() {
        let limits = Limits {
            time: Duration::from_secs(10),
            ..LONG
        };
        let late = |seconds, rounds| is_late(limits, Duration::from_secs(seconds), rounds);
        assert!(!late(8, 8) && late(10, 8));
        assert!(!late(16, 4) && late(18, 4));
    }

    #[test]
    fn the_time_is_kept() {
        let limits = Limits {
            time: Duration::ZERO,
            ..LONG
        };
        let samples = measure(1, limits, |_, round| Ok(f64::from(round + 1)));
        assert_eq!(samples.expect("rates").again.len(), 1);
    }
}
