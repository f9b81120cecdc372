//! Flushes, and waiting for what makes a write durable.

use crate::buffer::Head;
use crate::device::{OpFlags, OpKind};
use crate::seeded::{Bug, bug};
use crate::stores::{Role, Stores};

use super::poll::Step;
use super::{Disk, Held, Purpose, State, Tag};

impl<S: Stores> Disk<S> {
    /// With nothing pending, a guest flush is one flush of the data device, in the guest's own op:
    /// the metadata device has nothing that is not durable. Otherwise it waits for the next commit
    /// to be sealed, never for one that is under way: that one's data flush may have started before
    /// a write which this flush must cover (PROTOCOL rows 11 and 12).
    #[inline(never)]
    pub(super) fn admit_flush(&mut self, index: u16) -> Step {
        let idle = self.journal.commit.is_idle() && !self.has_unsaved();
        let number = self.journal.commits_sealed + 1;
        let Some(slot) = self.slots.get_mut(index) else {
            return Step::InFlight;
        };
        if !idle {
            let joins = bug(Bug::FlushJoinsRunningCommit) && !self.journal.commit.is_idle();
            slot.state = State::Commit(if joins { number - 1 } else { number });
            self.journal.commit_wanted = !joins;
            return Step::Wait;
        }
        let Held::Whole(mut op) = core::mem::replace(&mut slot.held, Held::Out) else {
            return Step::InFlight;
        };
        slot.state = State::Forwarded;
        slot.print = op.fingerprint();
        // Flags mean nothing for a flush. A device that refuses one would fail it, and a failed
        // flush ends all writing.
        op.set_head(Head {
            flags: OpFlags::NONE,
            ..op.head()
        });
        op.retarget(
            0,
            Tag::request(Purpose::Forward, Role::Data, index, slot.generation).word(),
        );
        self.stats.forwarded += 1;
        self.send(Role::Data, op);
        Step::InFlight
    }

    /// Ends a request when the commit that it waits for is durable.
    #[inline(never)]
    pub(super) fn await_commit(&mut self, index: u16, number: u64) -> Step {
        if self.journal.commits_durable >= number {
            return self.finish(index, Ok(()));
        }
        if let Err(error) = self.check_poison() {
            return self.finish(index, Err(error));
        }
        Step::Wait
    }

    /// The flush of a FUA write whose mapping is durable already.
    #[inline(never)]
    pub(super) fn await_device_flush(&mut self, index: u16) -> Step {
        let Some(slot) = self.slots.get_mut(index) else {
            return Step::InFlight;
        };
        if slot.outstanding != 0 {
            return Step::InFlight;
        }
        if slot.cursor != 0 {
            let result = slot.error.map_or(Ok(()), Err);
            return self.finish(index, result);
        }
        let tag = Tag::request(Purpose::Part, Role::Data, index, slot.generation).word();
        let head = Head::new(OpKind::Flush, 0, 0).with_tag(tag);
        let Some(op) = self.parts.take(head) else {
            return Step::Wait;
        };
        slot.cursor = 1;
        slot.outstanding = 1;
        self.stats.parts += 1;
        self.send(Role::Data, op);
        Step::InFlight
    }
}
