//! Decodes zstd frame by frame, so that the memory for a frame's window is known before it is
//! allocated (RFC 8878, section 3.1.1.1).

use std::io::{self, BufRead, Read};

use zstd::stream::raw::{self, DParameter, InBuffer, Operation, OutBuffer};

use crate::layer::LayerError;

/// The binary logarithm of the largest window: 512 MiB, as in dockerd (klauspost/compress zstd,
/// `MaxWindowSize`).
const LARGEST_WINDOW_LOG: u32 = 29;

const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Asks for a window of that many bytes, more than the layer has. Returns whether the layer may have
/// it; it keeps it as long as the gate exists.
pub type WindowGate = Box<dyn FnMut(u64) -> bool + Send>;

/// A decoder of a stream of frames.
pub struct ZstdReader<R> {
    source: R,
    decoder: raw::Decoder<'static>,
    gate: WindowGate,
    /// Bytes of the largest window that the gate allowed. The decoder keeps its memory.
    allowed: u64,
    /// The beginning of the current frame, which was read to learn its window.
    header: Vec<u8>,
    /// Bytes of `header` that were decoded.
    decoded: usize,
    in_frame: bool,
}

impl<R: BufRead> ZstdReader<R> {
    /// Creates a decoder of `source`, which asks `gate` before each frame with a larger window than
    /// those before it.
    ///
    /// # Errors
    /// The decoder cannot be allocated.
    pub fn new(source: R, gate: WindowGate) -> io::Result<Self> {
        let mut decoder = raw::Decoder::new()?;
        decoder.set_parameter(DParameter::WindowLogMax(LARGEST_WINDOW_LOG))?;
        let (header, decoded, in_frame) = (Vec::new(), 0, false);
        Ok(Self { source, decoder, gate, allowed: 0, header, decoded, in_frame })
    }

    /// Returns the source at its current position.
    pub fn get_mut(&mut self) -> &mut R {
        &mut self.source
    }

    /// Reads the next frame's header up to the size of its window. Returns whether there is a
    /// frame.
    fn begin_frame(&mut self) -> io::Result<bool> {
        self.header.clear();
        self.decoded = 0;
        if !self.extend_header(MAGIC.len())? || self.header != MAGIC {
            return Ok(!self.header.is_empty());
        }
        if !self.extend_header(1)? {
            return Ok(true);
        }
        let descriptor = self.header[MAGIC.len()];
        let single_segment = descriptor & 0x20 != 0;
        let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
        let content_size = match descriptor >> 6 {
            0 => usize::from(single_segment),
            log => 1 << log,
        };
        let skipped = if single_segment { dictionary } else { 0 };
        let length = if single_segment { content_size } else { 1 };
        if !self.extend_header(skipped + length)? {
            return Ok(true);
        }
        let field = &self.header[MAGIC.len() + 1 + skipped..];
        let window = window(single_segment, field);
        if window > self.allowed {
            if !(self.gate)(window) {
                return Err(LayerError::WindowInUse(window).into_io());
            }
            self.allowed = window;
        }
        Ok(true)
    }

    /// Reads `count` more bytes of the header. Returns whether the source has as many.
    fn extend_header(&mut self, count: usize) -> io::Result<bool> {
        let read = (&mut self.source).take(count as u64).read_to_end(&mut self.header)?;
        Ok(read == count)
    }
}

/// Returns the bytes of a frame's window: those of the whole content if it is a single segment.
fn window(single_segment: bool, field: &[u8]) -> u64 {
    if single_segment {
        let size = field.iter().rev().fold(0, |size, byte| (size << 8) | u64::from(*byte));
        // Two bytes begin at 256.
        return if field.len() == 2 { size + 256 } else { size };
    }
    let byte = field.first().copied().unwrap_or_default();
    let base = 1u64 << (10 + (byte >> 3));
    base + base / 8 * u64::from(byte & 7)
}

