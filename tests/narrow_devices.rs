//! Devices that take little at a time, with and without zeroing and discarding: the disk cuts what it
//! sends to their limits, and the guest sees none of it.

mod common;

use common::{BLOCK_BYTES, CHUNK_BYTES, DISK_BYTES, Rng, Setup};
use fvd::blocking::Blocking;
use fvd::buffer::Op;
use fvd::device::{
    BlockDevice, DeviceError, DiscardLimits, Geometry, OpKind, Ram, Status, When, WriteZeroesLimits,
};
use fvd::stores::{One, Stores, Two, WithBase};
use fvd::units::Instant;

/// Refuses whatever goes beyond its geometry, and all beyond so many operations at once.
struct Narrow {
    inner: Ram,
    geometry: Geometry,
    in_flight: usize,
    /// Bytes zeroed and discarded, and times it was full.
    zeroed_bytes: u64,
    discarded_bytes: u64,
    busy: u64,
}

/// What a narrow device can do besides reading and writing.
#[derive(Clone, Copy, Debug)]
struct Features {
    zeroes: bool,
    unmaps: bool,
    /// Granularity of its discard; 0 = it has none.
    discards: u32,
}

const DEPTH: usize = 2;

impl Narrow {
    fn new(inner: Ram, features: Features) -> Narrow {
        let inner = inner.with_write_zeroes().with_discard();
        let geometry = Geometry {
            // As short as a device may be, and too few leases for a copied head and a copied tail.
            transfer_max_bytes: 64 << 10,
            segments_max: 2,
            segment_max_bytes: 64 << 10,
            write_zeroes: features.zeroes.then_some(WriteZeroesLimits {
                max_bytes: 8 << 10,
                may_unmap: features.unmaps,
            }),
            discard: (features.discards != 0).then_some(DiscardLimits {
                granularity_bytes: features.discards,
                max_bytes: 8 << 10,
                zeroes_after: true,
            }),
            ..inner.geometry()
        };
        Narrow {
            inner,
            geometry,
            in_flight: 0,
            zeroed_bytes: 0,
            discarded_bytes: 0,
            busy: 0,
        }
    }
}

impl BlockDevice for Narrow {
    fn geometry(&self) -> Geometry {
        self.geometry
    }

    fn submit(&mut self, mut op: Op) -> Result<(), Op> {
        let head = op.head();
        let mut answer = self.geometry.check(&op);
        if let (OpKind::Discard, Some(limits)) = (head.kind, self.geometry.discard) {
            let granularity = u64::from(limits.granularity_bytes);
            if !(head.offset | head.len).is_multiple_of(granularity) {
                answer = Err(DeviceError::Invalid);
            }
        }
        if answer.is_ok() && self.in_flight == DEPTH {
            self.busy += 1;
            answer = Err(DeviceError::Busy);
        }
        if let Err(error) = answer {
            op.complete(Err(error));
            return Err(op);
        }
        match head.kind {
            OpKind::Discard => self.discarded_bytes += head.len,
            OpKind::WriteZeroes => self.zeroed_bytes += head.len,
            _ => {}
        }
        self.in_flight += 1;
        self.inner.submit(op)
    }

    fn poll(&mut self, now: Instant) -> Option<Op> {
        let op = self.inner.poll(now)?;
        assert_eq!(op.status(), Status::Done);
        self.in_flight -= 1;
        Some(op)
    }

    fn poll_at(&self) -> When {
        self.inner.poll_at()
    }
}

/// Random requests one after the other, against a model.
fn exercise<S: Stores>(stores: S, setup: &Setup, seed: u64) -> S {
    let disk = common::open(stores, common::options());
    let mut disk = Blocking::new(disk, common::memory(64 << 10), common::idle())
        .unwrap_or_else(|_| panic!("room"));
    let mut model = setup.initial_bytes();
    let mut rng = Rng(seed);
    for turn in 0..250 {
        let longest = if rng.below(4) == 0 { 200 } else { 20 };
        let sectors = 1 + rng.below(longest);
        let start = rng.below(DISK_BYTES / 512 - sectors + 1) * 512;
        let len = sectors * 512;
        let range = start as usize..(start + len) as usize;
        match rng.below(8) {
            0 | 1 => {
                disk.write_zeroes_at(start, len).expect("zeroes");
                model[range].fill(0);
            }
            2 => {
                disk.discard_at(start, len).expect("discards");
                let mut now = vec![0; len as usize];
                disk.read_at(start, &mut now).expect("reads");
                for (now, was) in now.chunks(512).zip(model[range].chunks_mut(512)) {
                    let zeros = now.iter().all(|byte| *byte == 0);
                    assert!(zeros || now == was, "{setup:?}: neither old nor zeros");
                    was.copy_from_slice(now);
                }
            }
            3 => disk.flush().expect("flushes"),
            4 | 5 => {
                let mut got = vec![0; len as usize];
                disk.read_at(start, &mut got).expect("reads");
                assert!(got == model[range], "{setup:?} {start}+{len}, turn {turn}");
            }
            _ => {
                let data = vec![1 + (turn % 80) as u8; len as usize];
                disk.write_at(start, &data).expect("writes");
                model[range].copy_from_slice(&data);
            }
        }
    }
    let mut all = vec![0; DISK_BYTES as usize];
    disk.read_at(0, &mut all).expect("reads");
    assert!(all == model, "{setup:?}");
    let (disk, _) = disk.into_parts();
    assert_eq!(disk.stats().protocol_errors, 0);
    common::close(disk)
}

