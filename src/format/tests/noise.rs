//! Any bytes give a value or an error; a value that comes out is one that goes back in.

use super::*;
use crate::format::journal::{RecordBounds, parse_unit};

/// Places of numbers in a slot that are worth breaking two at a time.
const FIELDS: [(usize, usize); 33] = [
    (4, 4),
    (8, 8),
    (16, 8),
    (2104, 8),
    (2112, 8),
    (2120, 8),
    (2128, 8),
    (2136, 8),
    (2144, 8),
    (2152, 8),
    (2160, 8),
    (3192, 8),
    (3200, 8),
    (3208, 8),
    (3216, 4),
    (3240, 4),
    (3324, 4),
    (3328, 8),
    (3336, 8),
    (3344, 8),
    (3352, 8),
    (3360, 8),
    (3384, 8),
    (3408, 8),
    (3416, 8),
    (3424, 8),
    (3432, 4),
    (3436, 4),
    (3440, 8),
    (3448, 8),
    (3456, 8),
    (3464, 8),
    (0, 4),
];

/// Everything that can be asked of a header, so that a panic anywhere in it shows.
fn use_header(header: &Header) {
    let capacity = header.store_bytes.max(16 * MIB);
    let _ = header.metadata_bytes().total();
    let _ = (
        header.shape(),
        header.bitmap_blocks(),
        header.journal_units(),
        header.page_counts(),
    );
    let bounds = RecordBounds::new(header);
    let _ = (bounds.chunks_in(u64::MAX), header.features.iter().count());
    let Ok(regions) = header.validate(capacity, Some(u64::MAX)) else {
        return;
    };
    let mut places: Vec<_> = [
        regions.table,
        regions.bitmap,
        regions.checksums_active,
        regions.checksums_idle,
        regions.journal,
    ]
    .into_iter()
    .flatten()
    .collect();
    places.push(Region {
        offset: 0,
        bytes: HEADER_BYTES,
    });
    if !regions.data.external {
        let bytes = u64::from(regions.data.store_chunks) * header.core.chunk_bytes;
        assert!(regions.data.offset + bytes <= capacity);
        places.push(Region {
            offset: regions.data.offset,
            bytes,
        });
    }
    places.sort_by_key(|region| (region.offset, region.bytes));
    for pair in places.windows(2) {
        assert!(
            pair[0].end().unwrap() <= pair[1].offset || pair[1].bytes == 0,
            "{pair:?} overlap"
        );
    }
}

#[test]
fn headers_with_two_odd_numbers_are_a_value_or_an_error() {
    let mut noise = Noise(0xF5D2);
    let slots = [
        slot_of(&full_params()),
        slot_of(&plain_params()),
        slot_of(&CreateParams {
            external_data: true,
            ..full_params()
        }),
        slot_of(&CreateParams {
            table: false,
            store: StoreChoice::Growing,
            ..full_params()
        }),
    ];
    let mut accepted = 0;
    for _ in 0..20_000 {
        let mut slot = slots[noise.below(4) as usize];
        for _ in 0..1 + noise.below(2) {
            let (offset, bytes) = FIELDS[noise.below(FIELDS.len() as u64) as usize];
            let value = noise.edgy().to_le_bytes();
            slot[offset..offset + bytes].copy_from_slice(&value[..bytes]);
        }
        reseal_fast(&mut slot);
        let Ok(header) = parse(&slot) else { continue };
        accepted += 1;
        use_header(&header);
        if header.is_read_only() {
            continue;
        }
        let mut expected = header;
        expected.features.autoclear = 0;
        assert_eq!(parse(&encoded(&header)), Ok(expected));
    }
    assert!(
        accepted > 1000,
        "only {accepted} accepted: the noise is too loud"
    );
}

fn reseal_fast(slot: &mut [u8; SLOT_BYTES]) {
    let crc = crate::format::crc32c::crc32c(&slot[..4092]);
    slot[4092..].copy_from_slice(&crc.to_le_bytes());
}

#[test]
fn noise_is_a_value_or_an_error() {
    let mut noise = Noise(7);
    let mut slot = [0; SLOT_BYTES];
    for round in 0..500 {
        noise.fill(&mut slot);
        assert!(parse(&slot).is_err());
        slot[..8].copy_from_slice(b"FVD\0\x02\0\0\0");
        slot[3320..3328].copy_from_slice(b"FVD2\xD8\0\0\0");
        if round % 2 == 0 {
            slot[3328..3336].fill(0);
        }
        reseal_fast(&mut slot);
        if let Ok(header) = parse(&slot) {
            use_header(&header);
        }
        let cut = noise.below(4097) as usize;
        let _ = choose_slot(&slot, &slot[..cut], &Limits::FORMAT);
        let _ = read_header(&slot, &Limits::FORMAT);
        let _ = Dialect::detect(&slot[..cut]);
        let _ = table::check_page(&slot[..cut], noise.next() as u32, noise.next() as u32, 9);
        let _ = bitmap::check_page(&slot[..cut], noise.next() as u32, noise.edgy());
    }
}

#[test]
fn units_of_noise_are_read_to_their_end() {
    let header = plan_layout(&full_params()).unwrap();
    let bounds = RecordBounds::new(&header);
    let mut noise = Noise(99);
    let mut units = 0;
    for _ in 0..5000 {
        let bytes = 512 << noise.below(4);
        let mut unit = std::vec![0; bytes];
        noise.fill(&mut unit);
        // Record kinds and flags that are often right, in a unit that proves itself.
        for start in (0..bytes - 32).step_by(12) {
            unit[start] = 1 + (noise.below(10) / 9) as u8;
            unit[start + 1] = noise.below(4) as u8;
        }
        let trailer = bytes - 32;
        let used = noise.below(trailer as u64 + 1) as u16;
        let seq = noise.below(1 << 40);
        unit[trailer..trailer + 8].copy_from_slice(b"\0\0\0\0FVDJ");
        unit[trailer + 8..trailer + 16].copy_from_slice(&seq.to_le_bytes());
        unit[trailer + 24..trailer + 26].copy_from_slice(&used.to_le_bytes());
        let crc = crate::format::crc32c::Crc32c::new()
            .and(&ID.0)
            .and(&unit[..usize::from(used)])
            .and(&unit[trailer..trailer + 28])
            .finish();
        unit[trailer + 28..].copy_from_slice(&crc.to_le_bytes());
        let Some(view) = parse_unit(&unit, &ID, seq % 16, 16) else {
            panic!("a good CRC")
        };
        units += 1;
        let _ = view.commit_start();
        let mut errors = 0;
        for (count, record) in view.records().enumerate() {
            assert!(errors == 0 && count <= 338);
            match record {
                Ok(record) => drop(bounds.check(&record, 8)),
                Err(_) => errors += 1,
            }
        }
    }
    assert_eq!(units, 5000);
}
