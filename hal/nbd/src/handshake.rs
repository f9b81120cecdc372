//! From the first byte to an agreed export.
//!
//! ```text
//! server: greeting          client: flags, then options          each option: one or more answers
//!         NBDMAGIC IHAVEOPT         IHAVEOPT number length data   ... GO -> INFO.. ACK, and requests begin
//! ```

use crate::export::{Export, NAME_BYTES_MAX};
use crate::reply::CONTEXT_ID;
use crate::wire::{
    Bytes, FIXED_NEWSTYLE, Fields, NO_ZEROES, OPTION_MAGIC, OPTION_REPLY_MAGIC, SERVER_MAGIC,
    answer, info, option,
};

/// Most bytes of an option's data that are looked at: two names of the greatest length, and room for
/// a client's list of queries. Longer ones are skipped and answered with an error.
pub const OPTION_BYTES_MAX: usize = 2 * NAME_BYTES_MAX + 1024;

/// Bytes before an option's data.
const OPTION_HEADER_BYTES: usize = 16;

/// Input that the caller must be able to hold: an option, whole.
pub const INPUT_BYTES_MAX: usize = OPTION_HEADER_BYTES + OPTION_BYTES_MAX;

/// Options that one connection may send. Far more than any client needs; a client that never comes
/// to the point is sent away.
const OPTIONS_MAX: u32 = 256;

/// The one metadata context that is served.
const CONTEXT: &[u8] = b"base:allocation";

/// What server and client agreed on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Agreed {
    /// Index of the export.
    pub export: usize,
    /// The client takes structured replies, and wants reads answered that way.
    pub structured: bool,
    /// The client may ask for block status (`base:allocation`).
    pub block_status: bool,
}

/// Where a handshake has got to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Progress {
    /// More input is needed.
    Pending,
    /// Requests follow.
    Agreed(Agreed),
    /// The client has said good-bye, or nothing that it says can be understood. End the connection
    /// when the output is sent.
    Ended(End),
}

/// How a handshake ended without an agreement.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The client aborted it.
    Aborted,
    /// An unknown flag of the client, which it must not send.
    Flags(u32),
    /// Something else than an option where an option was due.
    Magic(u64),
    /// `EXPORT_NAME` for an export that there is not; the protocol has no error answer for it.
    NoSuchExport,
    /// More than 256 options.
    TooMany,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    /// The client's flags.
    Flags,
    /// An option.
    Option,
    /// The rest of data that are too long to look at.
    Skipping { number: u32, left: u64 },
}

/// One client's handshake.
#[derive(Clone, Copy, Debug)]
pub struct Handshake {
    state: State,
    no_zeroes: bool,
    options: u32,
    agreed: Agreed,
}

impl Default for Handshake {
    fn default() -> Handshake {
        Handshake::new()
    }
}

/// Takes the bytes of an answer.
pub type Output<'a> = &'a mut dyn FnMut(&[u8]);

impl Handshake {
    /// Bytes to send before anything else.
    #[must_use]
    pub fn greeting() -> [u8; 18] {
        Bytes::new()
            .u64(SERVER_MAGIC)
            .u64(OPTION_MAGIC)
            .u16(FIXED_NEWSTYLE | NO_ZEROES)
            .whole()
    }

    /// A handshake whose greeting was sent.
    #[must_use]
    pub const fn new() -> Handshake {
        Handshake {
            state: State::Flags,
            no_zeroes: false,
            options: 0,
            agreed: Agreed {
                export: 0,
                structured: false,
                block_status: false,
            },
        }
    }

