//! How a session begins and ends: opening, closing, dying, and coming back after a fault.

use super::{Outcomes, Session, broken};
use crate::client::Purpose;
use crate::engine::Engine;
use crate::oracle::What;

impl<E: Engine> Session<'_, E> {
    pub(super) fn open(&mut self) -> Outcomes {
        let before = self.level.bus.submitted();
        let level = &mut *self.level;
        (level.opened, level.closed, level.severed) = (false, false, false);
        level.failed = false;
        level.harm.forget();
        level.engine.open(&level.devices);
        self.drive(|level| level.opened)?;
        if self.level.failed && self.level.bereft {
            return Ok(());
        }
        self.check_lost()?;
        self.level.bereft = false;
        if self.level.failed {
            return self.open_without_fault();
        }
        let spent = self.level.bus.submitted() - before;
        if spent > self.shared.open_ops_max {
            return Err(broken(
                "R13",
                format!("opening took {spent} device operations"),
            ));
        }
        Ok(())
    }

    /// Ends the faults. A host must not go on with a cache that failed to flush: it shows what may
    /// never become durable. So the devices are reset, and what was in their caches is kept, lost,
    /// or half of it.
    pub(super) fn reset_devices(&mut self) {
        self.shared.fault_struck = true;
        let lost = self.choose(3);
        self.level
            .bus
            .note(|| format!("devices reset, lost {lost}"));
        for device in self.level.devices.all() {
            device.reset(|unit| lost == 0 || (lost == 2 && unit % 2 == 0));
        }
    }

    /// A fault ended the session. It must have left a disk that opens once the fault is gone.
    pub(super) fn open_without_fault(&mut self) -> Outcomes {
        self.crash_moment()?;
        self.reset_devices();
        self.level.oracle.kill();
        self.level.tightened += 1;
        self.open()?;
        self.read_all(Purpose::Verify)
    }

    pub(super) fn reopen(&mut self) -> Outcomes {
        // A disk that was closed in good order has lost nothing: closing counts as a flush.
        let ticket = self.level.oracle.begin(What::Flush, 0, 0);
        self.level.engine.close();
        self.drive(|level| level.closed)?;
        self.check_lost()?;
        if self.level.failed {
            self.level.oracle.end(ticket, false);
            return self.open_without_fault();
        }
        self.level.oracle.end(ticket, true);
        self.level.tightened += 1;
        self.open()
    }

    /// The process dies; what it had in flight landed or not.
    pub(super) fn kill(&mut self) -> Outcomes {
        self.crash_moment()?;
        let in_flight = self.level.in_flight();
        let options = if in_flight == 0 { 1 } else { in_flight + 2 };
        let landed = self.choose(options);
        let mut base = 0;
        for device in self.level.devices.all() {
            let count = device.in_flight();
            device.sever(|index| landed == 1 || landed == base + index + 2);
            base += count;
        }
        self.end_session()?;
        for device in self.level.devices.all() {
            device.reconnect();
        }
        self.level.oracle.kill();
        self.level.tightened += 1;
        self.level.bus.note(|| format!("killed, landed {landed}"));
        if self.level.fault_struck() {
            self.reset_devices();
        }
        self.open()?;
        self.read_all(Purpose::Verify)
    }

    pub(super) fn leave(&mut self) -> Outcomes {
        self.shared.fault_struck |= self.level.fault_struck();
        for device in self.level.devices.all() {
            device.sever(|_| false);
        }
        self.end_session()
    }

    /// Drains a severed session and gives its memory back.
    pub(super) fn end_session(&mut self) -> Outcomes {
        self.level.severed = true;
        self.pump()?;
        let level = &mut *self.level;
        let mut lost = Ok(());
        level
            .engine
            .abandon(&mut |op| match level.client.finish(op) {
                Ok(finished) => level.client.recycle(finished.buffer),
                Err(why) => lost = Err(broken("R14", why)),
            });
        lost?;
        if level.client.in_flight() > 0 {
            return Err(broken("R14", "an abandoned disk keeps requests for ever"));
        }
        self.check_lost()
    }

    /// Whatever a session borrowed comes back when it ends, however it ends.
    fn check_lost(&mut self) -> Outcomes {
        match self.level.engine.lost() {
            Some(what) => Err(broken("R14", format!("lost: {what}"))),
            None => Ok(()),
        }
    }
}