fn setups() -> impl Iterator<Item = Setup> {
    common::all_setups()
        .into_iter()
        .filter(|setup| setup.base_bytes <= DISK_BYTES)
}

fn every_kind_of_store(features: Features) {
    for (index, setup) in setups().enumerate() {
        let seed = 31 * index as u64;
        let narrow = |ram| Narrow::new(ram, features);
        let (metadata, data) = setup.devices();
        let metadata = narrow(metadata);
        let base = || narrow(setup.base());
        let busy = match (data, setup.base_bytes != 0) {
            (None, false) => exercise(One(metadata), &setup, seed).0.busy,
            (None, true) => {
                let stores = WithBase::new(One(metadata), base());
                exercise(stores, &setup, seed).into_parts().0.0.busy
            }
            (Some(data), false) => {
                let stores = Two::new(metadata, narrow(data));
                exercise(stores, &setup, seed).into_parts().1.busy
            }
            (Some(data), true) => {
                let stores = WithBase::new(Two::new(metadata, narrow(data)), base());
                exercise(stores, &setup, seed)
                    .into_parts()
                    .0
                    .into_parts()
                    .1
                    .busy
            }
        };
        let splits = setup.table || setup.base_bytes != 0;
        assert!(busy > 0 || !splits, "never full, so nothing ever waited");
    }
}

#[test]
fn that_only_read_and_write() {
    every_kind_of_store(Features {
        zeroes: false,
        unmaps: false,
        discards: 0,
    });
}

#[test]
fn that_zero_without_unmapping() {
    every_kind_of_store(Features {
        zeroes: true,
        unmaps: false,
        discards: 0,
    });
}

#[test]
fn that_zero_and_unmap() {
    every_kind_of_store(Features {
        zeroes: true,
        unmaps: true,
        discards: 0,
    });
}

#[test]
fn that_discard_in_large_steps() {
    every_kind_of_store(Features {
        zeroes: false,
        unmaps: false,
        discards: 2048,
    });
}

const PLAIN: Setup = Setup {
    table: true,
    base_bytes: 0,
    external: true,
    used: false,
};

/// A disk over a narrow data device on which the first two chunks are written.
fn written(
    features: Features,
) -> Blocking<fvd::Disk<Two<Ram, Narrow>>, impl FnMut(When) -> Instant> {
    let (metadata, data) = PLAIN.devices();
    let stores = Two::new(metadata, Narrow::new(data.expect("apart"), features));
    let disk = common::open(stores, common::options());
    let mut disk = Blocking::new(disk, common::memory(64 << 10), common::idle())
        .unwrap_or_else(|_| panic!("room"));
    disk.write_at(0, &[7; 2 * CHUNK_BYTES as usize])
        .expect("writes");
    disk
}

/// What a discard leaves in a store is anything at all until a flush, and flushed bytes may not become
/// that: a guest that discards gets old bytes or zeros.
#[test]
fn a_discard_is_nothing_on_a_store_that_can_only_discard() {
    let mut disk = written(Features {
        zeroes: false,
        unmaps: false,
        discards: 2048,
    });
    disk.discard_at(0, CHUNK_BYTES).expect("discards");
    let discarded = disk.device_mut().stores_mut().parts_mut().1.discarded_bytes;
    assert_eq!(discarded, 0);
    let mut got = vec![0; 2 * CHUNK_BYTES as usize];
    disk.read_at(0, &mut got).expect("reads");
    assert!(got.iter().all(|byte| *byte == 7));
}

#[test]
fn a_discard_is_zeroing_where_that_unmaps_and_nothing_where_it_does_not() {
    for unmaps in [false, true] {
        let mut disk = written(Features {
            zeroes: true,
            unmaps,
            discards: 0,
        });
        disk.discard_at(0, BLOCK_BYTES).expect("discards");
        let zeroed = disk.device_mut().stores_mut().parts_mut().1.zeroed_bytes;
        assert_eq!(zeroed, if unmaps { BLOCK_BYTES } else { 0 });
    }
}
