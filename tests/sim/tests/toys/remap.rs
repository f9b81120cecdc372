//! A disk that never overwrites: each sector written goes to a free place, and a flush commits the
//! map by writing one of two slots in turn.
//!
//! ```text
//! store sector   0       1       2 ...
//!                slot A  slot B  places
//! ```
//!
//! Variant 0 is right. The others leave one thing out; each must be caught.

use std::collections::VecDeque;

use fvd::buffer::{Arena, Head, Lease, LentOp, Op, OpPool};
use fvd::device::{BlockDevice, DeviceError, Geometry, OpKind, Status, When};
use fvd::units::Instant;
use fvd_sim::crash::{Zone, Zones};
use fvd_sim::engine::{Devices, Engine, Event, Plan, arena_memory};
use fvd_sim::sector::SECTOR;
use fvd_sim::workload::Setup;

/// Variant 0: nothing left out.
pub(crate) const RIGHT: u32 = 0;
/// The map is committed without flushing the data first.
pub(crate) const NO_DATA_FLUSH: u32 = 1;
/// The guest's flush completes before the slot is durable.
pub(crate) const NO_LAST_FLUSH: u32 = 2;
/// There is one slot only.
pub(crate) const ONE_SLOT: u32 = 3;
/// Slots are believed without their checksum.
pub(crate) const NO_CHECKSUM: u32 = 4;
/// Places are reused before the map that frees them is durable.
pub(crate) const EARLY_REUSE: u32 = 5;
/// Sectors never written read whatever is at place 0.
pub(crate) const STALE_READ: u32 = 6;
/// Opening forgets to clear the map of the last session.
pub(crate) const SLOT_NOT_READ: u32 = 7;
/// Opening leaves a torn slot as it is; the next write to it may tear into what was there before.
pub(crate) const NO_REPAIR: u32 = 9;
/// Opening writes nothing again that it has read: a slot may read otherwise next time.
pub(crate) const TRUSTS: u32 = 10;
/// The base is written when a sector is first written.
pub(crate) const WRITES_BASE: u32 = 8;

/// Opening begins with a map that is empty, and ends with the one that it found.
pub(crate) const FORGETFUL: u32 = 11;
/// The map is gone when it was opened too often.
pub(crate) const FADES: u32 = 12;

const UNMAPPED: u8 = 0xFF;
const MAGIC: u64 = 0x746F_6C73_7061_6D72;
const OWN: u64 = u64::MAX;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum State {
    Closed,
    Opening {
        slot: u8,
    },
    /// The newer slot is written again as it is, unless the older one can not be the one in doubt.
    Rewrite,
    RewriteFlush,
    /// The older slot, which may be torn or not what it seems, is written anew before anything else.
    Repair,
    RepairFlush,
    Idle,
    /// Parts of a read or write are out.
    Parts,
    DataFlush,
    Slot,
    LastFlush,
}

pub(crate) struct Remap {
    variant: u32,
    guest_sectors: usize,
    devices: Option<Devices>,
    pool: OpPool,
    page: Option<Lease>,
    state: State,
    map: Vec<u8>,
    /// The map that was found, while another one is written.
    found: Option<Vec<u8>>,
    /// The map that the newer slot holds for sure.
    durable: Vec<u8>,
    sequence: u64,
    /// Which slots prove themselves.
    whole: [bool; 2],
    queue: VecDeque<Op>,
    current: Option<LentOp>,
    flush: Option<Op>,
    /// Refused ops, which `poll` takes as completions that failed.
    refused: VecDeque<Op>,
    parts_out: usize,
    failed: bool,
    placed: Vec<(usize, u8)>,
    closing: bool,
    /// Something was written since the last flush.
    dirty: bool,
}

fn places(setup: &Setup) -> usize {
    2 * setup.guest_sectors as usize + 2
}

fn checksum(bytes: &[u8]) -> u64 {
    let words = bytes
        .chunks_exact(8)
        .map(|word| u64::from_le_bytes(word.try_into().expect("8")));
    words.fold(1, fvd_sim::sector::mix)
}

