//! Each rule of SPEC.md §3.5: the value that breaks it and its legal neighbours.

use super::*;
use FormatErrorKind::{Corrupt, Limit};

/// One value of one field, and what a reader says: `None` = legal.
type Case = (usize, u64, Option<(FormatErrorKind, Field)>);

const fn ok(offset: usize, value: u64) -> Case {
    (offset, value, None)
}

const fn bad(offset: usize, value: u64, field: Field) -> Case {
    (offset, value, Some((Corrupt, field)))
}

const fn limit(offset: usize, value: u64, field: Field) -> Case {
    (offset, value, Some((Limit, field)))
}

fn check_all(slot: &[u8; SLOT_BYTES], cases: &[Case]) {
    for (offset, value, expected) in cases {
        let found = parse(&with_u64(slot, *offset, *value)).err();
        let found = found.map(|error| (error.kind, error.field));
        assert_eq!(found, *expected, "u64 {value:#x} at {offset}");
    }
}

fn check_all_u32(slot: &[u8; SLOT_BYTES], cases: &[Case]) {
    for (offset, value, expected) in cases {
        let found = parse(&with_u32(slot, *offset, *value as u32)).err();
        let found = found.map(|error| (error.kind, error.field));
        assert_eq!(found, *expected, "u32 {value:#x} at {offset}");
    }
}

#[test]
fn sizes_of_the_disk() {
    use Field::VirtualDiskSize as Size;
    check_all(
        &slot_of(&plain_params()),
        &[
            ok(8, 0),
            ok(8, 512),
            ok(8, 10 * MIB),
            bad(8, 10 * MIB - 1, Size),
            ok(8, 10 * MIB - 512),
            bad(8, 1, Size),
            bad(8, 511, Size),
            bad(8, 513, Size),
            // One sector more than the store holds.
            bad(8, 10 * MIB + 512, Field::StoreBytes),
            bad(8, u64::MAX, Size),
            bad(8, 1 << 63, Size),
            bad(8, u64::MAX - 511, Size),
            bad(8, (1 << 63) - 1, Size),
            limit(8, (1 << 63) - 512, Size),
            limit(8, 1 << 51, Size),
            limit(8, (1 << 51) - MIB + 512, Size),
            bad(8, (1 << 51) - MIB, Field::StoreBytes),
        ],
    );
    // With a table, the size of the table has to follow.
    let slot = slot_of(&full_params());
    check_all(
        &slot,
        &[
            ok(8, 0),
            ok(8, 1 << 30),
            bad(8, (1 << 30) + 512, Field::TableSize),
        ],
    );
}

#[test]
fn block_and_chunk() {
    use Field::{BlockSize, ChunkSize};
    let slot = slot_of(&plain_params());
    for size in [
        0,
        1,
        511,
        513,
        3 * 512,
        (1 << 63) + 1,
        u64::MAX,
        65535,
        65537,
        256,
    ] {
        check_all(
            &slot,
            &[bad(2128, size, BlockSize), bad(2152, size, ChunkSize)],
        );
    }
    check_all(
        &slot,
        &[
            bad(2128, 1 << 63, ChunkSize),
            bad(2128, 32 * KIB, ChunkSize),
            ok(2128, 128 * KIB),
            ok(2128, MIB),
            bad(2128, 2 * MIB, ChunkSize),
            bad(2152, 32 * KIB, ChunkSize),
            ok(2152, 64 * KIB),
            bad(2152, 2 * MIB, ChunkSize),
            bad(2152, 1 << 63, ChunkSize),
        ],
    );
    let big = CreateParams {
        block_bytes: 1 << 31,
        chunk_bytes: 1 << 31,
        ..plain_params()
    };
    check_all(
        &slot_of(&big),
        &[
            ok(2128, 1 << 27),
            bad(2128, 1 << 26, ChunkSize),
            bad(2152, 1 << 32, ChunkSize),
        ],
    );
}

