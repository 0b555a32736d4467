//! The writer of tar-split metadata: turns the bytes of a layer's tar into lines while the layer is
//! read.
//!
//! dockerd also accepts metadata in which a segment takes the place of an entry. Entries that a
//! line cannot describe are stored raw this way.

use std::collections::HashSet;
use std::hash::{BuildHasher, RandomState};

use crc_fast::CrcAlgorithm;

use super::line::{self, SEGMENT_SIZE};
use crate::layer::LayerError;
use crate::layer::budget::METADATA_BATCH_SIZE;
use crate::layer::tar::reader::RawSink;

/// Takes batches of whole lines.
pub type LineSink = Box<dyn FnMut(Vec<u8>) -> Result<(), LayerError> + Send>;

/// Writes the metadata of one layer.
pub struct MetadataWriter {
    sink: LineSink,
    /// Lines for the next batch.
    lines: Vec<u8>,
    /// Bytes of the next segment.
    segment: Vec<u8>,
    position: u64,
    /// The hashes of all names that have a line.
    names: HashSet<u64>,
    hash: RandomState,
    repeated: HashSet<u64>,
    crc: crc_fast::Digest,
    /// Whether the current entry is stored raw.
    stored_raw: bool,
}

/// The hashes of names that may have more than one line.
#[derive(Default)]
pub struct RepeatedNames {
    hashes: HashSet<u64>,
    hash: RandomState,
}

impl RepeatedNames {
    /// Whether every name is unique.
    pub fn is_empty(&self) -> bool {
        self.hashes.is_empty()
    }

    /// Whether the clean `name` may have more than one line. A hash collision is a false positive,
    /// so that the caller compares whole names.
    pub fn contains(&self, name: &[u8]) -> bool {
        self.hashes.contains(&self.hash.hash_one(name))
    }
}

impl RawSink for MetadataWriter {
    fn raw(&mut self, mut bytes: &[u8]) -> Result<(), LayerError> {
        while self.segment.len() + bytes.len() >= SEGMENT_SIZE {
            let (now, later) = bytes.split_at(SEGMENT_SIZE - self.segment.len());
            self.segment.extend_from_slice(now);
            self.end_segment()?;
            bytes = later;
        }
        self.segment.extend_from_slice(bytes);
        Ok(())
    }
}

impl MetadataWriter {
    /// Creates a writer whose lines go to `sink`.
    pub fn new(sink: LineSink) -> Self {
        Self {
            sink,
            lines: empty_batch(),
            segment: Vec::new(),
            position: 0,
            names: HashSet::new(),
            hash: RandomState::new(),
            repeated: HashSet::new(),
            crc: crc_fast::Digest::new(CrcAlgorithm::Crc64GoIso),
            stored_raw: false,
        }
    }

    /// The position of the next line.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Begins an entry with the clean path `path`. If it is `stored_raw`, its data becomes part of
    /// a segment and it gets no line.
    ///
    /// # Errors
    /// The sink's error.
    pub fn begin(
        &mut self,
        path: &[u8],
        stored_raw: bool,
        data_size: u64,
    ) -> Result<(), LayerError> {
        self.stored_raw = stored_raw;
        if stored_raw {
            return Ok(());
        }
        let hash = self.hash.hash_one(path);
        if !self.names.insert(hash) {
            self.repeated.insert(hash);
            // dockerd refuses two lines of one name. An entry without data needs no line.
            self.stored_raw = data_size == 0;
        }
        if !self.stored_raw {
            self.end_segment()?;
        }
        Ok(())
    }

    /// Adds data of the current entry.
    ///
    /// # Errors
    /// The sink's error.
    pub fn data(&mut self, bytes: &[u8]) -> Result<(), LayerError> {
        if self.stored_raw {
            return self.raw(bytes);
        }
        self.crc.update(bytes);
        Ok(())
    }

    /// Ends the current entry, with its `name` in the archive and the `size` in its header.
    ///
    /// # Errors
    /// The sink's error.
    pub fn end(&mut self, name: &[u8], size: u64) -> Result<(), LayerError> {
        if self.stored_raw {
            return Ok(());
        }
        let crc = (size > 0).then(|| self.crc.finalize_reset());
        line::write_entry(&mut self.lines, name, size, crc, self.position);
        self.end_line()
    }

    /// Writes the raw bytes since the last line as a segment, if there are any.
    ///
    /// # Errors
    /// The sink's error.
    pub fn end_segment(&mut self) -> Result<(), LayerError> {
        if self.segment.is_empty() {
            return Ok(());
        }
        line::write_segment(&mut self.lines, &self.segment, self.position);
        self.segment.clear();
        self.end_line()
    }

    /// Ends the metadata with the empty segment that tar-split always writes last.
    ///
    /// # Errors
    /// The sink's error.
    pub fn finish(mut self) -> Result<RepeatedNames, LayerError> {
        self.end_segment()?;
        line::write_segment(&mut self.lines, b"", self.position);
        (self.sink)(std::mem::take(&mut self.lines))?;
        Ok(RepeatedNames { hashes: self.repeated, hash: self.hash })
    }

    fn end_line(&mut self) -> Result<(), LayerError> {
        self.position += 1;
        if self.lines.len() >= METADATA_BATCH_SIZE {
            (self.sink)(std::mem::replace(&mut self.lines, empty_batch()))?;
        }
        Ok(())
    }
}

/// A buffer for a batch and the line that completes it.
fn empty_batch() -> Vec<u8> {
    Vec::with_capacity(METADATA_BATCH_SIZE + 4096)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn crc_of_known_text_is_go_iso() {
        let mut crc = crc_fast::Digest::new(CrcAlgorithm::Crc64GoIso);
        crc.update(b"123456789");
        assert_eq!(crc.finalize(), 0xb90956c775a41001);
    }
}
