//! `cargo boot --kill`: QEMU is killed in the middle of the kernel's work, again and again, and
//! everything that the kernel had flushed must be there.
//!
//! ```text
//! boot ─ recover ─ verify ─ requests, flushes ─ ✝ ─ the host verifies ─ boot ─ recover ─ ...
//! ```
//!
//! Both look: the kernel after its recovery, and the host before that, by opening the image read-only
//! with the `fvd` command. The page cache survives QEMU: this is about hand-over and replay, not
//! about barriers, which are the crash simulator's matter.

use crate::agreed::{Pattern, event, option};
use crate::promise::{BASE_SECTORS, DISK_SECTORS, Ledger, SECTOR_BYTES, Sector, Value};
use crate::qemu::{Disk, Outcome};
use crate::said::{Phase, Said};
use crate::setting::Setting;
use crate::trial;
use core::fmt;
use core::ops::Range;
use core::time::Duration;
use std::fs;
use std::path::PathBuf;
use std::time::Instant;

const TIMEOUT: Duration = Duration::from_secs(120);

/// Rounds until a new image: this one is full by then.
const ROUNDS_PER_IMAGE: u32 = 5;

/// Requests of a kernel that nobody kills: more than it sends in a second.
const REQUESTS: u32 = 3000;

/// Longest time between the sign and the kill, microseconds.
const DELAY_MAX_MICROS: u64 = 30_000;

/// Metadata as small as can be: the journal is full again and again.
const SHAPE: [&str; 6] = [
    "--block-size",
    "4K",
    "--chunk-size",
    "64K",
    "--journal-size",
    "16K",
];

/// What is needed for rounds on one image.
pub(crate) struct Killing<'a> {
    pub(crate) setting: Setting<'a>,
    pub(crate) rounds: u32,
}

/// What rounds came to.
#[derive(Default)]
pub(crate) struct Sum {
    /// Killed while the image was opened, in use, closed, or not at all.
    opening: u32,
    running: u32,
    closing: u32,
    ended: u32,
    /// Requests that may have been sent, and those of them that were durable at the kill.
    requests: u32,
    durable: usize,
    flushes: u32,
    /// How often the kernel looked at all of the disk, and the host.
    kernel_looks: u32,
    host_looks: u32,
    elapsed: Duration,
}

impl fmt::Display for Sum {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let killed = self.opening + self.running + self.closing;
        write!(
            f,
            "killed {killed} times ({} opening, {} running, {} closing; {} ended before); {} \
             flushes, {} of up to {} requests durable, nothing of them lost: the host looked {} \
             times, the kernel {} ({:.1} s)",
            self.opening,
            self.running,
            self.closing,
            self.ended,
            self.flushes,
            self.durable,
            self.requests,
            self.host_looks,
            self.kernel_looks,
            self.elapsed.as_secs_f64()
        )
    }
}

impl Sum {
    fn add(&mut self, said: &Said) {
        match said.phase {
            Phase::Opening => self.opening += 1,
            Phase::Running => self.running += 1,
            Phase::Closing => self.closing += 1,
            Phase::Ended => self.ended += 1,
        }
        self.flushes += said.flushes;
        self.kernel_looks += u32::from(said.verified);
        self.host_looks += 1;
    }
}

/// When QEMU is killed.
struct Plan {
    sign: Sign,
    delay: Duration,
}

#[derive(Clone, Copy)]
enum Sign {
    Opening,
    /// So many flushes were done.
    Flushes(u32),
    Closing,
}

impl Plan {
    fn choose(seed: u64, round: u32) -> (Plan, u32) {
        let mut random = [0; 24];
        Pattern::new(seed, "kill", u64::from(round)).fill(0, &mut random);
        let [sign, count, delay] = [0, 8, 16].map(|at| {
            let mut word = [0; 8];
            word.copy_from_slice(&random[at..at + 8]);
            u64::from_le_bytes(word)
        });
        let (sign, requests) = match sign % 6 {
            0 => (Sign::Opening, REQUESTS),
            1 => (Sign::Closing, (count % 400) as u32),
            _ => (Sign::Flushes(1 + (count % 60) as u32), REQUESTS),
        };
        let delay = Duration::from_micros(delay % DELAY_MAX_MICROS);
        (Plan { sign, delay }, requests)
    }
}

