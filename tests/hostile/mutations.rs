//! Rows X5 and X6: every byte of the metadata changed by itself, and every two numbers of a header
//! changed together.

use fvd::format::SLOT_BYTES;

use crate::bench::Bench;
use crate::device::Devices;
use crate::image::{CHUNK, DISK, End, FULL, Image, KINDS, Kind, field, golden, options, seal};

/// What may stand in place of a byte: both ends, both neighbours, one bit changed.
fn replacements(byte: u8, at: usize) -> impl Iterator<Item = u8> {
    let all = [
        0,
        0xFF,
        byte.wrapping_add(1),
        byte.wrapping_sub(1),
        byte ^ 1 << (at % 8),
    ];
    (0..all.len()).filter_map(move |index| {
        let new = all[index];
        (new != byte && !all[..index].contains(&new)).then_some(new)
    })
}

/// How often each outcome came.
#[derive(Debug, Default)]
struct Tally {
    same: u64,
    older: u64,
    refused: u64,
}

/// Where the regions end.
fn metadata_end(image: &Image) -> usize {
    let ends = [
        (field::TABLE, field::TABLE_SIZE),
        (field::BITMAP, field::BITMAP_SIZE),
        (field::CHECKSUM_A, field::CHECKSUM_SIZE),
        (field::CHECKSUM_A + 8, field::CHECKSUM_SIZE),
        (field::JOURNAL, field::JOURNAL_SIZE),
    ];
    let ends = ends.map(|(offset, size)| image.u64_at(offset) + image.u64_at(size));
    ends.into_iter().fold(8192, u64::max) as usize
}

/// Whether each sector reads what it read at some moment of the session.
fn is_older(image: &Image, contents: &[u8]) -> bool {
    contents.len() == image.last_state().len()
        && contents.chunks(512).enumerate().all(|(sector, bytes)| {
            let place = sector * 512..sector * 512 + bytes.len();
            image
                .states
                .iter()
                .any(|state| state[place.clone()] == *bytes)
        })
}

/// Changes each `step`-th byte from `first` on.
fn mutate(kind: Kind, end: End, first: usize, step: usize) -> Tally {
    let image = golden(kind, end);
    if kind.external {
        mutate_on(&image, image.devices::<false>(), end, first, step)
    } else {
        mutate_on(&image, image.devices::<true>(), end, first, step)
    }
}

fn mutate_on<const SHARED: bool>(
    image: &Image,
    mut devices: Devices<SHARED>,
    end: End,
    first: usize,
    step: usize,
) -> Tally {
    let mut bench = Bench::new();
    let mut tally = Tally::default();
    for at in (first..metadata_end(image)).step_by(step) {
        let byte = devices.metadata.bytes[at];
        for new in replacements(byte, at) {
            devices.metadata.bytes[at] = new;
            let (back, outcome) = bench.open(devices, options());
            devices = back;
            assert_eq!(devices.faults, [""; 0], "byte {at} = {new:#x}");
            devices.rewind();
            match outcome.result {
                Err(_) => tally.refused += 1,
                Ok(contents) if contents == image.last_state() => tally.same += 1,
                Ok(contents) if end == End::Crashed && is_older(image, &contents) => {
                    tally.older += 1;
                }
                Ok(_) => panic!("{:?} {end:?}: byte {at} = {new:#x}: other data", image.kind),
            }
        }
        devices.metadata.bytes[at] = byte;
    }
    tally
}

#[test]
fn every_byte_of_a_closed_image() {
    let tally = mutate(FULL, End::Closed, 0, 1);
    println!("{tally:?}");
    assert!(tally.refused > 10_000 && tally.same > 10_000, "{tally:?}");
    assert_eq!(tally.older, 0);
}

#[test]
fn every_byte_of_a_crashed_image() {
    let tally = mutate(FULL, End::Crashed, 0, 1);
    println!("{tally:?}");
    assert!(tally.refused > 10_000 && tally.older > 100, "{tally:?}");
}

