//! `tar-split.json.gz` as a file: compressed while it is written, mended where the
//! archive took back what it had said, and read again.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, BufWriter, Read, Seek, Write};

use crc_fast::CrcAlgorithm;
use data_encoding::BASE64;
use flate2::Compression;
use flate2::bufread::MultiGzDecoder;
use flate2::write::DeflateEncoder;
use serde::Deserialize;

use super::overwritten::Spool;
use super::writer::{self, Repeated};
use crate::layer::LayerError;
use crate::layer::tar::path;

/// Docker reads any level. The lines are mostly base64 of zeros: the fastest level already
/// takes off nine tenths, and the record must not cost more than the layer's own files.
const LEVEL: Compression = Compression::new(1);

/// One line of a record, read as loosely as dockerd reads it.
#[derive(Debug, Deserialize)]
pub struct Line {
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

/// What a line stands for.
#[derive(Debug)]
pub enum Record {
    /// Raw bytes of the tar.
    Segment(Vec<u8>),
    /// The data of a file.
    File {
        /// Its name as the archive has it.
        name: Vec<u8>,
        /// Bytes of data.
        size: u64,
        /// Their CRC-64/GO-ISO, if there are any.
        crc: Option<u64>,
        /// The line's number.
        position: u64,
    },
}

/// The head of a gzip member without a name or a time, made by no system in particular (RFC
/// 1952, 2.3).
const HEAD: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// The compressing end of a record. The gzip frame is written here, as its CRC is then the
/// vectorised one of the layer's own.
pub struct Writer {
    deflate: DeflateEncoder<File>,
    crc: crc_fast::Digest,
}

impl Writer {
    /// Writes into the empty `file`.
    ///
    /// # Errors
    /// What writing says.
    pub fn new(mut file: File) -> io::Result<Self> {
        file.write_all(&HEAD)?;
        let crc = crc_fast::Digest::new(CrcAlgorithm::Crc32IsoHdlc);
        Ok(Self { deflate: DeflateEncoder::new(file, LEVEL), crc })
    }

    /// Appends whole lines.
    ///
    /// # Errors
    /// What writing says.
    pub fn lines(&mut self, lines: &[u8]) -> io::Result<()> {
        self.crc.update(lines);
        self.deflate.write_all(lines)
    }

    /// Ends the gzip stream.
    ///
    /// # Errors
    /// What writing says.
    pub fn finish(self) -> io::Result<File> {
        // Both stand modulo 2^32.
        let (crc, length) = (self.crc.finalize() as u32, self.deflate.total_in() as u32);
        let mut file = self.deflate.finish()?;
        file.write_all(&[crc.to_le_bytes(), length.to_le_bytes()].concat())?;
        Ok(file)
    }
}

/// The lines of a record, in order.
pub struct Records<R> {
    lines: BufReader<MultiGzDecoder<BufReader<R>>>,
    buffer: Vec<u8>,
}

impl<R: Read> Records<R> {
    /// Reads the gzipped record from `source`.
    pub fn new(source: R) -> Self {
        let lines = BufReader::with_capacity(64 << 10, MultiGzDecoder::new(BufReader::new(source)));
        Self { lines, buffer: Vec::new() }
    }

