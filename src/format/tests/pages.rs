//! Table, bitmap and page checksums.

use super::*;
use crate::format::page::{ChecksumArray, PageCounts, PageKind};
use crate::format::table::{TableEntry, read_entry, write_entry};
use crate::units::{ChunkIndex, StoreChunk};

#[test]
fn entries_survive_the_way_to_disk_and_back() {
    for (raw, entry) in [
        (0xFFFF_FFFF, TableEntry::Unmapped),
        (0xFFFF_FFFD, TableEntry::Unreadable),
        (0, TableEntry::Chunk(StoreChunk(0))),
        (0x7FFF_FFFF, TableEntry::Chunk(StoreChunk(0x7FFF_FFFF))),
    ] {
        assert_eq!((TableEntry::decode(raw), entry.encode()), (Ok(entry), raw));
    }
    for raw in [
        0x8000_0000,
        0x8000_0001,
        0xFFFF_FFFC,
        0xFFFF_FFFE,
        0xFFFE_FFFF,
    ] {
        let error = FormatError::corrupt(Field::TableEntry, u64::from(raw));
        assert_eq!(TableEntry::decode(raw), Err(error));
    }
    assert_eq!(TableEntry::Split(5).encode(), 0x8000_0005);
}

#[test]
fn entries_live_at_four_times_their_chunk() {
    let mut table = [0xFF; 4096];
    let entry = TableEntry::Chunk(StoreChunk(0x0102_0304));
    assert!(write_entry(&mut table, ChunkIndex(1023), entry));
    assert_eq!(table[4092..], [4, 3, 2, 1]);
    assert_eq!(read_entry(&table, ChunkIndex(1023)), Some(Ok(entry)));
    assert_eq!(
        read_entry(&table, ChunkIndex(0)),
        Some(Ok(TableEntry::Unmapped))
    );
    for chunk in [1024, u32::MAX] {
        assert_eq!(read_entry(&table, ChunkIndex(chunk)), None);
        assert!(!write_entry(&mut table, ChunkIndex(chunk), entry));
    }
}

#[test]
fn table_pages_keep_to_the_store_and_to_the_disk() {
    let mut page = [0xFF; 4096];
    // The second page of a table of 1,034 chunks: ten entries, then the tail.
    let check = |page: &[u8]| {
        table::check_page(page, 1, 1034, 8).map_err(|error| (error.field, error.value))
    };
    assert_eq!(check(&page), Ok(()));
    page[36..40].copy_from_slice(&7_u32.to_le_bytes());
    assert_eq!(check(&page), Ok(()));
    page[36] = 8;
    assert_eq!(check(&page), Err((Field::TableEntry, 8)));
    page[36..40].copy_from_slice(&0x8000_0000_u32.to_le_bytes());
    assert_eq!(check(&page), Err((Field::TableEntry, 0x8000_0000)));
    page[36..40].copy_from_slice(&[0xFF; 4]);
    page[40..44].copy_from_slice(&[0; 4]);
    assert_eq!(check(&page), Err((Field::TableTail, 0)));
    assert!(table::check_page(&page, 0, 1034, 8).is_ok());
    assert!(table::check_page(&page, u32::MAX, 0, 0).is_err());
}

#[test]
fn bits_are_where_the_spec_puts_them() {
    let mut bits = [0; 4];
    bitmap::set_bit(&mut bits, 0);
    bitmap::set_bit(&mut bits, 9);
    bitmap::set_bit(&mut bits, 31);
    assert_eq!(bits, [1, 2, 0, 0x80]);
    bitmap::set_bit(&mut bits, 30);
    bitmap::set_bit(&mut bits, 30);
    assert_eq!(bits, [1, 2, 0, 0xC0]);
    assert!(bitmap::read_bit(&bits, 9) && !bitmap::read_bit(&bits, 8));
    bitmap::set_bit(&mut bits, 32);
    bitmap::set_bit(&mut bits, u64::MAX);
    assert!(!bitmap::read_bit(&bits, 32) && !bitmap::read_bit(&bits, u64::MAX));
    assert_eq!(bits, [1, 2, 0, 0xC0]);
}

