//! The shortest line that still fails.
//!
//! A failure of a long random run is worth little until it is short. Shrinking works on the line as
//! data: it leaves out steps, makes those that stay simpler, takes letters from the disk, answers
//! decisions tamely and lets fewer writes survive, and keeps whatever still breaks the same rule. It
//! ends when no single one of these changes does: the line is *locally* minimal.
//!
//! A changed case is tried as it is printed first; then, since fewer steps have their crash
//! elsewhere, every crash near the end of its run is looked at, with the old decisions and with tame
//! ones, and for a few steps with some unusual ones.

mod candidates;

use crate::case::{Case, Path, Replay};
use crate::choices::Choices;
use crate::crash::Bound;
use crate::engine::Engine;
use crate::explore::{Explorer, Found, Limits};
use crate::memory::Memory;
use crate::session::{Failure, Moments};
use candidates::Candidates;

/// Cases and paths that are tried, at most.
const ATTEMPTS_MAX: u32 = 6_000;

/// Moments before the end of a run that are looked at.
const MOMENTS: u32 = 24;

/// Up to this many steps, unusual decisions are tried too.
const STEPS_FEW: usize = 8;

/// Runs with unusual decisions per case.
const RUNS_MAX: u64 = 200;

/// A failure after shrinking.
#[derive(Clone, Debug)]
pub struct Shrunk {
    /// The failure.
    pub found: Found,
    /// Steps before and after, all sessions together.
    pub steps: (usize, usize),
    /// Cases and paths that were tried.
    pub attempts: u32,
}

impl core::fmt::Display for Shrunk {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let (before, after) = self.steps;
        write!(
            f,
            "{}\n  (shrunk from {before} steps to {after})",
            self.found
        )
    }
}

fn step_count(case: &Case) -> usize {
    case.prefix.len() + case.sessions.iter().map(Vec::len).sum::<usize>()
}

/// Shrinks a failure. One that does not happen again when its line is replayed stays as it is.
#[must_use]
pub fn shrink<E: Engine>(found: &Found) -> Shrunk {
    let mut shrinker = Shrinker::<E> {
        best: found.clone(),
        explorer: None,
        attempts: 0,
    };
    let before = step_count(&found.replay.case);
    if shrinker.fails_as_printed(&found.replay) {
        shrinker.cut_the_end();
        while shrinker.pass() {}
    }
    Shrunk {
        steps: (before, step_count(&shrinker.best.replay.case)),
        found: shrinker.best,
        attempts: shrinker.attempts,
    }
}

struct Shrinker<E> {
    best: Found,
    explorer: Option<Explorer<E>>,
    attempts: u32,
}

impl<E: Engine> Shrinker<E> {
    /// One round over all changes. Returns whether any of them helped.
    fn pass(&mut self) -> bool {
        let before = self.best.replay.to_string();
        self.drop_steps();
        let mut candidates = Candidates::new();
        while let Some(case) = candidates.next(&self.best.replay.case) {
            if self.attempts >= ATTEMPTS_MAX {
                return false;
            }
            if self.fails(&case) {
                candidates.worked();
            }
        }
        self.simplify_path();
        self.attempts < ATTEMPTS_MAX && self.best.replay.to_string() != before
    }

    /// An explorer that fits a case.
    fn explorer(&mut self, case: &Case) -> Option<&mut Explorer<E>> {
        let fits = self.explorer.as_ref().is_some_and(|explorer| {
            *explorer.setup() == case.setup && explorer.sessions() == case.sessions.len()
        });
        if !fits {
            self.explorer = Explorer::new(case, &Limits::default()).ok();
        }
        self.attempts += 1;
        let explorer = self.explorer.as_mut()?;
        // A state that failed before must fail again.
        explorer.set_memory(Memory::default());
        Some(explorer)
    }

    fn accept(&mut self, case: &Case, failure: Option<Failure>) -> bool {
        let Some(failure) = failure else { return false };
        if failure.violation.rule != self.best.failure.violation.rule {
            return false;
        }
        self.best = Found::new::<E>(case, failure);
        true
    }

    fn fails_as_printed(&mut self, replay: &Replay) -> bool {
        let Some(explorer) = self.explorer(&replay.case) else {
            return false;
        };
        let failure = explorer.replay_case(replay);
        self.accept(&replay.case, failure)
    }

    /// Whether a case still fails, in any of the ways that are tried; if so it is the best.
    fn fails(&mut self, case: &Case) -> bool {
        let replay = Replay {
            case: case.clone(),
            path: self.best.replay.path.clone(),
        };
        if self.fails_as_printed(&replay) {
            return true;
        }
        let own = replay.path.0.into_iter().next();
        let script = own.map(|(answers, _)| answers).unwrap_or_default();
        let tame = script.is_empty();
        if self.fails_near_its_end(case, Choices::replay(script)) {
            return true;
        }
        (!tame && self.fails_near_its_end(case, Choices::new()))
            || (case.queue_depth > 1 && step_count(case) <= STEPS_FEW && self.fails_unusually(case))
    }

