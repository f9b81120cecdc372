//! The child: opens the image, sends requests of all kinds, many at once, and says so.
//!
//! Invariants:
//! 1. What it is about to do, it says first; what is over, it says afterwards. So the parent never
//!    expects less than was promised, and never more.
//! 2. No two requests in flight touch the same sector.

use core::ops::Range;
use std::env;
use std::error::Error;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{self, Command};

use fvd::buffer::{Arena, Head, Loan, Op, OpPool};
use fvd::device::{BlockDevice, OpFlags, OpKind, Status};
use fvd_std::arena::leak_arena;
use fvd_std::drive::Driver;
use fvd_std::image::{Access, Image};

use super::Noise;
use super::ground::{DISK_SECTORS, Ground};
use super::message::{Kind, Message, Request, Tally};
use super::stamp::{self, SECTOR, Value};

type Result<T> = core::result::Result<T, Box<dyn Error>>;

const VARIABLE: &str = "FVD_KILL_CHILD";

const DEPTH_MAX: u64 = 32;

/// Most sectors of one request: more than a block, less than a chunk.
const REQUEST_SECTORS_MAX: u64 = 40;

/// Parts of the disk that a child comes back to, and how long they are.
const WINDOWS: usize = 3;
const WINDOW_SECTORS: u64 = 300;

/// So many requests apart it says how far the session is.
const TALLY_INTERVAL: u32 = 32;

/// What a child is asked to do.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Task {
    pub ground: Ground,
    pub folder: PathBuf,
    pub seed: u64,
    /// The id of its first request.
    pub first_id: u32,
    /// Requests until it closes the image, if it lives so long.
    pub requests: u32,
    /// A wrong variant of the engine to run, by its name.
    pub bug: Option<String>,
}

impl Task {
    /// Hands the task to a program that calls [`serve_if_asked`].
    pub fn give_to(&self, command: &mut Command) {
        let (seed, first_id, requests) = (self.seed, self.first_id, self.requests);
        let bug = self.bug.as_deref().unwrap_or("-");
        let folder = self.folder.display();
        let name = self.ground.name;
        command.env(
            VARIABLE,
            format!("{name} {seed} {first_id} {requests} {bug} {folder}"),
        );
    }

    fn parse(text: &str) -> Option<Task> {
        let mut words = text.splitn(6, ' ');
        Some(Task {
            ground: Ground::named(words.next()?)?,
            seed: words.next()?.parse().ok()?,
            first_id: words.next()?.parse().ok()?,
            requests: words.next()?.parse().ok()?,
            bug: words.next().filter(|bug| *bug != "-").map(str::to_owned),
            folder: words.next()?.into(),
        })
    }
}

/// Does the task that the parent gave, and ends the process; returns at once if there is none.
///
/// It talks over a socket that the parent gave it as its standard input: what a test prints is not
/// its own.
pub fn serve_if_asked() {
    let Ok(text) = env::var(VARIABLE) else {
        return;
    };
    let socket = io::stdin().as_fd().try_clone_to_owned();
    let mut parent = UnixStream::from(socket.expect("a socket as standard input"));
    let result = Task::parse(&text)
        .ok_or_else(|| format!("no task: {text}").into())
        .and_then(|task| serve(&task, &mut parent));
    let code = match result {
        Ok(()) => 0,
        Err(error) => {
            // A parent that is gone will not mind.
            let _ = tell(&mut parent, &Message::Failed(error.to_string()));
            1
        }
    };
    process::exit(code);
}

fn tell(parent: &mut UnixStream, message: &Message) -> io::Result<()> {
    parent.write_all(format!("{message}\n").as_bytes())
}

fn serve(task: &Task, parent: &mut UnixStream) -> Result<()> {
    if let Some(bug) = &task.bug {
        seed_bug(bug)?;
    }
    let mut driver = Driver::new();
    tell(parent, &Message::Opening)?;
    let image = task
        .ground
        .open(&mut driver, &task.folder, Access::ReadWrite)?;
    tell(parent, &Message::Open)?;
    let mut load = Load::new(task, driver, image, parent)?;
    load.run()?;
    load.close()
}

#[cfg(feature = "_seeded-bugs")]
fn seed_bug(name: &str) -> Result<()> {
    use fvd::seeded::{Bug, set};
    let bug = Bug::ALL.iter().find(|bug| format!("{bug:?}") == name);
    set(Some(*bug.ok_or_else(|| format!("no bug {name}"))?));
    Ok(())
}

#[cfg(not(feature = "_seeded-bugs"))]
fn seed_bug(name: &str) -> Result<()> {
    Err(format!("bug {name}: this program was built without the feature `_seeded-bugs`").into())
}

struct Flight {
    id: u32,
    request: Request,
    loan: Option<Loan<Box<[u8]>>>,
}

struct Load<'a> {
    driver: Driver,
    image: Image,
    parent: &'a mut UnixStream,
    pool: OpPool,
    noise: Noise,
    flights: Vec<Flight>,
    windows: [u64; WINDOWS],
    depth: usize,
    ids: Range<u32>,
}

