//! One row of a campaign: a kind of disk, the workloads that run on it, and how far to look.

use core::ops::ControlFlow;

use fvd::device::OpKind;

use crate::case::{Case, Replay};
use crate::choices::Prng;
use crate::crash::Bound;
use crate::explore::Limits;
use crate::session::{Moments, Random};
use crate::workload::{GuestOp, Range, Setup, alphabet, parse_ops, sequences};

/// Where the first sessions of a row come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Work {
    /// Every sequence of up to `length` of these steps; of the whole alphabet if there are none.
    Sequences {
        /// The steps.
        steps: &'static str,
        /// Longest sequence.
        length: usize,
    },
    /// Random steps.
    Random {
        /// Workloads.
        count: u32,
        /// Steps of each.
        steps: u32,
    },
}

/// One row.
#[derive(Clone, Copy, Debug)]
pub struct Row {
    /// What it is about, for people.
    pub what: &'static str,
    /// The case; its first session is left empty.
    pub line: &'static str,
    /// Its first sessions.
    pub work: Work,
    /// Unusual decisions per run; all of them with `usize::MAX`.
    pub deviations: usize,
    /// Largest set of outcomes of one crash that is looked at whole.
    pub product_max: u64,
    /// Random outcomes where it is larger, and a sixteenth of the pair losses that are looked at there.
    pub random_count: u32,
    /// Of random workloads, one moment of this many is looked at.
    pub moments_every: u32,
    /// Each operation of this kind on this store fails in turn.
    pub failing: Option<(u8, OpKind)>,
    /// It runs before any row that is not.
    pub required: bool,
}

impl Row {
    /// Every sequence of up to `length` steps of the whole alphabet.
    #[must_use]
    pub const fn all(what: &'static str, line: &'static str, length: usize) -> Row {
        Row::of(what, line, "", length)
    }

    /// Every sequence of up to `length` of these steps.
    #[must_use]
    pub const fn of(
        what: &'static str,
        line: &'static str,
        steps: &'static str,
        length: usize,
    ) -> Row {
        Row {
            what,
            line,
            work: Work::Sequences { steps, length },
            deviations: 0,
            product_max: 1 << 12,
            random_count: 256,
            moments_every: 1,
            failing: None,
            required: false,
        }
    }

    /// `count` random workloads of `steps` steps.
    #[must_use]
    pub const fn random(what: &'static str, line: &'static str, count: u32, steps: u32) -> Row {
        let mut row = Row::of(what, line, "", 0).selecting(1 << 5, 8);
        row.work = Work::Random { count, steps };
        row.moments_every = match steps {
            0..100 => 4,
            100..1000 => 16,
            _ => 64,
        };
        row
    }

    /// The same with this many unusual decisions per run.
    #[must_use]
    pub const fn unusual(mut self, deviations: usize) -> Row {
        self.deviations = deviations;
        self
    }

    /// The same with smaller sets of outcomes.
    #[must_use]
    pub const fn selecting(mut self, product_max: u64, random_count: u32) -> Row {
        (self.product_max, self.random_count) = (product_max, random_count);
        self
    }

    /// The same while each operation of a kind on a store fails in turn.
    #[must_use]
    pub const fn failing(mut self, store: u8, kind: OpKind) -> Row {
        self.failing = Some((store, kind));
        self
    }

    /// The same, before any row that is not required.
    #[must_use]
    pub const fn required(mut self) -> Row {
        self.required = true;
        self
    }

    /// The case, with an empty first session.
    ///
    /// # Errors
    /// What is not understood.
    pub fn case(&self) -> Result<Case, String> {
        let mut case = self.line.parse::<Replay>()?.case;
        if case.sessions.is_empty() {
            case.sessions.push(Vec::new());
        }
        Ok(case)
    }

    fn steps(&self, setup: &Setup) -> Result<Vec<GuestOp>, String> {
        match self.work {
            Work::Sequences { steps: "", .. } | Work::Random { .. } => Ok(alphabet(setup)),
            Work::Sequences { steps, .. } => parse_ops(steps),
        }
    }

    /// Workloads of the row.
    ///
    /// # Errors
    /// What is not understood.
    pub fn workloads(&self) -> Result<u64, String> {
        let letters = self.steps(&self.case()?.setup)?.len() as u64;
        Ok(match self.work {
            Work::Sequences { length, .. } => (1..=length as u32).map(|n| letters.pow(n)).sum(),
            Work::Random { count, .. } => u64::from(count),
        })
    }

