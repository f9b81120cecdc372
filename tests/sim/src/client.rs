//! The guest's side of a session: ops and buffers that are used over and over.

use std::collections::HashMap;

use fvd::buffer::{Arena, Head, Loan, Op, OpPool};
use fvd::device::{OpFlags, OpKind, Status};

use crate::engine::arena_memory;
use crate::oracle::Ticket;
use crate::sector::SECTOR;
use crate::stamp::{CANARY, Value, stamp};

/// Requests that a guest can have in flight.
const DEPTH: usize = 32;

type Buffer = &'static mut [u8];

/// Why a request was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Purpose {
    /// The workload asked for it.
    Guest,
    /// The whole disk is compared with the oracle, without a crash.
    Verify,
    /// The whole disk is compared with the oracle, after a crash.
    Recover,
}

struct Request {
    purpose: Purpose,
    ticket: Ticket,
    loan: Option<Loan<Buffer>>,
}

/// A request that has come back.
pub struct Finished {
    /// Why it was made.
    pub purpose: Purpose,
    /// What the oracle knows it by.
    pub ticket: Ticket,
    /// How it ended.
    pub status: Status,
    /// The buffer, for [`Client::recycle`]; empty if the request had none.
    pub buffer: Buffer,
}

/// Makes ops and takes them back.
pub struct Client {
    pool: OpPool,
    requests: Vec<Option<Request>>,
    buffers: HashMap<usize, Vec<Buffer>>,
}

impl Default for Client {
    fn default() -> Client {
        Client::new()
    }
}

impl Client {
    /// A client with nothing in flight.
    #[must_use]
    pub fn new() -> Client {
        Client {
            pool: new_pool(),
            requests: core::iter::repeat_with(|| None).take(DEPTH).collect(),
            buffers: HashMap::new(),
        }
    }

    /// Requests in flight.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.requests.iter().flatten().count()
    }

    /// An op for a request. Its buffer, if it has one, holds stamps (writes) or a canary (reads).
    /// `None` if too many are in flight.
    pub fn op(
        &mut self,
        purpose: Purpose,
        ticket: Ticket,
        kind: OpKind,
        flags: OpFlags,
    ) -> Option<Op> {
        let slot = self.requests.iter().position(Option::is_none)?;
        let (offset, len) = (ticket.first * SECTOR, ticket.count * SECTOR);
        let head = Head::new(kind, offset as u64, len as u64);
        let mut op = self
            .pool
            .take(head.with_flags(flags).with_tag(slot as u64))?;
        let mut loan = None;
        if matches!(kind, OpKind::Read | OpKind::Write) {
            let buffer = self.buffer(ticket.count * SECTOR);
            fill(
                buffer,
                (kind == OpKind::Write).then_some(ticket.value),
                ticket.first,
            );
            let (own, lease) = Loan::new(buffer).ok()?;
            op.push(lease).ok()?;
            loan = Some(own);
        }
        self.requests[slot] = Some(Request {
            purpose,
            ticket,
            loan,
        });
        Some(op)
    }

    fn buffer(&mut self, len: usize) -> Buffer {
        let spare = self.buffers.get_mut(&len).and_then(Vec::pop);
        spare.unwrap_or_else(|| vec![0; len].leak())
    }

    /// Takes an op back.
    ///
    /// # Errors
    /// What is wrong with it: an unknown tag, a lost lease.
    pub fn finish(&mut self, mut op: Op) -> Result<Finished, String> {
        let (tag, status) = (op.tag(), op.status());
        let known = self.requests.get_mut(tag as usize).and_then(Option::take);
        let request = known.ok_or_else(|| format!("a completion with unknown tag {tag}"))?;
        let mut buffer: Buffer = &mut [];
        if let Some(mut loan) = request.loan {
            while let Some(lease) = op.pop() {
                loan.give(lease)
                    .map_err(|_| "a completion with somebody else's lease")?;
            }
            buffer = loan
                .finish()
                .map_err(|_| "a completion that lost a lease")?;
        }
        self.pool
            .put(op)
            .map_err(|_| "a completion with a foreign record or lease")?;
        Ok(Finished {
            purpose: request.purpose,
            ticket: request.ticket,
            status,
            buffer,
        })
    }

    /// Takes a buffer back for the next request.
    pub fn recycle(&mut self, buffer: Buffer) {
        if !buffer.is_empty() {
            self.buffers.entry(buffer.len()).or_default().push(buffer);
        }
    }
}

fn new_pool() -> OpPool {
    let memory = arena_memory(OpPool::arena_bytes(DEPTH));
    let pool = Arena::new(memory)
        .ok()
        .and_then(|mut arena| OpPool::carve(&mut arena, DEPTH as u32));
    pool.expect("the memory was made for it")
}

fn fill(buffer: &mut [u8], value: Option<Value>, first: usize) {
    match value {
        None => buffer.fill(CANARY as u8),
        Some(value) => {
            for (sector, bytes) in (first as u64..).zip(buffer.chunks_exact_mut(SECTOR)) {
                bytes.copy_from_slice(&stamp(value, sector));
            }
        }
    }
}
