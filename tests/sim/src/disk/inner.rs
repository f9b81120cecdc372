//! What happens inside a simulated disk: operations are taken, and done when they complete.

use std::collections::VecDeque;

use fvd::buffer::{Head, Op};
use fvd::device::{BlockDevice, DeviceError, Geometry, OpFlags, OpKind, When, refuse};
use fvd::units::Instant;

use super::{Bus, FaultRule, Fill, Landed, Schedule, SimDisk};
use crate::medium::Medium;
use crate::sector::{SECTOR, SectorId, word};
use crate::stamp::{CANARY, secret};

pub(super) struct InFlight {
    pub(super) op: Op,
    pub(super) serial: u32,
    /// For flushes: what they cover.
    pub(super) cut: u32,
    pub(super) ids: Vec<SectorId>,
    pub(super) fails: Option<Landed>,
    pub(super) held: bool,
}

pub(super) struct Core {
    pub(super) id: u8,
    pub(super) name: &'static str,
    pub(super) bus: Bus,
    pub(super) geometry: Geometry,
    pub(super) medium: Medium,
    pub(super) in_flight: Vec<InFlight>,
    pub(super) ready: VecDeque<Op>,
    pub(super) schedule: Schedule,
    pub(super) severed: bool,
    pub(super) fault: Option<FaultRule>,
    pub(super) fault_seen: u32,
    pub(super) fault_struck: bool,
    /// Operations that a fault made fail.
    pub(super) failed: Vec<Head>,
    pub(super) misuse: Vec<String>,
    pub(super) spare: Vec<Vec<SectorId>>,
}

pub(super) fn fill_id(bus: &Bus, id: u8, fill: Fill, sector: usize) -> SectorId {
    match fill {
        Fill::Zeros => SectorId::ZERO,
        Fill::Secrets => {
            let bytes = secret(u64::from(id), sector as u64);
            bus.sectors().borrow_mut().intern(&bytes).0
        }
    }
}

impl Core {
    fn note(&self, event: &str, head: &Head) {
        self.bus.note(|| {
            let (first, count) = (head.offset / SECTOR as u64, head.len / SECTOR as u64);
            let fua = if head.flags.contains(OpFlags::FUA) {
                " fua"
            } else {
                ""
            };
            let (name, kind, status) = (self.name, head.kind, head.status);
            format!("    {name:4} {event} {kind:?}{fua} {first}+{count} {status:?}")
        });
    }

    /// The failure that the fault rule has in store for this operation.
    fn judge(&mut self, kind: OpKind) -> Option<Landed> {
        let rule = self.fault?;
        if rule.kind.is_some_and(|wanted| wanted != kind) {
            return None;
        }
        let index = self.fault_seen;
        self.fault_seen += 1;
        let idle = rule.landed == Landed::Refused && self.in_flight.is_empty();
        let strikes = index == rule.pass_count || (rule.sticky && index > rule.pass_count && !idle);
        self.fault_struck |= strikes;
        strikes.then_some(rule.landed)
    }

    /// The contents that an operation will leave, taken from its leases.
    fn capture(&mut self, op: &Op) -> Vec<SectorId> {
        let mut ids = self.spare.pop().unwrap_or_default();
        ids.clear();
        let count = op.len() as usize / SECTOR;
        match op.kind() {
            OpKind::WriteZeroes => ids.resize(count, SectorId::ZERO),
            OpKind::Write => {
                let mut store = self.bus.sectors().borrow_mut();
                let mut bytes = [0; SECTOR];
                for index in 0..count {
                    op.copy_out((index * SECTOR) as u64, &mut bytes);
                    let (id, fresh) = store.intern(&bytes);
                    if fresh && bytes.chunks_exact(8).any(|slot| word(slot) == CANARY) {
                        let sector = op.offset() / SECTOR as u64 + index as u64;
                        let name = self.name;
                        self.misuse.push(format!(
                            "{name}: memory nobody filled sent to sector {sector}"
                        ));
                    }
                    ids.push(id);
                }
            }
            _ => {}
        }
        ids
    }

    pub(super) fn complete(&mut self, index: usize) {
        let mut flight = self.in_flight.remove(index);
        let result = match flight.fails {
            None => self.perform(&mut flight),
            Some(landed) => {
                self.failed.push(flight.op.head());
                Err(self.perform_badly(&flight, landed))
            }
        };
        flight.op.complete(result);
        if !self.geometry.volatile_cache {
            self.medium.flush(self.medium.cut());
        }
        self.note("->", &flight.op.head());
        self.spare.push(flight.ids);
        self.ready.push_back(flight.op);
    }

