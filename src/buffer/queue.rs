//! Lists and pools of operations, linked through the operations themselves.

use core::marker::PhantomData;
use core::ptr::NonNull;

use super::op::{EMPTY_HEAD, Record};
use super::{Arena, Head, Op, Part, SEGMENTS_MAX};

/// A first-in first-out list of ops, linked through the ops themselves: no storage of its own.
#[must_use = "dropping a queue leaks the ops in it"]
pub struct OpQueue {
    head: Option<NonNull<Record>>,
    tail: Option<NonNull<Record>>,
    len: u32,
}

// SAFETY: the queue owns its ops, which are `Send`.
unsafe impl Send for OpQueue {}

impl Default for OpQueue {
    fn default() -> OpQueue {
        OpQueue::new()
    }
}

impl OpQueue {
    /// An empty queue.
    pub const fn new() -> OpQueue {
        OpQueue {
            head: None,
            tail: None,
            len: 0,
        }
    }

    /// Ops in the queue.
    #[must_use]
    pub fn len(&self) -> usize {
        self.len as usize
    }

    /// Whether the queue holds nothing.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.head.is_none()
    }

    /// Appends an op.
    pub fn push_back(&mut self, mut op: Op) {
        op.record_mut().next = None;
        match self.tail {
            // SAFETY: `tail` is a record this queue owns; nobody else has a reference to it.
            Some(mut tail) => unsafe { tail.as_mut().next = Some(op.0) },
            None => self.head = Some(op.0),
        }
        self.tail = Some(op.0);
        self.len += 1;
    }

    /// Prepends an op, such as one a device refused.
    pub fn push_front(&mut self, mut op: Op) {
        op.record_mut().next = self.head;
        if self.head.is_none() {
            self.tail = Some(op.0);
        }
        self.head = Some(op.0);
        self.len += 1;
    }

    /// Takes the oldest op.
    pub fn pop_front(&mut self) -> Option<Op> {
        let op = Op(self.head?);
        self.head = op.record().next;
        if self.head.is_none() {
            self.tail = None;
        }
        self.len -= 1;
        Some(op)
    }
}

/// A fixed number of op records, all from one arena.
pub struct OpPool {
    free: OpQueue,
    start: NonNull<Record>,
    count: u32,
}

// SAFETY: the pool owns its free ops and only compares `start` by address.
unsafe impl Send for OpPool {}

impl OpPool {
    /// Bytes of arena that `count` records take.
    #[must_use]
    pub const fn arena_bytes(count: usize) -> usize {
        Arena::part_bytes::<Record>(count)
    }

    /// Carves `count` records from an arena. `None` if it has too little room.
    #[must_use]
    pub fn carve(arena: &mut Arena, count: u32) -> Option<OpPool> {
        let part = arena.carve_with(count as usize, |_| Record {
            head: EMPTY_HEAD,
            next: None,
            bytes: 0,
            bytes_out: 0,
            cursor_segment: 0,
            cursor_offset: 0,
            count: 0,
            segments: [const { None }; SEGMENTS_MAX],
        })?;
        let start = part.ptr;
        let mut free = OpQueue::new();
        for index in 0..count as usize {
            // SAFETY: `index` < the part's length. Each record becomes one op, once; the part
            // itself ends here and comes back through `reclaim` when all ops are free.
            free.push_back(Op(unsafe { start.add(index) }));
        }
        Some(OpPool { free, start, count })
    }

    /// An op without leases, set to `head`. `None` if all are in use.
    pub fn take(&mut self, head: Head) -> Option<Op> {
        let mut op = self.free.pop_front()?;
        op.record_mut().head = head;
        Some(op)
    }

    /// Ops that can be taken.
    #[must_use]
    pub fn free_count(&self) -> usize {
        self.free.len()
    }

    /// Takes an op back. It must carry no leases.
    ///
    /// # Errors
    /// Gives back an op that still carries leases or that is not from this pool.
    pub fn put(&mut self, op: Op) -> Result<(), Op> {
        let (start, own) = (self.start.as_ptr() as usize, op.0.as_ptr() as usize);
        let ours = own >= start && own - start < self.count as usize * size_of::<Record>();
        if !ours || op.segment_count() != 0 {
            return Err(op);
        }
        self.free.push_front(op);
        Ok(())
    }

    /// Gives the records back to the arena they came from.
    ///
    /// # Errors
    /// Gives the pool back while ops are out, or if the arena is another one.
    pub fn reclaim(self, arena: &mut Arena) -> Result<(), OpPool> {
        if self.free.len() != self.count as usize {
            return Err(self);
        }
        let part: Part<Record> = Part {
            ptr: self.start,
            len: self.count as usize,
            owns: PhantomData,
        };
        // All ops are in `free`, which is forgotten with `self`: the part is the only owner again.
        arena.reclaim(part).map_err(|_| self)
    }
}
