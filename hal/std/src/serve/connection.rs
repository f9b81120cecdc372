//! One client: handshake, requests in, replies out.

use core::mem;
use core::ops::ControlFlow;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use fvd_nbd::export::Export;
use fvd_nbd::handshake::{Agreed, Handshake, Progress};
use fvd_nbd::reply::Errno;
use fvd_nbd::request::{Command, REQUEST_BYTES, Request, RequestError};

use super::input::Input;
use super::reply::{Reply, held};
use super::stream::Stream;
use super::task::{Origin, Start, Wanted};
use super::{BYTES_MAX, Counters, IN_FLIGHT_MAX};
use crate::aligned::AlignedBuffer;

/// Replies that one system call carries.
const SEND_SLICES: usize = 32;

/// Buffers that are kept for the next request of the same size.
const SPARES_MAX: usize = 32;

/// Longest buffer that is kept.
const SPARE_BYTES_MAX: usize = 1 << 20;

/// What comes next from a client that has an export.
enum Stage {
    Header,
    /// The data of a write, from `filled` on.
    Payload {
        wanted: Wanted,
        filled: usize,
    },
    /// Data of a write that was refused.
    Skip {
        left: usize,
        reply: Reply,
    },
    /// Understood, and waiting for room.
    Ready(Wanted),
}

enum State {
    Handshake(Handshake),
    Requests {
        agreed: Agreed,
        stage: Stage,
    },
    /// Nothing more is read; what waits to be sent still is.
    Ended,
}

/// One client.
pub(super) struct Connection {
    stream: Stream,
    generation: u64,
    /// When the handshake must be over.
    deadline: Instant,
    state: State,
    input: Input,
    output: VecDeque<Reply>,
    /// Requests that were started and whose reply is not sent.
    in_flight: usize,
    /// Bytes of data that they hold.
    bytes: usize,
    spares: Vec<AlignedBuffer>,
}

impl Connection {
    pub(super) fn new(stream: Stream, generation: u64, deadline: Instant) -> Connection {
        let mut connection = Connection {
            stream,
            generation,
            deadline,
            state: State::Handshake(Handshake::new()),
            input: Input::new(),
            output: VecDeque::new(),
            in_flight: 0,
            bytes: 0,
            spares: Vec::new(),
        };
        connection.talk(Handshake::greeting().to_vec());
        connection
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation
    }

    /// When this client is sent away unless it has chosen an export.
    pub(super) fn deadline(&self) -> Option<Instant> {
        matches!(self.state, State::Handshake(_)).then_some(self.deadline)
    }

    pub(super) fn is_overdue(&self, now: Instant) -> bool {
        self.deadline().is_some_and(|deadline| now >= deadline)
    }

    pub(super) fn is_sent(&self) -> bool {
        self.output.is_empty()
    }

    fn is_at_bounds(&self) -> bool {
        self.in_flight >= IN_FLIGHT_MAX || self.bytes >= BYTES_MAX
    }

    /// Whether reading can lead anywhere; `room` = a request could start.
    pub(super) fn wants_input(&self, room: bool) -> bool {
        match &self.state {
            State::Handshake(_) => self.output.len() < IN_FLIGHT_MAX,
            State::Requests { stage, .. } => match stage {
                Stage::Ready(_) => false,
                Stage::Payload { .. } | Stage::Skip { .. } => true,
                Stage::Header => room && !self.is_at_bounds(),
            },
            State::Ended => false,
        }
    }

    /// Whether something can be done without more input; `room` = a request could start.
    pub(super) fn has_work(&self, room: bool) -> bool {
        match &self.state {
            State::Handshake(_) => false,
            State::Requests { stage, .. } => match stage {
                Stage::Ready(_) => room,
                Stage::Payload { .. } | Stage::Skip { .. } => !self.input.unused().is_empty(),
                Stage::Header => {
                    room && !self.is_at_bounds() && self.input.unused().len() >= REQUEST_BYTES
                }
            },
            State::Ended => self.is_finished(),
        }
    }

    /// Whether nothing is left to be done for a client that said good-bye.
    fn is_finished(&self) -> bool {
        self.output.is_empty() && self.in_flight == 0
    }

    /// There is something to read.
    pub(super) fn set_readable(&mut self) {
        self.stream.set_readable();
    }

    /// Something of the handshake: not a reply to a request.
    fn talk(&mut self, bytes: Vec<u8>) {
        if !bytes.is_empty() {
            self.in_flight += 1;
            self.output.push_back(Reply::bytes(bytes));
        }
    }

