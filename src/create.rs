//! Making a new image on devices.
//!
//! ```text
//! both slots zeroed -> flush -> table, bitmap, checksums -> flush -> header in slot 0 -> flush
//! ```
//!
//! In the dialects of 2011, whose journals prove nothing, the journal is zeroed as well. Their one
//! header is longer than what a device writes at once, so it is written without its magic first,
//! flushed, and becomes one by its first sector.
//!
//! The header comes last, so that a crash leaves either no image or a complete one. The journal is
//! not written: units of whatever was there before carry another image's id and do not count.

use core::mem::MaybeUninit;
use core::task::Poll;

use crate::buffer::{Arena, Head, Op, OpPool, Part};
use crate::device::{BlockDevice, DeviceError, OpKind, Status, When};
use crate::engine::{Staging, Tag};
use crate::format::old::OLD_HEADER_BYTES;
use crate::format::page::{ChecksumArray, PageKind, page_checksum};
use crate::format::{
    FormatError, HEADER_BYTES, Header, PAGE_BYTES, PAGE_BYTES_U64, Region, SLOT_BYTES,
};
use crate::stores::Role;
use crate::units::Instant;

/// Bytes written in one operation.
const STAGING_BYTES: usize = 64 << 10;

/// Bytes of memory that a [`Create`] needs, aligned to 4096.
pub const CREATE_ARENA_BYTES: usize = Arena::staging_bytes(OpPool::arena_bytes(2))
    + Arena::staging_bytes(STAGING_BYTES)
    + Arena::part_bytes::<u8>(OLD_HEADER_BYTES);

/// Why an image could not be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CreateError {
    /// The header is not one that could be opened.
    Format(FormatError),
    /// The metadata device failed. There is no image on it now.
    Device(DeviceError),
    /// The memory is too small or misaligned; see [`CREATE_ARENA_BYTES`].
    Memory,
}

impl core::fmt::Display for CreateError {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self {
            CreateError::Format(error) => error.fmt(f),
            CreateError::Device(error) => write!(f, "the metadata device failed: {error}"),
            CreateError::Memory => {
                write!(
                    f,
                    "creating needs {CREATE_ARENA_BYTES} bytes that start at a multiple of 4096"
                )
            }
        }
    }
}

impl core::error::Error for CreateError {}

/// What is written next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    Erase,
    EraseFlush,
    /// A kind of page, from this page on.
    Pages(PageKind, u32),
    /// The checksum array, from this byte on.
    Sums(u64),
    /// The journal of an old dialect, from this byte on.
    Journal(u64),
    PagesFlush,
    /// The header of an old dialect, but for its magic.
    OldHeader,
    OldHeaderFlush,
    Header,
    HeaderFlush,
    Ended,
}

struct Parts {
    arena: Arena,
    pool: OpPool,
    memory: Staging,
    page: Part<u8>,
}

/// A new image in the making: poll it until it is ready.
pub struct Create<D: BlockDevice> {
    device: D,
    header: Header,
    /// Whether the device reads zeros where it was never written, so that zeros need no write.
    zeroed: bool,
    parts: Option<Parts>,
    unused: Option<&'static mut [MaybeUninit<u8>]>,
    step: Step,
    parked: Option<Op>,
    in_flight: bool,
    error: Option<CreateError>,
}

/// What a creation leaves.
pub struct Created<D> {
    /// The metadata device.
    pub device: D,
    /// The memory that was lent; `None` if the device kept a part of it.
    pub memory: Option<&'static mut [MaybeUninit<u8>]>,
    /// Whether there is an image now.
    pub result: Result<(), CreateError>,
}

impl<D: BlockDevice> Create<D> {
    /// Starts to write the image that `header` describes (see [`crate::format::plan_layout`]) on its
    /// metadata device. `zeroed` promises that the device reads zeros everywhere, as a new file does.
    pub fn new(
        device: D,
        header: Header,
        zeroed: bool,
        memory: &'static mut [MaybeUninit<u8>],
    ) -> Create<D> {
        let mut create = Create {
            device,
            header,
            zeroed,
            parts: None,
            unused: None,
            step: Step::Erase,
            parked: None,
            in_flight: false,
            error: None,
        };
        let capacity = create.device.geometry().capacity_bytes;
        if let Err(error) = create.header.validate(capacity, None) {
            create.fail(CreateError::Format(error));
        }
        let mut arena = match Arena::new(memory) {
            Ok(arena) if arena.remaining() >= CREATE_ARENA_BYTES => arena,
            Ok(arena) => {
                create.unused = arena.finish().ok();
                create.fail(CreateError::Memory);
                return create;
            }
            Err(memory) => {
                create.unused = Some(memory);
                create.fail(CreateError::Memory);
                return create;
            }
        };
        create.parts = (|| {
            let mut pool = OpPool::carve(&mut arena, 2)?;
            arena.align_staging()?;
            let memory = Staging::carve(&mut arena, &mut pool, STAGING_BYTES as u32)?;
            let page = arena.carve(OLD_HEADER_BYTES, 0u8)?;
            Some(Parts {
                arena,
                pool,
                memory,
                page,
            })
        })();
        create
    }

