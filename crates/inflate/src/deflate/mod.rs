//! DEFLATE (RFC 1951): a decoder that takes its input in parts of any size and writes into a
//! buffer that begins with its own history.

mod bits;
mod codes;
mod symbols;
#[cfg(test)]
mod tests;
mod window;

use bits::Bits;
use codes::{
    CODE_LENGTH_SYMBOLS, CODE_LENGTHS, CodeLengths, DISTANCE_SYMBOLS, DISTANCES, Distances,
    LITLEN_SYMBOLS, LITLENS, Litlens, SPECIAL,
};
use symbols::Symbols;
pub use window::Window;

use crate::InvalidData;

/// Why decoding paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// All input was taken, and the stream continues.
    Input,
    /// The buffer may be too small for another match.
    BufferFull,
    /// The stream ended. Carries the eight bytes after it: the bit buffer may have taken them
    /// from the input already.
    End([u8; 8]),
}

/// The state of one stream's decoder.
pub struct Inflate {
    bits: Bits,
    state: State,
    last: bool,
    litlens: Litlens,
    distances: Distances,
    code_lengths: CodeLengths,
    /// The code lengths of both alphabets, as far as they were read.
    lengths: [u8; LITLENS + DISTANCES],
}

#[derive(Clone, Copy)]
enum State {
    /// Before the three bits that begin a block.
    Block,
    /// Before the length of a stored block.
    StoredLength,
    /// In a stored block.
    Stored { left: usize },
    /// Before the three counts of a dynamic block.
    Counts,
    /// Before a length of the code that encodes the other codes' lengths.
    CodeLengths { counts: Counts, at: usize },
    /// Before a length of the other codes.
    Lengths { counts: Counts, at: usize },
    /// Before a symbol.
    Symbols,
    /// Before the first half of the eight bytes after the stream.
    Trailer,
    /// Before their second half.
    TrailerEnd { first: u64 },
}

/// The numbers of code lengths that a dynamic block declares.
#[derive(Clone, Copy)]
struct Counts {
    litlens: usize,
    distances: usize,
    code_lengths: usize,
}

