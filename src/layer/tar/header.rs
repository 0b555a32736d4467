//! One tar header block, read as Go's archive/tar reads it, because that is what
//! decides how dockerd sees a layer (archive/tar reader.go `readHeader`).

use tar::Header;

/// Size of a tar block.
pub const BLOCK: usize = 512;

/// A time of a tar entry: seconds since 1970 and nanoseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Time {
    /// Seconds since the epoch, before it if negative.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanos: u32,
}

/// The fields of one header block.
#[derive(Debug, Default)]
pub struct RawHeader {
    /// The type flag as it stands; `\0` is a regular file of old archives.
    pub flag: u8,
    /// Name, a ustar prefix joined.
    pub name: Vec<u8>,
    /// Link target.
    pub link: Vec<u8>,
    /// Permission bits, file type bits taken off by who uses it.
    pub mode: i64,
    /// Owner.
    pub uid: i64,
    /// Group.
    pub gid: i64,
    /// Bytes of data.
    pub size: i64,
    /// Modification time, seconds.
    pub mtime: i64,
    /// Access time, where the format has one.
    pub atime: Option<i64>,
    /// Device major number.
    pub major: i64,
    /// Device minor number.
    pub minor: i64,
    /// Whether the magic is GNU's: only then are 'S' headers sparse maps.
    pub gnu: bool,
}

/// Reads one header block.
///
/// # Errors
/// What is wrong with it, in a few words.
pub fn parse(block: &[u8; BLOCK]) -> Result<RawHeader, &'static str> {
    let header = Header::from_byte_slice(block);
    let old = header.as_old();
    checksum(block, &old.cksum)?;
    let mut raw = RawHeader {
        flag: old.linkflag[0],
        name: text(&old.name).to_vec(),
        link: text(&old.linkname).to_vec(),
        mode: number(&old.mode)?,
        uid: number(&old.uid)?,
        gid: number(&old.gid)?,
        size: number(&old.size)?,
        mtime: number(&old.mtime)?,
        ..RawHeader::default()
    };
    let mut prefix: &[u8] = b"";
    if let Some(ustar) = header.as_ustar() {
        raw.major = number(&ustar.dev_major)?;
        raw.minor = number(&ustar.dev_minor)?;
        prefix = text(&ustar.prefix);
        if &block[508..512] == b"tar\0" {
            // The star format: a shorter prefix, then access and change time.
            prefix = text(&ustar.prefix[..131]);
            raw.atime = Some(number(&block[476..488])?);
        }
    } else if let Some(gnu) = header.as_gnu() {
        raw.gnu = true;
        raw.major = number(&gnu.dev_major)?;
        raw.minor = number(&gnu.dev_minor)?;
        let (atime, ctime) = (optional_number(&gnu.atime), optional_number(&gnu.ctime));
        match (atime, ctime) {
            (Ok(atime), Ok(_)) => raw.atime = atime,
            // Go before 1.8 wrote a ustar prefix over GNU's times; its reader still
            // accepts that, and so images with it exist.
            _ if text(&block[345..500]).is_ascii() => prefix = text(&block[345..500]),
            _ => {}
        }
    }
    if !prefix.is_empty() {
        raw.name = [prefix, b"/", &raw.name].concat();
    }
    if raw.size < 0 {
        return Err("a header with a negative size");
    }
    Ok(raw)
}

fn checksum(block: &[u8; BLOCK], field: &[u8]) -> Result<(), &'static str> {
    let stated = number(field)?;
    // The field itself counts as spaces. As sums over slices they take vector instructions.
    let sum = |bytes: &[u8]| bytes.iter().map(|&byte| u32::from(byte)).sum::<u32>();
    let high = |bytes: &[u8]| bytes.iter().map(|&byte| u32::from(byte >> 7)).sum::<u32>();
    let unsigned = i64::from(sum(block) - sum(field) + 8 * u32::from(b' '));
    // Some old writers summed signed bytes.
    let signed = unsigned - 256 * i64::from(high(block) - high(field));
    if stated != unsigned && stated != signed {
        return Err("a header with a wrong checksum");
    }
    Ok(())
}

/// The bytes up to the first NUL.
pub fn text(field: &[u8]) -> &[u8] {
    let end = field.iter().position(|&b| b == 0).unwrap_or(field.len());
    &field[..end]
}

fn optional_number(field: &[u8]) -> Result<Option<i64>, &'static str> {
    if field[0] == 0 { Ok(None) } else { number(field).map(Some) }
}

/// A number in octal, or in base 256 if the first bit is set.
///
/// # Errors
/// It is neither, or passes 63 bits.
pub fn number(field: &[u8]) -> Result<i64, &'static str> {
    const BAD: &str = "a header with a field that is no number";
    if field.first().is_some_and(|b| b & 0x80 != 0) {
        return base256(field).ok_or(BAD);
    }
    let trim = |b: &u8| *b == b' ' || *b == 0;
    let start = field.iter().position(|b| !trim(b)).unwrap_or(field.len());
    let end = field.iter().rposition(|b| !trim(b)).map_or(start, |last| last + 1);
    let mut value: i64 = 0;
    for digit in text(&field[start..end]) {
        if !(b'0'..=b'7').contains(digit) {
            return Err(BAD);
        }
        value =
            value.checked_mul(8).and_then(|v| v.checked_add(i64::from(digit - b'0'))).ok_or(BAD)?;
    }
    Ok(value)
}

fn base256(field: &[u8]) -> Option<i64> {
    // Two's complement; the top bit of the first byte is only the mark.
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
    fn numbers_are_octal_or_base_256() {
        assert_eq!(number(b"0000644\0"), Ok(0o644));
        assert_eq!(number(b"   644 \0"), Ok(0o644));
        assert_eq!(number(b"\0\0\0\0"), Ok(0));
        assert_eq!(number(b"\x80\0\0\0\0\0\x01\0"), Ok(256));
        assert_eq!(number(b"\xff\xff\xff\xff\xff\xff\xff\xff"), Ok(-1));
        assert_eq!(number(b"\xff\xff\xff\xff\xff\xff\xff\x00"), Ok(-256));
        assert!(number(b"12x4\0").is_err());
        assert!(number(b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff").is_err());
    }
}
