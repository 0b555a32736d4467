//! The reader of a layer's blob. Every byte read is counted and hashed, decoded or not.

use std::io::{self, BufRead, Read};

use bytes::{Buf, Bytes};

use super::digests::{BlobSpec, HashInput, HashSender};
use crate::fsutil::{self, Buffers};
use crate::layer::LayerError;
use crate::progress::Meter;

/// Reads a blob from `S`, checks its size, and sends every byte to the hashing thread, decoded or
/// not.
pub struct BlobReader<S> {
    source: S,
    spec: Option<BlobSpec>,
    meter: Option<Meter>,
    hash: HashSender,
    current: Bytes,
    count: u64,
    ended: bool,
}

impl<S: Buffers> BlobReader<S> {
    /// Creates a reader of `source` that must have the size of `spec`. Without a `spec` any size
    /// is accepted, and the bytes are not hashed.
    pub fn new(source: S, spec: Option<BlobSpec>, meter: Option<Meter>, hash: HashSender) -> Self {
        Self { source, spec, meter, hash, current: Bytes::new(), count: 0, ended: false }
    }

    /// Reads to the end, so that every byte is counted and hashed.
    ///
    /// # Errors
    /// [`LayerError::Size`], or the source's error.
    pub fn drain(&mut self) -> io::Result<()> {
        loop {
            let n = self.fill_buf()?.len();
            if n == 0 {
                return Ok(());
            }
            self.consume(n);
        }
    }

    /// Reads the next buffer into `current`.
    fn next_buffer(&mut self) -> Result<(), LayerError> {
        match self.source.next().transpose() {
            Ok(Some(read)) => self.current = read,
            Ok(None) => self.ended = true,
            Err(e) => return Err(LayerError::from_io(e, LayerError::Source)),
        }
        let n = self.current.len() as u64;
        self.count += n;
        if let Some(meter) = &mut self.meter {
            meter.add(n);
        }
        let Some(spec) = self.spec else { return Ok(()) };
        let more = self.count > spec.size;
        if more || self.ended && self.count != spec.size {
            return Err(LayerError::Size { expected: spec.size, actual: self.count, more });
        }
        let input = match self.ended {
            true => HashInput::EndOfBlob,
            false => HashInput::Compressed(self.current.clone()),
        };
        // The hashing thread ends after this reader, so sending cannot fail.
        let _ = self.hash.send(input);
        Ok(())
    }
}

impl<S: Buffers> BufRead for BlobReader<S> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.current.is_empty() && !self.ended {
            self.next_buffer().map_err(LayerError::into_io)?;
        }
        Ok(&self.current)
    }

    fn consume(&mut self, amount: usize) {
        self.current.advance(amount);
    }
}

impl<S: Buffers> Read for BlobReader<S> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        fsutil::read_buffered(self, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::Digest;
    use crate::layer::stream::digests;

    fn read(bytes: &[u8], digest_of: &[u8], size: u64) -> Result<Vec<u8>, LayerError> {
        let spec = BlobSpec { digest: Digest::of(digest_of), size };
        let source = bytes.chunks(2).map(|part| Ok(Bytes::copy_from_slice(part)));
        let (hash, input) = digests::channel();
        let mut reader = BlobReader::new(source, Some(spec), None, hash);
        let mut out = Vec::new();
        reader.read_to_end(&mut out).map_err(|e| LayerError::from_io(e, LayerError::Source))?;
        drop(reader);
        digests::hash_all(&input, Some(spec)).diff_id().map(|_| out)
    }

    #[test]
    fn blob_with_another_size_or_digest_is_an_error() {
        assert_eq!(read(b"abc", b"abc", 3).unwrap(), b"abc");
        assert!(matches!(read(b"abd", b"abc", 3), Err(LayerError::Digest { .. })));
        assert!(matches!(
            read(b"ab", b"abc", 3),
            Err(LayerError::Size { actual: 2, more: false, .. })
        ));
        assert!(matches!(
            read(b"abcd", b"abc", 3),
            Err(LayerError::Size { actual: 4, more: true, .. })
        ));
        assert!(matches!(read(b"", b"abc", 3), Err(LayerError::Size { actual: 0, .. })));
    }

    #[test]
    fn drained_bytes_are_hashed() {
        let spec = BlobSpec { digest: Digest::of(b"abcdef"), size: 6 };
        let source = [&b"abc"[..], b"", b"def"].map(|part| Ok(Bytes::from_static(part)));
        let (hash, input) = digests::channel();
        let mut reader = BlobReader::new(source.into_iter(), Some(spec), None, hash);
        let mut first = [0; 1];
        reader.read_exact(&mut first).unwrap();
        reader.drain().unwrap();
        drop(reader);
        assert!(digests::hash_all(&input, Some(spec)).diff_id().is_ok());
    }

    #[test]
    fn blob_that_is_not_read_to_its_end_has_no_diff_id() {
        let spec = BlobSpec { digest: Digest::of(b"abcdef"), size: 6 };
        let source = [Ok(Bytes::from_static(b"abcdef"))];
        let (hash, input) = digests::channel();
        let mut reader = BlobReader::new(source.into_iter(), Some(spec), None, hash);
        reader.read_exact(&mut [0; 6]).unwrap();
        drop(reader);
        let hashed = digests::hash_all(&input, Some(spec));
        assert!(hashed.check_blob().is_ok(), "an incomplete blob is not a mismatch");
        assert!(matches!(hashed.diff_id(), Err(LayerError::Cancelled)));
    }
}
