//! Symbols to bytes. [`Symbols::many`] is the loop that the time of inflating goes into; it
//! looks neither for the end of the input nor for that of the room.

use super::Invalid;
use super::bits::Bits;
use super::codes::{DISTANCE_BITS, Distances, END, LITERAL, LITLEN_BITS, Litlens, SPECIAL, low};
use super::window::{Window, copy};

/// Bits of a match at most: a length, its extra bits, a distance, its extra bits.
pub const LONGEST: u32 = LENGTH_LONGEST + DISTANCE_LONGEST;
const LENGTH_LONGEST: u32 = 15 + 5;
const DISTANCE_LONGEST: u32 = 15 + 13;
/// Bits of a distance whose code is in the first table, and of the symbol that is looked up
/// after it.
const DISTANCE_LIKELY: usize = DISTANCE_BITS + 13 + LITLEN_BITS;

/// Input that a round may look at, bytes: the bits are filled up thrice.
const ROUND: usize = 3 * 8;

/// The codes of a block.
pub struct Symbols<'a> {
    /// Literals and lengths.
    pub litlens: &'a Litlens,
    /// Distances.
    pub distances: &'a Distances,
}

impl Symbols<'_> {
    /// Decodes one symbol from at least [`LONGEST`] bits; whether it ended the block.
    pub fn one(&self, bits: &mut Bits, window: &mut Window<'_>) -> Result<bool, Invalid> {
        let over = self.next(bits, window);
        bits.tidy();
        over
    }

    fn next(&self, bits: &mut Bits, window: &mut Window<'_>) -> Result<bool, Invalid> {
        let mut entry = self.litlens.first(bits.buffer);
        let mut before = pass(bits, entry);
        if entry & SPECIAL != 0 {
            (entry, before) = self.litlen(entry, before, bits)?;
            if entry & END != 0 {
                return Ok(true);
            }
        }
        if entry & LITERAL != 0 {
            put(window.bytes, &mut window.end, entry);
            return Ok(false);
        }
        let length = value(entry, before);
        let distance = self.distance(bits, window.end - window.floor)?;
        copy(window.bytes, window.end, distance, length);
        window.end += length;
        Ok(false)
    }

    /// Decodes as long as there is input and room for another round; whether the block ended.
    #[inline(never)]
    pub fn many(
        &self,
        bits: &mut Bits,
        input: &mut &[u8],
        window: &mut Window<'_>,
    ) -> Result<bool, Invalid> {
        if input.len() < ROUND {
            return Ok(false);
        }
        // Copies, as what is behind a reference is not kept in registers.
        let (mut here, mut rest) = (*bits, *input);
        let (mut to, floor) = (window.end, window.floor);
        let out = &mut *window.bytes;
        let last_room = out.len().saturating_sub(Window::SLACK);
        here.fill(&mut rest);
        let mut entry = self.litlens.first(here.buffer);
        let mut over = false;
        // With each round, at least 56 bits are there, and `entry` is what they begin with.
        // It is looked up as early as can be: before the bits are filled up, and before a match
        // is copied, as it waits for neither.
        while rest.len() >= ROUND && to <= last_room {
            let mut before = pass(&mut here, entry);
            // Up to three literals of the first table take less bits than there are.
            for _ in 0..2 {
                if entry & LITERAL == 0 {
                    break;
                }
                put(out, &mut to, entry);
                entry = self.litlens.first(here.buffer);
                before = pass(&mut here, entry);
            }
            if entry & SPECIAL != 0 {
                (entry, before) = self.litlen(entry, before, &mut here)?;
                if entry & END != 0 {
                    over = true;
                    break;
                }
            }
            if entry & LITERAL != 0 {
                put(out, &mut to, entry);
                entry = self.litlens.first(here.buffer);
                here.fill(&mut rest);
                continue;
            }
            let length = value(entry, before);
            if !here.has(DISTANCE_LIKELY) {
                here.fill(&mut rest);
            }
            let distance = self.distance(&mut here, to - floor)?;
            // After a distance of the second table.
            if !here.has(LITLEN_BITS) {
                here.fill(&mut rest);
            }
            entry = self.litlens.first(here.buffer);
            here.fill(&mut rest);
            copy(out, to, distance, length);
            to += length;
        }
        here.tidy();
        (*bits, *input) = (here, rest);
        window.end = to;
        Ok(over)
    }

    /// What the special `entry`, whose bits are passed, and the bits after it come to: the end,
    /// or a literal or length of the second table; and the bits before that.
    #[inline(always)]
    fn litlen(&self, entry: u32, before: u64, bits: &mut Bits) -> Result<(u32, u64), Invalid> {
        if entry & END != 0 {
            return Ok((entry, before));
        }
        let entry = self.litlens.second(entry, bits.buffer)?;
        let before = pass(bits, entry);
        if entry & (SPECIAL | END) == SPECIAL {
            return Err(Invalid("a length that does not exist"));
        }
        Ok((entry, before))
    }

    /// The distance that comes next, which must be within `reach`.
    #[inline(always)]
    fn distance(&self, bits: &mut Bits, reach: usize) -> Result<usize, Invalid> {
        let mut entry = self.distances.first(bits.buffer);
        let mut before = pass(bits, entry);
        if entry & SPECIAL != 0 {
            entry = self.distances.second(entry, bits.buffer)?;
            before = pass(bits, entry);
            if entry & SPECIAL != 0 {
                return Err(Invalid("a distance that does not exist"));
            }
        }
        let distance = value(entry, before);
        if distance > reach {
            return Err(Invalid("a distance to before the beginning"));
        }
        Ok(distance)
    }
}

/// Writes the literal that `entry` is.
#[inline(always)]
fn put(bytes: &mut [u8], to: &mut usize, entry: u32) {
    bytes[*to] = (entry >> 16) as u8;
    *to += 1;
}

/// Passes over the bits that `entry` takes; the buffer as it was before.
#[inline(always)]
fn pass(bits: &mut Bits, entry: u32) -> u64 {
    let before = bits.buffer;
    bits.pass(entry);
    before
}

/// The base of `entry` and its extra bits, which `before` holds after the code.
#[inline(always)]
fn value(entry: u32, before: u64) -> usize {
    (entry >> 16) as usize + (low(before, entry & 0xff) >> (entry >> 8 & 15)) as usize
}
