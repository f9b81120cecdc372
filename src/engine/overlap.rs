//! Who waits for whom.
//!
//! Plain writes of mapped blocks need no order among themselves. Whatever copies, fills or zeroes is
//! *exclusive*: it waits for every write, discard and write-zeroes in flight that touches its guard,
//! and they wait for it (law 4). The 2011 implementation ordered copies only among copies and lost
//! acknowledged writes.
//!
//! Reads wait for nobody: until a mapping is published they see the old one, and a store chunk that
//! was handed out is never reused while it is mapped.

use crate::seeded::{Bug, bug};
use crate::stores::Stores;

use super::{Disk, State};

impl<S: Stores> Disk<S> {
    /// Whether a write over `[start, end)` must wait. Requests that were admitted count, and so do
    /// those that came earlier and wait themselves, so that nobody is overtaken for ever.
    #[inline]
    pub(super) fn conflicts(&self, index: u16, start: u64, end: u64, exclusive: bool) -> bool {
        // Without an exclusive request anywhere, waiting or admitted, nothing can be in the way. This
        // one counts.
        !self.nothing_exclusive() && self.overlaps(index, start, end, exclusive)
    }

    #[inline(never)] // so that a plain write gets past it quickly
    fn overlaps(&self, index: u16, start: u64, end: u64, exclusive: bool) -> bool {
        if bug(Bug::OverlapIgnored) {
            return false;
        }
        let Some(own) = self.slots.get(index) else {
            return false;
        };
        let ticket = own.ticket;
        self.slots.iter().any(|(_, slot)| {
            let (guard_start, guard_end) = slot.guard();
            // Not this one, which is queued.
            slot.is_write()
                && (slot.state != State::Queued || slot.ticket < ticket)
                && (exclusive || slot.exclusive)
                && !matches!(slot.state, State::Commit(_) | State::DeviceFlush)
                && guard_start < end
                && start < guard_end
        })
    }

    /// Notes whether a request is exclusive, and keeps count.
    pub(super) fn set_exclusive(&mut self, index: u16, exclusive: bool) {
        let Some(slot) = self.slots.get_mut(index) else {
            return;
        };
        match (slot.exclusive, exclusive) {
            (false, true) => self.exclusive_count += 1,
            (true, false) => self.exclusive_count = self.exclusive_count.saturating_sub(1),
            _ => {}
        }
        slot.exclusive = exclusive;
    }

    /// Whether a plain write can skip the look at every slot.
    #[inline]
    pub(super) fn nothing_exclusive(&self) -> bool {
        self.exclusive_count == 0
    }
}