impl<R: BufRead> Read for ZstdReader<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        if out.is_empty() {
            return Ok(0);
        }
        loop {
            if !self.in_frame && !self.begin_frame()? {
                return Ok(0);
            }
            self.in_frame = true;
            let from_header = self.decoded < self.header.len();
            let bytes = match from_header {
                true => &self.header[self.decoded..],
                false => self.source.fill_buf()?,
            };
            let is_end = bytes.is_empty();
            let (mut input, mut output) = (InBuffer::around(bytes), OutBuffer::around(out));
            let missing = self.decoder.run(&mut input, &mut output)?;
            let (read, written) = (input.pos(), output.pos());
            match from_header {
                true => self.decoded += read,
                false => self.source.consume(read),
            }
            if missing == 0 {
                self.in_frame = false;
                self.decoder.reinit()?;
            } else if is_end && written == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "incomplete frame"));
            }
            if written > 0 {
                return Ok(written);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::{Arc, Mutex};

    use super::*;

    /// Content that no small window can hold, compressed with a window of `1 << log` bytes.
    fn frame(content: &[u8], log: u32, known: bool) -> Vec<u8> {
        let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
        encoder.window_log(log).unwrap();
        encoder.set_parameter(zstd::stream::raw::CParameter::ChecksumFlag(true)).unwrap();
        if known {
            encoder.set_pledged_src_size(Some(content.len() as u64)).unwrap();
        }
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    /// What a stream decodes to, in steps of `step` bytes of its source, if no window may have more
    /// than `most` bytes, and the windows that were asked for.
    fn decode(bytes: &[u8], step: usize, most: u64) -> (io::Result<Vec<u8>>, Vec<u64>) {
        let asked = Arc::new(Mutex::new(Vec::new()));
        let windows = asked.clone();
        let gate = Box::new(move |window| {
            windows.lock().unwrap().push(window);
            window <= most
        });
        let mut reader = ZstdReader::new(io::BufReader::with_capacity(step, bytes), gate).unwrap();
        let mut out = Vec::new();
        let result = reader.read_to_end(&mut out).map(|_| out);
        let asked = asked.lock().unwrap().clone();
        (result, asked)
    }

    #[test]
    fn frames_of_every_form_decode_in_steps_of_any_size() {
        let skippable = [&[0x50, 0x2a, 0x4d, 0x18, 3, 0, 0, 0][..], b"abc"].concat();
        let text = b"some text, ".repeat(30);
        let stream = [
            frame(b"", 10, true),
            skippable,
            frame(&text, 20, true),
            frame(&text, 20, false),
            zstd::bulk::compress(&text[..200], 3).unwrap(),
            zstd::bulk::compress(&text.repeat(300), 3).unwrap(),
        ];
        let expected = [&text[..], &text, &text[..200], &text.repeat(300)].concat();
        for step in [1, 2, 7, 4096] {
            let (decoded, asked) = decode(&stream.concat(), step, 1 << 20);
            assert_eq!(decoded.unwrap(), expected, "in steps of {step}");
            assert!(asked.is_sorted() && asked.last() == Some(&(1 << 20)), "{asked:?}");
        }
        let whole = stream.concat();
        assert!(decode(&whole[..whole.len() - 1], 7, u64::MAX).0.is_err());
        assert!(decode(&[&whole[..], b"garbage"].concat(), 7, u64::MAX).0.is_err());
    }

    #[test]
    fn frame_is_decoded_only_if_the_gate_allows_its_window() {
        for log in [20, 23, 24, 27, 28, 29] {
            let small = frame(b"small", 19, false);
            let stream = [small.clone(), frame(b"large", log, false), small].concat();
            let (decoded, asked) = decode(&stream, 5, 1 << log);
            assert_eq!(decoded.unwrap(), b"smalllargesmall");
            assert_eq!(asked, [1 << 19, 1 << log], "each larger window is asked for once");
            let refused = decode(&stream, 5, (1 << log) - 1).0.unwrap_err();
            let refused = LayerError::from_io(refused, LayerError::Source);
            assert!(matches!(refused, LayerError::WindowInUse(w) if w == 1 << log), "{refused}");
        }
        // dockerd refuses it as well.
        assert!(decode(&frame(b"too large", 30, false), 5, u64::MAX).0.is_err());
    }

    #[test]
    fn frame_of_one_segment_asks_for_its_size() {
        let header = |size: u32| [&MAGIC[..], &[0xa0], &size.to_le_bytes()].concat();
        assert_eq!(decode(&header((8 << 20) + 1), 99, 8 << 20).1, [(8 << 20) + 1]);
        assert_eq!(decode(&header(300), 99, 300).1, [300]);
    }
}
