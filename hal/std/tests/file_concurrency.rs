//! Many operations in flight on one file: nothing lost, mixed up, or given back early.

mod common;

use core::sync::atomic::{AtomicUsize, Ordering};
use core::task::Waker;
use core::time::Duration;
use std::collections::HashMap;
use std::fs::{self, File};
use std::path::PathBuf;
use std::sync::Arc;
use std::task::Wake;
use std::thread;

use common::{Bench, How, Noise, head};
use fvd::buffer::{Loan, Op};
use fvd::device::{BlockDevice, OpKind, Status, When};
use fvd::units::Instant;
use fvd_std::file::FileDevice;
use tempfile::TempDir;

on_every_adapter!(
    thirty_two_random_operations_in_flight_keep_every_byte,
    close_gives_every_operation_home_with_its_memory,
    dropping_the_device_finishes_what_was_submitted,
    a_completion_wakes_whoever_registered_last,
    a_caller_that_sleeps_until_woken_needs_few_polls,
    a_caller_that_forgets_to_notify_is_served_too,
);

on_every_adapter!(
    in memory:
    thirty_two_random_operations_in_flight_keep_every_byte,
    close_gives_every_operation_home_with_its_memory,
    dropping_the_device_finishes_what_was_submitted,
    a_caller_that_sleeps_until_woken_needs_few_polls,
    a_caller_that_forgets_to_notify_is_served_too,
);

const DEPTH: usize = 32;
const BLOCK: usize = 4096;
const BLOCKS: u64 = 1024;

fn open_new(how: How) -> (TempDir, PathBuf, FileDevice) {
    let folder = how.folder();
    let path = folder.path().join("disk");
    File::create(&path)
        .and_then(|file| file.set_len(BLOCKS * BLOCK as u64))
        .expect("new file");
    let device = FileDevice::open(&path, &how.options()).expect("unlocked");
    (folder, path, device)
}

/// One block in flight: what it must hold at the end.
struct Flight {
    block: u64,
    read: bool,
    data: Vec<u8>,
    loan: Loan<Box<[u8]>>,
}

struct Load {
    bench: Bench,
    noise: Noise,
    /// What each block holds now.
    model: Vec<Vec<u8>>,
    flights: HashMap<u64, Flight>,
    next_tag: u64,
}

impl Load {
    fn new(seed: u64) -> Load {
        Load {
            bench: Bench::new(),
            noise: Noise::new(seed),
            model: vec![vec![0; BLOCK]; BLOCKS as usize],
            flights: HashMap::new(),
            next_tag: 1,
        }
    }

    /// A read or write of a block that no other flight touches.
    fn start(&mut self, device: &mut FileDevice) {
        let block = loop {
            let block = self.noise.below(BLOCKS);
            if self.flights.values().all(|flight| flight.block != block) {
                break block;
            }
        };
        let read = self.noise.below(2) == 0;
        let (kind, data) = if read {
            (OpKind::Read, self.model[block as usize].clone())
        } else {
            (OpKind::Write, self.noise.bytes(BLOCK))
        };
        let buffer = if read {
            vec![0xEE; BLOCK]
        } else {
            data.clone()
        };
        let offset = block * BLOCK as u64;
        let (mut op, loan) = self.bench.with_data(kind, offset, buffer);
        let mut own = head(kind, offset, BLOCK as u64);
        own.tag = self.next_tag;
        op.set_head(own);
        let flight = Flight {
            block,
            read,
            data,
            loan,
        };
        self.flights.insert(self.next_tag, flight);
        self.next_tag += 1;
        device.submit(op).expect("accepted");
    }

    fn finish(&mut self, mut op: Op) {
        let flight = self
            .flights
            .remove(&op.tag())
            .expect("each op comes home once");
        assert_eq!(op.status(), Status::Done);
        assert_eq!(op.offset(), flight.block * BLOCK as u64);
        let lease = op.pop().expect("its lease");
        self.bench.pool.put(op).expect("own op");
        let data = flight.loan.redeem(lease).expect("its own lease");
        assert!(
            *data == *flight.data,
            "block {}, read {}",
            flight.block,
            flight.read
        );
        if !flight.read {
            self.model[flight.block as usize] = flight.data;
        }
    }
}

