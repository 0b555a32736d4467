//! The output buffer, which begins with the history that a distance may refer to.

use super::codes::low;

/// An output buffer: history, then decoded bytes, then free space.
pub struct Window<'a> {
    /// The buffer.
    pub bytes: &'a mut [u8],
    /// The index of the first byte of this stream; what lies before is not history.
    pub start: usize,
    /// The index after the last decoded byte.
    pub end: usize,
}

impl Window<'_> {
    /// The longest distance, in bytes.
    pub const SIZE: usize = 32 << 10;

    /// Bytes that must be free for a round of decoding: two literals, the longest match, and what
    /// a copy by words writes beyond it.
    pub const SLACK: usize = 2 + 258 + 32;

    /// Returns whether there is space for another round.
    pub fn has_space(&self) -> bool {
        self.bytes.len() - self.end >= Self::SLACK
    }
}

/// Copies `length` bytes from `distance` before `to` to `to`, as if byte by byte: a match may
/// overlap itself. Writes up to 32 bytes beyond them.
#[inline(always)]
pub fn copy(bytes: &mut [u8], to: usize, distance: usize, length: usize) {
    if distance >= 16 {
        words::<16>(bytes, to, distance, length);
    } else if distance >= 8 {
        words::<8>(bytes, to, distance, length);
    } else {
        repeat(bytes, to, distance, length);
    }
}

/// Copies words of `N` bytes; the distance is at least `N`.
#[inline(always)]
fn words<const N: usize>(bytes: &mut [u8], to: usize, distance: usize, length: usize) {
    let from = to - distance;
    bytes.copy_within(from..from + N, to);
    bytes.copy_within(from + N..from + 2 * N, to + N);
    let mut done = 2 * N;
    while done < length {
        bytes.copy_within(from + done..from + done + N, to + done);
        done += N;
    }
}

/// Copies at a distance below 8 by repeating one word that is composed first.
#[inline(always)]
fn repeat(bytes: &mut [u8], to: usize, distance: usize, length: usize) {
    let Some(&word) = bytes[to - distance..].first_chunk() else { return };
    let once = low(u64::from_le_bytes(word), 8 * distance as u32);
    let (repeats, step) = REPEATS[distance & 7];
    let word = once.wrapping_mul(repeats).to_le_bytes();
    let mut done = 0;
    while done < length {
        if let Some(slot) = bytes[to + done..].first_chunk_mut() {
            *slot = word;
        }
        done += step;
    }
}

/// For each distance: the factor that repeats a word's low bytes when multiplied with it, and the
/// number of bytes in the whole repetitions.
const REPEATS: [(u64, usize); 8] = {
    let mut repeats = [(1, 8); 8];
    let mut distance = 1;
    while distance < 8 {
        let mut at = distance;
        while at < 8 {
            repeats[distance].0 |= 1 << (8 * at);
            at += distance;
        }
        repeats[distance].1 = 8 - 8 % distance;
        distance += 1;
    }
    repeats
};
