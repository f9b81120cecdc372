//! Walks through all runs of a case, up to bounds.

use std::collections::HashSet;

use fvd::device::OpKind;

use crate::case::{Case, Path, Replay};
use crate::choices::Choices;
use crate::crash::Bound;
use crate::disk::{Bus, FaultRule, Landed, Schedule};
use crate::engine::{BASE, DATA, Engine, METADATA, Plan};
use crate::oracle::Oracle;
use crate::sector::{SectorId, Sectors, SharedSectors};
use crate::session::{Failure, Level, Shared, Stats, run};
use crate::stamp::Value;
use crate::workload::Setup;

/// Distinct sectors kept between runs before the store is cut back (about 130 MB).
const SECTORS_MAX: usize = 1 << 18;

/// Faults per kind of operation, at most: more than any short workload has operations.
const FAULTS_MAX: u32 = 1000;

/// (sticky, what landed) of the faults that are tried.
const FAULTS: [(bool, Landed); 3] = [
    (false, Landed::Nothing),
    (false, Landed::All),
    (true, Landed::Half),
];

/// What is left of a failed operation, where that makes a difference: per kind.
const EACH_FAULT: [(OpKind, &[Landed]); 6] = {
    use Landed::{All, Half, Nothing, Refused};
    [
        (OpKind::Read, &[Nothing, Refused]),
        (OpKind::Write, &[Nothing, All, Half, Refused]),
        (OpKind::Flush, &[Nothing, Refused]),
        (OpKind::Discard, &[Nothing, All, Refused]),
        (OpKind::WriteZeroes, &[Nothing, All, Half, Refused]),
        (OpKind::Grow, &[Nothing, Refused]),
    ]
};

/// How far to look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// How crash outcomes are bounded.
    pub bound: Bound,
    /// Decisions per run that are not the tame one.
    pub deviations: usize,
    /// Runs per case.
    pub runs_max: u64,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            bound: Bound::default(),
            deviations: 0,
            runs_max: u64::MAX,
        }
    }
}

/// Runs cases on engines of one kind and remembers which states it has seen.
///
/// An explorer keeps its engines, disks and formatted image as long as the setup and the number of
/// sessions stay the same, and its memory of states as long as what follows a crash stays the same.
pub struct Explorer<E> {
    sectors: SharedSectors,
    levels: Vec<Level<E>>,
    images: Vec<Vec<SectorId>>,
    mark: usize,
    plan: Plan,
    shared: Shared,
}

impl<E: Engine> Explorer<E> {
    /// An explorer for cases like `case`: with its setup and its sessions after the first.
    ///
    /// # Errors
    /// Why the image can not be made; for people.
    pub fn new(case: &Case, limits: &Limits) -> Result<Explorer<E>, String> {
        let plan = E::plan(&case.setup).ok_or("the engine does not do this setup")?;
        let mut explorer = Explorer {
            sectors: Sectors::shared(),
            levels: Vec::new(),
            images: Vec::new(),
            mark: 0,
            shared: Shared {
                case: case.clone(),
                bound: limits.bound,
                seen: HashSet::new(),
                stats: Stats::default(),
                script: None,
                open_ops_max: plan.open_ops_max,
                fault_struck: false,
                preparing: false,
            },
            plan,
        };
        explorer.build()?;
        Ok(explorer)
    }

    /// Makes the levels and the formatted image.
    fn build(&mut self) -> Result<(), String> {
        let case = &self.shared.case;
        let bus = Bus::new(&self.sectors);
        let count = case.sessions.len() + 1;
        self.levels.clear();
        for _ in 0..count {
            self.levels
                .push(Level::new(bus.sibling(), case, &self.plan));
        }
        if let Some(level) = self.levels.first_mut() {
            level.devices.set_schedule(Schedule::Fifo);
            level.engine.format(&level.devices)?;
            self.images = level.devices.images();
            let misuse = level
                .devices
                .all()
                .flat_map(|device| device.misuse())
                .next();
            if let Some(misuse) = misuse {
                return Err(format!("while formatting: {misuse}"));
            }
        }
        self.mark = self.sectors.borrow().len();
        Ok(())
    }

