//! Stores of a host image: whatever holds metadata and data, and a base if there is one.

use core::task::Waker;

use fvd::buffer::Op;
use fvd::device::{BlockDevice, Counts, DeviceError, Geometry, When, refuse};
use fvd::stores::{Role, Stores};
use fvd::units::Instant;

use super::base::Base;

/// Stores with a base beside them, or none.
pub(super) struct HostStores<S> {
    stores: S,
    base: Option<Base>,
    /// Whom to ask first, in turn, so that neither starves.
    turn: bool,
    counts: DeviceCounts,
}

/// Operations that the engine sent to the devices of an image, by what they are for. A flush of a
/// device with metadata and data counts once.
///
/// Counted when they are accepted; `refusals`, `done` and `failed` stay 0.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DeviceCounts {
    /// Header, journal, table, bitmap.
    pub metadata: Counts,
    /// The guest's bytes.
    pub data: Counts,
    /// The base.
    pub base: Counts,
}

impl DeviceCounts {
    fn of_mut(&mut self, role: Role) -> &mut Counts {
        match role {
            Role::Metadata => &mut self.metadata,
            Role::Data => &mut self.data,
            Role::Base => &mut self.base,
        }
    }
}

impl<S> HostStores<S> {
    pub(super) fn new(stores: S, base: Option<Base>) -> HostStores<S> {
        HostStores {
            stores,
            base,
            turn: false,
            counts: DeviceCounts::default(),
        }
    }

    pub(super) fn counts(&self) -> DeviceCounts {
        self.counts
    }

    pub(super) fn base(&self) -> Option<&Base> {
        self.base.as_ref()
    }

    /// The base, for whoever ends the session.
    pub(super) fn into_base(self) -> Option<Base> {
        self.base
    }
}

impl<S: Stores> Stores for HostStores<S> {
    const SHARED: bool = S::SHARED;

    fn geometry(&self, role: Role) -> Option<Geometry> {
        match role {
            Role::Metadata | Role::Data => self.stores.geometry(role),
            Role::Base => self.base.as_ref().map(Base::geometry),
        }
    }

    fn submit(&mut self, role: Role, op: Op) -> Result<(), Op> {
        let head = op.head();
        match (role, &mut self.base) {
            (Role::Metadata | Role::Data, _) => self.stores.submit(role, op),
            (Role::Base, Some(base)) => base.submit(op),
            (Role::Base, None) => refuse(op, DeviceError::Unsupported),
        }?;
        self.counts.of_mut(role).accept(&head);
        Ok(())
    }

    fn notify(&mut self) {
        self.stores.notify();
        if let Some(base) = &mut self.base {
            base.notify();
        }
    }

    fn poll(&mut self, now: Instant) -> Option<Op> {
        let Some(base) = &mut self.base else {
            return self.stores.poll(now);
        };
        self.turn = !self.turn;
        if self.turn {
            self.stores.poll(now).or_else(|| base.poll(now))
        } else {
            base.poll(now).or_else(|| self.stores.poll(now))
        }
    }

    fn poll_at(&self) -> When {
        let base = self.base.as_ref().map_or(When::Event, Base::poll_at);
        self.stores.poll_at().min(base)
    }

    fn set_waker(&mut self, waker: &Waker) -> bool {
        // All must hear of the waker, so no short-circuit.
        let base = self.base.as_mut().is_none_or(|base| base.set_waker(waker));
        self.stores.set_waker(waker) & base
    }
}