impl Killing<'_> {
    /// Does it all.
    ///
    /// # Errors
    ///
    /// The first thing that went wrong, with what the kernel printed.
    pub(crate) fn run(&self) -> Result<Sum, String> {
        let start = Instant::now();
        let mut sum = Sum::default();
        let mut done = 0;
        while done < self.rounds {
            let end = self.rounds.min(done + ROUNDS_PER_IMAGE);
            self.make_disks()?;
            self.run_image(done..end, &mut sum)?;
            done = end;
        }
        sum.elapsed = start.elapsed();
        Ok(sum)
    }

    /// Rounds on one image, each on what the last one left.
    fn run_image(&self, rounds: Range<u32>, sum: &mut Sum) -> Result<(), String> {
        // Requests that are durable, as ranges, and the first that was never sent.
        let (mut durable, mut next): (Vec<Range<u32>>, u32) = (Vec::new(), 0);
        for round in rounds {
            let (plan, requests) = Plan::choose(self.setting.seed, round);
            let said = self
                .boot(&durable, next..next + requests, Some(&plan))
                .map_err(|fault| format!("round {}: {fault}", round + 1))?;
            sum.add(&said);
            durable.push(next..said.flushed);
            let single = said.single.iter().filter(|number| **number >= said.flushed);
            durable.extend(single.map(|&number| number..number + 1));
            durable.retain(|range| !range.is_empty());
            next = said.limit;
            self.verify(&durable, next)
                .map_err(|fault| format!("round {}: on the host: {fault}", round + 1))?;
        }
        // Once more, to the end: now the image must be clean.
        let said = self.boot(&durable, next..next, None)?;
        if said.phase != Phase::Ended || !said.verified {
            return Err("the kernel did not verify and close the image".to_owned());
        }
        self.verify(&durable, next)?;
        let checked = self.setting.fvd.check(&self.base(), &self.image())?;
        if checked.contains("cut off") {
            return Err(format!("closed, and not clean: {}", checked.trim_end()));
        }
        sum.kernel_looks += 1;
        sum.host_looks += 1;
        sum.requests += next;
        sum.durable += durable.iter().map(|range| range.len()).sum::<usize>();
        Ok(())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.setting.path("kill-", name)
    }

    fn base(&self) -> PathBuf {
        self.path("base.raw")
    }

    fn image(&self) -> PathBuf {
        self.path("fvd")
    }

    fn make_disks(&self) -> Result<(), String> {
        let mut base = vec![0; BASE_SECTORS as usize * SECTOR_BYTES];
        for (sector, bytes) in (0..).zip(base.chunks_mut(SECTOR_BYTES)) {
            Value::BASE.fill(self.setting.seed, sector, bytes);
        }
        let path = self.base();
        fs::write(&path, base)
            .map_err(|error| format!("cannot write {}: {error}", path.display()))?;
        let mut shape = vec!["--force", "--table", self.setting.table];
        shape.extend(SHAPE);
        let bytes = DISK_SECTORS as usize * SECTOR_BYTES;
        self.setting.fvd.create(&path, &self.image(), bytes, &shape)
    }

    /// Boots the kernel on what is there, to verify it and send `numbers`, and kills it.
    fn boot(
        &self,
        durable: &[Range<u32>],
        numbers: Range<u32>,
        plan: Option<&Plan>,
    ) -> Result<Said, String> {
        let word = |name, range: &Range<u32>| format!("{name}={}+{}", range.start, range.len());
        let mut words = vec![format!("{}={}", option::SEED, self.setting.seed)];
        words.push(word(option::LOAD, &numbers));
        // There are too many of the single ones for a command line; the host looks after them.
        let ranges = durable.iter().filter(|range| range.len() > 1);
        words.extend(ranges.map(|range| word(option::DURABLE, range)));
        let disk = |path, read_only| Disk { path, read_only };
        let disks = [disk(self.image(), false), disk(self.base(), true)];
        let cmdline = words.join(" ");
        let boot = self.setting.boot(&disks, &cmdline, TIMEOUT);
        let mut said = Said::nothing(numbers.start);
        let mut killed = false;
        let outcome = boot.run_until(|line| {
            said.take(line, numbers.end);
            let plan = plan.filter(|_| !killed)?;
            let due = match plan.sign {
                Sign::Opening => line == event::OPENING,
                Sign::Flushes(count) => said.flushes >= count,
                Sign::Closing => line == event::CLOSING,
            };
            killed = due;
            due.then_some(plan.delay)
        })?;
        judge(&outcome, killed).map_err(|fault| outcome.explain(fault))?;
        Ok(said)
    }

    /// Reads the whole disk as `fvd` sees it, without changing the image.
    fn verify(&self, durable: &[Range<u32>], end: u32) -> Result<(), String> {
        self.setting.fvd.check(&self.base(), &self.image())?;
        let raw = self.path("raw");
        self.setting.fvd.to_raw(&self.base(), &self.image(), &raw)?;
        let disk =
            fs::read(&raw).map_err(|error| format!("cannot read {}: {error}", raw.display()))?;
        if disk.len() != DISK_SECTORS as usize * SECTOR_BYTES {
            return Err(format!("the disk has {} bytes", disk.len()));
        }
        let mut sectors = vec![Sector::default(); DISK_SECTORS as usize];
        let mut ledger = Ledger::new(self.setting.seed, end, &mut sectors);
        for range in durable {
            ledger.add_durable(range.clone());
        }
        for (number, sector) in (0..).zip(disk.chunks(SECTOR_BYTES)) {
            ledger
                .check(number, sector)
                .map_err(|fault| fault.to_string())?;
        }
        Ok(())
    }
}

