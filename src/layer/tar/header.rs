//! One tar header block, parsed as Go's archive/tar does it, because dockerd reads layers with
//! that (archive/tar reader.go `readHeader`).

use tar::Header;

use super::number::{self, text};

/// Size of a tar block.
pub const BLOCK: usize = 512;

/// The time of a tar entry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Time {
    /// Seconds since 1970, negative before.
    pub seconds: i64,
    /// 0 to 999,999,999.
    pub nanos: u32,
}

/// The fields of one header block.
#[derive(Debug, Default)]
pub struct RawHeader {
    /// The type flag, unchanged; `\0` is a regular file in old archives.
    pub flag: u8,
    /// The name, with the ustar prefix.
    pub name: Vec<u8>,
    /// Link target.
    pub link: Vec<u8>,
    /// The mode; it may have file type bits.
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
    /// Whether the magic is GNU's: only then is an 'S' header a sparse map.
    pub gnu: bool,
}

/// Parses one header block.
///
/// # Errors
/// A description of what is invalid.
pub fn parse(block: &[u8; BLOCK]) -> Result<RawHeader, &'static str> {
    let header = Header::from_byte_slice(block);
    let old = header.as_old();
    checksum(block, &old.cksum)?;
    let mut raw = RawHeader {
        flag: old.linkflag[0],
        name: text(&old.name).to_vec(),
        link: text(&old.linkname).to_vec(),
        mode: number::field(&old.mode)?,
        uid: number::field(&old.uid)?,
        gid: number::field(&old.gid)?,
        size: number::field(&old.size)?,
        mtime: number::field(&old.mtime)?,
        ..RawHeader::default()
    };
    let mut prefix: &[u8] = b"";
    if let Some(ustar) = header.as_ustar() {
        raw.major = number::field(&ustar.dev_major)?;
        raw.minor = number::field(&ustar.dev_minor)?;
        prefix = text(&ustar.prefix);
        if &block[508..512] == b"tar\0" {
            // The star format: a shorter prefix, then access and change time.
            prefix = text(&ustar.prefix[..131]);
            raw.atime = Some(number::field(&block[476..488])?);
        }
    } else if let Some(gnu) = header.as_gnu() {
        raw.gnu = true;
        raw.major = number::field(&gnu.dev_major)?;
        raw.minor = number::field(&gnu.dev_minor)?;
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
    let stated = number::field(field)?;
    // The field itself counts as spaces. Sums over slices compile to vector instructions.
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

fn optional_number(field: &[u8]) -> Result<Option<i64>, &'static str> {
    if field[0] == 0 { Ok(None) } else { number::field(field).map(Some) }
}
