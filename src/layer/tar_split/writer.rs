//! The tar-split record: what of a layer's tar is not in its files.
//!
//! One JSON object a line, gzipped (vbatts/tar-split tar/storage/entry.go):
//!
//! ```text
//! {"type":2,"payload":"<base64>","position":0}                     raw bytes
//! {"type":1,"name":"etc/f","size":5,"payload":"<crc>","position":1} a file's data
//! ```
//!
//! `payload` of a file is its CRC-64/GO-ISO, big-endian, or null without data. A name
//! that is no UTF-8 stands base64-coded under `name_raw`. dockerd reads a record whose
//! file entries are replaced by raw bytes, which is how entries are held that a file
//! entry cannot express.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};
use std::io::Write as _;

use crc_fast::CrcAlgorithm;
use data_encoding::BASE64;

use crate::layer::LayerError;
use crate::layer::budget::METADATA_BATCH_SIZE;

/// The longest run of raw bytes in one line; dockerd cuts at this length too.
const SEGMENT: usize = 1 << 20;

/// Where gathered lines go.
pub type LineSink = Box<dyn FnMut(Vec<u8>) -> Result<(), LayerError> + Send>;

/// Writes a layer's record while the layer is read.
pub struct Recorder {
    sink: LineSink,
    lines: Vec<u8>,
    pending: Vec<u8>,
    position: u64,
    names: HashSet<u64>,
    hash: RandomState,
    repeated: HashSet<u64>,
    crc: crc_fast::Digest,
    held: bool,
}

/// Names whose hash stood more than once, for the pass that mends the record.
#[derive(Default)]
pub struct Repeated {
    hashes: HashSet<u64>,
    hash: RandomState,
}

impl Repeated {
    /// Whether no name stood twice.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Whether the clean `name` may have stood more than once. A chance collision says
    /// yes where it should say no; the mending pass compares whole names.
    pub fn contains(&self, name: &[u8]) -> bool {
        self.hashes.contains(&self.hash.hash_one(name))
    }
}

impl Recorder {
    /// A recorder whose lines go to `sink`.
    pub fn new(sink: LineSink) -> Self {
        Self {
            sink,
            lines: empty_batch(),
            pending: Vec::new(),
            position: 0,
            names: HashSet::new(),
            hash: RandomState::new(),
            repeated: HashSet::new(),
            crc: crc_fast::Digest::new(CrcAlgorithm::Crc64GoIso),
            held: false,
        }
    }

    /// The position that the next line will have.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Bytes that are no file data.
    ///
    /// # Errors
    /// The sink's.
    pub fn raw(&mut self, mut bytes: &[u8]) -> Result<(), LayerError> {
        while self.pending.len() + bytes.len() >= SEGMENT {
            let (now, later) = bytes.split_at(SEGMENT - self.pending.len());
            self.pending.extend_from_slice(now);
            self.flush_segment()?;
            bytes = later;
        }
        self.pending.extend_from_slice(bytes);
        Ok(())
    }

    /// An entry begins: `clean` is its name below the layer's root. With `held`, its data
    /// will be recorded raw and it gets no line of its own.
    ///
    /// # Errors
    /// The sink's.
    pub fn begin(&mut self, clean: &[u8], held: bool, data: u64) -> Result<(), LayerError> {
        self.held = held;
        if held {
            return Ok(());
        }
        let hash = self.hash.hash_one(clean);
        if !self.names.insert(hash) {
            self.repeated.insert(hash);
            // dockerd refuses a name twice; without data the line is not needed.
            self.held = data == 0;
        }
        if !self.held {
            self.flush_segment()?;
        }
        Ok(())
    }

    /// Data of the entry that was begun.
    ///
    /// # Errors
    /// The sink's.
    pub fn data(&mut self, bytes: &[u8]) -> Result<(), LayerError> {
        if self.held {
            return self.raw(bytes);
        }
        self.crc.update(bytes);
        Ok(())
    }