    /// Queues the reply to a request that was started.
    pub(super) fn reply(&mut self, reply: Reply) {
        self.output.push_back(reply);
    }

    /// Reads, if `reads`, and starts requests, until the input is used up or a bound is reached.
    /// `Break` if the client is gone or makes no sense.
    pub(super) fn advance(
        &mut self,
        exports: &[Export<'_>],
        reads: bool,
        counters: &mut Counters,
        mut start: impl FnMut(Origin, Wanted) -> Start,
    ) -> ControlFlow<()> {
        // Bounded, so that one busy client can not keep the others waiting.
        for _ in 0..2 * IN_FLIGHT_MAX {
            let advanced = match &mut self.state {
                State::Handshake(_) => self.shake_hands(exports),
                State::Requests { .. } => self.take_request(exports, counters, &mut start),
                State::Ended => {
                    return if self.is_finished() {
                        ControlFlow::Break(())
                    } else {
                        ControlFlow::Continue(())
                    };
                }
            };
            match advanced {
                Next::Again => {}
                Next::Wait => return ControlFlow::Continue(()),
                Next::Input if !reads => return ControlFlow::Continue(()),
                Next::Input => match self.fill() {
                    Ok(true) => {}
                    Ok(false) => return ControlFlow::Continue(()),
                    Err(_) => return ControlFlow::Break(()),
                },
                Next::End => self.state = State::Ended,
            }
        }
        ControlFlow::Continue(())
    }

    /// Reads more. False if nothing is there now.
    fn fill(&mut self) -> io::Result<bool> {
        // The data of a write go where they belong, unless only a few are left.
        if let State::Requests {
            stage: Stage::Payload { wanted, filled },
            ..
        } = &mut self.state
            && let Some(buffer) = &mut wanted.buffer
            && buffer.len() - *filled >= 4096
        {
            let target = buffer.get_mut(*filled..).unwrap_or(&mut []);
            let count = self.stream.receive(target)?;
            *filled += count.unwrap_or(0);
            return progress(count);
        }
        progress(self.input.receive(&mut self.stream)?)
    }

    fn shake_hands(&mut self, exports: &[Export<'_>]) -> Next {
        let State::Handshake(handshake) = &mut self.state else {
            return Next::End;
        };
        let mut said = Vec::new();
        let (used, progress) = handshake.advance(self.input.unused(), exports, &mut |bytes| {
            said.extend_from_slice(bytes);
        });
        self.input.use_up(used);
        self.talk(said);
        match progress {
            Progress::Pending => Next::Input,
            Progress::Agreed(agreed) => {
                self.state = State::Requests {
                    agreed,
                    stage: Stage::Header,
                };
                Next::Again
            }
            Progress::Ended(_) => Next::End,
        }
    }

    fn take_request(
        &mut self,
        exports: &[Export<'_>],
        counters: &mut Counters,
        start: &mut impl FnMut(Origin, Wanted) -> Start,
    ) -> Next {
        let State::Requests { agreed, stage } = &mut self.state else {
            return Next::End;
        };
        let agreed = *agreed;
        match mem::replace(stage, Stage::Header) {
            Stage::Header => self.take_header(&agreed, exports),
            Stage::Payload { mut wanted, filled } => {
                let Some(buffer) = &mut wanted.buffer else {
                    return Next::End;
                };
                let left = buffer.get_mut(filled..).unwrap_or(&mut []);
                let count = self.input.take(left);
                let (filled, whole) = (filled + count, count == left.len());
                if whole {
                    counters.written_bytes += u64::from(wanted.request.len);
                    self.enter(Stage::Ready(wanted))
                } else {
                    self.enter(Stage::Payload { wanted, filled });
                    Next::Input
                }
            }
            Stage::Skip { left, reply } => {
                let count = left.min(self.input.unused().len());
                self.input.use_up(count);
                if count == left {
                    counters.requests += 1;
                    counters.errors += 1;
                    self.reply(reply);
                    Next::Again
                } else {
                    let left = left - count;
                    self.enter(Stage::Skip { left, reply });
                    Next::Input
                }
            }
            Stage::Ready(wanted) => self.start(&agreed, wanted, counters, start),
        }
    }

    fn enter(&mut self, next: Stage) -> Next {
        if let State::Requests { stage, .. } = &mut self.state {
            *stage = next;
        }
        Next::Again
    }

    fn take_header(&mut self, agreed: &Agreed, exports: &[Export<'_>]) -> Next {
        if self.is_at_bounds() {
            return Next::Wait;
        }
        let Some(bytes) = self.input.unused().first_chunk::<REQUEST_BYTES>().copied() else {
            return Next::Input;
        };
        let Some(export) = exports.get(agreed.export) else {
            return Next::End;
        };
        self.input.use_up(REQUEST_BYTES);
        match Request::parse(&bytes, export, agreed) {
            Ok(request) if request.command == Command::Disconnect => Next::End,
            Ok(request) => {
                self.in_flight += 1;
                let len = held(&request);
                let buffer = self.buffer(len);
                if len != 0 && buffer.is_none() {
                    return self.refuse(agreed, &request);
                }
                self.bytes += len;
                let wanted = Wanted { request, buffer };
                self.enter(match request.command {
                    Command::Write { .. } => Stage::Payload { wanted, filled: 0 },
                    _ => Stage::Ready(wanted),
                })
            }
            Err(RequestError::Refused(refusal)) => {
                self.in_flight += 1;
                let reply = Reply::refusal(refusal.structured, refusal.cookie, refusal.error);
                let left = refusal.payload_bytes as usize;
                self.enter(Stage::Skip { left, reply })
            }
            Err(RequestError::Magic(_) | RequestError::Oversized(_)) => Next::End,
        }
    }

    /// There is no memory for a request.
    fn refuse(&mut self, agreed: &Agreed, request: &Request) -> Next {
        let read = request.command == Command::Read;
        let reply = Reply::refusal(agreed.structured && read, request.cookie, Errno::NoMem);
        let left = if read { 0 } else { request.len as usize };
        self.enter(Stage::Skip { left, reply })
    }

    fn start(
        &mut self,
        agreed: &Agreed,
        wanted: Wanted,
        counters: &mut Counters,
        start: &mut impl FnMut(Origin, Wanted) -> Start,
    ) -> Next {
        let origin = Origin {
            generation: self.generation,
            structured: agreed.structured,
        };
        match start(origin, wanted) {
            Start::Started => Next::Again,
            Start::Answered(reply) => {
                counters.requests += 1;
                counters.errors += u64::from(reply.is_error());
                self.reply(reply);
                Next::Again
            }
            Start::Full(wanted) => {
                self.enter(Stage::Ready(wanted));
                Next::Wait
            }
        }
    }

    /// Memory for `len` bytes; `None` for none, or if there is none to be had.
    fn buffer(&mut self, len: usize) -> Option<AlignedBuffer> {
        let spare = self.spares.iter().position(|spare| spare.len() == len);
        match spare {
            Some(index) => Some(self.spares.swap_remove(index)),
            None => AlignedBuffer::new(len),
        }
    }

    /// Sends what waits, as far as the client takes it. `Break` if it is gone.
    pub(super) fn send(&mut self) -> ControlFlow<()> {
        while !self.output.is_empty() {
            let slices: Vec<IoSlice<'_>> = self
                .output
                .iter()
                .flat_map(Reply::slices)
                .filter(|slice| !slice.is_empty())
                .take(SEND_SLICES)
                .collect();
            match self.stream.send(&slices) {
                Ok(0) => return ControlFlow::Break(()),
                Ok(count) => self.on_sent(count),
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return ControlFlow::Break(()),
            }
        }
        ControlFlow::Continue(())
    }

    fn on_sent(&mut self, mut count: usize) {
        while let Some(reply) = self.output.front_mut() {
            count -= reply.on_sent(count);
            if reply.left() != 0 {
                return;
            }
            if let Some(reply) = self.output.pop_front() {
                self.in_flight = self.in_flight.saturating_sub(1);
                self.bytes = self.bytes.saturating_sub(reply.held());
                for buffer in reply.into_buffers() {
                    if self.spares.len() < SPARES_MAX && buffer.len() <= SPARE_BYTES_MAX {
                        self.spares.push(buffer);
                    }
                }
            }
        }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

/// Whether something was read.
fn progress(count: Option<usize>) -> io::Result<bool> {
    match count {
        Some(0) => Err(ErrorKind::UnexpectedEof.into()),
        Some(_) => Ok(true),
        None => Ok(false),
    }
}

/// How to go on with a client.
enum Next {
    /// Look again.
    Again,
    /// Something else must happen first.
    Wait,
    /// More input is needed.
    Input,
    /// There will be no more.
    End,
}
