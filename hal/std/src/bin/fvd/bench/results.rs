//! What was measured, as the JSON document has it.

use serde::Serialize;

use super::estimate::Estimate;
use super::plan::{Bar, Goal};
use super::rounds::Samples;

/// A lower bound this much below a bar still meets it: finer than that nothing here can tell.
const TOLERANCE: f64 = 0.04;

#[derive(Debug, Serialize)]
pub(super) struct Report {
    pub(super) machine: Machine,
    /// A smoke test, whose ratios mean nothing.
    pub(super) quick: bool,
    pub(super) seconds: u64,
    pub(super) tables: Vec<Table>,
    pub(super) counts: Vec<CountTable>,
    pub(super) fragments: Option<FragmentTable>,
}

/// Where and with what.
#[derive(Debug, Serialize)]
pub(super) struct Machine {
    /// Seconds since 1970.
    pub(super) unix_time: u64,
    pub(super) date: String,
    pub(super) kernel: String,
    pub(super) processor: String,
    pub(super) processors: usize,
    pub(super) memory_bytes: u64,
    /// Where the images lie: file system and device.
    pub(super) disk: String,
    pub(super) memory_disk: String,
    pub(super) versions: Vec<String>,
}

/// Ratios to one reference.
#[derive(Debug, Serialize)]
pub(super) struct Table {
    pub(super) name: String,
    pub(super) title: String,
    pub(super) reference: String,
    /// The reference divided by itself.
    pub(super) again: Option<Estimate>,
    pub(super) again_samples: Vec<f64>,
    pub(super) rounds: usize,
    /// How long they took.
    pub(super) seconds: f64,
    /// Why there were no more, if the reference failed.
    pub(super) ended: Option<String>,
    /// What each row is compared with beside the reference.
    pub(super) beside: String,
    pub(super) rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
pub(super) struct Row {
    pub(super) arm: String,
    pub(super) outcome: Outcome,
    /// The same, compared with the arm that stands beside it.
    pub(super) beside: Option<Estimate>,
    /// It is neither the reference nor ours in another state.
    #[serde(skip)]
    pub(super) is_rival: bool,
    pub(super) verdicts: Vec<Verdict>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum Outcome {
    Measured {
        ratio: Estimate,
        samples: Vec<f64>,
    },
    /// It can not be measured here.
    Skipped(String),
    /// It was tried.
    Failed(String),
}

/// A bar, and whether it was met.
#[derive(Debug, Serialize)]
pub(super) struct Verdict {
    pub(super) of: String,
    /// The ratio to reach; `None` = level.
    pub(super) bar: Option<f64>,
    pub(super) ratio: Estimate,
    /// `None` = undecided: too few rounds, or a median that reaches the bar in an interval too wide.
    pub(super) met: Option<bool>,
}

/// Exact counts.
#[derive(Debug, Serialize)]
pub(super) struct CountTable {
    pub(super) name: String,
    pub(super) title: String,
    pub(super) rows: Vec<CountRow>,
}

#[derive(Debug, Serialize)]
pub(super) struct CountRow {
    pub(super) arm: String,
    pub(super) counted: Result<Counted, String>,
}

/// What a server asks of its host, for each operation of its client.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Counted {
    pub(super) writes: f64,
    pub(super) written_bytes: f64,
    pub(super) reads: f64,
    pub(super) read_bytes: f64,
    pub(super) syncs: f64,
    /// Holes made and space reserved.
    pub(super) fallocates: f64,
}

#[derive(Debug, Serialize)]
pub(super) struct FragmentTable {
    /// Bytes written at random before.
    pub(super) written_bytes: u64,
    /// Reads in order, afterwards.
    pub(super) reads: Table,
    pub(super) rows: Vec<FragmentRow>,
}

#[derive(Debug, Serialize)]
pub(super) struct FragmentRow {
    pub(super) arm: String,
    /// Extents of the image in its file system.
    pub(super) extents: Option<u64>,
    /// Bytes that the image takes there.
    pub(super) allocated_bytes: u64,
}

impl Table {
    /// From the samples of `arms`, which are in the order of `samples`.
    pub(super) fn of(heading: Heading<'_>, samples: Samples, arms: &[ArmOf<'_>]) -> Table {
        let again = Estimate::of(&samples.again);
        let ratios = |name: &str| {
            let index = arms.iter().position(|arm| arm.name == name)?;
            samples.arms.get(index)?.as_deref().ok()
        };
        let row = |arm: &ArmOf<'_>, own: &Result<Vec<f64>, String>| {
            let quotient_to =
                |other: &str| Estimate::of_quotients(ratios(arm.name)?, ratios(other)?);
            let outcome = match own {
                Ok(samples) => match Estimate::of(samples) {
                    Some(ratio) => Outcome::Measured {
                        ratio,
                        samples: samples.clone(),
                    },
                    None => Outcome::Failed("there was no round".into()),
                },
                Err(why) => Outcome::Failed(why.clone()),
            };
            let to = |other: &str| match other == heading.reference {
                true => Estimate::of(ratios(arm.name)?),
                false => quotient_to(other),
            };
            let bars = heading.bars.iter().filter(|bar| bar.arm == arm.name);
            let verdicts = bars.filter_map(|bar| Some(Verdict::of(bar, to(bar.of)?, again)));
            Row {
                arm: arm.name.into(),
                outcome,
                beside: arm.beside.and_then(to),
                is_rival: arm.is_rival,
                verdicts: verdicts.collect(),
            }
        };
        let rows = arms
            .iter()
            .zip(&samples.arms)
            .map(|(arm, own)| row(arm, own));
        Table {
            name: heading.name.into(),
            title: heading.title.into(),
            reference: heading.reference.into(),
            beside: heading.beside.into(),
            rows: rows.collect(),
            ended: samples.ended,
            again,
            rounds: samples.again.len(),
            seconds: 0.0,
            again_samples: samples.again,
        }
    }

    /// Adds an arm that can not be measured here.
    pub(super) fn skip(&mut self, arm: &str, why: String) {
        self.rows.push(Row {
            arm: arm.into(),
            outcome: Outcome::Skipped(why),
            beside: None,
            is_rival: true,
            verdicts: Vec::new(),
        });
    }

    /// Ratios of a row, if it was measured.
    pub(super) fn samples(&self, arm: &str) -> Option<&[f64]> {
        let row = self.rows.iter().find(|row| row.arm == arm)?;
        match &row.outcome {
            Outcome::Measured { samples, .. } => Some(samples),
            _ => None,
        }
    }

    /// The others that are faster than `arm` beyond doubt, and how much.
    pub(super) fn ahead_of(&self, arm: &str) -> Vec<(&str, Estimate)> {
        let Some(own) = self.samples(arm) else {
            return Vec::new();
        };
        let others = self.rows.iter();
        let others = others.filter(|row| row.arm != arm && row.is_rival);
        let quotients = others.filter_map(|row| {
            let quotient = Estimate::of_quotients(self.samples(&row.arm)?, own)?;
            Some((row.arm.as_str(), quotient))
        });
        quotients
            .filter(|(_, quotient)| quotient.has_interval() && quotient.low > 1.0)
            .collect()
    }

    /// Arms that were tried and failed.
    pub(super) fn failures(&self) -> impl Iterator<Item = (&str, &str)> {
        let arms = self.rows.iter().filter_map(|row| match &row.outcome {
            Outcome::Failed(why) => Some((row.arm.as_str(), why.as_str())),
            _ => None,
        });
        let reference = self.ended.iter();
        arms.chain(reference.map(|why| (self.reference.as_str(), why.as_str())))
    }
}

