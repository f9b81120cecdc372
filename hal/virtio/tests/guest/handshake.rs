//! Taking a device into use, and letting go of it.

use crate::fake::bench::{Bench, Blk};
use crate::fake::device::{Device, Limits, SEG_MAX, VERSION_1};
use crate::fake::hal::{FakeHal, Platform};
use crate::fake::registers::{Event, FAILED, FakeTransport, Reset};
use fvd::device::{BlockDevice, OpKind};
use fvd::units::Instant;
use fvd_virtio::{Fault, InitError, Options, VirtioBlk};
use virtio_drivers::transport::DeviceType;

/// Tries a device, and returns the error with what the device saw.
fn failure(options: Options, prepare: impl FnOnce(&mut Device)) -> InitError {
    let limits = Limits::default();
    match Bench::try_new(limits, options, 1, prepare) {
        Ok(_) => panic!("the device was accepted"),
        Err(error) => error,
    }
}

#[test]
fn initialisation_follows_the_order_of_the_specification() {
    let bench = Bench::new(Limits::default(), Options::default(), 1);
    bench.with_device(|device| {
        let events = &device.registers.events;
        let place = |wanted: Event| {
            let place = events.iter().position(|event| *event == wanted);
            place.unwrap_or_else(|| panic!("{wanted:?} is missing in {events:?}"))
        };
        let accepted = device.registers.accepted.expect("features");
        let order = [
            place(Event::Status(0)),
            place(Event::Status(1)),
            place(Event::Status(3)),
            place(Event::ReadFeatures),
            place(Event::WriteFeatures(accepted)),
            place(Event::Status(11)),
            place(Event::ReadConfig(0)),
            place(Event::SetQueue(64)),
            place(Event::Status(15)),
        ];
        assert!(order.is_sorted(), "{events:?}");
        assert_eq!(events.last(), Some(&Event::Status(15)));
    });
}

#[test]
fn only_understood_features_are_accepted() {
    let limits = Limits {
        offered: u64::MAX,
        ..Limits::default()
    };
    let bench = Bench::new(limits, Options::default(), 1);
    let known = [1, 2, 5, 6, 9, 10, 13, 14, 28, 32, 33];
    let known = known.iter().fold(0, |all, bit| all | 1u64 << bit);
    assert_eq!(
        bench.with_device(|device| device.registers.accepted),
        Some(known)
    );
}

#[test]
fn nothing_but_the_offered_features_is_accepted() {
    let limits = Limits {
        offered: VERSION_1,
        ..Limits::default()
    };
    let mut bench = Bench::new(limits, Options::default(), 1);
    let geometry = bench.blk().geometry();
    assert_eq!(geometry.segments_max, 1);
    assert!(!geometry.volatile_cache && geometry.discard.is_none());
    // And none of the fields that the features bring was read: the transport checks.
}

#[test]
fn a_legacy_device_is_refused() {
    let error = failure(Options::default(), |device| {
        device.registers.offered &= !VERSION_1;
    });
    assert_eq!(error, InitError::Legacy);
}

#[test]
fn a_device_that_refuses_its_own_features_is_failed_and_let_go() {
    Platform::restart();
    let handle = Device::create(Limits::default(), 1);
    handle.0.borrow_mut().registers.refuse_features = true;
    let transport = FakeTransport(handle.clone());
    let error = Blk::new(transport, Options::default()).err();
    assert_eq!(error, Some(InitError::FeaturesRefused));
    let device = handle.0.borrow();
    assert!(device.registers.events.contains(&Event::Status(FAILED)));
    assert!(device.registers.dropped);
    assert_eq!(Platform::dma_blocks(), 0);
}

#[test]
fn a_slow_reset_is_waited_for() {
    let bench = Bench::try_new(Limits::default(), Options::default(), 1, |device| {
        device.registers.reset = Reset::After(1000);
    });
    assert!(bench.is_ok());
}

#[test]
fn a_device_that_never_resets_leaks_its_transport_instead_of_hanging() {
    Platform::restart();
    let handle = Device::create(Limits::default(), 1);
    handle.0.borrow_mut().registers.reset = Reset::Never;
    let transport = FakeTransport(handle.clone());
    let error = Blk::new(transport, Options::default()).err();
    assert_eq!(error, Some(InitError::ResetTimeout));
    assert!(!handle.0.borrow().registers.dropped);
}

#[test]
fn unusable_devices_are_refused_for_the_right_reason() {
    type Case = (InitError, fn(&mut Device));
    let cases: [Case; 8] = [
        (InitError::NotBlock, |device| {
            device.registers.device_type = DeviceType::Network;
        }),
        (InitError::NoQueue, |device| {
            device.registers.queue_size_max = 0;
        }),
        (InitError::NoQueue, |device| {
            device.registers.queue_size_max = 3;
        }),
        (InitError::NoQueue, |device| {
            device.registers.queue_busy = true;
        }),
        (InitError::BadConfig, |device| {
            device.registers.config.truncate(8);
        }),
        (InitError::BadConfig, |device| {
            device.registers.config_unstable = true;
        }),
        (InitError::BadConfig, |device| {
            device.registers.config[20..24].copy_from_slice(&1000u32.to_le_bytes());
        }),
        (InitError::NoMemory, |_| {
            Platform::set(|platform| platform.allocations_left = Some(0));
        }),
    ];
    for (index, (expected, prepare)) in cases.into_iter().enumerate() {
        let error = failure(Options::default(), prepare);
        assert_eq!(error, expected, "case {index}");
        assert_eq!(Platform::dma_blocks(), 0, "case {index} leaks");
    }
}

