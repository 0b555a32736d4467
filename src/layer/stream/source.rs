//! What a blob must be, and the reader that counts its bytes and has them hashed.

use std::io::{self, BufRead, Read};

use bytes::{Buf, Bytes};

use super::digests::{Handed, HashSender};
use crate::digest::Digest;
use crate::fsutil::{self, Runs};
use crate::layer::LayerError;
use crate::progress::Meter;

/// What a blob must be.
#[derive(Debug, Clone, Copy)]
pub struct BlobSpec {
    /// The sha256 of the bytes as served.
    pub digest: Digest,
    /// Their number.
    pub size: u64,
}

impl BlobSpec {
    /// Whether `actual` is the digest that was promised.
    ///
    /// # Errors
    /// [`LayerError::Digest`].
    pub fn check(&self, actual: Digest) -> Result<(), LayerError> {
        if actual == self.digest {
            return Ok(());
        }
        Err(LayerError::Digest { expected: self.digest, actual })
    }
}

/// Reads what `S` brings, which must be as many bytes as `spec` says, and hands all of it to
/// the thread that hashes, whether it is used or not.
pub struct BlobReader<S> {
    source: S,
    spec: Option<BlobSpec>,
    meter: Option<Meter>,
    hash: HashSender,
    current: Bytes,
    count: u64,
    ended: bool,
}

impl<S: Runs> BlobReader<S> {
    /// Counts the bytes of `source` against `spec`. Without one they may be any number, and
    /// are not hashed.
    pub fn new(source: S, spec: Option<BlobSpec>, meter: Option<Meter>, hash: HashSender) -> Self {
        Self { source, spec, meter, hash, current: Bytes::new(), count: 0, ended: false }
    }

    /// Reads the rest, to have it hashed.
    ///
    /// # Errors
    /// [`LayerError::Size`], or the source's own.
    pub fn drain(&mut self) -> io::Result<()> {
        loop {
            let n = self.fill_buf()?.len();
            if n == 0 {
                return Ok(());
            }
            self.consume(n);
        }
    }

    /// Lets `current` be what comes next.
    fn next(&mut self) -> Result<(), LayerError> {
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
        // Who hashes ends after this reader.
        let _ = self.hash.send(Handed::Read(self.current.clone()));
        Ok(())
    }
}

impl<S: Runs> BufRead for BlobReader<S> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        while self.current.is_empty() && !self.ended {
            self.next().map_err(LayerError::into_io)?;
        }
        Ok(&self.current)
    }

    fn consume(&mut self, amount: usize) {
        self.current.advance(amount);
    }
}

impl<S: Runs> Read for BlobReader<S> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        fsutil::read_buffered(self, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layer::stream::digests;

    fn read(bytes: &[u8], digest_of: &[u8], size: u64) -> Result<Vec<u8>, LayerError> {
        let spec = BlobSpec { digest: Digest::of(digest_of), size };
        let source = bytes.chunks(2).map(|part| Ok(Bytes::copy_from_slice(part)));
        let (hash, handed) = digests::channel();
        let mut reader = BlobReader::new(source, Some(spec), None, hash);
        let mut out = Vec::new();
        reader.read_to_end(&mut out).map_err(|e| LayerError::from_io(e, LayerError::Source))?;
        drop(reader);
        spec.check(digests::hash_all(&handed).blob).map(|()| out)
    }

    #[test]
    fn only_the_right_bytes_end_well() {
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
    fn what_is_left_unread_is_hashed_too() {
        let spec = BlobSpec { digest: Digest::of(b"abcdef"), size: 6 };
        let source = [&b"abc"[..], b"", b"def"].map(|part| Ok(Bytes::from_static(part)));
        let (hash, handed) = digests::channel();
        let mut reader = BlobReader::new(source.into_iter(), Some(spec), None, hash);
        let mut first = [0; 1];
        reader.read_exact(&mut first).unwrap();
        reader.drain().unwrap();
        drop(reader);
        assert!(spec.check(digests::hash_all(&handed).blob).is_ok());
    }
}
