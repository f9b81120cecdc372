//! Runs one session of a disk under test, and branches at every crash it could have.
//!
//! Crash moments. The set of images that a power loss may leave grows when a device operation is
//! submitted and shrinks when one that hardens something completes; the set of values that the
//! oracle allows grows when the guest submits a write and shrinks when a flush is acknowledged. So
//! looking right **before** each hardening completion, before each guest write, and at the end,
//! finds every violation that looking at every instant would find.
//!
//! Each outcome of a crash is a session of its own on the next `Level`, with its own disks and
//! engine, while this session stays where it is. That is what makes nested crashes cheap.

mod again;
mod audit;
mod drive;
mod guest;
mod harm;
mod life;
mod power;

use fvd::units::Instant;

use crate::case::{Case, Crash, Path};
use crate::choices::Choices;
use crate::client::{Client, Purpose};
use crate::crash::{Bound, Space, Tear};
use crate::disk::{Bus, Schedule};
use crate::engine::{Devices, Engine, Plan};
use crate::memory::{Memory, Seen};
use crate::oracle::{Oracle, Violation};
use crate::sector::{SectorId, mix};
use crate::stamp::Value;
use again::Repeats;
pub(crate) use audit::Audit;
pub use audit::Auditor;
use harm::Harm;

/// Events in a row, or polls in vain, after which an engine counts as spinning.
const PATIENCE: u32 = 10_000;

/// A violation, and the path that leads to it.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What was wrong.
    pub violation: Violation,
    /// How to get there, from this session on.
    pub path: Path,
}

/// Totals of an exploration.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Runs of a case: one per choice string.
    pub runs: u64,
    /// Moments at which a crash was looked at.
    pub moments: u64,
    /// Outcomes of those crashes, repeated ones included.
    pub outcomes: u64,
    /// Moments with too many outcomes, of which a selection was looked at.
    pub selected: u64,
    /// Unique crash states: outcomes whose image and oracle were not seen before, each recovered and
    /// checked.
    pub states: u64,
    /// Recoveries that ran: unique states, and known ones where another session follows.
    pub recoveries: u64,
    /// Recovered disks that were new and went on with another session.
    pub continued: u64,
}

/// What all levels of an exploration share.
pub(crate) struct Shared {
    pub(crate) case: Case,
    pub(crate) bound: Bound,
    pub(crate) memory: Memory,
    /// Tells states apart by what follows them.
    pub(crate) salt: u64,
    pub(crate) stats: Stats,
    /// Decisions of the sessions after a crash: all tame without.
    pub(crate) random: Option<Random>,
    /// Which moments of the first session are looked at.
    pub(crate) moments: Moments,
    /// Replay: the crash to take at each level, instead of all.
    pub(crate) script: Option<Vec<Option<Crash>>>,
    pub(crate) open_ops_max: u32,
    /// Whether the fault of the case has struck in any run so far.
    pub(crate) fault_struck: bool,
    /// The part of a session before it counts: no crash, no choice, no fault.
    pub(crate) preparing: bool,
    pub(crate) audit: Audit,
    /// The next recovery is one that the auditor looks at.
    pub(crate) audited: bool,
}

/// Decisions made at random.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Random {
    /// Seed of the first session's decisions; those of later ones are derived from it.
    pub seed: u64,
    /// Odds, in 1/256, that a decision is not the tame one.
    pub odds: u8,
}

/// Which moments of the first session are looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moments {
    /// One of this many, chosen by the seed.
    pub every: u32,
    /// Seed of the choice.
    pub seed: u64,
    /// None before this one.
    pub first: u32,
}

impl Moments {
    /// All of them.
    pub const ALL: Moments = Moments {
        every: 1,
        seed: 0,
        first: 0,
    };

    fn wants(&self, moment: u32) -> bool {
        moment >= self.first
            && (self.every <= 1
                || mix(self.seed, u64::from(moment)).is_multiple_of(u64::from(self.every)))
    }
}

/// Disks, engine and guest of one depth of nesting.
pub(crate) struct Level<E> {
    pub(crate) bus: Bus,
    pub(crate) devices: Devices,
    pub(crate) engine: E,
    pub(crate) client: Client,
    pub(crate) oracle: Oracle,
    pub(crate) space: Space,
    pub(crate) choices: Choices,
    values: Vec<Value>,
    images: Vec<Vec<SectorId>>,
    now: Instant,
    /// Crash moments so far.
    pub(crate) moment: u32,
    /// Steps of the guest so far, those that prepare the disk left out.
    pub(crate) steps_taken: usize,
    /// Device operations since the guest was last served.
    toil: u32,
    /// (device operations, oracle changes) when a crash was last looked at.
    looked_at: Option<(u32, u32)>,
    tightened: u32,
    opened: bool,
    closed: bool,
    severed: bool,
    /// Opening or closing failed, and an injected fault or a tear excuses it.
    failed: bool,
    pub(crate) harm: Harm,
    /// The power loss before this session may have taken something that exists once.
    bereft: bool,
    /// A read failed, and a tear excuses it.
    unreadable: bool,
    /// The recovery after a power loss is under way.
    recovering: bool,
    /// Number of the contents that it ended in.
    showed: Option<u32>,
    repeats: Repeats,
}

