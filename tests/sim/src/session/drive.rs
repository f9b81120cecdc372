//! One step at a time: the engine polls, a device operation completes, time passes.

use fvd::device::{OpKind, When};

use super::{Failure, Level, Outcomes, PATIENCE, Session, TOIL, broken};
use crate::disk::SimDisk;
use crate::engine::{Engine, Event};

impl<E: Engine> Session<'_, E> {
    pub(super) fn choose(&mut self, options: usize) -> usize {
        if self.shared.preparing {
            0
        } else {
            self.level.choices.choose(options)
        }
    }

    /// Takes all events that the engine has.
    pub(super) fn pump(&mut self) -> Outcomes {
        for _ in 0..PATIENCE {
            match self.level.engine.poll(self.level.now) {
                Event::Idle => return self.check_misuse(),
                Event::Opened => {
                    self.level.opened = true;
                    self.level.harm.opened()?;
                }
                Event::Closed => {
                    self.level.closed = true;
                    if !self.level.severed {
                        self.level.harm.acknowledge(OpKind::Flush)?;
                    }
                }
                Event::Failed(_) if self.level.severed => self.level.closed = true,
                Event::Failed(why)
                    if self.level.harm.excuses_end(self.level.opened) || self.level.bereft =>
                {
                    self.level.bus.note(|| format!("  excused: {why}"));
                    self.level.failed = true;
                }
                Event::Failed(why) => {
                    self.level.closed = true;
                    return Err(broken("open", why));
                }
                Event::Completed(op) => self.completed(op)?,
            }
        }
        Err(broken("R13", "the engine spins"))
    }

    pub(super) fn check_misuse(&self) -> Outcomes {
        match self
            .level
            .devices
            .all()
            .flat_map(|device| device.misuse())
            .next()
        {
            Some(detail) => Err(broken("R8", detail)),
            None => Ok(()),
        }
    }

    /// Steps until `until` holds; nothing but devices and time can make it so.
    pub(super) fn drive(&mut self, until: fn(&Level<E>) -> bool) -> Outcomes {
        let mut idle = 0;
        self.pump()?;
        while !until(self.level) && !self.level.failed {
            if self.level.in_flight() > 0 {
                self.complete_one(false)?;
                idle = 0;
            } else {
                self.wait(&mut idle)?;
            }
            self.pump()?;
        }
        Ok(())
    }

    /// Nothing is in flight: let time pass, up to a point.
    pub(super) fn wait(&mut self, idle: &mut u32) -> Outcomes {
        *idle += 1;
        match self.level.engine.poll_at() {
            _ if *idle > PATIENCE => Err(broken("R13", "the engine waits for nothing")),
            When::Now => Ok(()),
            When::At(then) => {
                self.level.now = self.level.now.max(then);
                Ok(())
            }
            When::Event if *idle < 4 => Ok(()),
            When::Event => Err(broken("R14", "the engine is stuck with nothing in flight")),
        }
    }

    /// Lets one device operation complete, or holds one back, or (returning true) asks for the next
    /// step of the guest instead, which `may_submit` allows.
    pub(super) fn complete_one(&mut self, may_submit: bool) -> Result<bool, Failure> {
        loop {
            let mut free: Vec<(u32, u8, usize)> = Vec::new();
            let mut held: Vec<(u32, u8, usize)> = Vec::new();
            for device in self.level.devices.all() {
                device.for_each_in_flight(|index, serial, is_held| {
                    let list = if is_held { &mut held } else { &mut free };
                    list.push((serial, device.id(), index));
                });
            }
            if free.is_empty() {
                // Held back long enough: nothing else can happen.
                free.append(&mut held);
            }
            free.sort_unstable();
            let can_hold = (free.len() > 1 || may_submit) && !self.shared.case.flood;
            let options = free.len() + usize::from(may_submit) + usize::from(can_hold);
            let choice = self.choose(options);
            if choice == free.len() && may_submit {
                return Ok(true);
            }
            if let Some(&(_, device, index)) = free.get(choice) {
                self.complete(device, index)?;
                return Ok(false);
            }
            let (_, device, index) = free[0];
            self.device(device).hold(index, true);
            if free.len() == 1 {
                return Ok(true);
            }
        }
    }

    pub(super) fn device(&self, id: u8) -> &SimDisk {
        let found = self.level.devices.all().find(|device| device.id() == id);
        found.unwrap_or(&self.level.devices.metadata)
    }

    pub(super) fn complete(&mut self, device: u8, index: usize) -> Outcomes {
        self.level.toil += 1;
        if self.level.toil > TOIL {
            return Err(broken("R13", "the engine works without end"));
        }
        if self.device(device).hardens(index) {
            self.crash_moment()?;
        }
        let store = self.device(device);
        store.complete(index);
        let failed = store.take_failed();
        for head in failed {
            self.level.harm.note(device, &head);
        }
        Ok(())
    }
}