    /// The next line, or `None` at the end.
    ///
    /// # Errors
    /// [`LayerError::TarSplit`].
    pub fn next(&mut self) -> Result<Option<Record>, LayerError> {
        loop {
            self.buffer.clear();
            if self.lines.read_until(b'\n', &mut self.buffer).map_err(LayerError::TarSplit)? == 0 {
                return Ok(None);
            }
            if !self.buffer.trim_ascii().is_empty() {
                return parse(&self.buffer).map(Some).map_err(LayerError::TarSplit);
            }
        }
    }
}

fn parse(line: &[u8]) -> io::Result<Record> {
    let bad = |what: &str| io::Error::new(io::ErrorKind::InvalidData, what.to_owned());
    let line: Line = serde_json::from_slice(line)?;
    let payload = BASE64
        .decode(line.payload.as_deref().unwrap_or("").as_bytes())
        .map_err(|_| bad("a payload that is no base64"))?;
    match line.kind {
        2 => return Ok(Record::Segment(payload)),
        1 => {}
        kind => return Err(bad(&format!("an entry of the unknown type {kind}"))),
    }
    let name = match line.name_raw.is_empty() {
        true => line.name.into_bytes(),
        false => {
            BASE64.decode(line.name_raw.as_bytes()).map_err(|_| bad("a name that is no base64"))?
        }
    };
    let crc = payload.try_into().ok().map(u64::from_be_bytes);
    Ok(Record::File { name, size: line.size, crc, position: line.position })
}

/// Rewrites the record so that no name stands twice and every line's data is on disk: the
/// lines of files that were taken back become raw bytes.
///
/// # Errors
/// [`LayerError::TarSplit`].
pub fn mend(
    file: &mut File,
    scratch: File,
    repeated: &Repeated,
    spool: &mut Spool,
) -> Result<(), LayerError> {
    let last = last_positions(file, repeated)?;
    file.rewind().map_err(LayerError::TarSplit)?;
    let mut records = Records::new(&*file);
    let writer = Writer::new(scratch).map_err(LayerError::TarSplit)?;
    let mut out = Renumbering { writer, line: Vec::new(), position: 0 };
    while let Some(record) = records.next()? {
        let Record::File { name, size, crc, position } = record else {
            let Record::Segment(bytes) = record else { continue };
            out.segment(&bytes)?;
            continue;
        };
        let clean = path::clean(&name, usize::MAX)?.path;
        let lost = if size > 0 {
            spool.lost(&clean, position).map_err(LayerError::TarSplit)?
        } else {
            None
        };
        match lost {
            Some(data) => out.data(data)?,
            None if last.get(&clean).is_some_and(|&last| last > position) => {}
            None => out.file(&name, size, crc)?,
        }
    }
    let mut mended = out.writer.finish().map_err(LayerError::TarSplit)?;
    replace(file, &mut mended).map_err(LayerError::TarSplit)
}

/// Where each name that may be repeated stands last.
fn last_positions(
    file: &mut File,
    repeated: &Repeated,
) -> Result<HashMap<Vec<u8>, u64>, LayerError> {
    file.rewind().map_err(LayerError::TarSplit)?;
    let mut last = HashMap::new();
    let mut records = Records::new(&*file);
    while let Some(record) = records.next()? {
        if let Record::File { name, position, .. } = record {
            let clean = path::clean(&name, usize::MAX)?.path;
            if repeated.contains(&clean) {
                last.insert(clean, position);
            }
        }
    }
    Ok(last)
}

fn replace(file: &mut File, with: &mut File) -> io::Result<()> {
    file.rewind()?;
    file.set_len(0)?;
    with.rewind()?;
    io::copy(with, &mut BufWriter::new(file))?;
    Ok(())
}

/// Writes lines with positions that count on.
struct Renumbering {
    writer: Writer,
    line: Vec<u8>,
    position: u64,
}

impl Renumbering {
    fn segment(&mut self, bytes: &[u8]) -> Result<(), LayerError> {
        self.line.clear();
        writer::write_segment(&mut self.line, bytes, self.position);
        self.done()
    }

    fn file(&mut self, name: &[u8], size: u64, crc: Option<u64>) -> Result<(), LayerError> {
        self.line.clear();
        writer::write_file(&mut self.line, name, size, crc, self.position);
        self.done()
    }

    fn data(&mut self, mut data: impl Read) -> Result<(), LayerError> {
        let mut chunk = Vec::new();
        loop {
            chunk.clear();
            data.by_ref().take(1 << 20).read_to_end(&mut chunk).map_err(LayerError::TarSplit)?;
            if chunk.is_empty() {
                return Ok(());
            }
            self.segment(&chunk)?;
        }
    }

    fn done(&mut self) -> Result<(), LayerError> {
        self.position += 1;
        self.writer.lines(&self.line).map_err(LayerError::TarSplit)
    }
}