fn thirty_two_random_operations_in_flight_keep_every_byte(how: How) {
    let (_folder, path, mut device) = open_new(how);
    let mut load = Load::new(7);
    load.bench.driver.attach(&mut device);
    for _ in 0..4_000 {
        while load.flights.len() < DEPTH {
            load.start(&mut device);
        }
        device.notify();
        let op = loop {
            match device.poll(load.bench.driver.now()) {
                Some(op) => break op,
                None => load.bench.driver.wait(device.poll_at()),
            }
        };
        load.finish(op);
    }
    while !load.flights.is_empty() {
        match device.poll(load.bench.driver.now()) {
            Some(op) => load.finish(op),
            None => load.bench.driver.wait(device.poll_at()),
        }
    }
    drop(device);
    let bytes = fs::read(path).expect("file");
    for (block, expected) in bytes.chunks(BLOCK).zip(&load.model) {
        assert!(block == expected.as_slice());
    }
}

fn close_gives_every_operation_home_with_its_memory(how: How) {
    let (_folder, path, mut device) = open_new(how);
    let mut load = Load::new(8);
    for _ in 0..DEPTH {
        load.start(&mut device);
    }
    let mut done = device.close();
    assert_eq!(done.len(), DEPTH);
    while let Some(op) = done.pop_front() {
        load.finish(op);
    }
    assert!(load.flights.is_empty());
    let bytes = fs::read(path).expect("file");
    for (block, expected) in bytes.chunks(BLOCK).zip(&load.model) {
        assert!(block == expected.as_slice());
    }
}

fn dropping_the_device_finishes_what_was_submitted(how: How) {
    let (_folder, path, mut device) = open_new(how);
    let mut bench = Bench::new();
    let mut expected = vec![0u8; BLOCKS as usize * BLOCK];
    let mut noise = Noise::new(9);
    for block in 0..DEPTH {
        let data = noise.bytes(BLOCK);
        expected[block * BLOCK..][..BLOCK].copy_from_slice(&data);
        let (op, loan) = bench.with_data(OpKind::Write, (block * BLOCK) as u64, data);
        device.submit(op).expect("accepted");
        drop(loan); // leaks the buffer, as the contract says
    }
    drop(device);
    assert!(fs::read(path).expect("file") == expected);
}

/// Counts wake-ups.
struct Counter(AtomicUsize);

impl Wake for Counter {
    fn wake(self: Arc<Counter>) {
        self.0.fetch_add(1, Ordering::SeqCst);
    }
}

fn a_completion_wakes_whoever_registered_last(how: How) {
    let (_folder, _path, mut device) = open_new(how);
    let mut bench = Bench::new();
    let early = Arc::new(Counter(AtomicUsize::new(0)));
    let late = Arc::new(Counter(AtomicUsize::new(0)));
    assert!(device.set_waker(&Waker::from(Arc::clone(&early))));
    assert!(device.set_waker(&Waker::from(Arc::clone(&late))));
    assert_eq!(device.poll_at(), When::Event);
    let op = bench.op(OpKind::Flush, 0, 0);
    device.submit(op).expect("accepted");
    device.notify();
    while late.0.load(Ordering::SeqCst) == 0 {
        thread::sleep(Duration::from_millis(1));
    }
    assert_eq!(device.poll_at(), When::Now, "a completion waits");
    let op = device
        .poll(Instant::ZERO)
        .expect("woken, so there is something");
    assert_eq!(op.status(), Status::Done);
    assert_eq!(device.poll_at(), When::Event);
    assert_eq!(early.0.load(Ordering::SeqCst), 0);
}

fn a_caller_that_sleeps_until_woken_needs_few_polls(how: How) {
    let (_folder, _path, mut device) = open_new(how);
    let mut bench = Bench::new();
    bench.driver.attach(&mut device);
    let mut polls = 0;
    for round in 0..100u64 {
        let (op, loan) = bench.with_data(OpKind::Write, round * BLOCK as u64, vec![1; BLOCK]);
        device.submit(op).expect("accepted");
        device.notify();
        let mut op = loop {
            polls += 1;
            match device.poll(bench.driver.now()) {
                Some(op) => break op,
                None => bench.driver.wait(device.poll_at()),
            }
        };
        loan.redeem(op.pop().expect("lease")).expect("whole");
        bench.pool.put(op).expect("own op");
    }
    // One poll that finds nothing, one after the wake-up, and one for a wake-up of the round before.
    assert!(polls <= 300, "{polls} polls for 100 operations");
}

fn a_caller_that_forgets_to_notify_is_served_too(how: How) {
    let (_folder, _path, mut device) = open_new(how);
    let mut bench = Bench::new();
    bench.driver.attach(&mut device);
    let op = bench.op(OpKind::Flush, 0, 0);
    device.submit(op).expect("accepted");
    assert_eq!(device.poll_at(), When::Now);
    let op = loop {
        match device.poll(bench.driver.now()) {
            Some(op) => break op,
            None => bench.driver.wait(device.poll_at()),
        }
    };
    bench.pool.put(op).expect("own op");
}
