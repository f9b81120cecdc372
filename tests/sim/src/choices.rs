//! Every free decision of a run, recorded so that the run can be had again.
//!
//! Which operation completes next, whether a killed process's write still landed, what a failed
//! write left behind: each is one call of [`Choices::choose`]. Answer 0 is always the tame one, so
//! the empty choice string is the run in which nothing unusual happens, and "how unusual" is the
//! number of answers that are not 0. [`Choices::next`] walks through all runs up to a given
//! unusualness; most ordering bugs need one or two deviations, not a random walk.

/// A small seeded generator (splitmix64). No clock and no system randomness enters a simulation.
#[derive(Clone, Copy, Debug)]
pub struct Prng(u64);

impl Prng {
    /// A generator whose sequence is a function of `seed`.
    #[must_use]
    pub const fn new(seed: u64) -> Prng {
        Prng(seed)
    }

    /// The next word.
    pub fn next_word(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// A number below `bound`; 0 if `bound` is 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.next_word()) * u128::from(bound)) >> 64) as u64
    }
}

/// A source of decisions: a prefix that is given, then 0 or the generator's pick, all recorded.
#[derive(Clone, Debug, Default)]
pub struct Choices {
    /// (options, answer) of every decision so far.
    taken: Vec<(u16, u16)>,
    /// Answers to give first.
    script: Vec<u16>,
    /// Answers beyond the script, if not 0: the generator and the odds, in 1/256, of deviating.
    random: Option<(u64, u8)>,
}

impl Choices {
    /// Decisions that are all 0.
    #[must_use]
    pub fn new() -> Choices {
        Choices::default()
    }

    /// Decisions that follow `script` and are 0 after it.
    #[must_use]
    pub fn replay(script: Vec<u16>) -> Choices {
        Choices {
            script,
            ..Choices::default()
        }
    }

    /// Decisions that deviate from 0 at random, with odds of `odds` / 256 each.
    #[must_use]
    pub fn random(seed: u64, odds: u8) -> Choices {
        Choices {
            random: Some((seed, odds)),
            ..Choices::default()
        }
    }

    /// Picks one of `options`, counted from 0. With one option or none there is nothing to record.
    pub fn choose(&mut self, options: usize) -> usize {
        if options < 2 {
            return 0;
        }
        let options = options.min(usize::from(u16::MAX)) as u16;
        let answer = match self.script.get(self.taken.len()) {
            // A script made for another version of the engine may not fit; stay in range.
            Some(answer) => (*answer).min(options - 1),
            None => self.pick(options),
        };
        self.taken.push((options, answer));
        usize::from(answer)
    }

    fn pick(&mut self, options: u16) -> u16 {
        let Some((state, odds)) = &mut self.random else {
            return 0;
        };
        let mut prng = Prng::new(*state);
        let deviates = prng.below(256) < u64::from(*odds);
        let answer = 1 + prng.below(u64::from(options) - 1) as u16;
        *state = prng.next_word();
        if deviates { answer } else { 0 }
    }

    /// Sets up the next run of a depth-first walk over all runs with at most `deviations` answers
    /// that are not 0. Returns false when there is none.
    ///
    /// ```
    /// use fvd_sim::choices::Choices;
    ///
    /// let mut choices = Choices::new();
    /// let mut runs = 0;
    /// loop {
    ///     for _ in 0..4 {
    ///         choices.choose(3);
    ///     }
    ///     runs += 1;
    ///     if !choices.next(1) {
    ///         break;
    ///     }
    /// }
    /// assert_eq!(runs, 1 + 4 * 2);
    /// ```
    pub fn next(&mut self, deviations: usize) -> bool {
        let mut before: usize = self.taken.iter().filter(|(_, answer)| *answer != 0).count();
        while let Some((options, answer)) = self.taken.pop() {
            before -= usize::from(answer != 0);
            if answer + 1 < options && before < deviations {
                self.script.clear();
                self.script
                    .extend(self.taken.iter().map(|(_, answer)| *answer));
                self.script.push(answer + 1);
                self.taken.clear();
                return true;
            }
        }
        false
    }

    /// Goes back to the first decision, to give the same answers again.
    pub fn rewind(&mut self) {
        self.script.clear();
        self.script
            .extend(self.taken.drain(..).map(|(_, answer)| answer));
        self.random = None;
    }

    /// The answers up to the last one that is not 0: what [`Choices::replay`] takes.
    #[must_use]
    pub fn script(&self) -> Vec<u16> {
        let end = self.taken.iter().rposition(|(_, answer)| *answer != 0);
        let answers = self.taken.iter().map(|(_, answer)| *answer);
        answers.take(end.map_or(0, |at| at + 1)).collect()
    }

    /// Decisions taken so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.taken.len()
    }

    /// Whether no decision has been taken.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.taken.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(choices: &mut Choices) -> Vec<usize> {
        (0..3).map(|index| choices.choose(index + 2)).collect()
    }

    #[test]
    fn a_walk_visits_every_run_once() {
        let mut seen = Vec::new();
        let mut choices = Choices::new();
        loop {
            seen.push(run(&mut choices));
            if !choices.next(3) {
                break;
            }
        }
        assert_eq!(seen.len(), 2 * 3 * 4);
        seen.sort();
        seen.dedup();
        assert_eq!(seen.len(), 2 * 3 * 4);
    }

    #[test]
    fn a_recorded_run_replays() {
        let mut choices = Choices::random(7, 128);
        let first = run(&mut choices);
        let script = choices.script();
        choices.rewind();
        assert_eq!(run(&mut choices), first);
        assert_eq!(run(&mut Choices::replay(script)), first);
    }

    #[test]
    fn a_script_that_does_not_fit_stays_in_range() {
        assert_eq!(Choices::replay(vec![9]).choose(2), 1);
    }
}