fn mutate_all_kinds(first: usize, step: usize) {
    for kind in KINDS {
        for end in [End::Closed, End::Crashed] {
            let tally = mutate(kind, end, first, step);
            println!("{kind:?} {end:?}: {tally:?}");
        }
    }
}

#[test]
fn every_23rd_byte_of_twelve_images() {
    mutate_all_kinds(5, 23);
}

#[test]
#[ignore = "a million openings; `.ci/run hostile` runs it, optimised"]
fn every_byte_of_twelve_images() {
    mutate_all_kinds(0, 1);
}

/// Numbers of a header, by offset and length.
const NUMBERS: [(usize, usize); 27] = [
    (field::DISK_SIZE, 8),
    (field::DATA_OFFSET, 8),
    (field::BASE_SIZE, 8),
    (field::BITMAP, 8),
    (field::BITMAP_SIZE, 8),
    (field::BLOCK_SIZE, 8),
    (field::TABLE, 8),
    (field::TABLE_SIZE, 8),
    (field::CHUNK_SIZE, 8),
    (field::GROW_UNIT, 8),
    (field::JOURNAL, 8),
    (field::JOURNAL_SIZE, 8),
    (field::STABLE_SEQ, 8),
    (field::CLEAN, 4),
    (field::PREFETCHED, 4),
    (field::NEED_ZERO_INIT, 4),
    (3324, 4), // ext_len
    (field::INCOMPATIBLE, 8),
    (field::GENERATION, 8),
    (3408, 8), // base_generation
    (field::ZERO_FLOOR, 8),
    (field::STORE_BYTES, 8),
    (field::ATOMIC_UNIT, 4),
    (field::CHECKSUM_ACTIVE, 4),
    (field::CHECKSUM_A, 8),
    (field::CHECKSUM_A + 8, 8),
    (field::CHECKSUM_SIZE, 8),
];

/// Values at the ends of types, and those that mean something in a golden image.
const VALUES: [u64; 14] = [
    0,
    1,
    3,
    511,
    512,
    4096,
    CHUNK,
    DISK,
    64 << 10,
    u32::MAX as u64,
    1 << 32,
    1 << 63,
    u64::MAX - 4095,
    u64::MAX,
];

/// X6: nothing is promised about the answer but what holds for every image.
#[test]
fn every_two_numbers_of_a_header() {
    let image = golden(FULL, End::Crashed);
    let (mut bench, mut devices) = (Bench::new(), image.devices::<true>());
    devices.metadata.bytes[image.slot ^ SLOT_BYTES..][..SLOT_BYTES].fill(0);
    let original: Vec<u8> = devices.metadata.bytes[image.slot..][..SLOT_BYTES].to_vec();
    let (mut opened, mut refused) = (0, 0);
    for (index, (first, first_len)) in NUMBERS.into_iter().enumerate() {
        for (second, second_len) in NUMBERS.into_iter().skip(index + 1) {
            for (turn, value) in VALUES.into_iter().enumerate() {
                // Every value with three others; all pairs of values would add little.
                for other in [turn, turn + 3, turn + 7] {
                    let slot = &mut devices.metadata.bytes[image.slot..][..SLOT_BYTES];
                    let other = VALUES[other % VALUES.len()];
                    slot[first..][..first_len].copy_from_slice(&value.to_le_bytes()[..first_len]);
                    slot[second..][..second_len]
                        .copy_from_slice(&other.to_le_bytes()[..second_len]);
                    seal(slot);
                    let (back, outcome) = bench.open(devices, options());
                    devices = back;
                    devices.rewind();
                    assert_eq!(
                        devices.faults, [""; 0],
                        "{value} at {first}, {other} at {second}"
                    );
                    match outcome.result {
                        Ok(_) => opened += 1,
                        Err(_) => refused += 1,
                    }
                    devices.metadata.bytes[image.slot..][..SLOT_BYTES].copy_from_slice(&original);
                }
            }
        }
    }
    assert!(
        opened > 500 && refused > 10_000,
        "{opened} opened, {refused} refused"
    );
}
