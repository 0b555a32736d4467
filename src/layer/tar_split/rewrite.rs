//! The second pass over the metadata of a layer whose tar repeats names or replaces files.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, BufWriter, Read, Seek};

use super::compressor::LineCompressor;
use super::line::{self, Line, SEGMENT_SIZE};
use super::overwritten::OverwrittenData;
use super::reader::MetadataReader;
use super::writer::RepeatedNames;
use crate::layer::LayerError;
use crate::layer::tar::path;

/// Rewrites the metadata in `file` so that no name has two entries and every entry's data is on
/// disk: an entry whose data was overwritten becomes segments. `scratch` is an empty file.
///
/// # Errors
/// [`LayerError::TarSplit`].
pub fn rewrite(
    file: &mut File,
    scratch: File,
    repeated: &RepeatedNames,
    overwritten: &mut OverwrittenData,
) -> Result<(), LayerError> {
    let last = last_positions(file, repeated)?;
    file.rewind().map_err(LayerError::TarSplit)?;
    let mut lines = MetadataReader::new(&*file);
    let compressor = LineCompressor::new(scratch).map_err(LayerError::TarSplit)?;
    let mut out = LineWriter { compressor, line: Vec::new(), position: 0 };
    while let Some(line) = lines.next()? {
        let (name, size, crc, position) = match line {
            Line::Segment(bytes) => {
                out.segment(&bytes)?;
                continue;
            }
            Line::Entry { name, size, crc, position } => (name, size, crc, position),
        };
        let path = path::clean(&name, usize::MAX)?.path;
        let data = if size > 0 {
            overwritten.data_of(&path, position).map_err(LayerError::TarSplit)?
        } else {
            None
        };
        match data {
            Some(data) => out.segments(data)?,
            // A later entry of the same name has the data.
            None if last.get(&path).is_some_and(|&last| last > position) => {}
            None => out.entry(&name, size, crc)?,
        }
    }
    let mut rewritten = out.compressor.finish().map_err(LayerError::TarSplit)?;
    replace(file, &mut rewritten).map_err(LayerError::TarSplit)
}

/// The position of the last entry of each name that may be repeated.
fn last_positions(
    file: &mut File,
    repeated: &RepeatedNames,
) -> Result<HashMap<Vec<u8>, u64>, LayerError> {
    file.rewind().map_err(LayerError::TarSplit)?;
    let mut last = HashMap::new();
    let mut lines = MetadataReader::new(&*file);
    while let Some(line) = lines.next()? {
        if let Line::Entry { name, position, .. } = line {
            let path = path::clean(&name, usize::MAX)?.path;
            if repeated.contains(&path) {
                last.insert(path, position);
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

/// Writes lines with consecutive positions.
struct LineWriter {
    compressor: LineCompressor,
    line: Vec<u8>,
    position: u64,
}

impl LineWriter {
    fn segment(&mut self, bytes: &[u8]) -> Result<(), LayerError> {
        self.line.clear();
        line::write_segment(&mut self.line, bytes, self.position);
        self.end_line()
    }

    fn entry(&mut self, name: &[u8], size: u64, crc: Option<u64>) -> Result<(), LayerError> {
        self.line.clear();
        line::write_entry(&mut self.line, name, size, crc, self.position);
        self.end_line()
    }

    fn segments(&mut self, mut data: impl Read) -> Result<(), LayerError> {
        let mut bytes = Vec::new();
        loop {
            bytes.clear();
            let part = data.by_ref().take(SEGMENT_SIZE as u64).read_to_end(&mut bytes);
            part.map_err(LayerError::TarSplit)?;
            if bytes.is_empty() {
                return Ok(());
            }
            self.segment(&bytes)?;
        }
    }

    fn end_line(&mut self) -> Result<(), LayerError> {
        self.position += 1;
        self.compressor.write(&self.line).map_err(LayerError::TarSplit)
    }
}