#[test]
fn base_and_bitmap() {
    use Field::{BaseImageSize, BitmapOffset, BitmapSize};
    let slot = slot_of(&full_params());
    check_all(
        &slot,
        &[
            ok(2104, 512),
            bad(2104, 511, BaseImageSize),
            bad(2104, 513, BaseImageSize),
            // Longer than the disk: clipped.
            ok(2104, 10 * MIB),
            ok(2104, 10 * MIB + 512),
            ok(2104, (1 << 63) - 512),
            bad(2104, 1 << 63, BaseImageSize),
            bad(2104, u64::MAX, BaseImageSize),
            bad(2104, u64::MAX - 511, BaseImageSize),
            // No base, but a bitmap.
            bad(2104, 0, BitmapSize),
            bad(2120, 0, BitmapOffset),
            bad(2120, 4095, BitmapSize),
            bad(2120, 4097, BitmapSize),
            bad(2120, 8192, BitmapSize),
            bad(2120, 10, BitmapSize),
            bad(2120, 1 << 63, BitmapSize),
            bad(2120, u64::MAX, BitmapSize),
        ],
    );
    // A base needs its bitmap until it is fully prefetched; 1 and nothing else says so.
    let none = with(&slot, 2112, &[0; 16]);
    check_all(
        &none,
        &[ok(3456, 4096), bad(2104, 0, BitmapSize)].map(|case| match case {
            (3456, value, _) => bad(3456, value, BitmapSize),
            (offset, _, _) => ok(offset, 0),
        }),
    );
    check_all_u32(
        &none,
        &[
            ok(3240, 1),
            bad(3240, 0, BitmapSize),
            bad(3240, 2, BitmapSize),
            bad(3240, u64::MAX, BitmapSize),
        ],
    );
    check_all_u32(&slot, &[ok(3240, 1), ok(3240, 0), ok(3240, 2)]);
    // One bit more than a page of bits: 32,768 blocks of 64 KiB are 2 GiB.
    let big = CreateParams {
        base: Some(base_params(2 << 30)),
        ..CreateParams::new(4 << 30, ID)
    };
    check_all(
        &slot_of(&big),
        &[ok(2104, 2 << 30), bad(2104, (2 << 30) + 512, BitmapSize)],
    );
}

#[test]
fn table() {
    use Field::{JournalSize, TableOffset, TableSize};
    let slot = slot_of(&full_params());
    check_all(
        &slot,
        &[
            bad(2144, 0, TableOffset),
            bad(2144, 1, TableSize),
            bad(2144, 40, TableSize),
            bad(2144, 4092, TableSize),
            bad(2144, 8192, TableSize),
            bad(2144, 1 << 63, TableSize),
            bad(2144, u64::MAX, TableSize),
        ],
    );
    let plain = slot_of(&plain_params());
    check_all(
        &plain,
        &[
            bad(2136, 8192, TableOffset),
            bad(2112, 4096, Field::BitmapOffset),
        ],
    );
    // A table without a journal.
    let table = with_u64(&with_u64(&plain, 2136, 8192), 2144, 4096);
    assert_eq!(
        parse(&table).unwrap_err(),
        FormatError::corrupt(JournalSize, 0)
    );
}

#[test]
fn growth_and_store() {
    use Field::{DataOffset, StorageGrowUnit, StoreBytes, ZeroFloorChunk};
    let slot = slot_of(&full_params());
    check_all(
        &slot,
        &[
            ok(2160, 0),
            ok(2160, MIB),
            bad(2160, MIB - 1, StorageGrowUnit),
            bad(2160, MIB + 512, StorageGrowUnit),
            bad(2160, u64::MAX, StorageGrowUnit),
            bad(2160, 1 << 63, StorageGrowUnit),
            ok(2160, 1 << 62),
            bad(16, MIB + 512, DataOffset),
            ok(16, MIB + 4096),
            ok(16, MIB - 4096),
            bad(16, MIB + 1, DataOffset),
            bad(16, 1 << 63, DataOffset),
            bad(16, u64::MAX, DataOffset),
            bad(16, u64::MAX - 4095, DataOffset),
            ok(16, 9 * MIB),
            bad(16, 9 * MIB + 4096, StoreBytes),
            ok(3424, MIB),
            bad(3424, MIB - 1, StoreBytes),
            bad(3424, 0, StoreBytes),
            ok(3424, (1 << 63) - 1),
            bad(3424, 1 << 63, StoreBytes),
            bad(3424, u64::MAX, StoreBytes),
            ok(3416, 8),
            bad(3416, 9, ZeroFloorChunk),
            bad(3416, 1 << 32, ZeroFloorChunk),
            bad(3416, u64::MAX, ZeroFloorChunk),
        ],
    );
    // The floor follows the store: one byte less is one chunk less.
    let floor = with_u64(&slot, 3416, 8);
    check_all(
        &floor,
        &[
            ok(3424, 9 * MIB),
            bad(3424, 9 * MIB - 1, ZeroFloorChunk),
            ok(3424, 10 * MIB),
        ],
    );
    // Without a table the store holds the whole disk.
    let plain = slot_of(&plain_params());
    check_all(
        &plain,
        &[
            ok(3424, 11 * MIB),
            bad(3424, 11 * MIB - 1, StoreBytes),
            ok(3424, 11 * MIB + 1),
        ],
    );
}

