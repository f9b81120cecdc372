//! A store that held somebody else's data: none of it ever reaches the guest.

mod common;

use common::{BLOCK_BYTES, CHUNK_BYTES, DISK_BYTES, Rng, SECRET, Setup};
use fvd::blocking::Blocking;
use fvd::device::{BlockDevice, Ram};
use fvd::stores::{One, Stores, Two, WithBase};

/// Reads all and insists that no byte of the secret is in it. Guests write values below it only.
fn read_all(
    disk: &mut Blocking<impl BlockDevice, impl FnMut(fvd::device::When) -> fvd::units::Instant>,
) {
    let mut all = vec![0; DISK_BYTES as usize];
    disk.read_at(0, &mut all).expect("reads");
    let leak = all.iter().position(|byte| *byte == SECRET);
    assert_eq!(leak, None, "a secret byte reached the guest");
}

#[test]
fn a_fixed_device_full_of_secrets_never_shows_one() {
    for external in [false, true] {
        for zeroes in [false, true] {
            for base_bytes in [0, DISK_BYTES / 2 + 1536] {
                let setup = Setup {
                    table: true,
                    base_bytes,
                    external,
                    used: true,
                };
                let (metadata, data) = setup.devices();
                let with = |ram: Ram| if zeroes { ram.with_write_zeroes() } else { ram };
                match data {
                    None => probe(&setup, One(with(metadata))),
                    Some(data) => probe(&setup, Two::new(metadata, with(data))),
                }
            }
        }
    }
}

fn probe<S: Stores>(setup: &Setup, stores: S) {
    if setup.base_bytes == 0 {
        probe_for_leaks(common::open(stores, common::options()));
    } else {
        let stores = WithBase::new(stores, setup.base());
        probe_for_leaks(common::open(stores, common::options()));
    }
}

fn probe_for_leaks(disk: impl BlockDevice) {
    let mut disk = Blocking::new(disk, common::memory(64 << 10), common::idle())
        .unwrap_or_else(|_| panic!("room"));
    read_all(&mut disk);
    let mut rng = Rng(77);
    for turn in 0..400 {
        // A third of them are whole blocks.
        let grain = if rng.below(3) == 0 {
            BLOCK_BYTES / 512
        } else {
            1
        };
        let sectors = grain * (1 + rng.below(if turn % 9 == 0 { 80 / grain } else { 6 }));
        let offset = rng.below((DISK_BYTES / 512 - sectors) / grain) * grain * 512;
        match rng.below(6) {
            0 => disk.write_zeroes_at(offset, sectors * 512).expect("zeroes"),
            1 => disk.discard_at(offset, sectors * 512).expect("discards"),
            2 => disk.flush().expect("flushes"),
            _ => {
                let data = vec![(turn % 80) as u8; (sectors * 512) as usize];
                disk.write_at(offset, &data).expect("writes");
            }
        }
        if turn % 20 == 0 {
            read_all(&mut disk);
        }
    }
    read_all(&mut disk);
}

#[test]
fn a_chunk_is_zeroed_before_its_first_write_only_on_a_used_store() {
    for used in [false, true] {
        let setup = Setup {
            table: true,
            base_bytes: 0,
            external: false,
            used,
        };
        let disk = common::open(One(setup.devices().0), common::options());
        let mut disk = Blocking::new(disk, common::memory(64 << 10), common::idle())
            .unwrap_or_else(|_| panic!("room"));
        for chunk in 0..4 {
            disk.write_at(chunk * CHUNK_BYTES, &[1; 512])
                .expect("writes");
        }
        assert_eq!(
            disk.device().stats().chunks_zeroed,
            if used { 4 } else { 0 }
        );
    }
}
