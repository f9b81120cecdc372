//! Headers that the two must judge alike: old ones, others' ones, and ones that break a rule under
//! a right checksum.

use std::path::Path;

use super::{Both, CAN_NOT_CHECK, CLEAN, CORRUPT, End, MEBI, SLOT, merged, newest, session};

/// CRC-32C of SPEC §1.3, bit by bit.
pub(super) fn crc32c(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0x82F6_3B78 * (crc & 1))
        })
    })
}

/// Gives a slot a right checksum.
pub(super) fn seal(slot: &mut [u8]) {
    let crc = crc32c(&slot[..SLOT - 4]);
    slot[SLOT - 4..SLOT].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn a_header_from_before_is_the_same_to_both() {
    let Some(both) = Both::written(End::Closed) else {
        return;
    };
    let before = both.folder.read("disk.fvd");
    session(&both.folder, &[(6 << 20, 4096)], End::Flushed);
    let after = both.folder.read("disk.fvd");
    let mut with_old_header = after.clone();
    with_old_header[..2 * SLOT].copy_from_slice(&before[..2 * SLOT]);
    both.say_of(CORRUPT, &with_old_header, "both slots from before");
    for slot in [0, SLOT] {
        let mut image = after.clone();
        image[slot..slot + SLOT].copy_from_slice(&before[slot..slot + SLOT]);
        both.verdict_on(&image, "one slot from before");
        image[slot..slot + SLOT].fill(0);
        both.verdict_on(&image, "one slot gone");
    }
    both.folder.run("create --force other.fvd 8M").ends(0);
    let mut image = after.clone();
    image[..SLOT].copy_from_slice(&both.folder.read("other.fvd")[..SLOT]);
    both.say_of(CORRUPT, &image, "a slot of another image");
}

/// Offset in the slot, bytes, and what both must say when they stand there under a right checksum.
const BROKEN_RULES: &[(usize, &[u8], i32)] = &[
    (4, &[3], CAN_NOT_CHECK),             // version
    (8, &[1], CORRUPT),                   // virtual_disk_size, no multiple of 512
    (15, &[0x80], CORRUPT),               // virtual_disk_size of 2^63
    (16, &[0, 0x10, 0], CORRUPT),         // data_offset inside the header
    (17, &[1], CORRUPT),                  // data_offset, no multiple of 4096
    (24, b"d", CORRUPT),                  // data_file without its feature
    (1064, &[b'b'; 300], CAN_NOT_CHECK),  // base_img too long
    (1064, &[b'b'; 1024], CORRUPT),       // base_img without an end
    (2104, &[1], CORRUPT),                // base_img_size, no multiple of 512
    (2104, &[0, 0, 0, 0], CORRUPT),       // a bitmap without a base
    (2112, &[0, 0x20], CORRUPT),          // bitmap over the table
    (2120, &[0, 0x20], CORRUPT),          // bitmap_size
    (2128, &[0, 0, 3], CORRUPT),          // block_size, no power of two
    (2128, &[0, 0, 0x40], CORRUPT),       // block_size above the chunk's
    (2136, &[0, 1], CORRUPT),             // table_offset, no multiple of 4096
    (2144, &[0, 0x20], CORRUPT),          // table_size
    (2152, &[0, 0, 0x20], CORRUPT),       // chunk_size of 32 blocks
    (2160, &[1], CORRUPT),                // storage_grow_unit
    (3200, &[0, 0, 0], CORRUPT),          // a table without a journal
    (3200, &[1], CORRUPT),                // journal_size
    (3204, &[1], CAN_NOT_CHECK),          // journal_size of 4 GiB
    (3215, &[0x80], CORRUPT),             // stable_journal_epoch of 2^63
    (3320, b"FVD3", CORRUPT),             // ext_magic
    (3324, &[208], CORRUPT),              // ext_len too small
    (3324, &[220], CORRUPT),              // ext_len, no multiple of 8
    (3328, &[0], CORRUPT),                // checksum fields without the feature
    (3328, &[3], CAN_NOT_CHECK),          // a reserved feature
    (3335, &[1], CAN_NOT_CHECK),          // an unknown feature
    (3336, &[1], CLEAN),                  // one that forbids writing only
    (3344, &[1], CLEAN),                  // one that forbids nothing
    (3352, &[1], CLEAN),                  // one that goes by itself
    (3360, &[0xFF; 8], CORRUPT),          // the last generation
    (3416, &[0xFF], CORRUPT),             // zero_floor_chunk above the store
    (3424, &[0; 8], CORRUPT),             // store_bytes below data_offset
    (3424, &[0, 0, 0, 0, 0, 1], CORRUPT), // store_bytes above the device
    (3432, &[0, 1, 0, 0], CORRUPT),       // atomic_unit
    (3436, &[2], CORRUPT),                // checksum_active
    (3440, &[0, 0, 0, 0x40], CORRUPT),    // checksums behind the device
    (3456, &[0, 0x20], CORRUPT),          // checksum_size
    (3464, &[1], CORRUPT),                // kept for later
    (3528, &[1], CORRUPT),                // kept for later
    (3536, &[1], CORRUPT),                // reserved
    (4091, &[1], CORRUPT),                // reserved
];

#[test]
fn rules_hold_for_bytes_with_a_right_checksum_too() {
    let Some(both) = Both::written(End::Closed) else {
        return;
    };
    let image = both.folder.read("disk.fvd");
    let slot = newest(&image);
    for (at, bytes, code) in BROKEN_RULES {
        let mut image = image.clone();
        image[slot ^ SLOT..][..SLOT].fill(0);
        let slot = &mut image[slot..slot + SLOT];
        slot[*at..at + bytes.len()].copy_from_slice(bytes);
        seal(slot);
        let what = format!("{bytes:?} at {at} of the slot");
        both.say_of(*code, &image, &what);
    }
}

#[test]
fn a_header_that_deserves_two_answers_gets_one_of_them() {
    let Some(both) = Both::written(End::Closed) else {
        return;
    };
    let image = both.folder.read("disk.fvd");
    let slot = newest(&image);
    let too_long: (usize, &[u8]) = (1064, &[b'b'; 300]); // a Limit
    let large_journal: (usize, &[u8]) = (3204, &[1]); // a Limit
    let unknown_feature: (usize, &[u8]) = (3335, &[1]); // Unsupported
    for limit in [too_long, large_journal, unknown_feature] {
        for (at, bytes) in [(3536, &[1][..]), (2128, &[0, 0, 3]), (3416, &[0xFF])] {
            let mut image = image.clone();
            image[slot ^ SLOT..][..SLOT].fill(0);
            let slot = &mut image[slot..slot + SLOT];
            slot[limit.0..limit.0 + limit.1.len()].copy_from_slice(limit.1);
            slot[at..at + bytes.len()].copy_from_slice(bytes);
            seal(slot);
            both.refuse(&image, &format!("{bytes:?} at {at}, and {limit:?}"));
        }
    }
}

/// Lines of decimal offsets and bytes in a fenced block of SPEC.md, as bytes.
fn spec_bytes(block: &str, len: usize) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/SPEC.md");
    let text = std::fs::read_to_string(path).expect("SPEC.md");
    let start = format!("```{block}\n");
    let (_, text) = text.split_once(&start).expect("the block");
    let (text, _) = text.split_once("```").expect("its end");
    let mut bytes = vec![0; len];
    for line in text.lines() {
        let (at, line) = line.split_once("  ").expect("an offset and bytes");
        let at: usize = at.parse().expect("an offset");
        for (place, byte) in line.split_whitespace().enumerate() {
            bytes[at + place] = u8::from_str_radix(byte, 16).expect("a byte");
        }
    }
    bytes
}

