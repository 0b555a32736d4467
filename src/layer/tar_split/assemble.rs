//! A layer's tar again, from its record and its directory.

use std::fs::File;
use std::io::{self, Cursor, Read};

use crc_fast::CrcAlgorithm;

use super::rewrite::{Record, Records};
use crate::digest::Hasher;
use crate::layer::LayerError;
use crate::layer::error::show;
use crate::layer::tar::path;
use crate::oci::DiffId;
use crate::overlay::DiffDir;

/// Reads the uncompressed tar of a stored layer, checking every file against its CRC.
pub struct Reassembler<'a> {
    records: Records<File>,
    diff: &'a DiffDir,
    now: Source,
}

enum Source {
    Segment(Cursor<Vec<u8>>),
    File(Box<Stored>),
    End,
}

struct Stored {
    name: Vec<u8>,
    file: File,
    left: u64,
    crc: crc_fast::Digest,
    expected: Option<u64>,
}

impl<'a> Reassembler<'a> {
    /// Reads the record `tar_split` and the files of `diff`.
    pub fn new(tar_split: File, diff: &'a DiffDir) -> Self {
        Self { records: Records::new(tar_split), diff, now: Source::Segment(Cursor::default()) }
    }

    fn advance(&mut self) -> Result<(), LayerError> {
        self.now = match self.records.next()? {
            None => Source::End,
            Some(Record::Segment(bytes)) => Source::Segment(Cursor::new(bytes)),
            Some(Record::File { size: 0, .. }) => Source::Segment(Cursor::default()),
            Some(Record::File { name, size, crc, .. }) => {
                let path = path::clean(&name, usize::MAX)?.path;
                let file = self.diff.open_file(&path).map_err(|e| damaged(&name, e.to_string()))?;
                let found = file.metadata().map_err(|e| damaged(&name, e.to_string()))?.len();
                if found != size {
                    return Err(damaged(
                        &name,
                        format!("it has {found} bytes, the record says {size}"),
                    ));
                }
                let digest = crc_fast::Digest::new(CrcAlgorithm::Crc64GoIso);
                Source::File(Box::new(Stored {
                    name,
                    file,
                    left: size,
                    crc: digest,
                    expected: crc,
                }))
            }
        };
        Ok(())
    }
}

impl Read for Reassembler<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        loop {
            match &mut self.now {
                Source::End => return Ok(0),
                Source::Segment(bytes) => {
                    let n = bytes.read(out)?;
                    if n > 0 || out.is_empty() {
                        return Ok(n);
                    }
                }
                Source::File(stored) => {
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

impl Stored {
    /// Reads on; 0 when the file is read whole and has the recorded checksum.
    fn read(&mut self, out: &mut [u8]) -> Result<usize, LayerError> {
        if self.left == 0 {
            if Some(self.crc.finalize()) != self.expected {
                return Err(damaged(&self.name, "its checksum is not the recorded one".to_owned()));
            }
            return Ok(0);
        }
        let wanted = out.len().min(usize::try_from(self.left).unwrap_or(usize::MAX));
        let n =
            self.file.read(&mut out[..wanted]).map_err(|e| damaged(&self.name, e.to_string()))?;
        if n == 0 {
            return Err(damaged(&self.name, "it became shorter".to_owned()));
        }
        self.crc.update(&out[..n]);
        self.left -= n as u64;
        Ok(n)
    }
}

/// Checks that a stored layer still gives the tar with the digest `diff_id`.
///
/// # Errors
/// [`LayerError::Damaged`] names the first file that differs, or the whole layer.
pub fn verify(tar_split: File, diff: &DiffDir, diff_id: DiffId) -> Result<(), LayerError> {
    let mut source = Reassembler::new(tar_split, diff);
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    loop {
        let n =
            source.read(&mut buffer).map_err(|e| LayerError::from_io(e, LayerError::TarSplit))?;
        if n == 0 {
            break;
        }
        hasher.update(&buffer[..n]);
    }
    let actual = hasher.finish();
    if actual != diff_id.digest() {
        return Err(damaged(b"/", format!("the whole is {actual}, expected {diff_id}")));
    }
    Ok(())
}

fn damaged(name: &[u8], why: String) -> LayerError {
    LayerError::Damaged { path: show(name), why }
}
