//! Sizes on the command line and on the screen: bytes, with K, M, G or T for powers of 1024.

/// Reads a size such as `64K`.
///
/// # Errors
/// Says what is wrong with it.
pub(crate) fn parse(text: &str) -> Result<u64, String> {
    let (digits, shift) = match text.char_indices().next_back() {
        Some((at, unit)) if !unit.is_ascii_digit() => (&text[..at], shift_of(unit)?),
        _ => (text, 0),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err("a size is a number of bytes, or one with K, M, G or T behind it".into());
    }
    let number: u64 = digits.parse().map_err(|_| too_large())?;
    number.checked_mul(1 << shift).ok_or_else(too_large)
}

fn shift_of(unit: char) -> Result<u32, String> {
    match unit.to_ascii_uppercase() {
        'K' => Ok(10),
        'M' => Ok(20),
        'G' => Ok(30),
        'T' => Ok(40),
        _ => Err(format!(
            "`{}` is no unit: K, M, G and T are",
            unit.escape_debug()
        )),
    }
}

fn too_large() -> String {
    "this is more than 2^64 bytes".into()
}

/// A size for people: `1.5 GiB (1610612736 bytes)`, or just bytes below 1 KiB.
pub(crate) fn show(bytes: u64) -> String {
    let units = [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")];
    match units.into_iter().find(|(shift, _)| bytes >> shift != 0) {
        None => format!("{bytes} bytes"),
        Some((shift, unit)) => {
            let whole = bytes >> shift;
            // Tenths, rounded down, so that nothing looks larger than it is.
            let tenths = (u128::from(bytes & ((1 << shift) - 1)) * 10) >> shift;
            match tenths {
                0 => format!("{whole} {unit} ({bytes} bytes)"),
                _ => format!("{whole}.{tenths} {unit} ({bytes} bytes)"),
            }
        }
    }
}

/// Reads 16 bytes as 32 hexadecimal digits.
///
/// # Errors
/// Says what is wrong with it.
pub(crate) fn parse_id(text: &str) -> Result<[u8; 16], String> {
    let wrong = || "an id is 32 hexadecimal digits".to_string();
    if text.len() != 32 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(wrong());
    }
    u128::from_str_radix(text, 16)
        .map(u128::to_be_bytes)
        .map_err(|_| wrong())
}

/// 16 bytes as 32 hexadecimal digits.
pub(crate) fn show_id(id: [u8; 16]) -> String {
    format!("{:032x}", u128::from_be_bytes(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn units_are_powers_of_1024() {
        assert_eq!(parse("0"), Ok(0));
        assert_eq!(parse("512"), Ok(512));
        assert_eq!(parse("64K"), Ok(64 << 10));
        assert_eq!(parse("3m"), Ok(3 << 20));
        assert_eq!(parse("2G"), Ok(2 << 30));
        assert_eq!(parse("1T"), Ok(1 << 40));
        assert_eq!(parse("18446744073709551615"), Ok(u64::MAX));
        assert_eq!(parse("16777215T"), Ok(16_777_215 << 40));
    }

    #[test]
    fn nonsense_is_refused() {
        for text in [
            "", "K", "-1", "+1", "1.5G", "1KB", "1 K", "0x10", "1E", "ä", "1ä", "１",
        ] {
            assert!(parse(text).is_err(), "{text:?}");
        }
        for text in ["18446744073709551616", "16777216T", "99999999999999999999T"] {
            assert_eq!(parse(text), Err(too_large()), "{text:?}");
        }
    }

    #[test]
    fn sizes_for_people_never_look_larger_than_they_are() {
        assert_eq!(show(0), "0 bytes");
        assert_eq!(show(1023), "1023 bytes");
        assert_eq!(show(1024), "1 KiB (1024 bytes)");
        assert_eq!(show(1536), "1.5 KiB (1536 bytes)");
        assert_eq!(show((1 << 30) - 1), "1023.9 MiB (1073741823 bytes)");
        assert_eq!(show(1 << 40), "1 TiB (1099511627776 bytes)");
        assert_eq!(
            show(u64::MAX),
            "16777215.9 TiB (18446744073709551615 bytes)"
        );
    }

    #[test]
    fn ids_are_thirty_two_hexadecimal_digits() {
        let text = "00112233445566778899AABBCCDDEEFF";
        let id = parse_id(text).expect("an id");
        assert_eq!(id[0], 0x00);
        assert_eq!(id[15], 0xFF);
        assert_eq!(show_id(id), text.to_lowercase());
        for text in [
            "",
            "0011",
            "+0112233445566778899AABBCCDDEEFF",
            &format!("{text}0"),
        ] {
            assert!(parse_id(text).is_err(), "{text:?}");
        }
    }
}
