//! The decoders of a layer, chosen by its first bytes.
//!
//! The media type does not matter: Docker decides by the first bytes too, and images with a wrong
//! media type exist (moby pkg/archive `DetectCompression`).

use std::io::{self, BufRead, Cursor, Read};
use std::ops::Range;

use inflate::GzipReader;

use super::zstd_reader::{WindowGate, ZstdReader};
use crate::layer::LayerError;

const LONGEST_MAGIC: usize = 6;

/// A layer's compression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// A plain tar.
    None,
    /// RFC 1952, one member or many.
    Gzip,
    /// RFC 8878, one frame or many.
    Zstd,
}

impl Compression {
    /// Detects the compression by the stream's first bytes.
    ///
    /// # Errors
    /// [`LayerError::Compression`] for one that is known and not supported.
    pub fn detect(head: &[u8]) -> Result<Self, LayerError> {
        // 0x184D2A50..5F little endian: a skippable frame, which zstd streams may begin with.
        let skippable =
            head.len() >= 4 && head[0] & 0xf0 == 0x50 && head[1..4] == [0x2a, 0x4d, 0x18];
        match head {
            [0x1f, 0x8b, ..] => Ok(Self::Gzip),
            [0x28, 0xb5, 0x2f, 0xfd, ..] => Ok(Self::Zstd),
            _ if skippable => Ok(Self::Zstd),
            [b'B', b'Z', b'h', ..] => Err(LayerError::Compression("bzip2")),
            [0xfd, b'7', b'z', b'X', b'Z', 0] => Err(LayerError::Compression("xz")),
            _ => Ok(Self::None),
        }
    }

    /// The name for messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// Decodes a stream of one compression.
pub enum Decoder<R: BufRead> {
    /// Copies the bytes.
    None(Peeked<R>),
    /// Decodes gzip.
    Gzip(Box<GzipReader<Peeked<R>>>),
    /// Decodes zstd.
    Zstd(Box<ZstdReader<Peeked<R>>>),
}

impl<R: BufRead> Decoder<R> {
    /// Creates the decoder for the compression that the first bytes of `source` show. It asks
    /// `gate` for the windows of zstd.
    ///
    /// # Errors
    /// [`LayerError::Compression`], or the source's error.
    pub fn new(mut source: R, gate: WindowGate) -> Result<Self, LayerError> {
        let mut head = Vec::with_capacity(LONGEST_MAGIC);
        (&mut source)
            .take(LONGEST_MAGIC as u64)
            .read_to_end(&mut head)
            .map_err(|e| LayerError::from_io(e, LayerError::Source))?;
        let kind = Compression::detect(&head)?;
        let source = Peeked { head: Cursor::new(head), rest: source };
        Ok(match kind {
            Compression::None => Self::None(source),
            Compression::Gzip => Self::Gzip(Box::new(GzipReader::new(source))),
            Compression::Zstd => {
                let reader = ZstdReader::new(source, gate).map_err(LayerError::Source)?;
                Self::Zstd(Box::new(reader))
            }
        })
    }

    /// Creates a decoder that copies `source`, whatever its first bytes are.
    pub fn plain(source: R) -> Self {
        Self::None(Peeked { head: Cursor::default(), rest: source })
    }

    /// Decodes into `buffer` and returns where in it the bytes are. The range is empty only at
    /// the end of the stream.
    ///
    /// # Errors
    /// The source's error, or the decoder's.
    pub fn fill(&mut self, buffer: &mut [u8]) -> io::Result<Range<usize>> {
        match self {
            Self::None(reader) => read_full(reader, buffer),
            Self::Gzip(reader) => reader.fill(buffer),
            Self::Zstd(reader) => read_full(reader, buffer),
        }
    }

    /// The compression that it decodes.
    pub fn compression(&self) -> Compression {
        match self {
            Self::None(_) => Compression::None,
            Self::Gzip(_) => Compression::Gzip,
            Self::Zstd(_) => Compression::Zstd,
        }
    }

    /// The source that it reads, at its current position.
    pub fn source(&mut self) -> &mut R {
        match self {
            Self::None(peeked) => &mut peeked.rest,
            Self::Gzip(reader) => &mut reader.get_mut().rest,
            Self::Zstd(reader) => &mut reader.get_mut().rest,
        }
    }
}

fn read_full(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<Range<usize>> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..])? {
            0 => break,
            n => filled += n,
        }
    }
    Ok(0..filled)
}

/// A reader whose first bytes were read to detect the compression.
pub struct Peeked<R> {
    head: Cursor<Vec<u8>>,
    rest: R,
}

impl<R: BufRead> BufRead for Peeked<R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        if (self.head.position() as usize) < self.head.get_ref().len() {
            return self.head.fill_buf();
        }
        self.rest.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        if (self.head.position() as usize) < self.head.get_ref().len() {
            return self.head.consume(amount);
        }
        self.rest.consume(amount);
    }
}

impl<R: BufRead> Read for Peeked<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        crate::fsutil::read_buffered(self, out)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::layer::budget::DECODER_OVERHEAD;

    fn decode(bytes: &[u8]) -> Result<Vec<u8>, LayerError> {
        let mut decoder = Decoder::new(bytes, Box::new(|_| true))?;
        let mut out = Vec::new();
        let mut buffer = vec![0; DECODER_OVERHEAD + 100];
        loop {
            match decoder.fill(&mut buffer).map_err(LayerError::Source)? {
                filled if filled.is_empty() => return Ok(out),
                filled => out.extend_from_slice(&buffer[filled]),
            }
        }
    }

    fn gzip(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn compression_is_detected_by_the_first_bytes() {
        assert_eq!(decode(b"plain").unwrap(), b"plain");
        assert_eq!(decode(b"").unwrap(), b"");
        assert_eq!(decode(&gzip(b"zipped")).unwrap(), b"zipped");
        assert_eq!(decode(&zstd::encode_all(&b"zstd"[..], 1).unwrap()).unwrap(), b"zstd");
        assert!(matches!(decode(b"BZh91AY"), Err(LayerError::Compression("bzip2"))));
        assert!(matches!(decode(b"\xfd7zXZ\0"), Err(LayerError::Compression("xz"))));
    }

    #[test]
    fn gzip_of_several_members_is_one_stream() {
        let two = [gzip(b"one "), gzip(b"two")].concat();
        assert_eq!(decode(&two).unwrap(), b"one two");
    }

    #[test]
    fn data_after_the_last_gzip_member_is_ignored() {
        for tail in [&b"\0"[..], &[0; 600], b"garbage"] {
            let padded = [&gzip(b"one "), &gzip(b"two")[..], tail].concat();
            assert_eq!(decode(&padded).unwrap(), b"one two");
        }
        let cut = &gzip(b"three")[..9];
        assert!(decode(&[&gzip(b"one "), cut].concat()).is_err());
    }
}