impl<E: Engine> Level<E> {
    pub(crate) fn new(bus: Bus, case: &Case, plan: &Plan) -> Level<E> {
        let devices = Devices::new(&bus, &case.setup, plan);
        let mut space = Space::new();
        for device in devices.stores() {
            let own = plan.regions.iter().filter(|region| region.0 == device.id());
            space.regions(
                device.id(),
                &own.map(|region| region.1).collect::<Vec<u32>>(),
            );
        }
        space.zones(&plan.zones);
        Level {
            bus,
            devices,
            engine: E::new(&case.setup),
            client: Client::new(),
            oracle: Oracle::default(),
            space,
            choices: Choices::new(),
            values: Vec::new(),
            images: Vec::new(),
            now: Instant::ZERO,
            moment: 0,
            steps_taken: 0,
            toil: 0,
            looked_at: None,
            tightened: 0,
            opened: false,
            closed: false,
            severed: false,
            failed: false,
            harm: Harm::new(plan.metadata_sectors),
            bereft: false,
            unreadable: false,
            recovering: false,
            showed: None,
            repeats: Repeats::default(),
        }
    }

    /// Loads what the stores hold and what the guest may expect; the next session starts from it.
    pub(crate) fn load(&mut self, images: &[Vec<SectorId>], oracle: &Oracle) {
        for (device, image) in self.devices.stores().zip(images) {
            device.load(image);
        }
        self.bereft = false;
        if let Some(base) = &self.devices.base {
            base.reconnect();
            base.set_fault(None);
        }
        self.oracle.clone_from(oracle);
        self.moment = 0;
        self.steps_taken = 0;
        self.toil = 0;
        self.looked_at = None;
        self.now = Instant::ZERO;
        self.showed = None;
        self.repeats.clear();
    }

    fn in_flight(&self) -> usize {
        self.devices.all().map(|device| device.in_flight()).sum()
    }

    fn fault_struck(&self) -> bool {
        self.devices.all().any(|device| device.fault_struck())
    }
}

/// Device operations in a row without anything for the guest, after which an engine counts as
/// working for nothing.
const TOIL: u32 = 2_000;

/// One session on the first of `levels`.
pub(crate) struct Session<'a, E> {
    level: &'a mut Level<E>,
    deeper: &'a mut [Level<E>],
    shared: &'a mut Shared,
    depth: usize,
}

/// Runs the session of depth `depth` on the first level, which has been loaded.
pub(crate) fn run<E: Engine>(
    levels: &mut [Level<E>],
    shared: &mut Shared,
    depth: usize,
) -> Result<(), Failure> {
    let Some((level, deeper)) = levels.split_first_mut() else {
        return Ok(());
    };
    let mut session = Session {
        level,
        deeper,
        shared,
        depth,
    };
    let result = session.run();
    let choices = session.level.choices.script();
    result.map_err(|mut failure| {
        match failure.path.0.first_mut() {
            Some((own, _)) if own.is_empty() => *own = choices,
            _ => failure.path.0.insert(0, (choices, None)),
        }
        failure
    })
}

type Outcomes = Result<(), Failure>;

fn broken(rule: &'static str, detail: impl Into<String>) -> Failure {
    let violation = Violation {
        rule,
        detail: detail.into(),
    };
    violation.into()
}

impl From<Violation> for Failure {
    fn from(violation: Violation) -> Failure {
        Failure {
            violation,
            path: Path::default(),
        }
    }
}

impl<E: Engine> Session<'_, E> {
    fn run(&mut self) -> Outcomes {
        let depth = self.depth;
        self.level.bus.note(|| format!("session {depth}"));
        self.level.devices.set_schedule(Schedule::Manual);
        let audited = core::mem::take(&mut self.shared.audited);
        self.level.recovering = self.is_repeatable();
        let opened = self.open();
        self.level.recovering = false;
        opened?;
        if self.level.failed {
            return self.leave();
        }
        if depth == 0 {
            self.read_all(Purpose::Verify)?;
            self.prepare()?;
        } else {
            self.read_all(Purpose::Recover)?;
            self.compare_repeats()?;
            if audited {
                self.audit_recovered()?;
            }
            let seen = self.level.values.iter().copied();
            match self.shared.case.tear {
                Tear::Metastable => self.level.oracle.restart_metastable(seen),
                _ => self.level.oracle.restart(seen),
            }
            self.level.tightened += 1;
            self.recover_again()?;
        }
        if let Some(steps) = self.shared.case.sessions.get(depth).cloned()
            && (depth == 0 || self.is_new())
        {
            self.guest(&steps)?;
            self.crash_moment()?;
        }
        self.leave()
    }

    fn prepare(&mut self) -> Outcomes {
        let prefix = self.shared.case.prefix.clone();
        if !prefix.is_empty() {
            self.level.bus.note(|| "prefix".into());
            self.shared.preparing = true;
            let prepared = self.guest(&prefix);
            self.shared.preparing = false;
            prepared?;
            self.level.bus.note(|| "workload".into());
        }
        if let Some((store, rule)) = self.shared.case.fault {
            let target = self.level.devices.all().find(|device| device.id() == store);
            if let Some(device) = target {
                device.set_fault(Some(rule));
            }
        }
        Ok(())
    }

    /// Whether a session from this recovered state has not been run before.
    fn is_new(&mut self) -> bool {
        if self.shared.script.is_some() {
            return true;
        }
        let mut key = mix(self.level.oracle.hash(), 0xC0DE ^ self.depth as u64);
        for device in self.level.devices.stores() {
            key = mix(key, device.hash());
        }
        let new = self.shared.memory.look(key ^ self.shared.salt) != Seen::Before;
        self.shared.stats.continued += u64::from(new);
        new
    }
}
