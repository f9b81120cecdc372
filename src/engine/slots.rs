//! The request table: one slot per guest request in flight.
//!
//! Invariants:
//! 1. A slot is free iff its state is [`State::Free`]; its generation grows when it is freed, so a
//!    stale [`RequestId`] is a clean error.
//! 2. The guest's op is in exactly one place: whole in the slot, lent in the slot, or out on a
//!    device (forwarded), which the slot's fingerprint identifies when it comes home.

use crate::buffer::{Arena, Fingerprint, Head, LentOp, Op, Part};
use crate::device::{DeviceError, OpKind};

use super::staging::Staging;

/// Names a request that was accepted. Stale ids are recognised.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RequestId {
    pub(super) slot: u16,
    pub(super) generation: u16,
}

/// What a request waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// No request.
    Free,
    /// Admission: for overlapping requests, for space, or for room in a table.
    Queued,
    /// Its one device operation, which is the guest's own op.
    Forwarded,
    /// Its reads, some of which may not be submitted yet.
    Reading,
    /// Zeros on the dirty chunks that were reserved for it.
    ZeroingChunks,
    /// The base's part of the blocks that it fills only partly.
    Filling,
    /// Its data writes, some of which may not be submitted yet.
    Writing,
    /// Its zeros, range by range.
    Zeroing,
    /// The commit with this number.
    Commit(u64),
    /// A device flush of its own.
    DeviceFlush,
}

/// Where the guest's op is.
pub(crate) enum Held {
    /// On a device, or nowhere (free slot).
    Out,
    /// Here, untouched.
    Whole(Op),
    /// Here, with its memory out in parts.
    Lent(LentOp),
}

/// One request.
pub(crate) struct Slot {
    pub(crate) generation: u16,
    pub(crate) state: State,
    /// The guest's op and what it asked for.
    pub(crate) held: Held,
    pub(crate) head: Head,
    pub(crate) print: Fingerprint,
    /// Whether it copies, fills or zeroes, and so tolerates no other write in its guard.
    pub(crate) exclusive: bool,
    /// Device operations in flight for it.
    pub(crate) outstanding: u16,
    /// Order of arrival among those that were queued. This and what follows is set when a request is
    /// queued; one that is sent on at once leaves it alone.
    pub(crate) ticket: u64,
    /// The guest's range, widened to whole blocks or chunks where the request copies, fills or
    /// zeroes; see [`Slot::guard`].
    pub(crate) guard_start: u64,
    pub(crate) guard_end: u64,
    /// Next byte of the guest's disk to work on in this state.
    pub(crate) cursor: u64,
    pub(crate) error: Option<DeviceError>,
    /// Bit `i`: it holds the pending mapping of the `i`-th chunk of its range.
    pub(crate) holds: u64,
    /// Where the pending mapping of one of them is: the first place to look for it.
    pub(crate) entry: u16,
    /// Bit `i`: the `i`-th chunk still has to be zeroed.
    pub(crate) to_zero: u64,
    /// What the data writes cover: the guest's range, widened by copies of base data.
    pub(crate) extent_start: u64,
    pub(crate) extent_end: u64,
    /// Copies of base data before and after the guest's bytes.
    pub(crate) scratch: [Option<Staging>; 2],
    /// Whether the journal unit of its mapping went out with its data.
    pub(crate) unit_sent: bool,
    /// Bytes of each copy of a write-zeroes that were sent to the store.
    pub(crate) copies_sent: [u32; 2],
    /// Whether the caller asked for it to be dropped while it was queued.
    pub(crate) cancelled: bool,
    /// Link of the one list that it is in, the free list included.
    next: u16,
    listed: bool,
}

/// A head that no request has.
pub(super) const NO_HEAD: Head = Head::new(OpKind::Flush, 0, 0);

impl Slot {
    fn empty(next_free: u16) -> Slot {
        Slot {
            generation: 0,
            state: State::Free,
            held: Held::Out,
            head: NO_HEAD,
            print: Fingerprint::NONE,
            ticket: 0,
            guard_start: 0,
            guard_end: 0,
            exclusive: false,
            cursor: 0,
            outstanding: 0,
            error: None,
            holds: 0,
            entry: NONE,
            to_zero: 0,
            extent_start: 0,
            extent_end: 0,
            scratch: [None, None],
            unit_sent: false,
            copies_sent: [0; 2],
            cancelled: false,
            next: next_free,
            listed: false,
        }
    }

    /// Begins a request that takes more than to send its op on. What it asked for is set.
    pub(super) fn queue(&mut self, op: Op, ticket: u64) {
        self.state = State::Queued;
        self.held = Held::Whole(op);
        self.ticket = ticket;
        self.guard_start = self.start();
        self.guard_end = self.end();
        self.error = None;
        self.holds = 0;
        self.entry = NONE;
        self.to_zero = 0;
        self.unit_sent = false;
        self.copies_sent = [0; 2];
        self.cancelled = false;
    }

