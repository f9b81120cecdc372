//! A split virtqueue (virtio 1.2 §2.7) over raw DMA memory.
//!
//! `virtio_drivers::queue::VirtQueue` is not used, for three reasons: it takes buffers as slices,
//! which memory shared with others may never become; without a heap it has no indirect
//! descriptors, so a request costs as many ring entries as it has parts; and it wants the same
//! slices again at completion. Here a chain is a list of device addresses, and indirect tables are
//! preallocated, one per descriptor.
//!
//! ```text
//! offset 0         descriptors   16 bytes x size
//!                  available     flags, index, head x size
//! (64-aligned)     used          flags, index, (id, len) x size
//! (64-aligned)     tables        16 bytes x CHAIN_MAX x size, with indirect descriptors only
//! ```
//!
//! Invariants:
//! 1. `free_head`, followed through `next` for `free_count` steps, visits descriptors that are in no
//!    chain in flight. What `next` holds behind the last of them is never used.
//! 2. `chain_len[head]` is the number of descriptors of the chain in flight that starts at `head`,
//!    and 0 for every other descriptor. The links of such a chain are in `next`.
//! 3. The sum of `chain_len` and `free_count` is `size`; `chains_out` counts the non-zero ones.
//! 4. All of this lives in the driver's own memory. What the device writes (the used ring) is
//!    checked against it before it has any effect; what the driver wrote is never read back.

use core::sync::atomic::{Ordering, fence};

use fvd::buffer::SEGMENTS_MAX;
use virtio_drivers::{Hal, PhysAddr};

use crate::fault::Fault;
use crate::region::Region;

/// Most descriptors of one request: header, data or range, status.
pub(crate) const CHAIN_MAX: usize = SEGMENTS_MAX + 2;

const DESCRIPTOR_LEN: usize = 16;
const TABLE_LEN: usize = CHAIN_MAX * DESCRIPTOR_LEN;
/// Parts that different sides write start on cache lines of their own.
const LINE: usize = 64;

const FLAG_NEXT: u64 = 1;
const FLAG_WRITE: u64 = 2;
const FLAG_INDIRECT: u64 = 4;
/// `VIRTQ_AVAIL_F_NO_INTERRUPT`.
const AVAILABLE_NO_INTERRUPT: u16 = 1;
/// `VIRTQ_USED_F_NO_NOTIFY`.
const USED_NO_NOTIFY: u16 = 1;

/// One contiguous run of device-visible memory.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Piece {
    address: PhysAddr,
    len: u32,
    writable: bool,
}

impl Piece {
    /// Memory that the device reads.
    pub(crate) const fn readable(address: PhysAddr, len: u32) -> Piece {
        Piece {
            address,
            len,
            writable: false,
        }
    }

    /// Memory that the device writes.
    pub(crate) const fn writable(address: PhysAddr, len: u32) -> Piece {
        Piece {
            address,
            len,
            writable: true,
        }
    }
}

/// The pieces of one request, in the order in which the device meets them.
pub(crate) struct Chain {
    pieces: [Piece; CHAIN_MAX],
    count: usize,
}

impl Chain {
    pub(crate) const fn new() -> Chain {
        Chain {
            pieces: [Piece::readable(0, 0); CHAIN_MAX],
            count: 0,
        }
    }

    /// Appends a piece. A request never has more than [`CHAIN_MAX`].
    pub(crate) fn push(&mut self, piece: Piece) {
        debug_assert!(self.count < CHAIN_MAX, "the chain is full");
        if let Some(place) = self.pieces.get_mut(self.count) {
            *place = piece;
            self.count += 1;
        }
    }

    fn pieces(&self) -> &[Piece] {
        self.pieces.get(..self.count).unwrap_or_default()
    }
}

/// A finished chain that has not been taken off the used ring yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Used {
    /// Head of a chain in flight.
    pub(crate) head: u16,
    /// Bytes that the device says it wrote. Unchecked.
    pub(crate) len: u32,
}

/// Where the three parts lie, as the device sees them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Addresses {
    pub(crate) descriptors: PhysAddr,
    pub(crate) available: PhysAddr,
    pub(crate) used: PhysAddr,
}