    fn fail(&mut self, error: CreateError) {
        self.error = self.error.or(Some(error));
        self.step = Step::Ended;
    }

    /// Moves the creation on. Ready when [`Create::finish`] can be called.
    pub fn poll(&mut self, now: Instant) -> Poll<()> {
        if let Some(op) = self.device.poll(now) {
            self.on_op(op);
        }
        if let Some(op) = self.parked.take() {
            self.submit(op);
        }
        // Each turn starts an operation or goes to the next step.
        for _ in 0..8 {
            if self.in_flight {
                return Poll::Pending;
            }
            if self.step == Step::Ended {
                return Poll::Ready(());
            }
            self.advance();
        }
        Poll::Pending
    }

    /// When to poll next.
    pub fn poll_at(&self) -> When {
        if self.in_flight {
            self.device.poll_at()
        } else {
            When::Now
        }
    }

    fn advance(&mut self) {
        match self.step {
            Step::Erase => {
                self.step = Step::EraseFlush;
                if !self.zeroed {
                    self.fill(0, HEADER_BYTES, 0);
                }
            }
            Step::EraseFlush => {
                self.step = Step::Pages(PageKind::Table, 0);
                if !self.zeroed {
                    self.send(OpKind::Flush, 0, 0);
                }
            }
            Step::Pages(kind, done) => self.write_pages(kind, done),
            Step::Sums(done) => self.write_sums(done),
            Step::Journal(done) => self.zero_journal(done),
            Step::PagesFlush => {
                self.step = if self.header.dialect.is_old() {
                    Step::OldHeader
                } else {
                    Step::Header
                };
                self.send(OpKind::Flush, 0, 0);
            }
            Step::OldHeader => {
                self.step = Step::OldHeaderFlush;
                self.write_old_header(false);
            }
            Step::OldHeaderFlush => {
                self.step = Step::Header;
                self.send(OpKind::Flush, 0, 0);
            }
            Step::Header if self.header.dialect.is_old() => {
                self.step = Step::HeaderFlush;
                self.write_old_header(true);
            }
            Step::Header => {
                self.step = Step::HeaderFlush;
                self.write_header();
            }
            Step::HeaderFlush => {
                self.step = Step::Ended;
                self.send(OpKind::Flush, 0, 0);
            }
            Step::Ended => {}
        }
    }

    /// Pages of a new table are all ones, those of a new bitmap all zeros.
    fn write_pages(&mut self, kind: PageKind, done: u32) {
        let (region, byte) = match kind {
            PageKind::Table => (self.header.core.table, 0xFF),
            PageKind::Bitmap => (self.header.core.bitmap, 0),
        };
        let left = region.pages().saturating_sub(done);
        if left == 0 || (byte == 0 && self.zeroed) {
            self.step = match kind {
                PageKind::Table => Step::Pages(PageKind::Bitmap, 0),
                PageKind::Bitmap => Step::Sums(0),
            };
            return;
        }
        let count = left.min((STAGING_BYTES / PAGE_BYTES) as u32);
        self.step = Step::Pages(kind, done + count);
        let offset = region.offset + u64::from(done) * PAGE_BYTES_U64;
        self.fill(offset, u64::from(count) * PAGE_BYTES_U64, byte);
    }

    fn write_sums(&mut self, done: u64) {
        let region: Region = self.header.checksum_region(ChecksumArray::A);
        if done >= region.bytes {
            self.step = Step::Journal(0);
            return;
        }
        let len = (region.bytes - done).min(STAGING_BYTES as u64);
        self.step = Step::Sums(done + len);
        let counts = self.header.page_counts();
        let Some(parts) = &mut self.parts else { return };
        let Some(page) = parts.page.first_chunk_mut::<PAGE_BYTES>() else {
            return;
        };
        for index in 0..len / 4 {
            let number = u32::try_from(done / 4 + index).unwrap_or(u32::MAX);
            let sum = match counts.locate(number) {
                Some((kind, _)) if number < counts.total() => {
                    page.fill(if kind == PageKind::Table { 0xFF } else { 0 });
                    page_checksum(&self.header.image_id, number, page)
                }
                _ => 0,
            };
            parts.memory.copy_in(index * 4, &sum.to_le_bytes());
        }
        self.send(OpKind::Write, region.offset + done, len);
    }