/// What a table is about.
#[derive(Clone, Copy)]
pub(super) struct Heading<'a> {
    pub(super) name: &'a str,
    pub(super) title: &'a str,
    pub(super) reference: &'a str,
    /// What the arms are compared with beside the reference.
    pub(super) beside: &'a str,
    pub(super) bars: &'a [Bar],
}

/// An arm, and which other it is compared with.
#[derive(Clone, Copy)]
pub(super) struct ArmOf<'a> {
    pub(super) name: &'a str,
    pub(super) beside: Option<&'a str>,
    /// It competes with the others.
    pub(super) is_rival: bool,
}

impl Verdict {
    fn of(bar: &Bar, ratio: Estimate, again: Option<Estimate>) -> Verdict {
        let (bar_ratio, goal) = match bar.goal {
            Goal::Ratio(goal) => (Some(goal), goal),
            Goal::Level => (None, again.map_or(1.0, |again| again.low.min(1.0))),
        };
        let reached = [ratio.low, ratio.median].map(|end| end >= goal - TOLERANCE);
        let met = match reached {
            _ if !ratio.has_interval() => None,
            [true, _] => Some(true),
            [false, false] => Some(false),
            [false, true] => None,
        };
        Verdict {
            of: bar.of.into(),
            bar: bar_ratio,
            ratio,
            met,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::arm::{RAW, RAW_JOURNAL, TABLE};
    use super::*;

    fn table(ours: &[f64], journal: &[f64], again: &[f64], bars: &[Bar]) -> Table {
        let samples = Samples {
            again: again.to_vec(),
            ended: None,
            arms: vec![Ok(ours.to_vec()), Ok(journal.to_vec()), Err("why".into())],
        };
        let heading = Heading {
            name: "name",
            title: "title",
            reference: RAW.name,
            beside: "",
            bars,
        };
        let arm = |name, beside| ArmOf {
            name,
            beside,
            is_rival: true,
        };
        let arms = [
            arm(TABLE.name, Some(RAW_JOURNAL.name)),
            arm(RAW_JOURNAL.name, None),
            arm("broken", None),
        ];
        Table::of(heading, samples, &arms)
    }

    fn bar(of: &'static str, goal: Goal) -> Bar {
        Bar {
            arm: TABLE.name,
            of,
            goal,
        }
    }

    #[test]
    fn a_bar_is_met_from_a_lower_bound_a_little_below_it() {
        let met = |low: f64, median: f64, goal| {
            let mut samples = [median; 6];
            samples[2] = low;
            let again = [0.9, 1.0, 1.0, 1.0, 1.0, 1.1];
            let table = table(&samples, &[1.0; 6], &again, &[bar(RAW.name, goal)]);
            table.rows[0].verdicts[0].met
        };
        for (goal, below, above) in [
            (Goal::Ratio(0.97), 0.925, 0.935),
            (Goal::Level, 0.85, 0.87), // inside A/A
        ] {
            assert_eq!(met(above, 1.5, goal), Some(true));
            assert_eq!(met(below, 1.5, goal), None, "undecided");
            assert_eq!(met(below, below, goal), Some(false));
        }
    }

    #[test]
    fn few_rounds_judge_nobody() {
        let bars = [bar(RAW.name, Goal::Ratio(0.97))];
        let table = table(&[0.8; 5], &[0.9; 5], &[1.0; 5], &bars);
        assert_eq!(table.rows[0].verdicts[0].met, None);
        assert!(table.ahead_of(TABLE.name).is_empty());
    }

    #[test]
    fn who_is_ahead_is_so_beyond_doubt() {
        let names = |journal: &[f64]| {
            let table = table(&[0.8; 6], journal, &[1.0; 6], &[]);
            table.ahead_of(TABLE.name).len()
        };
        assert_eq!(names(&[0.9; 6]), 1);
        assert_eq!(names(&[0.9, 0.9, 0.9, 0.9, 0.9, 0.79]), 0);
        assert_eq!(names(&[0.8; 6]), 0);
    }

    #[test]
    fn bars_can_be_of_another_arm() {
        let bars = [bar(RAW_JOURNAL.name, Goal::Ratio(0.97))];
        let table = table(&[0.8; 6], &[0.8; 6], &[1.0; 6], &bars);
        let row = &table.rows[0];
        assert_eq!(row.verdicts[0].ratio.median, 1.0);
        assert_eq!(row.verdicts[0].met, Some(true));
        assert_eq!(row.beside.expect("ratios").median, 1.0);
        let failures: Vec<_> = table.failures().collect();
        assert_eq!(failures, [("broken", "why")]);
    }
}