/// A split queue of at most `Q` descriptors.
pub(crate) struct Queue<H: Hal, const Q: usize> {
    memory: Region<H>,
    /// A power of two, at most `Q`.
    size: u16,
    indirect: bool,
    available_at: usize,
    used_at: usize,
    tables_at: usize,
    free_head: u16,
    free_count: u16,
    chains_out: u16,
    next: [u16; Q],
    chain_len: [u8; Q],
    /// Chains ever made available, modulo 2^16.
    available_index: u16,
    /// Chains ever taken off the used ring, modulo 2^16.
    used_index: u16,
    /// The used index as last read from the device, and checked.
    used_seen: u16,
    /// Chains were made available since the last kick.
    kick_due: bool,
}

impl<H: Hal, const Q: usize> Queue<H, Q> {
    /// A queue of `size` descriptors, a power of two of at most `Q`. `None` if the platform has no
    /// memory for it.
    pub(crate) fn alloc(size: u16, indirect: bool, interrupts: bool) -> Option<Queue<H, Q>> {
        let count = usize::from(size);
        let available_at = count * DESCRIPTOR_LEN;
        let used_at = (available_at + 6 + 2 * count).next_multiple_of(LINE);
        let tables_at = (used_at + 6 + 8 * count).next_multiple_of(LINE);
        let tables_len = if indirect { count * TABLE_LEN } else { 0 };
        let memory = Region::alloc(tables_at + tables_len)?;
        if !interrupts {
            memory.publish(available_at, AVAILABLE_NO_INTERRUPT);
        }
        let mut next = [0; Q];
        for (index, link) in (1..=size).zip(next.iter_mut()) {
            *link = index;
        }
        Some(Queue {
            memory,
            size,
            indirect,
            available_at,
            used_at,
            tables_at,
            free_head: 0,
            free_count: size,
            chains_out: 0,
            next,
            chain_len: [0; Q],
            available_index: 0,
            used_index: 0,
            used_seen: 0,
            kick_due: false,
        })
    }

    /// Frees the queue's memory.
    ///
    /// # Safety
    /// The device must not access memory of the driver any more.
    pub(crate) unsafe fn free(&mut self) {
        // SAFETY: the caller's promise covers this memory.
        unsafe { self.memory.free() };
    }

    pub(crate) fn addresses(&self) -> Addresses {
        Addresses {
            descriptors: self.memory.address(0),
            available: self.memory.address(self.available_at),
            used: self.memory.address(self.used_at),
        }
    }

    /// Descriptors of the queue.
    pub(crate) fn size(&self) -> u16 {
        self.size
    }

    /// Whether a chain of `pieces` pieces can be added now.
    pub(crate) fn has_room(&self, pieces: usize) -> bool {
        let wanted = if self.indirect { 1 } else { pieces };
        wanted <= usize::from(self.free_count)
    }

    /// The head that the next chain will get.
    pub(crate) fn next_head(&self) -> u16 {
        self.free_head
    }

    /// Makes a chain available to the device under the head that [`Queue::next_head`] named. The
    /// caller has asked [`Queue::has_room`].
    pub(crate) fn add(&mut self, chain: &Chain) {
        debug_assert!(chain.count > 0 && self.has_room(chain.count));
        let head = self.free_head;
        let descriptors = if self.indirect {
            self.write_indirect(head, chain.pieces());
            1
        } else {
            self.write_direct(chain.pieces())
        };
        self.free_head = self.link_after(head, descriptors);
        self.free_count -= u16::from(descriptors);
        self.chains_out += 1;
        if let Some(len) = self.chain_len.get_mut(usize::from(head)) {
            *len = descriptors;
        }
        let slot = usize::from(self.available_index & (self.size - 1));
        self.memory.write(self.available_at + 4 + 2 * slot, head);
        self.available_index = self.available_index.wrapping_add(1);
        // Release: the device must find descriptors, ring entry and the caller's data when it sees
        // the index; otherwise it would follow the slot's previous chain into returned memory.
        self.memory
            .publish(self.available_at + 2, self.available_index);
        self.kick_due = true;
    }

    /// The descriptor that `next` names `steps` links behind `head`.
    fn link_after(&self, head: u16, steps: u8) -> u16 {
        let mut index = head;
        for _ in 0..steps {
            index = self.next.get(usize::from(index)).copied().unwrap_or(0);
        }
        index
    }

