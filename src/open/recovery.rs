//! Second step of opening: recovery.

use core::mem::MaybeUninit;
use core::task::Poll;

use crate::buffer::{Arena, Head, Op};
use crate::device::{BlockDevice, DeviceError, OpFlags, OpKind, Status, When};
use crate::engine::{Disk, Tag, Work};
use crate::format::page::{CHECKSUM_BYTES, PageKind};
use crate::format::{PAGE_BYTES, Region, SLOT_BYTES};
use crate::journal::replay::Replay;
use crate::seeded::{Bug, bug};
use crate::stores::{Role, Stores};
use crate::units::Instant;

use super::assemble::assemble;
use super::error::OpenError;
use super::layout::Layout;
use super::old::{MarkStep, OldReplay};
use super::rewrite::Rewrite;
use super::survey::{JournalFaults, Purpose};

/// What opening does next. Each step has at most one operation in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// What this session reads may be only in a cache that a later power loss empties.
    Flush,
    /// Likewise the size of a data device of its own, which the header may be about to name.
    DataFlush,
    /// The lookup table, from this byte.
    Table(u64),
    /// The base bitmap, from this byte.
    Bitmap(u64),
    /// The checksum array that holds, from this byte.
    Sums(u64),
    /// The journal; units read so far.
    Journal(u64),
    /// A part of the journal was unreadable: does the device read anything?
    Control,
    /// Everything is in memory: check it.
    Verify,
    /// What was read is written again.
    Rewrite(Rewrite),
    /// Pages and header are being written.
    Settle,
    /// Of an old dialect: the store is being extended to the end of the disk.
    Extended,
    /// Of an old dialect: the journal is being erased up to this byte.
    Erase(u64),
    /// Of an old dialect: the header is being marked.
    Mark(MarkStep),
    /// Open.
    Ready,
}

/// The outcome of the operation in flight, kept until the step looks at it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct OpenOp {
    in_flight: bool,
    failed: Option<(Role, DeviceError)>,
}

impl OpenOp {
    pub(crate) const NONE: OpenOp = OpenOp {
        in_flight: false,
        failed: None,
    };

    /// Ends the opening with an error of the metadata device.
    pub(crate) fn fail(&mut self, error: DeviceError) {
        self.failed = Some((Role::Metadata, error));
    }
}

/// What is being opened, or what is left where that can not even begin.
#[allow(clippy::large_enum_variant)] // there is one, and it is the disk itself
pub(super) enum Body<S: Stores> {
    Disk(Disk<S>),
    Unused(S, Option<&'static mut [MaybeUninit<u8>]>),
}

/// An image that is being opened: poll it until it is ready.
pub struct Opening<S: Stores> {
    pub(super) body: Body<S>,
    error: Option<OpenError>,
    pub(super) step: Step,
    pub(super) replay: Replay,
    /// Bytes of the region that the operation in flight reads, and where they go.
    pub(super) reading: u64,
    pub(super) purpose: Purpose,
    /// What is wrong with the journal of an image that is only looked at.
    pub(super) faults: JournalFaults,
    /// Journal units below this are read one by one, since some of them can not be read.
    singly: u64,
    /// Some unit could not be read.
    unreadable: bool,
    /// See [`Layout`].
    pub(super) doubtful_slot: Option<u32>,
    pub(super) old: OldReplay,
}

/// An image that could not be opened.
pub struct OpenFailure<S> {
    /// The devices.
    pub stores: S,
    /// The arena's memory; `None` if a device kept a part of it.
    pub memory: Option<&'static mut [MaybeUninit<u8>]>,
    /// Why.
    pub error: OpenError,
}

impl<S: Stores> Opening<S> {
    /// Starts opening with [`Layout::arena_bytes`] of memory, aligned to 4096. More is not used.
    pub fn new(stores: S, layout: Layout, memory: &'static mut [MaybeUninit<u8>]) -> Opening<S> {
        let (needed, given) = (layout.arena_bytes(), memory.len());
        let replay = Replay::new(&layout.header);
        let begin = |body, step, error| Opening {
            body,
            error,
            step,
            replay,
            old: OldReplay::default(),
            reading: 0,
            purpose: layout.purpose,
            faults: JournalFaults::default(),
            singly: 0,
            unreadable: false,
            doubtful_slot: layout.doubtful_slot,
        };
        let failed =
            |stores, memory, error| begin(Body::Unused(stores, memory), Step::Ready, Some(error));
        if given < needed {
            return failed(
                stores,
                Some(memory),
                OpenError::ArenaTooSmall { needed, given },
            );
        }
        let arena = match Arena::new(memory) {
            Ok(arena) => arena,
            Err(memory) => return failed(stores, Some(memory), OpenError::ArenaMisaligned),
        };
        match assemble(stores, &layout, arena) {
            Ok(disk) => begin(Body::Disk(disk), Step::Flush, None),
            // Unreachable while the formula is exact, which a test pins.
            Err(stores) => failed(stores, None, OpenError::ArenaTooSmall { needed, given }),
        }
    }

