//! Making, opening, running and closing a disk.

use core::mem::MaybeUninit;
use core::task::{Poll, Waker};

use fvd::buffer::Op;
use fvd::create::{Create, Created};
use fvd::device::{BlockDevice, Geometry, When};
use fvd::format::{CreateParams, Header, LayoutError, plan_layout};
use fvd::open::{Layout, OpenFailure, OpenOptions, Opening, Probe, ProbeFailure, Probed};
use fvd::stores::{One, Stores};
#[cfg(feature = "stores")]
use fvd::stores::{Two, WithBase};
use fvd::units::Instant;
use fvd::{CancelOutcome, Closed, Closing, Disk, RequestId, StaleRequest, Stats};
#[cfg(feature = "check")]
use fvd::{
    check::{Extent, Usage},
    units::GuestOffset,
};

use crate::Unknown;

type Memory = &'static mut [MaybeUninit<u8>];

/// Every function of a disk and of its way in and out.
#[allow(dead_code)] // kept, never called
pub struct DiskCalls<S: Stores + 'static> {
    probe_new: fn(S, Memory, OpenOptions) -> Probe<S>,
    probe_poll: fn(&mut Probe<S>, Instant) -> Poll<()>,
    probe_poll_at: fn(&Probe<S>) -> When,
    probe_finish: fn(Probe<S>) -> Result<Probed<S>, ProbeFailure<S>>,
    opening_new: fn(S, Layout, Memory) -> Opening<S>,
    opening_poll: fn(&mut Opening<S>, Instant) -> Poll<()>,
    opening_poll_at: fn(&Opening<S>) -> When,
    opening_finish: fn(Opening<S>) -> Result<Disk<S>, OpenFailure<S>>,
    geometry: fn(&Disk<S>) -> Geometry,
    start: fn(&mut Disk<S>, Op) -> Result<RequestId, Op>,
    submit: fn(&mut Disk<S>, Op) -> Result<(), Op>,
    notify: fn(&mut Disk<S>),
    poll: fn(&mut Disk<S>, Instant) -> Option<Op>,
    run: fn(&mut Disk<S>, Instant),
    reap: fn(&mut Disk<S>) -> Option<Op>,
    poll_at: fn(&Disk<S>) -> When,
    set_waker: fn(&mut Disk<S>, &Waker) -> bool,
    cancel: fn(&mut Disk<S>, RequestId) -> Result<CancelOutcome, StaleRequest>,
    request_checkpoint: fn(&mut Disk<S>),
    stats: fn(&Disk<S>) -> Stats,
    header: fn(&Disk<S>) -> &Header,
    is_poisoned: fn(&Disk<S>) -> bool,
    in_flight: fn(&Disk<S>) -> usize,
    close: fn(Disk<S>) -> Closing<S>,
    abandon: fn(Disk<S>) -> Closing<S>,
    closing_abandon: fn(Closing<S>) -> Closing<S>,
    closing_poll: fn(&mut Closing<S>, Instant) -> Poll<()>,
    closing_reap: fn(&mut Closing<S>) -> Option<Op>,
    closing_poll_at: fn(&Closing<S>) -> When,
    closing_finish: fn(Closing<S>) -> Result<Closed<S>, Closing<S>>,
}

impl<S: Stores + 'static> DiskCalls<S> {
    const ALL: DiskCalls<S> = DiskCalls {
        probe_new: Probe::new,
        probe_poll: Probe::poll,
        probe_poll_at: Probe::poll_at,
        probe_finish: Probe::finish,
        opening_new: Opening::new,
        opening_poll: Opening::poll,
        opening_poll_at: Opening::poll_at,
        opening_finish: Opening::finish,
        geometry: <Disk<S> as BlockDevice>::geometry,
        start: Disk::start,
        submit: <Disk<S> as BlockDevice>::submit,
        notify: <Disk<S> as BlockDevice>::notify,
        poll: <Disk<S> as BlockDevice>::poll,
        run: Disk::run,
        reap: Disk::reap,
        poll_at: <Disk<S> as BlockDevice>::poll_at,
        set_waker: <Disk<S> as BlockDevice>::set_waker,
        cancel: Disk::cancel,
        request_checkpoint: Disk::request_checkpoint,
        stats: Disk::stats,
        header: Disk::header,
        is_poisoned: Disk::is_poisoned,
        in_flight: Disk::in_flight,
        close: Disk::close,
        abandon: Disk::abandon,
        closing_abandon: Closing::abandon,
        closing_poll: Closing::poll,
        closing_reap: Closing::reap,
        closing_poll_at: Closing::poll_at,
        closing_finish: Closing::finish,
    };
}

/// A new image on a device.
#[allow(dead_code)] // kept, never called
pub struct CreateCalls<D: BlockDevice + 'static> {
    new: fn(D, Header, bool, Memory) -> Create<D>,
    poll: fn(&mut Create<D>, Instant) -> Poll<()>,
    poll_at: fn(&Create<D>) -> When,
    finish: fn(Create<D>) -> Created<D>,
}

// What the size of the core is about: one engine on one device, and creating.
keep! {
    DiskCalls<One<Unknown>> = DiskCalls::ALL;
    CreateCalls<Unknown> = CreateCalls {
        new: Create::new,
        poll: Create::poll,
        poll_at: Create::poll_at,
        finish: Create::finish,
    };
    fn(&CreateParams) -> Result<Header, LayoutError> = plan_layout;
    fn(&Layout) -> usize = Layout::arena_bytes;
}

#[cfg(feature = "stores")]
keep! {
    DiskCalls<Two<Unknown, Unknown>> = DiskCalls::ALL;
    DiskCalls<WithBase<One<Unknown>, Unknown>> = DiskCalls::ALL;
    DiskCalls<WithBase<Two<Unknown, Unknown>, Unknown>> = DiskCalls::ALL;
}

#[cfg(feature = "check")]
keep! {
    fn(&Disk<One<Unknown>>, GuestOffset) -> Option<Extent> = Disk::extent_at;
    fn(&Disk<One<Unknown>>) -> Usage = Disk::usage;
}