/// The order of the code length alphabet's own lengths (RFC 1951, 3.2.7).
const CODE_LENGTH_ORDER: [usize; CODE_LENGTHS] =
    [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// The symbol that ends a block.
const END_OF_BLOCK: usize = 256;

impl Default for Inflate {
    fn default() -> Self {
        Self {
            bits: Bits::default(),
            state: State::Block,
            last: false,
            litlens: Litlens::default(),
            distances: Distances::default(),
            code_lengths: CodeLengths::default(),
            lengths: [0; LITLENS + DISTANCES],
        }
    }
}

impl Inflate {
    /// Decodes from the front of `input` to the end of `window` until one of them is exhausted.
    /// After the end of a stream, the next call begins another one.
    ///
    /// # Errors
    /// The stream is invalid. It must not be continued.
    pub fn run(
        &mut self,
        input: &mut &[u8],
        window: &mut Window<'_>,
    ) -> Result<Pause, InvalidData> {
        loop {
            if !self.bits.ensure(self.needed(), input) {
                return Ok(Pause::Input);
            }
            self.state = match self.state {
                State::Block if self.last => self.align(State::Trailer),
                State::Block => self.block()?,
                State::StoredLength => self.stored_length()?,
                State::Stored { left: 0 } => State::Block,
                State::Stored { left } => {
                    let left = left - self.stored(left, input, window);
                    if left > 0 {
                        self.state = State::Stored { left };
                        return Ok(if input.is_empty() { Pause::Input } else { Pause::BufferFull });
                    }
                    State::Block
                }
                State::Counts => self.counts()?,
                State::CodeLengths { counts, at } => self.code_length(counts, at)?,
                State::Lengths { counts, at } => self.length(counts, at)?,
                State::Symbols => {
                    if let Some(pause) = self.symbols(input, window)? {
                        return Ok(pause);
                    }
                    State::Block
                }
                State::Trailer => State::TrailerEnd { first: self.bits.take(32) },
                State::TrailerEnd { first } => {
                    let bytes = (self.bits.take(32) << 32 | first).to_le_bytes();
                    (self.state, self.last) = (State::Block, false);
                    return Ok(Pause::End(bytes));
                }
            }
        }
    }

    /// Returns the most bits that the state's next step takes, or 0 if the step checks itself.
    /// Asking for more than a step takes is safe, as eight bytes follow every stream.
    fn needed(&self) -> u32 {
        match self.state {
            State::Block if self.last => 0,
            State::Block => 3,
            State::Counts => 14,
            State::CodeLengths { .. } => 3,
            State::Lengths { .. } => 14,
            State::StoredLength | State::Trailer | State::TrailerEnd { .. } => 32,
            State::Stored { .. } | State::Symbols => 0,
        }
    }

    fn align(&mut self, then: State) -> State {
        self.bits.skip(self.bits.count % 8);
        then
    }

    fn block(&mut self) -> Result<State, InvalidData> {
        self.last = self.bits.take(1) == 1;
        match self.bits.take(2) {
            0 => Ok(self.align(State::StoredLength)),
            1 => {
                self.fixed()?;
                Ok(State::Symbols)
            }
            2 => Ok(State::Counts),
            _ => Err(InvalidData("an invalid block type")),
        }
    }

    fn stored_length(&mut self) -> Result<State, InvalidData> {
        let (length, inverse) = (self.bits.take(16), self.bits.take(16));
        if length != inverse ^ 0xffff {
            return Err(InvalidData("a stored block whose length does not match its complement"));
        }
        Ok(State::Stored { left: length as usize })
    }

    /// Copies up to `left` bytes of a stored block. Returns their number.
    fn stored(&mut self, left: usize, input: &mut &[u8], window: &mut Window<'_>) -> usize {
        let free = &mut window.bytes[window.end..];
        let left = left.min(free.len());
        let mut copied = 0;
        // The bit buffer holds the first of them.
        while copied < left && self.bits.count > 0 {
            free[copied] = self.bits.take(8) as u8;
            copied += 1;
        }
        let (bytes, rest) = input.split_at(input.len().min(left - copied));
        free[copied..copied + bytes.len()].copy_from_slice(bytes);
        copied += bytes.len();
        *input = rest;
        window.end += copied;
        copied
    }

    fn fixed(&mut self) -> Result<(), InvalidData> {
        let lengths = &mut self.lengths[..LITLENS];
        lengths[..144].fill(8);
        lengths[144..256].fill(9);
        lengths[256..280].fill(7);
        lengths[280..].fill(8);
        self.litlens.build(lengths, &LITLEN_SYMBOLS)?;
        self.distances.build(&[5; DISTANCES], &DISTANCE_SYMBOLS)
    }

    fn counts(&mut self) -> Result<State, InvalidData> {
        let litlens = self.bits.take(5) as usize + 257;
        let distances = self.bits.take(5) as usize + 1;
        let code_lengths = self.bits.take(4) as usize + 4;
        // The last two symbols of each alphabet are invalid.
        if litlens > LITLENS - 2 || distances > DISTANCES - 2 {
            return Err(InvalidData("too many code lengths"));
        }
        self.lengths[..CODE_LENGTHS].fill(0);
        Ok(State::CodeLengths { counts: Counts { litlens, distances, code_lengths }, at: 0 })
    }

    fn code_length(&mut self, counts: Counts, at: usize) -> Result<State, InvalidData> {
        self.lengths[CODE_LENGTH_ORDER[at]] = self.bits.take(3) as u8;
        if at + 1 < counts.code_lengths {
            return Ok(State::CodeLengths { counts, at: at + 1 });
        }
        self.code_lengths.build(&self.lengths[..CODE_LENGTHS], &CODE_LENGTH_SYMBOLS)?;
        Ok(State::Lengths { counts, at: 0 })
    }

    /// Decodes one length, or a repetition.
    fn length(&mut self, counts: Counts, at: usize) -> Result<State, InvalidData> {
        let entry = self.code_lengths.first(self.bits.buffer);
        if entry & SPECIAL != 0 {
            return Err(InvalidData("an unassigned code"));
        }
        self.bits.skip(entry & 0xff);
        let (length, repeat) = match (entry >> 16) as u8 {
            16 if at == 0 => return Err(InvalidData("a repetition before the first code length")),
            16 => (self.lengths[at - 1], 3 + self.bits.take(2) as usize),
            17 => (0, 3 + self.bits.take(3) as usize),
            18 => (0, 11 + self.bits.take(7) as usize),
            length => (length, 1),
        };
        let all = counts.litlens + counts.distances;
        let lengths = self.lengths[..all].get_mut(at..at + repeat);
        lengths.ok_or(InvalidData("a repetition beyond the last code length"))?.fill(length);
        if at + repeat < all {
            return Ok(State::Lengths { counts, at: at + repeat });
        }
        if self.lengths[END_OF_BLOCK] == 0 {
            return Err(InvalidData("a block without an end symbol"));
        }
        let (litlens, distances) = self.lengths[..all].split_at(counts.litlens);
        self.litlens.build(litlens, &LITLEN_SYMBOLS)?;
        self.distances.build(distances, &DISTANCE_SYMBOLS)?;
        Ok(State::Symbols)
    }

    /// Decodes to the end of the block, unless it has to pause.
    fn symbols(
        &mut self,
        input: &mut &[u8],
        window: &mut Window<'_>,
    ) -> Result<Option<Pause>, InvalidData> {
        let symbols = Symbols { litlens: &self.litlens, distances: &self.distances };
        loop {
            if symbols.decode_fast(&mut self.bits, input, window)? {
                return Ok(None);
            }
            if !window.has_space() {
                return Ok(Some(Pause::BufferFull));
            }
            // Too close to the end of the input for `decode_fast`.
            if !self.bits.ensure(symbols::LONGEST, input) {
                return Ok(Some(Pause::Input));
            }
            if symbols.decode_one(&mut self.bits, window)? {
                return Ok(None);
            }
        }
    }
}
