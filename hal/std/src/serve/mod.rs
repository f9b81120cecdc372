//! A disk for clients that speak NBD: one thread, many connections, many requests in flight.
//!
//! ```text
//! sockets ─► connection ─► request ─► op ─► device
//!    ▲                                        │  any order
//!    └── output ◄── reply ◄── task ◄──────────┘
//! ```
//!
//! | file | its one job |
//! | --- | --- |
//! | `connection` | one client: handshake, requests in, replies out |
//! | `stream` | its socket |
//! | `input` | what was read ahead from it |
//! | `reply` | what it is answered, and how much of that was sent |
//! | `task` | one request on its way through the device |
//! | `disks` | what can be served |
//! | `wake` | sleep until a socket, a device or a signal has something |
//!
//! One disk stands behind all connections, so a flush on any of them covers the completed writes of
//! all. A client that is slow, silent or gone costs its own requests and nobody else's: what is read
//! ahead from it and what waits to be sent to it is bounded by [`IN_FLIGHT_MAX`] requests and
//! [`BYTES_MAX`] bytes, and nothing here ever blocks on a socket.
//!
//! Invariants:
//! 1. A task that is with the device names its connection by index and generation, so that a reply
//!    never reaches a client that came later.
//! 2. Nothing is read from a connection that is at its bounds.

mod connection;
mod disks;
mod input;
mod reply;
mod stream;
mod task;
mod wake;

use core::ops::ControlFlow;
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixListener;
use std::time::{Duration, Instant};

use fvd::device::{BlockDevice, Geometry, When};
use fvd_nbd::export::Export;

use crate::drive::Clock;
use connection::Connection;
use stream::Stream;
use task::Tasks;
use wake::{Interest, Sleeper};

/// Requests of one connection that are in flight or wait to be sent their reply, at most.
pub const IN_FLIGHT_MAX: usize = 64;

/// Bytes of data that one connection's requests may hold, at most, beside the one that is read in.
pub const BYTES_MAX: usize = 64 << 20;

/// Most bytes that one read or write may carry.
pub const PAYLOAD_BYTES_MAX: u32 = 32 << 20;

/// Connections at a time; more are turned away.
pub const CONNECTIONS_MAX: usize = 64;

/// How long a client may take from connecting to choosing an export.
const HANDSHAKE_SECONDS: u64 = 10;

/// How long replies may take to drain when the server ends.
const DRAIN_SECONDS: u64 = 5;

/// A disk that can be served.
pub trait Disk: BlockDevice {
    /// The extent at byte `offset`: its length, and what is known of it.
    fn extent_at(&self, offset: u64) -> Option<(u64, Allocation)>;
}

/// What is known of a range without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Allocation {
    /// It has content of its own.
    Data,
    /// It reads zeros and takes no storage.
    Hole,
}

/// Where clients come from.
pub enum Listener {
    /// A socket in the file system.
    Unix(UnixListener),
    /// A port.
    Tcp(TcpListener),
}

impl Listener {
    fn accept(&self) -> io::Result<Stream> {
        match self {
            Listener::Unix(listener) => listener
                .accept()
                .and_then(|(stream, _)| Stream::unix(stream)),
            Listener::Tcp(listener) => listener
                .accept()
                .and_then(|(stream, _)| Stream::tcp(stream)),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Unix(listener) => listener.as_fd(),
            Listener::Tcp(listener) => listener.as_fd(),
        }
    }
}

/// What the server is told from outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Finish what was begun and return.
    Stop,
}

/// What was done so far, in numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Clients that connected.
    pub connections: u64,
    /// Clients that were turned away because there were too many.
    pub refused_connections: u64,
    /// Requests that were answered.
    pub requests: u64,
    /// Requests that were answered with an error.
    pub errors: u64,
    /// Bytes sent in answer to reads.
    pub read_bytes: u64,
    /// Bytes received with writes.
    pub written_bytes: u64,
}

