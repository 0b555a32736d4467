//! The lines of tar-split metadata, one JSON object each (vbatts/tar-split
//! tar/storage/entry.go):
//!
//! ```text
//! {"type":2,"payload":"<base64>","position":0}                      a segment: raw bytes
//! {"type":1,"name":"etc/f","size":5,"payload":"<crc>","position":1} an entry: the data of a file
//! ```
//!
//! `payload` of an entry is its CRC-64/GO-ISO, big-endian, or null without data. A name that is not
//! UTF-8 is base64 in `name_raw`.

use std::io::{self, Write as _};

use data_encoding::BASE64;
use serde::Deserialize;

/// Bytes of a segment at most; dockerd uses the same limit.
pub const SEGMENT_SIZE: usize = 1 << 20;

/// A parsed line.
#[derive(Debug)]
pub enum Line {
    /// Raw bytes of the tar.
    Segment(Vec<u8>),
    /// The data of a file.
    Entry {
        /// The name as it is in the archive.
        name: Vec<u8>,
        /// Bytes of data.
        size: u64,
        /// The CRC-64/GO-ISO of the data, if there is any.
        crc: Option<u64>,
        /// The number of the line.
        position: u64,
    },
}

/// The JSON of a line, with the fields that dockerd reads.
#[derive(Debug, Deserialize)]
struct JsonLine {
    #[serde(rename = "type")]
    kind: u8,
    #[serde(default)]
    name: String,
    #[serde(default)]
    name_raw: String,
    #[serde(default)]
    size: u64,
    payload: Option<String>,
    #[serde(default)]
    position: u64,
}

impl Line {
    /// Parses a line.
    ///
    /// # Errors
    /// [`io::ErrorKind::InvalidData`], or an error of the JSON.
    pub fn parse(line: &[u8]) -> io::Result<Self> {
        let invalid = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
        let line: JsonLine = serde_json::from_slice(line)?;
        let payload = BASE64
            .decode(line.payload.as_deref().unwrap_or("").as_bytes())
            .map_err(|_| invalid("a payload that is not base64"))?;
        match line.kind {
            2 => return Ok(Self::Segment(payload)),
            1 => {}
            kind => return Err(invalid(&format!("a line of the unknown type {kind}"))),
        }
        let name = if line.name_raw.is_empty() {
            line.name.into_bytes()
        } else {
            let name = BASE64.decode(line.name_raw.as_bytes());
            name.map_err(|_| invalid("a name that is not base64"))?
        };
        let crc = payload.try_into().ok().map(u64::from_be_bytes);
        Ok(Self::Entry { name, size: line.size, crc, position: line.position })
    }
}

/// Appends the line of a segment to `out`.
pub fn write_segment(out: &mut Vec<u8>, bytes: &[u8], position: u64) {
    out.extend_from_slice(br#"{"type":2,"payload":""#);
    encode(out, bytes);
    // Writing to a Vec cannot fail.
    let _ = writeln!(out, r#"","position":{position}}}"#);
}

/// Appends `bytes` as base64. Most bytes of a header are zeros; those take a fast path.
fn encode(out: &mut Vec<u8>, bytes: &[u8]) {
    const ZEROS: [u8; 48] = [0; 48];
    for part in bytes.chunks(ZEROS.len()) {
        let start = out.len();
        out.resize(start + BASE64.encode_len(part.len()), b'A');
        if *part != ZEROS {
            BASE64.encode_mut(part, &mut out[start..]);
        }
    }
}

/// Appends the line of an entry to `out`.
pub fn write_entry(out: &mut Vec<u8>, name: &[u8], size: u64, crc: Option<u64>, position: u64) {
    out.extend_from_slice(br#"{"type":1,"#);
    match std::str::from_utf8(name) {
        Ok("") => {}
        Ok(name) => {
            out.extend_from_slice(br#""name":""#);
            escape(out, name);
            out.extend_from_slice(br#"","#);
        }
        Err(_) => {
            let _ = write!(out, r#""name_raw":"{}","#, BASE64.encode(name));
        }
    }
    if size > 0 {
        let _ = write!(out, r#""size":{size},"#);
    }
    match crc {
        Some(crc) => {
            let _ = write!(out, r#""payload":"{}","#, BASE64.encode(&crc.to_be_bytes()));
        }
        None => out.extend_from_slice(br#""payload":null,"#),
    }
    let _ = writeln!(out, r#""position":{position}}}"#);
}

/// Escapes as Go's encoding/json does.
fn escape(out: &mut Vec<u8>, text: &str) {
    let special =
        |c| matches!(c, '\0'..='\x1f' | '"' | '\\' | '<' | '>' | '&' | '\u{2028}' | '\u{2029}');
    let mut done = 0;
    for (at, found) in text.match_indices(special) {
        out.extend_from_slice(&text.as_bytes()[done..at]);
        done = at + found.len();
        match found {
            "\"" => out.extend_from_slice(br#"\""#),
            "\\" => out.extend_from_slice(br"\\"),
            "\n" => out.extend_from_slice(br"\n"),
            "\r" => out.extend_from_slice(br"\r"),
            "\t" => out.extend_from_slice(br"\t"),
            other => other.chars().for_each(|c| {
                let _ = write!(out, "\\u{:04x}", u32::from(c));
            }),
        }
    }
    out.extend_from_slice(&text.as_bytes()[done..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &[u8], size: u64, crc: Option<u64>) -> String {
        let mut out = Vec::new();
        write_entry(&mut out, name, size, crc, 7);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn entry_line_matches_the_one_of_go() {
        assert_eq!(
            entry(b"etc/", 0, None),
            "{\"type\":1,\"name\":\"etc/\",\"payload\":null,\"position\":7}\n"
        );
        assert_eq!(
            entry("<&>\u{2028}\t\x01\x7f".as_bytes(), 1, Some(0x2310000000000000)),
            "{\"type\":1,\"name\":\"\\u003c\\u0026\\u003e\\u2028\\t\\u0001\x7f\",\"size\":1,\"payload\":\"IxAAAAAAAAA=\",\"position\":7}\n"
        );
        assert_eq!(
            entry(b"\xff", 0, None),
            "{\"type\":1,\"name_raw\":\"/w==\",\"payload\":null,\"position\":7}\n"
        );
    }

    #[test]
    fn segment_with_zeros_anywhere_is_valid_base64() {
        for length in [0, 1, 47, 48, 49, 95, 96, 97, 98, 512, 1000] {
            for zeros in [0..0, 0..48, 1..49, 48..96, 50..400, 0..1000] {
                let mut bytes = vec![0xa5; length];
                let (start, end) = (zeros.start.min(length), zeros.end.min(length));
                bytes[start..end].fill(0);
                let mut out = Vec::new();
                write_segment(&mut out, &bytes, 3);
                let expected = BASE64.encode(&bytes);
                let line = format!("{{\"type\":2,\"payload\":\"{expected}\",\"position\":3}}\n");
                assert_eq!(String::from_utf8(out).unwrap(), line);
            }
        }
    }
}
