//! The PAX extended headers that layers use (POSIX pax, "pax Extended Header").

use super::header::Time;
use super::number;
use super::sparse::Extent;

/// The records of the `x` headers before an entry.
#[derive(Debug, Default)]
pub struct Pax {
    /// `path`.
    pub path: Option<Vec<u8>>,
    /// `linkpath`.
    pub linkpath: Option<Vec<u8>>,
    /// `size`.
    pub size: Option<i64>,
    /// `uid`.
    pub uid: Option<i64>,
    /// `gid`.
    pub gid: Option<i64>,
    /// `mtime`.
    pub mtime: Option<Time>,
    /// `atime`.
    pub atime: Option<Time>,
    /// `SCHILY.xattr.NAME`, in the archive's order.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// `GNU.sparse.*`.
    pub sparse: PaxSparse,
}

/// The sparse records of the three PAX formats (GNU tar manual, "PAX Format").
#[derive(Debug, Default)]
pub struct PaxSparse {
    /// `GNU.sparse.major`.
    pub major: Option<i64>,
    /// `GNU.sparse.minor`.
    pub minor: Option<i64>,
    /// `GNU.sparse.name`.
    pub name: Option<Vec<u8>>,
    /// `GNU.sparse.size` or `GNU.sparse.realsize`.
    pub size: Option<i64>,
    /// `GNU.sparse.map` (0.1), or pairs of `offset` and `numbytes` (0.0).
    pub map: Option<Vec<Extent>>,
    offset: Option<i64>,
}

impl PaxSparse {
    /// Returns whether the entry is a sparse file.
    pub fn is_used(&self) -> bool {
        self.major.is_some() || self.map.is_some() || self.size.is_some()
    }
}

/// Parses the data of an `x` header.
///
/// # Errors
/// A description of what is invalid.
pub fn parse(mut data: &[u8]) -> Result<Pax, &'static str> {
    let mut pax = Pax::default();
    while !data.is_empty() {
        let (record, rest) = split_record(data).ok_or("an invalid PAX record")?;
        data = rest;
        let equals = record.iter().position(|&b| b == b'=').ok_or("an invalid PAX record")?;
        set(&mut pax, &record[..equals], &record[equals + 1..])?;
    }
    Ok(pax)
}

/// Splits off the first record, `"LENGTH KEY=VALUE\n"`, and returns it without its length and
/// newline, and the rest. The length decides where a record ends, because values may have
/// newlines.
fn split_record(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = data.iter().take(20).position(|&b| b == b' ')?;
    let length: usize = std::str::from_utf8(&data[..space]).ok()?.parse().ok()?;
    let record = data.get(space + 1..length)?;
    let (b'\n', record) = record.split_last()? else { return None };
    Some((record, &data[length..]))
}

fn set(pax: &mut Pax, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
        pax.xattrs.retain(|(known, _)| known != name);
        pax.xattrs.push((name.to_vec(), value.to_vec()));
        return Ok(());
    }
    if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
        return set_sparse(&mut pax.sparse, key, value);
    }
    // An empty value removes an earlier one.
    let given = !value.is_empty();
    match key {
        b"path" | b"linkpath" if value.contains(&0) => return Err("a PAX name with a NUL"),
        b"path" => pax.path = given.then(|| value.to_vec()),
        b"linkpath" => pax.linkpath = given.then(|| value.to_vec()),
        b"size" => pax.size = given.then(|| number::decimal(value)).transpose()?,
        b"uid" => pax.uid = given.then(|| number::decimal(value)).transpose()?,
        b"gid" => pax.gid = given.then(|| number::decimal(value)).transpose()?,
        b"mtime" => pax.mtime = given.then(|| time(value)).transpose()?,
        b"atime" => pax.atime = given.then(|| time(value)).transpose()?,
        _ => {}
    }
    Ok(())
}

fn set_sparse(sparse: &mut PaxSparse, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
    match key {
        b"major" => sparse.major = Some(number::decimal(value)?),
        b"minor" => sparse.minor = Some(number::decimal(value)?),
        b"name" => sparse.name = Some(value.to_vec()),
        b"size" | b"realsize" => sparse.size = Some(number::decimal(value)?),
        b"map" => {
            let numbers: Vec<i64> =
                value.split(|&b| b == b',').map(number::decimal).collect::<Result<_, _>>()?;
            let (pairs, []) = numbers.as_chunks::<2>() else { return Err("an invalid sparse map") };
            sparse.map =
                Some(pairs.iter().map(|&[offset, length]| Extent { offset, length }).collect());
        }
        b"offset" => sparse.offset = Some(number::decimal(value)?),
        b"numbytes" => {
            let offset = sparse.offset.take().ok_or("an invalid sparse map")?;
            let length = number::decimal(value)?;
            sparse.map.get_or_insert_default().push(Extent { offset, length });
        }
        _ => {}
    }
    Ok(())
}

/// Parses `SECONDS[.FRACTION]`, rounded down to nanoseconds.
fn time(text: &[u8]) -> Result<Time, &'static str> {
    const BAD: &str = "a PAX time that is not a number";
    let text = std::str::from_utf8(text).map_err(|_| BAD)?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().map_err(|_| BAD)?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(BAD);
    }
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    let nanos = digits.fold(0, |nanos, digit| nanos * 10 + u32::from(digit - b'0'));
    // "-1.5" is two seconds before the epoch plus half a second.
    if whole.starts_with('-') && nanos > 0 {
        return Ok(Time { seconds: seconds.saturating_sub(1), nanos: 1_000_000_000 - nanos });
    }
    Ok(Time { seconds, nanos })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_with_fraction_or_sign_is_parsed() {
        assert_eq!(time(b"12.5"), Ok(Time { seconds: 12, nanos: 500_000_000 }));
        assert_eq!(time(b"12"), Ok(Time { seconds: 12, nanos: 0 }));
        assert_eq!(time(b"-1.5"), Ok(Time { seconds: -2, nanos: 500_000_000 }));
        assert_eq!(time(b"1.0000000019"), Ok(Time { seconds: 1, nanos: 1 }));
        assert!(time(b"1.x").is_err());
    }

    #[test]
    fn value_with_newline_or_equals_sign_is_kept() {
        let record = |body: &str| format!("{} {body}\n", body.len() + 4);
        let data = record("SCHILY.xattr.user.a=b\nc") + &record("path=long=one");
        let pax = parse(data.as_bytes()).unwrap();
        assert_eq!(pax.xattrs, [(b"user.a".to_vec(), b"b\nc".to_vec())]);
        assert_eq!(pax.path.unwrap(), b"long=one");
    }

    #[test]
    fn record_with_wrong_length_is_an_error() {
        assert!(parse(b"99 path=a\n").is_err());
        assert!(parse(b"x path=a\n").is_err());
        assert!(parse(b"9 path=ab\n").is_err());
    }
}