    fn perform(&mut self, flight: &mut InFlight) -> Result<(), DeviceError> {
        let head = flight.op.head();
        let (first, count) = (head.offset as usize / SECTOR, head.len as usize / SECTOR);
        match head.kind {
            OpKind::Read => {
                let store = self.bus.sectors().borrow();
                let mut result = Ok(());
                self.medium
                    .read(first, count, |index, id| match store.get(id) {
                        Some(bytes) => {
                            flight.op.copy_in((index * SECTOR) as u64, bytes);
                        }
                        None => result = Err(DeviceError::Io),
                    });
                return result;
            }
            OpKind::Write | OpKind::WriteZeroes => {
                let fua = head.flags.contains(OpFlags::FUA);
                self.medium.write(first, &flight.ids, fua);
            }
            OpKind::Flush => self.medium.flush(flight.cut),
            OpKind::Discard => {
                let zeroes = self
                    .geometry
                    .discard
                    .is_some_and(|limits| limits.zeroes_after);
                let (first, count) = self.round_discard(first, count);
                self.medium.discard(first, count, zeroes);
            }
            OpKind::Grow => {
                // A new size that may survive: whoever looks for crash states must look again.
                self.bus.next_serial();
                self.grow(head.len);
            }
            _ => return Err(DeviceError::Unsupported),
        }
        Ok(())
    }

    fn perform_badly(&mut self, flight: &InFlight, landed: Landed) -> DeviceError {
        let head = flight.op.head();
        let (first, count) = (head.offset as usize / SECTOR, head.len as usize / SECTOR);
        match head.kind {
            OpKind::Write | OpKind::WriteZeroes => {
                self.medium
                    .write_failed(first, &flight.ids, |unit| match landed {
                        Landed::Nothing | Landed::Refused => false,
                        Landed::All => true,
                        Landed::Half => unit % 2 == 0,
                    });
            }
            OpKind::Flush => self.medium.flush_failed(),
            OpKind::Discard => {
                let (first, count) = self.round_discard(first, count);
                self.medium.discard(first, count, landed == Landed::All);
            }
            OpKind::Grow => return DeviceError::NoSpace,
            _ => {}
        }
        DeviceError::Io
    }

    fn round_discard(&self, first: usize, count: usize) -> (usize, usize) {
        let bytes = self
            .geometry
            .discard
            .map_or(0, |limits| limits.granularity_bytes);
        let grain = (bytes as usize / SECTOR).max(self.medium.unit_sectors());
        let start = first.next_multiple_of(grain);
        let end = (first + count) / grain * grain;
        (start, end.saturating_sub(start))
    }

    fn grow(&mut self, bytes: u64) {
        let zeroed = self.geometry.growth.is_some_and(|growth| growth.zeroed);
        let fill = if zeroed { Fill::Zeros } else { Fill::Secrets };
        let (bus, id) = (self.bus.clone(), self.id);
        let len = (bytes as usize).div_ceil(SECTOR);
        self.medium
            .grow(len, |sector| fill_id(&bus, id, fill, sector));
        self.geometry.capacity_bytes = (self.medium.len() * SECTOR) as u64;
    }
}

impl BlockDevice for SimDisk {
    fn geometry(&self) -> Geometry {
        self.0.borrow().geometry
    }

    fn submit(&mut self, op: Op) -> Result<(), Op> {
        let mut core = self.0.borrow_mut();
        let head = op.head();
        if core.severed {
            return refuse(op, DeviceError::Removed);
        }
        if let Err(error) = core.geometry.check(&op) {
            core.note("!!", &head);
            let name = core.name;
            core.misuse.push(format!(
                "{name}: {:?} refused as {error:?}: {head:?}",
                head.kind
            ));
            return refuse(op, error);
        }
        if core.in_flight.len() >= usize::from(core.geometry.queue_depth) {
            return refuse(op, DeviceError::Busy);
        }
        let fails = core.judge(head.kind);
        if fails == Some(Landed::Refused) {
            core.note("busy", &head);
            return refuse(op, DeviceError::Busy);
        }
        core.note("<-", &head);
        let flight = InFlight {
            serial: core.bus.next_serial(),
            cut: core.medium.cut(),
            ids: core.capture(&op),
            fails,
            held: false,
            op,
        };
        core.in_flight.push(flight);
        Ok(())
    }

    fn poll(&mut self, _now: Instant) -> Option<Op> {
        let mut core = self.0.borrow_mut();
        if core.ready.is_empty() && core.schedule == Schedule::Fifo && !core.in_flight.is_empty() {
            core.complete(0);
        }
        core.ready.pop_front()
    }

    fn poll_at(&self) -> When {
        let core = self.0.borrow();
        let automatic = core.schedule == Schedule::Fifo && !core.in_flight.is_empty();
        if core.ready.is_empty() && !automatic {
            When::Event
        } else {
            When::Now
        }
    }
}
