//! First step of opening: reads the header, to know what the image needs.

use core::mem::MaybeUninit;
use core::task::Poll;

use crate::buffer::{Arena, Head, Lease, Op, OpPool, Part};
use crate::device::{DeviceError, OpFlags, OpKind, Status, When};
use crate::engine::Tag;
use crate::format::{Field, FormatError, HEADER_BYTES, SLOT_BYTES, choose_slot};
use crate::stores::{Role, Stores};
use crate::units::Instant;

use super::error::OpenError;
use super::layout::Layout;
use super::options::OpenOptions;
use super::survey::Purpose;

/// Bytes of memory that a [`Probe`] needs.
pub const PROBE_ARENA_BYTES: usize = Arena::staging_bytes(2 * SLOT_BYTES)
    + OpPool::arena_bytes(1)
    + Arena::part_bytes::<u8>(2 * SLOT_BYTES);

struct Parts {
    arena: Arena,
    pool: OpPool,
    bytes: Part<u8>,
}

#[allow(clippy::large_enum_variant)] // there is one, in its probe
enum State {
    /// The read is to be sent.
    Ready(Lease),
    /// The read is in flight.
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
        let failed = |error| State::Ended(Err(error), None);
        if given < PROBE_ARENA_BYTES {
            let error = OpenError::ArenaTooSmall {
                needed: PROBE_ARENA_BYTES,
                given,
            };
            return Probe {
                stores,
                options,
                purpose,
                parts: None,
                unused: Some(memory),
                state: failed(error),
            };
        }
        let mut arena = match Arena::new(memory) {
            Ok(arena) => arena,
            Err(memory) => {
                let state = failed(OpenError::ArenaMisaligned);
                return Probe {
                    stores,
                    options,
                    purpose,
                    parts: None,
                    unused: Some(memory),
                    state,
                };
            }
        };
        let lease = arena.carve_lease(2 * SLOT_BYTES as u32);
        let pool = OpPool::carve(&mut arena, 1);
        let bytes = arena.carve(2 * SLOT_BYTES, 0u8);
        let (Some(lease), Some(pool), Some(bytes)) = (lease, pool, bytes) else {
            // The size was checked, so this is never reached.
            let error = OpenError::ArenaTooSmall {
                needed: PROBE_ARENA_BYTES,
                given,
            };
            return Probe {
                stores,
                options,
                purpose,
                parts: None,
                unused: None,
                state: failed(error),
            };
        };
        let parts = Some(Parts { arena, pool, bytes });
        Probe {
            stores,
            options,
            purpose,
            parts,
            unused: None,
            state: State::Ready(lease),
        }
    }

    /// Moves the probe on. Ready when [`Probe::finish`] can be called.
    pub fn poll(&mut self, now: Instant) -> Poll<()> {
        if let State::Ready(_) = self.state {
            self.start();
        }
        if let State::Reading = self.state
            && let Some(op) = self.stores.poll(now)
        {
            self.on_read(op);
        }
        if let State::Ended(..) = self.state {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }

    fn start(&mut self) {
        let State::Ready(lease) = core::mem::replace(&mut self.state, State::Reading) else {
            return;
        };
        let Some(parts) = &mut self.parts else { return };
        let capacity = self
            .stores
            .geometry(Role::Metadata)
            .map_or(0, |metadata| metadata.capacity_bytes);
        if capacity < HEADER_BYTES {
            // SPEC.md §3.4: what is shorter than a header is a damaged image.
            let error = FormatError::corrupt(Field::HeaderSlot, capacity);
            self.state = State::Ended(Err(error.into()), Some(lease));
            return;
        }
        let head = Head {
            kind: OpKind::Read,
            flags: OpFlags::NONE,
            status: Status::Pending,
            offset: 0,
            len: HEADER_BYTES,
            tag: Tag::open(Role::Metadata).word(),
        };
        let Some(mut op) = parts.pool.take(head) else {
            return;
        };
        if op.push(lease).is_err() {
            return;
        }
        match self.stores.submit(Role::Metadata, op) {
            Ok(()) => self.stores.notify(),
            Err(mut op) if op.status() == Status::Failed(DeviceError::Busy) => {
                if let Some(lease) = op.pop() {
                    self.state = State::Ready(lease);
                }
                // The op is empty and its own pool's.
                let _ = parts.pool.put(op);
            }
            Err(op) => self.on_read(op),
        }
    }

    fn on_read(&mut self, mut op: Op) {
        let Some(parts) = &mut self.parts else { return };
        let result = match op.status() {
            Status::Done if op.copy_out(0, &mut parts.bytes) == 2 * SLOT_BYTES => self.layout(),
            Status::Failed(error) => Err(OpenError::Device {
                role: Role::Metadata,
                error,
            }),
            Status::Done | Status::Pending => Err(OpenError::Device {
                role: Role::Metadata,
                error: DeviceError::Protocol,
            }),
        };
        let lease = op.pop();
        if let Some(parts) = &mut self.parts {
            // A foreign op stays out of the pool, and the memory is then reported as lost.
            let _ = parts.pool.put(op);
        }
        self.state = State::Ended(result, lease);
    }

    fn layout(&self) -> Result<Layout, OpenError> {
        let bytes: &[u8] = self.parts.as_ref().map_or(&[], |parts| &parts.bytes);
        let (first, second) = bytes.split_at_checked(SLOT_BYTES).unwrap_or((&[], &[]));
        let chosen = choose_slot(first, second, &self.options.limits)?;
        Layout::new(&self.stores, &chosen, self.options, self.purpose)
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
            State::Ready(lease) => (Err(not_ready()), Some(lease)),
            State::Reading => (Err(not_ready()), None),
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

const fn not_ready() -> OpenError {
    OpenError::Device {
        role: Role::Metadata,
        error: DeviceError::Cancelled,
    }
}
