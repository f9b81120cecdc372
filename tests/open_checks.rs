//! What opening accepts and refuses beyond the header's own rules.

mod common;

use common::{BLOCK_BYTES, DISK_BYTES, Setup};
use fvd::blocking::Blocking;
use fvd::device::Ram;
use fvd::format::{Field, Header, Limits, SLOT_BYTES, choose_slot};
use fvd::open::OpenError;
use fvd::stores::{One, WithBase};

const OVERLAY: Setup = Setup {
    table: true,
    base_bytes: DISK_BYTES,
    external: false,
    used: false,
};

/// An overlay of which every block was written, closed, as bytes.
fn full_overlay() -> &'static mut [u8] {
    let stores = WithBase::new(One(OVERLAY.devices().0), OVERLAY.base());
    let disk = common::open(stores, common::options());
    let mut disk = Blocking::new(disk, common::memory(64 << 10), common::idle())
        .unwrap_or_else(|_| panic!("room"));
    for block in 0..DISK_BYTES / BLOCK_BYTES {
        let value = block as u8;
        disk.write_at(block * BLOCK_BYTES, &[value; BLOCK_BYTES as usize])
            .expect("writes");
    }
    let (stores, _) = common::close(disk.into_parts().0).into_parts();
    stores.0.into_memory().unwrap_or_else(|_| panic!("idle"))
}

/// Changes the header of an image as a writer would: in the older slot, a generation later.
fn change_header(image: &mut [u8], change: impl FnOnce(&mut Header)) {
    let (slots, _) = image.split_at_mut(2 * SLOT_BYTES);
    let (first, second) = slots.split_at_mut(SLOT_BYTES);
    let chosen = choose_slot(first, second, &Limits::FORMAT).expect("valid");
    let mut header = chosen.header;
    header.generation += 1;
    change(&mut header);
    let other = if chosen.slot.offset() == 0 {
        second
    } else {
        first
    };
    header
        .encode(other.first_chunk_mut().expect("a slot"))
        .expect("legal");
}

#[test]
fn the_numbers_of_a_session_include_its_close() {
    let stores = WithBase::new(One(OVERLAY.devices().0), OVERLAY.base());
    let disk = common::open(stores, common::options());
    let mut disk = Blocking::new(disk, common::memory(64 << 10), common::idle())
        .unwrap_or_else(|_| panic!("room"));
    disk.write_at(0, &[1; 512]).expect("writes");
    let (disk, _) = disk.into_parts();
    let before = disk.stats();
    let after = fvd::blocking::close(disk, common::idle(), drop).stats;
    assert_eq!(after.requests, 1);
    assert_eq!(after.commits, before.commits + 1);
    assert_eq!(after.checkpoints, before.checkpoints + 1);
}

#[test]
fn a_finished_prefetch_releases_the_base_whatever_the_bitmap_says() {
    let image = full_overlay();
    change_header(image, |header| header.core.base_fully_prefetched = true);
    let disk = common::open(One(Ram::new(image)), common::options());
    let mut disk = Blocking::new(disk, common::memory(64 << 10), common::idle())
        .unwrap_or_else(|_| panic!("room"));
    let mut block = [0; BLOCK_BYTES as usize];
    for index in 0..DISK_BYTES / BLOCK_BYTES {
        disk.read_at(index * BLOCK_BYTES, &mut block)
            .expect("reads");
        assert!(
            block.iter().all(|byte| *byte == index as u8),
            "block {index}"
        );
    }
    common::close(disk.into_parts().0);
}

#[test]
fn an_entry_above_the_zero_floor_is_damage_also_on_a_store_that_grew() {
    for grown in [0, 64 << 10] {
        let image = full_overlay();
        change_header(image, |header| {
            header.zero_floor_chunk = 1;
            header.store_bytes -= grown;
        });
        let stores = WithBase::new(One(Ram::new(image)), OVERLAY.base());
        match common::try_open(stores, common::options()) {
            Err(OpenError::Format(error)) => assert_eq!(error.field, Field::TableEntry),
            Err(other) => panic!("{other}"),
            Ok(_) => panic!("opened, although nothing was ever written up there"),
        }
    }
}

#[test]
fn a_read_only_session_writes_nothing_and_closes_cleanly() {
    let image = full_overlay();
    let before = image.to_vec();
    let options = fvd::open::OpenOptions {
        read_only: true,
        ..common::options()
    };
    let stores = WithBase::new(One(Ram::new(image)), OVERLAY.base());
    let disk = common::open(stores, options);
    let mut disk = Blocking::new(disk, common::memory(64 << 10), common::idle())
        .unwrap_or_else(|_| panic!("room"));
    disk.read_at(0, &mut [0; 4096]).expect("reads");
    disk.flush().expect("flushes");
    assert!(!disk.device().is_poisoned());
    let (stores, _) = common::close(disk.into_parts().0).into_parts();
    let after = stores.0.into_memory().unwrap_or_else(|_| panic!("idle"));
    assert!(after[..] == before[..]);
}

#[test]
fn a_base_of_another_size_is_refused_unless_accepted() {
    let image = full_overlay();
    let base = || Ram::new(common::base_bytes(DISK_BYTES as usize / 2)).read_only();
    match common::try_open(
        WithBase::new(One(Ram::new(image)), base()),
        common::options(),
    ) {
        Err(OpenError::BaseMismatch {
            recorded_bytes,
            found_bytes,
        }) => {
            assert_eq!((recorded_bytes, found_bytes), (DISK_BYTES, DISK_BYTES / 2));
        }
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("opened on half a base"),
    }
    let options = fvd::open::OpenOptions {
        accept_base: true,
        ..common::options()
    };
    common::close(common::open(
        WithBase::new(One(Ram::new(full_overlay())), base()),
        options,
    ));
}
