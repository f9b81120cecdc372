//! What is refused, what needs no request, and how ranges are trimmed to what the device takes.

use crate::fake::bench::{Bench, head};
use crate::fake::device::{
    DISCARD, FLUSH, INDIRECT, Limits, READ_ONLY, SEG_MAX, VERSION_1, WRITE_ZEROES,
};
use fvd::device::{BlockDevice, DeviceError, OpFlags, OpKind, Status, When};
use fvd_virtio::Options;

const BASIC: u64 = VERSION_1 | SEG_MAX | INDIRECT;

fn bench(offered: u64) -> Bench {
    let limits = Limits {
        offered,
        ..Limits::default()
    };
    Bench::new(limits, Options::default(), 1)
}

fn refusal(bench: &mut Bench, op: fvd::buffer::Op) -> DeviceError {
    let (op, reason) = bench.submit(op).expect_err("accepted");
    bench.give_back(op);
    reason
}

/// Submits a range op and runs the device. The ranges that changed are the device's to check.
fn complete(bench: &mut Bench, op: fvd::buffer::Op) -> Status {
    assert!(bench.submit(op).is_ok());
    bench.blk().notify();
    bench.with_device(|device| device.run());
    bench.poll().expect("a completion").1
}

#[test]
fn operations_that_the_device_lacks_are_unsupported() {
    let mut bench = bench(BASIC);
    for kind in [OpKind::Discard, OpKind::WriteZeroes, OpKind::Grow] {
        let op = bench.make(kind, 0, 4096, &[]);
        assert_eq!(refusal(&mut bench, op), DeviceError::Unsupported);
    }
}

#[test]
fn forced_unit_access_needs_a_device_without_cache() {
    for (offered, legal) in [(BASIC | FLUSH, false), (BASIC, true)] {
        let mut bench = bench(offered);
        let mut op = bench.transfer(OpKind::Write, 0, &[512]);
        let mut fua = head(OpKind::Write, 0, 512, 1_000);
        fua.flags = OpFlags::FUA;
        op.set_head(fua);
        if legal {
            assert_eq!(complete(&mut bench, op), Status::Done);
        } else {
            assert_eq!(refusal(&mut bench, op), DeviceError::Unsupported);
        }
    }
}

#[test]
fn a_read_only_device_takes_no_changes() {
    let offered = BASIC | FLUSH | READ_ONLY | DISCARD | WRITE_ZEROES;
    let mut bench = bench(offered);
    let geometry = bench.blk().geometry();
    assert!(geometry.read_only && geometry.discard.is_none() && geometry.write_zeroes.is_none());
    let op = bench.transfer(OpKind::Write, 0, &[512]);
    assert_eq!(refusal(&mut bench, op), DeviceError::ReadOnly);
    for kind in [OpKind::Discard, OpKind::WriteZeroes] {
        let op = bench.make(kind, 0, 4096, &[]);
        assert_eq!(refusal(&mut bench, op), DeviceError::ReadOnly);
    }
    let op = bench.transfer(OpKind::Read, 0, &[512]);
    assert_eq!(complete(&mut bench, op), Status::Done);
}

#[test]
fn a_flush_without_a_write_cache_needs_no_request() {
    let mut bench = bench(BASIC);
    let op = bench.make(OpKind::Flush, 0, 0, &[]);
    assert!(bench.submit(op).is_ok());
    assert_eq!(bench.blk().poll_at(), When::Now);
    assert_eq!(bench.blk().in_flight(), 1);
    assert!(matches!(bench.poll(), Some((_, Status::Done))));
    assert_eq!(bench.blk().stats().requests, 0);
}

#[test]
fn transfers_out_of_bounds_are_invalid() {
    let mut bench = bench(BASIC);
    let end = bench.blk().geometry().capacity_bytes;
    for (offset, leases) in [
        (end, vec![512]),
        (end - 512, vec![1024]),
        (256, vec![512]),
        (u64::MAX - 511, vec![512]),
        (0, vec![200]),
        (0, vec![]),
    ] {
        let len = leases.iter().sum::<usize>() as u64;
        let op = bench.make(OpKind::Read, offset, len, &leases);
        assert_eq!(refusal(&mut bench, op), DeviceError::Invalid, "{offset}");
    }
    // Leases and length disagree.
    let op = bench.make(OpKind::Read, 0, 1024, &[512]);
    assert_eq!(refusal(&mut bench, op), DeviceError::Invalid);
}

#[test]
fn a_lease_longer_than_advertised_is_invalid() {
    let limits = Limits {
        offered: BASIC,
        ..Limits::default()
    };
    let options = Options {
        segment_max_bytes: 1024,
        transfer_max_bytes: 4096,
        memory_align_bytes: 4096,
        atomic_write_bytes: 4096,
        ..Options::default()
    };
    let mut bench = Bench::new(limits, options, 1);
    let geometry = bench.blk().geometry();
    assert_eq!(geometry.segment_max_bytes, 1024);
    assert_eq!(geometry.transfer_max_bytes, 4096);
    assert_eq!(geometry.memory_align_bytes, 4096);
    assert_eq!(geometry.atomic_write_bytes, 4096);
    let op = bench.make(OpKind::Read, 0, 1536, &[1536]);
    assert_eq!(refusal(&mut bench, op), DeviceError::Invalid);
    let op = bench.make(OpKind::Read, 0, 4608, &[1024, 1024, 1024, 1024, 512]);
    assert_eq!(refusal(&mut bench, op), DeviceError::Invalid);
    let op = bench.transfer(OpKind::Read, 0, &[1024, 1024, 1024, 1024]);
    assert_eq!(complete(&mut bench, op), Status::Done);
}

