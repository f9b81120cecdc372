//! The method: the reference, the arms in rotated order, the reference again.
//!
//! The machine drifts, so a rate means nothing by itself. In each round the rate of an arm is divided by
//! the mean of the two of the reference around it; what is told is the median of these ratios. The
//! reference divided by itself shows how much of a difference is the machine's (A/A).

use std::time::{Duration, Instant};

use super::estimate::Estimate;
use crate::failure::Failure;

/// An interval this narrow on either side of its median needs no more rounds.
const NARROW: f64 = 0.03;

/// Rounds of an arm that no bar is about: enough for an interval. Time goes to those that are judged.
const ROUNDS_UNJUDGED: usize = 8;

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
#[derive(Debug)]
pub(super) struct Samples {
    /// The second measurement of the reference in a round, divided by the first.
    pub(super) again: Vec<f64>,
    /// Of each arm, or why there are none.
    pub(super) arms: Vec<Result<Vec<f64>, String>>,
    /// Why the reference could not be measured any more.
    pub(super) ended: Option<String>,
}

/// A table in the making: samples of each of the values that a measurement has.
#[derive(Debug)]
pub(super) struct Rounds {
    samples: Vec<Samples>,
    /// Of each arm, whether a bar is about it.
    judged: Vec<bool>,
    done: u32,
    /// How long the last one took, and all of them.
    took: Duration,
    spent: Duration,
}

/// Which of `all` has its next round now: the one that had the fewest, of those that are not settled and
/// for which there is time. Each has one in any case.
pub(super) fn next<'r>(
    all: impl Iterator<Item = Option<&'r Rounds>>,
    rounds: u32,
    left: Duration,
) -> Option<usize> {
    let open = all.enumerate().filter_map(|(index, course)| {
        let course = course?;
        let wanted = course.done < rounds && !course.is_settled();
        // Half of it may be too much.
        let fits = course.done == 0 || course.took / 2 < left;
        (wanted && fits).then_some((course.done, index))
    });
    open.min().map(|(_, index)| index)
}

impl Rounds {
    /// None yet, of arms of which it is known whether a bar is about them.
    pub(super) fn new(judged: Vec<bool>, values: usize) -> Rounds {
        let samples = || Samples {
            again: Vec::new(),
            arms: vec![Ok(Vec::new()); judged.len()],
            ended: None,
        };
        Rounds {
            samples: (0..values).map(|_| samples()).collect(),
            judged,
            done: 0,
            took: Duration::ZERO,
            spent: Duration::ZERO,
        }
    }

    /// One round more; `measure` measures somebody in a round, counted from 0.
    ///
    /// An arm that fails is left out from then on. If the reference fails, there are no more rounds.
    ///
    /// # Errors
    /// Those of `measure` itself, not those of what it measures.
    pub(super) fn round(
        &mut self,
        mut measure: impl FnMut(Turn, u32) -> Result<Result<Vec<f64>, Failure>, Failure>,
    ) -> Result<(), Failure> {
        let (start, round) = (Instant::now(), self.done);
        let first = match measure(Turn::Reference, round)? {
            Ok(values) => values,
            Err(failure) => {
                self.give_up(&failure);
                return Ok(());
            }
        };
        let arms = self.judged.len();
        let resting: Vec<bool> = (0..arms).map(|arm| self.rests(arm)).collect();
        let mut values = vec![None; arms];
        for turn in 0..arms {
            let arm = (turn + round as usize) % arms;
            if resting[arm] {
                continue;
            }
            match measure(Turn::Arm(arm), round)? {
                Ok(measured) => values[arm] = Some(measured),
                Err(failure) => self.leave_out(arm, &failure),
            }
        }
        let second = match measure(Turn::Reference, round)? {
            Ok(values) => values,
            Err(failure) => {
                self.give_up(&failure);
                return Ok(());
            }
        };
        for (index, samples) in self.samples.iter_mut().enumerate() {
            samples.again.push(second[index] / first[index]);
            let reference = f64::midpoint(first[index], second[index]);
            for (ratios, value) in samples.arms.iter_mut().zip(&values) {
                if let (Ok(ratios), Some(value)) = (ratios, value) {
                    ratios.push(value[index] / reference);
                }
            }
        }
        self.done += 1;
        self.took = start.elapsed();
        self.spent += self.took;
        Ok(())
    }

    /// How long the rounds took.
    pub(super) fn spent(&self) -> Duration {
        self.spent
    }

    pub(super) fn into_samples(self) -> Vec<Samples> {
        self.samples
    }

    fn leave_out(&mut self, arm: usize, failure: &Failure) {
        for samples in &mut self.samples {
            samples.arms[arm] = Err(failure.to_string());
        }
    }

    /// Without the reference there is nothing more to be said.
    fn give_up(&mut self, failure: &Failure) {
        for samples in &mut self.samples {
            samples.ended = Some(failure.to_string());
        }
    }

    /// Whether more rounds would say nothing more.
    fn is_settled(&self) -> bool {
        let ended = self.samples.iter().any(|samples| samples.ended.is_some());
        ended || (0..self.judged.len()).all(|arm| self.rests(arm))
    }

    /// Whether more rounds would say nothing more of an arm. Those that are judged rest together, since
    /// some are compared with each other, round by round.
    fn rests(&self, arm: usize) -> bool {
        if self.judged[arm] {
            let mut judged = (0..self.judged.len()).filter(|arm| self.judged[*arm]);
            return self.failed(arm) || judged.all(|arm| self.is_sure(arm));
        }
        let unjudged = |samples: &Samples| match &samples.arms[arm] {
            Ok(ratios) => ratios.len() >= ROUNDS_UNJUDGED,
            Err(_) => true,
        };
        self.samples.iter().all(unjudged) || self.is_sure(arm)
    }

