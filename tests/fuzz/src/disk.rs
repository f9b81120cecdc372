//! Whole images and open disks.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};

use fvd::Disk;
use fvd::blocking::{self, Blocking};
use fvd::buffer::{Arena, Head, Loan, Op, OpPool};
use fvd::device::{BlockDevice, DeviceError, OpFlags, OpKind, Status, When};
use fvd::open::{OpenError, OpenOptions, Opening, Probe};
use fvd::units::Instant;

use crate::bench::Bench;
use crate::common;
use crate::device::Devices;
use crate::edit::{chosen, edited, edited_old};
use crate::image::{DISK, Image, options};
use crate::input::Input;

type Memory = &'static mut [core::mem::MaybeUninit<u8>];

const ARENA_BYTES: usize = 320 << 10;
const BUFFER_BYTES: usize = 80 << 10;

/// Memory that outlives one input, since an arena can not be freed.
struct Lent {
    bench: Bench,
    arena: Option<Memory>,
    buffer: Option<Memory>,
    pool: OpPool,
}

thread_local! {
    static LENT: RefCell<Lent> = RefCell::new(Lent {
        bench: Bench::new(),
        arena: Some(common::memory(ARENA_BYTES)),
        buffer: Some(common::memory(BUFFER_BYTES)),
        pool: {
            let memory = common::memory(OpPool::arena_bytes(4));
            let mut arena = Arena::new(memory).expect("aligned");
            OpPool::carve(&mut arena, 4).expect("room")
        },
    });
}

fn with_lent(act: impl FnOnce(&mut Lent)) {
    LENT.with(|lent| act(&mut lent.borrow_mut()));
}

/// Opens an image of 2011 that was changed anywhere; nothing in it has a checksum.
pub fn old(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let image = edited_old(&mut input);
    with_lent(|lent| {
        let mut devices = image.devices::<true>();
        devices.fail_at = u64::from(input.u8()).checked_sub(1);
        let (mut devices, _) = lent.bench.open(devices, options());
        devices.rewind();
        let read_only = OpenOptions {
            read_only: true,
            ..options()
        };
        let (devices, _) = lent.bench.open(devices, read_only);
        assert_eq!((devices.writes(), devices.faults), (0, Vec::new()));
    });
}

/// Opens an image that was changed in up to 16 places.
pub fn image(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (image, _) = edited(&mut input);
    let fail_at = u64::from(input.u8());
    fn open<const SHARED: bool>(lent: &mut Lent, image: &Image, fail_at: u64) {
        let mut devices = image.devices::<SHARED>();
        devices.fail_at = fail_at.checked_sub(1);
        let (devices, _) = lent.bench.open(devices, options());
        assert_eq!(devices.faults, [""; 0]);
    }
    with_lent(|lent| {
        if image.data.is_some() {
            open::<false>(lent, &image, fail_at);
        } else {
            open::<true>(lent, &image, fail_at);
        }
    });
}

fn idle() -> impl FnMut(When) -> Instant {
    let mut turns = 0;
    move |_| {
        turns += 1;
        assert!(turns < 100_000, "waits for ever");
        Instant::ZERO
    }
}

/// Opens in memory that comes back whatever happens.
fn open<const SHARED: bool>(
    lent: &mut Lent,
    devices: Devices<SHARED>,
) -> Result<Disk<Devices<SHARED>>, OpenError> {
    let memory = lent.arena.take().expect("the arena is home");
    let mut probe = Probe::new(devices, memory, options());
    while probe.poll(Instant::ZERO).is_pending() {}
    let probed = match probe.finish() {
        Ok(probed) => probed,
        Err(failure) => {
            lent.arena = failure.memory;
            return Err(failure.error);
        }
    };
    let memory = probed.memory.expect("the probe gives its memory back");
    let mut opening = Opening::new(probed.stores, probed.layout, memory);
    while opening.poll(Instant::ZERO).is_pending() {}
    opening.finish().map_err(|failure| {
        lent.arena = failure.memory;
        failure.error
    })
}

/// Lets go of a disk, as a crash would that loses nothing from the devices' caches.
fn abandon<const SHARED: bool>(lent: &mut Lent, disk: Disk<Devices<SHARED>>) -> Devices<SHARED> {
    let mut closing = disk.abandon();
    let mut idle = idle();
    while closing.poll(Instant::ZERO).is_pending() {
        idle(When::Now);
    }
    let closed = closing
        .finish()
        .unwrap_or_else(|_| panic!("nothing in flight"));
    lent.arena = closed.memory;
    closed.stores
}

/// What a guest may read: the last thing written, or, after a crash, what was there at the last
/// flush or since.
struct Model {
    now: Vec<u8>,
    /// Earlier contents of sectors since the last flush.
    earlier: HashMap<usize, Vec<Vec<u8>>>,
}

impl Model {
    /// A change is about to happen to these sectors.
    fn remember(&mut self, at: usize, len: usize) {
        for sector in at / 512..(at + len) / 512 {
            let old = self.now[sector * 512..][..512].to_vec();
            self.earlier.entry(sector).or_default().push(old);
        }
    }