impl Engine for Remap {
    fn plan(setup: &Setup) -> Option<Plan> {
        Some(Plan {
            metadata_bytes: ((2 + places(setup)) * SECTOR) as u64,
            regions: vec![(0, 2)],
            zones: Zones::default().with(0, 0..2, Zone::Spare),
            open_ops_max: if setup.variant == FORGETFUL { 8 } else { 6 },
            ..Plan::default()
        })
    }

    fn new(setup: &Setup) -> Remap {
        let bytes = Arena::staging_bytes(SECTOR) + OpPool::arena_bytes(64);
        let mut arena = Arena::new(arena_memory(bytes)).expect("aligned");
        Remap {
            variant: setup.variant,
            guest_sectors: setup.guest_sectors as usize,
            devices: None,
            page: arena.carve_lease(SECTOR as u32),
            pool: OpPool::carve(&mut arena, 64).expect("room"),
            state: State::Closed,
            map: Vec::new(),
            found: None,
            durable: vec![UNMAPPED; places(setup)],
            sequence: 0,
            whole: [false; 2],
            queue: VecDeque::new(),
            current: None,
            flush: None,
            refused: VecDeque::new(),
            parts_out: 0,
            failed: false,
            placed: Vec::new(),
            closing: false,
            dirty: false,
        }
    }

    fn format(&mut self, devices: &Devices) -> Result<(), String> {
        // Map `n` lives in slot `n mod 2`; zeros prove nothing.
        devices.metadata.put(0, &[0; SECTOR]);
        devices.metadata.put(1, &self.slot_bytes(1));
        Ok(())
    }

    fn open(&mut self, devices: &Devices) {
        self.devices = Some(devices.clone());
        self.state = State::Opening { slot: 0 };
        self.found = None;
        if self.variant != SLOT_NOT_READ {
            self.map = vec![UNMAPPED; self.guest_sectors];
            self.sequence = 0;
        }
        self.map.resize(self.guest_sectors, UNMAPPED);
        self.page_op(OpKind::Read, 0);
    }

    fn geometry(&self) -> Geometry {
        Geometry::basic((self.guest_sectors * SECTOR) as u64)
    }

    fn submit(&mut self, op: Op) -> Result<(), Op> {
        self.queue.push_back(op);
        Ok(())
    }

    fn poll(&mut self, now: Instant) -> Event {
        loop {
            if self.state == State::Idle {
                match self.queue.pop_front() {
                    Some(op) => self.start(op),
                    None if self.closing && self.dirty => self.start_flush(),
                    None if core::mem::take(&mut self.closing) => {
                        self.state = State::Closed;
                        return Event::Closed;
                    }
                    None => return Event::Idle,
                }
                if let Some(event) = self.finish_parts() {
                    return event;
                }
            }
            let Some(devices) = &mut self.devices else {
                return Event::Idle;
            };
            let done = self.refused.pop_front();
            let done = done.or_else(|| devices.metadata.poll(now));
            let done = done.or_else(|| devices.base.as_mut()?.poll(now));
            let Some(op) = done else {
                return Event::Idle;
            };
            if let Some(event) = self.completed(op) {
                return event;
            }
        }
    }

    fn poll_at(&self) -> When {
        When::Event
    }

    fn close(&mut self) {
        self.closing = true;
    }

    fn abandon(&mut self, _: &mut dyn FnMut(Op)) {
        self.devices = None;
        self.state = State::Closed;
        self.closing = false;
    }
}

