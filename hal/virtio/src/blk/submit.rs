//! From an op to a request in the queue.

use fvd::buffer::Op;
use fvd::device::{DeviceError, OpFlags, OpKind};
use virtio_drivers::transport::Transport;
use virtio_drivers::{BufferDirection, Hal};

use super::{Life, VirtioBlk, direction_of, segment};
use crate::queue::{Chain, Piece};
use crate::setup::SECTOR_BYTES;
use crate::wire::{self, Range, Request};

impl<H: Hal, T: Transport, const Q: usize> VirtioBlk<H, T, Q> {
    /// What to send for an op. `None`: nothing, it is done already.
    pub(super) fn plan(&self, op: &Op) -> Result<Option<Request>, DeviceError> {
        if self.life != Life::Alive {
            return Err(DeviceError::Removed);
        }
        self.geometry.check(op)?;
        let longest = self.geometry.segment_max_bytes as usize;
        if (0..op.segment_count()).any(|index| op.segment_len(index) > longest) {
            return Err(DeviceError::Invalid);
        }
        let plain = |kind, offset: u64| Request {
            kind,
            sector: offset / SECTOR_BYTES,
            range: None,
        };
        Ok(match op.kind() {
            OpKind::Read => Some(plain(wire::TYPE_READ, op.offset())),
            OpKind::Write => Some(plain(wire::TYPE_WRITE, op.offset())),
            // Without the feature there is no cache to flush: completion was durability.
            OpKind::Flush if !self.geometry.volatile_cache => None,
            OpKind::Flush => Some(plain(wire::TYPE_FLUSH, 0)),
            OpKind::Discard => self.discard_range(op).map(|range| Request {
                range: Some(range),
                ..plain(wire::TYPE_DISCARD, 0)
            }),
            OpKind::WriteZeroes => Some(Request {
                range: Some(self.zero_range(op)),
                ..plain(wire::TYPE_WRITE_ZEROES, 0)
            }),
            _ => return Err(DeviceError::Unsupported),
        })
    }

    /// The part of a discard that the device can use: whole granules. `None` if there is none.
    fn discard_range(&self, op: &Op) -> Option<Range> {
        let granule = u64::from(self.geometry.discard?.granularity_bytes).max(1);
        let start = op.offset().checked_next_multiple_of(granule)?;
        let end = op.offset().saturating_add(op.len());
        let len = (end - end % granule).checked_sub(start)?;
        let sector_count = u32::try_from(len / SECTOR_BYTES).ok()?;
        (sector_count != 0).then_some(Range {
            sector: start / SECTOR_BYTES,
            sector_count,
            may_unmap: false, // must be 0 in a discard (virtio 1.2 §5.2.6.1)
        })
    }

    fn zero_range(&self, op: &Op) -> Range {
        let unmap_known = self
            .geometry
            .write_zeroes
            .is_some_and(|limits| limits.may_unmap);
        Range {
            sector: op.offset() / SECTOR_BYTES,
            // Fits: `Geometry::check` held the length against a limit of 32 bits of sectors.
            sector_count: u32::try_from(op.len() / SECTOR_BYTES).unwrap_or(u32::MAX),
            may_unmap: unmap_known && op.flags().contains(OpFlags::MAY_UNMAP),
        }
    }

    /// Gives a request to the device. The queue has room.
    pub(super) fn start(&mut self, op: Op, request: &Request) {
        let head = self.queue.next_head();
        let Some(slot) = self.slots.get_mut(usize::from(head)) else {
            return; // heads are below the queue size, which is at most Q
        };
        self.control.prepare(head, request);
        let mut chain = Chain::new();
        chain.push(self.control.header_piece(head));
        if request.range.is_some() {
            chain.push(self.control.range_piece(head));
        }
        let direction = direction_of(op.kind());
        for (index, address) in (0..op.segment_count()).zip(slot.addresses.iter_mut()) {
            let Some(buffer) = segment(&op, index) else {
                break;
            };
            // SAFETY:
            // 1. valid and not empty: a lease of an op that we own;
            // 2. nobody else accesses it meanwhile: a lease is the only right to its bytes.
            *address = unsafe { H::share(buffer, direction) };
            let len = buffer.len() as u32;
            if (self.options.is_bounced)(*address) {
                self.stats.bounced_segments += 1;
                self.stats.bounced_bytes += u64::from(len);
            }
            chain.push(match direction {
                BufferDirection::DeviceToDriver => Piece::writable(*address, len),
                _ => Piece::readable(*address, len),
            });
        }
        chain.push(self.control.status_piece(head));
        // Before the device can see it: invariant 1.
        slot.op = Some(op);
        self.in_flight += 1;
        self.stats.requests += 1;
        self.queue.add(&chain);
    }
}
