//! R4: recovery can be repeated, and ends in the same contents.
//!
//! * A recovery that power loss cut off anywhere, and the one after it, show together what a recovery
//!   of the same state shows that is not cut off: sector by sector the same of several legal values.
//! * A recovery after one that ended, without a power loss, shows the same again.
//!
//! Not under the torn model T5: there a unit that is not written again may read otherwise next time.

use super::{Failure, Outcomes, Session, broken};
use crate::case::{Crash, Path};
use crate::crash::{Outcome, Tear};
use crate::engine::Engine;

/// One of this many recoveries at the end of a run is repeated without a power loss.
const AGAIN_EVERY: u64 = 32;

/// What recoveries show that began where this session's was cut off: each content once, by its number
/// in the memory, and how to get there.
#[derive(Default)]
pub(crate) struct Repeats(Vec<(u32, Crash)>);

impl Repeats {
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn note(&mut self, contents: u32, moment: u32, outcome: &Outcome) {
        if self.0.iter().all(|(known, _)| *known != contents) {
            self.0.push((contents, (moment, outcome.trimmed())));
        }
    }
}

impl<E: Engine> Session<'_, E> {
    /// Whether the contents after this session's recovery say what those after a cut-off one must be.
    pub(super) fn is_repeatable(&self) -> bool {
        self.depth > 0 && self.shared.case.tear != Tear::Metastable
    }

    /// Recovery has ended and everything was read: it must be what repeated recoveries have shown.
    pub(super) fn compare_repeats(&mut self) -> Outcomes {
        if !self.is_repeatable() {
            return Ok(());
        }
        let level = &mut *self.level;
        let memory = &mut self.shared.memory;
        let own = memory.contents(&level.values);
        level.showed = Some(own);
        let other = level.repeats.0.iter().find(|(shown, _)| *shown != own);
        let Some((shown, crash)) = other else {
            return Ok(());
        };
        let shown = memory.values(*shown).unwrap_or_default();
        let pairs = shown.iter().zip(&level.values).enumerate();
        let differ = pairs.filter(|(_, (shown, own))| shown != own);
        let detail: Vec<String> = differ
            .map(|(sector, (shown, own))| {
                format!("sector {sector} holds {own:?} after recovery, {shown:?} after one that was cut off and repeated")
            })
            .collect();
        let failure = broken("R4", detail.join("; "));
        Err(Failure {
            path: Path(vec![(Vec::new(), Some(crash.clone()))]),
            ..failure
        })
    }

    /// The process dies right after recovery, and the next one recovers again.
    pub(super) fn recover_again(&mut self) -> Outcomes {
        let scripted = self.shared.script.is_some();
        let due = self.shared.stats.recoveries.is_multiple_of(AGAIN_EVERY);
        if !self.deeper.is_empty() || !(due || scripted) {
            return Ok(());
        }
        self.kill().map_err(|failure| {
            let detail = format!("recovered again: {}", failure.violation.detail);
            broken("R4", detail)
        })
    }
}