/// A server of one disk.
pub struct Server<'a, D: Disk + ?Sized> {
    disk: &'a mut D,
    geometry: Geometry,
    export: Export<'a>,
    listener: Listener,
    clock: Clock,
    sleeper: Sleeper,
    /// Whether the disk wakes the sleeper; if not it is polled.
    wakes: bool,
    connections: Vec<Option<Connection>>,
    generation: u64,
    tasks: Tasks,
    counters: Counters,
}

impl<'a, D: Disk + ?Sized> Server<'a, D> {
    /// A server of `disk` under `name`.
    ///
    /// # Errors
    /// What the system says to a socket that shall not block.
    pub fn new(disk: &'a mut D, listener: Listener, name: &'a str) -> io::Result<Self> {
        match &listener {
            Listener::Unix(listener) => listener.set_nonblocking(true)?,
            Listener::Tcp(listener) => listener.set_nonblocking(true)?,
        }
        let geometry = disk.geometry();
        let sleeper = Sleeper::new();
        let wakes = disk.set_waker(&sleeper.waker());
        let min = geometry.logical_block_bytes;
        let export = Export {
            name,
            description: "",
            size_bytes: geometry.capacity_bytes,
            read_only: geometry.read_only,
            trim: geometry.discard.is_some(),
            block_bytes_min: min,
            block_bytes_preferred: min.max(4096),
            payload_bytes_max: PAYLOAD_BYTES_MAX.min(geometry.transfer_max_bytes) & !(min - 1),
        };
        let tasks = Tasks::new().ok_or_else(|| io::Error::from(io::ErrorKind::OutOfMemory))?;
        Ok(Server {
            disk,
            geometry,
            export,
            listener,
            clock: Clock::start(),
            sleeper,
            wakes,
            connections: Vec::new(),
            generation: 0,
            tasks,
            counters: Counters::default(),
        })
    }

    /// What was done so far.
    #[must_use]
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The disk.
    #[must_use]
    pub fn disk(&self) -> &D {
        self.disk
    }

    /// Serves until told to stop, then finishes every request that was received whole, sends its
    /// reply, and returns with nothing in flight. `control` readable means that `command` wants to be
    /// asked what to do.
    ///
    /// # Errors
    /// What the system says to waiting, or to the listening socket.
    pub fn run(
        &mut self,
        control: BorrowedFd<'_>,
        mut command: impl FnMut(&Self) -> Option<Command>,
    ) -> io::Result<()> {
        let mut stop_at: Option<Instant> = None;
        loop {
            let ready = self.wait(control, stop_at)?;
            for index in &ready.readable {
                if let Some(Some(connection)) = self.connections.get_mut(*index) {
                    connection.set_readable();
                }
            }
            if ready.control && command(self) == Some(Command::Stop) && stop_at.is_none() {
                stop_at = Some(Instant::now() + Duration::from_secs(DRAIN_SECONDS));
            }
            if ready.listener && stop_at.is_none() {
                self.accept();
            }
            let stopping = stop_at.is_some();
            for index in 0..self.connections.len() {
                self.turn(index, stopping);
            }
            self.finish_tasks();
            for index in 0..self.connections.len() {
                self.send(index);
            }
            if let Some(limit) = stop_at
                && self.is_drained(limit)
            {
                return Ok(());
            }
        }
    }

    /// Nothing is with the device, and replies are sent or given up.
    fn is_drained(&self, limit: Instant) -> bool {
        let sent = self.connections.iter().flatten().all(Connection::is_sent);
        self.tasks.is_idle() && (sent || Instant::now() >= limit)
    }

