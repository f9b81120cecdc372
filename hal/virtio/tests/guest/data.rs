//! Many random requests at full depth: every byte arrives, whatever the order of completion.

use crate::fake::bench::Bench;
use crate::fake::device::{
    BLK_SIZE, DISCARD, FLUSH, INDIRECT, Limits, SEG_MAX, SIZE_MAX, TOPOLOGY, VERSION_1,
    WRITE_ZEROES,
};
use crate::fake::hal::{FakeHal, Platform};
use fvd::device::{BlockDevice, DeviceError, OpKind, Status};
use fvd_virtio::Options;

const TRANSFERS: [OpKind; 2] = [OpKind::Read, OpKind::Write];
const ALL: [OpKind; 9] = [
    OpKind::Read,
    OpKind::Read,
    OpKind::Read,
    OpKind::Write,
    OpKind::Write,
    OpKind::Write,
    OpKind::Flush,
    OpKind::Discard,
    OpKind::WriteZeroes,
];

/// Runs `count` random ops and checks each. The seed is in the panic message of the caller's bench.
fn churn(bench: &mut Bench, kinds: &[OpKind], count: u64) {
    let goal = bench.finished + count;
    while bench.finished < goal {
        let burst = bench.random.below(24);
        for _ in 0..burst {
            let Some(op) = bench.random_op(kinds) else {
                continue;
            };
            if let Err((op, reason)) = bench.submit(op) {
                assert_eq!(reason, DeviceError::Busy);
                bench.give_back(op);
                break;
            }
        }
        bench.blk().notify();
        let steps = bench.random.below(24);
        for _ in 0..steps {
            bench.with_device(|device| device.step());
        }
        let polls = bench.random.below(32);
        for _ in 0..polls {
            match bench.poll() {
                Some((_, status)) => assert_eq!(status, Status::Done),
                None => break,
            }
        }
    }
    drain(bench);
}

fn drain(bench: &mut Bench) {
    bench.blk().notify();
    bench.with_device(|device| device.run());
    while let Some((_, status)) = bench.poll() {
        assert_eq!(status, Status::Done);
    }
    assert_eq!(bench.blk().in_flight(), 0);
    assert!(bench.pending.is_empty(), "lost {} ops", bench.pending.len());
    assert_eq!(Platform::shares(), 0);
    let device = bench.device.0.borrow();
    assert!(device.current == bench.expected, "the disk differs");
}

fn small(offered: u64) -> Limits {
    Limits {
        offered: VERSION_1 | offered,
        ..Limits::default()
    }
}

#[test]
fn every_kind_of_request_keeps_every_byte() {
    for seed in 1..6 {
        println!("seed {seed}");
        let offered = FLUSH | SEG_MAX | DISCARD | WRITE_ZEROES | INDIRECT;
        let mut bench = Bench::new(small(offered), Options::default(), seed);
        churn(&mut bench, &ALL, 2000);
        assert_eq!(bench.with_device(|device| device.longest_chain), 10);
        assert!(bench.with_device(|device| device.flushes) > 100);
        assert!(bench.with_device(|device| device.unmaps) > 20);
    }
}

#[test]
fn every_kind_of_request_works_without_indirect_descriptors() {
    for seed in 1..6 {
        println!("seed {seed}");
        let offered = FLUSH | SEG_MAX | DISCARD | WRITE_ZEROES;
        let mut bench = Bench::new(small(offered), Options::default(), seed);
        churn(&mut bench, &ALL, 2000);
        assert_eq!(bench.with_device(|device| device.longest_chain), 10);
    }
}

#[test]
fn sixty_four_requests_are_in_flight_and_the_indexes_wrap() {
    let limits = Limits {
        capacity_sectors: 8192,
        ..small(FLUSH | SEG_MAX | INDIRECT)
    };
    let mut bench = Bench::new(limits, Options::default(), 7);
    assert_eq!(bench.blk().geometry().queue_depth, 64);
    churn(&mut bench, &TRANSFERS, 67_000);
    assert_eq!(bench.with_device(|device| device.in_service_most), 64);
    let stats = bench.blk().stats();
    assert!(stats.requests > 65_536 && stats.requests == stats.completions);
}

#[test]
fn the_indexes_wrap_without_indirect_descriptors() {
    let limits = Limits {
        capacity_sectors: 8192,
        ..small(FLUSH | SEG_MAX)
    };
    let mut bench = Bench::new(limits, Options::default(), 8);
    churn(&mut bench, &TRANSFERS, 66_000);
    let busiest = bench.with_device(|device| device.in_service_most);
    assert!((12..=21).contains(&busiest), "{busiest} in service");
}

