//! What a guest may see, sector by sector.
//!
//! For each guest sector the oracle keeps the writes that may still matter, oldest first. After a
//! crash the sector may hold any of them; without one, any that no later completed write has
//! replaced. The rules are those of docs/TESTING.md:
//!
//! * **R1** After a crash: what the last successful flush (or FUA) made sure, or anything written
//!   after it. Never anything else.
//! * **R2** Without a crash: the last completed write; of overlapping ones any, but always the same.
//! * **R3** A failed write leaves old or new, each sector by itself, and then stays.
//! * **R5** What a recovered disk has shown to the guest stays (see [`Oracle::restart`]).
//! * **R5** does not hold for a sector that a power loss left metastable (tear model T5): it shows any
//!   of its values until it is written again. What no flush has covered may also be lost (T2, T4) or
//!   replaced by random bytes (T3).
//! * **R6** A discard leaves the old content or zeros; a write-zeroes leaves zeros.

use crate::crash::Tear;
use crate::sector::mix;
use crate::stamp::Value;
use crate::workload::Setup;

/// Moments are counted, one per begin and end of a request.
type Moment = u32;

const IN_FLIGHT: Moment = Moment::MAX;

#[derive(Clone, Copy, Debug)]
struct Entry {
    value: Value,
    submitted: Moment,
    /// When it completed, [`IN_FLIGHT`] before.
    ended: Moment,
    /// It surely took effect: neither a failed write nor a discard.
    firm: bool,
}

impl Entry {
    fn settled(value: Value) -> Entry {
        Entry {
            value,
            submitted: 0,
            ended: 0,
            firm: true,
        }
    }
}

/// A request that the oracle knows of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket {
    /// What it does.
    pub what: What,
    /// First guest sector.
    pub first: usize,
    /// Guest sectors.
    pub count: usize,
    /// What it writes.
    pub value: Value,
    submitted: Moment,
}

/// What a request does to its sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum What {
    /// Puts a value there; with `fua` durable on completion.
    Write {
        /// Force unit access.
        fua: bool,
    },
    /// Gives the content up.
    Discard,
    /// Makes everything durable that completed before.
    Flush,
    /// Changes nothing.
    Read,
}

/// A broken rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which rule, such as `R1`.
    pub rule: &'static str,
    /// What was seen and what was allowed.
    pub detail: String,
}

/// The model of a guest's disk.
#[derive(Debug, Default)]
pub struct Oracle {
    sectors: Vec<Vec<Entry>>,
    /// Value that an unsettled sector has shown, and when; it keeps it until it is written again.
    shown: Vec<Option<(Value, Moment)>>,
    now: Moment,
    written: u32,
    /// Reads in flight.
    reads: u32,
    /// (sector, entry) of what a flush made sure to be gone while reads were in flight: they may have
    /// seen it before.
    past: Vec<(usize, Entry)>,
    /// When the newest successful flush was submitted.
    flush_cut: Moment,
}

impl Clone for Oracle {
    fn clone(&self) -> Oracle {
        let mut copy = Oracle::default();
        copy.clone_from(self);
        copy
    }

    fn clone_from(&mut self, source: &Oracle) {
        self.sectors.resize_with(source.sectors.len(), Vec::new);
        for (own, other) in self.sectors.iter_mut().zip(&source.sectors) {
            own.clone_from(other);
        }
        self.shown.clone_from(&source.shown);
        (self.now, self.written) = (source.now, source.written);
        self.reads = source.reads;
        self.past.clone_from(&source.past);
        self.flush_cut = source.flush_cut;
    }
}

impl Oracle {
    /// A new disk of `count` sectors, of which sector `s` reads `base(s)`.
    #[must_use]
    pub fn new(count: usize, base: impl Fn(usize) -> Value) -> Oracle {
        let entry = |sector| vec![Entry::settled(base(sector))];
        Oracle {
            sectors: (0..count).map(entry).collect(),
            shown: vec![None; count],
            now: 0,
            written: 0,
            reads: 0,
            past: Vec::new(),
            flush_cut: 0,
        }
    }

    /// A new disk of a kind: it shows what was written before, else its base, and zeros beyond.
    #[must_use]
    pub fn of_new_disk(setup: &Setup) -> Oracle {
        let base = setup.base_sectors as usize;
        Oracle::new(setup.guest_sectors as usize, |sector| {
            if setup.was_written(sector as u32) {
                Value::EARLIER
            } else if sector < base {
                Value::BASE
            } else {
                Value::ZERO
            }
        })
    }

    /// Guest sectors.
    #[must_use]
    pub fn len(&self) -> usize {
        self.sectors.len()
    }

