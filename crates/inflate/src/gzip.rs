//! gzip (RFC 1952), one member or several.

use std::io::{self, BufRead, Read};
use std::ops::Range;

use crc_fast::CrcAlgorithm;

use crate::InvalidData;
use crate::deflate::{Inflate, Pause, Window};

/// The flags of a header's optional parts (RFC 1952, 2.3.1).
const FHCRC: u8 = 1 << 1;
const FEXTRA: u8 = 1 << 2;
const FNAME: u8 = 1 << 3;
const FCOMMENT: u8 = 1 << 4;

/// Bytes that a buffer for [`GzipReader::fill`] needs beyond those to decode per call: the history
/// and the space that the decoder's inner loop keeps free.
pub const BUFFER_OVERHEAD: usize = Window::SIZE + Window::SLACK;

/// A reader of gzip data. Ignores what follows the last member unless it begins like another one,
/// as gzip(1) and dockerd do: some tools pad with zeros.
pub struct GzipReader<R> {
    source: R,
    inflate: Inflate,
    /// The end of the bytes decoded last, which later ones may refer to.
    history: Vec<u8>,
    crc: crc_fast::Digest,
    length: u32,
    state: State,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    /// Before the first member.
    Start,
    /// Inside a member's data.
    Data,
    /// After a member.
    Between,
    /// After the last member.
    End,
}

impl<R: BufRead> GzipReader<R> {
    /// Returns a reader of the members in `source`.
    pub fn new(source: R) -> Self {
        let crc = crc_fast::Digest::new(CrcAlgorithm::Crc32IsoHdlc);
        Self {
            source,
            inflate: Inflate::default(),
            history: Vec::with_capacity(Window::SIZE),
            crc,
            length: 0,
            state: State::Start,
        }
    }

