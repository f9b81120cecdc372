//! Power losses: everything that one could leave right now, and the session that follows each.

use core::ops::ControlFlow;

use super::{Outcomes, Random, Session, run};
use crate::choices::Choices;
use crate::crash::{Outcome, Space, Tear};
use crate::engine::Engine;
use crate::memory::Seen;
use crate::sector::mix;

impl<E: Engine> Session<'_, E> {
    /// Looks at everything that a power loss right now could leave.
    pub(super) fn crash_moment(&mut self) -> Outcomes {
        let mark = Some((self.level.bus.submitted(), self.level.tightened));
        if self.shared.preparing || self.deeper.is_empty() || self.level.looked_at == mark {
            return Ok(());
        }
        self.level.looked_at = mark;
        let moment = self.level.moment;
        self.level.moment += 1;
        if self.depth == 0 && self.shared.script.is_none() && !self.shared.moments.wants(moment) {
            return Ok(());
        }
        self.shared.stats.moments += 1;
        let mut space = core::mem::take(&mut self.level.space);
        space.clear();
        for device in self.level.devices.stores() {
            device.add_to(&mut space);
        }
        let result = self.visit(&space, moment);
        self.level.space = space;
        result
    }

    pub(super) fn visit(&mut self, space: &Space, moment: u32) -> Outcomes {
        let script = self
            .shared
            .script
            .as_ref()
            .map(|script| script.get(self.depth).cloned());
        if let Some(wanted) = script {
            return match wanted.flatten() {
                Some((at, mut outcome)) if at == moment => {
                    outcome.digits.resize(space.unit_count(), 0);
                    self.level.bus.note(|| "  power loss".into());
                    self.shared.audited = self.shared.audit.is_on();
                    self.after(space, moment, &outcome)?;
                    self.note_repeat(None, moment, &outcome);
                    Ok(())
                }
                _ => Ok(()),
            };
        }
        let sectors = self.level.bus.sectors().clone();
        let base = space.stable_hash(&sectors);
        let allowed = self.level.oracle.hash();
        let (bound, tear) = (self.shared.bound, self.shared.case.tear);
        let torn_allowed = self.level.oracle.torn_hash();
        self.shared.stats.selected += u64::from(space.product() > bound.product_max);
        // The last session only recovers and reads; any other depends on what follows.
        let is_last = self.deeper.len() == 1;
        let follows = mix(self.shared.salt, self.depth as u64);
        let mut failed = Ok(());
        let _ = space.visit(bound, tear, &mut |outcome| {
            self.shared.stats.outcomes += 1;
            let mut key = mix(space.hash(base, outcome, &sectors), allowed);
            if outcome.torn.is_some() {
                key = mix(key, space.torn_hash(outcome, tear, &sectors) ^ torn_allowed);
            }
            let memory = &mut self.shared.memory;
            let seen = memory.look(key);
            if seen == Seen::New {
                self.shared.stats.states += 1;
            }
            let again = if is_last {
                seen
            } else {
                memory.look(mix(key, follows))
            };
            if again == Seen::Before && self.knows_repeat(key, moment, outcome) {
                return ControlFlow::Continue(());
            }
            self.shared.stats.recoveries += 1;
            let audit = &self.shared.audit;
            self.shared.audited = seen == Seen::New && audit.wants(self.shared.stats.states);
            failed = self.after(space, moment, outcome);
            if failed.is_err() {
                return ControlFlow::Break(());
            }
            self.note_repeat(Some(key), moment, outcome);
            ControlFlow::Continue(())
        });
        failed
    }

    /// Whether nothing would be learnt from recovering once more from a known state. If power fails in
    /// a recovery, what the next one shows must be known too.
    fn knows_repeat(&mut self, key: u64, moment: u32, outcome: &Outcome) -> bool {
        if !self.level.recovering {
            return true;
        }
        let known = self.shared.memory.shown(key);
        if let Some(contents) = known {
            self.level.repeats.note(contents, moment, outcome);
        }
        known.is_some()
    }

    /// What the recovery after one that was cut off has shown.
    fn note_repeat(&mut self, key: Option<u64>, moment: u32, outcome: &Outcome) {
        let showed = self.deeper.first().and_then(|next| next.showed);
        if let (true, Some(contents)) = (self.level.recovering, showed) {
            if let Some(key) = key {
                self.shared.memory.show(key, contents);
            }
            self.level.repeats.note(contents, moment, outcome);
        }
    }

    /// Runs the session that follows a crash with this outcome.
    pub(super) fn after(&mut self, space: &Space, moment: u32, outcome: &Outcome) -> Outcomes {
        let Some(next) = self.deeper.first_mut() else {
            return Ok(());
        };
        let sectors = self.level.bus.sectors();
        let stores: Vec<u8> = self
            .level
            .devices
            .stores()
            .map(|device| device.id())
            .collect();
        let audited = self.shared.audited;
        let images = &mut self.level.images;
        images.resize_with(stores.len(), Vec::new);
        let tear = self.shared.case.tear;
        for (image, id) in images.iter_mut().zip(&stores) {
            space.image(*id, outcome, tear, sectors, image);
        }
        next.load(images, &self.level.oracle);
        if tear == Tear::Metastable {
            for ((device, image), id) in next.devices.stores().zip(images).zip(&stores) {
                device.load_torn(image, space.metastable(*id, outcome, tear));
            }
        }
        next.bereft = self.level.bereft || space.loses_a_page(outcome, tear);
        if self.shared.script.is_none() {
            next.choices = match self.shared.random {
                Some(Random { seed, odds }) => {
                    Choices::random(mix(seed, self.shared.stats.recoveries), odds)
                }
                None => Choices::new(),
            };
        }
        let judged = if audited { self.audit_crash() } else { Ok(()) };
        let ended = judged.and_then(|()| run(self.deeper, self.shared, self.depth + 1));
        ended.map_err(|mut failure| {
            failure
                .path
                .0
                .insert(0, (Vec::new(), Some((moment, outcome.trimmed()))));
            failure
        })
    }
}
