//! One request on its way through the device.

use core::mem;
use std::collections::VecDeque;

use fvd::buffer::{Arena, Head, Loan, Op, OpPool};
use fvd::device::{BlockDevice, DeviceError, Geometry, OpFlags, OpKind, Status};
use fvd_nbd::reply::{self, Errno, Extent};
use fvd_nbd::request::{Command, Request};

use super::reply::Reply;
use super::{Allocation, Disk};
use crate::aligned::AlignedBuffer;
use crate::arena::leak_arena;

/// Requests with the device at a time, of all connections.
pub(super) const TASKS_MAX: usize = 256;

/// Extents in one answer to block status.
const EXTENTS_MAX: usize = 128;

/// Who asked, and how the answer must look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Origin {
    pub(super) generation: u64,
    pub(super) structured: bool,
}

/// A request, with its data or the memory for them.
pub(super) struct Wanted {
    pub(super) request: Request,
    pub(super) buffer: Option<AlignedBuffer>,
}

/// What became of a request that was to start.
pub(super) enum Start {
    /// It is with the device.
    Started,
    /// It needs no device, or was refused.
    Answered(Reply),
    /// There is no room now.
    Full(Wanted),
}

/// A request that ended.
pub(super) struct Done {
    pub(super) connection: usize,
    pub(super) generation: u64,
    pub(super) reply: Reply,
}

struct Task {
    connection: usize,
    origin: Origin,
    request: Request,
    loan: Option<Loan<AlignedBuffer>>,
    /// The buffer, when its data are where they belong.
    home: Option<AlignedBuffer>,
    /// First byte that no operation was sent for: trims and zeroes may take several.
    cursor: u64,
    /// The flush that makes it durable is under way.
    flushing: bool,
}

/// All requests with the device.
pub(super) struct Tasks {
    all: Vec<Option<Task>>,
    free: Vec<usize>,
    ops: OpPool,
    /// Ops that the device had no room for.
    stalled: VecDeque<Op>,
    /// Ops that the device refused for good, to be handled like completions.
    refused: VecDeque<Op>,
}

impl Tasks {
    /// `None` if there is no memory.
    pub(super) fn new() -> Option<Tasks> {
        let memory = leak_arena(OpPool::arena_bytes(TASKS_MAX))?;
        let mut arena = Arena::new(memory).ok()?;
        Some(Tasks {
            all: (0..TASKS_MAX).map(|_| None).collect(),
            free: (0..TASKS_MAX).rev().collect(),
            ops: OpPool::carve(&mut arena, TASKS_MAX as u32)?,
            stalled: VecDeque::new(),
            refused: VecDeque::new(),
        })
    }

    pub(super) fn is_idle(&self) -> bool {
        self.free.len() == TASKS_MAX
    }

    pub(super) fn has_room(&self) -> bool {
        !self.free.is_empty() && self.stalled.is_empty()
    }

    /// Starts a request of a connection.
    pub(super) fn start<D: Disk + ?Sized>(
        &mut self,
        connection: usize,
        origin: Origin,
        wanted: Wanted,
        disk: &mut D,
        geometry: &Geometry,
    ) -> Start {
        let request = wanted.request;
        match request.command {
            Command::Cache | Command::Disconnect => {
                return Start::Answered(success(origin, &request));
            }
            Command::BlockStatus { one } => {
                return Start::Answered(block_status(&request, one, disk));
            }
            _ => {}
        }
        if !self.has_room() {
            return Start::Full(wanted);
        }
        let mut task = Task {
            connection,
            origin,
            request,
            loan: None,
            home: None,
            cursor: request.offset,
            flushing: false,
        };
        let head = match task.next_head(geometry) {
            Ok(Some(head)) => head,
            Ok(None) => return Start::Answered(success(origin, &request)),
            Err(error) => return Start::Answered(failure(origin, &request, error)),
        };
        let (Some(index), Some(mut op)) = (self.free.pop(), self.ops.take(head)) else {
            return Start::Full(wanted);
        };
        if let Some(buffer) = wanted.buffer {
            let lent = Loan::new(buffer).ok().map(|(loan, lease)| {
                task.loan = Some(loan);
                op.push(lease).is_ok()
            });
            debug_assert_eq!(lent, Some(true), "a buffer is neither empty nor too long");
        }
        self.all[index] = Some(task);
        op.set_tag(index as u64);
        match self.submit(op, disk, geometry) {
            Some(done) => Start::Answered(done.reply),
            None => Start::Started,
        }
    }

