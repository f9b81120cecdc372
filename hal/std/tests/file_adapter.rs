//! Who carries out operations: refusal and fallback, teardown, wake-ups, direct I/O.
#![allow(unsafe_code)] // a filter for system calls

mod common;

use core::task::Waker;
use core::time::Duration;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc;
use std::task::Wake;
use std::thread;

use common::{Bench, How, LoopDevice, Noise, head};
use fvd::buffer::{Op, OpPool};
use fvd::device::{BlockDevice, OpFlags, OpKind, Status, When};
use fvd_std::aligned::AlignedBuffer;
use fvd_std::arena::HeapArena;
use fvd_std::drive::Driver;
use fvd_std::file::{Aio, FileDevice, FileOptions, OpenError};
use tempfile::TempDir;

on_every_adapter!(
    more_operations_than_the_kernel_takes_at_once_are_all_carried_out,
    a_device_dropped_with_operations_in_flight_leaves_nobody_writing,
    a_device_works_on_after_the_thread_that_submitted_is_gone,
    a_write_with_fua_is_in_the_file_and_a_flush_follows,
    memory_of_any_alignment_travels_both_ways,
    wake_ups_reach_a_waker_that_is_no_driver,
);

on_every_adapter!(
    in memory:
    more_operations_than_the_kernel_takes_at_once_are_all_carried_out,
    a_device_dropped_with_operations_in_flight_leaves_nobody_writing,
    a_write_with_fua_is_in_the_file_and_a_flush_follows,
    memory_of_any_alignment_travels_both_ways,
    short_operations_are_done_when_they_are_handed_over_and_long_ones_later,
);

const BLOCK: usize = 4096;

fn file(blocks: usize, how: How) -> (TempDir, PathBuf) {
    let folder = how.folder();
    let path = folder.path().join("disk");
    File::create(&path)
        .and_then(|file| file.set_len((blocks * BLOCK) as u64))
        .expect("a new file");
    (folder, path)
}

fn open(path: &Path, how: How) -> FileDevice {
    FileDevice::open(path, &how.options()).expect("an unlocked file")
}

/// An operation on block `index` with aligned memory, which leaks unless its lease is redeemed.
fn transfer(pool: &mut OpPool, kind: OpKind, index: usize, byte: u8) -> Op {
    let mut buffer = AlignedBuffer::new(BLOCK).expect("memory");
    buffer.fill(byte);
    let (loan, lease) = fvd::buffer::Loan::new(buffer).unwrap_or_else(|_| panic!("not empty"));
    drop(loan);
    let mut own = head(kind, (index * BLOCK) as u64, BLOCK as u64);
    own.tag = index as u64;
    let mut op = pool.take(own).expect("a free op");
    op.push(lease).expect("a free segment");
    op
}

fn pool(count: u32) -> OpPool {
    let (_heap, memory) = HeapArena::new(OpPool::arena_bytes(count as usize)).expect("memory");
    let mut arena = fvd::buffer::Arena::new(memory).expect("aligned");
    OpPool::carve(&mut arena, count).expect("room")
}

/// Puts an operation of [`transfer`] back; its memory stays leaked.
fn put(pool: &mut OpPool, mut op: Op) {
    assert_eq!(op.status(), Status::Done);
    assert!(op.pop().is_some());
    pool.put(op).expect("own op");
}

fn more_operations_than_the_kernel_takes_at_once_are_all_carried_out(how: How) {
    const COUNT: usize = 1000;
    let (_folder, path) = file(COUNT, how);
    let mut device = open(&path, how);
    let mut pool = pool(COUNT as u32);
    let mut driver = Driver::new();
    driver.attach(&mut device);
    for index in 0..COUNT {
        let op = transfer(&mut pool, OpKind::Write, index, index as u8);
        device.submit(op).expect("accepted");
    }
    device.notify();
    let mut seen = vec![false; COUNT];
    while pool.free_count() < COUNT {
        match device.poll(driver.now()) {
            Some(op) => {
                assert!(!core::mem::replace(&mut seen[op.tag() as usize], true));
                put(&mut pool, op);
            }
            None => driver.wait(device.poll_at()),
        }
    }
    drop(device);
    for (index, block) in fs::read(path).expect("file").chunks(BLOCK).enumerate() {
        assert!(block.iter().all(|byte| *byte == index as u8), "{index}");
    }
}