    fn wait(
        &mut self,
        control: BorrowedFd<'_>,
        stop_at: Option<Instant>,
    ) -> io::Result<wake::Ready> {
        let mut limit = match self.disk.poll_at() {
            When::Now => Some(Duration::ZERO),
            When::At(at) => {
                let micros = at.micros.saturating_sub(self.clock.now().micros);
                Some(Duration::from_micros(micros))
            }
            When::Event => None,
        };
        let mut at_most = |bound: Duration| limit = Some(limit.map_or(bound, |l| l.min(bound)));
        if !self.wakes && !self.tasks.is_idle() {
            at_most(Duration::from_micros(crate::drive::POLL_INTERVAL_MICROS));
        }
        if stop_at.is_some() {
            at_most(Duration::from_millis(50));
        }
        let room = self.tasks.has_room();
        let (mut new, mut work) = (false, false);
        let interests = self.connections.iter().map(|connection| {
            let connection = connection.as_ref()?;
            new |= connection.deadline().is_some();
            // What is at its bounds is not read; what has work left is not slept on.
            work |= connection.has_work(room);
            let read = stop_at.is_none() && connection.wants_input(room);
            Some((
                connection.as_fd(),
                Interest {
                    read,
                    write: !connection.is_sent(),
                },
            ))
        });
        let interests: Vec<_> = interests.collect();
        if new {
            at_most(Duration::from_secs(1));
        }
        if work {
            at_most(Duration::ZERO);
        }
        let listening = stop_at.is_none().then(|| self.listener.as_fd());
        self.sleeper.sleep(control, listening, &interests, limit)
    }

    fn accept(&mut self) {
        // Bounded, so that a flood of connections can not keep the others waiting.
        for _ in 0..16 {
            let Ok(stream) = self.listener.accept() else {
                return;
            };
            if self.connections.iter().flatten().count() >= CONNECTIONS_MAX {
                self.counters.refused_connections += 1;
                continue;
            }
            self.counters.connections += 1;
            self.generation += 1;
            let deadline = Instant::now() + Duration::from_secs(HANDSHAKE_SECONDS);
            let connection = Connection::new(stream, self.generation, deadline);
            match self.connections.iter_mut().find(|place| place.is_none()) {
                Some(place) => *place = Some(connection),
                None => self.connections.push(Some(connection)),
            }
        }
    }

    /// Reads from one connection and starts what it asks for.
    fn turn(&mut self, index: usize, stopping: bool) {
        let Some(Some(connection)) = self.connections.get_mut(index) else {
            return;
        };
        let exports = [self.export];
        let flow = connection.advance(&exports, !stopping, &mut self.counters, |from, want| {
            self.tasks
                .start(index, from, want, &mut *self.disk, &self.geometry)
        });
        if flow == ControlFlow::Break(()) || connection.is_overdue(Instant::now()) {
            self.drop_connection(index);
        }
    }

    /// Its tasks go on; their replies are dropped.
    fn drop_connection(&mut self, index: usize) {
        if let Some(place) = self.connections.get_mut(index) {
            *place = None;
        }
    }

    /// Takes completions and hands their replies to the connections.
    fn finish_tasks(&mut self) {
        self.disk.notify();
        let now = self.clock.now();
        self.tasks.resubmit(&mut *self.disk);
        for _ in 0..task::TASKS_MAX {
            let refused = self.tasks.next_refused();
            let Some(op) = refused.or_else(|| self.disk.poll(now)) else {
                break;
            };
            let Some(done) = self
                .tasks
                .on_completion(op, &mut *self.disk, &self.geometry)
            else {
                continue;
            };
            self.counters.requests += 1;
            self.counters.errors += u64::from(done.reply.is_error());
            let connection = self.connections.get_mut(done.connection);
            if let Some(Some(connection)) = connection
                && connection.generation() == done.generation
            {
                self.counters.read_bytes += done.reply.data_len() as u64;
                connection.reply(done.reply);
            }
        }
        self.tasks.resubmit(&mut *self.disk);
        self.disk.notify();
    }

    fn send(&mut self, index: usize) {
        let Some(Some(connection)) = self.connections.get_mut(index) else {
            return;
        };
        if connection.send() == ControlFlow::Break(()) {
            self.drop_connection(index);
        }
    }
}