    /// Hands an op to the device. Returns what a refusal ends.
    fn submit<D: Disk + ?Sized>(
        &mut self,
        op: Op,
        disk: &mut D,
        geometry: &Geometry,
    ) -> Option<Done> {
        match disk.submit(op) {
            Ok(()) => None,
            Err(op) if op.status() == Status::Failed(DeviceError::Busy) => {
                self.stalled.push_back(op);
                None
            }
            Err(op) => self.on_completion(op, disk, geometry),
        }
    }

    /// Tries again what the device had no room for.
    pub(super) fn resubmit<D: BlockDevice + ?Sized>(&mut self, disk: &mut D) {
        while let Some(mut op) = self.stalled.pop_front() {
            op.set_head(Head {
                status: Status::Pending,
                ..op.head()
            });
            match disk.submit(op) {
                Ok(()) => {}
                Err(op) if op.status() == Status::Failed(DeviceError::Busy) => {
                    return self.stalled.push_front(op);
                }
                Err(op) => self.refused.push_back(op),
            }
        }
    }

    /// An op that ended without a completion of the device.
    pub(super) fn next_refused(&mut self) -> Option<Op> {
        self.refused.pop_front()
    }

    /// Takes a completion. Returns the answer if that ends its request.
    pub(super) fn on_completion<D: Disk + ?Sized>(
        &mut self,
        mut op: Op,
        disk: &mut D,
        geometry: &Geometry,
    ) -> Option<Done> {
        let index = usize::try_from(op.tag()).ok()?;
        let task = self.all.get_mut(index)?.as_mut()?;
        let result = match op.status() {
            Status::Done => Ok(()),
            Status::Failed(error) => Err(errno(error)),
            Status::Pending => Err(Errno::Io),
        };
        let next = result.and_then(|()| task.next_head(geometry));
        if let Ok(Some(head)) = next {
            let lease = op.pop();
            op.set_head(Head {
                tag: index as u64,
                ..head
            });
            if let (Some(lease), Some(loan)) = (lease, task.loan.take()) {
                // The data are written; the flush that follows carries none.
                task.home = loan.redeem(lease).ok();
            }
            return self.submit(op, disk, geometry);
        }
        let task = mem::take(self.all.get_mut(index)?)?;
        self.free.push(index);
        let lease = op.pop();
        let buffer = match (lease, task.loan) {
            (Some(lease), Some(loan)) => loan.redeem(lease).ok(),
            _ => task.home,
        };
        let _ = self.ops.put(op);
        let (origin, request) = (task.origin, &task.request);
        let reply = match (next, request.command, buffer) {
            (Ok(_), Command::Read, Some(buffer)) => Reply::data(origin.structured, request, buffer),
            // A device that keeps the memory of a read has read nothing into it.
            (Ok(_), Command::Read, None) => failure(origin, request, Errno::Io),
            (Ok(_), _, buffer) => success(origin, request).and_spare(buffer),
            (Err(error), _, buffer) => failure(origin, request, error).and_spare(buffer),
        };
        Some(Done {
            connection: task.connection,
            generation: task.origin.generation,
            reply,
        })
    }
}

