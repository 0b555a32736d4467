//! Decodes symbols to bytes. Nearly all of the time is spent in the loop of
//! [`Symbols::decode_fast`], which runs while neither the input nor the buffer can end within a
//! round and so checks neither inside one.

use super::bits::Bits;
use super::codes::{DISTANCE_BITS, Distances, END, LITERAL, LITLEN_BITS, Litlens, SPECIAL, low};
use super::window::{Window, copy};
use crate::InvalidData;

/// The most bits of a match: a length, its extra bits, a distance, its extra bits.
pub const LONGEST: u32 = LENGTH_LONGEST + DISTANCE_LONGEST;
const LENGTH_LONGEST: u32 = 15 + 5;
const DISTANCE_LONGEST: u32 = 15 + 13;
/// Bits of a distance whose code is in the main table, and of the lookup after it.
const DISTANCE_LIKELY: usize = DISTANCE_BITS + 13 + LITLEN_BITS;

/// Bytes of input that one round may read: it refills the bit buffer three times.
const ROUND: usize = 3 * 8;

/// The codes of a block.
pub struct Symbols<'a> {
    /// The literal and length table.
    pub litlens: &'a Litlens,
    /// The distance table.
    pub distances: &'a Distances,
}

impl Symbols<'_> {
    /// Decodes one symbol from at least [`LONGEST`] bits. Returns whether it ended the block.
    pub fn decode_one(
        &self,
        bits: &mut Bits,
        window: &mut Window<'_>,
    ) -> Result<bool, InvalidData> {
        let ended = self.next(bits, window);
        bits.normalize();
        ended
    }

    fn next(&self, bits: &mut Bits, window: &mut Window<'_>) -> Result<bool, InvalidData> {
        let mut entry = self.litlens.first(bits.buffer);
        let mut before = skip(bits, entry);
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
        let distance = self.distance(bits, window.end - window.start)?;
        copy(window.bytes, window.end, distance, length);
        window.end += length;
        Ok(false)
    }

    /// Decodes while input and buffer suffice for another round. Returns whether the block ended.
    #[inline(never)]
    pub fn decode_fast(
        &self,
        bits: &mut Bits,
        input: &mut &[u8],
        window: &mut Window<'_>,
    ) -> Result<bool, InvalidData> {
        if input.len() < ROUND {
            return Ok(false);
        }
        // Local copies, because values behind a reference are not kept in registers.
        let (mut here, mut rest) = (*bits, *input);
        let (mut to, start) = (window.end, window.start);
        let out = &mut *window.bytes;
        let last_start = out.len().saturating_sub(Window::SLACK);
        here.refill(&mut rest);
        let mut entry = self.litlens.first(here.buffer);
        let mut ended = false;
        // Each round begins with at least 56 bits, and with `entry` looked up for the first of
        // them. The lookup for the next round comes as early as possible, before the refill and
        // before a match is copied, because it depends on neither.
        while rest.len() >= ROUND && to <= last_start {
            let mut before = skip(&mut here, entry);
            // 56 bits suffice for three literals of the main table.
            for _ in 0..2 {
                if entry & LITERAL == 0 {
                    break;
                }
                put(out, &mut to, entry);
                entry = self.litlens.first(here.buffer);
                before = skip(&mut here, entry);
            }
            if entry & SPECIAL != 0 {
                (entry, before) = self.litlen(entry, before, &mut here)?;
                if entry & END != 0 {
                    ended = true;
                    break;
                }
            }
            if entry & LITERAL != 0 {
                put(out, &mut to, entry);
                entry = self.litlens.first(here.buffer);
                here.refill(&mut rest);
                continue;
            }
            let length = value(entry, before);
            if !here.has(DISTANCE_LIKELY) {
                here.refill(&mut rest);
            }
            let distance = self.distance(&mut here, to - start)?;
            // Only after a distance whose code is in a subtable.
            if !here.has(LITLEN_BITS) {
                here.refill(&mut rest);
            }
            entry = self.litlens.first(here.buffer);
            here.refill(&mut rest);
            copy(out, to, distance, length);
            to += length;
        }
        here.normalize();
        (*bits, *input) = (here, rest);
        window.end = to;
        Ok(ended)
    }

    /// Resolves the special `entry`, whose bits were skipped already: the end of the block, or a
    /// literal or length in a subtable. Also returns the bit buffer before the entry returned.
    #[inline(always)]
    fn litlen(&self, entry: u32, before: u64, bits: &mut Bits) -> Result<(u32, u64), InvalidData> {
        if entry & END != 0 {
            return Ok((entry, before));
        }
        let entry = self.litlens.second(entry, bits.buffer)?;
        let before = skip(bits, entry);
        if entry & (SPECIAL | END) == SPECIAL {
            return Err(InvalidData("an invalid length symbol"));
        }
        Ok((entry, before))
    }

    /// Decodes a distance, which must not exceed `history`, the bytes decoded so far.
    #[inline(always)]
    fn distance(&self, bits: &mut Bits, history: usize) -> Result<usize, InvalidData> {
        let mut entry = self.distances.first(bits.buffer);
        let mut before = skip(bits, entry);
        if entry & SPECIAL != 0 {
            entry = self.distances.second(entry, bits.buffer)?;
            before = skip(bits, entry);
            if entry & SPECIAL != 0 {
                return Err(InvalidData("an invalid distance symbol"));
            }
        }
        let distance = value(entry, before);
        if distance > history {
            return Err(InvalidData("a distance beyond the start of the data"));
        }
        Ok(distance)
    }
}

/// Writes the literal in `entry`.
#[inline(always)]
fn put(bytes: &mut [u8], to: &mut usize, entry: u32) {
    bytes[*to] = (entry >> 16) as u8;
    *to += 1;
}

/// Skips the bits that `entry` takes. Returns the bit buffer as it was before.
#[inline(always)]
fn skip(bits: &mut Bits, entry: u32) -> u64 {
    let before = bits.buffer;
    bits.skip_entry(entry);
    before
}

/// Returns the base of `entry` plus its extra bits, which follow the code in `before`.
#[inline(always)]
fn value(entry: u32, before: u64) -> usize {
    (entry >> 16) as usize + (low(before, entry & 0xff) >> (entry >> 8 & 15)) as usize
}
