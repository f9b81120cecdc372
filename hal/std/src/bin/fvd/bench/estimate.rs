//! Medians, and how sure they are.

use serde::Serialize;

/// Below this many samples no interval of a median is worth 95 %.
pub(super) const SAMPLES_MIN: usize = 6;

/// A median with its interval of 95 % confidence: between the two samples of the right rank, whatever
/// their distribution. With fewer than [`SAMPLES_MIN`] samples the interval is just their range.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub(super) struct Estimate {
    pub(super) median: f64,
    pub(super) low: f64,
    pub(super) high: f64,
    pub(super) samples: usize,
}

impl Estimate {
    /// `None` without samples.
    pub(super) fn of(samples: &[f64]) -> Option<Estimate> {
        let mut sorted = samples.to_vec();
        sorted.sort_by(f64::total_cmp);
        let count = sorted.len();
        let skip = ranks_outside(count);
        let middle = |index: usize| sorted.get(index).copied();
        Some(Estimate {
            median: (middle(count.checked_sub(1)? / 2)? + middle(count / 2)?) / 2.0,
            low: middle(skip)?,
            high: middle(count - 1 - skip)?,
            samples: count,
        })
    }

    /// Of the pairwise quotients.
    pub(super) fn of_quotients(above: &[f64], below: &[f64]) -> Option<Estimate> {
        let quotients: Vec<f64> = above.iter().zip(below).map(|(a, b)| a / b).collect();
        Estimate::of(&quotients)
    }

    /// Whether there were enough samples for 95 %.
    pub(super) fn has_interval(&self) -> bool {
        self.samples >= SAMPLES_MIN
    }

    /// Whether more samples would hardly change it.
    pub(super) fn is_within(&self, distance: f64) -> bool {
        self.has_interval() && (self.high - self.low) / 2.0 <= distance
    }
}

impl core::fmt::Display for Estimate {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        write!(f, "{:.2} ({:.2}-{:.2})", self.median, self.low, self.high)
    }
}

/// How many samples on either side lie outside the interval: the most for which the chance that the
/// true median does too, as often as a coin falls to one side, is at most 2.5 % a side.
fn ranks_outside(count: usize) -> usize {
    let mut chance = 0.5f64.powi(i32::try_from(count).unwrap_or(i32::MAX));
    let (mut sum, mut rank) = (0.0, 0);
    while rank < count / 2 {
        sum += chance;
        if sum > 0.025 {
            break;
        }
        chance *= (count - rank) as f64 / (rank + 1) as f64;
        rank += 1;
    }
    rank.saturating_sub(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn intervals_are_those_of_the_sign_test() {
        // From tables of the sign test: ranks of the lower end, counted from 1.
        for (count, rank) in [(6, 1), (8, 1), (9, 2), (12, 3), (20, 6), (40, 14)] {
            assert_eq!(ranks_outside(count) + 1, rank, "{count} samples");
        }
    }

    #[test]
    fn a_median_lies_in_the_middle() {
        assert_eq!(Estimate::of(&[]), None);
        let one = Estimate::of(&[2.0]).expect("a sample");
        assert_eq!((one.median, one.low, one.high), (2.0, 2.0, 2.0));
        let four = Estimate::of(&[4.0, 1.0, 3.0, 2.0]).expect("samples");
        assert_eq!((four.median, four.low, four.high), (2.5, 1.0, 4.0));
        let quotients = Estimate::of_quotients(&[1.0, 4.0, 9.0], &[1.0, 2.0, 3.0]);
        assert_eq!(quotients.expect("samples").median, 2.0);
    }

    #[test]
    fn few_samples_are_never_enough() {
        let same = |count: usize| Estimate::of(&vec![1.0; count]).expect("samples");
        assert!(!same(5).is_within(0.03));
        assert!(same(6).is_within(0.03));
        let wide: Vec<f64> = (0..40).map(f64::from).collect();
        assert!(!Estimate::of(&wide).expect("samples").is_within(0.03));
    }
}