impl Remap {
    fn slot_bytes(&self, sequence: u64) -> [u8; SECTOR] {
        let mut bytes = [0; SECTOR];
        bytes[..8].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[8..16].copy_from_slice(&sequence.to_le_bytes());
        // Spread over the sector, so that a tear finds something to tear.
        for sector in 0..self.guest_sectors {
            let place = self.map.get(sector).copied().unwrap_or(UNMAPPED);
            bytes[16 + sector * 24] = !place;
        }
        let sum = checksum(&bytes[..504]);
        bytes[504..].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    fn load_slot(&mut self, slot: u8, bytes: &[u8; SECTOR]) {
        let word = |at: usize| u64::from_le_bytes(bytes[at..at + 8].try_into().expect("8"));
        let whole = word(504) == checksum(&bytes[..504]) || self.variant == NO_CHECKSUM;
        let newer = word(8) > self.sequence;
        self.whole[usize::from(slot)] = word(0) == MAGIC && whole;
        if word(0) == MAGIC && whole && newer && self.variant != SLOT_NOT_READ {
            self.sequence = word(8);
            for sector in 0..self.guest_sectors {
                self.map[sector] = !bytes[16 + sector * 24];
            }
        }
    }

    fn head(kind: OpKind, sector: usize, count: usize, tag: u64) -> Head {
        let (offset, len) = (sector * SECTOR, count * SECTOR);
        Head::new(kind, offset as u64, len as u64).with_tag(tag)
    }

    fn page_op(&mut self, kind: OpKind, sector: usize) {
        let count = usize::from(kind != OpKind::Flush);
        let mut op = self
            .pool
            .take(Remap::head(kind, sector, count, OWN))
            .expect("free");
        if count > 0 {
            let page = self.page.take().expect("one page op at a time");
            assert!(op.push(page).is_ok());
            if kind == OpKind::Write {
                op.copy_in(0, &self.slot_bytes(self.sequence));
            }
        }
        self.send(false, op);
    }

    fn send(&mut self, base: bool, op: Op) {
        let devices = self.devices.as_mut().expect("open");
        let target = match &mut devices.base {
            Some(device) if base => device,
            _ => &mut devices.metadata,
        };
        if let Err(op) = target.submit(op) {
            self.refused.push_back(op);
        }
    }

    fn start(&mut self, op: Op) {
        self.failed = false;
        match op.kind() {
            OpKind::Flush => {
                self.flush = Some(op);
                self.start_flush();
            }
            kind => {
                self.state = State::Parts;
                let head = op.head();
                let first = head.offset as usize / SECTOR;
                self.current = Some(op.lend());
                for sector in first..first + head.len as usize / SECTOR {
                    self.part(kind, sector);
                }
            }
        }
    }

    fn start_flush(&mut self) {
        if self.variant == NO_DATA_FLUSH {
            self.write_slot();
        } else {
            self.state = State::DataFlush;
            self.page_op(OpKind::Flush, 0);
        }
    }

    fn part(&mut self, kind: OpKind, sector: usize) {
        let devices = self.devices.as_ref().expect("open");
        let base = devices
            .base
            .as_ref()
            .map_or(0, |base| base.geometry().capacity_bytes);
        let in_base = ((sector + 1) * SECTOR) as u64 <= base;
        let mapped = self.map[sector] != UNMAPPED;
        let lent = self.current.as_mut().expect("started");
        let (to_base, target) = match kind {
            OpKind::Write => {
                let place = self.free_place();
                self.placed.push((sector, place));
                (
                    self.variant == WRITES_BASE && in_base && !mapped,
                    2 + usize::from(place),
                )
            }
            _ if mapped => (false, 2 + usize::from(self.map[sector])),
            _ if in_base => (true, sector),
            _ if self.variant == STALE_READ => (false, 2),
            _ => {
                lent.skip_zeroed(SECTOR);
                return;
            }
        };
        let target = if to_base { sector } else { target };
        let lent = self.current.as_mut().expect("started");
        let lease = lent.cut(SECTOR).expect("one sector");
        let mut op = self
            .pool
            .take(Remap::head(kind, target, 1, 0))
            .expect("free");
        assert!(op.push(lease).is_ok());
        self.parts_out += 1;
        self.send(to_base, op);
    }

    fn free_place(&self) -> u8 {
        let used = |place: u8| {
            self.map.contains(&place)
                || self.placed.iter().any(|placed| placed.1 == place)
                || (self.durable.contains(&place) && self.variant != EARLY_REUSE)
        };
        (0..UNMAPPED)
            .find(|place| !used(*place))
            .expect("twice as many places as sectors")
    }

    fn write_slot(&mut self) {
        self.state = State::Slot;
        self.sequence += 1;
        self.page_op(OpKind::Write, self.slot_for(self.sequence));
    }

    fn repair(&mut self) {
        if self.variant == FORGETFUL {
            let empty = vec![UNMAPPED; self.guest_sectors];
            self.found = Some(core::mem::replace(&mut self.map, empty));
        }
        // A number that a torn slot can not have, or a tear of this one could make that one whole.
        self.sequence += 2;
        self.write_slot();
        self.state = State::Repair;
    }

    fn slot_for(&self, sequence: u64) -> usize {
        if self.variant == ONE_SLOT {
            0
        } else {
            sequence as usize % 2
        }
    }

    fn opened(&mut self) -> Option<Event> {
        self.state = State::Idle;
        Some(Event::Opened)
    }

    fn take_part(&mut self, mut op: Op) {
        self.parts_out -= 1;
        self.failed |= op.status() != Status::Done;
        if let (Some(lease), Some(lent)) = (op.pop(), self.current.as_mut()) {
            assert!(lent.give(lease).is_ok());
        }
        self.pool.put(op).expect("its own");
    }

    fn finish_parts(&mut self) -> Option<Event> {
        if self.state != State::Parts || self.parts_out > 0 {
            return None;
        }
        let mut op = self.current.take()?.try_whole().ok()?;
        op.complete(if self.failed {
            Err(DeviceError::Io)
        } else {
            Ok(())
        });
        for (sector, place) in self.placed.drain(..) {
            if !self.failed {
                self.dirty = true;
                self.map[sector] = place;
            }
        }
        self.state = State::Idle;
        Some(Event::Completed(op))
    }

    fn end_flush(&mut self, done: bool) -> Option<Event> {
        if done {
            self.durable = self.map.clone();
        }
        self.dirty = false;
        self.state = State::Idle;
        let mut op = self.flush.take()?;
        op.complete(if done { Ok(()) } else { Err(DeviceError::Io) });
        Some(Event::Completed(op))
    }

    fn completed(&mut self, mut op: Op) -> Option<Event> {
        if op.tag() != OWN {
            self.take_part(op);
            return self.finish_parts();
        }
        let done = op.status() == Status::Done;
        let mut bytes = [0; SECTOR];
        op.copy_out(0, &mut bytes);
        if let Some(lease) = op.pop() {
            self.page = Some(lease);
        }
        self.pool.put(op).expect("its own");
        match self.state {
            _ if !done => return self.end_flush(false),
            State::Opening { slot } => {
                self.load_slot(slot, &bytes);
                if slot == 0 {
                    self.state = State::Opening { slot: 1 };
                    self.page_op(OpKind::Read, 1);
                } else {
                    if self.variant == FADES && self.sequence > 5 {
                        self.map.fill(UNMAPPED);
                    }
                    self.durable = self.map.clone();
                    let other = self.slot_for(self.sequence + 1);
                    match self.variant {
                        NO_REPAIR => return self.opened(),
                        TRUSTS if self.whole[other] => return self.opened(),
                        _ if self.whole[other] => {
                            self.state = State::Rewrite;
                            self.page_op(OpKind::Write, self.slot_for(self.sequence));
                        }
                        _ => self.repair(),
                    }
                }
            }
            State::Rewrite => {
                self.state = State::RewriteFlush;
                self.page_op(OpKind::Flush, 0);
            }
            State::RewriteFlush => self.repair(),
            State::Repair => {
                self.state = State::RepairFlush;
                self.page_op(OpKind::Flush, 0);
            }
            State::RepairFlush => match self.found.take() {
                None => return self.opened(),
                Some(map) => {
                    self.map = map;
                    self.write_slot();
                    self.state = State::Repair;
                }
            },
            State::DataFlush => self.write_slot(),
            State::Slot if self.variant == NO_LAST_FLUSH => return self.end_flush(true),
            State::Slot => {
                self.state = State::LastFlush;
                self.page_op(OpKind::Flush, 0);
            }
            State::LastFlush => return self.end_flush(true),
            State::Closed | State::Idle | State::Parts => {}
        }
        None
    }
}
