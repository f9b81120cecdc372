//! Notifications, interrupts, wakers, and when to poll.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::task::{Wake, Waker};

use crate::fake::bench::Bench;
use crate::fake::device::Limits;
use crate::fake::registers::{NEEDS_RESET, Reset};
use fvd::device::{BlockDevice, OpKind, When};
use fvd::units::Instant;
use fvd_virtio::{Fault, Options};
use virtio_drivers::transport::InterruptStatus;

struct Count(AtomicU32);

impl Wake for Count {
    fn wake(self: Arc<Self>) {
        self.0.fetch_add(1, Ordering::Relaxed);
    }
}

fn bench(options: Options) -> Bench {
    Bench::new(Limits::default(), options, 1)
}

fn submit_read(bench: &mut Bench, offset: u64) {
    let op = bench.transfer(OpKind::Read, offset, &[512]);
    assert!(bench.submit(op).is_ok());
}

#[test]
fn a_batch_is_notified_once() {
    let mut bench = bench(Options::default());
    for index in 0..30 {
        submit_read(&mut bench, index * 512);
    }
    assert_eq!(bench.with_device(|device| device.registers.kicks), 0);
    bench.blk().notify();
    bench.blk().notify();
    assert_eq!(bench.with_device(|device| device.registers.kicks), 1);
    assert_eq!(bench.blk().stats().notifications, 1);
    bench.with_device(|device| device.run());
    while bench.poll().is_some() {}
    assert_eq!(bench.finished, 30);
}

#[test]
fn what_the_device_has_finished_can_be_counted_before_it_is_taken() {
    let mut bench = bench(Options::default());
    for index in 0..3 {
        submit_read(&mut bench, index * 512);
    }
    bench.blk().notify();
    let counts = |bench: &mut Bench| (bench.blk().completions_waiting(), bench.blk().in_flight());
    assert_eq!(counts(&mut bench), (0, 3));
    bench.with_device(|device| device.run());
    assert_eq!(counts(&mut bench), (3, 3));
    assert!(bench.poll().is_some());
    assert_eq!(counts(&mut bench), (2, 2));
    while bench.poll().is_some() {}
    assert_eq!(counts(&mut bench), (0, 0));
}

#[test]
fn without_interrupts_the_device_asks_to_be_polled() {
    let mut bench = bench(Options::default());
    assert!(!bench.blk().set_waker(Waker::noop()));
    assert_eq!(bench.blk().poll_at(), When::Event, "nothing in flight");
    submit_read(&mut bench, 0);
    assert_eq!(bench.blk().poll_at(), When::Now);
    bench.blk().notify();
    bench.with_device(|device| device.run());
    assert_eq!(bench.with_device(|device| device.registers.interrupts), 0);
    assert!(bench.poll().is_some());
    assert_eq!(bench.blk().poll_at(), When::Event);
}

#[test]
fn a_poll_interval_spaces_polls_but_not_completions() {
    let mut bench = bench(Options {
        poll_interval_micros: 50,
        ..Options::default()
    });
    submit_read(&mut bench, 0);
    bench.blk().notify();
    assert!(bench.blk().poll(Instant::from_micros(1000)).is_none());
    let next = When::At(Instant::from_micros(1050));
    assert_eq!(bench.blk().poll_at(), next);
    bench.with_device(|device| device.run());
    assert_eq!(bench.blk().poll_at(), When::Now);
}

#[test]
fn an_interrupt_wakes_the_last_waker() {
    let mut bench = bench(Options {
        interrupts: true,
        ..Options::default()
    });
    let counts = [0, 1].map(|_| Arc::new(Count(AtomicU32::new(0))));
    for count in &counts {
        assert!(bench.blk().set_waker(&Waker::from(count.clone())));
    }
    assert_eq!(bench.blk().on_interrupt().bits(), 0);
    submit_read(&mut bench, 0);
    bench.blk().notify();
    assert_eq!(bench.blk().poll_at(), When::Event);
    bench.with_device(|device| device.run());
    assert_eq!(bench.blk().poll_at(), When::Now, "a completion waits");
    let cause = bench.blk().on_interrupt();
    assert!(cause == InterruptStatus::QUEUE_INTERRUPT);
    let wakes = counts.map(|count| count.0.load(Ordering::Relaxed));
    assert_eq!(wakes, [0, 1]);
    assert!(bench.poll().is_some());
    assert_eq!(bench.blk().on_interrupt().bits(), 0);
}

#[test]
fn an_interrupt_about_the_configuration_finds_a_device_in_need_of_a_reset() {
    let mut bench = bench(Options {
        interrupts: true,
        ..Options::default()
    });
    submit_read(&mut bench, 0);
    bench.with_device(|device| {
        device.registers.status |= NEEDS_RESET;
        device.registers.interrupts |= 2;
    });
    bench.blk().on_interrupt();
    assert_eq!(bench.blk().fault(), Some(Fault::NeedsReset));
    assert_eq!(bench.blk().poll_at(), When::Now, "no interrupt tells of it");
    assert!(bench.poll().is_some());
}

#[test]
fn ops_of_a_stopped_device_are_fetched_without_delay() {
    let mut bench = bench(Options {
        poll_interval_micros: 50,
        ..Options::default()
    });
    for index in 0..3 {
        submit_read(&mut bench, index * 512);
    }
    bench.with_device(|device| device.registers.reset = Reset::After(1));
    bench.blk().stop();
    assert!(bench.blk().poll(Instant::from_micros(7)).is_none());
    let next = When::At(Instant::from_micros(57));
    assert_eq!(bench.blk().poll_at(), next, "the reset is not confirmed");
    assert!(bench.poll().is_some());
    assert_eq!(bench.blk().poll_at(), When::Now);
    assert!(bench.poll().is_some() && bench.poll().is_some());
    assert_eq!(bench.blk().poll_at(), When::Event);
}
