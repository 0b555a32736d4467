//! gzip (RFC 1952), one member or many. Its CRC comes from the same vectorised code as
//! tar-split's.

use std::io::{self, BufRead, Read};
use std::ops::Range;

use crc_fast::CrcAlgorithm;

use super::inflate::{Inflate, Invalid, Pause, Window};

/// The optional parts of a header (RFC 1952, 2.3.1).
const FHCRC: u8 = 1 << 1;
const FEXTRA: u8 = 1 << 2;
const FNAME: u8 = 1 << 3;
const FCOMMENT: u8 = 1 << 4;

/// Reads what `R` holds gzipped. What follows the last member and begins none is passed
/// over, as gzip(1) and dockerd do: careless tools leave zeros there, and the diff id vouches
/// for what came before.
pub struct GzipReader<R> {
    source: R,
    inflate: Inflate,
    /// The end of what was decoded last, which what comes next may repeat.
    history: Vec<u8>,
    crc: crc_fast::Digest,
    length: u32,
    state: State,
}

#[derive(Clone, Copy, PartialEq)]
enum State {
    /// Before the first member.
    Start,
    /// In a member's data.
    Data,
    /// After a member.
    Between,
    /// After the last.
    End,
}

impl<R: BufRead> GzipReader<R> {
    /// Reads from the start of `source`.
    pub fn new(source: R) -> Self {
        let crc = crc_fast::Digest::new(CrcAlgorithm::Crc32IsoHdlc);
        Self {
            source,
            inflate: Inflate::default(),
            history: Vec::with_capacity(Window::REACH),
            crc,
            length: 0,
            state: State::Start,
        }
    }

    /// The source, wherever it stands.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.source
    }

    fn header(&mut self) -> io::Result<()> {
        let mut fixed = [0; 10];
        self.source.read_exact(&mut fixed)?;
        if fixed[..3] != [0x1f, 0x8b, 8] {
            return Err(invalid("no gzip header where a member should begin"));
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

    /// Decodes into `room`, and says where in it: it begins with what was decoded before, as
    /// DEFLATE refers back to that. Nothing is decoded at the end of the source only.
    ///
    /// # Errors
    /// The source's own; else it is no gzip.
    pub fn fill(&mut self, room: &mut [u8]) -> io::Result<Range<usize>> {
        let floor = Window::REACH - self.history.len();
        room[floor..Window::REACH].copy_from_slice(&self.history);
        let mut window = Window { bytes: room, floor, end: Window::REACH };
        while self.state != State::End && window.has_room() {
            match self.state {
                State::Between if self.source.fill_buf()?.first() != Some(&0x1f) => {
                    self.state = State::End;
                }
                State::Start | State::Between => {
                    self.header()?;
                    window.floor = window.end;
                    self.state = State::Data;
                }
                State::Data => self.data(&mut window)?,
                State::End => {}
            }
        }
        let (floor, end) = (window.floor, window.end);
        self.history.clear();
        self.history.extend_from_slice(&room[floor.max(end - Window::REACH)..end]);
        Ok(Window::REACH..end)
    }

    /// Decodes what the source has at hand.
    fn data(&mut self, window: &mut Window<'_>) -> io::Result<()> {
        let mut input = self.source.fill_buf()?;
        let at_hand = input.len();
        if at_hand == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let from = window.end;
        let paused = self.inflate.run(&mut input, window);
        let used = at_hand - input.len();
        self.source.consume(used);
        let made = &window.bytes[from..window.end];
        self.crc.update(made);
        // The trailer holds the length modulo 2^32.
        self.length = self.length.wrapping_add(made.len() as u32);
        match paused {
            Ok(Pause::Input | Pause::Room) => Ok(()),
            Ok(Pause::End(trailer)) => self.trailer(trailer),
            Err(Invalid(what)) => Err(invalid(what)),
        }
    }

    fn trailer(&mut self, trailer: [u8; 8]) -> io::Result<()> {
        let [a, b, c, d, e, f, g, h] = trailer;
        let crc = u64::from(u32::from_le_bytes([a, b, c, d]));
        if crc != self.crc.finalize_reset() {
            return Err(invalid("the checksum does not match"));
        }
        if u32::from_le_bytes([e, f, g, h]) != self.length {
            return Err(invalid("the length does not match"));
        }
        self.length = 0;
        self.state = State::Between;
        Ok(())
    }
}

fn invalid(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
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

    /// Through buffers of `buffer` bytes, so that every field is cut somewhere.
    fn read(bytes: &[u8], buffer: usize) -> io::Result<Vec<u8>> {
        let mut reader = GzipReader::new(BufReader::with_capacity(buffer, bytes));
        let mut out = Vec::new();
        let mut room = vec![0; Window::REACH + 2000];
        loop {
            match reader.fill(&mut room)? {
                made if made.is_empty() => return Ok(out),
                made => out.extend_from_slice(&room[made]),
            }
        }
    }

    #[test]
    fn members_with_all_fields_are_one_stream_however_they_are_cut() {
        let text = b"rpull ".repeat(5000);
        let bytes = [member(&text), member(b""), member(b"end")].concat();
        for buffer in [1, 2, 7, 100, 1 << 20] {
            assert_eq!(read(&bytes, buffer).unwrap(), [&text[..], b"end"].concat(), "by {buffer}");
        }
    }

    #[test]
    fn what_is_cut_or_changed_is_an_error() {
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
