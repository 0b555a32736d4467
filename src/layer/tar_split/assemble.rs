//! The tar of a stored layer, assembled from its metadata and its directory.

use std::fs::File;
use std::io::{self, Cursor, Read};

use crc_fast::CrcAlgorithm;

use super::line::Line;
use super::reader::MetadataReader;
use crate::digest::Digest;
use crate::layer::LayerError;
use crate::layer::error::show;
use crate::layer::tar::path;
use crate::oci::DiffId;
use crate::overlay::DiffDir;

/// Reads the uncompressed tar of a stored layer, checking every file against its CRC.
pub struct TarAssembler<'a> {
    lines: MetadataReader<File>,
    diff: &'a DiffDir,
    current: Part,
}

enum Part {
    Segment(Cursor<Vec<u8>>),
    File(Box<StoredFile>),
    End,
}

struct StoredFile {
    name: Vec<u8>,
    file: File,
    remaining: u64,
    crc: crc_fast::Digest,
    expected: Option<u64>,
}

impl<'a> TarAssembler<'a> {
    /// Reads the metadata `tar_split` and the files of `diff`.
    pub fn new(tar_split: File, diff: &'a DiffDir) -> Self {
        Self {
            lines: MetadataReader::new(tar_split),
            diff,
            current: Part::Segment(Cursor::default()),
        }
    }

    fn advance(&mut self) -> Result<(), LayerError> {
        self.current = match self.lines.next()? {
            None => Part::End,
            Some(Line::Segment(bytes)) => Part::Segment(Cursor::new(bytes)),
            Some(Line::Entry { size: 0, .. }) => Part::Segment(Cursor::default()),
            Some(Line::Entry { name, size, crc, .. }) => {
                let path = path::clean(&name, usize::MAX)?.path;
                let file = self.diff.open_file(&path).map_err(|e| damaged(&name, e.to_string()))?;
                let found = file.metadata().map_err(|e| damaged(&name, e.to_string()))?.len();
                if found != size {
                    return Err(damaged(
                        &name,
                        format!("it has {found} bytes, the tar-split metadata says {size}"),
                    ));
                }
                let digest = crc_fast::Digest::new(CrcAlgorithm::Crc64GoIso);
                Part::File(Box::new(StoredFile {
                    name,
                    file,
                    remaining: size,
                    crc: digest,
                    expected: crc,
                }))
            }
        };
        Ok(())
    }
}

impl Read for TarAssembler<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            match &mut self.current {
                Part::End => return Ok(0),
                Part::Segment(bytes) => {
                    let n = bytes.read(out)?;
                    if n > 0 || out.is_empty() {
                        return Ok(n);
                    }
                }
                Part::File(stored) => {
                    let n = stored.read(out).map_err(LayerError::into_io)?;
                    if n > 0 {
                        return Ok(n);
                    }
                }
            }
            self.advance().map_err(LayerError::into_io)?;
        }
    }
}

impl StoredFile {
    /// Reads the next bytes. Returns 0 at the end of a file that has the recorded checksum.
    fn read(&mut self, out: &mut [u8]) -> Result<usize, LayerError> {
        if self.remaining == 0 {
            if Some(self.crc.finalize()) != self.expected {
                return Err(damaged(
                    &self.name,
                    "its checksum differs from the recorded one".to_owned(),
                ));
            }
            return Ok(0);
        }
        let limit = out.len().min(usize::try_from(self.remaining).unwrap_or(usize::MAX));
        let n =
            self.file.read(&mut out[..limit]).map_err(|e| damaged(&self.name, e.to_string()))?;
        if n == 0 {
            return Err(damaged(&self.name, "the file was truncated".to_owned()));
        }
        self.crc.update(&out[..n]);
        self.remaining -= n as u64;
        Ok(n)
    }
}

/// Returns the bytes of the tar of a stored layer, by its metadata.
///
/// # Errors
/// [`LayerError::TarSplit`] if the metadata cannot be read.
pub fn tar_size(tar_split: File) -> Result<u64, LayerError> {
    let mut lines = MetadataReader::new(tar_split);
    let mut total = 0_u64;
    while let Some(line) = lines.next()? {
        let size = match line {
            Line::Segment(bytes) => bytes.len() as u64,
            Line::Entry { size, .. } => size,
        };
        // A sum that cannot be is not that of the tar, which is noticed when it is read.
        total = total.saturating_add(size);
    }
    Ok(total)
}

/// Checks that a stored layer assembles to the tar with the digest `diff_id`.
///
/// # Errors
/// [`LayerError::Damaged`] with the first file that differs, or with the whole layer;
/// [`LayerError::TarSplit`] if the metadata cannot be read.
pub fn verify(tar_split: File, diff: &DiffDir, diff_id: DiffId) -> Result<(), LayerError> {
    let tar = TarAssembler::new(tar_split, diff);
    let actual =
        Digest::of_reader(tar).map_err(|e| LayerError::from_io(e, LayerError::TarSplit))?;
    if actual != diff_id.digest() {
        return Err(damaged(b"/", format!("the layer's digest is {actual}, expected {diff_id}")));
    }
    Ok(())
}

fn damaged(name: &[u8], why: String) -> LayerError {
    LayerError::Damaged { path: show(name), why }
}