#[test]
fn groups_agree_with_single_bits_at_every_place() {
    let mut noise = Noise(42);
    for first in 0..60_u64 {
        for count in 0..=16_u32 {
            let mut bits = [0; 8];
            noise.fill(&mut bits);
            let before = bits;
            let value = noise.next() as u16;
            bitmap::write_group(&mut bits, first, count, value);
            let mut expected = 0;
            for bit in 0..64 {
                let inside = bit >= first && bit < first + u64::from(count);
                let wanted = if inside {
                    value >> (bit - first) & 1 == 1
                } else {
                    bitmap::read_bit(&before, bit)
                };
                assert_eq!(
                    bitmap::read_bit(&bits, bit),
                    wanted,
                    "{first} {count} {bit}"
                );
                if inside && wanted {
                    expected |= 1 << (bit - first);
                }
            }
            assert_eq!(
                bitmap::read_group(&bits, first, count),
                expected,
                "{first} {count}"
            );
        }
    }
    assert_eq!(
        [0, 1, 15, 16, 17, u32::MAX].map(bitmap::group_mask),
        [0, 1, 0x7FFF, !0, !0, !0]
    );
    assert_eq!(bitmap::group_len(16, 16, 20), 4);
    assert_eq!(bitmap::group_len(32, 16, 20), 0);
    assert_eq!(bitmap::group_len(0, 99, u64::MAX), 16);
}

#[test]
fn bits_behind_the_base_are_corrupt() {
    let page = |byte: usize, value: u8| {
        let mut page = [0; 4096];
        page[byte] = value;
        page
    };
    let check = |page: [u8; 4096], index, blocks| bitmap::check_page(&page, index, blocks).is_ok();
    assert!(
        check(page(1, 0x0F), 0, 12) && !check(page(1, 0x10), 0, 12) && !check(page(2, 1), 0, 12)
    );
    assert!(check(page(1, 0xFF), 0, 16) && !check(page(2, 1), 0, 16));
    assert!(check(page(0, 1), 1, 32769) && !check(page(0, 2), 1, 32769));
    assert!(check([0xFF; 4096], 0, 32768) && !check(page(0, 1), 1, 32768));
    assert!(check(page(0, 1), 0, u64::MAX) && !check(page(4095, 0x80), u32::MAX, 5));
}

#[test]
fn page_checksums_tell_image_place_and_contents_apart() {
    let page = [0x5A; PAGE_BYTES];
    let sum = page::page_checksum(&ID, 3, &page);
    assert_eq!(sum, slow_crc32c(&[&ID.0, &[3, 0, 0, 0], &page]));
    let mut other = page;
    other[4095] = 0x5B;
    let other_image = ImageId([0; 16]);
    assert_ne!(sum, page::page_checksum(&ID, 4, &page));
    assert_ne!(sum, page::page_checksum(&other_image, 3, &page));
    assert_ne!(sum, page::page_checksum(&ID, 3, &other));
    let mut array = [0; 4096];
    assert!(page::write_checksum(&mut array, 1023, sum));
    assert_eq!(page::read_checksum(&array, 1023), Some(sum));
    assert!(
        !page::write_checksum(&mut array, 1024, sum)
            && !page::write_checksum(&mut array, u32::MAX, 0)
    );
    assert_eq!(page::read_checksum(&array, 1024), None);
}

#[test]
fn pages_are_numbered_over_table_and_bitmap() {
    let counts = PageCounts {
        table_pages: 3,
        bitmap_pages: 2,
    };
    assert_eq!(counts.total(), 5);
    for (number, place) in [
        (0, Some((PageKind::Table, 0))),
        (2, Some((PageKind::Table, 2))),
        (3, Some((PageKind::Bitmap, 0))),
        (4, Some((PageKind::Bitmap, 1))),
        (5, None),
        (u32::MAX, None),
    ] {
        assert_eq!(counts.locate(number), place);
        if let Some((kind, page)) = place {
            assert_eq!(counts.number(kind, page), Some(number));
        }
    }
    assert_eq!(counts.number(PageKind::Table, 3), None);
    assert_eq!(counts.number(PageKind::Bitmap, 2), None);
    assert_eq!(
        (ChecksumArray::A.other(), ChecksumArray::B.other()),
        (ChecksumArray::B, ChecksumArray::A)
    );
}

#[test]
fn text_is_bounded_and_shown_escaped() {
    assert_eq!(Name::new(b"a\0b"), None);
    assert_eq!(Name::new(&[b'a'; 256]), None);
    assert_eq!(Name::new(&[b'a'; 255]).unwrap().as_bytes().len(), 255);
    assert!(Name::new(b"").unwrap().is_empty() && Name::default() == Name::EMPTY);
    assert_eq!(
        Name::new(b"a\x1B[2J\n\xFF\"").unwrap().to_string(),
        r#"a\x1b[2J\n\xff\""#
    );
    assert_eq!(
        std::format!("{:?}", FormatName::new(b"raw").unwrap()),
        "\"raw\""
    );
}
