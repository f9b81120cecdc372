//! Walks through all runs of a case, up to bounds.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::time::Instant;

use fvd::device::OpKind;

use crate::case::{Case, Path, Replay};
use crate::choices::Choices;
use crate::crash::Bound;
use crate::disk::{Bus, FaultRule, Landed, Schedule};
use crate::engine::{BASE, DATA, Engine, METADATA, Plan};
use crate::memory::Memory;
use crate::oracle::Oracle;
use crate::sector::{SectorId, Sectors, SharedSectors};
use crate::session::{Audit, Auditor, Failure, Level, Moments, Random, Shared, Stats, run};
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
    /// Decisions at random instead: one run per case, whatever `deviations` says.
    pub random: Option<Random>,
    /// Which moments of the first session are looked at.
    pub moments: Moments,
    /// When to stop between two runs.
    pub until: Option<Instant>,
}

impl Limits {
    /// Whether it is time to stop.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            bound: Bound::default(),
            deviations: 0,
            runs_max: u64::MAX,
            random: None,
            moments: Moments::ALL,
            until: None,
        }
    }
}

/// Runs cases on engines of one kind and remembers which states it has seen.
///
/// An explorer keeps its engines, disks, formatted image and memory of states from case to case.
pub struct Explorer<E> {
    sectors: SharedSectors,
    levels: Vec<Level<E>>,
    images: Vec<Vec<SectorId>>,
    mark: usize,
    plan: Plan,
    shared: Shared,
    /// The last case was not run in all ways.
    cut_short: bool,
    /// (steps taken, crash moments) of the first session of the last run.
    last: (usize, u32),
}

