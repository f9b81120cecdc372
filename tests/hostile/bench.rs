//! Opens an image, reads all of it, and checks what must hold whatever the image says.
//!
//! For every image and every failing operation:
//!
//! 1. no panic, and no operation outside the devices;
//! 2. device operations and polls stay below bounds that follow from the size of the metadata;
//! 3. nothing is written unless opening succeeds, and nothing ever when opened read-only;
//! 4. no memory that nobody wrote to is written to a device or shown to the guest;
//! 5. the memory comes back, and the next opening works in it.

use core::mem::MaybeUninit;
use core::task::Poll;

use fvd::Disk;
use fvd::blocking::{Blocking, blocking_arena_bytes};
use fvd::device::{BlockDevice, When};
use fvd::format::FormatErrorKind;
use fvd::open::{OpenError, OpenOptions, Opening, Probe};
use fvd::units::Instant;

use crate::common;
use crate::device::{Devices, UNREAD, UNWRITTEN, holds};

/// What is read of a disk, from its start: no more than a test has memory for, whatever a header says.
const READ_BYTES_MAX: u64 = 64 << 20;

/// What opening an image comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    Corrupt,
    Unsupported,
    /// Legal, but more than the caller grants.
    Limit,
    /// Refused for writing; read-only it shows the original contents.
    ReadOnly,
    NeedBase,
    NeedData,
    /// Opens, and the guest sees what the row says; the original contents unless it says more.
    Opens,
}

/// What became of one opening.
pub(crate) struct Outcome {
    pub(crate) result: Result<Vec<u8>, OpenError>,
    /// Operations until the disk was open, or refused.
    pub(crate) operations: u64,
}

pub(crate) fn class_of(error: &OpenError) -> Class {
    match error {
        OpenError::Format(error) => match error.kind {
            FormatErrorKind::Corrupt => Class::Corrupt,
            FormatErrorKind::Unsupported => Class::Unsupported,
            FormatErrorKind::Limit => Class::Limit,
            other => panic!("an answer that this test does not know: {other:?}"),
        },
        OpenError::ArenaTooSmall { .. } => Class::Limit,
        OpenError::NeedsReadOnly { .. } => Class::ReadOnly,
        OpenError::NoBase => Class::NeedBase,
        OpenError::DataDevice { .. } => Class::NeedData,
        other => panic!("not an answer about an image: {other}"),
    }
}

/// Memory for one opening after the other.
pub(crate) struct Bench {
    arena: Option<&'static mut [MaybeUninit<u8>]>,
    guest: Option<&'static mut [MaybeUninit<u8>]>,
}

const ARENA_BYTES: usize = 320 << 10;

fn poison(memory: &mut [MaybeUninit<u8>]) {
    memory.fill(MaybeUninit::new(UNWRITTEN));
}

/// Counts turns, and gives up when there are more than any image may cause.
fn turn(polls: &mut u64, bound: u64) {
    *polls += 1;
    assert!(*polls <= 8 * bound, "more polls than any image may take");
}

impl Bench {
    pub(crate) fn new() -> Bench {
        Bench {
            arena: Some(common::memory(ARENA_BYTES)),
            guest: Some(common::memory(blocking_arena_bytes(128 << 10))),
        }
    }

    /// Opens the image on `devices`, reads all and lets go of it. Writes are left to be looked at.
    pub(crate) fn open<const SHARED: bool>(
        &mut self,
        devices: Devices<SHARED>,
        options: OpenOptions,
    ) -> (Devices<SHARED>, Outcome) {
        let bound = 3 * (devices.metadata.bytes.len() as u64 / 512) + 64;
        let mut polls = 0;
        let memory = self.arena.take().expect("the memory came back");
        poison(memory);
        let mut probe = Probe::new(devices, memory, options);
        while probe.poll(Instant::ZERO) == Poll::Pending {
            turn(&mut polls, bound);
        }
        let probed = match probe.finish() {
            Ok(probed) => probed,
            Err(failure) => {
                return self.refused(failure.stores, failure.memory, failure.error);
            }
        };
        let memory = probed.memory.expect("the probe gives its memory back");
        poison(memory);
        let mut opening = Opening::new(probed.stores, probed.layout, memory);
        while opening.poll(Instant::ZERO) == Poll::Pending {
            turn(&mut polls, bound);
        }
        match opening.finish() {
            Ok(disk) => self.used(disk, bound),
            Err(failure) => self.refused(failure.stores, failure.memory, failure.error),
        }
    }

    fn refused<const SHARED: bool>(
        &mut self,
        devices: Devices<SHARED>,
        memory: Option<&'static mut [MaybeUninit<u8>]>,
        error: OpenError,
    ) -> (Devices<SHARED>, Outcome) {
        self.arena = Some(memory.expect("a refused opening gives its memory back"));
        let failed_late = matches!(error, OpenError::Device { .. });
        assert!(
            failed_late || devices.writes() == 0,
            "written to, then refused: {error}"
        );
        let operations = devices.operations;
        let result = Err(error);
        (devices, Outcome { result, operations })
    }

    /// Reads all and lets go of the disk.
    fn used<const SHARED: bool>(
        &mut self,
        mut disk: Disk<Devices<SHARED>>,
        bound: u64,
    ) -> (Devices<SHARED>, Outcome) {
        // What is to fail is a part of opening.
        disk.stores_mut().fail_at = None;
        let operations = disk.stores().operations;
        assert!(operations <= bound, "{operations} operations to open");
        let guest = self.guest.take().expect("the guest's memory");
        poison(guest);
        let mut polls = 0;
        let idle = |_: When| {
            turn(&mut polls, bound);
            Instant::ZERO
        };
        let size = disk.geometry().capacity_bytes;
        let mut disk = Blocking::new(disk, guest, idle).unwrap_or_else(|_| panic!("room"));
        let mut contents = vec![UNREAD; size.min(READ_BYTES_MAX) as usize];
        disk.read_at(0, &mut contents).expect("reads");
        let (disk, guest) = disk.into_parts();
        self.guest = guest;
        let mut closing = disk.abandon();
        while closing.poll(Instant::ZERO) == Poll::Pending {
            turn(&mut polls, bound);
        }
        let closed = closing
            .finish()
            .unwrap_or_else(|_| panic!("nothing is in flight"));
        self.arena = Some(closed.memory.expect("a disk gives its memory back"));
        assert!(!holds(&contents, UNREAD), "a read that did not happen");
        assert!(!holds(&contents, UNWRITTEN), "memory that nobody wrote to");
        let result = Ok(contents);
        (closed.stores, Outcome { result, operations })
    }
}
