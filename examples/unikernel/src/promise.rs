//! The load of `cargo boot --kill`: which requests there are, and what every sector may hold after
//! the machine was killed in the middle of them.
//!
//! Like agreed.rs this is compiled by the kernel, which sends the requests, and by the runner, which
//! looks at what is left of them.
//!
//! Requests are numbered and follow from their numbers, so nobody has to write them down. The kernel
//! sends them in order, and never two at once that touch the same sector; it says when all below a
//! number are flushed. Of a sector's requests, the last durable one or any later one has the word.

use crate::agreed::Pattern;
use core::fmt;
use core::ops::Range;

pub(crate) const SECTOR_BYTES: usize = 512;

/// Size of the disk, all of which is used.
pub(crate) const DISK_SECTORS: u32 = 16_384;

/// Size of its base, which ends inside a block of the disk.
pub(crate) const BASE_SECTORS: u32 = 10_003;

/// Sectors of requests, in turn by their numbers: less than a block of 4 KiB and several, aligned or
/// not. Each has a buffer of its own, so there are as many requests at once.
pub(crate) const SIZES: [u32; 16] = [1, 8, 3, 48, 16, 2, 7, 32, 5, 24, 1, 40, 12, 8, 17, 9];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Write,
    /// A write that is durable when it is done.
    FuaWrite,
    Zeroes,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Request {
    pub(crate) kind: Kind,
    pub(crate) sector: u32,
    pub(crate) count: u32,
}

impl Request {
    /// The request of this number.
    pub(crate) fn numbered(seed: u64, number: u32) -> Request {
        let mut random = [0; 12];
        Pattern::new(seed, "request", u64::from(number)).fill(0, &mut random);
        let [kind, place, sector] = [0, 4, 8].map(|at| {
            u32::from_le_bytes([random[at], random[at + 1], random[at + 2], random[at + 3]])
        });
        let kind = match kind % 16 {
            0 => Kind::FuaWrite,
            1 | 2 => Kind::Zeroes,
            _ => Kind::Write,
        };
        let count = SIZES[number as usize % SIZES.len()];
        // Every other one in a small part of the disk, so that much is overwritten.
        let room = if place % 2 == 0 {
            DISK_SECTORS / 16
        } else {
            DISK_SECTORS
        };
        Request {
            kind,
            sector: sector % (room - count + 1),
            count,
        }
    }

    pub(crate) fn sectors(&self) -> Range<u32> {
        self.sector..self.sector + self.count
    }
}

/// What a sector holds: zeros, the base, or what a request wrote.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(crate) struct Value(u32);

impl Value {
    pub(crate) const ZERO: Value = Value(0);
    pub(crate) const BASE: Value = Value(1);

    pub(crate) const fn of_request(number: u32) -> Value {
        Value(number + 2)
    }

    fn request(self) -> Option<u32> {
        self.0.checked_sub(2)
    }

    /// Fills a sector: the value, the sector's number, and noise that belongs to both.
    pub(crate) fn fill(self, seed: u64, sector: u32, bytes: &mut [u8]) {
        if self == Value::ZERO {
            bytes.fill(0);
            return;
        }
        let (head, noise) = bytes.split_at_mut(8);
        head[..4].copy_from_slice(&self.0.to_le_bytes());
        head[4..].copy_from_slice(&sector.to_le_bytes());
        let pattern = Pattern::new(seed, "sector", u64::from(self.0));
        pattern.fill(u64::from(sector) * SECTOR_BYTES as u64, noise);
    }

    /// What a sector holds; `None` if it is nothing that was ever meant for it.
    fn read(seed: u64, sector: u32, bytes: &[u8]) -> Option<Value> {
        let mut expected = [0; SECTOR_BYTES];
        if bytes == expected {
            return Some(Value::ZERO);
        }
        let value = Value(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]));
        value.fill(seed, sector, &mut expected);
        (value != Value::ZERO && bytes == expected).then_some(value)
    }
}

impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (*self, self.request()) {
            (Value::ZERO, _) => f.write_str("zeros"),
            (_, Some(number)) => write!(f, "request {number}"),
            (_, None) => f.write_str("the base"),
        }
    }
}

/// What is known of a sector.
#[derive(Clone, Copy, Default)]
pub(crate) struct Sector {
    /// The last request on it that is durable.
    pub(crate) durable: Option<Value>,
    /// The last request that zeroes it, durable or not.
    pub(crate) zeroed: Option<Value>,
}

/// What every sector may hold.
pub(crate) struct Ledger<'m> {
    seed: u64,
    /// Requests from here on were never sent.
    end: u32,
    sectors: &'m mut [Sector],
}

/// A sector that holds what it must not.
pub(crate) struct Fault {
    sector: u32,
    found: Option<Value>,
    durable: Option<Value>,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sector {} holds ", self.sector)?;
        match self.found {
            Some(value) => value.fmt(f)?,
            None => f.write_str("what nobody wrote there")?,
        }
        match self.durable {
            Some(value) => write!(f, ", and {value} is durable"),
            None => f.write_str(", and nothing of it is durable"),
        }
    }
}

impl<'m> Ledger<'m> {
    /// A ledger in the memory of [`DISK_SECTORS`] sectors, of requests that were sent below `end`.
    pub(crate) fn new(seed: u64, end: u32, sectors: &'m mut [Sector]) -> Ledger<'m> {
        sectors.fill(Sector::default());
        let mut ledger = Ledger { seed, end, sectors };
        for number in 0..end {
            let request = Request::numbered(seed, number);
            if request.kind == Kind::Zeroes {
                for sector in ledger.touched(&request) {
                    sector.zeroed = Some(Value::of_request(number));
                }
            }
        }
        ledger
    }

    /// These requests are durable.
    pub(crate) fn add_durable(&mut self, numbers: Range<u32>) {
        for number in numbers {
            let request = Request::numbered(self.seed, number);
            for sector in self.touched(&request) {
                sector.durable = sector.durable.max(Some(Value::of_request(number)));
            }
        }
    }

    fn touched(&mut self, request: &Request) -> &mut [Sector] {
        let sectors = request.sectors();
        &mut self.sectors[sectors.start as usize..sectors.end as usize]
    }

    /// Finds fault with what a sector holds.
    pub(crate) fn check(&self, number: u32, bytes: &[u8]) -> Result<(), Fault> {
        let found = Value::read(self.seed, number, bytes);
        let sector = &self.sectors[number as usize];
        if found.is_some_and(|value| self.is_legal(number, sector, value)) {
            return Ok(());
        }
        Err(Fault {
            sector: number,
            found,
            durable: sector.durable,
        })
    }

    fn is_legal(&self, number: u32, sector: &Sector, value: Value) -> bool {
        let initial = if number < BASE_SECTORS {
            Value::BASE
        } else {
            Value::ZERO
        };
        if sector.durable.is_none() && value == initial {
            return true;
        }
        if value == Value::ZERO {
            return sector.zeroed.is_some() && sector.zeroed >= sector.durable;
        }
        let Some(own) = value.request().filter(|own| *own < self.end) else {
            return false;
        };
        let request = Request::numbered(self.seed, own);
        let wrote = request.kind != Kind::Zeroes && request.sectors().contains(&number);
        wrote && Some(value) >= sector.durable
    }
}