    /// Whether an arm failed, or all that is told of it lies within a narrow interval.
    fn is_sure(&self, arm: usize) -> bool {
        let mut ratios = self.samples.iter().flat_map(|samples| &samples.arms[arm]);
        ratios.all(|ratios| Estimate::of(ratios).is_some_and(|ratio| ratio.is_within(NARROW)))
    }

    fn failed(&self, arm: usize) -> bool {
        let mut samples = self.samples.iter();
        samples.any(|samples| samples.arms[arm].is_err())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    /// As a table that is alone, of one value.
    fn measure(
        arms: usize,
        rounds: u32,
        left: Duration,
        mut rate: impl FnMut(Turn, u32) -> Result<f64, Failure>,
    ) -> Samples {
        let mut course = Rounds::new(vec![true; arms], 1);
        while next([Some(&course)].into_iter(), rounds, left).is_some() {
            let rate = |turn, round| Ok(rate(turn, round).map(|rate| vec![rate]));
            course.round(rate).expect("nobody interrupts");
        }
        course.into_samples().remove(0)
    }

    #[test]
    fn arms_take_turns_between_two_references() {
        let mut order = Vec::new();
        let samples = measure(2, 2, LONG, |turn, _| {
            order.push(turn);
            Ok(1.0)
        });
        assert_eq!(samples.again, [1.0, 1.0]);
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
        let samples = measure(1, 12, LONG, |turn, _| {
            speed *= 1.1;
            Ok(if turn == Turn::Arm(0) {
                speed / 2.0
            } else {
                speed
            })
        });
        let ratios = samples.arms[0].clone().expect("ratios");
        assert_eq!(ratios.len(), 6, "steady ratios end it as soon as may be");
        assert!(ratios.iter().all(|ratio| (0.49..0.51).contains(ratio)));
    }

    #[test]
    fn wild_ratios_use_all_rounds() {
        let samples = measure(1, 12, LONG, |turn, round| {
            Ok(if turn == Turn::Reference {
                1.0
            } else {
                f64::from(round + 1)
            })
        });
        assert_eq!(samples.again.len(), 12);
    }

    #[test]
    fn an_arm_that_no_bar_is_about_rests_when_it_had_enough() {
        let mut course = Rounds::new(vec![false, true], 1);
        while next([Some(&course)].into_iter(), 12, LONG).is_some() {
            let wild = |turn, round| {
                Ok(Ok(vec![match turn {
                    Turn::Reference => 1.0,
                    Turn::Arm(_) => f64::from(round + 1),
                }]))
            };
            course.round(wild).expect("nobody interrupts");
        }
        let samples = course.into_samples().remove(0);
        let counts: Vec<usize> = samples.arms.iter().flatten().map(Vec::len).collect();
        assert_eq!(counts, [ROUNDS_UNJUDGED, 12]);
    }

    #[test]
    fn an_arm_that_fails_is_left_out_and_the_rest_goes_on() {
        let samples = measure(2, 12, LONG, |turn, _| match turn {
            Turn::Arm(0) => Err(Failure::Failed("no luck".into())),
            _ => Ok(1.0),
        });
        assert_eq!(samples.arms[0], Err("no luck".into()));
        assert_eq!(samples.arms[1], Ok(vec![1.0; 6]));
    }

    #[test]
    fn without_the_reference_it_ends_with_what_there_is() {
        let fails_in = |last: u32| {
            move |turn, round| match turn {
                Turn::Reference if round == last => Err(Failure::Failed("no luck".into())),
                _ => Ok(f64::from(round + 1)),
            }
        };
        for rounds in [0, 2] {
            let samples = measure(1, 12, LONG, fails_in(rounds));
            assert_eq!(samples.arms[0], Ok(vec![1.0; rounds as usize]));
            assert_eq!(samples.ended, Some("no luck".into()));
        }
    }

    #[test]
    fn each_value_has_its_own_ratios() {
        let mut course = Rounds::new(vec![true], 2);
        let values = |turn, _| {
            Ok(Ok(match turn {
                Turn::Reference => vec![1.0, 4.0],
                Turn::Arm(_) => vec![0.5, 1.0],
            }))
        };
        course.round(values).expect("nobody interrupts");
        let [fast, slow] = &course.into_samples()[..] else {
            panic!("two values")
        };
        assert_eq!(fast.arms[0], Ok(vec![0.5]));
        assert_eq!(slow.arms[0], Ok(vec![0.25]));
    }

    #[test]
    fn the_one_with_the_fewest_rounds_is_next_if_there_is_time() {
        let after = |done, seconds| Rounds {
            done,
            took: Duration::from_secs(seconds),
            ..Rounds::new(vec![true], 1)
        };
        let next = |all: &[Rounds], left| {
            let all = all.iter().map(Some);
            super::next(all, 12, Duration::from_secs(left))
        };
        assert_eq!(next(&[after(2, 9), after(1, 9), after(1, 9)], 100), Some(1));
        assert_eq!(next(&[after(2, 2), after(1, 10)], 4), Some(0), "too long");
        assert_eq!(
            next(&[after(1, 1), after(0, 0)], 0),
            Some(1),
            "one for each"
        );
        assert_eq!(next(&[after(12, 1)], 100), None);
        assert_eq!(super::next([None].into_iter(), 12, LONG), None);
    }

    #[test]
    fn somebody_who_wants_it_to_end_is_heard() {
        let interrupted = |_, _| Err(Failure::Failed("interrupted".into()));
        assert!(Rounds::new(vec![true], 1).round(interrupted).is_err());
    }
}