    /// Moves the opening on. Ready when [`Opening::finish`] can be called.
    pub fn poll(&mut self, now: Instant) -> Poll<()> {
        let Body::Disk(disk) = &mut self.body else {
            return Poll::Ready(());
        };
        disk.run(now);
        // Each turn starts an operation or goes to the next step.
        for _ in 0..12 {
            let Body::Disk(disk) = &mut self.body else {
                break;
            };
            if disk.open_op.in_flight {
                return Poll::Pending;
            }
            if self.error.is_some() {
                return Poll::Ready(());
            }
            // Also after the last step, which may have been a flush.
            if let Some((role, error)) = disk.open_op.failed.take()
                && !self.skip_unreadable(error)
            {
                self.error = Some(OpenError::Device { role, error });
                return Poll::Ready(());
            }
            if self.step == Step::Ready {
                return Poll::Ready(());
            }
            if let Err(error) = self.advance() {
                self.error = Some(error);
            }
        }
        if let Body::Disk(disk) = &mut self.body {
            disk.notify();
        }
        Poll::Pending
    }

    fn advance(&mut self) -> Result<(), OpenError> {
        let Body::Disk(disk) = &mut self.body else {
            return Ok(());
        };
        let header = disk.journal.header;
        match self.step {
            Step::Flush => {
                self.step = Step::DataFlush;
                if !disk.options.read_only && !bug(Bug::RecoveryWithoutFirstFlush) {
                    disk.open_send(Role::Metadata, OpKind::Flush, 0, 0);
                }
            }
            Step::DataFlush => {
                self.step = Step::Table(0);
                let own = !S::SHARED && disk.map.has_table && !bug(Bug::RecoveryDataNotFlushed);
                if !disk.options.read_only && own {
                    disk.open_send(Role::Data, OpKind::Flush, 0, 0);
                }
            }
            Step::Table(done) => self.read_pages(header.core.table, done, PageKind::Table),
            Step::Bitmap(done) => self.read_pages(header.core.bitmap, done, PageKind::Bitmap),
            Step::Sums(done) => {
                self.read_sums(header.checksum_region(header.checksum_active), done)
            }
            Step::Journal(done) if header.dialect.is_old() => self.read_old_journal(done),
            Step::Journal(done) => self.read_journal(done)?,
            Step::Verify if header.dialect.is_old() => self.verify_old()?,
            Step::Control => self.step = Step::Verify,
            Step::Verify => self.verify()?,
            Step::Rewrite(state) => self.rewrite(state),
            Step::Extended => self.write_back_old()?,
            Step::Erase(done) => self.erase_old_journal(done),
            Step::Mark(step) => self.mark_clean(step),
            Step::Settle => {
                if disk.journal.poisoned {
                    return Err(OpenError::Device {
                        role: Role::Metadata,
                        error: DeviceError::Poisoned,
                    });
                }
                if disk.journal.checkpoint.is_idle() {
                    self.step = if header.dialect.is_old() {
                        Step::Erase(0)
                    } else {
                        Step::Ready
                    };
                }
            }
            Step::Ready => {}
        }
        Ok(())
    }

