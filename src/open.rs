//! Opening an image, in two steps, since the memory it needs depends on it.
//!
//! ```text
//! Probe::new(stores, scratch memory) ── poll ──► Layout ── arena_bytes() ──►
//! Opening::new(stores, layout, arena memory) ── poll ──► Disk
//! ```
//!
//! Opening is recovery: flush the metadata device, read everything, replay the journal, check, and
//! (unless read-only) write again what may read otherwise next time, flush, write the replayed pages,
//! flush, write a header that skips sequence numbers, flush. Nothing is written before every check
//! has passed, and nothing at all if one fails.

mod assemble;
mod error;
mod layout;
mod memory;
mod mend;
mod old;
mod options;
mod probe;
mod recovery;
mod rewrite;
mod survey;
mod verify;

pub use error::{GeometryProblem, OpenError};
pub use layout::Layout;
pub use memory::MemoryParts;
pub use options::OpenOptions;
pub use probe::{PROBE_ARENA_BYTES, Probe, ProbeFailure, Probed};
pub(crate) use recovery::OpenOp;
pub use recovery::{OpenFailure, Opening};
pub(crate) use survey::{Purpose, Survey};
