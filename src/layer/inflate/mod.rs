//! DEFLATE (RFC 1951), from pieces of input into buffers that begin with their own history.
//!
//! Inflating is the largest part of a pull, and all of a layer waits for it: it is ours for
//! its speed alone, which `benches/micro.rs` compares with flate2's. What would make a fault
//! here costly elsewhere does not apply: there is no unsafe code, and whatever it gets wrong,
//! the layer's diff id tells.

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

/// The stream is none: what about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Invalid(pub &'static str);

/// Why decoding paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    /// All input is taken, and more is wanted.
    Input,
    /// There is no room for another match.
    Room,
    /// The stream is over. These are the eight bytes after it: input is taken before its
    /// bits are asked for, so what follows a stream must be had from here.
    End([u8; 8]),
}

/// A stream that is being decoded.
pub struct Inflate {
    bits: Bits,
    state: State,
    last: bool,
    litlens: Litlens,
    distances: Distances,
    code_lengths: CodeLengths,
    /// The code lengths of both alphabets, as they are read.
    lengths: [u8; LITLENS + DISTANCES],
}

#[derive(Clone, Copy)]
enum State {
    /// At a block's three bits.
    Block,
    /// At a stored block's length.
    StoredLength,
    /// In a stored block.
    Stored { left: usize },
    /// At the three counts of a dynamic block.
    Counts,
    /// At one of the lengths of the code that the lengths are written in.
    CodeLengths { counts: Counts, at: usize },
    /// At one of the lengths of the other codes.
    Lengths { counts: Counts, at: usize },
    /// At a symbol.
    Symbols,
    /// At the first half of what follows the stream.
    Trailer,
    /// At its second half.
    TrailerEnd { first: u64 },
}

/// The counts of a dynamic block's codes.
#[derive(Clone, Copy)]
struct Counts {
    litlens: usize,
    distances: usize,
    code_lengths: usize,
}

/// The order in which the lengths of the code lengths' code are written (RFC 1951, 3.2.7).
const CODE_LENGTH_ORDER: [usize; CODE_LENGTHS] =
    [16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15];