    /// Whether the device's error hides no more than a part of the journal: that is then read unit by
    /// unit, and a unit that can not be read by itself either counts as one that was never written.
    /// Sectors of 2011 are not numbered, so that nothing would tell if such a one was needed.
    fn skip_unreadable(&mut self, error: DeviceError) -> bool {
        let (Step::Journal(done), Body::Disk(disk)) = (self.step, &self.body) else {
            return false;
        };
        if disk.journal.header.dialect.is_old()
            || !matches!(error, DeviceError::Io | DeviceError::Unreadable)
            || bug(Bug::UnreadableUnitFails)
        {
            return false;
        }
        let unit_bytes = u64::from(disk.journal.unit_bytes).max(1);
        let units = core::mem::take(&mut self.reading) / unit_bytes;
        if done >= self.singly {
            self.singly = done + units;
        } else {
            self.replay.take_unreadable();
            self.unreadable = true;
            self.step = Step::Journal(done + 1);
        }
        true
    }

    /// Reads the next part of table or bitmap; what the last operation read is stored first.
    fn read_pages(&mut self, region: Region, done: u64, kind: PageKind) {
        let Body::Disk(disk) = &mut self.body else {
            return;
        };
        let table_bytes = disk.map.counts.table_pages as usize * PAGE_BYTES;
        let start = if kind == PageKind::Table {
            0
        } else {
            table_bytes
        };
        let (have, map) = (self.reading, &mut disk.map);
        if have != 0 {
            let from = start + done as usize;
            if let Some(target) = map.pages.get_mut(from..from + have as usize) {
                disk.journal.page_memory.copy_out(0, target);
            }
        }
        let done = done + core::mem::take(&mut self.reading);
        if done < region.bytes {
            self.reading = disk.open_read(region.offset + done, region.bytes - done);
        }
        let over = done >= region.bytes;
        self.step = match (kind, over) {
            (PageKind::Table, false) => Step::Table(done),
            (PageKind::Table, true) => Step::Bitmap(0),
            (PageKind::Bitmap, false) => Step::Bitmap(done),
            (PageKind::Bitmap, true) => Step::Sums(0),
        };
    }

    fn read_sums(&mut self, region: Region, done: u64) {
        let Body::Disk(disk) = &mut self.body else {
            return;
        };
        let have = core::mem::take(&mut self.reading);
        if have != 0
            && let Some(target) = disk.map.sums.get_mut(done as usize..(done + have) as usize)
        {
            disk.journal.page_memory.copy_out(0, target);
        }
        let done = done + have;
        if done < region.bytes {
            self.reading = disk.open_read(region.offset + done, region.bytes - done);
            self.step = Step::Sums(done);
        } else {
            // What is behind the last checksum means nothing, and is written as zeros.
            let used = disk.map.counts.total() as usize * CHECKSUM_BYTES as usize;
            disk.map.sums.get_mut(used..).unwrap_or(&mut []).fill(0);
            self.step = Step::Journal(0);
        }
    }

    /// Takes the units that the last operation read and reads the next ones, in the order of
    /// sequence numbers: from the slot of `stable_seq` to the end, then from 0.
    fn read_journal(&mut self, done: u64) -> Result<(), OpenError> {
        let Body::Disk(disk) = &mut self.body else {
            return Ok(());
        };
        let (units, unit_bytes) = (disk.journal.units, u64::from(disk.journal.unit_bytes));
        let first = self.replay.first_slot();
        let have = core::mem::take(&mut self.reading) / unit_bytes.max(1);
        let header = disk.journal.header;
        for index in 0..have {
            let at = first + done + index;
            let slot = if at >= units { at - units } else { at };
            let journal = &mut disk.journal;
            let Some(unit) = journal.page.get_mut(..unit_bytes as usize) else {
                break;
            };
            journal.page_memory.copy_out(index * unit_bytes, unit);
            let (page, aside) = (&mut journal.page, &mut journal.commit_memory);
            let taken = self
                .replay
                .take_unit(slot, page, aside, &mut disk.map, &header);
            match taken {
                Err(error) if self.purpose == Purpose::Inspect => {
                    self.replay.stop();
                    self.faults.note(Some(slot), error);
                }
                result => result?,
            }
        }
        let done = done + have;
        if done >= units {
            self.step = Step::Verify;
            if self.unreadable {
                self.step = Step::Control;
                disk.open_read(disk.journal.slot.offset(), SLOT_BYTES as u64);
            }
            return Ok(());
        }
        let at = first + done;
        let (slot, run) = if at < units {
            (at, units - at)
        } else {
            (at - units, units - done)
        };
        let run = if done < self.singly { 1 } else { run };
        let offset = header.core.journal.offset + slot * unit_bytes;
        self.reading = disk.open_read(offset, run * unit_bytes);
        self.step = Step::Journal(done);
        Ok(())
    }

