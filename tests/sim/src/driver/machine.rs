//! Sessions of one disk, one after the other, in the same memory.

use core::task::Poll;

use fvd::buffer::Op;
use fvd::device::{BlockDevice, Geometry, When};
use fvd::open::{OpenOptions, Opening, PROBE_ARENA_BYTES, Probe};
use fvd::stores::Stores;
use fvd::units::Instant;
use fvd::{Closing, Disk};

use super::{Memory, options};
use crate::engine::{Event, arena_memory};
use crate::workload::Setup;

/// Memory that covers every setup; the engine says so if it does not.
const ARENA_BYTES: usize = 512 << 10;

/// Polls in a row for a disk that answers "poll me now".
const TURNS: u32 = 64;

/// One session of a disk, from probe to end.
#[derive(Default)]
#[allow(clippy::large_enum_variant)] // there is one, in its machine
enum Session<S: Stores> {
    #[default]
    Ended,
    Probing(Probe<S>),
    Opening(Opening<S>),
    Open(Disk<S>),
    Closing(Closing<S>),
}

pub(super) struct Machine<S: Stores> {
    session: Session<S>,
    options: OpenOptions,
    memory: Option<Memory>,
    /// What could not be got back.
    pub(super) lost: Option<&'static str>,
}

impl<S: Stores> Machine<S> {
    pub(super) fn new(setup: &Setup) -> Machine<S> {
        Machine {
            session: Session::Ended,
            options: options(setup),
            memory: None,
            lost: None,
        }
    }

    /// Takes the memory of a session that ended.
    fn keep(&mut self, memory: Option<Memory>, what: &'static str) {
        self.lost = self.lost.or(memory.is_none().then_some(what));
        self.memory = memory;
    }

    pub(super) fn open(&mut self, stores: S) {
        let size = ARENA_BYTES.max(PROBE_ARENA_BYTES);
        let memory = self.memory.take().unwrap_or_else(|| arena_memory(size));
        self.session = Session::Probing(Probe::new(stores, memory, self.options));
    }

    pub(super) fn geometry(&self) -> Geometry {
        match &self.session {
            Session::Open(disk) => disk.geometry(),
            _ => Geometry::basic(0),
        }
    }

    pub(super) fn submit(&mut self, op: Op) -> Result<(), Op> {
        match &mut self.session {
            Session::Open(disk) => disk.submit(op),
            _ => Err(op),
        }
    }

    pub(super) fn poll(&mut self, now: Instant) -> Event {
        for _ in 0..TURNS {
            // By reference: a disk is kilobytes, and this runs millions of times.
            let ready = match &mut self.session {
                Session::Ended => return Event::Idle,
                Session::Probing(probe) => probe.poll(now) == Poll::Ready(()),
                Session::Opening(opening) => opening.poll(now) == Poll::Ready(()),
                Session::Open(disk) => match disk.poll(now) {
                    Some(op) => return Event::Completed(op),
                    None => false,
                },
                Session::Closing(closing) => {
                    let ready = closing.poll(now) == Poll::Ready(());
                    match closing.reap() {
                        Some(op) => return Event::Completed(op),
                        None => ready,
                    }
                }
            };
            if ready && let Some(event) = self.advance() {
                return event;
            }
            if !ready && self.poll_at() != When::Now {
                return Event::Idle;
            }
        }
        // It still says "now"; whoever asks when to poll next will see that it makes no progress.
        Event::Idle
    }

    /// What polls says it is ready for the next step.
    fn advance(&mut self) -> Option<Event> {
        let failed = |error: &dyn core::fmt::Display| Some(Event::Failed(error.to_string()));
        match core::mem::take(&mut self.session) {
            Session::Probing(probe) => match probe.finish() {
                Ok(probed) => {
                    let layout = probed.layout;
                    let enough = probed
                        .memory
                        .filter(|own| own.len() >= layout.arena_bytes());
                    let memory = enough.unwrap_or_else(|| arena_memory(layout.arena_bytes()));
                    self.session = Session::Opening(Opening::new(probed.stores, layout, memory));
                    None
                }
                Err(failure) => {
                    self.keep(failure.memory, "the memory of a failed probe");
                    failed(&failure.error)
                }
            },
            Session::Opening(opening) => match opening.finish() {
                Ok(disk) => {
                    self.session = Session::Open(disk);
                    Some(Event::Opened)
                }
                Err(failure) => {
                    self.keep(failure.memory, "the memory of a failed open");
                    failed(&failure.error)
                }
            },
            Session::Closing(closing) => match closing.finish() {
                Ok(closed) => {
                    self.keep(closed.memory, "the memory of a closed disk");
                    match closed.result {
                        Ok(()) => Some(Event::Closed),
                        Err(error) => Some(Event::Failed(format!("closing: {error}"))),
                    }
                }
                Err(closing) => {
                    self.session = Session::Closing(closing);
                    None
                }
            },
            other => {
                self.session = other;
                None
            }
        }
    }

    pub(super) fn poll_at(&self) -> When {
        match &self.session {
            Session::Ended => When::Event,
            Session::Probing(probe) => probe.poll_at(),
            Session::Opening(opening) => opening.poll_at(),
            Session::Open(disk) => disk.poll_at(),
            Session::Closing(closing) => closing.poll_at(),
        }
    }

    pub(super) fn checkpoint(&mut self) {
        if let Session::Open(disk) = &mut self.session {
            disk.request_checkpoint();
        }
    }

    pub(super) fn close(&mut self) {
        if let Session::Open(disk) = core::mem::take(&mut self.session) {
            self.session = Session::Closing(disk.close());
        }
    }

    pub(super) fn abandon(&mut self, home: &mut dyn FnMut(Op)) {
        let mut closing = match core::mem::take(&mut self.session) {
            Session::Open(disk) => disk.abandon(),
            Session::Closing(closing) => closing.abandon(),
            // Their memory is lost, which only a failed run pays for.
            Session::Ended | Session::Probing(_) | Session::Opening(_) => return,
        };
        for _ in 0..1000 {
            let ready = closing.poll(Instant::ZERO) == Poll::Ready(());
            while let Some(op) = closing.reap() {
                home(op);
            }
            if ready {
                let memory = closing.finish().ok().and_then(|closed| closed.memory);
                return self.keep(memory, "the memory of an abandoned disk");
            }
        }
        self.lost = Some("a disk that never ended");
    }
}