impl<E: Engine> Explorer<E> {
    /// An explorer for cases like `case`: with its setup and its sessions after the first.
    ///
    /// # Errors
    /// Why the image can not be made; for people.
    pub fn new(case: &Case, limits: &Limits) -> Result<Explorer<E>, String> {
        let plan = E::plan(&case.setup).ok_or("the engine does not do this setup")?;
        let sectors = Sectors::shared();
        let mut explorer = Explorer {
            levels: Vec::new(),
            images: Vec::new(),
            mark: 0,
            shared: Shared {
                case: case.clone(),
                bound: limits.bound,
                memory: Memory::default(),
                salt: 0,
                random: None,
                moments: Moments::ALL,
                stats: Stats::default(),
                script: None,
                open_ops_max: plan.open_ops_max,
                fault_struck: false,
                preparing: false,
                audit: Audit::new::<E>(&Bus::new(&sectors), &case.setup, &plan),
                audited: false,
            },
            plan,
            cut_short: false,
            last: (0, 0),
            sectors,
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

    /// Sessions of the cases that this explorer is for.
    #[must_use]
    pub fn sessions(&self) -> usize {
        self.levels.len() - 1
    }

    fn run_once(&mut self, choices: Choices) -> Result<Choices, Failure> {
        if self.sectors.borrow().len() > SECTORS_MAX {
            self.sectors.borrow_mut().truncate(self.mark);
        }
        let oracle = Oracle::of_new_disk(&self.shared.case.setup);
        self.shared.stats.runs += 1;
        if let Some(level) = self.levels.first_mut() {
            level.load(&self.images, &oracle);
            level.choices = choices;
        }
        let result = run(&mut self.levels, &mut self.shared, 0);
        if let Some(level) = self.levels.first() {
            self.last = (level.steps_taken, level.moment);
        }
        result?;
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
        self.cut_short = true;
        let own = &self.shared.case;
        assert!(
            own.setup == case.setup && own.sessions.len() == case.sessions.len(),
            "an explorer is made for one setup and one number of sessions"
        );
        self.set(case, limits);
        let mut choices = limits.random.map_or_else(Choices::new, |random| {
            Choices::random(random.seed, random.odds)
        });
        for _ in 0..limits.runs_max {
            match self.run_once(choices) {
                Ok(used) => choices = used,
                Err(failure) => return Err(Box::new(self.found(failure))),
            }
            if limits.random.is_some() || !choices.next(limits.deviations) {
                self.cut_short = false;
                break;
            }
            if limits.is_over() {
                break;
            }
        }
        Ok(())
    }

    /// Runs a case once, with these decisions in its first session and all tame ones after it.
    ///
    /// # Errors
    /// The first violation.
    pub fn run_choices(
        &mut self,
        case: &Case,
        choices: Choices,
        limits: &Limits,
    ) -> Result<(), Box<Found>> {
        self.set(case, limits);
        match self.run_once(choices) {
            Ok(_) => Ok(()),
            Err(failure) => Err(Box::new(self.found(failure))),
        }
    }

    /// Steps that the first session of the last run took before it ended, well or not.
    #[must_use]
    pub fn steps_taken(&self) -> usize {
        self.last.0
    }

    /// Moments of the first session of the last run at which power could have been cut.
    #[must_use]
    pub fn moments_seen(&self) -> u32 {
        self.last.1
    }

    fn set(&mut self, case: &Case, limits: &Limits) {
        let shared = &mut self.shared;
        let follows = (case.sessions.get(1..), case.tear, limits.bound);
        shared.salt = BuildHasherDefault::<DefaultHasher>::default().hash_one(follows);
        shared.case = case.clone();
        shared.fault_struck = false;
        shared.bound = limits.bound;
        shared.random = limits.random;
        shared.moments = limits.moments;
    }

    /// Whether limits of [`Limits`] ended the last case before all its runs were run.
    #[must_use]
    pub fn is_cut_short(&self) -> bool {
        self.cut_short
    }

    /// From now on, shows a sample of the states to two checkers, before and after recovery. They must
    /// agree, or that is a violation of R12. Returns who did it so far.
    pub fn set_auditor(&mut self, auditor: Option<Auditor>) -> Option<Auditor> {
        self.shared.audit.set(auditor)
    }

    /// Goes on with what another explorer of the same kind of disk has seen.
    pub fn set_memory(&mut self, memory: Memory) {
        self.shared.memory = memory;
    }

    /// Hands out what was seen, for [`Explorer::set_memory`].
    pub fn take_memory(&mut self) -> Memory {
        core::mem::take(&mut self.shared.memory)
    }

    /// Runs one path of the last case and returns what happened, line by line.
    pub fn replay(&mut self, path: &Path) -> (Vec<String>, Option<Failure>) {
        let bus = self.levels.first().map(|level| level.bus.clone());
        if let Some(bus) = &bus {
            bus.start_trace();
        }
        let failure = self.follow(path);
        (bus.map(|bus| bus.take_trace()).unwrap_or_default(), failure)
    }

    /// Runs one path of another case on the same kind of disk, with as many sessions.
    pub fn replay_case(&mut self, replay: &Replay) -> Option<Failure> {
        self.set(&replay.case, &Limits::default());
        self.follow(&replay.path)
    }

    fn follow(&mut self, path: &Path) -> Option<Failure> {
        let (answers, crashes): (Vec<_>, Vec<_>) = path.0.iter().cloned().unzip();
        self.shared.script = Some(crashes);
        let answers = answers.into_iter().chain(core::iter::repeat(Vec::new()));
        for (level, answers) in self.levels.iter_mut().zip(answers) {
            level.choices = Choices::replay(answers);
        }
        let first = self
            .levels
            .first_mut()
            .map(|level| core::mem::take(&mut level.choices));
        let failure = self.run_once(first.unwrap_or_default()).err();
        self.shared.script = None;
        if failure.is_some() {
            self.rebuild();
        }
        failure
    }

    /// After a failure the engines stopped in the middle; their memory is gone with them.
    fn rebuild(&mut self) {
        // It was built once, so it can be built again.
        let _ = self.build();
    }

    fn found(&mut self, failure: Failure) -> Found {
        self.rebuild();
        Found::new::<E>(&self.shared.case, failure)
    }
}

/// A violation, ready to be printed and replayed.
#[derive(Clone, Debug)]
pub struct Found {
    /// The line that replays it.
    pub replay: Replay,
    /// What is wrong.
    pub failure: Failure,
    /// What replays a line of the engine: a command, or the type of the engine if there is none.
    pub by: Result<&'static str, &'static str>,
}

impl Found {
    /// A failure of a case.
    #[must_use]
    pub fn new<E: Engine>(case: &Case, failure: Failure) -> Found {
        Found {
            replay: Replay {
                case: case.clone(),
                path: failure.path.clone(),
            },
            failure,
            by: E::command().ok_or_else(core::any::type_name::<E>),
        }
    }
}

impl core::fmt::Display for Found {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        let violation = &self.failure.violation;
        writeln!(f, "{}: {}", violation.rule, violation.detail)?;
        let line = &self.replay;
        match self.by {
            Ok(command) => write!(f, "  {command} '{line}'"),
            Err(engine) => write!(
                f,
                "  {line}\n  again: let line: Replay = (the line above).parse()?; \
                 Explorer::<{engine}>::new(&line.case, &Limits::default())?.replay(&line.path)"
            ),
        }
    }
}