    /// When to poll next.
    pub fn poll_at(&self) -> When {
        match &self.body {
            Body::Disk(disk) if self.error.is_none() && self.step != Step::Ready => disk.poll_at(),
            _ => When::Now,
        }
    }

    /// The open disk.
    ///
    /// # Errors
    /// Why the image can not be opened, with devices and memory. Before [`Opening::poll`] was ready,
    /// an operation in flight counts as failed and the memory as lost; those that the device was too
    /// busy to take are taken back.
    pub fn finish(self) -> Result<Disk<S>, OpenFailure<S>> {
        let not_ready = OpenError::Device {
            role: Role::Metadata,
            error: DeviceError::Cancelled,
        };
        let (stores, memory) = match self.body {
            Body::Disk(disk) if self.step == Step::Ready && self.error.is_none() => {
                return Ok(disk);
            }
            Body::Disk(disk) => disk.dismantle_unopened(),
            Body::Unused(stores, memory) => (stores, memory),
        };
        let error = self.error.unwrap_or(not_ready);
        Err(OpenFailure {
            stores,
            memory,
            error,
        })
    }
}

impl<S: Stores> Disk<S> {
    /// Sends one operation of the opening, in page memory.
    pub(super) fn open_send(&mut self, role: Role, kind: OpKind, offset: u64, len: u64) {
        let head = Head {
            kind,
            flags: OpFlags::NONE,
            status: Status::Pending,
            offset,
            len,
            tag: Tag::open(role).word(),
        };
        let journal = &mut self.journal;
        let op = if matches!(kind, OpKind::Flush | OpKind::Grow) {
            journal.ops.take(head)
        } else {
            journal.page_memory.send(&mut journal.ops, head, len)
        };
        match op {
            Some(op) => {
                self.open_op.in_flight = true;
                self.send(role, op);
            }
            None => self.open_op.failed = Some((role, DeviceError::Protocol)),
        }
    }

    /// Reads up to `bytes` of metadata. Returns how many.
    pub(super) fn open_read(&mut self, offset: u64, bytes: u64) -> u64 {
        let len = bytes.min(self.journal.page_memory.bytes());
        self.open_send(Role::Metadata, OpKind::Read, offset, len);
        len
    }

    /// An operation of the opening came home.
    pub(crate) fn on_open_op(&mut self, op: Op) {
        let ignored = op.kind() == OpKind::Flush && bug(Bug::FailedRecoveryFlushIgnored);
        let result = op.status();
        let role = Tag::parse(op.tag()).map_or(Role::Metadata, |tag| tag.role);
        let journal = &mut self.journal;
        let home = if matches!(op.kind(), OpKind::Flush | OpKind::Grow) {
            journal.ops.put(op).is_ok()
        } else {
            journal.page_memory.receive(&mut journal.ops, op)
        };
        self.open_op.in_flight = false;
        self.open_op.failed = match result {
            Status::Done if home => None,
            Status::Failed(_) if ignored => None,
            Status::Failed(error) => Some((role, error)),
            Status::Done | Status::Pending => Some((role, DeviceError::Protocol)),
        };
        self.work.insert(Work::READY);
    }
}