    fn limits(case: &Case) -> Limits {
        let (product_max, random_count) = if step_count(case) > 64 {
            (1 << 5, 16)
        } else {
            (1 << 10, 64)
        };
        Limits {
            bound: Bound {
                product_max,
                random_count,
                pairs_max: 64,
                seed: 1,
            },
            ..Limits::default()
        }
    }

    fn fails_near_its_end(&mut self, case: &Case, choices: Choices) -> bool {
        let mut limits = Self::limits(case);
        let Some(explorer) = self.explorer(case) else {
            return false;
        };
        limits.moments.first = u32::MAX;
        let mut found = explorer.run_choices(case, choices.clone(), &limits).err();
        if found.is_none() {
            limits.moments = Moments {
                first: explorer.moments_seen().saturating_sub(MOMENTS),
                ..Moments::ALL
            };
            found = explorer.run_choices(case, choices, &limits).err();
        }
        self.accept(case, found.map(|found| found.failure))
    }

    fn fails_unusually(&mut self, case: &Case) -> bool {
        let limits = Limits {
            deviations: 2,
            runs_max: RUNS_MAX,
            ..Self::limits(case)
        };
        let Some(explorer) = self.explorer(case) else {
            return false;
        };
        let found = explorer.run(case, &limits).err();
        self.accept(case, found.map(|found| found.failure))
    }

    /// Leaves out what comes after the crash: the steps of the first session that were not taken,
    /// and the sessions that were not reached.
    fn cut_the_end(&mut self) {
        let taken = self.explorer.as_ref().map_or(0, Explorer::steps_taken);
        let mut replay = self.best.replay.clone();
        if let Some(first) = replay.case.sessions.first_mut() {
            first.truncate(taken);
        }
        let _ = self.fails_as_printed(&replay);
        let mut replay = self.best.replay.clone();
        let crashes = replay.path.0.len().saturating_sub(1).max(1);
        if crashes < replay.case.sessions.len() {
            replay.case.sessions.truncate(crashes);
            let _ = self.fails_as_printed(&replay);
        }
    }

    /// Leaves out steps of the prefix and of each session: halves, quarters, and so on to single
    /// ones.
    fn drop_steps(&mut self) {
        for session in 0..=self.best.replay.case.sessions.len() {
            let len = |best: &Found| steps_of(&best.replay.case, session).len();
            let mut size = len(&self.best).next_power_of_two();
            while size > 0 {
                let mut at = 0;
                while at < len(&self.best) && self.attempts < ATTEMPTS_MAX {
                    let mut case = self.best.replay.case.clone();
                    let steps = steps_of_mut(&mut case, session);
                    let end = (at + size).min(steps.len());
                    steps.drain(at..end);
                    if !self.fails(&case) {
                        at += size;
                    }
                }
                size /= 2;
            }
        }
    }

    /// Answers decisions tamely and lets fewer pending writes survive, one at a time.
    fn simplify_path(&mut self) {
        for session in 0..self.best.replay.path.0.len() {
            for kind in [Part::Choice, Part::Survivor, Part::Torn] {
                let mut at = 0;
                while self.attempts < ATTEMPTS_MAX {
                    let mut replay = self.best.replay.clone();
                    let Some(changed) = without(&mut replay.path, session, kind, at) else {
                        break;
                    };
                    at += 1;
                    if changed {
                        let _ = self.fails_as_printed(&replay);
                    }
                }
            }
        }
    }
}

/// Steps of a session, counted from 1; 0 is the prefix.
fn steps_of(case: &Case, session: usize) -> &[crate::workload::GuestOp] {
    match session.checked_sub(1) {
        None => &case.prefix,
        Some(index) => case.sessions.get(index).map_or(&[], Vec::as_slice),
    }
}

fn steps_of_mut(case: &mut Case, session: usize) -> &mut Vec<crate::workload::GuestOp> {
    match session.checked_sub(1) {
        Some(index) if index < case.sessions.len() => &mut case.sessions[index],
        _ => &mut case.prefix,
    }
}

#[derive(Clone, Copy)]
enum Part {
    Choice,
    Survivor,
    Torn,
}

/// Takes the `at`-th answer or survivor out of a path. Returns whether there was anything to take,
/// or `None` behind the end.
fn without(path: &mut Path, session: usize, part: Part, at: usize) -> Option<bool> {
    let (answers, crash) = path.0.get_mut(session)?;
    let slot = match part {
        Part::Choice => answers.get_mut(at)?,
        Part::Survivor => crash.as_mut()?.1.digits.get_mut(at)?,
        Part::Torn if at == 0 => return Some(crash.as_mut()?.1.torn.take().is_some()),
        Part::Torn => return None,
    };
    Some(core::mem::take(slot) != 0)
}
