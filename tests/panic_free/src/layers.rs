//! What is built on devices: waiting, streams, sharing.

#[cfg(feature = "blocking")]
mod blocking {
    use core::mem::MaybeUninit;

    use fvd::blocking::{self, Blocking};
    use fvd::buffer::Op;
    use fvd::create::Created;
    use fvd::device::{BlockDevice, DeviceError, When};
    use fvd::format::Header;
    use fvd::open::{OpenFailure, OpenOptions};
    use fvd::stores::One;
    use fvd::units::Instant;
    use fvd::{Closed, Disk};

    use crate::Unknown;

    pub(crate) type Idle = fn(When) -> Instant;
    pub(crate) type Waiting = Blocking<Unknown, Idle>;
    type Memory = &'static mut [MaybeUninit<u8>];
    type Stores = One<Unknown>;
    type Opened = Result<Disk<Stores>, OpenFailure<Stores>>;
    type Range = fn(&mut Waiting, u64, u64) -> Result<(), DeviceError>;

    fn create(device: Unknown, header: Header, memory: Memory, idle: Idle) -> Created<Unknown> {
        blocking::create(device, header, false, memory, idle)
    }

    fn open(stores: Stores, options: OpenOptions, memory: Memory, idle: Idle) -> Opened {
        blocking::open(stores, options, memory, idle)
    }

    fn close(disk: Disk<Stores>, idle: Idle, reaped: fn(Op)) -> Closed<Stores> {
        blocking::close(disk, idle, reaped)
    }

    fn execute(device: &mut dyn BlockDevice, op: Op, idle: Idle, foreign: fn(Op)) -> Op {
        blocking::execute(device, op, idle, foreign)
    }

    keep! {
        fn(Unknown, Header, Memory, Idle) -> Created<Unknown> = create;
        fn(Stores, OpenOptions, Memory, Idle) -> Opened = open;
        fn(Disk<Stores>, Idle, fn(Op)) -> Closed<Stores> = close;
        fn(&mut dyn BlockDevice, Op, Idle, fn(Op)) -> Op = execute;
        fn(u32) -> usize = blocking::blocking_arena_bytes;
        fn(Unknown, Memory, Idle) -> Result<Waiting, Unknown> = Blocking::new;
        fn(Waiting) -> (Unknown, Option<Memory>) = Blocking::into_parts;
        fn(&mut Waiting, u64, &mut [u8]) -> Result<(), DeviceError> = Blocking::read_at;
        fn(&mut Waiting, u64, &[u8]) -> Result<(), DeviceError> = Blocking::write_at;
        fn(&mut Waiting) -> Result<(), DeviceError> = Blocking::flush;
        Range = Blocking::write_zeroes_at;
        Range = Blocking::discard_at;
    }
}

#[cfg(feature = "stream")]
mod stream {
    use embedded_io::{Read, Seek, SeekFrom, Write};
    use fvd::device::DeviceError;
    use fvd::io::Stream;

    use super::blocking::{Idle, Waiting};
    use crate::Unknown;

    type Bytes = Stream<'static, Unknown, Idle>;

    keep! {
        fn(Waiting, &'static mut [u8]) -> Result<Bytes, Waiting> = Stream::new;
        fn(Bytes) -> Waiting = Stream::into_inner;
        fn(&mut Bytes, &mut [u8]) -> Result<usize, DeviceError> = Bytes::read;
        fn(&mut Bytes, &[u8]) -> Result<usize, DeviceError> = Bytes::write;
        fn(&mut Bytes) -> Result<(), DeviceError> = Bytes::flush;
        fn(&mut Bytes, SeekFrom) -> Result<u64, DeviceError> = Bytes::seek;
    }
}

#[cfg(feature = "shared")]
mod shared {
    use core::task::Waker;

    use fvd::buffer::Op;
    use fvd::device::{BlockDevice, Geometry, When};
    use fvd::shared::{Port, Shared};
    use fvd::units::Instant;

    use crate::Unknown;

    type Four = Shared<Unknown, 4>;
    type OfFour = Port<'static, Unknown, 4>;

    fn with(shared: &Four, look: fn(&mut Unknown)) {
        shared.with(look);
    }

    keep! {
        fn(Unknown) -> Four = Shared::new;
        fn(&'static Four, u8) -> Option<OfFour> = Shared::port;
        fn(Four) -> Unknown = Shared::into_inner;
        fn(&Four, fn(&mut Unknown)) = with;
        fn(&OfFour) -> Geometry = OfFour::geometry;
        fn(&mut OfFour, Op) -> Result<(), Op> = OfFour::submit;
        fn(&mut OfFour) = OfFour::notify;
        fn(&mut OfFour, Instant) -> Option<Op> = OfFour::poll;
        fn(&OfFour) -> When = OfFour::poll_at;
        fn(&mut OfFour, &Waker) -> bool = OfFour::set_waker;
    }
}