    /// Looks at input and answers it. Returns how many bytes of it were used up; keep the rest, which
    /// is never more than [`INPUT_BYTES_MAX`] while the answer is [`Progress::Pending`].
    pub fn advance(
        &mut self,
        input: &[u8],
        exports: &[Export<'_>],
        output: Output<'_>,
    ) -> (usize, Progress) {
        let mut rest = input;
        let progress = loop {
            let before = rest.len();
            match self.step(&mut rest, exports, output) {
                Some(progress) => break progress,
                None if rest.len() == before => break Progress::Pending,
                None => {}
            }
        };
        (input.len().saturating_sub(rest.len()), progress)
    }

    /// One message, if it is there. `None` to go on.
    fn step(
        &mut self,
        input: &mut &[u8],
        exports: &[Export<'_>],
        output: Output<'_>,
    ) -> Option<Progress> {
        match self.state {
            State::Flags => {
                let (field, rest) = input.split_first_chunk::<4>()?;
                *input = rest;
                let flags = u32::from_be_bytes(*field);
                let known = u32::from(FIXED_NEWSTYLE | NO_ZEROES);
                if flags & !known != 0 {
                    return Some(Progress::Ended(End::Flags(flags)));
                }
                self.no_zeroes = flags & u32::from(NO_ZEROES) != 0;
                self.state = State::Option;
                None
            }
            State::Option => self.option(input, exports, output),
            State::Skipping { number, left } => {
                let here = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
                *input = input.get(here..).unwrap_or(&[]);
                let left = left.saturating_sub(here as u64);
                self.state = if left == 0 {
                    reply(output, number, answer::ERR_TOO_BIG, &[]);
                    State::Option
                } else {
                    State::Skipping { number, left }
                };
                None
            }
        }
    }

    fn option(
        &mut self,
        input: &mut &[u8],
        exports: &[Export<'_>],
        output: Output<'_>,
    ) -> Option<Progress> {
        let mut fields = Fields(input);
        let (magic, number, len) = (fields.u64()?, fields.u32()?, fields.u32()?);
        if magic != OPTION_MAGIC {
            return Some(Progress::Ended(End::Magic(magic)));
        }
        self.options = self.options.saturating_add(1);
        if self.options > OPTIONS_MAX {
            return Some(Progress::Ended(End::TooMany));
        }
        let wanted = usize::try_from(len).unwrap_or(usize::MAX);
        if wanted > OPTION_BYTES_MAX {
            *input = fields.0;
            self.state = State::Skipping {
                number,
                left: u64::from(len),
            };
            return None;
        }
        let Some((data, rest)) = fields.0.split_at_checked(wanted) else {
            // Not whole yet: this look at it does not count.
            self.options = self.options.saturating_sub(1);
            return None;
        };
        *input = rest;
        match number {
            option::EXPORT_NAME => return Some(self.export_name(data, exports, output)),
            option::ABORT => {
                reply(output, number, answer::ACK, &[]);
                return Some(Progress::Ended(End::Aborted));
            }
            option::LIST => list(number, data, exports, output),
            option::INFO | option::GO => return self.info(number, data, exports, output),
            option::STRUCTURED_REPLY => {
                self.agreed.structured |= data.is_empty();
                let kind = if data.is_empty() {
                    answer::ACK
                } else {
                    answer::ERR_INVALID
                };
                reply(output, number, kind, &[]);
            }
            option::LIST_META_CONTEXT | option::SET_META_CONTEXT => {
                self.meta_context(number, data, exports, output);
            }
            _ => reply(output, number, answer::ERR_UNSUP, &[]),
        }
        None
    }

    /// The old way to choose an export: no errors, no details.
    fn export_name(&mut self, name: &[u8], exports: &[Export<'_>], output: Output<'_>) -> Progress {
        let Some((index, export)) = find(name, exports) else {
            return Progress::Ended(End::NoSuchExport);
        };
        let head: [u8; 10] = Bytes::new()
            .u64(export.size_bytes)
            .u16(export.flags())
            .whole();
        output(&head);
        if !self.no_zeroes {
            output(&[0; 124]);
        }
        self.choose(index);
        Progress::Agreed(self.agreed)
    }

    /// A context that was set for another export does not count.
    fn choose(&mut self, index: usize) {
        self.agreed.block_status &= self.agreed.export == index;
        self.agreed.export = index;
    }

    fn info(
        &mut self,
        number: u32,
        data: &[u8],
        exports: &[Export<'_>],
        output: Output<'_>,
    ) -> Option<Progress> {
        let Some((name, wanted)) = info_query(data) else {
            reply(output, number, answer::ERR_INVALID, &[]);
            return None;
        };
        let Some((index, export)) = find(name, exports) else {
            reply(output, number, answer::ERR_UNKNOWN, &[]);
            return None;
        };
        let size = Bytes::<12>::new()
            .u16(info::EXPORT)
            .u64(export.size_bytes)
            .u16(export.flags())
            .whole();
        reply(output, number, answer::INFO, &[&size]);
        // Sent also to those that did not ask: whoever knows the item is better off with it.
        let blocks = Bytes::<14>::new()
            .u16(info::BLOCK_SIZE)
            .u32(export.block_bytes_min)
            .u32(export.block_bytes_preferred)
            .u32(export.payload_bytes_max)
            .whole();
        reply(output, number, answer::INFO, &[&blocks]);
        // Each at most once, however often it was asked for.
        for (item, text) in [
            (info::NAME, export.name),
            (info::DESCRIPTION, export.description),
        ] {
            let item = item.to_be_bytes();
            if wanted.chunks_exact(2).any(|wanted| wanted == item) && !text.is_empty() {
                reply(output, number, answer::INFO, &[&item, text.as_bytes()]);
            }
        }
        reply(output, number, answer::ACK, &[]);
        if number != option::GO {
            return None;
        }
        self.choose(index);
        Some(Progress::Agreed(self.agreed))
    }

    fn meta_context(
        &mut self,
        number: u32,
        data: &[u8],
        exports: &[Export<'_>],
        output: Output<'_>,
    ) {
        let set = number == option::SET_META_CONTEXT;
        if set {
            self.agreed.block_status = false;
        }
        let Some((name, found)) = context_query(data, set).filter(|_| self.agreed.structured)
        else {
            return reply(output, number, answer::ERR_INVALID, &[]);
        };
        let Some((index, _)) = find(name, exports) else {
            return reply(output, number, answer::ERR_UNKNOWN, &[]);
        };
        if found {
            let id = if set { CONTEXT_ID } else { 0 };
            reply(
                output,
                number,
                answer::META_CONTEXT,
                &[&id.to_be_bytes(), CONTEXT],
            );
        }
        if set {
            self.agreed.block_status = found;
            self.agreed.export = index;
        }
        reply(output, number, answer::ACK, &[]);
    }
}

/// The export of that name; the first one for no name.
fn find<'e, 'n>(name: &[u8], exports: &'e [Export<'n>]) -> Option<(usize, &'e Export<'n>)> {
    let fits = |export: &&Export<'_>| name.is_empty() || export.name.as_bytes() == name;
    let index = exports.iter().position(|export| fits(&export))?;
    exports.get(index).map(|export| (index, export))
}

/// Name and list of items of `INFO` and `GO`.
fn info_query(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut fields = Fields(data);
    let name = fields.counted()?;
    let count = usize::from(fields.u16()?);
    let exact = fields.0.len() == count.checked_mul(2)?;
    (exact && name.len() <= NAME_BYTES_MAX).then_some((name, fields.0))
}

/// Export name of a context query, and whether it asks for the one context that there is.
fn context_query(data: &[u8], set: bool) -> Option<(&[u8], bool)> {
    let mut fields = Fields(data);
    let name = fields.counted()?;
    let count = fields.u32()?;
    let mut found = count == 0 && !set;
    for _ in 0..count {
        let query = fields.counted()?;
        found |= query == CONTEXT || (!set && query == b"base:");
    }
    (fields.is_empty() && name.len() <= NAME_BYTES_MAX).then_some((name, found))
}

fn list(number: u32, data: &[u8], exports: &[Export<'_>], output: Output<'_>) {
    if !data.is_empty() {
        return reply(output, number, answer::ERR_INVALID, &[]);
    }
    for export in exports {
        let len = (export.name.len() as u32).to_be_bytes();
        let parts: [&[u8]; 3] = [&len, export.name.as_bytes(), export.description.as_bytes()];
        reply(output, number, answer::SERVER, &parts);
    }
    reply(output, number, answer::ACK, &[]);
}

/// One answer to an option.
fn reply(output: Output<'_>, number: u32, kind: u32, parts: &[&[u8]]) {
    let len: usize = parts.iter().map(|part| part.len()).sum();
    let head: [u8; 20] = Bytes::new()
        .u64(OPTION_REPLY_MAGIC)
        .u32(number)
        .u32(kind)
        .u32(len as u32)
        .whole();
    output(&head);
    parts.iter().for_each(|part| output(part));
}
