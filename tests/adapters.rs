//! The adapters around a disk: chains, blocking, byte stream, shared handle, wakers.

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Wake, Waker};

use common::{BLOCK_BYTES, Client, DISK_BYTES, Setup, result_of};
use embedded_io::{Read, Seek, SeekFrom, Write};
use fvd::Disk;
use fvd::blocking::Blocking;
use fvd::buffer::Op;
use fvd::device::{BlockDevice, DeviceError, Geometry, OpFlags, OpKind, Ram, When};
use fvd::io::Stream;
use fvd::shared::Shared;
use fvd::stores::{One, WithBase};
use fvd::units::Instant;

const PLAIN: Setup = Setup {
    table: true,
    base_bytes: 0,
    external: false,
    used: false,
};
const OVERLAY: Setup = Setup {
    table: true,
    base_bytes: DISK_BYTES,
    external: false,
    used: true,
};

fn small() -> Disk<One<Ram>> {
    common::open(One(PLAIN.devices().0), common::options())
}

fn blocking<D: BlockDevice>(device: D) -> Blocking<D, impl FnMut(When) -> Instant> {
    Blocking::new(device, common::memory(64 << 10), common::idle())
        .unwrap_or_else(|_| panic!("room"))
}

#[test]
fn a_disk_serves_as_the_base_of_another() {
    let mut lower = blocking(small());
    let pattern: Vec<u8> = (0..DISK_BYTES).map(|index| (index / 777) as u8).collect();
    lower.write_at(0, &pattern).expect("writes");
    let stores = common::close(lower.into_parts().0);
    let read_only = fvd::open::OpenOptions {
        read_only: true,
        ..common::options()
    };
    let lower = common::open(stores, read_only);
    let upper = common::open(
        WithBase::new(One(OVERLAY.devices().0), lower),
        common::options(),
    );
    let mut upper = blocking(upper);
    upper.write_at(512, &[0xAB; 1024]).expect("writes");
    let mut all = vec![0; DISK_BYTES as usize];
    upper.read_at(0, &mut all).expect("reads");
    let mut wanted = pattern;
    wanted[512..1536].fill(0xAB);
    assert!(all == wanted);
    let (stores, lower) = common::close(upper.into_parts().0).into_parts();
    drop(stores);
    let mut lower = blocking(lower);
    lower.read_at(0, &mut all).expect("reads");
    wanted[512..1536].copy_from_slice(&{
        let original: Vec<u8> = (512..1536u64).map(|index| (index / 777) as u8).collect();
        original
    });
    assert!(all == wanted, "the base is untouched");
    assert_eq!(lower.write_at(0, &[0; 512]), Err(DeviceError::ReadOnly));
}

#[test]
fn a_stream_reads_and_writes_any_byte_range() {
    let mut block = [0; 512];
    let mut stream = Stream::new(blocking(small()), &mut block).unwrap_or_else(|_| panic!("fits"));
    let mut model = vec![0u8; DISK_BYTES as usize];
    let mut rng = common::Rng(5);
    for turn in 0..300u64 {
        let len = 1 + rng.below(3000) as usize;
        let at = rng.below(DISK_BYTES - len as u64);
        assert_eq!(stream.seek(SeekFrom::Start(at)), Ok(at));
        let data: Vec<u8> = (0..len)
            .map(|index| (turn as usize * 31 + index) as u8)
            .collect();
        stream.write_all(&data).expect("writes");
        model[at as usize..at as usize + len].copy_from_slice(&data);
        let from = rng.below(DISK_BYTES - 4096) as usize;
        stream.seek(SeekFrom::Start(from as u64)).expect("seeks");
        let mut got = vec![0; 1 + rng.below(4096) as usize];
        stream.read_exact(&mut got).expect("reads");
        assert!(got == model[from..from + got.len()], "turn {turn}");
    }
    stream.flush().expect("flushes");
}

#[test]
fn a_stream_ends_where_the_disk_ends() {
    let mut block = [0; 512];
    let mut stream = Stream::new(blocking(small()), &mut block).unwrap_or_else(|_| panic!("fits"));
    assert_eq!(stream.seek(SeekFrom::End(-10)), Ok(DISK_BYTES - 10));
    assert_eq!(stream.write(&[1; 100]), Ok(10));
    assert_eq!(stream.write(&[1; 100]), Err(DeviceError::NoSpace));
    assert_eq!(stream.read(&mut [0; 4]), Ok(0));
    assert_eq!(stream.seek(SeekFrom::Current(-4)), Ok(DISK_BYTES - 4));
    let mut got = [0; 8];
    assert_eq!(stream.read(&mut got), Ok(4));
    assert_eq!(got, [1, 1, 1, 1, 0, 0, 0, 0]);
    assert_eq!(
        stream.seek(SeekFrom::End(i64::MIN)),
        Err(DeviceError::Invalid)
    );
    let mut wrong = [0; 100];
    assert!(
        Stream::new(stream.into_inner(), &mut wrong).is_err(),
        "not one block"
    );
}