    /// Whether the disk has no sectors.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.sectors.is_empty()
    }

    fn tick(&mut self) -> Moment {
        self.now += 1;
        self.now
    }

    /// A request is about to be submitted. Each write gets a value of its own.
    pub fn begin(&mut self, what: What, first: usize, count: usize) -> Ticket {
        let value = Value::written(self.written);
        self.written += u32::from(matches!(what, What::Write { .. }));
        self.begin_with(what, first, count, value)
    }

    /// [`Oracle::begin`] for a request that writes a given value, such as zeros.
    pub fn begin_with(&mut self, what: What, first: usize, count: usize, value: Value) -> Ticket {
        let submitted = self.tick();
        if self.reads == 0 {
            self.past.clear();
        }
        self.reads += u32::from(what == What::Read);
        let value = if what == What::Discard {
            Value::ZERO
        } else {
            value
        };
        if matches!(what, What::Write { .. } | What::Discard) {
            for sector in first..first + count {
                self.shown[sector] = None;
                self.sectors[sector].push(Entry {
                    value,
                    submitted,
                    ended: IN_FLIGHT,
                    firm: false,
                });
            }
        }
        Ticket {
            what,
            first,
            count,
            value,
            submitted,
        }
    }

    /// A request has completed, well or not.
    pub fn end(&mut self, ticket: Ticket, done: bool) {
        let now = self.tick();
        match ticket.what {
            What::Read => self.reads = self.reads.saturating_sub(1),
            What::Flush if done => self.flushed(ticket.submitted),
            What::Flush => {}
            What::Write { fua } => {
                self.close(ticket, now, done);
                if done && fua {
                    for sector in ticket.first..ticket.first + ticket.count {
                        self.forget(sector, |entry| entry.ended < ticket.submitted);
                    }
                }
            }
            What::Discard => self.close(ticket, now, false),
        }
    }

    fn close(&mut self, ticket: Ticket, now: Moment, firm: bool) {
        for entries in &mut self.sectors[ticket.first..ticket.first + ticket.count] {
            let own = entries
                .iter_mut()
                .find(|entry| entry.submitted == ticket.submitted);
            if let Some(entry) = own {
                (entry.ended, entry.firm) = (now, firm);
            }
        }
    }

    /// Forgets what is older than a write that the flush submitted at `cut` has covered. What an
    /// unsettled sector has shown by then is what the flush made sure.
    fn flushed(&mut self, cut: Moment) {
        self.flush_cut = self.flush_cut.max(cut);
        for sector in 0..self.sectors.len() {
            if let Some((value, at)) = self.shown[sector]
                && at < cut
            {
                self.forget(sector, |_| true);
                self.sectors[sector].push(Entry::settled(value));
                continue;
            }
            let covered = self.sectors[sector]
                .iter()
                .filter(|entry| entry.firm && entry.ended < cut);
            if let Some(newest) = covered.map(|entry| entry.submitted).max() {
                self.forget(sector, |entry| entry.ended < newest);
            }
        }
    }

    /// What is gone for a crash is gone, but a read that is in flight may have seen it before.
    fn forget(&mut self, sector: usize, gone: impl Fn(&Entry) -> bool) {
        let entries = &mut self.sectors[sector];
        if self.reads != 0 {
            let past = entries.iter().filter(|entry| gone(entry));
            self.past.extend(past.map(|entry| (sector, *entry)));
        }
        entries.retain(|entry| !gone(entry));
    }

    /// The process dies. What it acknowledged and did not flush may be lost with its memory; what
    /// was in flight may have happened. The device keeps its cache, so what the next session shows
    /// stays visible, but is sure only after a flush.
    pub fn kill(&mut self) {
        let now = self.tick();
        for entries in &mut self.sectors {
            if entries.len() > 1 {
                for entry in entries {
                    (entry.ended, entry.firm) = (entry.ended.min(now), false);
                }
            }
        }
        self.shown.fill(None);
        self.reads = 0;
    }

    /// Values that a read submitted with `ticket` and completing now may return for a sector.
    fn readable(&self, sector: usize, submitted: Moment) -> impl Iterator<Item = Value> {
        let past = self.past.iter().filter(move |(at, _)| *at == sector);
        let entries = self.sectors[sector]
            .iter()
            .chain(past.map(|(_, entry)| entry));
        let settled = entries
            .clone()
            .filter(move |entry| entry.firm && entry.ended < submitted);
        let newest = settled.map(|entry| entry.submitted).max().unwrap_or(0);
        let shown = self.shown[sector];
        entries
            .filter(move |entry| entry.ended >= newest)
            .map(|entry| entry.value)
            .filter(move |value| shown.is_none_or(|(shown, _)| shown == *value))
    }

    /// Checks what a read has returned for one of its sectors.
    ///
    /// # Errors
    /// The broken rule.
    pub fn check_read(
        &mut self,
        ticket: Ticket,
        sector: usize,
        seen: Value,
    ) -> Result<(), Violation> {
        if !self
            .readable(sector, ticket.submitted)
            .any(|value| value == seen)
        {
            let allowed: Vec<Value> = self.readable(sector, ticket.submitted).collect();
            return Err(Violation {
                rule: "R2",
                detail: format!("sector {sector} reads {seen:?}; allowed: {allowed:?}"),
            });
        }
        let entries = &self.sectors[sector];
        let over = entries.iter().all(|entry| entry.ended < ticket.submitted);
        if entries.len() > 1 && over && !self.is_metastable(sector) {
            self.shown[sector].get_or_insert((seen, self.now));
        }
        Ok(())
    }

    /// Checks what a sector holds after a crash and recovery.
    ///
    /// # Errors
    /// The broken rule.
    pub fn check_recovered(&self, sector: usize, seen: Value) -> Result<(), Violation> {
        let entries = &self.sectors[sector];
        if entries.iter().any(|entry| entry.value == seen) {
            return Ok(());
        }
        let allowed: Vec<Value> = entries.iter().map(|entry| entry.value).collect();
        Err(Violation {
            rule: "R1",
            detail: format!("sector {sector} holds {seen:?} after the crash; allowed: {allowed:?}"),
        })
    }

    /// Begins a new life after recovery: the guest has seen these values, so they stay (R5).
    pub fn restart(&mut self, seen: impl Iterator<Item = Value>) {
        for (entries, value) in self.sectors.iter_mut().zip(seen) {
            entries.clear();
            entries.push(Entry::settled(value));
        }
        self.shown.fill(None);
        self.reads = 0;
        self.past.clear();
        (self.now, self.flush_cut) = (0, 0);
    }

    /// [`Oracle::restart`] where units may have become metastable: a sector that was not flushed shows
    /// any of its values at each read, until it is written again.
    pub fn restart_metastable(&mut self, seen: impl Iterator<Item = Value>) {
        for (sector, value) in (0..self.sectors.len()).zip(seen) {
            let flips = self.may_be_torn(sector, 1) || self.is_metastable(sector);
            let entries = &mut self.sectors[sector];
            if flips {
                entries.sort_by_key(|entry| entry.value);
                entries.dedup_by_key(|entry| entry.value);
            } else {
                entries.truncate(1);
                entries.fill(Entry::settled(value));
            }
            for entry in entries {
                *entry = Entry::settled(entry.value);
            }
        }
        self.shown.fill(None);
        self.reads = 0;
        self.past.clear();
        (self.now, self.flush_cut) = (0, 0);
    }

    /// Whether an earlier power loss has left the sector between several values.
    fn is_metastable(&self, sector: usize) -> bool {
        let entries = self.sectors[sector].iter();
        entries.filter(|entry| entry.submitted == 0).count() > 1
    }

    /// Whether a power loss now may tear the unit of `unit_sectors` that a sector is in: something in
    /// it was written that no flush has covered.
    fn may_be_torn(&self, sector: usize, unit_sectors: usize) -> bool {
        let first = sector / unit_sectors * unit_sectors;
        let unit = self.sectors.iter().skip(first).take(unit_sectors);
        let unsure = |entry: &Entry| entry.submitted > 0 && entry.ended >= self.flush_cut;
        unit.filter(|entries| entries.len() > 1)
            .any(|entries| entries.iter().any(unsure))
    }

    /// Whether a tear explains what a sector holds after a power loss. Only what no flush has covered
    /// is excused, and only by a model that loses contents.
    #[must_use]
    pub fn excuses(&self, tear: Tear, unit_sectors: usize, sector: usize, seen: Value) -> bool {
        let possible = match tear {
            Tear::Unreadable | Tear::Shorn => seen == Value::LOST,
            Tear::Garbage => seen.is_garbage(),
            Tear::None | Tear::Cut | Tear::Metastable => false,
        };
        possible && self.may_be_torn(sector, unit_sectors)
    }

    /// Whether a sector may be lost, so that reading it is an error.
    #[must_use]
    pub fn is_lost(&self, sector: usize) -> bool {
        let mut entries = self.sectors[sector].iter();
        entries.any(|entry| entry.value == Value::LOST)
    }

    /// A hash of which sectors a power loss now may tear.
    #[must_use]
    pub fn torn_hash(&self) -> u64 {
        let torn = (0..self.sectors.len()).filter(|sector| self.may_be_torn(*sector, 1));
        torn.fold(0, |hash, sector| hash ^ mix(sector as u64, 0x7EA2))
    }

    /// Whether no request is in flight and every sector has exactly one possible value.
    #[must_use]
    pub fn is_settled(&self) -> bool {
        self.sectors.iter().all(|entries| entries.len() == 1)
    }

    /// A hash of what a crash may leave now: equal sets have equal hashes.
    #[must_use]
    pub fn hash(&self) -> u64 {
        let mut hash = 0;
        for (sector, entries) in self.sectors.iter().enumerate() {
            for (index, entry) in entries.iter().enumerate() {
                let again = entries[..index]
                    .iter()
                    .any(|other| other.value == entry.value);
                if !again {
                    hash ^= mix(sector as u64, u64::from(entry.value.number()));
                }
            }
        }
        hash
    }
}

#[cfg(test)]
mod tests;
