//! The numbers of tar headers and PAX records.

/// Returns the bytes up to the first NUL.
pub fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|&b| b == 0).unwrap_or(field.len());
    &field[..end]
}

/// Parses the decimal number of a PAX record.
///
/// # Errors
/// A description of what is invalid.
pub fn decimal(text: &[u8]) -> Result<i64, &'static str> {
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or("a PAX value that is not a number")
}

/// Parses the number of a header field: octal, or base 256 if the first bit is set.
///
/// # Errors
/// A description of what is invalid; a number must fit 63 bits.
pub fn field(bytes: &[u8]) -> Result<i64, &'static str> {
    const BAD: &str = "a header with a field that is not a number";
    if bytes.first().is_some_and(|b| b & 0x80 != 0) {
        return base256(bytes).ok_or(BAD);
    }
    let trim = |b: &u8| *b == b' ' || *b == 0;
    let start = bytes.iter().position(|b| !trim(b)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|b| !trim(b)).map_or(start, |last| last + 1);
    let mut value: i64 = 0;
    for digit in text(&bytes[start..end]) {
        if !(b'0'..=b'7').contains(digit) {
            return Err(BAD);
        }
        value =
            value.checked_mul(8).and_then(|v| v.checked_add(i64::from(digit - b'0'))).ok_or(BAD)?;
    }
    Ok(value)
}

fn base256(field: &[u8]) -> Option<i64> {
    // Two's complement; the top bit of the first byte is only the flag.
    let negative = field[0] & 0x40 != 0;
    let invert = if negative { 0xff } else { 0 };
    let mut value: u64 = 0;
    for (i, byte) in field.iter().enumerate() {
        let byte = (byte ^ invert) & if i == 0 { 0x7f } else { 0xff };
        if value >> 56 != 0 {
            return None;
        }
        value = value << 8 | u64::from(byte);
    }
    let value = i64::try_from(value).ok()?;
    Some(if negative { !value } else { value })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_in_octal_or_base_256_is_parsed() {
        assert_eq!(field(b"0000644\0"), Ok(0o644));
        assert_eq!(field(b"   644 \0"), Ok(0o644));
        assert_eq!(field(b"\0\0\0\0"), Ok(0));
        assert_eq!(field(b"\x80\0\0\0\0\0\x01\0"), Ok(256));
        assert_eq!(field(b"\xff\xff\xff\xff\xff\xff\xff\xff"), Ok(-1));
        assert_eq!(field(b"\xff\xff\xff\xff\xff\xff\xff\x00"), Ok(-256));
        assert!(field(b"12x4\0").is_err());
        assert!(field(b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff").is_err());
    }
}