#[test]
fn journal() {
    use Field::{AtomicUnit, JournalOffset, JournalSize, StableSeq};
    let slot = slot_of(&full_params());
    check_all(
        &slot,
        &[
            bad(3200, 0, JournalSize),
            bad(3200, 511, JournalSize),
            bad(3200, 512, JournalSize),
            bad(3200, 4 * 512 - 512, JournalSize),
            ok(3200, 4 * 512),
            ok(3200, 5 * 512),
            bad(3200, 4 * 512 + 1, JournalSize),
            bad(3200, 4 * 512 + 256, JournalSize),
            ok(3200, JOURNAL_BYTES_MAX),
            limit(3200, JOURNAL_BYTES_MAX + 512, JournalSize),
            limit(3200, 1 << 63, JournalSize),
            bad(3200, u64::MAX, JournalSize),
            ok(3208, SEQ_MAX),
            bad(3208, SEQ_MAX + 1, StableSeq),
            bad(3208, u64::MAX, StableSeq),
        ],
    );
    check_all_u32(
        &slot,
        &[
            ok(3432, 512),
            ok(3432, 1024),
            ok(3432, 4096),
            bad(3432, 0, AtomicUnit),
            bad(3432, 256, AtomicUnit),
            bad(3432, 513, AtomicUnit),
            bad(3432, 1536, AtomicUnit),
            bad(3432, 8192, AtomicUnit),
            bad(3432, u64::MAX, AtomicUnit),
            bad(3432, 1 << 31, AtomicUnit),
        ],
    );
    let plain = slot_of(&plain_params());
    check_all(
        &plain,
        &[
            bad(3192, 8192, JournalOffset),
            bad(3200, 512, JournalSize),
            ok(3200, 2048),
        ],
    );
    let two = Limits::FORMAT.with_journal_units_min(0);
    assert!(Header::parse(&with_u64(&slot, 3200, 1024), &two).is_ok());
    assert_eq!(
        Header::parse(&with_u64(&slot, 3200, 512), &two)
            .unwrap_err()
            .field,
        JournalSize
    );
}

#[test]
fn checksums() {
    use Field::{ChecksumActive, ChecksumOffsetA, ChecksumOffsetB, ChecksumSize};
    let slot = slot_of(&full_params());
    check_all(
        &slot,
        &[
            bad(3456, 0, ChecksumSize),
            bad(3456, 8, ChecksumSize),
            bad(3456, 4095, ChecksumSize),
            bad(3456, 8192, ChecksumSize),
            bad(3456, u64::MAX, ChecksumSize),
            // Without the bit, nothing may be there.
            bad(3328, 0, ChecksumOffsetA),
        ],
    );
    check_all_u32(
        &slot,
        &[
            ok(3436, 0),
            ok(3436, 1),
            bad(3436, 2, ChecksumActive),
            bad(3436, u64::MAX, ChecksumActive),
        ],
    );
    let plain = slot_of(&plain_params());
    check_all(
        &plain,
        &[
            bad(3328, 1, ChecksumSize),
            bad(3440, 4096, ChecksumOffsetA),
            bad(3448, 1, ChecksumOffsetB),
            bad(3456, 4096, ChecksumSize),
        ],
    );
    check_all_u32(&plain, &[bad(3436, 1, ChecksumActive)]);
    // Checksums of nothing.
    let nothing = with_u64(&plain, 3328, 1);
    check_all(
        &nothing,
        &[bad(3456, 4096, ChecksumSize), bad(3456, 0, ChecksumSize)],
    );
    // A table without checksums is legal to read.
    let off = with(&with_u64(&slot, 3328, 0), 3440, &[0; 24]);
    assert!(!parse(&off).unwrap().has_checksums());
}
