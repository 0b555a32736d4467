//! Opens an archive: a directory, a tar, or a compressed tar, from a file or from a stream. What cannot be
//! read at any position is copied to a file without a name, of which nothing is left after a kill.

use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use super::error::ArchiveError;
use super::files::Files;
use crate::fsutil;
use crate::layer::{Compression, Decoder, LayerError, Limits};

/// Bytes that are read per step.
const STEP_SIZE: usize = 256 << 10;

/// Bytes of the longest known magic number.
const MAGIC_SIZE: u64 = 6;

/// The largest zstd window of a compressed archive: that of `zstd --long`.
const MAX_WINDOW: u64 = 128 << 20;

/// Opens the archive at `path`. `scratch` creates a file without a name.
///
/// # Errors
/// [`ArchiveError`] if it is not an archive, exceeds `limits`, or cannot be read or copied.
pub fn open(
    path: &Path,
    limits: &Limits,
    scratch: impl FnOnce() -> Result<File, ArchiveError>,
) -> Result<Files, ArchiveError> {
    let meta = std::fs::metadata(path).map_err(|e| ArchiveError::open(path, e))?;
    if meta.is_dir() {
        return Files::of_dir(path);
    }
    if !meta.is_file() {
        let stream = File::open(path).map_err(|e| ArchiveError::open(path, e))?;
        return read(stream, limits, scratch);
    }
    let mut file = fsutil::open(path).map_err(|e| ArchiveError::open(path, e))?;
    let mut head = Vec::new();
    (&mut file).take(MAGIC_SIZE).read_to_end(&mut head).map_err(ArchiveError::Read)?;
    match Compression::detect(&head).map_err(ArchiveError::Tar)? {
        Compression::None => Files::of_tar(file),
        _ => {
            let again = fsutil::open(path).map_err(|e| ArchiveError::open(path, e))?;
            read(again, limits, scratch)
        }
    }
}

/// Opens the archive that `stream` gives.
///
/// # Errors
/// As of [`open`].
pub fn read(
    stream: impl Read,
    limits: &Limits,
    scratch: impl FnOnce() -> Result<File, ArchiveError>,
) -> Result<Files, ArchiveError> {
    let source = BufReader::with_capacity(STEP_SIZE, Counted { stream, count: 0 });
    let gate = Box::new(|window| window <= MAX_WINDOW);
    let mut decoder = Decoder::new(source, gate).map_err(ArchiveError::Tar)?;
    let is_compressed = decoder.compression() != Compression::None;
    let mut file = scratch()?;
    let (mut buffer, mut total) = (vec![0; STEP_SIZE + crate::layer::DECODER_OVERHEAD], 0);
    loop {
        let filled = decoder.fill(&mut buffer).map_err(|e| failed(e, decoder.compression()))?;
        if filled.is_empty() {
            break;
        }
        total += filled.len() as u64;
        let read = is_compressed.then(|| decoder.source().get_ref().count);
        check(limits, total, read)?;
        file.write_all(&buffer[filled]).map_err(ArchiveError::Spool)?;
    }
    Files::of_tar(file)
}

/// Checks the bytes of a tar by the limits on an image.
fn check(limits: &Limits, total: u64, read: Option<u64>) -> Result<(), ArchiveError> {
    let limits = Limits { bytes: limits.image_bytes, ..*limits };
    limits.check(total, read, 0).map_err(ArchiveError::Tar)
}

/// Returns the error of reading the stream, or of decompressing it.
fn failed(error: io::Error, kind: Compression) -> ArchiveError {
    if error.raw_os_error().is_some() {
        return ArchiveError::Read(error);
    }
    let kind = kind.name();
    ArchiveError::Tar(LayerError::from_io(error, |source| LayerError::Decompress { kind, source }))
}

/// Counts the bytes that are read.
struct Counted<R> {
    stream: R,
    count: u64,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.stream.read(out)?;
        self.count += n as u64;
        Ok(n)
    }
}
