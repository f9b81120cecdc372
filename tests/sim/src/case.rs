//! One thing to try, and how to try it again.
//!
//! A [`Case`] says what happens; a [`Path`] says which of the many things that could happen next
//! did. Together they are one line of text that replays a failure exactly:
//!
//! ```text
//! g=v8d;p=w0,f;s=w0,w5/f;q=2;c=0,1;k=7:0.1+3.2;c=;k=2:
//! ```
//!
//! | part | meaning |
//! | --- | --- |
//! | `g` | the [`Setup`] |
//! | `p` | steps that prepare the disk; nothing goes wrong in them |
//! | `s` | steps of the session, then of the sessions after each crash, separated by `/` |
//! | `q` | requests that the guest has in flight at most; with `!` it always submits as soon as it can, and nothing is held back |
//! | `i` | an injected fault: `0w3` fails write 3 of store 0, after `+` all or `~` half of it was done; `0w3?` refuses it as busy; `!` at the end makes it sticky |
//! | `T` | tear model, 0 to 5: see [`Tear`] |
//! | `c` | decisions of a session |
//! | `k` | where that session crashed, which pending contents survived (`unit.content`), and the torn unit (`tunit.way`; `t*` all) |

use core::fmt;
use core::str::FromStr;

use fvd::device::OpKind;

use crate::crash::{ALL_UNITS, Outcome, Tear};
use crate::disk::{FaultRule, Landed};
use crate::workload::{GuestOp, Setup, parse_ops, show_ops};

/// One thing to try.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Case {
    /// The kind of disk.
    pub setup: Setup,
    /// Steps without faults or crashes, before the first session's own.
    pub prefix: Vec<GuestOp>,
    /// Steps of each session; every session but the last ends in a crash, at every moment it can.
    /// After the last of these comes one more that only recovers and checks.
    pub sessions: Vec<Vec<GuestOp>>,
    /// Guest requests in flight, at most. Below 2 they never overlap.
    pub queue_depth: usize,
    /// The guest submits as soon as it can, and no completion is held back: what is left to choose is
    /// the order of completions, few enough to be tried whole.
    pub flood: bool,
    /// A fault in the first session: the store and the rule.
    pub fault: Option<(u8, FaultRule)>,
    /// What a crash may do beyond the contract.
    pub tear: Tear,
}

/// A crash: the how-manieth moment of the session, and what survived.
pub type Crash = (u32, Outcome);

/// Which of all possible runs of a case one run is: per session its decisions and its crash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Path(pub Vec<(Vec<u16>, Option<Crash>)>);

/// A case and a path through it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Replay {
    /// What happens.
    pub case: Case,
    /// What happened.
    pub path: Path,
}

fn fault_letter(kind: Option<OpKind>) -> char {
    match kind {
        Some(OpKind::Read) => 'r',
        Some(OpKind::Write) => 'w',
        Some(OpKind::Flush) => 'f',
        Some(OpKind::Discard) => 'd',
        Some(OpKind::WriteZeroes) => 'z',
        Some(OpKind::Grow) => 'g',
        _ => 'a',
    }
}

fn show_fault(store: u8, rule: &FaultRule) -> String {
    let landed = match rule.landed {
        Landed::Nothing => "",
        Landed::All => "+",
        Landed::Half => "~",
        Landed::Refused => "?",
    };
    let sticky = if rule.sticky { "!" } else { "" };
    format!(
        "{store}{}{}{landed}{sticky}",
        fault_letter(rule.kind),
        rule.pass_count
    )
}

fn parse_fault(text: &str) -> Option<(u8, FaultRule)> {
    let (text, sticky) = text
        .strip_suffix('!')
        .map_or((text, false), |text| (text, true));
    let landed = |mark| match mark {
        '+' => Some(Landed::All),
        '~' => Some(Landed::Half),
        '?' => Some(Landed::Refused),
        _ => None,
    };
    let (text, landed) = match text.chars().last().and_then(landed) {
        Some(landed) => (&text[..text.len() - 1], landed),
        None => (text, Landed::Nothing),
    };
    let mut letters = text.chars();
    let store = letters.next()?.to_digit(10)? as u8;
    let kind = match letters.next()? {
        'r' => Some(OpKind::Read),
        'w' => Some(OpKind::Write),
        'f' => Some(OpKind::Flush),
        'd' => Some(OpKind::Discard),
        'z' => Some(OpKind::WriteZeroes),
        'g' => Some(OpKind::Grow),
        'a' => None,
        _ => return None,
    };
    let pass_count = letters.as_str().parse().ok()?;
    let rule = FaultRule {
        kind,
        pass_count,
        sticky,
        landed,
    };
    Some((store, rule))
}

const TEARS: [(&str, Tear); 6] = [
    ("0", Tear::None),
    ("1", Tear::Cut),
    ("2", Tear::Unreadable),
    ("3", Tear::Garbage),
    ("4", Tear::Shorn),
    ("5", Tear::Metastable),
];

impl Tear {
    /// The letter behind `T=`.
    #[must_use]
    pub fn letter(self) -> &'static str {
        let known = TEARS.iter().find(|(_, tear)| *tear == self);
        known.map_or("?", |(letter, _)| letter)
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "g={}", self.setup)?;
        if !self.prefix.is_empty() {
            write!(f, ";p={}", show_ops(&self.prefix))?;
        }
        let sessions: Vec<String> = self.sessions.iter().map(|ops| show_ops(ops)).collect();
        write!(f, ";s={}", sessions.join("/"))?;
        if self.queue_depth > 1 || self.flood {
            let flood = if self.flood { "!" } else { "" };
            write!(f, ";q={}{flood}", self.queue_depth)?;
        }
        if let Some((store, rule)) = &self.fault {
            write!(f, ";i={}", show_fault(*store, rule))?;
        }
        match TEARS.iter().find(|(_, tear)| *tear == self.tear) {
            Some((text, tear)) if *tear != Tear::None => write!(f, ";T={text}"),
            _ => Ok(()),
        }
    }
}

