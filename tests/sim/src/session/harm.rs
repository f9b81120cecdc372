//! What injected faults have done to a session so far, and what they excuse.
//!
//! * **F1** After a flush or a metadata write has failed, no write and no flush is acknowledged, and
//!   neither opening nor closing reports success.
//! * **F2** Any other failed operation fails the one request that it was for, and nothing else.

use fvd::buffer::Head;
use fvd::device::{DeviceError, OpKind};

use super::{Outcomes, broken};
use crate::engine::METADATA;
use crate::sector::SECTOR;

/// Faults that have reached the engine in this session.
pub(crate) struct Harm {
    metadata_sectors: u32,
    /// A flush or a metadata write failed.
    fatal: bool,
    /// Reads of metadata that failed. Opening may read once more what it can do without.
    metadata_reads: u32,
    /// Other operations that failed, and requests that failed.
    operations: u32,
    requests: u32,
}

impl Harm {
    pub(super) fn new(metadata_sectors: u32) -> Harm {
        Harm {
            metadata_sectors,
            fatal: false,
            metadata_reads: 0,
            operations: 0,
            requests: 0,
        }
    }

    /// A new session begins.
    pub(super) fn forget(&mut self) {
        *self = Harm::new(self.metadata_sectors);
    }

    /// An operation comes back as failed.
    pub(super) fn note(&mut self, store: u8, head: &Head) {
        let first = head.offset / SECTOR as u64;
        let metadata = store == METADATA && first < u64::from(self.metadata_sectors);
        match head.kind {
            OpKind::Flush => self.fatal = true,
            OpKind::Write | OpKind::WriteZeroes if metadata => self.fatal = true,
            OpKind::Read if metadata => self.metadata_reads += 1,
            // Whoever waits for the space is told that there is none.
            OpKind::Grow => {}
            _ => self.operations += 1,
        }
    }

    /// Opening has succeeded.
    pub(super) fn opened(&self) -> Outcomes {
        if self.fatal || self.operations > 0 {
            return Err(broken("F1", "opened in spite of a failure"));
        }
        Ok(())
    }

    /// A write, a flush or a close has succeeded.
    pub(super) fn acknowledge(&self, kind: OpKind) -> Outcomes {
        if self.fatal {
            let detail = format!("{kind:?} acknowledged after a failed flush or metadata write");
            return Err(broken("F1", detail));
        }
        Ok(())
    }

    /// Whether opening, or closing, may fail.
    pub(super) fn excuses_end(&self, opened: bool) -> bool {
        self.fatal || (!opened && self.metadata_reads + self.operations > 0)
    }

    /// A request has failed, perhaps one that had to be durable on completion.
    pub(super) fn excuse(&mut self, kind: OpKind, durable: bool, error: DeviceError) -> Outcomes {
        let excused = match error {
            DeviceError::Io if self.requests < self.operations => {
                self.requests += 1;
                true
            }
            // Its own flush failed.
            DeviceError::Io => self.fatal && durable,
            DeviceError::Poisoned => self.fatal && kind != OpKind::Read,
            _ => false,
        };
        if excused {
            return Ok(());
        }
        Err(broken("F2", format!("{kind:?} ended {error:?}")))
    }

    /// No request is in flight.
    pub(super) fn settle(&self) -> Outcomes {
        // Once a fatal one has struck, whatever ends badly may be answered `Poisoned`.
        if self.operations > 0 && self.requests == 0 && !self.fatal {
            return Err(broken("F2", "a failed operation failed no request"));
        }
        Ok(())
    }
}