impl Task {
    /// The next operation of the request; `None` if all are done.
    fn next_head(&mut self, geometry: &Geometry) -> Result<Option<Head>, Errno> {
        let request = self.request;
        let end = request.offset + u64::from(request.len);
        let first = self.cursor == request.offset;
        let (kind, flags) = match request.command {
            Command::Read if first => (OpKind::Read, OpFlags::NONE),
            Command::Write { fua } if first => {
                let native = fua && geometry.fua;
                let flags = if native { OpFlags::FUA } else { OpFlags::NONE };
                (OpKind::Write, flags)
            }
            Command::Flush if !self.flushing => return Ok(Some(self.flush())),
            Command::Trim { .. } => {
                let Some((start, len)) = self.trim_piece(end, geometry) else {
                    return Ok(self.flush_if_due(geometry));
                };
                self.cursor = start + len;
                return Ok(Some(head(OpKind::Discard, OpFlags::NONE, start, len)));
            }
            Command::WriteZeroes { no_hole, .. } => {
                let limits = geometry.write_zeroes.ok_or(Errno::NotSup)?;
                if self.cursor >= end {
                    return Ok(self.flush_if_due(geometry));
                }
                let mask = u64::from(geometry.logical_block_bytes) - 1;
                let len = (end - self.cursor).min(limits.max_bytes & !mask);
                let unmaps = limits.may_unmap && !no_hole;
                let flags = if unmaps {
                    OpFlags::MAY_UNMAP
                } else {
                    OpFlags::NONE
                };
                let start = self.cursor;
                self.cursor += len;
                return Ok(Some(head(OpKind::WriteZeroes, flags, start, len)));
            }
            _ => return Ok(self.flush_if_due(geometry)),
        };
        self.cursor = end;
        Ok(Some(head(
            kind,
            flags,
            request.offset,
            u64::from(request.len),
        )))
    }

    fn flush(&mut self) -> Head {
        self.flushing = true;
        head(OpKind::Flush, OpFlags::NONE, 0, 0)
    }

    /// The flush with which a request ends that must be durable and is not by itself.
    fn flush_if_due(&mut self, geometry: &Geometry) -> Option<Head> {
        let due = match self.request.command {
            Command::Write { fua } => fua && !geometry.fua,
            Command::Trim { fua } | Command::WriteZeroes { fua, .. } => fua,
            _ => false,
        };
        (due && !self.flushing).then(|| self.flush())
    }

    /// The next whole units of a trim; what does not fill a unit is left as it is.
    fn trim_piece(&self, end: u64, geometry: &Geometry) -> Option<(u64, u64)> {
        let limits = geometry.discard?;
        let unit = u64::from(limits.granularity_bytes).max(1);
        let start = self.cursor.checked_next_multiple_of(unit)?;
        let whole = end.checked_sub(start)?.min(limits.max_bytes);
        let len = whole - whole % unit;
        (len != 0).then_some((start, len))
    }
}

fn head(kind: OpKind, flags: OpFlags, offset: u64, len: u64) -> Head {
    Head::new(kind, offset, len).with_flags(flags)
}

fn errno(error: DeviceError) -> Errno {
    match error {
        DeviceError::NoSpace => Errno::NoSpc,
        DeviceError::ReadOnly => Errno::Perm,
        DeviceError::Invalid => Errno::Inval,
        DeviceError::Unsupported => Errno::NotSup,
        DeviceError::Removed => Errno::Shutdown,
        _ => Errno::Io,
    }
}

fn success(origin: Origin, request: &Request) -> Reply {
    Reply::success(origin.structured, request)
}

fn failure(origin: Origin, request: &Request, error: Errno) -> Reply {
    Reply::failure(origin.structured, request, error)
}

fn block_status<D: Disk + ?Sized>(request: &Request, one: bool, disk: &D) -> Reply {
    let end = request.offset + u64::from(request.len);
    let most = if one { 1 } else { EXTENTS_MAX };
    let mut extents: Vec<Extent> = Vec::new();
    let mut at = request.offset;
    while at < end {
        let Some((bytes, allocation)) = disk.extent_at(at) else {
            break;
        };
        // Only the last extent might reach beyond what was asked for; it is cut.
        let bytes = bytes.min(end - at) as u32;
        let hole = allocation == Allocation::Hole;
        let full = extents.len() == most;
        match extents.last_mut() {
            Some(last) if last.hole == hole => last.bytes += bytes,
            _ if full => break,
            _ => extents.push(Extent {
                bytes,
                hole,
                zero: hole,
            }),
        }
        at += u64::from(bytes.max(1));
    }
    if extents.is_empty() {
        return Reply::failure(true, request, Errno::Io);
    }
    let mut bytes = reply::status_header(request.cookie, extents.len() as u32).to_vec();
    for extent in extents {
        bytes.extend(reply::status_extent(extent));
    }
    Reply::bytes(bytes)
}
