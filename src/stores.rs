//! The devices behind a disk, as one parameter.
//!
//! A disk has up to three roles to fill (metadata, data, base), often with fewer devices. `Stores`
//! merges whatever there is into one stream of completions, so that one device can play two roles
//! without being borrowed twice. A store that is a trait object costs nothing measurable; use
//! generics for the first level and `dyn` below to keep chained types short.
//!
//! Opening moves the stores by value from step to step. A driver that carries its queues inside
//! (kilobytes) is better lent, as `One(&mut driver)`, than handed over: the moves cost code and stack.

use core::task::Waker;

use crate::buffer::Op;
use crate::device::{BlockDevice, Geometry, When};
use crate::units::Instant;

/// What a device is used for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// Header, bitmap, table, checksums, journal.
    Metadata,
    /// Chunks.
    Data,
    /// The read-only base.
    Base,
}

/// The devices of one disk.
pub trait Stores {
    /// Whether metadata and data are on the same device, so that one flush covers both.
    const SHARED: bool;

    /// What the device in a role is like; `None` if the role is not filled.
    fn geometry(&self, role: Role) -> Option<Geometry>;

    /// Starts an operation on the device in a role.
    ///
    /// # Errors
    /// The refused op. An op for a role that is not filled is refused as `Unsupported`.
    fn submit(&mut self, role: Role, op: Op) -> Result<(), Op>;

    /// Kicks every device once.
    fn notify(&mut self);

    /// The next completion of any device.
    fn poll(&mut self, now: Instant) -> Option<Op>;

    /// When to poll next.
    fn poll_at(&self) -> When;

    /// Registers whom to wake. True only if every device can wake.
    fn set_waker(&mut self, waker: &Waker) -> bool;
}

/// Metadata and data on one device.
#[derive(Debug)]
pub struct One<D>(pub D);

impl<D: BlockDevice> Stores for One<D> {
    const SHARED: bool = true;

    fn geometry(&self, role: Role) -> Option<Geometry> {
        match role {
            Role::Metadata | Role::Data => Some(self.0.geometry()),
            Role::Base => None,
        }
    }

    #[inline]
    fn submit(&mut self, role: Role, op: Op) -> Result<(), Op> {
        match role {
            Role::Metadata | Role::Data => self.0.submit(op),
            Role::Base => crate::device::refuse(op, crate::device::DeviceError::Unsupported),
        }
    }

    fn notify(&mut self) {
        self.0.notify();
    }

    #[inline]
    fn poll(&mut self, now: Instant) -> Option<Op> {
        self.0.poll(now)
    }

    fn poll_at(&self) -> When {
        self.0.poll_at()
    }

    fn set_waker(&mut self, waker: &Waker) -> bool {
        self.0.set_waker(waker)
    }
}

/// Metadata on one device, data on another.
#[derive(Debug)]
pub struct Two<M, D> {
    metadata: M,
    data: D,
    /// Which device to ask first, in turn, so that neither starves.
    turn: bool,
}

impl<M, D> Two<M, D> {
    /// Puts both devices together.
    pub const fn new(metadata: M, data: D) -> Two<M, D> {
        Two {
            metadata,
            data,
            turn: false,
        }
    }

    /// Takes them apart again.
    pub fn into_parts(self) -> (M, D) {
        (self.metadata, self.data)
    }

    /// Both devices.
    pub const fn parts(&self) -> (&M, &D) {
        (&self.metadata, &self.data)
    }

    /// Both devices, to change them.
    pub const fn parts_mut(&mut self) -> (&mut M, &mut D) {
        (&mut self.metadata, &mut self.data)
    }
}

impl<M: BlockDevice, D: BlockDevice> Stores for Two<M, D> {
    const SHARED: bool = false;

    fn geometry(&self, role: Role) -> Option<Geometry> {
        match role {
            Role::Metadata => Some(self.metadata.geometry()),
            Role::Data => Some(self.data.geometry()),
            Role::Base => None,
        }
    }

    fn submit(&mut self, role: Role, op: Op) -> Result<(), Op> {
        match role {
            Role::Metadata => self.metadata.submit(op),
            Role::Data => self.data.submit(op),
            Role::Base => crate::device::refuse(op, crate::device::DeviceError::Unsupported),
        }
    }

    fn notify(&mut self) {
        self.metadata.notify();
        self.data.notify();
    }

    fn poll(&mut self, now: Instant) -> Option<Op> {
        self.turn = !self.turn;
        if self.turn {
            self.data.poll(now).or_else(|| self.metadata.poll(now))
        } else {
            self.metadata.poll(now).or_else(|| self.data.poll(now))
        }
    }

    fn poll_at(&self) -> When {
        self.metadata.poll_at().min(self.data.poll_at())
    }

    fn set_waker(&mut self, waker: &Waker) -> bool {
        // Both must hear of the waker, so no short-circuit.
        self.metadata.set_waker(waker) & self.data.set_waker(waker)
    }
}

/// Stores with a base beside them.
#[derive(Debug)]
pub struct WithBase<S, B> {
    stores: S,
    base: B,
    turn: bool,
}

impl<S, B> WithBase<S, B> {
    /// Adds a base.
    pub const fn new(stores: S, base: B) -> WithBase<S, B> {
        WithBase {
            stores,
            base,
            turn: false,
        }
    }

    /// Takes them apart again.
    pub fn into_parts(self) -> (S, B) {
        (self.stores, self.base)
    }

    /// The stores and the base.
    pub const fn parts(&self) -> (&S, &B) {
        (&self.stores, &self.base)
    }

    /// The stores and the base, to change them.
    pub const fn parts_mut(&mut self) -> (&mut S, &mut B) {
        (&mut self.stores, &mut self.base)
    }
}

impl<S: Stores, B: BlockDevice> Stores for WithBase<S, B> {
    const SHARED: bool = S::SHARED;

    fn geometry(&self, role: Role) -> Option<Geometry> {
        match role {
            Role::Metadata | Role::Data => self.stores.geometry(role),
            Role::Base => Some(self.base.geometry()),
        }
    }

    #[inline]
    fn submit(&mut self, role: Role, op: Op) -> Result<(), Op> {
        match role {
            Role::Metadata | Role::Data => self.stores.submit(role, op),
            Role::Base => self.base.submit(op),
        }
    }

    fn notify(&mut self) {
        self.stores.notify();
        self.base.notify();
    }

    fn poll(&mut self, now: Instant) -> Option<Op> {
        self.turn = !self.turn;
        if self.turn {
            self.stores.poll(now).or_else(|| self.base.poll(now))
        } else {
            self.base.poll(now).or_else(|| self.stores.poll(now))
        }
    }

    fn poll_at(&self) -> When {
        self.stores.poll_at().min(self.base.poll_at())
    }

    fn set_waker(&mut self, waker: &Waker) -> bool {
        self.stores.set_waker(waker) & self.base.set_waker(waker)
    }
}
