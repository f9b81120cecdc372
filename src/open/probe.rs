//! First step of opening: reads the header, to know what the image needs.

use core::mem::MaybeUninit;
use core::task::Poll;

use crate::buffer::{Arena, Head, Lease, Op, OpPool, Part};
use crate::device::{DeviceError, OpKind, Status, When};
use crate::engine::Tag;
use crate::format::{ChosenSlot, Dialect, Field, FormatError, HEADER_BYTES, SLOT_BYTES, SlotIndex};
use crate::stores::{Role, Stores};
use crate::units::Instant;

use super::error::OpenError;
use super::layout::Layout;
use super::options::OpenOptions;
use super::survey::Purpose;

/// Bytes of memory that a [`Probe`] needs.
pub const PROBE_ARENA_BYTES: usize = Arena::staging_bytes(SLOT_BYTES)
    + OpPool::arena_bytes(1)
    + Arena::part_bytes::<u8>(2 * SLOT_BYTES);

struct Parts {
    arena: Arena,
    pool: OpPool,
    bytes: Part<u8>,
}

#[allow(clippy::large_enum_variant)] // there is one, in its probe
enum State {
    /// A read is to be sent.
    Ready(Lease),
    /// It is in flight.
    Reading,
    /// Over; the lease is back, or lost with its device.
    Ended(Result<Layout, OpenError>, Option<Lease>),
}

/// Reads the header of an image.
pub struct Probe<S: Stores> {
    stores: S,
    options: OpenOptions,
    purpose: Purpose,
    parts: Option<Parts>,
    unused: Option<&'static mut [MaybeUninit<u8>]>,
    state: State,
    /// The slot that is being read. Each is read by itself: the loss of one must not hide the other.
    slot: SlotIndex,
    /// How reading it failed the first time.
    failed: Option<DeviceError>,
    /// How reading a slot failed for good; the slot then counts as not valid.
    unreadable: Option<(SlotIndex, DeviceError)>,
    /// The other slot is being read again: does the device still read anything?
    control: bool,
}

/// A probed image.
pub struct Probed<S> {
    /// The devices.
    pub stores: S,
    /// What the image needs.
    pub layout: Layout,
    /// The memory that was lent; `None` if a device kept a part of it.
    pub memory: Option<&'static mut [MaybeUninit<u8>]>,
}

/// A probe that failed.
pub struct ProbeFailure<S> {
    /// The devices.
    pub stores: S,
    /// The memory that was lent; `None` if a device kept a part of it.
    pub memory: Option<&'static mut [MaybeUninit<u8>]>,
    /// Why.
    pub error: OpenError,
}

impl<S: Stores> Probe<S> {
    /// Starts a probe with at least [`PROBE_ARENA_BYTES`] of memory, aligned to 4096.
    pub fn new(
        stores: S,
        memory: &'static mut [MaybeUninit<u8>],
        options: OpenOptions,
    ) -> Probe<S> {
        Probe::for_purpose(stores, memory, options, Purpose::Use)
    }

    /// Starts the probe of an image for [`Repair`](crate::repair::Repair).
    pub fn for_repair(
        stores: S,
        memory: &'static mut [MaybeUninit<u8>],
        options: OpenOptions,
    ) -> Probe<S> {
        Probe::for_purpose(stores, memory, options, Purpose::Repair)
    }

    /// Starts a probe for whatever purpose.
    pub(crate) fn for_purpose(
        stores: S,
        memory: &'static mut [MaybeUninit<u8>],
        options: OpenOptions,
        purpose: Purpose,
    ) -> Probe<S> {
        let given = memory.len();
        let probe = |parts, unused, state| Probe {
            stores,
            options: options.clamped(),
            purpose,
            parts,
            unused,
            state,
            slot: SlotIndex::First,
            failed: None,
            unreadable: None,
            control: false,
        };
        let failed = |error| State::Ended(Err(error), None);
        if given < PROBE_ARENA_BYTES {
            let error = OpenError::ArenaTooSmall {
                needed: PROBE_ARENA_BYTES,
                given,
            };
            return probe(None, Some(memory), failed(error));
        }
        let mut arena = match Arena::new(memory) {
            Ok(arena) => arena,
            Err(memory) => return probe(None, Some(memory), failed(OpenError::ArenaMisaligned)),
        };
        let lease = arena.carve_lease(SLOT_BYTES as u32);
        let pool = OpPool::carve(&mut arena, 1);
        let bytes = arena.carve(2 * SLOT_BYTES, 0u8);
        let (Some(lease), Some(pool), Some(bytes)) = (lease, pool, bytes) else {
            // The size was checked, so this is never reached.
            let error = OpenError::ArenaTooSmall {
                needed: PROBE_ARENA_BYTES,
                given,
            };
            return probe(None, None, failed(error));
        };
        let parts = Some(Parts { arena, pool, bytes });
        probe(parts, None, State::Ready(lease))
    }