    /// Holds the disk against the model where it may be any of what it was, and takes what it is.
    fn settle(&mut self, at: usize, found: &[u8]) {
        for (index, bytes) in found.chunks(512).enumerate() {
            let sector = at / 512 + index;
            let now = &mut self.now[sector * 512..][..bytes.len()];
            let before = self.earlier.get(&sector);
            let legal =
                now == bytes || before.is_some_and(|old| old.iter().any(|old| old == bytes));
            assert!(legal, "sector {sector} reads what it never held");
            now.copy_from_slice(bytes);
        }
    }
}

/// Opens an image and uses it as a guest would.
pub fn operations(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let (image, lies) = edited(&mut input);
    with_lent(|lent| {
        if image.data.is_some() {
            operate(lent, image.devices::<false>(), lies, &mut input);
        } else {
            operate(lent, image.devices::<true>(), lies, &mut input);
        }
    });
}

fn operate<const SHARED: bool>(
    lent: &mut Lent,
    devices: Devices<SHARED>,
    lies: bool,
    input: &mut Input<'_>,
) {
    let Ok(mut disk) = open(lent, devices) else {
        return;
    };
    if lies {
        clear_free_chunks(&mut disk);
    }
    let size = disk.geometry().capacity_bytes as usize;
    if size == 0 || size > 4 * DISK as usize {
        abandon(lent, disk);
        return;
    }
    let mut model = Model {
        now: vec![0; size],
        earlier: HashMap::new(),
    };
    let buffer = lent.buffer.take().expect("the buffer is home");
    let mut disk = Blocking::new(disk, buffer, idle()).unwrap_or_else(|_| panic!("room"));
    let mut alive = disk.read_at(0, &mut model.now).is_ok();
    for _ in 0..40 {
        if input.is_empty() || !alive {
            break;
        }
        match input.u8() % 12 {
            0 => {
                // A crash, or a clean close; then the disk is read as a whole.
                let clean = input.u8().is_multiple_of(2);
                let (inner, buffer) = disk.into_parts();
                let devices = if clean {
                    let closed = blocking::close(inner, idle(), drop);
                    lent.arena = closed.memory;
                    assert_eq!(closed.result, Ok(()));
                    model.earlier.clear();
                    closed.stores
                } else {
                    abandon(lent, inner)
                };
                let inner = open(lent, devices).expect("what was open once opens again");
                let buffer = buffer.expect("the buffer is home");
                disk = Blocking::new(inner, buffer, idle()).unwrap_or_else(|_| panic!("room"));
                let mut found = vec![0; size];
                disk.read_at(0, &mut found).expect("reads");
                model.settle(0, &found);
                model.earlier.clear();
            }
            step => alive = request(&mut disk, &mut model, step, input),
        }
    }
    let (disk, buffer) = disk.into_parts();
    lent.buffer = buffer;
    assert_eq!(disk.stats().protocol_errors, 0);
    let devices = abandon(lent, disk);
    assert_eq!(devices.faults, [""; 0]);
}

/// Makes true what a forged header or record says of space that was never written: that it reads zeros.
/// Only they could know, and the engine believes them.
fn clear_free_chunks<const SHARED: bool>(disk: &mut Disk<Devices<SHARED>>) {
    let header = disk.header();
    let (core, store_bytes) = (&header.core, header.store_bytes);
    if !core.table.exists() {
        return;
    }
    let table = core.table.offset as usize..(core.table.offset + core.table.bytes) as usize;
    let (start, chunk) = (core.data_offset, core.chunk_bytes);
    let devices = disk.stores_mut();
    // Opening left every entry in its place.
    let mapped: HashSet<u32> = devices.metadata.bytes[table]
        .chunks_exact(4)
        .map(|entry| u32::from_le_bytes(entry.try_into().expect("four")))
        .collect();
    let store = devices.data.as_mut().unwrap_or(&mut devices.metadata);
    let end = store_bytes.min(store.bytes.len() as u64);
    for (index, at) in (start..end).step_by(chunk as usize).enumerate() {
        if !mapped.contains(&(index as u32)) {
            store.bytes[at as usize..(at + chunk).min(end) as usize].fill(0);
        }
    }
}

/// One request. False when the disk takes no more writes.
fn request<const SHARED: bool, I: FnMut(When) -> Instant>(
    disk: &mut Blocking<Disk<Devices<SHARED>>, I>,
    model: &mut Model,
    step: u8,
    input: &mut Input<'_>,
) -> bool {
    let sectors = model.now.len() / 512;
    let first = usize::from(input.u8()) % sectors;
    let count = (1 + usize::from(input.u8()) % 40).min(sectors - first);
    let (at, len) = (first * 512, count * 512);
    let result = match step {
        1..=2 => {
            let mut found = vec![0; len];
            if disk.read_at(at as u64, &mut found).is_ok() {
                assert!(found == model.now[at..at + len], "sectors {first}+{count}");
            }
            return true;
        }
        3..=4 => {
            let result = disk.flush();
            if result.is_ok() {
                model.earlier.clear();
            }
            return result.is_ok();
        }
        5 => {
            model.remember(at, len);
            let result = disk.write_zeroes_at(at as u64, len as u64);
            model.now[at..at + len].fill(0);
            result
        }
        6 => {
            model.remember(at, len);
            let result = disk.discard_at(at as u64, len as u64);
            model.remember_zeros(at, len);
            result
        }
        _ => {
            model.remember(at, len);
            let data = vec![input.u8(); len];
            let result = disk.write_at(at as u64, &data);
            model.now[at..at + len].copy_from_slice(&data);
            result
        }
    };
    if step == 6 || result.is_err() {
        let mut found = vec![0; len];
        if disk.read_at(at as u64, &mut found).is_err() {
            return false;
        }
        model.settle(at, &found);
    }
    !matches!(result, Err(DeviceError::Poisoned | DeviceError::Protocol))
}