/// Finds fault with how a run ended: by the kill, or well.
fn judge(outcome: &Outcome, killed: bool) -> Result<(), String> {
    match outcome.status {
        None if killed => Ok(()),
        _ => trial::judge(outcome),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::promise::{Kind, Request};

    const SEED: u64 = 7;

    /// The disk after these requests.
    fn disk_after(numbers: Range<u32>) -> Vec<u8> {
        let mut disk = vec![0; DISK_SECTORS as usize * SECTOR_BYTES];
        let sectors = |range: Range<u32>, value: Value, disk: &mut [u8]| {
            for sector in range {
                let at = sector as usize * SECTOR_BYTES;
                value.fill(SEED, sector, &mut disk[at..at + SECTOR_BYTES]);
            }
        };
        sectors(0..BASE_SECTORS, Value::BASE, &mut disk);
        for number in numbers {
            let request = Request::numbered(SEED, number);
            let value = match request.kind {
                Kind::Zeroes => Value::ZERO,
                Kind::Write | Kind::FuaWrite => Value::of_request(number),
            };
            sectors(request.sectors(), value, &mut disk);
        }
        disk
    }

    /// What is wrong with a disk if `durable` is, and nothing from `end` on was sent.
    fn fault(disk: &[u8], durable: Range<u32>, end: u32) -> Option<String> {
        let mut sectors = vec![Sector::default(); DISK_SECTORS as usize];
        let mut ledger = Ledger::new(SEED, end, &mut sectors);
        ledger.add_durable(durable);
        let mut checked = (0..).zip(disk.chunks(SECTOR_BYTES));
        checked.find_map(|(number, bytes)| ledger.check(number, bytes).err().map(|f| f.to_string()))
    }

    #[test]
    fn what_is_durable_must_be_there_and_what_came_later_may() {
        for there in [100, 120, 200] {
            assert_eq!(fault(&disk_after(0..there), 0..100, 200), None, "{there}");
        }
        assert_eq!(fault(&disk_after(0..0), 0..0, 0), None);
        let lost = fault(&disk_after(0..99), 0..100, 200);
        assert!(lost.is_some_and(|fault| fault.ends_with("request 99 is durable")));
        let unsent = fault(&disk_after(0..201), 0..100, 200);
        assert!(unsent.is_some_and(|fault| fault.contains("holds request 200")));
    }

    #[test]
    fn what_was_never_written_there_is_found() {
        let mut disk = disk_after(0..50);
        let (first, second) = disk.split_at_mut(SECTOR_BYTES);
        first.copy_from_slice(&second[..SECTOR_BYTES]);
        let misplaced = fault(&disk, 0..50, 50);
        assert!(misplaced.is_some_and(|fault| fault.contains("what nobody wrote")));
        let mut torn = disk_after(0..50);
        *torn.last_mut().expect("a byte") ^= 1;
        assert!(fault(&torn, 0..50, 50).is_some());
    }
}
