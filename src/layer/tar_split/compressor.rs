//! The compressing end of `tar-split.json.gz`. The gzip frame is written here, because its CRC is
//! then the vectorised one that the layer uses elsewhere.

use std::fs::File;
use std::io::{self, Write};

use crc_fast::CrcAlgorithm;
use flate2::Compression;
use flate2::write::DeflateEncoder;

/// Docker reads any level. The lines are mostly base64 of zeros: the fastest level already
/// removes nine tenths, and the metadata must not cost more than the layer's own files.
const LEVEL: Compression = Compression::new(1);

/// The header of a gzip member without name and time, and of an unknown operating system (RFC
/// 1952, 2.3).
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff];

/// Compresses lines of metadata into a file.
pub struct LineCompressor {
    deflate: DeflateEncoder<File>,
    crc: crc_fast::Digest,
}

impl LineCompressor {
    /// Writes into the empty `file`.
    ///
    /// # Errors
    /// The error of write(2).
    pub fn new(mut file: File) -> io::Result<Self> {
        file.write_all(&HEADER)?;
        let crc = crc_fast::Digest::new(CrcAlgorithm::Crc32IsoHdlc);
        Ok(Self { deflate: DeflateEncoder::new(file, LEVEL), crc })
    }

    /// Appends whole lines.
    ///
    /// # Errors
    /// The error of write(2).
    pub fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        self.crc.update(lines);
        self.deflate.write_all(lines)
    }

    /// Ends the gzip stream.
    ///
    /// # Errors
    /// The error of write(2).
    pub fn finish(self) -> io::Result<File> {
        // Both are modulo 2^32.
        let (crc, length) = (self.crc.finalize() as u32, self.deflate.total_in() as u32);
        let mut file = self.deflate.finish()?;
        file.write_all(&[crc.to_le_bytes(), length.to_le_bytes()].concat())?;
        Ok(file)
    }
}