/// The end of a block.
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
    /// Decodes from the front of `input` to the end of `window` until one of them has no more.
    /// After the end of a stream, the next one begins.
    ///
    /// # Errors
    /// The stream is invalid. Nothing more can be had from it.
    pub fn run(&mut self, input: &mut &[u8], window: &mut Window<'_>) -> Result<Pause, Invalid> {
        loop {
            if !self.bits.need(self.needed(), input) {
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
                        return Ok(if input.is_empty() { Pause::Input } else { Pause::Room });
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

    /// The bits that the state's next step takes at most, or 0 if it looks for itself. More
    /// than a step needs may be asked for, as eight bytes follow every stream.
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

    fn block(&mut self) -> Result<State, Invalid> {
        self.last = self.bits.take(1) == 1;
        match self.bits.take(2) {
            0 => Ok(self.align(State::StoredLength)),
            1 => {
                self.fixed()?;
                Ok(State::Symbols)
            }
            2 => Ok(State::Counts),
            _ => Err(Invalid("a block of no known type")),
        }
    }

    fn stored_length(&mut self) -> Result<State, Invalid> {
        let (length, inverse) = (self.bits.take(16), self.bits.take(16));
        if length != inverse ^ 0xffff {
            return Err(Invalid("a stored block whose length does not match its inverse"));
        }
        Ok(State::Stored { left: length as usize })
    }

    /// Copies of `left` bytes what can be had; their number.
    fn stored(&mut self, left: usize, input: &mut &[u8], window: &mut Window<'_>) -> usize {
        let room = &mut window.bytes[window.end..];
        let left = left.min(room.len());
        let mut copied = 0;
        // Bytes that wait as bits come first.
        while copied < left && self.bits.count > 0 {
            room[copied] = self.bits.take(8) as u8;
            copied += 1;
        }
        let (bytes, rest) = input.split_at(input.len().min(left - copied));
        room[copied..copied + bytes.len()].copy_from_slice(bytes);
        copied += bytes.len();
        *input = rest;
        window.end += copied;
        copied
    }

    fn fixed(&mut self) -> Result<(), Invalid> {
        let lengths = &mut self.lengths[..LITLENS];
        lengths[..144].fill(8);
        lengths[144..256].fill(9);
        lengths[256..280].fill(7);
        lengths[280..].fill(8);
        self.litlens.build(lengths, &LITLEN_SYMBOLS)?;
        self.distances.build(&[5; DISTANCES], &DISTANCE_SYMBOLS)
    }

    fn counts(&mut self) -> Result<State, Invalid> {
        let litlens = self.bits.take(5) as usize + 257;
        let distances = self.bits.take(5) as usize + 1;
        let code_lengths = self.bits.take(4) as usize + 4;
        // The last two symbols of each alphabet stand for nothing.
        if litlens > LITLENS - 2 || distances > DISTANCES - 2 {
            return Err(Invalid("a block with too many codes"));
        }
        self.lengths[..CODE_LENGTHS].fill(0);
        Ok(State::CodeLengths { counts: Counts { litlens, distances, code_lengths }, at: 0 })
    }

    fn code_length(&mut self, counts: Counts, at: usize) -> Result<State, Invalid> {
        self.lengths[CODE_LENGTH_ORDER[at]] = self.bits.take(3) as u8;
        if at + 1 < counts.code_lengths {
            return Ok(State::CodeLengths { counts, at: at + 1 });
        }
        self.code_lengths.build(&self.lengths[..CODE_LENGTHS], &CODE_LENGTH_SYMBOLS)?;
        Ok(State::Lengths { counts, at: 0 })
    }

    /// One length, or a run of them.
    fn length(&mut self, counts: Counts, at: usize) -> Result<State, Invalid> {
        let entry = self.code_lengths.first(self.bits.buffer);
        if entry & SPECIAL != 0 {
            return Err(Invalid("a code without a meaning"));
        }
        self.bits.skip(entry & 0xff);
        let (length, run) = match (entry >> 16) as u8 {
            16 if at == 0 => return Err(Invalid("a repeated length before the first")),
            16 => (self.lengths[at - 1], 3 + self.bits.take(2) as usize),
            17 => (0, 3 + self.bits.take(3) as usize),
            18 => (0, 11 + self.bits.take(7) as usize),
            length => (length, 1),
        };
        let all = counts.litlens + counts.distances;
        let lengths = self.lengths[..all].get_mut(at..at + run);
        lengths.ok_or(Invalid("more lengths than codes"))?.fill(length);
        if at + run < all {
            return Ok(State::Lengths { counts, at: at + run });
        }
        if self.lengths[END_OF_BLOCK] == 0 {
            return Err(Invalid("a block without an end"));
        }
        let (litlens, distances) = self.lengths[..all].split_at(counts.litlens);
        self.litlens.build(litlens, &LITLEN_SYMBOLS)?;
        self.distances.build(distances, &DISTANCE_SYMBOLS)?;
        Ok(State::Symbols)
    }

    /// Decodes to the end of the block, unless there is a reason to pause.
    fn symbols(
        &mut self,
        input: &mut &[u8],
        window: &mut Window<'_>,
    ) -> Result<Option<Pause>, Invalid> {
        let symbols = Symbols { litlens: &self.litlens, distances: &self.distances };
        loop {
            if symbols.many(&mut self.bits, input, window)? {
                return Ok(None);
            }
            if !window.has_room() {
                return Ok(Some(Pause::Room));
            }
            // Near the end of the input.
            if !self.bits.need(symbols::LONGEST, input) {
                return Ok(Some(Pause::Input));
            }
            if symbols.one(&mut self.bits, window)? {
                return Ok(None);
            }
        }
    }
}