/// Shows a crash as `moment:unit.content+unit.content`, then `t` and the torn unit (`*` for all) with
/// the way in which it is torn.
pub(crate) fn show_crash((moment, outcome): &Crash) -> String {
    let digits = outcome
        .digits
        .iter()
        .enumerate()
        .filter(|(_, digit)| **digit != 0);
    let digits: Vec<String> = digits
        .map(|(unit, digit)| format!("{unit}.{digit}"))
        .collect();
    let torn = outcome.torn.map_or(String::new(), |torn| match torn {
        (ALL_UNITS, way) => format!("t*.{way}"),
        (unit, way) => format!("t{unit}.{way}"),
    });
    format!("{moment}:{}{torn}", digits.join("+"))
}

fn parse_crash(text: &str) -> Option<Crash> {
    let (moment, text) = text.split_once(':')?;
    let pair = |text: &str| {
        let (unit, digit) = text.split_once('.')?;
        let unit = match unit {
            "*" => ALL_UNITS,
            unit => unit.parse::<u32>().ok()?,
        };
        Some((unit, digit.parse::<u32>().ok()?))
    };
    let (digits, torn) = match text.split_once('t') {
        Some((digits, torn)) => (digits, Some(pair(torn)?)),
        None => (text, None),
    };
    let mut outcome = Outcome {
        digits: Vec::new(),
        torn,
    };
    for part in digits.split('+').filter(|part| !part.is_empty()) {
        let (unit, digit) = pair(part).filter(|(unit, _)| *unit != ALL_UNITS)?;
        let unit = unit as usize;
        if outcome.digits.len() <= unit {
            outcome.digits.resize(unit + 1, 0);
        }
        outcome.digits[unit] = digit as u16;
    }
    Some((moment.parse().ok()?, outcome))
}

impl fmt::Display for Replay {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.case)?;
        for (choices, crash) in &self.path.0 {
            let choices: Vec<String> = choices.iter().map(u16::to_string).collect();
            write!(f, ";c={}", choices.join(","))?;
            if let Some(crash) = crash {
                write!(f, ";k={}", show_crash(crash))?;
            }
        }
        Ok(())
    }
}

impl FromStr for Replay {
    type Err = String;

    fn from_str(text: &str) -> Result<Replay, String> {
        let mut replay = Replay::default();
        for part in text.trim().split(';').filter(|part| !part.is_empty()) {
            let wrong = || format!("not understood: {part:?}");
            let (key, value) = part.split_once('=').ok_or_else(wrong)?;
            let case = &mut replay.case;
            match key {
                "g" => case.setup = value.parse()?,
                "p" => case.prefix = parse_ops(value)?,
                "s" => case.sessions = value.split('/').map(parse_ops).collect::<Result<_, _>>()?,
                "q" => {
                    let depth = value.strip_suffix('!');
                    case.flood = depth.is_some();
                    case.queue_depth = depth.unwrap_or(value).parse().map_err(|_| wrong())?;
                }
                "i" => case.fault = Some(parse_fault(value).ok_or_else(wrong)?),
                "T" => {
                    let known = TEARS.iter().find(|(text, _)| *text == value);
                    case.tear = known.ok_or_else(wrong)?.1;
                }
                "c" => {
                    let answers = value.split(',').filter(|answer| !answer.is_empty());
                    let answers = answers.map(str::parse).collect::<Result<_, _>>();
                    replay.path.0.push((answers.map_err(|_| wrong())?, None));
                }
                "k" => {
                    let crash = parse_crash(value).ok_or_else(wrong)?;
                    replay.path.0.last_mut().ok_or_else(wrong)?.1 = Some(crash);
                }
                _ => return Err(wrong()),
            }
        }
        if !replay.case.is_on_disk() {
            return Err(format!("a step is not on the disk: {text:?}"));
        }
        Ok(replay)
    }
}

impl Case {
    /// Whether every step is on the disk, in whole logical blocks.
    pub(crate) fn is_on_disk(&self) -> bool {
        let steps = self.prefix.iter().chain(self.sessions.iter().flatten());
        let mut ranges = steps.filter_map(|step| step.range());
        let grain = self.setup.logical_sectors.max(1);
        ranges.all(|range| {
            let (first, count) = (u32::from(range.first), u32::from(range.count));
            first + count <= self.setup.guest_sectors
                && first.is_multiple_of(grain)
                && count.is_multiple_of(grain)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_replay_line_reads_back() {
        for text in [
            "g=-;s=",
            "g=v8d;p=w0,f;s=w0,w5/f;q=2;i=0w3~!;T=1;c=0,1;k=7:0.1+3.2t3.17;c=;k=2:",
            "g=B8;s=w0;q=3!;i=1f0+;c=",
            "g=B8;s=w0,t;i=0a2?!;c=",
            "g=-;s=w0;T=5;c=;k=3:0.1+1.1t*.4",
        ] {
            let replay: Replay = text.parse().expect("legal");
            assert_eq!(replay.to_string(), text);
        }
        for text in [
            "x=1",
            "k=1:",
            "g=q",
            "c=a",
            "i=0q1",
            "c=;k=1:*.1",
            "g=v8;s=w8",
            "g=v8;s=/w7+2",
        ] {
            assert!(text.parse::<Replay>().is_err(), "{text}");
        }
    }
}
