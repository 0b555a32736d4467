//! gzip (RFC 1952), one member or many: the frame here, the inflating by flate2.
//!
//! flate2 has such a reader. This one fills a whole chunk with each call of the inflater,
//! and has the CRC from the same vectorised code as tar-split's: together a tenth of the
//! time of a pull.

use std::io::{self, BufRead, Read};

use crc_fast::CrcAlgorithm;
use flate2::{Decompress, FlushDecompress, Status};

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
    inflate: Decompress,
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
        Self { source, inflate: Decompress::new(false), crc, length: 0, state: State::Start }
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

    fn trailer(&mut self) -> io::Result<()> {
        let mut trailer = [0; 8];
        self.source.read_exact(&mut trailer)?;
        let [a, b, c, d, e, f, g, h] = trailer;
        let crc = u64::from(u32::from_le_bytes([a, b, c, d]));
        if crc != self.crc.finalize_reset() {
            return Err(invalid("the checksum does not match"));
        }
        if u32::from_le_bytes([e, f, g, h]) != self.length {
            return Err(invalid("the length does not match"));
        }
        self.inflate.reset(false);
        self.length = 0;
        Ok(())
    }

    /// Inflates into `out`; whether the member is over, and the bytes made.
    fn data(&mut self, out: &mut [u8]) -> io::Result<(bool, usize)> {
        let input = self.source.fill_buf()?;
        if input.is_empty() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (used, made) = (self.inflate.total_in(), self.inflate.total_out());
        let status = self
            .inflate
            .decompress(input, out, FlushDecompress::None)
            .map_err(|e| invalid(&e.to_string()))?;
        let used = (self.inflate.total_in() - used) as usize;
        let made = (self.inflate.total_out() - made) as usize;
        self.source.consume(used);
        self.crc.update(&out[..made]);
        // The trailer holds the length modulo 2^32.
        self.length = self.length.wrapping_add(made as u32);
        Ok((status == Status::StreamEnd, made))
    }
}

impl<R: BufRead> Read for GzipReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            match self.state {
                State::End => return Ok(0),
                State::Between if self.source.fill_buf()?.first() != Some(&0x1f) => {
                    self.state = State::End;
                }
                State::Start | State::Between => {
                    self.header()?;
                    self.state = State::Data;
                }
                State::Data => {
                    let (over, made) = self.data(out)?;
                    if over {
                        self.trailer()?;
                        self.state = State::Between;
                    }
                    if made > 0 {
                        return Ok(made);
                    }
                }
            }
        }
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
        let mut out = Vec::new();
        GzipReader::new(BufReader::with_capacity(buffer, bytes)).read_to_end(&mut out).map(|_| out)
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