    /// The entry ends: `name` as the archive has it, `size` as its header states it.
    ///
    /// # Errors
    /// The sink's.
    pub fn end(&mut self, name: &[u8], size: u64) -> Result<(), LayerError> {
        if self.held {
            return Ok(());
        }
        let crc = (size > 0).then(|| self.crc.finalize_reset());
        write_file(&mut self.lines, name, size, crc, self.position);
        self.line_done()
    }

    /// Writes the raw bytes gathered so far as a line, if there are any.
    ///
    /// # Errors
    /// The sink's.
    pub fn flush_segment(&mut self) -> Result<(), LayerError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        write_segment(&mut self.lines, &self.pending, self.position);
        self.pending.clear();
        self.line_done()
    }

    /// Ends the record with the empty segment that tar-split always writes last.
    ///
    /// # Errors
    /// The sink's.
    pub fn finish(mut self) -> Result<Repeated, LayerError> {
        self.flush_segment()?;
        write_segment(&mut self.lines, b"", self.position);
        (self.sink)(std::mem::take(&mut self.lines))?;
        Ok(Repeated { hashes: self.repeated, hash: self.hash })
    }

    fn line_done(&mut self) -> Result<(), LayerError> {
        self.position += 1;
        if self.lines.len() >= METADATA_BATCH_SIZE {
            (self.sink)(std::mem::replace(&mut self.lines, empty_batch()))?;
        }
        Ok(())
    }
}

/// Room for a batch and the line that ends it.
fn empty_batch() -> Vec<u8> {
    Vec::with_capacity(METADATA_BATCH_SIZE + 4096)
}

/// Appends a line of raw bytes.
pub fn write_segment(out: &mut Vec<u8>, bytes: &[u8], position: u64) {
    out.extend_from_slice(br#"{"type":2,"payload":""#);
    encode(out, bytes);
    // Writing to a Vec cannot fail.
    let _ = writeln!(out, r#"","position":{position}}}"#);
}

/// Appends `bytes` as base64. Most of a header is zeros, which need no looking up.
fn encode(out: &mut Vec<u8>, bytes: &[u8]) {
    const ZEROS: [u8; 48] = [0; 48];
    for run in bytes.chunks(ZEROS.len()) {
        let start = out.len();
        out.resize(start + BASE64.encode_len(run.len()), b'A');
        if *run != ZEROS {
            BASE64.encode_mut(run, &mut out[start..]);
        }
    }
}

/// Appends a file's line.
pub fn write_file(out: &mut Vec<u8>, name: &[u8], size: u64, crc: Option<u64>, position: u64) {
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

    fn file(name: &[u8], size: u64, crc: Option<u64>) -> String {
        let mut out = Vec::new();
        write_file(&mut out, name, size, crc, 7);
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn lines_are_as_go_writes_them() {
        assert_eq!(
            file(b"etc/", 0, None),
            "{\"type\":1,\"name\":\"etc/\",\"payload\":null,\"position\":7}\n"
        );
        assert_eq!(
            file("<&>\u{2028}\t\x01\x7f".as_bytes(), 1, Some(0x2310000000000000)),
            "{\"type\":1,\"name\":\"\\u003c\\u0026\\u003e\\u2028\\t\\u0001\x7f\",\"size\":1,\"payload\":\"IxAAAAAAAAA=\",\"position\":7}\n"
        );
        assert_eq!(
            file(b"\xff", 0, None),
            "{\"type\":1,\"name_raw\":\"/w==\",\"payload\":null,\"position\":7}\n"
        );
    }

    #[test]
    fn raw_bytes_are_base64_whatever_of_them_is_zero() {
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

    #[test]
    fn the_crc_is_go_iso() {
        let mut crc = crc_fast::Digest::new(CrcAlgorithm::Crc64GoIso);
        crc.update(b"123456789");
        assert_eq!(crc.finalize(), 0xb90956c775a41001);
    }
}
