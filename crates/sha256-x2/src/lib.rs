//! SHA-256 (FIPS 180-4) of two independent streams at once.
//!
//! A processor with SHA instructions needs about four cycles for each, and each depends on the
//! previous one, so one stream leaves it idle half of the time. [`compress`] interleaves the
//! blocks of two streams to fill that time: both together cost a third less than one after the
//! other. On other processors it hashes them one after the other.
//!
//! This crate has the block function only. Padding and the final digest are the caller's.
//!
//! It is a crate of its own because it needs unsafe code: a function that is compiled for the SHA
//! instructions may only be called where the processor has them. There is no other unsafe
//! operation in it.

use sha2::block_api::compress256;

/// The bytes that one step of SHA-256 hashes.
pub type Block = [u8; 64];

/// The eight words that SHA-256 carries from block to block.
pub type State = [u32; 8];

/// The state before the first block (FIPS 180-4, 5.3.3).
pub const INITIAL_STATE: State = [
    0x6a09_e667,
    0xbb67_ae85,
    0x3c6e_f372,
    0xa54f_f53a,
    0x510e_527f,
    0x9b05_688c,
    0x1f83_d9ab,
    0x5be0_cd19,
];

/// Hashes the blocks of two streams: those of `blocks[0]` into `states[0]`, those of `blocks[1]`
/// into `states[1]`.
///
/// # Panics
/// If the streams have different numbers of blocks.
pub fn compress(states: [&mut State; 2], blocks: [&[Block]; 2]) {
    assert_eq!(blocks[0].len(), blocks[1].len(), "both streams need equally many blocks");
    #[cfg(target_arch = "x86_64")]
    if x86::is_supported() {
        // SAFETY: the processor has all the instructions that the function is compiled for.
        return unsafe { x86::compress(states, blocks) };
    }
    compress_portably(states, blocks);
}

/// Hashes one stream after the other.
fn compress_portably([a, b]: [&mut State; 2], [a_blocks, b_blocks]: [&[Block]; 2]) {
    compress256(a, a_blocks);
    compress256(b, b_blocks);
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::is_x86_feature_detected as has;
    use std::arch::x86_64::{
        __m128i as Words, _mm_add_epi32, _mm_alignr_epi8, _mm_extract_epi32, _mm_set_epi32,
        _mm_set_epi64x, _mm_sha256msg1_epu32, _mm_sha256msg2_epu32, _mm_sha256rnds2_epu32,
        _mm_shuffle_epi8, _mm_shuffle_epi32,
    };

    use super::{Block, State};

    /// The constants of the rounds (FIPS 180-4, 4.2.2), four per row.
    const ROUNDS: [[u32; 4]; 16] = [
        [0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5],
        [0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5],
        [0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3],
        [0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174],
        [0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc],
        [0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da],
        [0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7],
        [0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967],
        [0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13],
        [0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85],
        [0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3],
        [0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070],
        [0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5],
        [0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3],
        [0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208],
        [0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2],
    ];

    /// Returns whether the processor has the instructions that [`compress`] needs.
    pub fn is_supported() -> bool {
        has!("sha") && has!("ssse3") && has!("sse4.1")
    }

    /// The state of one stream in the register layout of the instructions (Intel's manual,
    /// SHA256RNDS2).
    #[derive(Clone, Copy)]
    struct Stream {
        abef: Words,
        cdgh: Words,
        /// The last sixteen words of the message schedule.
        words: [Words; 4],
    }

    impl Stream {
        #[target_feature(enable = "sha,ssse3,sse4.1")]
        #[inline]
        fn load(state: &State) -> Self {
            let [a, b, c, d, e, f, g, h] = state.map(u32::cast_signed);
            let none = _mm_set_epi64x(0, 0);
            Self {
                abef: _mm_set_epi32(a, b, e, f),
                cdgh: _mm_set_epi32(c, d, g, h),
                words: [none; 4],
            }
        }

        #[target_feature(enable = "sha,ssse3,sse4.1")]
        #[inline]
        fn store(self, state: &mut State) {
            let four = |words| {
                [
                    _mm_extract_epi32::<3>(words),
                    _mm_extract_epi32::<2>(words),
                    _mm_extract_epi32::<1>(words),
                    _mm_extract_epi32::<0>(words),
                ]
            };
            let ([a, b, e, f], [c, d, g, h]) = (four(self.abef), four(self.cdgh));
            *state = [a, b, c, d, e, f, g, h].map(i32::cast_unsigned);
        }

        /// Loads a block's words, which are big endian.
        #[target_feature(enable = "sha,ssse3,sse4.1")]
        #[inline]
        fn load_block(&mut self, block: &Block) {
            let swap = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
            for (words, bytes) in self.words.iter_mut().zip(block.as_chunks::<16>().0) {
                let [low, high] = [0, 8].map(|at| {
                    let mut half = [0; 8];
                    half.copy_from_slice(&bytes[at..at + 8]);
                    i64::from_le_bytes(half)
                });
                *words = _mm_shuffle_epi8(_mm_set_epi64x(high, low), swap);
            }
        }

        /// Replaces the `NTH` four words of the schedule with those sixteen words later.
        #[target_feature(enable = "sha,ssse3,sse4.1")]
        #[inline]
        fn schedule<const NTH: usize>(&mut self) {
            let words = &mut self.words;
            let [next, before, last] =
                [words[(NTH + 1) % 4], words[(NTH + 2) % 4], words[(NTH + 3) % 4]];
            let sum = _mm_add_epi32(
                _mm_sha256msg1_epu32(words[NTH], next),
                _mm_alignr_epi8::<4>(last, before),
            );
            words[NTH] = _mm_sha256msg2_epu32(sum, last);
        }

        /// Computes four rounds with the `NTH` four words.
        #[target_feature(enable = "sha,ssse3,sse4.1")]
        #[inline]
        fn rounds<const NTH: usize>(&mut self, constants: Words) {
            let words = _mm_add_epi32(self.words[NTH], constants);
            self.cdgh = _mm_sha256rnds2_epu32(self.cdgh, self.abef, words);
            let high = _mm_shuffle_epi32::<0b1110>(words);
            self.abef = _mm_sha256rnds2_epu32(self.abef, self.cdgh, high);
        }

        #[target_feature(enable = "sha,ssse3,sse4.1")]
        #[inline]
        fn add(&mut self, before: Self) {
            self.abef = _mm_add_epi32(self.abef, before.abef);
            self.cdgh = _mm_add_epi32(self.cdgh, before.cdgh);
        }
    }

    /// Computes four rounds of both streams.
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    #[inline]
    fn step<const NTH: usize>(streams: &mut [Stream; 2], row: usize) {
        let [a, b, c, d] = ROUNDS[row * 4 + NTH].map(u32::cast_signed);
        for stream in streams {
            if row > 0 {
                stream.schedule::<NTH>();
            }
            stream.rounds::<NTH>(_mm_set_epi32(d, c, b, a));
        }
    }

    /// Hashes the blocks of both streams in alternation.
    #[target_feature(enable = "sha,ssse3,sse4.1")]
    pub fn compress(states: [&mut State; 2], [a_blocks, b_blocks]: [&[Block]; 2]) {
        let mut streams = [Stream::load(states[0]), Stream::load(states[1])];
        for (a_block, b_block) in a_blocks.iter().zip(b_blocks) {
            let before = streams;
            streams[0].load_block(a_block);
            streams[1].load_block(b_block);
            for row in 0..4 {
                step::<0>(&mut streams, row);
                step::<1>(&mut streams, row);
                step::<2>(&mut streams, row);
                step::<3>(&mut streams, row);
            }
            streams[0].add(before[0]);
            streams[1].add(before[1]);
        }
        for (stream, state) in streams.into_iter().zip(states) {
            stream.store(state);
        }
    }
}