    /// Version 2 leaves the journal as it is.
    fn zero_journal(&mut self, done: u64) {
        let region = self.header.core.journal;
        if !self.header.dialect.is_old() || self.zeroed || done >= region.bytes {
            self.step = Step::PagesFlush;
            return;
        }
        let len = (region.bytes - done).min(STAGING_BYTES as u64);
        self.step = Step::Journal(done + len);
        self.fill(region.offset + done, len, 0);
    }

    /// Writes the header of an old dialect: all of it without the magic, or its first page with it.
    fn write_old_header(&mut self, magic: bool) {
        let header = self.header;
        let Some(parts) = &mut self.parts else { return };
        let Some(bytes) = parts.page.first_chunk_mut::<OLD_HEADER_BYTES>() else {
            return;
        };
        if let Err(error) = header.encode_old(bytes) {
            return self.fail(CreateError::Format(error));
        }
        if !magic && let Some(start) = bytes.first_chunk_mut::<4>() {
            *start = [0; 4];
        }
        parts.memory.copy_in(0, bytes);
        let len = if magic {
            PAGE_BYTES_U64
        } else {
            OLD_HEADER_BYTES as u64
        };
        self.send(OpKind::Write, 0, len);
    }

    fn write_header(&mut self) {
        let header = self.header;
        let Some(parts) = &mut self.parts else { return };
        let Some(page) = parts.page.first_chunk_mut::<SLOT_BYTES>() else {
            return;
        };
        if let Err(error) = header.encode(page) {
            return self.fail(CreateError::Format(error));
        }
        parts.memory.copy_in(0, page);
        self.send(OpKind::Write, 0, SLOT_BYTES as u64);
    }

    fn fill(&mut self, offset: u64, len: u64, byte: u8) {
        if let Some(parts) = &mut self.parts {
            parts.memory.fill(0, len, byte);
        }
        self.send(OpKind::Write, offset, len);
    }

    fn send(&mut self, kind: OpKind, offset: u64, len: u64) {
        let head = Head::new(kind, offset, len).with_tag(Tag::open(Role::Metadata).word());
        let Some(parts) = &mut self.parts else {
            return self.fail(CreateError::Memory);
        };
        let op = if len == 0 {
            parts.pool.take(head)
        } else {
            parts.memory.send(&mut parts.pool, head, len)
        };
        match op {
            Some(op) => self.submit(op),
            None => self.fail(CreateError::Device(DeviceError::Protocol)),
        }
    }

    fn submit(&mut self, op: Op) {
        self.in_flight = true;
        match self.device.submit(op) {
            Ok(()) => self.device.notify(),
            Err(op) if op.status() == Status::Failed(DeviceError::Busy) => self.parked = Some(op),
            Err(op) => self.on_op(op),
        }
    }

    fn on_op(&mut self, op: Op) {
        self.in_flight = false;
        let result = op.status();
        let Some(parts) = &mut self.parts else { return };
        let home = if op.kind() == OpKind::Flush {
            parts.pool.put(op).is_ok()
        } else {
            parts.memory.receive(&mut parts.pool, op)
        };
        match result {
            Status::Done if home => {}
            Status::Failed(error) => self.fail(CreateError::Device(error)),
            Status::Done | Status::Pending => self.fail(CreateError::Device(DeviceError::Protocol)),
        }
    }

    /// Gives device and memory back, with the outcome. Before [`Create::poll`] was ready, the outcome
    /// is `Cancelled` and there is no image; an operation that the device was too busy to take is
    /// taken back.
    pub fn finish(mut self) -> Created<D> {
        let over = self.step == Step::Ended && !self.in_flight;
        let cancelled = CreateError::Device(DeviceError::Cancelled);
        let result = match self.error {
            Some(error) => Err(error),
            None if over => Ok(()),
            None => Err(cancelled),
        };
        if let Some(op) = self.parked.take() {
            self.on_op(op);
        }
        let memory = match (self.unused, self.parts) {
            (Some(memory), _) => Some(memory),
            (
                None,
                Some(Parts {
                    mut arena,
                    mut pool,
                    memory,
                    page,
                }),
            ) => {
                let home = memory.reclaim(&mut arena, &mut pool)
                    & arena.reclaim(page).is_ok()
                    & pool.reclaim(&mut arena).is_ok();
                if home { arena.finish().ok() } else { None }
            }
            (None, None) => None,
        };
        Created {
            device: self.device,
            memory,
            result,
        }
    }
}
