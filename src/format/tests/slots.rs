//! Which slot counts.

use super::*;

fn generation(generation: u64) -> [u8; SLOT_BYTES] {
    let mut header = plan_layout(&full_params()).unwrap();
    header.generation = generation;
    header.owner_nonce = generation;
    encoded(&header)
}

fn choose(first: &[u8], second: &[u8]) -> Result<(u64, SlotIndex, bool), FormatError> {
    let chosen = choose_slot(first, second, &Limits::FORMAT)?;
    Ok((chosen.header.generation, chosen.slot, chosen.other_valid))
}

const ZEROS: [u8; SLOT_BYTES] = [0; SLOT_BYTES];

#[test]
fn the_highest_generation_wins() {
    use SlotIndex::{First, Second};
    assert_eq!(
        choose(&generation(4), &generation(5)),
        Ok((5, Second, true))
    );
    assert_eq!(choose(&generation(6), &generation(5)), Ok((6, First, true)));
    assert_eq!(
        choose(&generation(0), &generation(u64::MAX - 1)),
        Ok((u64::MAX - 1, Second, true))
    );
    assert_eq!(choose(&generation(5), &generation(5)), Ok((5, First, true)));
    assert_eq!(
        (First.offset(), Second.offset(), First.other()),
        (0, 4096, Second)
    );
}

#[test]
fn one_generation_with_two_contents_is_corrupt() {
    let other = with_u64(&generation(5), 3384, 99);
    assert_eq!(
        choose(&generation(5), &other),
        Err(FormatError::corrupt(Field::Generation, 5))
    );
    let foreign = with(&generation(6), 3368, &[1; 16]);
    assert_eq!(
        choose(&generation(5), &foreign),
        Err(FormatError::corrupt(Field::ImageId, 6))
    );
}

#[test]
fn the_last_generation_is_corrupt() {
    let last = with_u64(&generation(5), 3360, u64::MAX);
    assert_eq!(
        choose(&generation(5), &last),
        Err(FormatError::corrupt(Field::Generation, u64::MAX))
    );
    assert_eq!(parse(&last).unwrap_err().field, Field::Generation);
}

#[test]
fn an_invalid_slot_leaves_the_other_one() {
    let (old, new) = (generation(4), generation(5));
    for bad in [ZEROS, [0xFF; SLOT_BYTES]] {
        assert_eq!(choose(&bad, &old), Ok((4, SlotIndex::Second, false)));
        assert_eq!(choose(&old, &bad), Ok((4, SlotIndex::First, false)));
    }
    for offset in 0..SLOT_BYTES {
        let mut bad = new;
        bad[offset] ^= 0xFF;
        assert_eq!(
            choose(&bad, &old),
            Ok((4, SlotIndex::Second, false)),
            "byte {offset}"
        );
        assert_eq!(
            choose(&old, &bad),
            Ok((4, SlotIndex::First, false)),
            "byte {offset}"
        );
    }
    // Torn between two versions of a slot, at every sector.
    for cut in (512..SLOT_BYTES).step_by(512) {
        let torn = [&new[..cut], &generation(3)[cut..]].concat();
        // All that changed lies in the last two sectors: only a cut between them tears.
        let whole = torn == new || torn == generation(3);
        assert_eq!(whole, cut != 3584, "cut {cut}");
        if !whole {
            let chosen = choose(&torn, &old);
            assert_eq!(chosen, Ok((4, SlotIndex::Second, false)));
        }
    }
}

#[test]
fn a_valid_slot_that_breaks_a_rule_does_not_bring_back_the_older_one() {
    let bad = with_u64(&generation(5), 2128, 513);
    assert_eq!(
        choose(&generation(4), &bad).unwrap_err().field,
        Field::BlockSize
    );
    let unknown = with_u64(&generation(5), 3328, 1 << 20);
    assert_eq!(
        choose(&generation(4), &unknown).unwrap_err().field,
        Field::Incompatible
    );
    assert_eq!(
        choose(&generation(6), &unknown),
        Ok((6, SlotIndex::First, true))
    );
}

#[test]
fn other_dialects_are_named() {
    let mut reference = ZEROS;
    reference[..8].copy_from_slice(b"\xA9\xF5\x43\x51\x01\0\0\0");
    let mut spec = ZEROS;
    spec[..8].copy_from_slice(b"FVD\0\x01\0\0\0");
    assert_eq!(Dialect::detect(&reference), Some(Dialect::Reference));
    assert_eq!(Dialect::detect(&spec), Some(Dialect::Spec2011));
    assert_eq!(Dialect::detect(&generation(1)), Some(Dialect::Fvd2));
    for none in [
        &ZEROS[..],
        b"",
        b"FVD\0\x02\0\0",
        b"\0DVF\x02\0\0\0",
        b"FVD\0\x03\0\0\0",
    ] {
        assert_eq!(Dialect::detect(none), None);
    }
    // Even before a slot of ours that an older image left behind.
    for second in [ZEROS, generation(4)] {
        let error = choose(&reference, &second).unwrap_err();
        assert_eq!(error, FormatError::unsupported(Field::Magic, 0x5143_F5A9));
        let error = choose(&spec, &second).unwrap_err();
        assert_eq!(error, FormatError::unsupported(Field::Version, 1));
    }
    assert_eq!(
        choose(&reference[..512], &[]).unwrap_err().field,
        Field::Magic
    );
}

#[test]
fn other_versions_are_named() {
    for version in [0, 1, 3, u32::MAX] {
        let later = with_u32(&generation(5), 4, version);
        let error = FormatError::unsupported(Field::Version, u64::from(version));
        assert_eq!(choose(&later, &ZEROS), Err(error));
        assert_eq!(choose(&later, &generation(4)), Err(error));
        assert_eq!(choose(&generation(6), &later), Err(error));
        assert_eq!(parse(&later), Err(error));
    }
    let mixed = with(&generation(5), 0, b"\xA9\xF5\x43\x51");
    assert_eq!(choose(&mixed, &ZEROS).unwrap_err().field, Field::Magic);
}

#[test]
fn what_is_no_image_is_unsupported_and_what_is_damaged_is_corrupt() {
    let mut bad = generation(5);
    bad[100] ^= 1;
    let crc = u64::from(u32::from_le_bytes(bad[4092..].try_into().unwrap()));
    let damaged = Err(FormatError::corrupt(Field::SlotCrc, crc));
    assert_eq!(choose(&bad, &ZEROS), damaged);
    assert_eq!(choose(&ZEROS, &bad), damaged);
    assert_eq!(choose(&bad, &bad), damaged);
    assert_eq!(
        choose(&ZEROS, &ZEROS),
        Err(FormatError::unsupported(Field::Magic, 0))
    );
    let swapped = *b"\0DVF\0\0\0\x02";
    let error = choose(&with(&ZEROS, 0, &swapped), &ZEROS).unwrap_err();
    assert_eq!(error.kind, FormatErrorKind::Unsupported);
}

#[test]
fn an_image_cut_short_is_corrupt() {
    let (first, second) = (generation(4), generation(5));
    for length in [0, 1, 511, 512, 3071, 4095] {
        let error = choose(&first[..length], &[]).unwrap_err();
        assert_eq!(
            error,
            FormatError::corrupt(Field::HeaderSlot, length as u64)
        );
        let error = choose(&first, &second[..length]).unwrap_err();
        assert_eq!(
            error,
            FormatError::corrupt(Field::HeaderSlot, length as u64)
        );
    }
}