#[test]
fn blocking_calls_split_long_ranges_and_report_bad_ones() {
    let mut disk = blocking(small());
    disk.write_zeroes_at(0, DISK_BYTES)
        .expect("zeroes all of it in steps");
    disk.discard_at(0, DISK_BYTES)
        .expect("discards all of it in steps");
    assert_eq!(disk.read_at(1, &mut [0; 512]), Err(DeviceError::Invalid));
    assert_eq!(
        disk.read_at(DISK_BYTES, &mut [0; 512]),
        Err(DeviceError::Invalid)
    );
    assert_eq!(disk.write_at(!511, &[0; 512]), Err(DeviceError::Invalid));
    assert_eq!(disk.flush(), Ok(()));
}

fn write_op(client: &mut Client, offset: u64, value: u8, tag: u64) -> Op {
    let (_, lease) = common::lend(BLOCK_BYTES as usize, value);
    client.data_op(OpKind::Write, offset, lease, tag)
}

#[test]
fn ports_of_a_shared_disk_get_their_own_completions() {
    let shared: Shared<_, 4> = Shared::new(small());
    std::thread::scope(|scope| {
        for index in 0..4u8 {
            let shared = &shared;
            scope.spawn(move || {
                let mut port = shared.port(index).expect("four ports");
                let mut client = Client::new(400);
                let mut left = 0;
                for turn in 0..400u64 {
                    let offset = (turn % 60 * 4 + u64::from(index)) * BLOCK_BYTES;
                    let mut op =
                        write_op(&mut client, offset, index, u64::from(index) << 40 | turn);
                    while let Err(refused) = port.submit(op) {
                        op = refused;
                        left -= usize::from(take_own(&mut port, index));
                    }
                    left += 1;
                }
                while left > 0 {
                    left -= usize::from(take_own(&mut port, index));
                }
            });
        }
    });
    assert!(shared.port(4).is_none());
    let mut disk = blocking(shared.into_inner());
    let mut all = vec![0; DISK_BYTES as usize];
    disk.read_at(0, &mut all).expect("reads");
    for block in 0..240 {
        assert_eq!(
            all[block * BLOCK_BYTES as usize],
            (block % 4) as u8,
            "block {block}"
        );
    }
}

fn take_own(port: &mut impl BlockDevice, index: u8) -> bool {
    let Some(op) = port.poll(Instant::ZERO) else {
        return false;
    };
    assert_eq!((op.tag() >> 40, result_of(&op)), (u64::from(index), Ok(())));
    true
}

#[test]
fn a_shared_disk_refuses_tags_that_it_can_not_keep() {
    let shared: Shared<_, 1> = Shared::new(small());
    let mut client = Client::new(1);
    let op = client.op(OpKind::Flush, OpFlags::NONE, 0, 0, 1 << 56);
    let op = shared
        .port(0)
        .expect("there")
        .submit(op)
        .expect_err("refused");
    assert_eq!(
        (op.tag(), result_of(&op)),
        (1 << 56, Err(DeviceError::Invalid))
    );
}

/// Completes only when told, and wakes whoever registered.
struct Sleepy {
    inner: Ram,
    ready: bool,
    waker: Option<Waker>,
}

impl BlockDevice for Sleepy {
    fn geometry(&self) -> Geometry {
        self.inner.geometry()
    }

    fn submit(&mut self, op: Op) -> Result<(), Op> {
        self.inner.submit(op)
    }

    fn poll(&mut self, now: Instant) -> Option<Op> {
        if self.ready {
            self.inner.poll(now)
        } else {
            None
        }
    }

    fn poll_at(&self) -> When {
        When::Event
    }

    fn set_waker(&mut self, waker: &Waker) -> bool {
        self.waker = Some(waker.clone());
        true
    }
}

struct Count(AtomicUsize);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

#[test]
fn a_waker_reaches_every_device_and_few_polls_are_enough() {
    let (metadata, _) = OVERLAY.devices();
    let sleepy = |inner| Sleepy {
        inner,
        ready: true,
        waker: None,
    };
    let stores = WithBase::new(One(sleepy(metadata)), sleepy(OVERLAY.base()));
    let mut disk = common::open(stores, common::options());
    let count = Arc::new(Count(AtomicUsize::new(0)));
    assert!(
        disk.set_waker(&Waker::from(count.clone())),
        "every device can wake"
    );
    let (stores, base) = disk.stores_mut().parts_mut();
    stores.0.ready = false;
    base.ready = false;
    let mut client = Client::new(4);
    let (_, lease) = common::lend(512, 9);
    assert!(
        disk.submit(client.data_op(OpKind::Write, 512, lease, 0))
            .is_ok()
    );
    // An executor: poll only when woken. The two devices wake once each per batch.
    let mut polls = 0;
    loop {
        polls += 1;
        if disk.poll(Instant::ZERO).is_some() {
            break;
        }
        if disk.poll_at() == When::Now {
            continue;
        }
        let (stores, base) = disk.stores_mut().parts_mut();
        for device in [&mut stores.0, base] {
            device.ready = true;
            device.waker.as_ref().expect("registered").wake_by_ref();
        }
        assert!(polls < 20, "polls without end");
    }
    assert!(polls <= 8, "{polls} polls for one copy-on-write");
    assert!(count.0.load(Ordering::Relaxed) > 0);
}