fn a_device_dropped_with_operations_in_flight_leaves_nobody_writing(how: How) {
    const COUNT: usize = 256;
    let (_folder, path) = file(COUNT, how);
    fs::write(&path, vec![0xAB; COUNT * BLOCK]).expect("content");
    let mut device = open(&path, how);
    // The memory is looked at afterwards, so it stays outside of the loans.
    let (heap, memory) = HeapArena::new(COUNT * BLOCK + (1 << 16)).expect("memory");
    let start = memory.as_ptr().cast::<u8>();
    let mut arena = fvd::buffer::Arena::new(memory).expect("aligned");
    let mut pool = OpPool::carve(&mut arena, COUNT as u32).expect("room");
    arena.align_staging().expect("room");
    for index in 0..COUNT {
        let lease = arena.carve_lease(BLOCK as u32).expect("room");
        let own = head(OpKind::Read, (index * BLOCK) as u64, BLOCK as u64);
        let mut op = pool.take(own).expect("a free op");
        op.push(lease).expect("a free segment");
        device.submit(op).expect("accepted");
    }
    device.notify();
    drop(device);
    drop(heap); // leaks the memory, which the dropped operations still name
    let bytes = COUNT * BLOCK + (1 << 16);
    // SAFETY: the memory is leaked, and nobody writes to it any more, which is what is tested.
    let before = unsafe { core::slice::from_raw_parts(start, bytes) }.to_vec();
    fs::write(&path, vec![0xCD; COUNT * BLOCK]).expect("content");
    thread::sleep(Duration::from_millis(20));
    // SAFETY: as above.
    let after = unsafe { core::slice::from_raw_parts(start, bytes) };
    assert!(before == after, "somebody wrote after the device was gone");
    let read = before.iter().filter(|byte| **byte == 0xAB).count();
    assert!(read >= COUNT * BLOCK, "{read} bytes: all were carried out");
}

fn a_device_works_on_after_the_thread_that_submitted_is_gone(how: How) {
    const COUNT: usize = 64;
    let (_folder, path) = file(COUNT, how);
    let mut device = open(&path, how);
    let mut pool = pool(COUNT as u32);
    let submitter = thread::spawn(move || {
        for index in 0..COUNT {
            let op = transfer(&mut pool, OpKind::Write, index, 7);
            device.submit(op).expect("accepted");
        }
        device.notify();
        (device, pool)
    });
    let (mut device, mut pool) = submitter.join().expect("no panic");
    let mut driver = Driver::new();
    driver.attach(&mut device);
    while pool.free_count() < COUNT {
        match device.poll(driver.now()) {
            Some(op) => put(&mut pool, op),
            None => driver.wait(device.poll_at()),
        }
    }
    drop(device);
    assert!(fs::read(path).expect("file").iter().all(|byte| *byte == 7));
}

fn a_write_with_fua_is_in_the_file_and_a_flush_follows(how: How) {
    let (_folder, path) = file(8, how);
    let (mut device, mut bench) = (open(&path, how), Bench::new());
    assert!(device.geometry().fua);
    let data = Noise::new(5).bytes(BLOCK);
    let (mut op, loan) = bench.with_data(OpKind::Write, BLOCK as u64, data.clone());
    let mut own = op.head();
    own.flags = OpFlags::FUA;
    op.set_head(own);
    bench.driver.attach(&mut device);
    let mut op = bench.driver.run_op(&mut device, op);
    assert_eq!(op.status(), Status::Done);
    loan.redeem(op.pop().expect("lease")).expect("whole");
    bench.pool.put(op).expect("own op");
    assert_eq!(bench.run(&mut device, OpKind::Flush, 0, 0), Status::Done);
    drop(device);
    assert!(fs::read(path).expect("file")[BLOCK..2 * BLOCK] == data);
}

fn memory_of_any_alignment_travels_both_ways(how: How) {
    let (_folder, path) = file(256, how);
    let (mut device, mut bench) = (open(&path, how), Bench::new());
    let mut noise = Noise::new(6);
    for (at, len) in [(0, 512), (512, 4096), (8192, 300 << 10), (4096, 8704)] {
        let data = noise.bytes(len);
        // Heap memory of such sizes is aligned to 16 bytes at best.
        assert_eq!(bench.write(&mut device, at, &data), Status::Done);
        assert!(bench.read(&mut device, at, len) == Ok(data));
    }
}

fn short_operations_are_done_when_they_are_handed_over_and_long_ones_later(how: How) {
    const LONG: usize = 1 << 20;
    let (_folder, path) = file(2 * LONG / BLOCK, how);
    let (mut device, mut bench) = (open(&path, how), Bench::new());
    bench.driver.attach(&mut device);
    let (long, long_loan) = bench.with_data(OpKind::Write, LONG as u64, vec![9; LONG]);
    let (short, short_loan) = bench.with_data(OpKind::Write, 0, vec![5; BLOCK]);
    device.submit(long).expect("accepted");
    device.submit(short).expect("accepted");
    device.notify();
    assert_eq!(device.poll_at(), When::Now);
    let mut first = device.poll(bench.driver.now()).expect("the short one");
    assert_eq!((first.offset(), first.status()), (0, Status::Done));
    let mut second = loop {
        match device.poll(bench.driver.now()) {
            Some(op) => break op,
            None => bench.driver.wait(device.poll_at()),
        }
    };
    assert_eq!(second.status(), Status::Done);
    short_loan
        .redeem(first.pop().expect("lease"))
        .expect("whole");
    long_loan
        .redeem(second.pop().expect("lease"))
        .expect("whole");
    bench.pool.put(first).expect("own op");
    bench.pool.put(second).expect("own op");
    assert!(bench.read(&mut device, LONG as u64, LONG) == Ok(vec![9; LONG]));
}

