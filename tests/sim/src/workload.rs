//! What a guest does, on what kind of disk: both as values and as short text.
//!
//! The text forms are what a failure prints and `fvd-sim replay` takes. They are made for people
//! who shorten them by hand: `w3+2` writes two sectors at sector 3.

use core::fmt;
use core::str::FromStr;

/// One step of a guest, or of the person who runs its disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GuestOp {
    /// `w3+2`: writes new values.
    Write(Range),
    /// `W3+2`: the same with FUA.
    WriteFua(Range),
    /// `z3+2`: write-zeroes.
    Zero(Range),
    /// `d3+2`: discard.
    Discard(Range),
    /// `r3+2`: read, checked on completion.
    Read(Range),
    /// `f`: flush.
    Flush,
    /// `k`: asks for a checkpoint; `k3` lets only three device operations of it complete first.
    Checkpoint(Option<u16>),
    /// `t`: time passes, until the moment at which the disk wants to do something by itself.
    Wait,
    /// `o`: closes the disk properly and opens it again.
    Reopen,
    /// `x`: kills the process and opens the disk again; the device's cache survives.
    Kill,
}

/// Guest sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Range {
    /// First sector.
    pub first: u16,
    /// Sectors, at least 1.
    pub count: u16,
}

impl Range {
    /// A range of sectors.
    #[must_use]
    pub const fn new(first: u16, count: u16) -> Range {
        Range { first, count }
    }
}

impl GuestOp {
    /// Whether the step is one request, which may run beside others.
    #[must_use]
    pub fn is_request(self) -> bool {
        !matches!(
            self,
            GuestOp::Checkpoint(_) | GuestOp::Wait | GuestOp::Reopen | GuestOp::Kill
        )
    }

    /// The sectors that the step touches.
    #[must_use]
    pub fn range(self) -> Option<Range> {
        match self {
            GuestOp::Write(range)
            | GuestOp::WriteFua(range)
            | GuestOp::Zero(range)
            | GuestOp::Discard(range)
            | GuestOp::Read(range) => Some(range),
            _ => None,
        }
    }
}

impl fmt::Display for GuestOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let letter = match self {
            GuestOp::Write(_) => 'w',
            GuestOp::WriteFua(_) => 'W',
            GuestOp::Zero(_) => 'z',
            GuestOp::Discard(_) => 'd',
            GuestOp::Read(_) => 'r',
            GuestOp::Flush => return f.write_str("f"),
            GuestOp::Checkpoint(None) => return f.write_str("k"),
            GuestOp::Checkpoint(Some(steps)) => return write!(f, "k{steps}"),
            GuestOp::Wait => return f.write_str("t"),
            GuestOp::Reopen => return f.write_str("o"),
            GuestOp::Kill => return f.write_str("x"),
        };
        match self.range() {
            Some(Range { first, count: 1 }) => write!(f, "{letter}{first}"),
            Some(Range { first, count }) => write!(f, "{letter}{first}+{count}"),
            None => Ok(()),
        }
    }
}

impl FromStr for GuestOp {
    type Err = String;

    fn from_str(text: &str) -> Result<GuestOp, String> {
        let wrong = || format!("not a step: {text:?}");
        let mut letters = text.chars();
        let letter = letters.next().ok_or_else(wrong)?;
        let rest = letters.as_str();
        let number = |text: &str| text.parse::<u16>().map_err(|_| wrong());
        let range = || match rest.split_once('+') {
            Some((first, count)) => Ok(Range::new(number(first)?, number(count)?.max(1))),
            None => Ok::<_, String>(Range::new(number(rest)?, 1)),
        };
        Ok(match letter {
            'w' => GuestOp::Write(range()?),
            'W' => GuestOp::WriteFua(range()?),
            'z' => GuestOp::Zero(range()?),
            'd' => GuestOp::Discard(range()?),
            'r' => GuestOp::Read(range()?),
            'f' if rest.is_empty() => GuestOp::Flush,
            'k' if rest.is_empty() => GuestOp::Checkpoint(None),
            'k' => GuestOp::Checkpoint(Some(number(rest)?)),
            't' if rest.is_empty() => GuestOp::Wait,
            'o' if rest.is_empty() => GuestOp::Reopen,
            'x' if rest.is_empty() => GuestOp::Kill,
            _ => return Err(wrong()),
        })
    }
}