#[test]
fn a_full_device_is_busy_until_something_completes() {
    let limits = Limits {
        offered: BASIC,
        ..Limits::default()
    };
    let options = Options {
        queue_depth_max: 3,
        ..Options::default()
    };
    let mut bench = Bench::new(limits, options, 1);
    assert_eq!(bench.blk().geometry().queue_depth, 3);
    for index in 0..3 {
        let op = bench.transfer(OpKind::Read, index * 4096, &[512]);
        assert!(bench.submit(op).is_ok());
    }
    let op = bench.transfer(OpKind::Read, 65_536, &[512]);
    assert_eq!(refusal(&mut bench, op), DeviceError::Busy);
    bench.blk().notify();
    bench.with_device(|device| device.step());
    let op = bench.transfer(OpKind::Read, 65_536, &[512]);
    assert_eq!(refusal(&mut bench, op), DeviceError::Busy, "not polled yet");
    assert!(bench.poll().is_some());
    let op = bench.transfer(OpKind::Read, 65_536, &[512]);
    assert!(bench.submit(op).is_ok());
}

#[test]
fn a_discard_shrinks_to_whole_granules() {
    let mut bench = bench(BASIC | DISCARD);
    let limits = bench.blk().geometry().discard.expect("discard");
    assert_eq!(limits.granularity_bytes, 4096);
    assert_eq!(limits.max_bytes, 64 * 512);
    assert!(!limits.zeroes_after);
    bench.with_device(|device| device.current.fill(0x11));
    bench.expected.fill(0x11);
    for (offset, len, first, count) in [
        (0, 4096, 0, 4096),
        (8192 + 512, 8192, 12288, 4096),
        (20_480, 4096 + 512, 20_480, 4096),
    ] {
        let op = bench.make(OpKind::Discard, offset, len, &[]);
        assert_eq!(complete(&mut bench, op), Status::Done);
        bench.with_device(|device| {
            let changed = device.current.iter().filter(|byte| **byte == 0xd5).count();
            assert_eq!(changed, count);
            assert_eq!(device.current[first], 0xd5);
            device.current.fill(0x11);
        });
        bench.expected.fill(0x11);
    }
    // Nothing whole inside: done without a request.
    let requests = bench.blk().stats().requests;
    for (offset, len) in [(512, 3584), (3584, 4096), (512, 512)] {
        let op = bench.make(OpKind::Discard, offset, len, &[]);
        assert!(bench.submit(op).is_ok());
        assert!(matches!(bench.poll(), Some((_, Status::Done))));
    }
    assert_eq!(bench.blk().stats().requests, requests);
    let op = bench.make(OpKind::Discard, 0, 65 * 512, &[]);
    assert_eq!(refusal(&mut bench, op), DeviceError::Invalid, "too long");
}

#[test]
fn write_zeroes_unmaps_only_where_both_sides_agree() {
    for device_may in [0, 1] {
        for caller_may in [false, true] {
            let limits = Limits {
                offered: BASIC | WRITE_ZEROES,
                write_zeroes_may_unmap: device_may,
                ..Limits::default()
            };
            let mut bench = Bench::new(limits, Options::default(), 1);
            let reported = bench.blk().geometry().write_zeroes.expect("write zeroes");
            assert_eq!(reported.may_unmap, device_may == 1);
            assert_eq!(reported.max_bytes, 64 * 512);
            bench.with_device(|device| device.current.fill(0x11));
            bench.expected.fill(0x11);
            let mut op = bench.make(OpKind::WriteZeroes, 1024, 2048, &[]);
            let mut changed = op.head();
            if caller_may {
                changed.flags = OpFlags::MAY_UNMAP;
            }
            op.set_head(changed);
            assert_eq!(complete(&mut bench, op), Status::Done);
            bench.with_device(|device| {
                assert!(device.current == bench.expected);
                assert_eq!(device.unmaps > 0, device_may == 1 && caller_may);
            });
        }
    }
}

#[test]
fn a_disk_that_grew_is_used_whole_and_one_that_shrank_is_not_believed() {
    let mut bench = bench(BASIC);
    let before = bench.blk().geometry().capacity_bytes;
    for (sectors, expected) in [
        (8192u64, 8192 * 512),
        (16, 8192 * 512),
        (u64::MAX, 8192 * 512),
    ] {
        bench.with_device(|device| {
            device.registers.config[0..8].copy_from_slice(&sectors.to_le_bytes());
        });
        assert_eq!(bench.blk().refresh_capacity(), expected);
    }
    assert!(bench.blk().geometry().capacity_bytes > before);
    // A device that was given up is left alone.
    bench.blk().stop();
    assert_eq!(bench.blk().refresh_capacity(), 8192 * 512);
}
