//! The copier on devices in memory that misbehave within their contract.

use core::ops::Range;
use core::task::Waker;
use std::io;

use fvd::buffer::{Head, Op};
use fvd::device::{
    BlockDevice, DeviceError, FailNth, Fault, FaultPlan, Geometry, OpKind, Ram, Verdict, When,
};
use fvd::units::Instant;
use fvd_std::drive::Driver;
use fvd_std::sparse::SparseDevice;

use super::copy::copy;
use super::plan::Content;
use crate::failure::Failure;

const BYTES: usize = 5 << 20;
const GRANULE: usize = 4096;

/// A disk in memory with faults, and what it knows of its holes.
struct Disk<P> {
    device: Fault<Ram, P>,
    data: Vec<Range<u64>>,
}

impl<P: FaultPlan> Disk<P> {
    fn new(bytes: Vec<u8>, plan: P, data: Vec<Range<u64>>) -> Disk<P> {
        Disk::on(bytes.leak(), plan, data)
    }

    fn on(memory: &'static mut [u8], plan: P, data: Vec<Range<u64>>) -> Disk<P> {
        let ram = Ram::new(memory).with_write_zeroes();
        Disk {
            device: Fault::new(ram, plan),
            data,
        }
    }

    /// The memory, for which nothing may be in flight.
    fn into_memory(self) -> &'static mut [u8] {
        let memory = self
            .device
            .into_inner()
            .ok()
            .and_then(|ram| ram.into_memory().ok());
        memory.expect("nothing in flight")
    }
}

impl<P: FaultPlan> BlockDevice for Disk<P> {
    fn geometry(&self) -> Geometry {
        self.device.geometry()
    }

    fn submit(&mut self, op: Op) -> Result<(), Op> {
        self.device.submit(op)
    }

    fn notify(&mut self) {
        self.device.notify();
    }

    fn poll(&mut self, now: Instant) -> Option<Op> {
        self.device.poll(now)
    }

    fn poll_at(&self) -> When {
        self.device.poll_at()
    }

    fn set_waker(&mut self, waker: &Waker) -> bool {
        self.device.set_waker(waker)
    }
}

impl<P: FaultPlan> SparseDevice for Disk<P> {
    fn next_data(&self, from: u64) -> io::Result<Option<Range<u64>>> {
        let island = self.data.iter().find(|island| island.end > from);
        Ok(island.map(|island| island.start.max(from)..island.end))
    }
}

fn pass(_: &Head) -> Verdict {
    Verdict::Pass
}

/// Granules of noise, of zeros and of both by turns, with a hole in the second mebibyte.
fn source_bytes() -> Vec<u8> {
    let mut bytes = vec![0; BYTES];
    for (index, granule) in bytes.chunks_mut(GRANULE).enumerate() {
        match index / 20 % 5 {
            0 | 3 => granule.fill(index as u8 | 1),
            1 => granule[GRANULE - 1] = 1,
            _ => {}
        }
    }
    bytes[1 << 20..2 << 20].fill(0);
    bytes
}

fn source<P: FaultPlan>(plan: P) -> Disk<P> {
    Disk::new(
        source_bytes(),
        plan,
        [0..1 << 20, 2 << 20..BYTES as u64].to_vec(),
    )
}

/// What a target of the kind that `content` says holds before the copy.
fn target_bytes(content: Content) -> Vec<u8> {
    match content {
        Content::Zeroes => vec![0; BYTES],
        Content::Unknown => vec![0xAA; BYTES],
        // Shares a half with the source, and has data where the source has zeros.
        Content::Base | Content::Source { .. } => {
            let mut bytes = source_bytes();
            bytes[BYTES / 2..].fill(3);
            bytes[(1 << 20) + 1000..(1 << 20) + 9000].fill(4);
            bytes
        }
    }
}

fn target_on<P: FaultPlan>(memory: &'static mut [u8], content: Content, plan: P) -> Disk<P> {
    memory.copy_from_slice(&target_bytes(content));
    let everything = (content == Content::Base).then_some(0..BYTES as u64);
    Disk::on(memory, plan, everything.into_iter().collect())
}

fn target<P: FaultPlan>(content: Content, plan: P) -> Disk<P> {
    target_on(vec![0; BYTES].leak(), content, plan)
}

fn run<P: FaultPlan, Q: FaultPlan>(
    content: Content,
    source: &mut Disk<P>,
    target: &mut Disk<Q>,
) -> Result<(), Failure> {
    copy(&mut Driver::new(), source, target, content)
}