/// Steps separated by commas.
///
/// # Errors
/// Names the step that is none.
pub fn parse_ops(text: &str) -> Result<Vec<GuestOp>, String> {
    text.split(',')
        .filter(|step| !step.is_empty())
        .map(str::parse)
        .collect()
}

/// Steps separated by commas.
#[must_use]
pub fn show_ops(ops: &[GuestOp]) -> String {
    let steps: Vec<String> = ops.iter().map(GuestOp::to_string).collect();
    steps.join(",")
}

macro_rules! setup {
    ($($(#[$doc:meta])* $letter:literal $name:ident = $default:literal;)*) => {
        /// A kind of disk. Text form: a letter per field that differs from its default, with its
        /// number unless that is 1, such as `v16j8B12d`.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub struct Setup {
            $($(#[$doc])* pub $name: u32,)*
        }

        impl Default for Setup {
            fn default() -> Setup {
                Setup { $($name: $default,)* }
            }
        }

        impl Setup {
            fn field(&mut self, letter: char) -> Option<&mut u32> {
                match letter {
                    $($letter => Some(&mut self.$name),)*
                    _ => None,
                }
            }
        }

        impl fmt::Display for Setup {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                let mut plain = true;
                $(
                    if self.$name != $default {
                        plain = false;
                        match self.$name {
                            1 => write!(f, "{}", $letter)?,
                            number => write!(f, "{}{number}", $letter)?,
                        }
                    }
                )*
                if plain { f.write_str("-") } else { Ok(()) }
            }
        }
    };
}

setup! {
    /// Guest sectors.
    'v' guest_sectors = 16;
    /// Sectors in a copy-on-write block.
    'b' block_sectors = 2;
    /// Sectors in a chunk.
    'c' chunk_sectors = 4;
    /// The dialect: 0 for version 2, 1 for the written specification of 2011, 2 for the reference.
    'D' dialect = 0;
    /// Units of the journal.
    'j' journal_units = 8;
    /// 1 if there is a table, 0 for the raw-like layout.
    't' table = 1;
    /// Sectors of the base, 0 for none.
    'B' base_sectors = 0;
    /// 1 if metadata and data are on two devices.
    'd' two_devices = 0;
    /// 1 if the store was used before and holds secrets.
    'u' used = 0;
    /// Chunks in the store beyond what the guest needs.
    's' spare_chunks = 2;
    /// `n` if the store starts small and grows by `2 n` chunks at a time; from 5 on, the next growth
    /// begins before a write needs it.
    'g' growing = 0;
    /// 1 if the stores honour FUA.
    'F' fua = 0;
    /// 1 if the stores offer write-zeroes.
    'z' write_zeroes = 0;
    /// 1 if the stores offer discard, 2 if discarded ranges read zeros.
    'x' discard = 0;
    /// 1 if the stores have no volatile cache.
    'n' write_through = 0;
    /// `n + 1` if the engine may send a journal unit together with data (eager commit) after `n`
    /// flushes that covered one mapping each.
    'E' eager = 0;
    /// Sectors in an atomic unit of the stores: 1 or 8.
    'a' atomic_sectors = 1;
    /// Sectors in a logical block of the stores and the base: 1 or 8. The guest keeps to it.
    'L' logical_sectors = 1;
    /// Requests of the guest that the engine has room for.
    'Q' queue_depth = 8;
    /// Logarithm of where the journal's sequence numbers begin, less 3; 0 for a new disk.
    'S' sequence_log2 = 0;
    /// In a dialect of 2011: 1 if another writer left the disk unclean, with mappings that stand only
    /// in the journal; 2 if it holds a record too that can not be right.
    'U' unclean = 0;
    /// For engines to use: a variant of theirs.
    'V' variant = 0;
}

impl FromStr for Setup {
    type Err = String;

    fn from_str(text: &str) -> Result<Setup, String> {
        let mut setup = Setup::default();
        let mut rest = text.trim_start_matches('-');
        while let Some(letter) = rest.chars().next() {
            rest = &rest[letter.len_utf8()..];
            let digits = rest
                .find(|c: char| !c.is_ascii_digit())
                .unwrap_or(rest.len());
            let number = match &rest[..digits] {
                "" => 1,
                number => number
                    .parse()
                    .map_err(|_| format!("not a setup: {text:?}"))?,
            };
            rest = &rest[digits..];
            match setup.field(letter) {
                Some(field) => *field = number,
                None => return Err(format!("not a setup: {text:?} (letter {letter:?})")),
            }
        }
        Ok(setup)
    }
}

impl Setup {
    /// Whether the disk comes with something that an earlier writer wrote to a guest sector: to the
    /// first block and to the chunks behind the second.
    #[must_use]
    pub fn was_written(&self, sector: u32) -> bool {
        let later = 2..4;
        self.unclean != 0
            && (sector < self.block_sectors || later.contains(&(sector / self.chunk_sectors)))
    }
}

/// The alphabet of FAULTS 4.3 on a disk of this kind: one step for each way in which a request can
/// lie on blocks, chunks and the base. Blocks are whole numbers of logical blocks.
#[must_use]
pub fn alphabet(setup: &Setup) -> Vec<GuestOp> {
    let grain = setup.logical_sectors.max(1);
    let at = |first: u32, count: u32| {
        let first = (first * grain).min(setup.guest_sectors - grain);
        let count = (count * grain).min(setup.guest_sectors - first);
        Range::new(first as u16, count.max(grain) as u16)
    };
    let (block, chunk) = (setup.block_sectors / grain, setup.chunk_sectors / grain);
    vec![
        GuestOp::Write(at(0, 1)),             // part of a block
        GuestOp::Write(at(1, 1)),             // the same block (or the next)
        GuestOp::Write(at(block, block)),     // a whole block of the same chunk
        GuestOp::Write(at(chunk - 1, 2)),     // straddles two chunks
        GuestOp::Write(at(2 * chunk, chunk)), // a whole chunk
        GuestOp::Flush,
        GuestOp::Zero(at(0, block)),
        GuestOp::Discard(at(0, chunk)),
        GuestOp::Checkpoint(None),
        GuestOp::Reopen,
        GuestOp::Kill,
        GuestOp::WriteFua(at(chunk + 1, 1)),
    ]
}

/// Calls `visit` with every sequence of 1 to `length_max` steps, shorter ones first.
pub fn sequences(
    alphabet: &[GuestOp],
    length_max: usize,
    visit: &mut dyn FnMut(&[GuestOp]) -> core::ops::ControlFlow<()>,
) -> core::ops::ControlFlow<()> {
    for length in 1..=length_max {
        let mut digits = vec![0; length];
        loop {
            let steps: Vec<GuestOp> = digits
                .iter()
                .map(|digit: &usize| alphabet[*digit])
                .collect();
            visit(&steps)?;
            let Some(at) = digits.iter().rposition(|digit| digit + 1 < alphabet.len()) else {
                break;
            };
            digits[at] += 1;
            digits[at + 1..].fill(0);
        }
    }
    core::ops::ControlFlow::Continue(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::ops::ControlFlow;

    #[test]
    fn steps_read_back() {
        let text = "w3,W3+2,z0,d0+8,r1,f,k,k3,t,o,x";
        let steps = parse_ops(text).expect("legal");
        assert_eq!(show_ops(&steps), text);
        assert!(parse_ops("q").is_err() && parse_ops("f1").is_err() && parse_ops("w").is_err());
    }

    #[test]
    fn setups_read_back() {
        for text in ["-", "v8bc2", "t0B12", "dux2E"] {
            let setup: Setup = text.parse().expect("legal");
            assert_eq!(setup.to_string(), text);
        }
        assert!("q3".parse::<Setup>().is_err());
    }

    #[test]
    fn sequences_are_all_there_once() {
        let steps = alphabet(&Setup::default());
        let mut count = 0;
        let end = sequences(&steps, 3, &mut |_| {
            count += 1;
            ControlFlow::Continue(())
        });
        assert!(end.is_continue());
        let letters = steps.len();
        assert_eq!(count, letters + letters.pow(2) + letters.pow(3));
    }
}
