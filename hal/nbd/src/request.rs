//! The requests of a client, distrusted.

use crate::export::Export;
use crate::handshake::Agreed;
use crate::reply::Errno;
use crate::wire::{Fields, REQUEST_MAGIC, command};

/// Bytes of a request, without the data of a write.
pub const REQUEST_BYTES: usize = 28;

/// What a client wants done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Read the range.
    Read,
    /// Write the data that follow; if `fua`, they are durable when it is answered.
    Write {
        /// Durable before the answer.
        fua: bool,
    },
    /// End the connection; there is no answer.
    Disconnect,
    /// Make every write that was answered durable, whichever connection it came by.
    Flush,
    /// The content of the range is no longer needed.
    Trim {
        /// Durable before the answer.
        fua: bool,
    },
    /// The range will be read soon.
    Cache,
    /// The range shall read zeros.
    WriteZeroes {
        /// Durable before the answer.
        fua: bool,
        /// Storage stays set aside for it.
        no_hole: bool,
    },
    /// Which parts of the range are there.
    BlockStatus {
        /// One extent is enough.
        one: bool,
    },
}

/// A legal request: its range lies inside the export and is aligned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Request {
    /// What to do.
    pub command: Command,
    /// What the answer must carry.
    pub cookie: u64,
    /// First byte of the range.
    pub offset: u64,
    /// Bytes of the range.
    pub len: u32,
}

/// A request that is answered with an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What the answer must carry.
    pub cookie: u64,
    /// What it is refused with.
    pub error: Errno,
    /// Bytes of data that follow and must be skipped.
    pub payload_bytes: u32,
    /// Whether the answer must be structured: it was a read or a block status.
    pub structured: bool,
}

/// Why a request can not be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RequestError {
    /// Answer with an error and go on.
    Refused(Refusal),
    /// The bytes are no request: nothing that follows can be understood. End the connection.
    Magic(u32),
    /// A write announces more data than anybody should have to skip. End the connection.
    Oversized(u32),
}

/// A write that is refused may carry this much; its data are skipped.
const SKIP_BYTES_MAX: u32 = 256 << 20;

impl Request {
    /// Takes a request apart and checks it against the export.
    ///
    /// # Errors
    /// See [`RequestError`]. The error of a refusal is the one that the protocol asks for: `Perm` for
    /// changes to a read-only export, `NoSpc` for writes and `Inval` for reads beyond the end, `Inval`
    /// for unknown commands, flags that do not belong to the command, empty or misaligned ranges and
    /// more data than the export takes.
    pub fn parse(
        bytes: &[u8; REQUEST_BYTES],
        export: &Export<'_>,
        agreed: &Agreed,
    ) -> Result<Request, RequestError> {
        let raw = Raw::read(bytes).ok_or(RequestError::Magic(0))?;
        if raw.magic != REQUEST_MAGIC {
            return Err(RequestError::Magic(raw.magic));
        }
        let payload_bytes = if raw.kind == command::WRITE {
            raw.len
        } else {
            0
        };
        if payload_bytes > SKIP_BYTES_MAX {
            return Err(RequestError::Oversized(payload_bytes));
        }
        let asks = matches!(raw.kind, command::READ | command::BLOCK_STATUS);
        let refused = |error| {
            RequestError::Refused(Refusal {
                cookie: raw.cookie,
                error,
                payload_bytes,
                structured: agreed.structured && asks,
            })
        };
        let command = raw.command(agreed).map_err(refused)?;
        raw.check_range(command, export).map_err(refused)?;
        Ok(Request {
            command,
            cookie: raw.cookie,
            offset: raw.offset,
            len: raw.len,
        })
    }
}

/// A request as it came.
struct Raw {
    magic: u32,
    flags: u16,
    kind: u16,
    cookie: u64,
    offset: u64,
    len: u32,
}

impl Raw {
    fn read(bytes: &[u8]) -> Option<Raw> {
        let mut fields = Fields(bytes);
        Some(Raw {
            magic: fields.u32()?,
            flags: fields.u16()?,
            kind: fields.u16()?,
            cookie: fields.u64()?,
            offset: fields.u64()?,
            len: fields.u32()?,
        })
    }

    fn command(&self, agreed: &Agreed) -> Result<Command, Errno> {
        let fua = self.flags & command::FLAG_FUA != 0;
        let (command, flags) = match self.kind {
            // "Don't fragment" asks for what is done anyway: one chunk per read.
            command::READ if agreed.structured => {
                (Command::Read, command::FLAG_DF | command::FLAG_FUA)
            }
            command::READ => (Command::Read, command::FLAG_FUA),
            command::WRITE => (Command::Write { fua }, command::FLAG_FUA),
            command::DISC => (Command::Disconnect, 0),
            command::FLUSH => (Command::Flush, command::FLAG_FUA),
            command::TRIM => (Command::Trim { fua }, command::FLAG_FUA),
            command::CACHE => (Command::Cache, command::FLAG_FUA),
            command::WRITE_ZEROES => {
                let no_hole = self.flags & command::FLAG_NO_HOLE != 0;
                let known = command::FLAG_FUA | command::FLAG_NO_HOLE;
                (Command::WriteZeroes { fua, no_hole }, known)
            }
            command::BLOCK_STATUS if agreed.block_status => {
                let one = self.flags & command::FLAG_REQ_ONE != 0;
                let known = command::FLAG_REQ_ONE | command::FLAG_FUA;
                (Command::BlockStatus { one }, known)
            }
            _ => return Err(Errno::Inval),
        };
        if self.flags & !flags != 0 {
            return Err(Errno::Inval);
        }
        Ok(command)
    }

    fn check_range(&self, command: Command, export: &Export<'_>) -> Result<(), Errno> {
        let (changes, carries) = match command {
            Command::Disconnect => return Ok(()),
            Command::Flush => {
                let empty = self.offset == 0 && self.len == 0;
                return if empty { Ok(()) } else { Err(Errno::Inval) };
            }
            Command::Read => (false, true),
            Command::Cache | Command::BlockStatus { .. } => (false, false),
            Command::Write { .. } => (true, true),
            Command::Trim { .. } | Command::WriteZeroes { .. } => (true, false),
        };
        if changes && export.read_only {
            return Err(Errno::Perm);
        }
        if matches!(command, Command::Trim { .. }) && !export.trim {
            return Err(Errno::NotSup);
        }
        let mask = u64::from(export.block_bytes_min).wrapping_sub(1);
        let aligned = (self.offset | u64::from(self.len)) & mask == 0;
        if self.len == 0 || !aligned || (carries && self.len > export.payload_bytes_max) {
            return Err(Errno::Inval);
        }
        let inside = self
            .offset
            .checked_add(u64::from(self.len))
            .is_some_and(|end| end <= export.size_bytes);
        match (inside, changes) {
            (true, _) => Ok(()),
            (false, true) => Err(Errno::NoSpc),
            (false, false) => Err(Errno::Inval),
        }
    }
}
