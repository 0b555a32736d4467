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
    pub fn take(&mut self, count: u32) -> u64 {
        let taken = low(self.buffer, count);
        self.skip(count);
        taken
    }

    /// Passes over `count` bits, which are there.
    pub fn skip(&mut self, count: u32) {
        self.buffer >>= count & 63;
        self.count -= count;
    }

    /// Passes over as many bits as the low byte of `entry` says, which are there. All of
    /// `entry` goes off the count, of which only the low byte is right until
    /// [`tidy`](Self::tidy): so no symbol waits for the rest to be cut off.
    #[inline(always)]
    pub fn pass(&mut self, entry: u32) {
        self.buffer >>= entry & 63;
        self.count = self.count.wrapping_sub(entry);
    }

    /// Whether there are `count` bits, between passes.
    #[inline(always)]
    pub fn has(&self, count: usize) -> bool {
        usize::from(self.count as u8) >= count
    }

    /// After passes: the count is right again, and nothing lies above it.
    #[inline(always)]
    pub fn tidy(&mut self) {
        self.count &= 0xff;
        self.buffer = low(self.buffer, self.count);
    }

    /// Takes as many bytes as fit from the front of `input`, where there are 8; at least 56
    /// bits are there then.
    #[inline(always)]
    pub fn fill(&mut self, input: &mut &[u8]) {
        if let Some(word) = input.first_chunk() {
            self.buffer |= u64::from_le_bytes(*word) << (self.count & 63);
            // As many whole bytes as 63 bits have room for.
            *input = &input[(!self.count >> 3) as usize & 7..];
            self.count |= 56;
        }
    }
}
