//! The reader of tar-split metadata.

use std::io::{BufRead, BufReader, Read};

use flate2::bufread::MultiGzDecoder;

use super::line::Line;
use crate::layer::LayerError;

/// Reads lines of metadata in order.
pub struct MetadataReader<R> {
    lines: BufReader<MultiGzDecoder<BufReader<R>>>,
    buffer: Vec<u8>,
}

impl<R: Read> MetadataReader<R> {
    /// Reads the compressed metadata from `source`.
    pub fn new(source: R) -> Self {
        let lines = BufReader::with_capacity(64 << 10, MultiGzDecoder::new(BufReader::new(source)));
        Self { lines, buffer: Vec::new() }
    }

    /// Returns the next line, or `None` at the end.
    ///
    /// # Errors
    /// [`LayerError::TarSplit`].
    pub fn next(&mut self) -> Result<Option<Line>, LayerError> {
        loop {
            self.buffer.clear();
            if self.lines.read_until(b'\n', &mut self.buffer).map_err(LayerError::TarSplit)? == 0 {
                return Ok(None);
            }
            if !self.buffer.trim_ascii().is_empty() {
                return Line::parse(&self.buffer).map(Some).map_err(LayerError::TarSplit);
            }
        }
    }
}
