//! Reads that one device operation can not serve: cut into runs, all sent at once.

use crate::buffer::Head;
use crate::device::{DeviceError, OpKind};
use crate::meta::Source;
use crate::stores::{Role, Stores};

use super::poll::Step;
use super::{Disk, Held, Purpose, State, Tag};

impl<S: Stores> Disk<S> {
    #[inline(never)]
    pub(super) fn admit_read(&mut self, index: u16) -> Step {
        let Some(slot) = self.slots.get_mut(index) else {
            return Step::InFlight;
        };
        let start = slot.start();
        slot.state = State::Reading;
        slot.cursor = start;
        if let Held::Whole(op) = core::mem::replace(&mut slot.held, Held::Out) {
            slot.held = Held::Lent(op.lend());
        }
        Step::Again
    }

    /// Sends the runs that were not sent yet; ends the read when all came home.
    #[inline(never)]
    pub(super) fn continue_read(&mut self, index: u16) -> Step {
        let Some(slot) = self.slots.get(index) else {
            return Step::InFlight;
        };
        let (end, pieces) = (slot.end(), slot.head.len >> 9);
        for _ in 0..=pieces {
            let Some(slot) = self.slots.get_mut(index) else {
                return Step::InFlight;
            };
            let at = slot.cursor;
            if at >= end || slot.error.is_some() {
                break;
            }
            let run = self.map.run(at, end);
            let sent = match run.source {
                Source::Store(offset) => self.send_read(index, Role::Data, offset, run.bytes),
                Source::Base(offset) => self.send_read(index, Role::Base, offset, run.bytes),
                Source::Zero => match &mut slot.held {
                    Held::Lent(lent) => Ok(lent.skip_zeroed(run.bytes as usize) as u64),
                    Held::Whole(_) | Held::Out => Ok(0),
                },
                Source::Unreadable => {
                    slot.fail(DeviceError::Unreadable);
                    break;
                }
            };
            let Ok(sent) = sent else { return Step::Wait };
            let Some(slot) = self.slots.get_mut(index) else {
                return Step::InFlight;
            };
            if sent == 0 {
                slot.fail(DeviceError::Protocol);
                break;
            }
            slot.cursor = at + sent;
        }
        let Some(slot) = self.slots.get(index) else {
            return Step::InFlight;
        };
        if slot.outstanding != 0 {
            return Step::InFlight;
        }
        let result = slot.error.map_or(Ok(()), Err);
        self.finish(index, result)
    }

    /// Sends one read of at most `bytes`. Returns the bytes that it covers; an error if there is no
    /// op record for it now.
    fn send_read(&mut self, index: u16, role: Role, offset: u64, bytes: u64) -> Result<u64, ()> {
        let Some(slot) = self.slots.get_mut(index) else {
            return Ok(0);
        };
        let (longest, segments) = match role {
            Role::Base => (self.limits.base_bytes, self.limits.base_segments),
            Role::Data | Role::Metadata => (self.limits.data_bytes, self.limits.data_segments),
        };
        let Held::Lent(lent) = &mut slot.held else {
            return Ok(0);
        };
        let tag = Tag::request(Purpose::Part, role, index, slot.generation).word();
        let head = Head::new(OpKind::Read, offset, 0).with_tag(tag);
        let Some(mut op) = self.parts.take(head) else {
            return Err(());
        };
        let want = bytes.min(longest);
        let mut len = 0;
        for _ in 0..segments {
            let most = (want - len).min(u64::from(self.limits.segment_bytes));
            let Some(part) = lent.cut(most as usize) else {
                break;
            };
            len += part.len() as u64;
            if op.push(part).is_err() {
                break;
            }
        }
        if len == 0 {
            // The guest's leases ended early, which validation rules out.
            let _ = self.parts.put(op);
            return Ok(0);
        }
        op.set_head(Head { len, ..head });
        slot.outstanding += 1;
        self.stats.parts += 1;
        self.send(role, op);
        Ok(len)
    }
}
