//! A device that lies: no lie gives memory back early or reaches past what the driver knows.

use crate::fake::bench::Bench;
use crate::fake::device::{Device, INDIRECT, Lie, Limits};
use crate::fake::hal::Platform;
use crate::fake::registers::{NEEDS_RESET, Reset};
use fvd::device::{BlockDevice, DeviceError, OpKind, Status, When};
use fvd_virtio::{Fault, Options};

fn bench(seed: u64) -> Bench {
    Bench::new(Limits::default(), Options::default(), seed)
}

/// Starts `count` writes in different places.
fn start(bench: &mut Bench, count: u64) {
    for index in 0..count {
        let op = bench.transfer(OpKind::Write, index * 8192, &[4096, 512]);
        assert!(bench.submit(op).is_ok());
    }
    bench.blk().notify();
    bench.with_device(Device::fetch);
}

/// The device was given up for `fault`: nothing comes back before the reset is confirmed, then
/// everything does, and nothing new is taken.
fn expect_fault(bench: &mut Bench, fault: Fault) {
    bench.with_device(|device| device.registers.reset = Reset::After(50));
    let in_flight = bench.blk().in_flight();
    assert_ne!(in_flight, 0, "nothing would come back");
    assert_eq!(bench.poll(), None);
    assert_eq!(bench.blk().fault(), Some(fault));
    assert_eq!(bench.blk().poll_at(), When::Now);
    for _ in 0..40 {
        assert_eq!(bench.poll(), None, "an op came back before the reset");
        assert_eq!(bench.blk().in_flight(), in_flight);
    }
    let op = bench.make(OpKind::Flush, 0, 0, &[]);
    let (op, reason) = bench.submit(op).expect_err("the device is gone");
    assert_eq!(reason, DeviceError::Removed);
    bench.give_back(op);
    let shares = Platform::shares();
    assert_ne!(
        shares, 0,
        "memory was taken back while the device may write"
    );

    let mut returned = 0;
    for _ in 0..200 {
        if let Some((_, status)) = bench.poll() {
            assert_eq!(status, Status::Failed(DeviceError::Removed));
            returned += 1;
        }
    }
    assert_eq!(returned, in_flight);
    assert_eq!((bench.blk().in_flight(), Platform::shares()), (0, 0));
    assert_eq!(bench.blk().poll_at(), When::Event);
    assert!(bench.pending.is_empty());
    let op = bench.make(OpKind::Flush, 0, 0, &[]);
    let (op, reason) = bench.submit(op).expect_err("the device stays gone");
    assert_eq!(reason, DeviceError::Removed);
    bench.give_back(op);
    assert_eq!(bench.free_ops(), 160);
    bench.blk = None;
    assert_eq!(Platform::dma_blocks(), 0);
}

#[test]
fn an_id_outside_of_the_queue_is_fatal() {
    for id in [64, 1000, 65_535, 65_536, u32::MAX] {
        let mut bench = bench(1);
        start(&mut bench, 5);
        bench.with_device(|device| {
            device.lie = Some(Lie::Id(id));
            device.finish(2);
        });
        expect_fault(&mut bench, Fault::UnknownId);
    }
}

#[test]
fn an_id_that_is_not_in_flight_is_fatal() {
    let mut bench = bench(2);
    start(&mut bench, 5);
    bench.with_device(|device| {
        device.lie = Some(Lie::Id(63));
        device.finish(2);
    });
    expect_fault(&mut bench, Fault::UnknownId);
}

#[test]
fn an_id_from_the_middle_of_a_chain_is_fatal() {
    let limits = Limits {
        offered: Limits::default().offered & !INDIRECT,
        ..Limits::default()
    };
    let mut bench = Bench::new(limits, Options::default(), 3);
    start(&mut bench, 3);
    bench.with_device(|device| {
        device.lie = Some(Lie::Id(u32::from(device.in_service[0].head) + 1));
        device.finish(0);
    });
    expect_fault(&mut bench, Fault::UnknownId);
}

