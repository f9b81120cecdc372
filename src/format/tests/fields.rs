//! Feature bits, reserved bytes, names, flags and hints of a header, and how errors read.

use super::*;

#[test]
fn feature_bits_are_those_of_the_spec() {
    let bits = [
        Features::PAGE_CHECKSUMS,
        Features::PARTIAL_BLOCKS,
        Features::SPLIT_RECORDS,
        Features::SNAPSHOTS,
        Features::EXTERNAL_DATA,
    ];
    assert_eq!(bits, [0x01, 0x02, 0x04, 0x08, 0x10]);
    let external = CreateParams {
        external_data: true,
        ..full_params()
    };
    assert_eq!(slot_of(&external)[3328..3336], [0x11, 0, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn unknown_features_are_treated_by_their_class() {
    let slot = slot_of(&full_params());
    for bit in 0..64 {
        let word = 1 | 1_u64 << bit;
        let unknown = word & !Features::INCOMPATIBLE_KNOWN;
        let result = parse(&with_u64(&slot, 3328, word));
        match unknown {
            0 => assert!(result.is_ok()),
            bits => assert_eq!(
                result.unwrap_err(),
                FormatError::unsupported(Field::Incompatible, bits)
            ),
        }
        assert!(
            parse(&with_u64(&slot, 3336, 1 << bit))
                .unwrap()
                .is_read_only()
        );
        assert!(
            !parse(&with_u64(&slot, 3344, 1 << bit))
                .unwrap()
                .is_read_only()
        );
        let autoclear = parse(&with_u64(&slot, 3352, 1 << bit)).unwrap();
        assert_eq!(autoclear.features.unknown_autoclear(), 1 << bit);
        assert_eq!(parse(&encoded(&autoclear)).unwrap().features.autoclear, 0);
    }
}

#[test]
fn extension_and_reserved_bytes() {
    let slot = slot_of(&full_params());
    for (length, legal) in [
        (0, false),
        (208, false),
        (215, false),
        (216, true),
        (217, false),
        (224, true),
        (768, true),
        (772, false),
        (776, false),
        (u32::MAX, false),
    ] {
        assert_eq!(
            parse(&with_u32(&slot, 3324, length)).is_ok(),
            legal,
            "ext_len {length}"
        );
    }
    assert_eq!(
        parse(&with(&slot, 3320, b"FVD3")).unwrap_err().field,
        Field::ExtMagic
    );
    for offset in (3316..3320).chain(3464..4092) {
        let error = parse(&with(&slot, offset, &[1])).unwrap_err();
        assert_eq!(
            error,
            FormatError::corrupt(Field::Reserved, 1),
            "byte {offset}"
        );
    }
    // An unknown feature that does not forbid reading may own bytes behind the extension.
    for word in [3336, 3352] {
        let later = with_u32(&with_u64(&slot, word, 1), 3324, 224);
        assert!(parse(&with(&later, 3536, &[1; 8])).is_ok());
        assert_eq!(
            parse(&with(&later, 3544, &[1])).unwrap_err().field,
            Field::Reserved
        );
        assert_eq!(
            parse(&with(&later, 3535, &[1])).unwrap_err().field,
            Field::Reserved
        );
    }
    // A compatible one may not.
    let compatible = with_u32(&with_u64(&slot, 3344, 1), 3324, 224);
    assert_eq!(
        parse(&with(&compatible, 3536, &[1])).unwrap_err().field,
        Field::Reserved
    );
}

#[test]
fn names() {
    let slot = slot_of(&CreateParams {
        external_data: true,
        ..full_params()
    });
    for (offset, field) in [
        (24, Field::DataFile),
        (1064, Field::BaseImage),
        (2168, Field::AddStorageCommand),
    ] {
        let error = parse(&with(&slot, offset, &[b'n'; 1024])).unwrap_err();
        assert_eq!(error, FormatError::corrupt(field, 1024));
        let name = |length: usize| {
            let mut bytes = [0; 1024];
            bytes[..length].fill(b'n');
            parse(&with(&slot, offset, &bytes))
        };
        assert_eq!(name(256).unwrap_err(), FormatError::limit(field, 256));
        assert_eq!(name(1023).unwrap_err(), FormatError::limit(field, 1023));
        assert!(name(255).is_ok() && name(0).is_ok());
    }
    for (offset, field) in [
        (1048, Field::DataFileFormat),
        (2088, Field::BaseImageFormat),
    ] {
        assert_eq!(
            parse(&with(&slot, offset, &[b'n'; 16])).unwrap_err(),
            FormatError::corrupt(field, 16)
        );
        assert!(parse(&with(&slot, offset, b"nnnnnnnnnnnnnnn\0")).is_ok());
    }
    // Inert: any bytes are a name, and what follows the end is not looked at.
    for name in [
        &b"/etc/passwd\0"[..],
        b"../../x\0",
        b"\xFF\xFE\x1B[2J\n\0",
        b"%n%s\0",
        b"json:{}\0\xFFrest",
    ] {
        assert!(parse(&with(&slot, 1064, name)).is_ok());
    }
    // A data file that the feature bit does not announce.
    let inside = slot_of(&full_params());
    assert_eq!(
        parse(&with(&inside, 24, b"x\0")).unwrap_err(),
        FormatError::corrupt(Field::DataFile, 1)
    );
}

#[test]
fn flags_are_read_towards_the_careful_side() {
    let slot = slot_of(&full_params());
    for value in [0, 1, 2, 0x100, u32::MAX] {
        let at = |offset| parse(&with_u32(&slot, offset, value)).unwrap().core;
        assert_eq!(at(3216).clean_shutdown, value == 1);
        assert_eq!(at(3220).copy.copy_on_read, value == 1);
        assert_eq!(at(3240).base_fully_prefetched, value == 1);
        assert_eq!(at(3312).need_zero_init, value != 0);
    }
}

#[test]
fn hints_may_be_anything() {
    let slot = slot_of(&full_params());
    let noise = with(&with(&slot, 3224, &[0xFF; 16]), 3244, &[0xFF; 68]);
    let copy = parse(&noise).unwrap().core.copy;
    assert_eq!(
        (copy.prefetch_slots, copy.prefetch_start_delay_s),
        (u32::MAX, -1)
    );
}

#[test]
fn errors_say_what_where_and_how_much() {
    let slot = slot_of(&full_params());
    let text = |slot: &[u8; SLOT_BYTES]| parse(slot).unwrap_err().to_string();
    assert_eq!(
        text(&with_u64(&slot, 2144, 123)),
        "corrupt: field `table_size` is 123, must be 4 bytes per chunk, rounded up to 4096 bytes"
    );
    assert_eq!(
        text(&with(&slot, 0, &[0xA9, 0xF5, 0x43, 0x51])),
        "unsupported: field `magic` is 0x5143f5a9, the magic of the 2011 reference implementation"
    );
    assert_eq!(
        text(&with_u32(&slot, 4, 1)),
        "unsupported: field `version` is 1, the 2011 written specification"
    );
    for field in Field::ALL {
        assert!(!field.name().is_empty() && field.rule().starts_with("must "));
        assert!(!FormatError::limit(*field, 1).to_string().is_empty());
    }
}
