//! The bits of the stream, lowest first, as far as they were taken from the input.

use super::codes::low;

/// Up to 63 bits.
#[derive(Clone, Copy, Default)]
pub struct Bits {
    /// The bits. Above `count` there may be more of the stream, or zeros.
    pub buffer: u64,
    /// How many bits count.
    pub count: u32,
}

impl Bits {
    /// Takes bytes from the front of `input` until there are `count` bits, at most 56.
    /// `false`: there is too little input.
    pub fn need(&mut self, count: u32, input: &mut &[u8]) -> bool {
        while self.count < count {
            let Some((&byte, rest)) = input.split_first() else { return false };
            self.buffer |= u64::from(byte) << self.count;
            self.count += 8;
            *input = rest;
        }
        true
    }

    /// The lowest `count` bits, which are there, and are now passed over.
    #[inline(always)]
    pub fn take(&mut self, count: u32) -> u64 {
        let taken = low(self.buffer, count);
        self.skip(count);
        taken
    }

    /// Passes over `count` bits, which are there.
    #[inline(always)]
    pub fn skip(&mut self, count: u32) {
        self.buffer >>= count & 63;
        self.count = self.count.wrapping_sub(count);
    }

    /// Takes as many bytes as fit from the front of `input`, where there are 8; at least 56
    /// bits are there then.
    #[inline(always)]
    pub fn fill(&mut self, input: &mut &[u8]) {
        if let Some(word) = input.first_chunk() {
            self.buffer |= u64::from_le_bytes(*word) << self.count;
            *input = &input[(63 - self.count as usize) >> 3..];
            self.count |= 56;
        }
    }
}
