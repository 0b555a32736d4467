//! Huffman codes as lookup tables. The stream's next bits are an index; the entry there has the
//! symbol, its base value, and the number of bits it takes (RFC 1951, 3.2).
//!
//! An entry is 32 bits:
//!
//! ```text
//! 31      a literal
//! 16..31  the literal; the base of a length or distance; the start of a subtable
//! 15      special: a subtable, the end of the block, or (with neither bit set) invalid
//! 14      a subtable
//! 13      the end of the block
//! 8..12   the number of bits of the code; for a subtable, of its index
//! 0..8    the number of bits of the code and its extra bits
//! ```
//!
//! A code longer than the main table's index continues in a subtable, whose entries count only
//! the remaining bits.

use crate::InvalidData;

/// The entry is a literal.
pub const LITERAL: u32 = 1 << 31;
/// The entry is neither a literal nor a length or distance.
pub const SPECIAL: u32 = 1 << 15;
/// A special entry: its value is where a subtable starts, which the next bits index.
pub const SUBTABLE: u32 = 1 << 14;
/// A special entry: the end of the block.
pub const END: u32 = 1 << 13;

/// Symbols of the literal and length alphabet, including the two that are invalid.
pub const LITLENS: usize = 288;
/// Symbols of the distance alphabet, including the two that are invalid.
pub const DISTANCES: usize = 32;
/// Symbols of the alphabet that encodes code lengths.
pub const CODE_LENGTHS: usize = 19;

/// Bits of the longest code.
const LONGEST: usize = 15;

/// Bits that index a literal and length table.
pub const LITLEN_BITS: usize = 11;
/// Bits that index a distance table.
pub const DISTANCE_BITS: usize = 8;
/// Bits that index a code length table. No code of that alphabet is longer.
pub const CODE_LENGTH_BITS: usize = 7;

// The most entries that a complete code can need with such an index (zlib's `enough`).
const LITLEN_ENTRIES: usize = 2342;
const DISTANCE_ENTRIES: usize = 402;
const CODE_LENGTH_ENTRIES: usize = 1 << CODE_LENGTH_BITS;

/// The entries of a code, at most `N`. The main table comes first and is indexed by `BITS` bits.
pub struct Table<const BITS: usize, const N: usize>(pub [u32; N]);

/// A literal and length table.
pub type Litlens = Table<LITLEN_BITS, LITLEN_ENTRIES>;
/// A distance table.
pub type Distances = Table<DISTANCE_BITS, DISTANCE_ENTRIES>;
/// A code length table.
pub type CodeLengths = Table<CODE_LENGTH_BITS, CODE_LENGTH_ENTRIES>;

impl<const BITS: usize, const N: usize> Default for Table<BITS, N> {
    fn default() -> Self {
        Self([0; N])
    }
}

impl<const BITS: usize, const N: usize> Table<BITS, N> {
    /// Returns the main table's entry for the low bits of `bits`.
    #[inline(always)]
    pub fn first(&self, bits: u64) -> u32 {
        self.0[bits as usize & ((1 << BITS) - 1)]
    }

    /// Returns the entry in the subtable of the special `entry`. `bits` begin after those that
    /// indexed the main table.
    ///
    /// # Errors
    /// `entry` is invalid.
    #[inline(always)]
    pub fn second(&self, entry: u32, bits: u64) -> Result<u32, InvalidData> {
        if entry & SUBTABLE == 0 {
            return Err(InvalidData("an unassigned code"));
        }
        Ok(self.0[(entry >> 16) as usize + low(bits, entry >> 8 & 15) as usize])
    }

    /// Builds the table of the canonical code with these `lengths`, one per symbol; a symbol of
    /// length 0 does not occur. `symbols` are the entries without their code's bits.
    ///
    /// # Errors
    /// The code is oversubscribed or incomplete. As in zlib and Go, a code with no symbols, or
    /// with one symbol of one bit, is accepted.
    pub fn build(&mut self, lengths: &[u8], symbols: &[u32]) -> Result<(), InvalidData> {
        let mut counts = [0_usize; LONGEST + 1];
        for &length in lengths {
            counts[usize::from(length)] += 1;
        }
        let used = lengths.len() - counts[0];
        counts[0] = 0;
        let mut free = 1_usize;
        for count in &counts[1..] {
            free = (free * 2).checked_sub(*count).ok_or(InvalidData("an oversubscribed code"))?;
        }
        if free > 0 {
            return self.build_incomplete(lengths, symbols, used, counts[1]);
        }
        let sorted = sort(lengths, &counts);
        self.fill(&sorted[..used], &mut counts, symbols);
        Ok(())
    }

    fn build_incomplete(
        &mut self,
        lengths: &[u8],
        symbols: &[u32],
        used: usize,
        of_one_bit: usize,
    ) -> Result<(), InvalidData> {
        if used > 1 || used != of_one_bit {
            return Err(InvalidData("an incomplete code"));
        }
        self.0[..1 << BITS].fill(SPECIAL | 1);
        if let Some(symbol) = lengths.iter().position(|&length| length == 1) {
            let entry = coded(symbols[symbol], 1);
            self.0[..1 << BITS].iter_mut().step_by(2).for_each(|slot| *slot = entry);
        }
        Ok(())
    }