#[test]
fn the_same_id_twice_is_fatal() {
    // In one batch, and in two.
    for poll_between in [false, true] {
        let mut bench = bench(4);
        start(&mut bench, 5);
        bench.with_device(|device| device.finish(0));
        if poll_between {
            assert!(bench.poll().is_some());
        }
        bench.with_device(|device| {
            device.lie = device.last_id.map(|id| Lie::Id(u32::from(id)));
            device.finish(0);
        });
        if !poll_between {
            assert!(bench.poll().is_some());
        }
        expect_fault(&mut bench, Fault::UnknownId);
    }
}

#[test]
fn an_old_id_whose_place_was_taken_again_is_fatal() {
    let mut bench = bench(5);
    start(&mut bench, 1);
    bench.with_device(|device| device.finish(0));
    let id = bench.with_device(|device| device.last_id.expect("an id"));
    assert!(bench.poll().is_some());
    // The next op takes the same place. Another one is finished under that id.
    start(&mut bench, 2);
    bench.with_device(|device| {
        let heads: Vec<u16> = device.in_service.iter().map(|chain| chain.head).collect();
        let other = heads.iter().position(|head| *head != id).expect("another");
        assert!(heads.contains(&id));
        device.lie = Some(Lie::Id(u32::from(id)));
        device.finish(other);
    });
    expect_fault(&mut bench, Fault::StatusUnwritten);
}

#[test]
fn a_request_without_status_is_fatal() {
    let mut bench = bench(6);
    start(&mut bench, 3);
    bench.with_device(|device| {
        device.lie = Some(Lie::NoStatus);
        device.finish(1);
    });
    expect_fault(&mut bench, Fault::StatusUnwritten);
}

#[test]
fn a_used_index_ahead_of_the_requests_is_fatal() {
    for ahead in [5, 64, 1000, 40_000, 65_534] {
        let mut bench = bench(7);
        start(&mut bench, 5);
        bench.with_device(|device| {
            device.lie = Some(Lie::IndexAhead(ahead));
            device.finish(0);
        });
        expect_fault(&mut bench, Fault::UsedIndex);
    }
}

#[test]
fn a_used_index_ahead_within_the_requests_finds_stale_entries() {
    let mut bench = bench(8);
    start(&mut bench, 5);
    bench.with_device(|device| {
        device.lie = Some(Lie::IndexAhead(3));
        device.finish(0);
    });
    let first = bench.poll().map(|(_, status)| status);
    // The entries behind it were never written: id 0, which may be in flight or not.
    assert_eq!(first, Some(Status::Done));
    let removed = Status::Failed(DeviceError::Removed);
    while let Some((_, status)) = bench.poll() {
        assert_eq!(status, removed);
    }
    assert!(matches!(
        bench.blk().fault(),
        Some(Fault::UnknownId | Fault::StatusUnwritten)
    ));
}

#[test]
fn ops_come_back_before_a_fault_if_the_device_finished_them_before() {
    let mut bench = bench(9);
    start(&mut bench, 5);
    bench.with_device(|device| {
        device.finish(0);
        device.finish(0);
        device.lie = Some(Lie::Id(99));
        device.finish(0);
    });
    assert!(matches!(bench.poll(), Some((_, Status::Done))));
    assert!(matches!(bench.poll(), Some((_, Status::Done))));
    expect_fault(&mut bench, Fault::UnknownId);
}

#[test]
fn status_bytes_are_mapped() {
    for (byte, expected) in [
        (1, DeviceError::Io),
        (2, DeviceError::Unsupported),
        (3, DeviceError::Protocol),
        (7, DeviceError::Protocol),
        (254, DeviceError::Protocol),
    ] {
        for kind in [OpKind::Read, OpKind::Write, OpKind::Flush] {
            let mut bench = bench(10);
            let op = match kind {
                OpKind::Flush => bench.make(kind, 0, 0, &[]),
                _ => bench.transfer(kind, 4096, &[4096]),
            };
            assert!(bench.submit(op).is_ok());
            bench.blk().notify();
            bench.with_device(|device| {
                device.fetch();
                device.lie = Some(Lie::Status(byte));
                device.finish(0);
            });
            let status = bench.poll().map(|(_, status)| status);
            assert_eq!(status, Some(Status::Failed(expected)), "{byte} {kind:?}");
            // One failed request is no reason to give up the device.
            assert_eq!(bench.blk().fault(), None);
        }
    }
}