    /// Returns the source, which may be at any position within a member.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.source
    }

    fn header(&mut self) -> io::Result<()> {
        let mut fixed = [0; 10];
        self.source.read_exact(&mut fixed)?;
        if fixed[..3] != [0x1f, 0x8b, 8] {
            return Err(InvalidData("a member does not begin with a gzip header").into());
        }
        let flags = fixed[3];
        if flags & FEXTRA != 0 {
            let mut length = [0; 2];
            self.source.read_exact(&mut length)?;
            self.skip(u64::from(u16::from_le_bytes(length)))?;
        }
        for text in [FNAME, FCOMMENT] {
            if flags & text != 0 {
                self.skip_text()?;
            }
        }
        if flags & FHCRC != 0 {
            self.skip(2)?;
        }
        Ok(())
    }

    fn skip(&mut self, count: u64) -> io::Result<()> {
        let skipped = io::copy(&mut self.source.by_ref().take(count), &mut io::sink())?;
        if skipped == count { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
    }

    fn skip_text(&mut self) -> io::Result<()> {
        loop {
            let bytes = self.source.fill_buf()?;
            if bytes.is_empty() {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let end = bytes.iter().position(|&byte| byte == 0);
            let used = end.map_or(bytes.len(), |end| end + 1);
            self.source.consume(used);
            if end.is_some() {
                return Ok(());
            }
        }
    }

    /// Decodes into `buffer` and returns the range of the decoded bytes, which is empty only at
    /// the end of the source. What precedes the range is history from earlier calls; the buffer
    /// may be another one with each call.
    ///
    /// # Errors
    /// Those of the source, [`io::ErrorKind::UnexpectedEof`] if it ends within a member, and
    /// [`InvalidData`] as [`io::ErrorKind::InvalidData`]. After an error the reader must not be
    /// used again.
    ///
    /// # Panics
    /// If `buffer` is shorter than [`BUFFER_OVERHEAD`].
    pub fn fill(&mut self, buffer: &mut [u8]) -> io::Result<Range<usize>> {
        assert!(buffer.len() >= BUFFER_OVERHEAD, "the buffer is too short to decode into");
        let start = Window::SIZE - self.history.len();
        buffer[start..Window::SIZE].copy_from_slice(&self.history);
        let mut window = Window { bytes: buffer, start, end: Window::SIZE };
        while self.state != State::End && window.has_space() {
            match self.state {
                State::Between if self.source.fill_buf()?.first() != Some(&0x1f) => {
                    self.state = State::End;
                }
                State::Start | State::Between => {
                    self.header()?;
                    window.start = window.end;
                    self.state = State::Data;
                }
                State::Data => self.data(&mut window)?,
                State::End => {}
            }
        }
        let (start, end) = (window.start, window.end);
        self.history.clear();
        self.history.extend_from_slice(&buffer[start.max(end - Window::SIZE)..end]);
        Ok(Window::SIZE..end)
    }

    /// Decodes what the source has buffered.
    fn data(&mut self, window: &mut Window<'_>) -> io::Result<()> {
        let mut input = self.source.fill_buf()?;
        let available = input.len();
        if available == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let from = window.end;
        let paused = self.inflate.run(&mut input, window);
        let used = available - input.len();
        self.source.consume(used);
        let decoded = &window.bytes[from..window.end];
        self.crc.update(decoded);
        // The trailer holds the length modulo 2^32.
        self.length = self.length.wrapping_add(decoded.len() as u32);
        match paused {
            Ok(Pause::Input | Pause::BufferFull) => Ok(()),
            Ok(Pause::End(trailer)) => self.trailer(trailer),
            Err(invalid) => Err(invalid.into()),
        }
    }

    fn trailer(&mut self, trailer: [u8; 8]) -> io::Result<()> {
        let [a, b, c, d, e, f, g, h] = trailer;
        let crc = u64::from(u32::from_le_bytes([a, b, c, d]));
        if crc != self.crc.finalize_reset() {
            return Err(InvalidData("the checksum does not match").into());
        }
        if u32::from_le_bytes([e, f, g, h]) != self.length {
            return Err(InvalidData("the length does not match").into());
        }
        self.length = 0;
        self.state = State::Between;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{BufReader, Write};

    use flate2::{Compression, GzBuilder};

    use super::*;

    fn member(bytes: &[u8]) -> Vec<u8> {
        let mut encoder = GzBuilder::new()
            .extra(vec![7; 300])
            .filename("name")
            .comment("comment")
            .write(Vec::new(), Compression::default());
        encoder.write_all(bytes).unwrap();
        encoder.finish().unwrap()
    }

    /// Reads through a source with a buffer of `size` bytes, which splits every field somewhere.
    fn read(bytes: &[u8], size: usize) -> io::Result<Vec<u8>> {
        let mut reader = GzipReader::new(BufReader::with_capacity(size, bytes));
        let mut out = Vec::new();
        let mut buffer = vec![0; Window::SIZE + 2000];
        loop {
            match reader.fill(&mut buffer)? {
                decoded if decoded.is_empty() => return Ok(out),
                decoded => out.extend_from_slice(&buffer[decoded]),
            }
        }
    }

    #[test]
    fn members_with_all_fields_any_split_decode_as_one_stream() {
        let text = b"rpull ".repeat(5000);
        let bytes = [member(&text), member(b""), member(b"end")].concat();
        for size in [1, 2, 7, 100, 1 << 20] {
            assert_eq!(read(&bytes, size).unwrap(), [&text[..], b"end"].concat(), "by {size}");
        }
    }

    #[test]
    fn cut_or_changed_member_is_an_error() {
        let bytes = member(b"some text that is long enough");
        for end in 0..bytes.len() {
            assert!(read(&bytes[..end], 64).is_err(), "cut at {end}");
        }
        for field in [bytes.len() - 1, bytes.len() - 8] {
            let mut changed = bytes.clone();
            changed[field] ^= 1;
            assert!(read(&changed, 64).is_err(), "changed at {field}");
        }
        assert!(read(&[&bytes[..], b"\x1fjunk after the member"].concat(), 64).is_err());
    }
}
