//! A thin disk in RAM: create, open, write by leases, close.

use core::mem::MaybeUninit;

use fvd::blocking;
use fvd::buffer::{Arena, Head, Loan, OpPool};
use fvd::create::CREATE_ARENA_BYTES;
use fvd::device::{OpFlags, OpKind, Ram, Status};
use fvd::format::{CreateParams, ImageId, StoreChoice, plan_layout};
use fvd::open::OpenOptions;
use fvd::stores::One;
use fvd::units::Instant;

// A kernel would take these from a static region; the core itself never allocates.
fn memory(bytes: usize) -> &'static mut [MaybeUninit<u8>] {
    let block = vec![MaybeUninit::uninit(); bytes + 4096].leak();
    let skip = block.as_ptr().align_offset(4096);
    &mut block[skip..skip + bytes]
}

fn main() {
    let wait = |_| Instant::ZERO; // nothing to wait for in RAM
    let device_bytes = 32 << 20;
    let device = Ram::new(vec![0; device_bytes as usize].leak());

    // An empty 1 GiB disk that lives in 32 MiB.
    let mut params = CreateParams::new(1 << 30, ImageId(*b"made at random!!"));
    params.store = StoreChoice::FixedZeroed { device_bytes };
    let header = plan_layout(&params).expect("the device holds the image");
    let created = blocking::create(device, header, true, memory(CREATE_ARENA_BYTES), wait);
    created.result.expect("created");

    let (stores, options) = (One(created.device), OpenOptions::DEFAULT);
    let opened = blocking::open(stores, options, memory(4 << 20), wait);
    let mut disk = opened.unwrap_or_else(|failure| panic!("{}", failure.error));

    // A buffer is lent to the disk and comes back with the completion.
    let mut arena = Arena::new(memory(OpPool::arena_bytes(1))).expect("aligned");
    let mut ops = OpPool::carve(&mut arena, 1).expect("room for one");
    let (loan, lease) = Loan::new(b"Hello, disk!".repeat(512).leak()).expect("not empty");
    let head = Head::new(OpKind::Write, 512 << 20, 6144).with_flags(OpFlags::FUA);
    let mut op = ops.take(head).expect("one is free");
    op.push(lease).expect("room for eight");
    let mut op = blocking::execute(&mut disk, op, wait, |_| unreachable!());
    assert_eq!(op.status(), Status::Done);
    let lease = op.pop().expect("it came home");
    let buffer = loan.redeem(lease).expect("the whole of it");

    println!("{} durable bytes: {:?}", buffer.len(), disk.stats());
    let closed = blocking::close(disk, wait, drop);
    closed.result.expect("closed cleanly");
}