#[test]
fn a_short_read_is_an_error_and_no_other_length_matters() {
    for (kind, lie, expected) in [
        // Devices exist that do not count the status byte.
        (OpKind::Read, Lie::ShortBy(1), Status::Done),
        (
            OpKind::Read,
            Lie::ShortBy(2),
            Status::Failed(DeviceError::Io),
        ),
        (
            OpKind::Read,
            Lie::Length(0),
            Status::Failed(DeviceError::Io),
        ),
        (OpKind::Read, Lie::Length(u32::MAX), Status::Done),
        (OpKind::Write, Lie::Length(0), Status::Done),
        (OpKind::Write, Lie::Length(u32::MAX), Status::Done),
    ] {
        let mut bench = bench(11);
        let op = bench.transfer(kind, 8192, &[512, 4096, 200, 312]);
        assert!(bench.submit(op).is_ok());
        bench.blk().notify();
        bench.with_device(|device| {
            device.fetch();
            device.lie = Some(lie);
            device.finish(0);
        });
        let status = bench.poll().map(|(_, status)| status);
        assert_eq!(status, Some(expected), "{kind:?} {lie:?}");
        let short = u64::from(expected != Status::Done);
        assert_eq!(bench.blk().stats().short_reads, short);
    }
}

#[test]
fn a_device_that_asks_for_a_reset_is_noticed_by_polling_alone() {
    let mut bench = bench(12);
    start(&mut bench, 3);
    bench.with_device(|device| device.registers.status |= NEEDS_RESET);
    let mut polls = 0;
    let first = loop {
        if let Some((_, status)) = bench.poll() {
            break status;
        }
        polls += 1;
        assert!(polls < 10_000, "never noticed");
    };
    assert!(polls > 1000, "the status register costs a VM exit");
    assert_eq!(bench.blk().fault(), Some(Fault::NeedsReset));
    assert_eq!(first, Status::Failed(DeviceError::Removed));
}

#[test]
fn random_lies_never_lose_an_op_or_return_it_twice() {
    for seed in 0..200 {
        println!("seed {seed}");
        let mut bench = bench(seed);
        let kinds = [OpKind::Read, OpKind::Write, OpKind::Flush];
        for _ in 0..40 {
            if let Some(op) = bench.random_op(&kinds)
                && let Err((op, _)) = bench.submit(op)
            {
                bench.give_back(op);
            }
            bench.blk().notify();
            let lie = match bench.random.below(60) {
                0 => Some(Lie::Id(bench.random.below(80) as u32)),
                1 => Some(Lie::IndexAhead(bench.random.below(70) as u16)),
                2 => Some(Lie::Status(bench.random.below(256) as u8)),
                3 => Some(Lie::NoStatus),
                4 => Some(Lie::Length(bench.random.next() as u32)),
                _ => None,
            };
            bench.with_device(|device| {
                if device.rings.is_some() && device.random.one_in(2) {
                    device.lie = lie;
                    device.step();
                }
            });
            // A lie can make a wrong op's data valid, so only count ops here.
            count_polls(&mut bench);
        }
        bench.with_device(|device| device.lie = None);
        bench.with_device(Device::run);
        bench.blk().stop();
        count_polls(&mut bench);
        assert!(bench.pending.is_empty(), "lost {}", bench.pending.len());
        assert_eq!((bench.blk().in_flight(), Platform::shares()), (0, 0));
        assert_eq!(bench.free_ops(), 160);
    }
}

fn count_polls(bench: &mut Bench) {
    while let Some(op) = bench.blk().poll(fvd::units::Instant::ZERO) {
        let known = bench.pending.remove(&op.tag());
        assert!(known.is_some(), "an op came back twice");
        bench.give_back(op);
    }
}