const CONTENTS: [Content; 3] = [Content::Zeroes, Content::Unknown, Content::Base];

#[test]
fn every_kind_of_target_ends_up_as_the_source() {
    for content in CONTENTS {
        let (mut source, mut target) = (source(pass), target(content, pass));
        run(content, &mut source, &mut target).expect("copied");
        assert!(target.into_memory() == source_bytes(), "{content:?}");
    }
}

#[test]
fn a_base_as_its_own_target_is_told_its_zeros_and_nothing_else() {
    let zeroed = core::cell::RefCell::new(Vec::new());
    let watch = |head: &Head| {
        assert_eq!(head.kind, OpKind::WriteZeroes);
        zeroed
            .borrow_mut()
            .push(head.offset..head.offset + head.len);
        Verdict::Pass
    };
    let mut source = source(pass);
    let mut target = Disk::new(source_bytes(), watch, Vec::new());
    let block_bytes: u64 = 64 << 10;
    run(Content::Source { block_bytes }, &mut source, &mut target).expect("looked at");
    let told = zeroed
        .into_inner()
        .into_iter()
        .flat_map(|range| range.step_by(64 << 10));
    let mut told: Vec<u64> = told.collect();
    told.sort_unstable();
    let bytes = source_bytes();
    let blocks = bytes.chunks(64 << 10).zip(0..);
    let zero = blocks.filter(|(block, _)| block.iter().all(|&byte| byte == 0));
    let expected: Vec<u64> = zero.map(|(_, index)| index * block_bytes).collect();
    assert!(
        expected.len() > 16 && told == expected,
        "{told:?}, not {expected:?}"
    );
}

#[test]
fn devices_that_are_full_now_and_then_only_take_longer() {
    for content in CONTENTS {
        let every_third = || {
            let mut count = 0;
            move |_: &Head| {
                count += 1;
                if count % 3 == 1 {
                    Verdict::Refuse(DeviceError::Busy)
                } else {
                    Verdict::Pass
                }
            }
        };
        let (mut source, mut target) = (source(every_third()), target(content, every_third()));
        run(content, &mut source, &mut target).expect("copied");
        assert!(target.into_memory() == source_bytes(), "{content:?}");
    }
}

#[test]
fn any_operation_that_fails_fails_the_copy_and_nothing_stays_in_flight() {
    let mut memory = vec![0; BYTES].leak();
    let mut source = source(pass);
    for content in CONTENTS {
        for pass_count in 0.. {
            let mut target = target_on(memory, content, FailNth::once(None, pass_count));
            let result = run(content, &mut source, &mut target);
            let struck = target.device.plan().has_struck();
            assert_eq!(
                result.is_err(),
                struck,
                "{content:?}, operation {pass_count}"
            );
            if let Err(failure) = result {
                let says = format!("{failure:?}");
                assert!(says.contains("of DST: input/output error"), "{says}");
            }
            memory = target.into_memory();
            if !struck {
                assert!(pass_count > 10, "{content:?}: {pass_count} operations");
                break;
            }
        }
    }
}

#[test]
fn a_source_that_fails_or_refuses_fails_the_copy() {
    for pass_count in 0..4 {
        let mut source = source(FailNth::sticky(Some(OpKind::Read), pass_count));
        let mut target = target(Content::Base, pass);
        let failure = run(Content::Base, &mut source, &mut target).expect_err("it failed");
        assert!(
            format!("{failure:?}").contains("of SRC: input/output error"),
            "{failure:?}"
        );
        target.into_memory();
    }
    let refuse = |_: &Head| Verdict::Refuse(DeviceError::Removed);
    let (mut source, mut target) = (source(refuse), target(Content::Zeroes, pass));
    let failure = run(Content::Zeroes, &mut source, &mut target).expect_err("it refused");
    assert!(
        format!("{failure:?}").contains("the device is gone"),
        "{failure:?}"
    );
}

#[test]
fn a_target_that_is_too_small_is_refused_before_anything_is_written() {
    let mut source = source(pass);
    let write = |_: &Head| -> Verdict { panic!("a write") };
    let mut target = Disk::new(vec![7; BYTES - 512], write, Vec::new());
    let failure = run(Content::Zeroes, &mut source, &mut target).expect_err("too small");
    assert!(format!("{failure:?}").contains("too small"), "{failure:?}");
}