    fn write_direct(&self, pieces: &[Piece]) -> u8 {
        let mut index = self.free_head;
        let mut left = pieces.len();
        for piece in pieces {
            left -= 1;
            let next = self.link_after(index, 1);
            let link = (left > 0).then_some(next);
            self.write_descriptor(usize::from(index) * DESCRIPTOR_LEN, piece, link);
            index = next;
        }
        pieces.len() as u8
    }

    fn write_indirect(&self, head: u16, pieces: &[Piece]) {
        let table = self.tables_at + usize::from(head) * TABLE_LEN;
        for (position, piece) in (0u16..).zip(pieces) {
            let at = table + usize::from(position) * DESCRIPTOR_LEN;
            let more = usize::from(position) + 1 < pieces.len();
            self.write_descriptor(at, piece, more.then_some(position + 1));
        }
        let at = usize::from(head) * DESCRIPTOR_LEN;
        let table_len = (pieces.len() * DESCRIPTOR_LEN) as u64;
        self.memory.write(at, self.memory.address(table));
        self.memory.write(at + 8, table_len | (FLAG_INDIRECT << 32));
    }

    /// address: 8 bytes; then length: 4, flags: 2, next: 2 in one word.
    fn write_descriptor(&self, at: usize, piece: &Piece, next: Option<u16>) {
        let write = if piece.writable { FLAG_WRITE } else { 0 };
        let (link, index) = match next {
            Some(index) => (FLAG_NEXT, u64::from(index)),
            None => (0, 0),
        };
        let word = u64::from(piece.len) | ((write | link) << 32) | (index << 48);
        self.memory.write(at, piece.address);
        self.memory.write(at + 8, word);
    }

    /// Whether the device must be told about the chains added since the last call.
    pub(crate) fn take_kick(&mut self) -> Option<bool> {
        if !core::mem::take(&mut self.kick_due) {
            return None;
        }
        // Full fence: our index must be visible before we read the flag. Otherwise the device could
        // go to sleep on the old index while we read the flag from before that, and the chain would
        // lie there for ever.
        fence(Ordering::SeqCst);
        Some(self.memory.observe(self.used_at) & USED_NO_NOTIFY == 0)
    }

    /// Whether the used ring has, or claims to have, something new.
    pub(crate) fn has_used(&self) -> bool {
        self.used_index != self.memory.observe(self.used_at + 2)
    }

    /// Finished chains on the used ring: what the device claims, as far as it can be true.
    pub(crate) fn used_waiting(&self) -> u16 {
        let claimed = self.memory.observe(self.used_at + 2);
        claimed.wrapping_sub(self.used_index).min(self.chains_out)
    }

    /// The oldest finished chain, which stays where it is until [`Queue::pop`].
    ///
    /// # Errors
    /// The device claims what can not be: more finished chains than there are in flight, or one
    /// that is not in flight.
    pub(crate) fn peek(&mut self) -> Result<Option<Used>, Fault> {
        if self.used_index == self.used_seen {
            let seen = self.memory.observe(self.used_at + 2);
            if seen.wrapping_sub(self.used_index) > self.chains_out {
                return Err(Fault::UsedIndex);
            }
            self.used_seen = seen;
        }
        if self.used_index == self.used_seen {
            return Ok(None);
        }
        let slot = usize::from(self.used_index & (self.size - 1));
        let at = self.used_at + 4 + 8 * slot;
        let id: u32 = self.memory.read(at);
        let in_flight = usize::try_from(id)
            .ok()
            .and_then(|id| self.chain_len.get(id))
            .is_some_and(|len| *len != 0);
        match u16::try_from(id) {
            Ok(head) if in_flight => {
                let len = self.memory.read(at + 4);
                Ok(Some(Used { head, len }))
            }
            _ => Err(Fault::UnknownId),
        }
    }

    /// Takes a chain that [`Queue::peek`] returned off the ring; its descriptors are free again.
    pub(crate) fn pop(&mut self, used: Used) {
        let len = match self.chain_len.get_mut(usize::from(used.head)) {
            Some(len) if *len != 0 => core::mem::take(len),
            _ => return,
        };
        let tail = self.link_after(used.head, len - 1);
        if let Some(link) = self.next.get_mut(usize::from(tail)) {
            *link = self.free_head;
        }
        self.free_head = used.head;
        self.free_count += u16::from(len);
        self.chains_out -= 1;
        self.used_index = self.used_index.wrapping_add(1);
    }
}
