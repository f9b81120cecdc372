//! The core's own devices: in memory, and in front of a device of which nothing is known.

use core::task::Waker;

use fvd::buffer::{Head, Op};
use fvd::device::{
    BlockDevice, Counting, Counts, DeviceError, FailNth, Fault, FaultPlan, Geometry, Null, Ram,
    Trace, TraceEvent, Verdict, When,
};
use fvd::units::Instant;

use crate::Unknown;

type Plan = fn(&Head) -> Verdict;
type Sink = fn(TraceEvent, Head);

/// Every function of a device.
#[allow(dead_code)] // kept, never called
pub struct DeviceCalls<D: BlockDevice + 'static> {
    geometry: fn(&D) -> Geometry,
    submit: fn(&mut D, Op) -> Result<(), Op>,
    notify: fn(&mut D),
    poll: fn(&mut D, Instant) -> Option<Op>,
    poll_at: fn(&D) -> When,
    set_waker: fn(&mut D, &Waker) -> bool,
}

impl<D: BlockDevice + 'static> DeviceCalls<D> {
    const ALL: DeviceCalls<D> = DeviceCalls {
        geometry: D::geometry,
        submit: D::submit,
        notify: D::notify,
        poll: D::poll,
        poll_at: D::poll_at,
        set_waker: D::set_waker,
    };
}

keep! {
    DeviceCalls<Ram> = DeviceCalls::ALL;
    DeviceCalls<Null> = DeviceCalls::ALL;
    DeviceCalls<Counting<Unknown>> = DeviceCalls::ALL;
    DeviceCalls<Trace<Unknown, Sink>> = DeviceCalls::ALL;
    DeviceCalls<Fault<Unknown, Plan>> = DeviceCalls::ALL;
    DeviceCalls<Fault<Unknown, FailNth>> = DeviceCalls::ALL;

    fn(&'static mut [u8]) -> Ram = Ram::new;
    fn(Ram) -> Ram = Ram::with_write_zeroes;
    fn(Ram) -> Ram = Ram::with_discard;
    fn(Ram) -> Result<&'static mut [u8], Ram> = Ram::into_memory;
    fn(&mut Counting<Unknown>) -> Counts = Counting::take;
    fn(&Counts) -> u64 = Counts::in_flight;
    fn(&mut Fault<Unknown, Plan>) -> Option<Op> = Fault::take_held;
    fn(&mut Fault<Unknown, Plan>, DeviceError) = Fault::fail_held;
    fn(&mut FailNth, &Head) -> Verdict = FailNth::on_submit;
    fn(&Geometry, &Op) -> Result<(), DeviceError> = Geometry::check;
    fn(When, When) -> When = When::min;
}
