//! One round: a child is started, killed, and what it left is looked at.

use core::time::Duration;
use std::error::Error;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread;
use std::time::Instant;

use fvd_std::file::LOCK_PATIENCE;
use fvd_std::image::Access;

use super::Noise;
use super::ground::Ground;
use super::load::Task;
use super::message::{Message, Tally};
use super::notes::{Count, Notes};

type Result<T> = core::result::Result<T, Box<dyn Error>>;

/// A child that says nothing for so long hangs.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Most requests of a child that nobody kills.
const REQUESTS_MAX: u64 = 400;

/// Longest time between the sign and the kill, microseconds.
const DELAY_MAX_MICROS: u64 = 3_000;

/// `kill -9`.
const SIGKILL: i32 = 9;

/// What the child was doing when it was killed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Starting, opening, recovering.
    Opening,
    Running,
    Closing,
    /// Nothing: it was faster.
    Ended,
}

/// What a round came to.
#[derive(Clone, Copy, Debug)]
pub struct Outcome {
    pub phase: Phase,
    pub count: Count,
    pub tally: Tally,
}

/// When the parent kills.
#[derive(Clone, Copy, Debug)]
enum Sign {
    /// The child says that it opens the image.
    Opening,
    /// It has said so many things.
    Said(u64),
    /// It says that it closes the image.
    Closing,
    /// It is never killed.
    Never,
}

/// When, and how long after.
#[derive(Clone, Copy, Debug)]
struct Plan {
    sign: Sign,
    delay: Duration,
}

impl Plan {
    fn choose(noise: &mut Noise) -> (Plan, u32) {
        let requests = 1 + noise.below(REQUESTS_MAX);
        let sign = match noise.below(20) {
            0..4 => Sign::Opening,
            4..8 => Sign::Closing,
            8 => Sign::Never,
            // Each request says two things.
            _ => Sign::Said(2 + noise.below(2 * requests)),
        };
        let delay = match noise.below(3) {
            0 => 0,
            _ => noise.below(DELAY_MAX_MICROS),
        };
        let delay = Duration::from_micros(delay);
        (Plan { sign, delay }, requests as u32)
    }

    fn is_due(&self, said: u64, message: &Message) -> bool {
        match self.sign {
            Sign::Opening => *message == Message::Opening,
            Sign::Said(count) => said >= count,
            Sign::Closing => *message == Message::Closing,
            Sign::Never => false,
        }
    }
}

/// An image, and what is known of it.
pub struct Subject<'a> {
    pub ground: Ground,
    pub folder: &'a Path,
    pub notes: Notes,
    pub bug: Option<&'a str>,
}

impl Subject<'_> {
    /// Runs a child on the image and kills it. `recover` also opens the image for writing afterwards,
    /// which the next child has to do otherwise.
    pub fn round(&mut self, mut command: Command, seed: u64, recover: bool) -> Result<Outcome> {
        let mut noise = Noise::new(seed);
        let (plan, requests) = Plan::choose(&mut noise);
        let task = Task {
            ground: self.ground,
            folder: self.folder.to_owned(),
            seed: noise.next(),
            first_id: self.notes.next_id(),
            requests,
            bug: self.bug.map(str::to_owned),
        };
        task.give_to(&mut command);
        let (phase, tally) = self.run_child(command, plan)?;
        self.look(recover)?;
        let count = self.notes.end_round();
        Ok(Outcome {
            phase,
            count,
            tally,
        })
    }

    fn run_child(&mut self, mut command: Command, plan: Plan) -> Result<(Phase, Tally)> {
        let (own, other) = UnixStream::pair()?;
        let child = command
            .stdin(Stdio::from(OwnedFd::from(other)))
            .stdout(Stdio::null())
            .spawn()?;
        // The command has the other end of the socket, which must not outlive the child.
        drop(command);
        let mut child = Killed(child);
        let said = listen(own);
        let (mut phase, mut tally) = (Phase::Opening, Tally::default());
        let (mut count, mut due) = (0, false);
        loop {
            let message = match said.recv_timeout(SILENCE_MAX) {
                Ok(message) => message?,
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => return Err("the child hangs".into()),
            };
            count += 1;
            self.notes.take(&message)?;
            match message {
                Message::Open => phase = Phase::Running,
                Message::Closing => phase = Phase::Closing,
                Message::Closed => phase = Phase::Ended,
                Message::Tally(told) => tally = told,
                _ => {}
            }
            if !due && plan.is_due(count, &message) {
                due = true;
                thread::sleep(plan.delay);
                child.0.kill()?;
            }
        }
        judge(child.0.wait()?, due, phase)?;
        Ok((phase, tally))
    }

    /// Looks at what is left. Nobody else has the image: the child and all its threads are gone, and
    /// so are its requests once the lock is free.
    fn look(&mut self, recover: bool) -> Result<()> {
        let image = File::open(Ground::image_path(self.folder))?;
        let give_up = Instant::now() + LOCK_PATIENCE;
        while image.try_lock().is_err() && Instant::now() < give_up {
            thread::sleep(Duration::from_millis(1));
        }
        if image.try_lock().is_err() {
            return Err("the image is still locked by a dead process".into());
        }
        drop(image);
        // Without writing, so that the next one to open it has everything to recover.
        self.read_all(Access::ReadOnly)?;
        if recover {
            self.read_all(Access::ReadWrite)?;
            self.ground.check_clean(self.folder)?;
            self.read_all(Access::ReadOnly)?;
        }
        Ok(())
    }

    fn read_all(&mut self, access: Access) -> Result<()> {
        let notes = &mut self.notes;
        let settle = |sector, bytes: &[u8]| Ok(notes.settle(sector, bytes)?);
        let read = self.ground.read_all(self.folder, access, settle);
        read.map_err(|error| format!("opened {access:?}: {error}").into())
    }
}

/// The child ended as it should.
fn judge(status: ExitStatus, killed: bool, phase: Phase) -> Result<()> {
    let fine = match status.signal() {
        Some(signal) => killed && signal == SIGKILL,
        None => status.success() && phase == Phase::Ended,
    };
    if fine {
        Ok(())
    } else {
        Err(format!("the child ended with {status}, {phase:?}").into())
    }
}

/// Reads what the child says, as it comes.
fn listen(socket: UnixStream) -> Receiver<core::result::Result<Message, String>> {
    let (sender, receiver) = mpsc::channel();
    thread::spawn(move || {
        let mut lines = BufReader::new(socket);
        let mut line = String::new();
        // A line without an end was cut off by the kill: what it was about was not done.
        while lines.read_line(&mut line).is_ok() && line.ends_with('\n') {
            if sender.send(line.trim_end().parse()).is_err() {
                break;
            }
            line.clear();
        }
    });
    receiver
}

/// A child that does not outlive this value.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        // Both fail only if it has ended and been waited for.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}