#[test]
fn the_worked_example_is_the_same_to_both() {
    let Some(both) = Both::new() else { return };
    let mut image = spec_bytes("hex-slot", MEBI);
    image[8192..12288].fill(0xFF);
    image[16384..20480].copy_from_slice(&spec_bytes("hex-checksums", SLOT));
    both.say_of(CLEAN, &image, "as created");
    image.resize(3 * MEBI, 0);
    image[24576..25088].copy_from_slice(&spec_bytes("hex-unit-4", 512));
    image[25088..25600].copy_from_slice(&spec_bytes("hex-unit-5", 512));
    both.say_of(
        CORRUPT,
        &image,
        "units that know a header which is not there",
    );
    let mut slot = image[..SLOT].to_vec();
    slot[3208] = 4; // stable_seq
    slot[3216] = 0; // clean_shutdown
    slot[3360] = 2; // generation
    seal(&mut slot);
    image[SLOT..2 * SLOT].copy_from_slice(&slot);
    both.say_of(CLEAN, &image, "with both units to replay");
    let map = merged(&both.folder.run("map --json copy.fvd").json());
    assert_eq!(map[1], (2 << 20, 1 << 20, "image".into(), Some(1 << 20)));
    image.truncate(2 * MEBI);
    both.say_of(CORRUPT, &image, "without its chunks");
}
