//! PAX extended headers (POSIX pax, "pax Extended Header"), as far as a layer uses them.

use super::header::Time;
use super::sparse::Run;

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
    /// `GNU.sparse.map` (0.1), or `offset` and `numbytes` in turn (0.0).
    pub map: Option<Vec<Run>>,
    offset: Option<i64>,
}

/// Reads the data of an `x` header.
///
/// # Errors
/// What is wrong with it, in a few words.
pub fn parse(mut data: &[u8]) -> Result<Pax, &'static str> {
    let mut pax = Pax::default();
    while !data.is_empty() {
        let (record, rest) = record(data).ok_or("an invalid PAX record")?;
        data = rest;
        let equals = record.iter().position(|&b| b == b'=').ok_or("an invalid PAX record")?;
        take(&mut pax, &record[..equals], &record[equals + 1..])?;
    }
    Ok(pax)
}

/// One record, `"LENGTH KEY=VALUE\n"`, without its length and newline, and what follows.
/// The length is trusted and not the newline, because values may hold newlines.
fn record(data: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = data.iter().take(20).position(|&b| b == b' ')?;
    let length: usize = std::str::from_utf8(&data[..space]).ok()?.parse().ok()?;
    let record = data.get(space + 1..length)?;
    let (b'\n', record) = record.split_last()? else { return None };
    Some((record, &data[length..]))
}

fn take(pax: &mut Pax, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
    if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
        pax.xattrs.retain(|(known, _)| known != name);
        pax.xattrs.push((name.to_vec(), value.to_vec()));
        return Ok(());
    }
    if let Some(key) = key.strip_prefix(b"GNU.sparse.") {
        return take_sparse(&mut pax.sparse, key, value);
    }
    // An empty value takes a record back.
    let given = !value.is_empty();
    match key {
        b"path" | b"linkpath" if value.contains(&0) => return Err("a PAX name with a NUL"),
        b"path" => pax.path = given.then(|| value.to_vec()),
        b"linkpath" => pax.linkpath = given.then(|| value.to_vec()),
        b"size" => pax.size = given.then(|| integer(value)).transpose()?,
        b"uid" => pax.uid = given.then(|| integer(value)).transpose()?,
        b"gid" => pax.gid = given.then(|| integer(value)).transpose()?,
        b"mtime" => pax.mtime = given.then(|| time(value)).transpose()?,
        b"atime" => pax.atime = given.then(|| time(value)).transpose()?,
        _ => {}
    }
    Ok(())
}

fn take_sparse(sparse: &mut PaxSparse, key: &[u8], value: &[u8]) -> Result<(), &'static str> {
    match key {
        b"major" => sparse.major = Some(integer(value)?),
        b"minor" => sparse.minor = Some(integer(value)?),
        b"name" => sparse.name = Some(value.to_vec()),
        b"size" | b"realsize" => sparse.size = Some(integer(value)?),
        b"map" => {
            let numbers: Vec<i64> =
                value.split(|&b| b == b',').map(integer).collect::<Result<_, _>>()?;
            let (pairs, []) = numbers.as_chunks::<2>() else { return Err("an invalid sparse map") };
            sparse.map =
                Some(pairs.iter().map(|&[offset, length]| Run { offset, length }).collect());
        }
        b"offset" => sparse.offset = Some(integer(value)?),
        b"numbytes" => {
            let offset = sparse.offset.take().ok_or("an invalid sparse map")?;
            let length = integer(value)?;
            sparse.map.get_or_insert_default().push(Run { offset, length });
        }
        _ => {}
    }
    Ok(())
}

/// A decimal number.
///
/// # Errors
/// It is none.
pub fn integer(text: &[u8]) -> Result<i64, &'static str> {
    std::str::from_utf8(text)
        .ok()
        .and_then(|text| text.parse().ok())
        .ok_or("a PAX value that is no number")
}

/// `SECONDS[.FRACTION]`; what is finer than a nanosecond is cut off.
fn time(text: &[u8]) -> Result<Time, &'static str> {
    const BAD: &str = "a PAX time that is no number";
    let text = std::str::from_utf8(text).map_err(|_| BAD)?;
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let seconds: i64 = whole.parse().map_err(|_| BAD)?;
    if !fraction.bytes().all(|b| b.is_ascii_digit()) {
        return Err(BAD);
    }
    let digits = fraction.bytes().chain(std::iter::repeat(b'0')).take(9);
    let nanos = digits.fold(0, |nanos, digit| nanos * 10 + u32::from(digit - b'0'));
    // "-1.5" is a second and a half before the epoch: two seconds before, and a half on.
    if whole.starts_with('-') && nanos > 0 {
        return Ok(Time { seconds: seconds.saturating_sub(1), nanos: 1_000_000_000 - nanos });
    }
    Ok(Time { seconds, nanos })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_have_nanoseconds_and_signs() {
        assert_eq!(time(b"12.5"), Ok(Time { seconds: 12, nanos: 500_000_000 }));
        assert_eq!(time(b"12"), Ok(Time { seconds: 12, nanos: 0 }));
        assert_eq!(time(b"-1.5"), Ok(Time { seconds: -2, nanos: 500_000_000 }));
        assert_eq!(time(b"1.0000000019"), Ok(Time { seconds: 1, nanos: 1 }));
        assert!(time(b"1.x").is_err());
    }

    #[test]
    fn values_may_hold_newlines_and_equal_signs() {
        let record = |body: &str| format!("{} {body}\n", body.len() + 4);
        let data = record("SCHILY.xattr.user.a=b\nc") + &record("path=long=one");
        let pax = parse(data.as_bytes()).unwrap();
        assert_eq!(pax.xattrs, [(b"user.a".to_vec(), b"b\nc".to_vec())]);
        assert_eq!(pax.path.unwrap(), b"long=one");
    }

    #[test]
    fn a_wrong_length_is_refused() {
        assert!(parse(b"99 path=a\n").is_err());
        assert!(parse(b"x path=a\n").is_err());
        assert!(parse(b"9 path=ab\n").is_err());
    }
}
