//! Many rounds on images of all kinds.

use core::fmt;
use std::error::Error;
use std::process::Command;

use super::Noise;
use super::ground::{GROUNDS, Ground};
use super::notes::Notes;
use super::round::{Outcome, Phase, Subject};

/// Rounds on one image, each on what the last one left.
const ROUNDS_PER_IMAGE: u32 = 8;

/// What to do.
pub struct Campaign<'a> {
    pub rounds: u32,
    pub seed: u64,
    /// A wrong variant of the engine for the children, by its name.
    pub bug: Option<&'a str>,
    /// Starts this program again so that it calls `serve_if_asked`.
    pub child: &'a dyn Fn() -> Command,
}

/// What is counted: rounds, by what the child was doing when it was killed; what it sent; sectors
/// whose change had to be there, or might be; what its session did, as far as it said.
const COLUMNS: [&str; 13] = [
    "rounds", "opening", "running", "closing", "ended", "requests", "barriers", "durable", "free",
    "commits", "checkpts", "growths", "fills",
];

type Row = [u64; COLUMNS.len()];

fn row(outcome: &Outcome) -> Row {
    let phase = |phase| u64::from(outcome.phase == phase);
    let (count, tally) = (&outcome.count, &outcome.tally);
    [
        1,
        phase(Phase::Opening),
        phase(Phase::Running),
        phase(Phase::Closing),
        phase(Phase::Ended),
        count.requests,
        count.barriers,
        count.durable_sectors,
        count.free_sectors,
        tally.commits,
        tally.checkpoints,
        tally.growths,
        tally.fills,
    ]
}

/// The numbers of a campaign that found nothing.
pub struct Table([(Ground, Row); GROUNDS.len()]);

/// What a campaign found.
pub struct Fault {
    /// Rounds until then.
    pub rounds: u32,
    pub text: String,
}

impl Campaign<'_> {
    /// Does all rounds, or those up to the first fault, whose files are kept.
    pub fn run(&self) -> Result<Table, Fault> {
        let mut table = Table(GROUNDS.map(|ground| (ground, Row::default())));
        let mut noise = Noise::new(self.seed);
        let mut done = 0;
        for index in (0..GROUNDS.len()).cycle() {
            let rounds = ROUNDS_PER_IMAGE.min(self.rounds - done);
            if rounds == 0 {
                break;
            }
            let (ground, sum) = &mut table.0[index];
            self.rounds_on_new_image(*ground, rounds, &mut noise, |outcome| {
                done += 1;
                for (sum, number) in sum.iter_mut().zip(row(outcome)) {
                    *sum += number;
                }
            })
            .map_err(|error| Fault {
                rounds: done + 1,
                text: format!("seed {}, round {}: {error}", self.seed, done + 1),
            })?;
        }
        Ok(table)
    }

    fn rounds_on_new_image(
        &self,
        ground: Ground,
        rounds: u32,
        noise: &mut Noise,
        mut tell: impl FnMut(&Outcome),
    ) -> Result<(), Box<dyn Error>> {
        let folder = tempfile::Builder::new().prefix("fvd-kill-").tempdir()?;
        let mut id = [0; 16];
        id[..8].copy_from_slice(&noise.next().to_le_bytes());
        ground.create(folder.path(), id)?;
        let mut subject = Subject {
            ground,
            folder: folder.path(),
            notes: Notes::new(ground),
            bug: self.bug,
        };
        for round in 1..=rounds {
            let recover = round == rounds || noise.below(2) == 0;
            match subject.round((self.child)(), noise.next(), recover) {
                Ok(outcome) => tell(&outcome),
                Err(error) if self.bug.is_some() => return Err(error),
                Err(error) => {
                    let kept = folder.keep();
                    return Err(format!("{error}; the files are in {}", kept.display()).into());
                }
            }
        }
        Ok(())
    }
}

impl Table {
    /// The sum of one column over some kinds of image.
    pub fn total(&self, column: &str, of: impl Fn(&Ground) -> bool) -> u64 {
        let index = COLUMNS.iter().position(|name| *name == column);
        let index = index.expect("a column of this name");
        let rows = self.0.iter().filter(|(ground, _)| of(ground));
        rows.map(|(_, row)| row[index]).sum()
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = |f: &mut fmt::Formatter<'_>, name: &str, cells: &[String]| {
            write!(f, "{name:6}")?;
            for cell in cells {
                write!(f, " {cell:>8}")?;
            }
            writeln!(f)
        };
        line(f, "image", &COLUMNS.map(String::from))?;
        for (ground, row) in &self.0 {
            line(f, ground.name, &row.map(|number| number.to_string()))?;
        }
        line(
            f,
            "all",
            &COLUMNS.map(|column| self.total(column, |_| true).to_string()),
        )
    }
}