    /// What was enumerated, for people.
    ///
    /// # Errors
    /// What is not understood.
    pub fn bound(&self) -> Result<String, String> {
        let letters = self.steps(&self.case()?.setup)?.len();
        let mut text = match self.work {
            Work::Sequences { length, .. } => format!("all ≤{length} of {letters}"),
            Work::Random { steps, .. } => {
                format!("{steps} steps, 1/{} moments", self.moments_every)
            }
        };
        match self.deviations {
            0 => {}
            usize::MAX => text.push_str(", all orders"),
            some => text.push_str(&format!(", {some} unusual")),
        }
        if let Some((store, kind)) = self.failing {
            text.push_str(&format!(", each {kind:?} of {store} fails"));
        }
        Ok(text)
    }

    /// Calls `visit` with each workload's case and limits.
    ///
    /// # Errors
    /// What is not understood.
    pub fn each(
        &self,
        visit: &mut dyn FnMut(&Case, &Limits) -> ControlFlow<()>,
    ) -> Result<(), String> {
        let mut case = self.case()?;
        let mut limits = Limits {
            deviations: self.deviations,
            bound: Bound {
                product_max: self.product_max,
                random_count: self.random_count,
                pairs_max: 16 * self.random_count,
                seed: 1,
            },
            ..Limits::default()
        };
        match self.work {
            Work::Sequences { length, .. } => {
                let steps = self.steps(&case.setup)?;
                let _ = sequences(&steps, length, &mut |steps| {
                    case.sessions[0] = steps.to_vec();
                    visit(&case, &limits)
                });
            }
            Work::Random { count, steps } => {
                for seed in 1..=u64::from(count) {
                    case.sessions[0] = random_steps(&case.setup, steps, seed);
                    limits.random = Some(Random {
                        seed,
                        odds: [0, 16, 64, 128][seed as usize % 4],
                    });
                    limits.moments = Moments {
                        every: self.moments_every,
                        seed,
                        first: 0,
                    };
                    if visit(&case, &limits).is_break() {
                        break;
                    }
                }
            }
        }
        Ok(())
    }
}

/// A random workload: mostly writes, of up to a chunk and a block, and now and then all else.
#[must_use]
pub fn random_steps(setup: &Setup, count: u32, seed: u64) -> Vec<GuestOp> {
    let mut prng = Prng::new(seed);
    let grain = u64::from(setup.logical_sectors.max(1));
    let grains = u64::from(setup.guest_sectors) / grain;
    let longest = (u64::from(setup.chunk_sectors + setup.block_sectors) / grain).max(1);
    let mut step = || {
        let first = prng.below(grains);
        // Short ones more often.
        let cap = 1 + prng.below(longest);
        let len = (1 + prng.below(cap)).min(grains - first);
        let range = Range::new((first * grain) as u16, (len * grain) as u16);
        match prng.below(100) {
            0..45 => GuestOp::Write(range),
            45..52 => GuestOp::WriteFua(range),
            52..60 => GuestOp::Zero(range),
            60..68 => GuestOp::Discard(range),
            68..76 => GuestOp::Read(range),
            76..92 => GuestOp::Flush,
            92..95 => GuestOp::Checkpoint(None),
            95..97 => GuestOp::Checkpoint(Some(prng.below(6) as u16)),
            97..99 => GuestOp::Reopen,
            _ => GuestOp::Kill,
        }
    };
    (0..count).map(|_| step()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_has_the_workloads_that_it_says() {
        for row in [
            Row::of("", "g=B8;s=/w0,f", "w0,w1,f", 3),
            Row::all("", "g=-;s=", 2),
            Row::random("", "g=-;s=", 7, 50),
        ] {
            let mut count = 0;
            let each = row.each(&mut |case, _| {
                count += 1;
                assert!(!case.sessions[0].is_empty());
                ControlFlow::Continue(())
            });
            assert_eq!(each, Ok(()));
            assert_eq!(row.workloads(), Ok(count), "{row:?}");
        }
    }

    #[test]
    fn random_steps_stay_on_the_disk_and_keep_to_its_logical_blocks() {
        let setup: Setup = "v64b8c16L8a8".parse().expect("legal");
        for step in random_steps(&setup, 1000, 3) {
            let Some(range) = step.range() else { continue };
            assert!(range.first + range.count <= 64, "{step}");
            assert!(range.first % 8 == 0 && range.count % 8 == 0, "{step}");
        }
    }
}
