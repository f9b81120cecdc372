//! What a guest or a stranger wrote is data: it is never taken for an image, a size or an end.

use fvd::blocking::Blocking;

use crate::bench::Bench;
use crate::common;
use crate::image::{CHUNK, DISK, End, FULL, field, golden, options};

/// X3: a guest writes a whole image of its own to the start of its disk, and the base starts with
/// one. Both stay what they are: bytes.
#[test]
fn an_image_inside_an_image_stays_bytes() {
    let inner = golden(FULL, End::Closed).metadata[..3 * CHUNK as usize].to_vec();
    let mut image = golden(FULL, End::Closed);
    // In the base, where the guest has not written.
    let base = image.base.as_mut().expect("a base");
    base[..CHUNK as usize].copy_from_slice(&inner[..CHUNK as usize]);
    let disk = common::open(image.devices::<true>(), options());
    let mut disk = Blocking::new(disk, common::memory(64 << 10), common::idle())
        .unwrap_or_else(|_| panic!("room"));
    let place = 7 * CHUNK;
    disk.write_at(place, &inner).expect("writes");
    let devices = common::close(disk.into_parts().0);
    assert_eq!(devices.faults, [""; 0]);
    let disk = common::open(devices, options());
    let mut disk = Blocking::new(disk, common::memory(64 << 10), common::idle())
        .unwrap_or_else(|_| panic!("room"));
    let mut found = vec![0; DISK as usize];
    disk.read_at(0, &mut found).expect("reads");
    assert!(found[..CHUNK as usize] == inner[..CHUNK as usize]);
    assert!(found[place as usize..][..inner.len()] == inner[..]);
}

/// X2: what lies between the regions and behind the chunks means nothing, zeros or not.
#[test]
fn bytes_outside_of_everything_mean_nothing() {
    for garbage in [0, 0x46, 0xFF] {
        let mut image = golden(FULL, End::Crashed);
        let journal = image.u64_at(field::JOURNAL) + image.u64_at(field::JOURNAL_SIZE);
        image.metadata[journal as usize..64 << 10].fill(garbage);
        let longer = image.metadata.len() + 5 * CHUNK as usize + 512;
        image.metadata.resize(longer, garbage);
        let (devices, outcome) = Bench::new().open(image.devices::<true>(), options());
        assert_eq!(devices.faults, [""; 0]);
        assert!(outcome.result.expect("opens") == image.last_state());
    }
}
