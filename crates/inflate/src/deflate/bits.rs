//! The bit buffer between the input and the decoder. DEFLATE packs bits lowest first.

use super::codes::low;

/// Up to 63 bits that were taken from the input and not yet decoded.
#[derive(Clone, Copy, Default)]
pub struct Bits {
    /// The bits. Those above `count` are zeros or the stream's next bits.
    pub buffer: u64,
    /// The number of valid bits.
    pub count: u32,
}

impl Bits {
    /// Takes bytes from the front of `input` until there are `count` bits, at most 56. Returns
    /// `false` if the input ends before.
    pub fn ensure(&mut self, count: u32, input: &mut &[u8]) -> bool {
        while self.count < count {
            let Some((&byte, rest)) = input.split_first() else { return false };
            self.buffer |= u64::from(byte) << self.count;
            self.count += 8;
            *input = rest;
        }
        true
    }

    /// Removes the lowest `count` bits, which must be present, and returns them.
    pub fn take(&mut self, count: u32) -> u64 {
        let taken = low(self.buffer, count);
        self.skip(count);
        taken
    }

    /// Removes `count` bits, which must be present.
    pub fn skip(&mut self, count: u32) {
        self.buffer >>= count & 63;
        self.count -= count;
    }

    /// Removes the number of bits in the low byte of `entry`, which must be present. Subtracts
    /// all of `entry` from the count, so only the count's low byte is right until
    /// [`normalize`](Self::normalize): masking it here would lengthen each symbol's dependency
    /// chain.
    #[inline(always)]
    pub fn skip_entry(&mut self, entry: u32) {
        self.buffer >>= entry & 63;
        self.count = self.count.wrapping_sub(entry);
    }

    /// Returns whether `count` bits are present; also right before `normalize`.
    #[inline(always)]
    pub fn has(&self, count: usize) -> bool {
        usize::from(self.count as u8) >= count
    }

    /// Corrects the count after calls of `skip_entry`, and clears the bits above it.
    #[inline(always)]
    pub fn normalize(&mut self) {
        self.count &= 0xff;
        self.buffer = low(self.buffer, self.count);
    }

    /// Takes as many bytes as fit from the front of `input`, which must have 8. At least 56
    /// bits are present afterwards.
    #[inline(always)]
    pub fn refill(&mut self, input: &mut &[u8]) {
        if let Some(word) = input.first_chunk() {
            self.buffer |= u64::from_le_bytes(*word) << (self.count & 63);
            // The number of whole bytes that fit into 63 bits.
            *input = &input[(!self.count >> 3) as usize & 7..];
            self.count |= 56;
        }
    }
}