    /// Moves the probe on. Ready when [`Probe::finish`] can be called.
    pub fn poll(&mut self, now: Instant) -> Poll<()> {
        let refused = match self.state {
            State::Ready(_) => self.start(),
            _ => None,
        };
        let home = match self.state {
            State::Reading => refused.or_else(|| self.stores.poll(now)),
            _ => None,
        };
        if let Some(op) = home
            && let Some(lease) = self.on_read(op)
        {
            self.end(lease);
        }
        if let State::Ended(..) = self.state {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    /// Sends the next read. Returns it if the device refused it for good.
    fn start(&mut self) -> Option<Op> {
        let State::Ready(lease) = core::mem::replace(&mut self.state, State::Reading) else {
            return None;
        };
        let parts = self.parts.as_mut()?;
        let capacity = self
            .stores
            .geometry(Role::Metadata)
            .map_or(0, |metadata| metadata.capacity_bytes);
        if capacity < HEADER_BYTES {
            // SPEC.md §3.4: what is shorter than a header is a damaged image.
            let error = FormatError::corrupt(Field::HeaderSlot, capacity);
            self.fail(error.into(), Some(lease));
            return None;
        }
        let head = Head::new(OpKind::Read, self.slot.offset(), SLOT_BYTES as u64)
            .with_tag(Tag::open(Role::Metadata).word());
        let mut op = parts.pool.take(head)?;
        op.push(lease).ok()?;
        match self.stores.submit(Role::Metadata, op) {
            Ok(()) => {
                self.stores.notify();
                None
            }
            Err(mut op) if op.status() == Status::Failed(DeviceError::Busy) => {
                if let Some(lease) = op.pop() {
                    self.state = State::Ready(lease);
                }
                // The op is empty and its own pool's.
                let _ = parts.pool.put(op);
                None
            }
            Err(op) => Some(op),
        }
    }

    /// A read came home: the next slot, the same once more, or the end, which the lease is returned
    /// for.
    fn on_read(&mut self, mut op: Op) -> Option<Lease> {
        let parts = self.parts.as_mut()?;
        let at = self.slot.offset() as usize;
        let target = parts.bytes.get_mut(at..at + SLOT_BYTES).unwrap_or(&mut []);
        let result = match op.status() {
            Status::Done if op.copy_out(0, target) == SLOT_BYTES => Ok(()),
            Status::Failed(error) => Err(error),
            Status::Done | Status::Pending => Err(DeviceError::Protocol),
        };
        let lease = op.pop();
        // A foreign op stays out of the pool, and the memory is then reported as lost.
        let _ = parts.pool.put(op);
        let again = match result {
            Ok(()) => false,
            Err(DeviceError::Io | DeviceError::Unreadable)
                if self.failed.is_none() && !self.control =>
            {
                true
            }
            Err(error @ (DeviceError::Io | DeviceError::Unreadable)) if !self.control => {
                target.fill(0);
                self.unreadable = Some((self.slot, error));
                false
            }
            Err(error) => {
                self.fail(metadata_failed(error), lease);
                return None;
            }
        };
        self.failed = result.err().filter(|_| again);
        let Some(lease) = lease else {
            self.fail(metadata_failed(DeviceError::Protocol), None);
            return None;
        };
        if !again {
            match self.unreadable {
                _ if self.control => return Some(lease),
                _ if self.slot == SlotIndex::First => self.slot = SlotIndex::Second,
                Some((slot, _)) => (self.slot, self.control) = (slot.other(), true),
                None => return Some(lease),
            }
        }
        self.state = State::Ready(lease);
        None
    }

    fn fail(&mut self, error: OpenError, lease: Option<Lease>) {
        self.state = State::Ended(Err(error), lease);
    }

    /// All is read. A layout is large and stacks are small: it has a frame of its own, once.
    #[inline(never)]
    fn end(&mut self, lease: Lease) {
        self.state = State::Ended(self.layout(), Some(lease));
    }

    #[inline(never)]
    fn layout(&self) -> Result<Layout, OpenError> {
        let bytes: &[u8] = self.parts.as_ref().map_or(&[], |parts| &parts.bytes);
        let unreadable = self.unreadable.map(|(_, error)| metadata_failed(error));
        let mut chosen = ChosenSlot::NONE;
        let read = chosen.read(bytes, &self.options.limits);
        match (read, unreadable) {
            // It has fields on both pages: what is missing would look like zeros.
            (Ok(()), Some(error)) if chosen.header.dialect == Dialect::Reference => Err(error),
            (Ok(()), _) => Layout::new(&self.stores, &chosen, &self.options, self.purpose),
            (Err(_), Some(error)) => Err(error),
            (Err(error), None) => Err(error.into()),
        }
    }

    /// When to poll next.
    pub fn poll_at(&self) -> When {
        match self.state {
            State::Reading => self.stores.poll_at(),
            State::Ready(_) | State::Ended(..) => When::Now,
        }
    }

    /// The layout, with devices and memory.
    ///
    /// # Errors
    /// Why the image can not be opened, likewise with devices and memory. Before [`Probe::poll`] was
    /// ready, the read in flight counts as failed and the memory as lost.
    pub fn finish(self) -> Result<Probed<S>, ProbeFailure<S>> {
        let (result, lease) = match self.state {
            State::Ended(result, lease) => (result, lease),
            State::Ready(lease) => (Err(metadata_failed(DeviceError::Cancelled)), Some(lease)),
            State::Reading => (Err(metadata_failed(DeviceError::Cancelled)), None),
        };
        let memory = match (self.unused, self.parts) {
            (Some(memory), _) => Some(memory),
            (
                None,
                Some(Parts {
                    mut arena,
                    pool,
                    bytes,
                }),
            ) => {
                let lease_home = lease.is_some_and(|lease| arena.reclaim_lease(lease).is_ok());
                let home =
                    lease_home & pool.reclaim(&mut arena).is_ok() & arena.reclaim(bytes).is_ok();
                if home { arena.finish().ok() } else { None }
            }
            (None, None) => None,
        };
        match result {
            Ok(layout) => Ok(Probed {
                stores: self.stores,
                layout,
                memory,
            }),
            Err(error) => Err(ProbeFailure {
                stores: self.stores,
                memory,
                error,
            }),
        }
    }
}

const fn metadata_failed(error: DeviceError) -> OpenError {
    OpenError::Device {
        role: Role::Metadata,
        error,
    }
}