    /// The range that overlapping requests must respect.
    pub(super) fn guard(&self) -> (u64, u64) {
        if self.state == State::Forwarded {
            (self.start(), self.end())
        } else {
            (self.guard_start, self.guard_end)
        }
    }

    /// First byte of the guest's range.
    pub(crate) fn start(&self) -> u64 {
        self.head.offset
    }

    /// One past the last byte of the guest's range.
    pub(crate) fn end(&self) -> u64 {
        self.head.offset.saturating_add(self.head.len)
    }

    /// Whether the request changes the disk.
    pub(crate) fn is_write(&self) -> bool {
        matches!(
            self.head.kind,
            OpKind::Write | OpKind::WriteZeroes | OpKind::Discard
        )
    }

    /// Keeps the first error of a request.
    pub(crate) fn fail(&mut self, error: DeviceError) {
        self.error = self.error.or(Some(error));
    }
}

const NONE: u16 = u16::MAX;

/// All slots.
pub(crate) struct Slots {
    all: Part<Slot>,
    free: u16,
    used: u16,
}

impl Slots {
    pub(crate) const fn arena_bytes(depth: u16) -> usize {
        Arena::part_bytes::<Slot>(depth as usize)
    }

    pub(crate) fn carve(arena: &mut Arena, depth: u16) -> Option<Slots> {
        // The free list ends with a link past the last slot.
        let all = arena.carve_with(usize::from(depth), |index| Slot::empty(index as u16 + 1))?;
        Some(Slots {
            all,
            free: 0,
            used: 0,
        })
    }

    pub(crate) fn reclaim(self, arena: &mut Arena) -> bool {
        arena.reclaim(self.all).is_ok()
    }

    pub(crate) fn used(&self) -> u16 {
        self.used
    }

    pub(crate) fn capacity(&self) -> usize {
        self.all.len()
    }

    pub(crate) fn get(&self, index: u16) -> Option<&Slot> {
        self.all.get(usize::from(index))
    }

    pub(crate) fn get_mut(&mut self, index: u16) -> Option<&mut Slot> {
        self.all.get_mut(usize::from(index))
    }

    /// Requests in flight, with their index.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u16, &Slot)> {
        self.all
            .iter()
            .enumerate()
            .filter(|(_, slot)| slot.state != State::Free)
            .map(|(i, s)| (i as u16, s))
    }

    /// A free slot, taken for a request. The caller sets its state.
    #[inline]
    pub(crate) fn take(&mut self, head: Head) -> Option<(RequestId, &mut Slot)> {
        let index = self.free;
        let slot = self.all.get_mut(usize::from(index))?;
        self.free = slot.next;
        self.used += 1;
        slot.outstanding = 0;
        slot.head = head;
        slot.exclusive = false;
        let id = RequestId {
            slot: index,
            generation: slot.generation,
        };
        Some((id, slot))
    }

    /// Frees a slot; ids of its request are stale from now on.
    #[inline]
    pub(crate) fn release(&mut self, index: u16) {
        let free = self.free;
        if let Some(slot) = self.get_mut(index) {
            slot.state = State::Free;
            slot.held = Held::Out;
            slot.generation = slot.generation.wrapping_add(1);
            slot.next = free;
            slot.listed = false;
            self.free = index;
            self.used -= 1;
        }
    }
}

/// A first-in first-out list of slots. A slot is in at most one.
#[derive(Clone, Copy)]
pub(crate) struct SlotList {
    head: u16,
    tail: u16,
}

impl SlotList {
    pub(crate) const EMPTY: SlotList = SlotList {
        head: NONE,
        tail: NONE,
    };

    pub(crate) fn is_empty(&self) -> bool {
        self.head == NONE
    }

    /// Appends a slot, unless it is in a list already.
    pub(crate) fn push(&mut self, slots: &mut Slots, index: u16) {
        let Some(slot) = slots.get_mut(index) else {
            return;
        };
        if slot.listed {
            return;
        }
        slot.listed = true;
        slot.next = NONE;
        match slots.get_mut(self.tail) {
            Some(last) => last.next = index,
            None => self.head = index,
        }
        self.tail = index;
    }

    /// Takes the oldest slot.
    pub(crate) fn pop(&mut self, slots: &mut Slots) -> Option<u16> {
        let index = self.head;
        let slot = slots.get_mut(index)?;
        slot.listed = false;
        self.head = core::mem::replace(&mut slot.next, NONE);
        if self.head == NONE {
            self.tail = NONE;
        }
        Some(index)
    }
}
