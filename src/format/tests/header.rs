//! The way of a header to disk and back.

use super::*;
use crate::format::page::ChecksumArray;

/// Every set-up that `create` can be asked for, in all combinations that are legal.
fn set_ups() -> impl Iterator<Item = CreateParams> {
    let sizes = [0, 512, 64 * KIB, 10 * MIB, (1 << 30) + 512, 1 << 40];
    let shapes = [
        (512, 512),
        (512, 8192),
        (64 * KIB, MIB),
        (4096, 64 * KIB),
        (1 << 27, 1 << 31),
    ];
    let bases = [None, Some(0), Some(512), Some(5 * MIB), Some(1 << 41)];
    let units = [512, 1024, 2048, 4096];
    (0..6 * 5 * 5 * 2 * 2 * 4).map(move |index: usize| {
        let mut rest = index;
        let mut pick = |count: usize| {
            let choice = rest % count;
            rest /= count;
            choice
        };
        let (block_bytes, chunk_bytes) = shapes[pick(5)];
        CreateParams {
            block_bytes,
            chunk_bytes,
            base: bases[pick(5)].map(base_params),
            table: pick(2) == 1,
            external_data: pick(2) == 1,
            atomic_unit: units[pick(4)],
            ..CreateParams::new(sizes[pick(6)], ID)
        }
    })
}

#[test]
fn every_set_up_survives_the_way_to_disk_and_back() {
    let mut legal = 0;
    for params in set_ups() {
        let Ok(header) = plan_layout(&params) else {
            let chunks = params.virtual_bytes / params.chunk_bytes;
            assert!(chunks >= 1 << 31, "refused without reason: {params:?}");
            continue;
        };
        legal += 1;
        assert_eq!(parse(&encoded(&header)), Ok(header));
        let capacity = header.store_bytes.max(header.metadata_bytes().total());
        let regions = header
            .validate(capacity, Some(header.store_bytes))
            .expect("legal places");
        assert_eq!(regions.table.is_some(), params.table);
        assert_eq!(regions.bitmap.is_some(), header.has_base());
        assert_eq!(regions.journal.is_some(), params.table || header.has_base());
        assert_eq!(
            regions.checksums_active.is_some(),
            regions.journal.is_some()
        );
    }
    assert!(legal > 1000, "only {legal} set-ups tried");
}

/// A header without two equal values in neighbouring fields.
fn all_different() -> Header {
    let mut header = plan_layout(&full_params()).unwrap();
    let core = &mut header.core;
    core.stable_seq = 11;
    core.clean_shutdown = false;
    core.base_fully_prefetched = true;
    core.need_zero_init = true;
    core.add_storage_command = Name::new(&[b'x'; 255]).unwrap();
    core.copy = CopySettings {
        copy_on_read: true,
        copy_on_read_bytes_max: 21,
        prefetch_start_delay_s: i64::MIN,
        prefetch_slots: 22,
        prefetch_bytes: 23,
        read_throughput_min: 24,
        read_throughput_max: 25,
        write_throughput_min: 26,
        write_throughput_max: 27,
        throttle_ms_max: 28,
        read_measure_ms: 29,
        write_measure_ms: 30,
    };
    header.generation = u64::MAX - 1;
    header.owner_nonce = 12;
    header.base_generation = 13;
    header.zero_floor_chunk = 8;
    header.checksum_active = ChecksumArray::B;
    header.features.compatible = 1 << 63;
    header
}