impl Model {
    /// A discarded sector may read zeros from now on.
    fn remember_zeros(&mut self, at: usize, len: usize) {
        for sector in at / 512..(at + len) / 512 {
            self.earlier.entry(sector).or_default().push(vec![0; 512]);
        }
    }
}

const KINDS: [OpKind; 6] = [
    OpKind::Read,
    OpKind::Write,
    OpKind::Flush,
    OpKind::Discard,
    OpKind::WriteZeroes,
    OpKind::Grow,
];

/// Submits requests that nobody in his right mind would send.
pub fn requests(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let image = chosen(input.u8());
    with_lent(|lent| {
        if image.data.is_some() {
            submit_all(lent, image.devices::<false>(), &mut input);
        } else {
            submit_all(lent, image.devices::<true>(), &mut input);
        }
    });
}

fn submit_all<const SHARED: bool>(
    lent: &mut Lent,
    devices: Devices<SHARED>,
    input: &mut Input<'_>,
) {
    let mut disk = open(lent, devices).expect("golden");
    for _ in 0..16 {
        if input.is_empty() {
            break;
        }
        submit_one(lent, &mut disk, input);
    }
    assert_eq!(disk.stats().protocol_errors, 0);
    let devices = abandon(lent, disk);
    assert_eq!(devices.faults, [""; 0]);
}

fn submit_one<const SHARED: bool>(
    lent: &mut Lent,
    disk: &mut Disk<Devices<SHARED>>,
    input: &mut Input<'_>,
) {
    let geometry = disk.geometry();
    let capacity = geometry.capacity_bytes;
    let places = [0, capacity / 2, capacity, 1 << 32, 1 << 63, u64::MAX, 4096];
    let kind = KINDS[usize::from(input.u8()) % KINDS.len()];
    let flags = match input.u8() % 4 {
        0 => OpFlags::FUA,
        1 => OpFlags::MAY_UNMAP,
        2 => OpFlags::FUA.union(OpFlags::MAY_UNMAP),
        _ => OpFlags::NONE,
    };
    let offset = input.edge(&places);
    let lease_bytes = usize::from(input.u16())
        & if input.u8().is_multiple_of(2) {
            !511
        } else {
            !0
        };
    let len = if input.u8().is_multiple_of(3) {
        input.edge(&places)
    } else {
        lease_bytes as u64
    };
    let head = Head::new(kind, offset, len).with_flags(flags).with_tag(77);
    let mut op = lent.pool.take(head).expect("ops come back");
    let mut loan = None;
    if lease_bytes != 0
        && !matches!(kind, OpKind::Flush | OpKind::Grow) | input.u8().is_multiple_of(8)
    {
        let buffer = vec![0x11u8; lease_bytes.max(1)].into_boxed_slice();
        let Ok((kept, lease)) = Loan::new(buffer) else {
            panic!("not empty")
        };
        assert!(op.push(lease).is_ok());
        loan = Some(kept);
    }
    let legal = geometry.check(&op);
    let before = disk.stores().operations;
    let mut op = match disk.submit(op) {
        Err(op) => {
            assert_eq!(
                disk.stores().operations,
                before,
                "refused, and done all the same"
            );
            let Status::Failed(error) = op.status() else {
                panic!("a refusal without a reason")
            };
            assert_eq!(legal, Err(error), "{head:?}");
            op
        }
        Ok(()) => {
            assert_eq!(legal, Ok(()), "{head:?}");
            complete(disk)
        }
    };
    assert_eq!(
        (op.tag(), op.kind(), op.offset(), op.len()),
        (77, kind, offset, len)
    );
    if let Some(mut loan) = loan {
        let lease = op.pop().expect("the lease came back");
        assert!(loan.give(lease).is_ok());
        assert!(loan.finish().is_ok());
    }
    assert!(lent.pool.put(op).is_ok());
}

/// Waits for the one request in flight.
fn complete<const SHARED: bool>(disk: &mut Disk<Devices<SHARED>>) -> Op {
    disk.notify();
    let mut idle = idle();
    loop {
        if let Some(op) = disk.poll(idle(When::Now)) {
            assert_ne!(op.status(), Status::Pending);
            assert!(
                disk.poll(Instant::ZERO).is_none(),
                "two completions of one request"
            );
            return op;
        }
    }
}
