//! Verification as a reader that nobody can forget: it ends well only if all bytes came
//! and were the right ones.

use std::io::{self, BufRead, Read};

use super::LayerError;
use crate::digest::{Digest, Hasher};
use crate::progress::Meter;

/// What a blob must be.
#[derive(Debug, Clone, Copy)]
pub struct BlobSpec {
    /// The sha256 of the bytes as served.
    pub digest: Digest,
    /// Their number.
    pub size: u64,
}

/// Passes bytes through, and fails at their end if they are not what `spec` says.
pub struct VerifyReader<R> {
    inner: R,
    spec: Option<BlobSpec>,
    hasher: Hasher,
    count: u64,
    ended: bool,
    meter: Option<Meter>,
}

impl<R: BufRead> VerifyReader<R> {
    /// Verifies `inner` against `spec`; without one, only counts.
    pub fn new(inner: R, spec: Option<BlobSpec>, meter: Option<Meter>) -> Self {
        Self { inner, spec, hasher: Hasher::new(), count: 0, ended: false, meter }
    }

    /// Reads what is left, for its verdict alone.
    ///
    /// # Errors
    /// [`LayerError::Digest`], [`LayerError::Size`], or the source's own.
    pub fn drain(&mut self) -> io::Result<()> {
        loop {
            let n = self.fill_buf()?.len();
            if n == 0 {
                return Ok(());
            }
            self.consume(n);
        }
    }

    fn verdict(&mut self) -> Result<(), LayerError> {
        let Some(spec) = self.spec else { return Ok(()) };
        if self.count != spec.size {
            return Err(LayerError::Size { expected: spec.size, actual: self.count, more: false });
        }
        let actual = std::mem::take(&mut self.hasher).finish();
        if actual != spec.digest {
            return Err(LayerError::Digest { expected: spec.digest, actual });
        }
        Ok(())
    }
}

/// The source's failures are told from the decoder's by what they are wrapped in.
fn source(error: io::Error) -> io::Error {
    LayerError::from_io(error, LayerError::Source).into_io()
}

impl<R: BufRead> BufRead for VerifyReader<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if !self.ended && self.inner.fill_buf().map_err(source)?.is_empty() {
            self.verdict().map_err(LayerError::into_io)?;
            self.ended = true;
        }
        if self.ended {
            return Ok(&[]);
        }
        let buffer = self.inner.fill_buf()?;
        if let Some(spec) = self.spec {
            let seen = self.count + buffer.len() as u64;
            if seen > spec.size {
                let lie = LayerError::Size { expected: spec.size, actual: seen, more: true };
                return Err(lie.into_io());
            }
        }
        Ok(buffer)
    }

    fn consume(&mut self, amount: usize) {
        if amount == 0 {
            return;
        }
        // The bytes are still in the inner buffer: asking for them again reads nothing.
        if let Ok(buffer) = self.inner.fill_buf()
            && self.spec.is_some()
        {
            self.hasher.update(&buffer[..amount]);
        }
        self.inner.consume(amount);
        self.count += amount as u64;
        if let Some(meter) = &mut self.meter {
            meter.add(amount as u64);
        }
    }
}

impl<R: BufRead> Read for VerifyReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        crate::fsutil::read_buffered(self, out)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8], digest_of: &[u8], size: u64) -> Result<Vec<u8>, LayerError> {
        let spec = BlobSpec { digest: Digest::of(digest_of), size };
        let mut out = Vec::new();
        VerifyReader::new(bytes, Some(spec), None)
            .read_to_end(&mut out)
            .map(|_| out)
            .map_err(|e| LayerError::from_io(e, LayerError::Source))
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
}