    /// Totals so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.shared.stats
    }

    /// Runs a case with each operation of a kind on a store failing in turn, once and for good, with
    /// and without effect, until the workload has no such operation left to fail.
    ///
    /// # Errors
    /// The first violation.
    pub fn run_failing(
        &mut self,
        case: &Case,
        store: u8,
        kind: OpKind,
        limits: &Limits,
    ) -> Result<(), Box<Found>> {
        let mut case = case.clone();
        for pass_count in 0..FAULTS_MAX {
            for (sticky, landed) in FAULTS {
                let rule = FaultRule {
                    kind: Some(kind),
                    pass_count,
                    sticky,
                    landed,
                };
                case.fault = Some((store, rule));
                self.run(&case, limits)?;
                if !self.shared.fault_struck {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Runs a case with each operation of each kind on each store failing in turn, in every way that
    /// makes a difference, until the workload has no such operation left. Returns how many faults
    /// there were.
    ///
    /// # Errors
    /// The first violation.
    pub fn run_each_fault(&mut self, case: &Case, limits: &Limits) -> Result<u32, Box<Found>> {
        let mut case = case.clone();
        let mut faults = 0;
        for store in [METADATA, DATA, BASE] {
            for (kind, landings) in EACH_FAULT {
                for landed in landings {
                    for sticky in [false, true] {
                        let rule = FaultRule {
                            kind: Some(kind),
                            pass_count: 0,
                            sticky,
                            landed: *landed,
                        };
                        faults += self.run_each_count(&mut case, (store, rule), limits)?;
                    }
                }
            }
        }
        Ok(faults)
    }

    /// Lets a fault strike later and later, until it does not strike any more.
    fn run_each_count(
        &mut self,
        case: &mut Case,
        (store, mut rule): (u8, FaultRule),
        limits: &Limits,
    ) -> Result<u32, Box<Found>> {
        for pass_count in 0..FAULTS_MAX {
            rule.pass_count = pass_count;
            case.fault = Some((store, rule));
            self.run(case, limits)?;
            if !self.shared.fault_struck {
                return Ok(pass_count);
            }
        }
        Ok(FAULTS_MAX)
    }

    /// The setup that this explorer is for.
    #[must_use]
    pub fn setup(&self) -> &Setup {
        &self.shared.case.setup
    }

    fn fresh_oracle(&self) -> Oracle {
        let setup = &self.shared.case.setup;
        let base = setup.base_sectors as usize;
        Oracle::new(setup.guest_sectors as usize, |sector| {
            if sector < base {
                Value::BASE
            } else {
                Value::ZERO
            }
        })
    }

    fn run_once(&mut self, choices: Choices) -> Result<Choices, Failure> {
        if self.sectors.borrow().len() > SECTORS_MAX {
            self.sectors.borrow_mut().truncate(self.mark);
        }
        let oracle = self.fresh_oracle();
        self.shared.stats.runs += 1;
        if let Some(level) = self.levels.first_mut() {
            level.load(&self.images, &oracle);
            level.choices = choices;
        }
        run(&mut self.levels, &mut self.shared, 0)?;
        Ok(self
            .levels
            .first_mut()
            .map(|level| core::mem::take(&mut level.choices))
            .unwrap_or_default())
    }

    /// Runs a case in all ways within the limits.
    ///
    /// # Errors
    /// The first violation, with the line that replays it.
    ///
    /// # Panics
    /// If the case does not fit the one that the explorer was made for.
    pub fn run(&mut self, case: &Case, limits: &Limits) -> Result<(), Box<Found>> {
        let own = &self.shared.case;
        assert!(
            own.setup == case.setup && own.sessions.len() == case.sessions.len(),
            "an explorer is made for one setup and one number of sessions"
        );
        if own.sessions.get(1..) != case.sessions.get(1..) || own.tear != case.tear {
            self.shared.seen.clear();
        }
        self.shared.case = case.clone();
        self.shared.fault_struck = false;
        self.shared.bound = limits.bound;
        let mut choices = Choices::new();
        for _ in 0..limits.runs_max {
            match self.run_once(choices) {
                Ok(used) => choices = used,
                Err(failure) => return Err(Box::new(self.found(failure))),
            }
            if !choices.next(limits.deviations) {
                break;
            }
        }
        Ok(())
    }

    /// Runs one path of a case and returns what happened, line by line.
    pub fn replay(&mut self, path: &Path) -> (Vec<String>, Option<Failure>) {
        let (answers, crashes): (Vec<_>, Vec<_>) = path.0.iter().cloned().unzip();
        self.shared.script = Some(crashes);
        for (level, answers) in self.levels.iter_mut().zip(answers) {
            level.choices = Choices::replay(answers);
        }
        let bus = self.levels.first().map(|level| level.bus.clone());
        let first = self
            .levels
            .first_mut()
            .map(|level| core::mem::take(&mut level.choices));
        if let Some(bus) = &bus {
            bus.start_trace();
        }
        let failure = self.run_once(first.unwrap_or_default()).err();
        self.shared.script = None;
        let trace = bus.map(|bus| bus.take_trace()).unwrap_or_default();
        if failure.is_some() {
            // The engines stopped in the middle; their memory is gone with them.
            let _ = self.build();
        }
        (trace, failure)
    }

    fn found(&mut self, failure: Failure) -> Found {
        // The engines stopped in the middle; their memory is gone with them.
        let _ = self.build();
        Found {
            replay: Replay {
                case: self.shared.case.clone(),
                path: failure.path.clone(),
            },
            failure,
        }
    }
}

/// A violation, ready to be printed and replayed.
#[derive(Clone, Debug)]
pub struct Found {
    /// The line that replays it.
    pub replay: Replay,
    /// What is wrong.
    pub failure: Failure,
}

impl core::fmt::Display for Found {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let violation = &self.failure.violation;
        write!(
            f,
            "{}: {}\n  fvd-sim replay '{}'",
            violation.rule, violation.detail, self.replay
        )
    }
}