    /// Assigns codes in ascending order from short to long. Their bits are reversed, as in the
    /// stream.
    fn fill(&mut self, sorted: &[u16], counts: &mut [usize; LONGEST + 1], symbols: &[u32]) {
        let table = &mut self.0;
        let mut code = 0;
        let mut length = 0;
        // The filled part of the main table. It is repeated whenever the code length grows.
        let mut filled = 1;
        let mut free = 1 << BITS;
        let mut subtable = (usize::MAX, 0);
        for &symbol in sorted {
            while counts[length] == 0 {
                length += 1;
                if length <= BITS {
                    table.copy_within(..filled, filled);
                    filled *= 2;
                }
            }
            let symbol = symbols[usize::from(symbol)];
            if length <= BITS {
                table[code] = coded(symbol, length);
            } else {
                let index = code & ((1 << BITS) - 1);
                if subtable.0 != index {
                    subtable = (index, free);
                    let bits = subtable_bits(length - BITS, &counts[length..]);
                    table[index] =
                        SPECIAL | SUBTABLE | (free as u32) << 16 | (bits as u32) << 8 | BITS as u32;
                    free += 1 << bits;
                }
                let entry = coded(symbol, length - BITS);
                let first = subtable.1 + (code >> BITS);
                let step = 1 << (length - BITS);
                table[first..free].iter_mut().step_by(step).for_each(|slot| *slot = entry);
            }
            counts[length] -= 1;
            code = next(code, length);
        }
        while filled < 1 << BITS {
            table.copy_within(..filled, filled);
            filled *= 2;
        }
    }
}

/// Returns the low `count` bits of `bits`.
#[inline(always)]
pub fn low(bits: u64, count: u32) -> u64 {
    bits & !(u64::MAX << (count & 63))
}

/// Returns the entry of a symbol whose code has `length` bits.
fn coded(symbol: u32, length: usize) -> u32 {
    symbol + ((length as u32) << 8) + length as u32
}

/// Returns the bit-reversed code that follows `code` of `length` bits; 0 after the last.
fn next(code: usize, length: usize) -> usize {
    match (code ^ ((1 << length) - 1)).checked_ilog2() {
        Some(top) => code & ((1 << top) - 1) | 1 << top,
        None => 0,
    }
}

/// Returns the symbols in the order of their codes.
fn sort(lengths: &[u8], counts: &[usize; LONGEST + 1]) -> [u16; LITLENS] {
    let mut starts = [0; LONGEST + 1];
    for length in 1..LONGEST {
        starts[length + 1] = starts[length] + counts[length];
    }
    let mut sorted = [0; LITLENS];
    for (symbol, &length) in lengths.iter().enumerate() {
        if length > 0 {
            let slot = &mut starts[usize::from(length)];
            sorted[*slot] = symbol as u16;
            *slot += 1;
        }
    }
    sorted
}

/// Returns the index bits of a subtable whose first code has `bits` bits beyond the main table.
/// `counts` are the numbers of codes left of that length and of each longer one.
fn subtable_bits(mut bits: usize, counts: &[usize]) -> usize {
    let mut space = counts[0];
    for count in &counts[1..] {
        if space >= 1 << bits {
            break;
        }
        bits += 1;
        space = space * 2 + count;
    }
    bits
}

/// Returns the number of extra bits of the `nth` length or distance. `share` consecutive symbols
/// have the same number (RFC 1951, 3.2.5).
const fn extra_bits(nth: usize, share: usize) -> u32 {
    (nth / share).saturating_sub(1) as u32
}

/// Entries of the literal and length alphabet, without their code's bits.
pub const LITLEN_SYMBOLS: [u32; LITLENS] = {
    let mut symbols = [SPECIAL; LITLENS];
    let mut symbol = 0;
    while symbol < 256 {
        symbols[symbol] = LITERAL | (symbol as u32) << 16;
        symbol += 1;
    }
    symbols[256] = SPECIAL | END;
    let mut base = 3;
    while symbol + 1 < 285 {
        symbol += 1;
        let extra = extra_bits(symbol - 257, 4);
        symbols[symbol] = base << 16 | extra;
        base += 1 << extra;
    }
    symbols[285] = 258 << 16;
    symbols
};

/// Entries of the distance alphabet, without their code's bits.
pub const DISTANCE_SYMBOLS: [u32; DISTANCES] = {
    let mut symbols = [SPECIAL; DISTANCES];
    let mut symbol = 0;
    let mut base = 1;
    while symbol < 30 {
        let extra = extra_bits(symbol, 2);
        symbols[symbol] = base << 16 | extra;
        base += 1 << extra;
        symbol += 1;
    }
    symbols
};

/// Entries of the code length alphabet, without their code's bits.
pub const CODE_LENGTH_SYMBOLS: [u32; CODE_LENGTHS] = {
    let mut symbols = [0; CODE_LENGTHS];
    let mut symbol = 0;
    while symbol < CODE_LENGTHS {
        symbols[symbol] = (symbol as u32) << 16;
        symbol += 1;
    }
    symbols
};