impl<'a> Load<'a> {
    fn new(
        task: &Task,
        driver: Driver,
        image: Image,
        parent: &'a mut UnixStream,
    ) -> Result<Load<'a>> {
        let mut noise = Noise::new(task.seed);
        let bytes = OpPool::arena_bytes(DEPTH_MAX as usize);
        let memory = leak_arena(bytes).ok_or("no memory")?;
        let mut arena = Arena::new(memory).map_err(|_| "misaligned memory")?;
        let pool = OpPool::carve(&mut arena, DEPTH_MAX as u32);
        let ends = u64::from(DISK_SECTORS) - WINDOW_SECTORS;
        Ok(Load {
            driver,
            image,
            parent,
            pool: pool.ok_or("too little memory")?,
            flights: Vec::new(),
            windows: core::array::from_fn(|_| noise.below(ends)),
            depth: 1 + noise.below(DEPTH_MAX) as usize,
            ids: task.first_id..task.first_id + task.requests,
            noise,
        })
    }

    fn run(&mut self) -> Result<()> {
        loop {
            while self.flights.len() < self.depth && !self.ids.is_empty() {
                self.start()?;
            }
            self.image.notify();
            match self.image.poll(self.driver.now()) {
                Some(op) => self.finish(op)?,
                None if self.flights.is_empty() => return Ok(()),
                None => self.driver.wait(self.image.poll_at()),
            }
        }
    }

    fn start(&mut self) -> Result<()> {
        let Some(id) = self.ids.next() else {
            return Ok(());
        };
        let request = self.choose();
        tell(self.parent, &Message::Submit(id, request))?;
        let (kind, flags) = match request.kind {
            Kind::Write => (OpKind::Write, OpFlags::NONE),
            Kind::FuaWrite => (OpKind::Write, OpFlags::FUA),
            Kind::Zeroes if id % 2 == 0 => (OpKind::WriteZeroes, OpFlags::MAY_UNMAP),
            Kind::Zeroes => (OpKind::WriteZeroes, OpFlags::NONE),
            Kind::Discard => (OpKind::Discard, OpFlags::NONE),
            Kind::Flush => (OpKind::Flush, OpFlags::NONE),
        };
        let offset = u64::from(request.sector) * SECTOR as u64;
        let len = u64::from(request.count) * SECTOR as u64;
        let head = Head {
            tag: u64::from(id),
            ..Head::new(kind, offset, len).with_flags(flags)
        };
        let mut op = self.pool.take(head).ok_or("no free op")?;
        let mut loan = None;
        if kind == OpKind::Write {
            let (lent, lease) = Loan::new(content(id, request)).map_err(|_| "an empty buffer")?;
            op.push(lease).map_err(|_| "no free segment")?;
            loan = Some(lent);
        }
        self.flights.push(Flight { id, request, loan });
        self.image
            .submit(op)
            .map_err(|op| format!("request {id}, {request:?}: {:?}", op.status()).into())
    }

    /// A request that touches no sector which one in flight touches.
    fn choose(&mut self) -> Request {
        let kind = match self.noise.below(100) {
            0..70 => Kind::Write,
            70..76 => Kind::FuaWrite,
            76..84 => Kind::Zeroes,
            84..88 => Kind::Discard,
            _ => Kind::Flush,
        };
        for _ in 0..8 {
            let count = 1 + self.noise.below(REQUEST_SECTORS_MAX);
            let window = self.noise.below(2 * WINDOWS as u64) as usize;
            let (start, room) = match self.windows.get(window) {
                Some(start) => (*start, WINDOW_SECTORS),
                None => (0, u64::from(DISK_SECTORS)),
            };
            let sector = (start + self.noise.below(room - count + 1)) as u32;
            let request = Request {
                kind,
                sector,
                count: count as u32,
            };
            let free = |flight: &Flight| {
                let other = &flight.request;
                sector + request.count <= other.sector || other.sector + other.count <= sector
            };
            if kind != Kind::Flush && self.flights.iter().all(free) {
                return request;
            }
        }
        Request {
            kind: Kind::Flush,
            sector: 0,
            count: 0,
        }
    }

    fn finish(&mut self, mut op: Op) -> Result<()> {
        let at = self
            .flights
            .iter()
            .position(|flight| u64::from(flight.id) == op.tag())
            .ok_or("a completion of nothing in flight")?;
        let Flight { id, request, loan } = self.flights.swap_remove(at);
        let status = op.status();
        if let Some(loan) = loan {
            let lease = op.pop().ok_or("a lease is missing")?;
            loan.redeem(lease).map_err(|_| "a foreign lease")?;
        }
        self.pool.put(op).map_err(|_| "a foreign op")?;
        if status != Status::Done {
            return Err(format!("request {id}, {request:?}: {status:?}").into());
        }
        tell(self.parent, &Message::Done(id))?;
        if id % TALLY_INTERVAL == 0 {
            self.tell_tally()?;
        }
        Ok(())
    }

    fn tell_tally(&mut self) -> io::Result<()> {
        let stats = self.image.stats();
        let tally = Tally {
            commits: stats.commits,
            checkpoints: stats.checkpoints,
            growths: stats.growths,
            fills: stats.fills,
        };
        tell(self.parent, &Message::Tally(tally))
    }

    fn close(mut self) -> Result<()> {
        self.tell_tally()?;
        tell(self.parent, &Message::Closing)?;
        self.image.close(&mut self.driver)?;
        tell(self.parent, &Message::Closed)?;
        Ok(())
    }
}

/// The bytes that a request writes.
fn content(id: u32, request: Request) -> Box<[u8]> {
    let mut bytes = vec![0; request.count as usize * SECTOR];
    for (sector, bytes) in (request.sector..).zip(bytes.chunks_exact_mut(SECTOR)) {
        stamp::write(Value(id), sector, bytes);
    }
    bytes.into_boxed_slice()
}