/// Sends a message for each wake-up.
struct Messenger(mpsc::Sender<()>);

impl Wake for Messenger {
    fn wake(self: Arc<Messenger>) {
        // Nobody listens any more at the end.
        let _ = self.0.send(());
    }
}

fn wake_ups_reach_a_waker_that_is_no_driver(how: How) {
    const ROUNDS: usize = 200;
    let (_folder, path) = file(8, how);
    let mut device = open(&path, how);
    let mut bench = Bench::new();
    // First a driver, then somebody else, then a driver again.
    bench.driver.attach(&mut device);
    let (sender, woken) = mpsc::channel();
    assert!(device.set_waker(&Waker::from(Arc::new(Messenger(sender)))));
    for _ in 0..ROUNDS {
        let op = bench.op(OpKind::Flush, 0, 0);
        device.submit(op).expect("accepted");
        device.notify();
        let op = loop {
            match device.poll(bench.driver.now()) {
                Some(op) => break op,
                None if device.poll_at() == When::Now => {}
                None => woken
                    .recv_timeout(Duration::from_secs(30))
                    .expect("a wake-up"),
            }
        };
        bench.pool.put(op).expect("own op");
    }
    assert_eq!(bench.run(&mut device, OpKind::Flush, 0, 0), Status::Done);
}

#[test]
fn threads_take_over_where_the_kernel_refuses_io_uring() {
    for code in [libc::EPERM, libc::ENOSYS] {
        // The filter is for this thread and those it starts.
        let refused = thread::spawn(move || {
            refuse_io_uring(code);
            let (_folder, path) = file(8, How::default());
            let asked = FileOptions {
                aio: Aio::IoUring,
                ..FileOptions::default()
            };
            let device = FileDevice::open(&path, &asked);
            assert!(matches!(device, Err(OpenError::NoIoUring(_))), "{device:?}");
            let mut device = FileDevice::open(&path, &FileOptions::default()).expect("unlocked");
            assert!(!device.is_io_uring());
            let mut bench = Bench::new();
            assert_eq!(bench.write(&mut device, 0, &[3; BLOCK]), Status::Done);
            assert_eq!(bench.read(&mut device, 0, BLOCK), Ok(vec![3; BLOCK]));
        });
        refused.join().expect("no panic");
    }
}

/// Has `io_uring_setup` answer `code` from now on in this thread.
fn refuse_io_uring(code: i32) {
    const LOAD: u16 = (libc::BPF_LD | libc::BPF_W | libc::BPF_ABS) as u16;
    const EQUAL: u16 = (libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K) as u16;
    const RETURN: u16 = (libc::BPF_RET | libc::BPF_K) as u16;
    let step = |code, jt, k| libc::sock_filter { code, jt, jf: 0, k };
    let refusal = libc::SECCOMP_RET_ERRNO | code as u32;
    let mut filter = [
        step(LOAD, 0, 0), // the number of the call is at offset 0
        step(EQUAL, 1, libc::SYS_io_uring_setup as u32),
        step(RETURN, 0, libc::SECCOMP_RET_ALLOW),
        step(RETURN, 0, refusal),
    ];
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: takes no pointers.
    let set = unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) };
    assert_eq!(set, 0);
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: the program and its steps outlive the call, which copies them.
    let set = unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) };
    assert_eq!(set, 0);
}

#[test]
fn a_block_device_that_can_discard_is_told() {
    for aio in [Aio::Threads, Aio::IoUring] {
        let how = How {
            aio,
            ..How::default()
        };
        let (_folder, path) = file(2048, how);
        let content = Noise::new(4).bytes(2048 * BLOCK);
        fs::write(&path, &content).expect("content");
        let Some(medium) = LoopDevice::new(&path).filter(|_| how.is_possible()) else {
            return;
        };
        let mut device = open(&medium.path, how);
        let Some(limits) = device.geometry().discard else {
            println!("SKIP: the loop device says that it can not discard");
            return;
        };
        assert!(!limits.zeroes_after, "nobody promises that");
        let mut bench = Bench::new();
        let len = 1 << 20;
        assert!(len >= u64::from(limits.granularity_bytes));
        let status = bench.run(&mut device, OpKind::Discard, 1 << 20, len);
        assert_eq!(status, Status::Done);
        assert_eq!(bench.run(&mut device, OpKind::Flush, 0, 0), Status::Done);
        let before = bench.read(&mut device, 0, 1 << 20).expect("read");
        assert!(before == content[..1 << 20]);
        drop(device);
        drop(medium);
        // The loop device gave the space of its file back.
        let file = FileDevice::open(&path, &FileOptions::default()).expect("unlocked");
        let hole = file.next_data(1 << 20).expect("seek").expect("data");
        assert_eq!(hole.start, 2 << 20);
    }
}
