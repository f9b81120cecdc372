//! Simpler cases than a given one: each differs in one place.

use crate::case::Case;
use crate::crash::Tear;
use crate::disk::Landed;
use crate::workload::{GuestOp, Range, Setup};

/// A walk over the simpler cases of one that may change on the way.
pub(super) struct Candidates {
    index: usize,
}

impl Candidates {
    pub(super) fn new() -> Candidates {
        Candidates { index: 0 }
    }

    /// The next simpler case of `case`.
    pub(super) fn next(&mut self, case: &Case) -> Option<Case> {
        let next = all(case).into_iter().nth(self.index)?;
        self.index += 1;
        Some(next)
    }

    /// The last one is the case from now on: its own candidates at this place come next.
    pub(super) fn worked(&mut self) {
        self.index -= 1;
    }
}

/// All of them that are legal: every range lies on the disk.
fn all(case: &Case) -> Vec<Case> {
    let mut list = Vec::new();
    let mut change = |change: &dyn Fn(&mut Case)| {
        let mut simpler = case.clone();
        change(&mut simpler);
        if simpler != *case && simpler.is_on_disk() {
            list.push(simpler);
        }
    };
    change(&|case| case.tear = Tear::None);
    change(&|case| case.fault = None);
    change(&|case| {
        if let Some((_, rule)) = &mut case.fault {
            rule.sticky = false;
        }
    });
    change(&|case| {
        if let Some((_, rule)) = &mut case.fault {
            rule.landed = Landed::Nothing;
        }
    });
    for pass_count in 0..case.fault.map_or(0, |(_, rule)| rule.pass_count) {
        change(&|case| {
            if let Some((_, rule)) = &mut case.fault {
                rule.pass_count = pass_count;
            }
        });
    }
    change(&|case| case.flood = false);
    for depth in [1, 2, 4, case.queue_depth / 2] {
        change(&|case| case.queue_depth = case.queue_depth.min(depth));
    }
    for setup in simpler_setups(&case.setup) {
        change(&|case| case.setup = setup);
    }
    for session in 0..case.sessions.len() {
        for at in 0..case.sessions[session].len() {
            for step in simpler_steps(case.sessions[session][at]) {
                change(&|case| case.sessions[session][at] = step);
            }
        }
    }
    for at in 0..case.prefix.len() {
        for step in simpler_steps(case.prefix[at]) {
            change(&|case| case.prefix[at] = step);
        }
    }
    list
}

/// The setup with one letter left out.
fn simpler_setups(setup: &Setup) -> Vec<Setup> {
    let text = setup.to_string();
    let starts: Vec<usize> = text
        .char_indices()
        .filter(|(_, letter)| letter.is_ascii_alphabetic())
        .map(|(at, _)| at)
        .collect();
    let ends = starts.iter().skip(1).copied().chain([text.len()]);
    starts
        .iter()
        .zip(ends)
        .filter_map(|(start, end)| format!("{}{}", &text[..*start], &text[end..]).parse().ok())
        .collect()
}

/// The step on fewer sectors, further in front, or as a plainer kind of step.
fn simpler_steps(step: GuestOp) -> Vec<GuestOp> {
    let Some(Range { first, count }) = step.range() else {
        return match step {
            GuestOp::Checkpoint(Some(_)) => vec![GuestOp::Checkpoint(None)],
            GuestOp::Kill => vec![GuestOp::Reopen, GuestOp::Flush],
            GuestOp::Reopen => vec![GuestOp::Flush],
            _ => Vec::new(),
        };
    };
    let mut steps = Vec::new();
    let ranges = [
        Range::new(0, 1),
        Range::new(first, 1),
        Range::new(0, count),
        Range::new(first, count / 2),
        Range::new(first / 2, count),
    ];
    for range in ranges {
        let smaller = range.count > 0 && (range.count, range.first) < (count, first);
        if smaller && range.first <= first {
            steps.push(with_range(step, range));
        }
    }
    if matches!(
        step,
        GuestOp::WriteFua(_) | GuestOp::Zero(_) | GuestOp::Discard(_)
    ) {
        steps.push(GuestOp::Write(Range { first, count }));
    }
    steps
}

fn with_range(step: GuestOp, range: Range) -> GuestOp {
    match step {
        GuestOp::Write(_) => GuestOp::Write(range),
        GuestOp::WriteFua(_) => GuestOp::WriteFua(range),
        GuestOp::Zero(_) => GuestOp::Zero(range),
        GuestOp::Discard(_) => GuestOp::Discard(range),
        GuestOp::Read(_) => GuestOp::Read(range),
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::Replay;

    fn case(line: &str) -> Case {
        line.parse::<Replay>().expect("legal").case
    }

    #[test]
    fn candidates_are_simpler_and_end() {
        let mut best = case("g=v8B4d;p=w3;s=w2+3,x/W4;q=3;i=0w2!;T=1");
        // Taking every candidate must come to an end, at the simplest case of all.
        let mut candidates = Candidates::new();
        let mut taken = 0;
        while let Some(simpler) = candidates.next(&best) {
            best = simpler;
            candidates.worked();
            taken += 1;
            assert!(taken < 1000, "{best}");
        }
        assert_eq!(best.to_string(), "g=-;p=w0;s=w0,f/w0");
    }

    #[test]
    fn no_candidate_leaves_the_disk() {
        for simpler in all(&case("g=v32;s=w30+2")) {
            assert!(simpler.is_on_disk(), "{simpler}");
        }
        let mut beyond = case("g=v32;s=w16");
        beyond.setup.guest_sectors = 16;
        assert!(!beyond.is_on_disk());
    }
}
