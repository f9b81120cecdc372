//! Every region alone, and every pair of them.

use super::*;

const OFFSETS: [(usize, Field); 5] = [
    (2136, Field::TableOffset),
    (2112, Field::BitmapOffset),
    (3440, Field::ChecksumOffsetA),
    (3448, Field::ChecksumOffsetB),
    (3192, Field::JournalOffset),
];

fn validate(slot: &[u8; SLOT_BYTES]) -> Result<Regions, FormatError> {
    parse(slot)
        .expect("legal without a device")
        .validate(9 * MIB, None)
}

#[test]
fn a_region_is_aligned_behind_the_header_and_on_the_device() {
    let slot = slot_of(&full_params());
    for (offset, field) in OFFSETS {
        for bad in [
            0,
            1,
            4096,
            8191,
            8193,
            8192 + 512,
            9 * MIB,
            u64::MAX,
            u64::MAX - 4095,
            1 << 63,
        ] {
            let error = validate(&with_u64(&slot, offset, bad)).unwrap_err();
            assert_eq!(error, FormatError::corrupt(field, bad), "{offset}");
        }
    }
}

#[test]
fn a_region_ends_on_the_device() {
    // Only data in another place leaves the metadata at the end of its device.
    let params = CreateParams {
        external_data: true,
        ..full_params()
    };
    let header = parse(&slot_of(&params)).unwrap();
    let end = header.core.journal.end().unwrap();
    assert!(header.validate(end, None).is_ok());
    assert_eq!(
        header.validate(end - 1, None).unwrap_err().field,
        Field::JournalOffset
    );
    assert_eq!(
        header.validate(8192, None).unwrap_err().field,
        Field::TableOffset
    );
    assert_eq!(
        header.validate(8191, None).unwrap_err().field,
        Field::HeaderSlot
    );
    assert_eq!(
        header.validate(0, None).unwrap_err().field,
        Field::HeaderSlot
    );
}

#[test]
fn no_two_regions_share_a_page() {
    let slot = slot_of(&full_params());
    let header = parse(&slot).unwrap();
    let region = |index| match index {
        0 => header.core.table,
        1 => header.core.bitmap,
        2 => header.checksum_region(page::ChecksumArray::A),
        3 => header.checksum_region(page::ChecksumArray::B),
        _ => header.core.journal,
    };
    for (one, (offset, _)) in OFFSETS.into_iter().enumerate() {
        for other in (0..5).filter(|other| *other != one) {
            let (mine, theirs) = (region(one), region(other));
            // Starts on the other's last page; ends on its first one, where that is not before 8192.
            let last = theirs.end().unwrap() - 4096;
            assert!(
                validate(&with_u64(&slot, offset, last)).is_err(),
                "{one} {other}"
            );
            let first = (theirs.offset + 4096).saturating_sub(mine.bytes);
            if first >= 8192 {
                assert!(
                    validate(&with_u64(&slot, offset, first)).is_err(),
                    "{one} {other}"
                );
            }
        }
    }
}

#[test]
fn regions_in_another_order_are_legal() {
    let slot = slot_of(&full_params());
    // Journal, checksums, bitmap and table from 8192 on, with a gap before the table.
    let mut slot = slot;
    for (offset, place) in [
        (3192, 8192),
        (3448, 73728),
        (3440, 77824),
        (2112, 81920),
        (2136, 94208),
    ] {
        slot = with_u64(&slot, offset, place);
    }
    validate(&slot).expect("legal");
}

#[test]
fn chunks_stay_clear_of_metadata() {
    let slot = slot_of(&full_params());
    let end = 24576 + 65536;
    assert!(validate(&with_u64(&slot, 16, end)).is_ok());
    for bad in [0, 4096, 8192, end - 4096] {
        let error = validate(&with_u64(&slot, 16, bad)).unwrap_err();
        assert_eq!(error, FormatError::corrupt(Field::DataOffset, bad));
    }
    // The data of a table may grow over anything behind it.
    let behind = with_u64(&slot, 3192, 8 * MIB);
    assert_eq!(validate(&behind).unwrap_err().field, Field::DataOffset);
    // Without a table they are just the disk, and metadata may lie behind them.
    let params = CreateParams {
        table: false,
        store: StoreChoice::FixedUsed {
            device_bytes: 12 * MIB,
        },
        ..full_params()
    };
    let raw_like = with_u64(&slot_of(&params), 3192, 11 * MIB);
    let validate = |slot: &[u8; SLOT_BYTES]| parse(slot).unwrap().validate(12 * MIB, None);
    assert!(validate(&raw_like).is_ok());
    assert!(validate(&with_u64(&raw_like, 3192, 11 * MIB - 4096)).is_err());
}

#[test]
fn a_store_that_shrank_is_refused_and_one_that_grew_is_not() {
    let header = parse(&slot_of(&full_params())).unwrap();
    let error = header.validate(9 * MIB - 1, None).unwrap_err();
    assert_eq!(error, FormatError::corrupt(Field::StoreBytes, 9 * MIB));
    let regions = header.validate(1 << 40, None).unwrap();
    assert_eq!((regions.data.store_chunks, regions.data.offset), (8, MIB));

    let params = CreateParams {
        external_data: true,
        ..full_params()
    };
    let header = parse(&slot_of(&params)).unwrap();
    assert_eq!(header.core.data_offset, 0);
    assert!(header.validate(9 * MIB, Some(9 * MIB)).is_ok());
    assert!(header.validate(9 * MIB, None).is_ok());
    assert_eq!(
        header
            .validate(9 * MIB, Some(9 * MIB - 1))
            .unwrap_err()
            .field,
        Field::StoreBytes
    );
}
