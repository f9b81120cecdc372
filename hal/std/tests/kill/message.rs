//! What the child says, one line each.

use core::fmt;
use core::str::FromStr;

/// What a request does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Write,
    /// A write that is durable when it is done.
    FuaWrite,
    Zeroes,
    Discard,
    Flush,
}

const KINDS: [(Kind, &str); 5] = [
    (Kind::Write, "write"),
    (Kind::FuaWrite, "fua-write"),
    (Kind::Zeroes, "zeroes"),
    (Kind::Discard, "discard"),
    (Kind::Flush, "flush"),
];

/// One request; a flush has no sectors.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    pub kind: Kind,
    pub sector: u32,
    pub count: u32,
}

/// What the child's session did so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    pub commits: u64,
    pub checkpoints: u64,
    pub growths: u64,
    pub fills: u64,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// The image is about to be opened, and recovered.
    Opening,
    Open,
    /// Request `id` is about to be submitted.
    Submit(u32, Request),
    /// Request `id` has completed.
    Done(u32),
    /// The image is about to be closed; nothing is in flight.
    Closing,
    Closed,
    Tally(Tally),
    /// Something went wrong that must not.
    Failed(String),
}

impl fmt::Display for Message {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Message::Opening => f.write_str("opening"),
            Message::Open => f.write_str("open"),
            Message::Submit(id, request) => {
                let named = KINDS.iter().find(|(kind, _)| *kind == request.kind);
                let name = named.map_or("", |(_, name)| name);
                write!(f, "submit {id} {name} {} {}", request.sector, request.count)
            }
            Message::Done(id) => write!(f, "done {id}"),
            Message::Closing => f.write_str("closing"),
            Message::Closed => f.write_str("closed"),
            Message::Tally(tally) => write!(
                f,
                "tally {} {} {} {}",
                tally.commits, tally.checkpoints, tally.growths, tally.fills
            ),
            Message::Failed(what) => write!(f, "failed {}", what.replace('\n', " ")),
        }
    }
}

impl FromStr for Message {
    type Err = String;

    fn from_str(line: &str) -> Result<Message, String> {
        parse(line).ok_or_else(|| format!("the child says `{line}`"))
    }
}

fn parse(line: &str) -> Option<Message> {
    let (word, rest) = line.split_once(' ').unwrap_or((line, ""));
    let mut words = rest.split(' ');
    let message = match word {
        "opening" => Message::Opening,
        "open" => Message::Open,
        "submit" => {
            let id = words.next()?.parse().ok()?;
            let name = words.next()?;
            let (kind, _) = *KINDS.iter().find(|(_, known)| *known == name)?;
            let (sector, count) = (words.next()?.parse().ok()?, words.next()?.parse().ok()?);
            let request = Request {
                kind,
                sector,
                count,
            };
            Message::Submit(id, request)
        }
        "done" => Message::Done(words.next()?.parse().ok()?),
        "closing" => Message::Closing,
        "closed" => Message::Closed,
        "tally" => {
            let mut number = || words.next()?.parse().ok();
            Message::Tally(Tally {
                commits: number()?,
                checkpoints: number()?,
                growths: number()?,
                fills: number()?,
            })
        }
        "failed" => Message::Failed(rest.into()),
        _ => return None,
    };
    Some(message)
}