#[test]
fn a_device_that_takes_one_segment_gets_one() {
    let mut bench = Bench::new(small(FLUSH), Options::default(), 9);
    assert_eq!(bench.blk().geometry().segments_max, 1);
    churn(&mut bench, &TRANSFERS, 2000);
    assert_eq!(bench.with_device(|device| device.longest_chain), 3);
}

#[test]
fn segment_limits_of_the_device_are_kept() {
    let limits = Limits {
        size_max: 1024,
        seg_max: 3,
        ..small(SIZE_MAX | SEG_MAX | INDIRECT)
    };
    let mut bench = Bench::new(limits, Options::default(), 10);
    let geometry = bench.blk().geometry();
    assert_eq!(geometry.segment_max_bytes, 1024);
    assert_eq!(geometry.segments_max, 3);
    assert_eq!(geometry.transfer_max_bytes, 3072);
    churn(&mut bench, &TRANSFERS, 2000);
}

#[test]
fn bounced_memory_arrives_and_is_counted() {
    let options = Options {
        is_bounced: FakeHal::is_bounced,
        ..Options::default()
    };
    let mut bench = Bench::new(small(FLUSH | SEG_MAX | INDIRECT), options, 11);
    Platform::set(|platform| platform.bounce = true);
    let op = bench.transfer(OpKind::Write, 0, &[512, 4096]);
    assert!(bench.submit(op).is_ok());
    drain(&mut bench);
    let stats = bench.blk().stats();
    assert_eq!((stats.bounced_segments, stats.bounced_bytes), (2, 4608));
    churn(&mut bench, &TRANSFERS, 2000);
    Platform::set(|platform| platform.bounce = false);
    let before = bench.blk().stats();
    churn(&mut bench, &TRANSFERS, 100);
    assert_eq!(
        bench.blk().stats().bounced_segments,
        before.bounced_segments
    );
}

#[test]
fn large_logical_blocks_are_kept_whole() {
    let limits = Limits {
        blk_size: 4096,
        physical_block_exp: 2,
        ..small(FLUSH | SEG_MAX | BLK_SIZE | TOPOLOGY | INDIRECT)
    };
    let mut bench = Bench::new(limits, Options::default(), 12);
    let geometry = bench.blk().geometry();
    assert_eq!(geometry.logical_block_bytes, 4096);
    assert_eq!(geometry.physical_block_bytes, 16384);
    assert_eq!(geometry.atomic_write_bytes, 512);
    for (offset, legal) in [(0, true), (4096, true), (512, false)] {
        let op = bench.transfer(OpKind::Write, offset, &[4096]);
        match bench.submit(op) {
            Ok(_) => assert!(legal),
            Err((op, reason)) => {
                assert!(!legal && reason == DeviceError::Invalid);
                bench.give_back(op);
            }
        }
    }
    drain(&mut bench);
}

#[test]
fn a_busy_polling_device_needs_no_notification() {
    let mut bench = Bench::new(small(FLUSH | SEG_MAX | INDIRECT), Options::default(), 13);
    bench.with_device(|device| device.busy_polling = true);
    bench.with_device(|device| device.fetch());
    churn(&mut bench, &TRANSFERS, 2000);
    assert_eq!(bench.with_device(|device| device.registers.kicks), 0);
    assert!(bench.blk().stats().notifications_saved > 50);
}

#[test]
fn a_flush_covers_what_completed_before_it() {
    let mut bench = Bench::new(small(FLUSH | SEG_MAX | INDIRECT), Options::default(), 14);
    for round in 0..200 {
        let op = bench.transfer(OpKind::Write, (round % 100) * 4096, &[4096]);
        assert!(bench.submit(op).is_ok());
        bench.blk().notify();
        bench.with_device(|device| device.run());
        assert!(bench.poll().is_some());
        let op = bench.make(OpKind::Flush, 0, 0, &[]);
        let tag = bench.submit(op).unwrap_or_else(|_| panic!("refused"));
        bench.blk().notify();
        assert!(
            bench.poll().is_none(),
            "a flush completed before the device"
        );
        bench.with_device(|device| device.run());
        // `poll` compares with what the device made durable.
        assert_eq!(bench.poll(), Some((tag, Status::Done)));
    }
    assert_eq!(bench.with_device(|device| device.flushes), 200);
}