#[test]
fn every_field_survives_at_the_offset_of_the_spec() {
    let slot = encoded(&all_different());
    assert_eq!(parse(&slot), Ok(all_different()));
    let u64_at = |at: usize| u64::from_le_bytes(slot[at..at + 8].try_into().unwrap());
    let u32_at = |at: usize| u32::from_le_bytes(slot[at..at + 4].try_into().unwrap());
    assert_eq!(&slot[..8], b"FVD\0\x02\0\0\0");
    for (offset, value) in [
        (8, 10 * MIB),
        (16, MIB),
        (2104, 5 * MIB),
        (2112, 12288),
        (2120, 4096),
        (2128, 65536),
        (2136, 8192),
        (2144, 4096),
        (2152, MIB),
        (2160, 2 * MIB),
        (3192, 24576),
        (3200, 65536),
        (3208, 11),
        (3224, 21),
        (3232, 1 << 63),
        (3248, 23),
        (3256, 24),
        (3264, 25),
        (3272, 26),
        (3280, 27),
        (3288, 28),
        (3296, 29),
        (3304, 30),
        (3328, 1),
        (3336, 0),
        (3344, 1 << 63),
        (3352, 0),
        (3360, u64::MAX - 1),
        (3384, 12),
        (3408, 13),
        (3416, 8),
        (3424, 9 * MIB),
        (3440, 16384),
        (3448, 20480),
        (3456, 4096),
    ] {
        assert_eq!(u64_at(offset), value, "at {offset}");
    }
    for (offset, value) in [
        (3216, 0),
        (3220, 1),
        (3240, 1),
        (3244, 22),
        (3312, 1),
        (3316, 0),
        (3324, 216),
        (3432, 512),
        (3436, 1),
    ] {
        assert_eq!(u32_at(offset), value, "at {offset}");
    }
    assert_eq!(&slot[1064..1073], b"base.raw\0");
    assert_eq!(&slot[2088..2092], b"raw\0");
    assert_eq!(&slot[2168..2424], [&[b'x'; 255][..], b"\0"].concat());
    assert_eq!(&slot[3320..3324], b"FVD2");
    assert_eq!(&slot[3368..3384], ID.0);
    assert_eq!(&slot[3392..3408], [7; 16]);
    assert!(slot[3464..4092].iter().all(|byte| *byte == 0));
    assert_eq!(u32_at(4092), slow_crc32c(&[&slot[..4092]]));
}

/// The offsets that FORMAT part 2 prints, added up again from its sizes.
#[test]
fn offsets_of_2011_follow_from_the_sizes_of_its_fields() {
    let sizes = [
        4, 4, 8, 8, 1024, 16, 1024, 16, 8, 8, 8, 8, 8, 8, 8, 8, 1024, 8, 8, 8, 4, 4, 8, 8, 4, 4, 8,
        8, 8, 8, 8, 8, 8, 8, 4, 4096,
    ];
    let offsets = [
        0, 4, 8, 16, 24, 1048, 1064, 2088, 2104, 2112, 2120, 2128, 2136, 2144, 2152, 2160, 2168,
        3192, 3200, 3208, 3216, 3220, 3224, 3232, 3240, 3244, 3248, 3256, 3264, 3272, 3280, 3288,
        3296, 3304, 3312, 3316,
    ];
    let mut at = 0;
    for (size, offset) in sizes.into_iter().zip(offsets) {
        assert_eq!(at, offset);
        at += size;
    }
    assert_eq!(at, 7412);
}

#[test]
fn a_byte_changed_anywhere_in_a_slot_is_noticed() {
    let slot = slot_of(&full_params());
    for offset in 0..SLOT_BYTES {
        for flip in [0x01, 0x80, 0xFF, slot[offset], slot[offset] ^ 0xFF] {
            let mut bad = slot;
            bad[offset] ^= flip;
            assert_eq!(parse(&bad).is_ok(), flip == 0, "byte {offset} ^ {flip}");
        }
    }
}

#[test]
fn values_stay_small() {
    assert!(size_of::<Header>() < 2048, "{}", size_of::<Header>());
    assert!(size_of::<FormatError>() <= 16);
}

#[test]
fn a_header_that_nobody_could_read_is_not_written() {
    let good = plan_layout(&full_params()).unwrap();
    let refused = |change: fn(&mut Header)| {
        let mut header = good;
        change(&mut header);
        let mut slot = [0x5A; SLOT_BYTES];
        let error = header.encode(&mut slot).unwrap_err();
        assert_eq!(slot, [0x5A; SLOT_BYTES], "the slot was touched");
        (error.kind, error.field)
    };
    use FormatErrorKind::{Corrupt, Unsupported};
    assert_eq!(
        refused(|h| h.generation = u64::MAX),
        (Corrupt, Field::Generation)
    );
    assert_eq!(
        refused(|h| h.core.block_bytes = 3),
        (Corrupt, Field::BlockSize)
    );
    assert_eq!(
        refused(|h| h.core.stable_seq = 1 << 63),
        (Corrupt, Field::StableSeq)
    );
    assert_eq!(
        refused(|h| h.zero_floor_chunk = 9),
        (Corrupt, Field::ZeroFloorChunk)
    );
    assert_eq!(
        refused(|h| h.features.ro_compatible = 2),
        (Unsupported, Field::RoCompatible)
    );
    assert_eq!(
        refused(|h| h.features.incompatible |= 8),
        (Unsupported, Field::Incompatible)
    );
}

