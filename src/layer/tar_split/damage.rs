//! The damaged files of a stored layer.

use std::fs::File;
use std::io::{self, Read};

use crc_fast::CrcAlgorithm;

use super::line::Line;
use super::reader::MetadataReader;
use crate::layer::LayerError;
use crate::layer::error::show;
use crate::layer::tar::path;
use crate::overlay::DiffDir;

/// A file of a layer that does not have the recorded content.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DamagedFile {
    /// Its name in the archive, escaped.
    pub path: String,
    /// What is wrong with it.
    pub why: String,
}

/// Compares all files with data with the metadata `tar_split`. It does not stop at the first one
/// that differs, as [`verify`](super::assemble::verify) does, and does not compute the diff ID.
///
/// # Errors
/// [`LayerError::TarSplit`] if the metadata cannot be read, [`LayerError::Write`] if this user may
/// not read a file.
pub fn damaged_files(tar_split: File, diff: &DiffDir) -> Result<Vec<DamagedFile>, LayerError> {
    let mut lines = MetadataReader::new(tar_split);
    let mut found = Vec::new();
    let mut buffer = vec![0; 256 << 10];
    while let Some(line) = lines.next()? {
        let Line::Entry { name, size: size @ 1.., crc, .. } = line else { continue };
        let cleaned = path::clean(&name, usize::MAX)?.path;
        let why = match compare(diff, &cleaned, size, crc, &mut buffer) {
            Ok(None) => continue,
            Ok(Some(why)) => why,
            Err(source) if source.kind() == io::ErrorKind::PermissionDenied => {
                return Err(LayerError::Write { op: "read", path: show(&name), source });
            }
            Err(e) => e.to_string(),
        };
        found.push(DamagedFile { path: show(&cleaned), why });
    }
    Ok(found)
}

fn compare(
    diff: &DiffDir,
    path: &[u8],
    size: u64,
    expected: Option<u64>,
    buffer: &mut [u8],
) -> io::Result<Option<String>> {
    let mut file = diff.open_file(path)?;
    let found = file.metadata()?.len();
    if found != size {
        return Ok(Some(format!("it has {found} bytes, the tar-split metadata says {size}")));
    }
    let mut crc = crc_fast::Digest::new(CrcAlgorithm::Crc64GoIso);
    loop {
        match file.read(buffer)? {
            0 => break,
            n => crc.update(&buffer[..n]),
        }
    }
    let same = Some(crc.finalize()) == expected;
    Ok((!same).then(|| "its checksum differs from the recorded one".to_owned()))
}