#[cfg(test)]
mod tests {
    use sha2::{Digest as _, Sha256};

    use super::*;

    /// Returns `count` blocks of bytes that depend on `seed`.
    fn blocks(count: usize, seed: usize) -> Vec<Block> {
        (0..count)
            .map(|n| std::array::from_fn(|at| ((n * 64 + at) * 31 + n * n + seed) as u8))
            .collect()
    }

    fn portable(state: State, blocks: &[Block]) -> State {
        let (mut state, mut other) = (state, INITIAL_STATE);
        compress_portably([&mut state, &mut other], [blocks, &[]]);
        state
    }

    #[test]
    fn two_streams_any_length_equal_the_portable_code() {
        for count in [0, 1, 2, 3, 17, 100] {
            let (first, second) = (blocks(count, 1), blocks(count, 2));
            let (mut a, mut b) = (INITIAL_STATE, [0x0123_4567; 8]);
            compress([&mut a, &mut b], [&first, &second]);
            assert_eq!(a, portable(INITIAL_STATE, &first), "first of {count} blocks");
            assert_eq!(b, portable([0x0123_4567; 8], &second), "second of {count} blocks");
        }
    }

    #[test]
    fn padded_message_hashes_to_its_digest() {
        // FIPS 180-4, 5.1.1: a set bit, zeros, and the length in bits.
        let mut block = [0; 64];
        block[..4].copy_from_slice(b"abc\x80");
        block[63] = 24;
        let (mut a, mut b) = (INITIAL_STATE, INITIAL_STATE);
        compress([&mut a, &mut b], [&[block], &[[7; 64]]]);
        let digest: Vec<u8> = a.iter().flat_map(|word| word.to_be_bytes()).collect();
        assert_eq!(digest, Sha256::digest(b"abc").to_vec());
        assert_ne!(a, b);
    }

    #[test]
    #[should_panic(expected = "equally many blocks")]
    fn different_lengths_panic() {
        compress([&mut INITIAL_STATE.clone(), &mut INITIAL_STATE.clone()], [&[[0; 64]], &[]]);
    }
}