#[test]
fn memory_for_half_of_the_driver_is_given_back() {
    let error = failure(Options::default(), |_| {
        Platform::set(|platform| platform.allocations_left = Some(1));
    });
    assert_eq!(error, InitError::NoMemory);
    assert_eq!(Platform::dma_blocks(), 0);
}

#[test]
fn options_out_of_range_are_refused() {
    let good = Options::default();
    for bad in [
        Options {
            queue_depth_max: 0,
            ..good
        },
        Options {
            transfer_max_bytes: 0,
            ..good
        },
        Options {
            transfer_max_bytes: 511,
            ..good
        },
        Options {
            segment_max_bytes: 0,
            ..good
        },
        Options {
            memory_align_bytes: 3,
            ..good
        },
        Options {
            atomic_write_bytes: 256,
            ..good
        },
        Options {
            atomic_write_bytes: 1536,
            ..good
        },
    ] {
        assert_eq!(failure(bad, |_| {}), InitError::BadOptions, "{bad:?}");
    }
}

#[test]
fn a_short_queue_is_used_as_far_as_it_goes() {
    let limits = Limits {
        queue_size: 48,
        ..Limits::default()
    };
    let mut bench = Bench::new(limits, Options::default(), 1);
    assert_eq!(bench.blk().geometry().queue_depth, 32);
    drop(bench);

    let limits = Limits {
        queue_size: 4,
        offered: VERSION_1 | SEG_MAX,
        ..Limits::default()
    };
    let mut bench = Bench::new(limits, Options::default(), 1);
    let geometry = bench.blk().geometry();
    assert_eq!((geometry.queue_depth, geometry.segments_max), (1, 2));
    let op = bench.transfer(OpKind::Write, 0, &[512, 1024]);
    assert!(bench.submit(op).is_ok());
    bench.blk().notify();
    bench.with_device(|device| device.run());
    assert!(bench.poll().is_some());
}

/// KiB of the driver itself, and of DMA memory with and without indirect descriptors.
fn footprint<const Q: usize>() -> [usize; 3] {
    let dma = [true, false].map(|indirect| {
        Platform::restart();
        let handle = Device::create(Limits::default(), 1);
        let options = Options {
            indirect,
            ..Options::default()
        };
        let blk = VirtioBlk::<FakeHal, _, Q>::new(FakeTransport(handle), options);
        assert!(blk.is_ok());
        Platform::dma_bytes().div_ceil(1024)
    });
    let own = size_of::<VirtioBlk<FakeHal, FakeTransport, Q>>();
    [own.div_ceil(1024), dma[0], dma[1]]
}

#[test]
fn memory_is_what_the_documentation_says() {
    assert_eq!(footprint::<64>(), [6, 16, 8]);
    assert_eq!(footprint::<128>(), [10, 32, 12]);
    assert_eq!(footprint::<256>(), [20, 64, 24]);
}

#[test]
fn drop_resets_the_device_and_frees_its_memory() {
    let mut bench = Bench::new(Limits::default(), Options::default(), 1);
    let op = bench.transfer(OpKind::Read, 0, &[4096]);
    assert!(bench.submit(op).is_ok());
    bench.blk().notify();
    bench.with_device(|device| device.fetch());
    assert_eq!((Platform::dma_blocks(), Platform::shares()), (2, 1));
    bench.with_device(|device| device.registers.reset = Reset::After(100));
    bench.blk = None;
    assert!(bench.with_device(|device| device.registers.dropped));
    assert_eq!((Platform::dma_blocks(), Platform::shares()), (0, 0));
    // The op in flight is forgotten: its record never comes back.
    assert_eq!(bench.free_ops(), 159);
}

#[test]
fn drop_leaks_everything_if_the_device_does_not_reset() {
    let mut bench = Bench::new(Limits::default(), Options::default(), 1);
    let op = bench.transfer(OpKind::Read, 0, &[4096]);
    assert!(bench.submit(op).is_ok());
    bench.with_device(|device| device.registers.reset = Reset::Never);
    bench.blk = None;
    assert!(!bench.with_device(|device| device.registers.dropped));
    assert_eq!((Platform::dma_blocks(), Platform::shares()), (2, 1));
}

#[test]
fn stop_returns_what_is_in_flight_after_the_reset() {
    let mut bench = Bench::new(Limits::default(), Options::default(), 1);
    let op = bench.transfer(OpKind::Write, 0, &[4096]);
    assert!(bench.submit(op).is_ok());
    bench.with_device(|device| device.registers.reset = Reset::After(3));
    bench.blk().stop();
    assert_eq!(bench.blk().fault(), Some(Fault::Stopped));
    for _ in 0..3 {
        assert!(bench.blk().poll(Instant::ZERO).is_none());
    }
    assert!(bench.poll().is_some());
    assert_eq!(bench.blk().in_flight(), 0);
    bench.blk = None;
    assert_eq!(Platform::dma_blocks(), 0);
}
