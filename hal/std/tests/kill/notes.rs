//! What each sector may hold, from what the child said.
//!
//! Rule R1 of the crash simulator, on real files: a sector reads what the last flush made durable,
//! or what was submitted later. The child never has two requests in flight that touch the same
//! sector, so their order is that of their ids.

use super::ground::{DISK_SECTORS, Ground};
use super::message::{Kind, Message, Request};
use super::stamp::{self, FIRST_ID, Value};

/// A flush or a close in the making.
struct Barrier {
    id: u32,
    /// How many entries of `done` it covers.
    covers: usize,
}

struct Sector {
    /// What it held when the round began.
    settled: Value,
    /// Requests of this round that change it, oldest first.
    later: Vec<u32>,
    /// The last one of those that must survive.
    durable: Option<u32>,
}

/// How much was looked at.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Count {
    /// Requests that the child submitted.
    pub requests: u64,
    /// Flushes and closes of which it said that they are over.
    pub barriers: u64,
    /// Sectors with a change of this round that had to be there.
    pub durable_sectors: u64,
    /// Sectors with changes of this round, which might be there or not.
    pub free_sectors: u64,
}

pub struct Notes {
    ground: Ground,
    sectors: Vec<Sector>,
    /// All requests of the image's life, by id.
    requests: Vec<Request>,
    /// What completed in this round, in that order.
    done: Vec<u32>,
    /// As much of `done` is durable.
    durable: usize,
    barriers: Vec<Barrier>,
    count: Count,
}

/// The id of the barrier that a close is.
const CLOSE: u32 = 0;

impl Notes {
    pub fn new(ground: Ground) -> Notes {
        let sector = |sector| Sector {
            settled: ground.initial(sector),
            later: Vec::new(),
            durable: None,
        };
        Notes {
            ground,
            sectors: (0..DISK_SECTORS).map(sector).collect(),
            requests: Vec::new(),
            done: Vec::new(),
            durable: 0,
            barriers: Vec::new(),
            count: Count::default(),
        }
    }

    /// The id of the next request.
    pub fn next_id(&self) -> u32 {
        FIRST_ID + self.requests.len() as u32
    }

    fn request(&self, id: u32) -> Result<Request, String> {
        let index = id.checked_sub(FIRST_ID).map(|index| index as usize);
        let request = index.and_then(|index| self.requests.get(index));
        request.copied().ok_or_else(|| format!("no request {id}"))
    }

    /// Takes down what the child said.
    pub fn take(&mut self, message: &Message) -> Result<(), String> {
        match *message {
            Message::Submit(id, request) => {
                if id != self.next_id() {
                    return Err(format!("request {id} comes before {}", self.next_id()));
                }
                self.requests.push(request);
                self.count.requests += 1;
                if request.kind == Kind::Flush {
                    self.start_barrier(id);
                }
                for sector in self.touched(request)? {
                    sector.later.push(id);
                }
            }
            Message::Done(id) => {
                let request = self.request(id)?;
                match request.kind {
                    Kind::Flush => self.end_barrier(id)?,
                    Kind::FuaWrite => self.mark(id)?,
                    Kind::Write | Kind::Zeroes | Kind::Discard => {}
                }
                self.done.push(id);
            }
            Message::Closing => self.start_barrier(CLOSE),
            Message::Closed => self.end_barrier(CLOSE)?,
            Message::Opening | Message::Open | Message::Tally(_) => {}
            Message::Failed(ref what) => return Err(format!("the child failed: {what}")),
        }
        Ok(())
    }

    fn touched(&mut self, request: Request) -> Result<&mut [Sector], String> {
        let (first, count) = (request.sector as usize, request.count as usize);
        let range = self.sectors.get_mut(first..first + count);
        range.ok_or_else(|| format!("{request:?} is outside of the disk"))
    }

    fn start_barrier(&mut self, id: u32) {
        let covers = self.done.len();
        self.barriers.push(Barrier { id, covers });
    }

    fn end_barrier(&mut self, id: u32) -> Result<(), String> {
        let at = self.barriers.iter().position(|barrier| barrier.id == id);
        let at = at.ok_or_else(|| format!("barrier {id} ended before it began"))?;
        let barrier = self.barriers.swap_remove(at);
        for index in self.durable..barrier.covers {
            self.mark(self.done[index])?;
        }
        self.durable = self.durable.max(barrier.covers);
        self.count.barriers += 1;
        Ok(())
    }

    /// Request `id` must survive.
    fn mark(&mut self, id: u32) -> Result<(), String> {
        for sector in self.touched(self.request(id)?)? {
            sector.durable = sector.durable.max(Some(id));
        }
        Ok(())
    }

    /// Whether a sector may hold `value`.
    fn is_legal(&self, number: u32, value: Value) -> bool {
        let sector = &self.sectors[number as usize];
        if sector.durable.is_none() && value == sector.settled {
            return true;
        }
        let later = sector.later.iter().copied();
        later
            .filter(|id| Some(*id) >= sector.durable)
            .any(|id| self.may_leave(id, number, value))
    }

    /// Whether request `id` may leave `value` in a sector that it touches.
    fn may_leave(&self, id: u32, number: u32, value: Value) -> bool {
        match self.request(id).map(|request| request.kind) {
            Ok(Kind::Write | Kind::FuaWrite) => value == Value(id),
            Ok(Kind::Zeroes) => value == Value::ZERO,
            // Anything that the sector ever held.
            Ok(Kind::Discard) => {
                value == Value::ZERO
                    || value == self.ground.initial(number)
                    || (value.0 < id && self.wrote(value, number))
            }
            Ok(Kind::Flush) | Err(_) => false,
        }
    }

    fn wrote(&self, value: Value, number: u32) -> bool {
        self.request(value.0).is_ok_and(|request| {
            let inside = (request.sector..request.sector + request.count).contains(&number);
            inside && matches!(request.kind, Kind::Write | Kind::FuaWrite)
        })
    }

    /// Holds a sector against the notes. What it holds is what it must hold from now on: no process
    /// is left that could change it.
    pub fn settle(&mut self, number: u32, bytes: &[u8]) -> Result<(), String> {
        let fault = |notes: &Notes, found: &str| {
            let sector = &notes.sectors[number as usize];
            let durable = match sector.durable {
                Some(id) => format!("request {id} is durable"),
                None => format!("it held {} before the round", sector.settled),
            };
            format!(
                "sector {number} of `{}` holds {found}; {durable}; all of the round: {:?}",
                notes.ground.name, sector.later
            )
        };
        let value = stamp::read(bytes, number).map_err(|found| fault(self, &found))?;
        if !self.is_legal(number, value) {
            return Err(fault(self, &value.to_string()));
        }
        let sector = &mut self.sectors[number as usize];
        if sector.durable.take().is_some() {
            self.count.durable_sectors += 1;
        } else if !sector.later.is_empty() {
            self.count.free_sectors += 1;
        }
        sector.later.clear();
        sector.settled = value;
        Ok(())
    }

    /// Ends a round whose sectors have all been settled.
    pub fn end_round(&mut self) -> Count {
        self.done.clear();
        self.durable = 0;
        self.barriers.clear();
        core::mem::take(&mut self.count)
    }
}