#[test]
fn sizes_that_no_disk_can_have_give_the_empty_disk() {
    let mut header = plan_layout(&full_params()).unwrap();
    header.core.chunk_bytes = 0;
    assert_eq!(
        (header.shape().chunk_count(), header.shape().virtual_bytes()),
        (0, 0)
    );
    assert_eq!((header.bitmap_blocks(), header.chunks_in(u64::MAX)), (0, 0));
    header.atomic_unit = 0;
    assert_eq!(header.journal_units(), 0);
}

#[test]
fn questions_about_a_header_have_the_documented_answers() {
    let mut header = plan_layout(&full_params()).unwrap();
    assert!(header.has_table() && header.has_base() && header.has_bitmap());
    assert!(header.has_checksums() && !header.has_external_data() && !header.is_read_only());
    assert_eq!((header.bitmap_blocks(), header.journal_units()), (80, 128));
    assert_eq!(
        (
            header.page_counts().table_pages,
            header.page_counts().bitmap_pages
        ),
        (1, 1)
    );
    assert_eq!(
        [0, MIB, 2 * MIB - 1, 2 * MIB].map(|n| header.chunks_in(n)),
        [0, 0, 0, 1]
    );
    assert_eq!(header.chunks_in(u64::MAX), 1 << 31);
    assert_eq!(header.metadata_bytes().total(), 8192 + 4096 * 4 + 65536);
    assert_eq!(
        header.checksum_region(ChecksumArray::B),
        Region {
            offset: 20480,
            bytes: 4096
        }
    );
    header.core.base_fully_prefetched = true;
    assert!(header.has_base() && !header.has_bitmap());
}

#[test]
fn features_show_their_names() {
    let features = Features {
        incompatible: 0b11111,
        ro_compatible: 1 << 63,
        compatible: 0,
        autoclear: 4,
    };
    let names: Vec<_> = features.iter().map(|feature| feature.to_string()).collect();
    let all = [
        "page-checksums",
        "partial-blocks",
        "split-records",
        "snapshots",
        "external-data",
        "unknown-ro-compatible-63",
        "unknown-autoclear-2",
    ];
    assert_eq!(names, all);
    let every = Features {
        incompatible: !0,
        ro_compatible: !0,
        compatible: !0,
        autoclear: !0,
    };
    assert_eq!(every.iter().count(), 256);
    assert_eq!(Features::default().iter().count(), 0);
}

#[test]
fn header_of_2011_is_read_to_the_end_of_its_fields() {
    let mut image = [0xFF; 8192];
    image[..SLOT_BYTES].copy_from_slice(&slot_of(&full_params()));
    image[4] = 1;
    image[3316..].fill(0xFF);
    image[2088..2104].fill(b'f');
    let parse = |image: &[u8]| read_header(image, &Limits::FORMAT).map(|found| found.header);
    // Of a text that is longer than what is kept, the start is known, and that there is more.
    let header = parse(&image).unwrap();
    let format = header.core.base_format;
    assert_eq!(
        (format.as_bytes(), format.is_cut()),
        (&[b'f'; 15][..], true)
    );
    assert_eq!(format.to_string(), "fffffffffffffff...");
    let mut again = [0; 8192];
    assert_eq!(
        header.encode_old(&mut again).unwrap_err(),
        FormatError::limit(Field::BaseImageFormat, 16)
    );
    assert_eq!(again, [0; 8192]);
    image[2103] = 0;
    assert!(!parse(&image).unwrap().core.base_format.is_cut());
    let header = parse(&image[..7412]).unwrap();
    assert_eq!(header.core.base_format.as_bytes(), [b'f'; 15]);
    assert_eq!(
        (header.core.virtual_bytes, header.core.journal.bytes),
        (10 * MIB, 65536)
    );
    assert_eq!(parse(&image[..7411]).unwrap_err().field, Field::HeaderSlot);
    image[4] = 3;
    assert_eq!(parse(&image).unwrap_err().field, Field::Version);
    image[0] = 0xA9;
    assert_eq!(parse(&image).unwrap_err().field, Field::Magic);
}
