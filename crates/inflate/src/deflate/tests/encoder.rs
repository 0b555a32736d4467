//! An encoder of streams that no compressor writes: codes of any shape, with every symbol equally
//! likely, so that the longest codes and most extra bits occur together.

use super::super::codes::{DISTANCES, LITLENS};

/// A stream of bits, lowest first.
#[derive(Default)]
pub struct Bits {
    bytes: Vec<u8>,
    used: usize,
}

impl Bits {
    /// Appends the low `count` bits of `value`.
    pub fn put(&mut self, value: usize, count: u8) {
        for bit in 0..count {
            if self.used.is_multiple_of(8) {
                self.bytes.push(0);
            }
            let last = self.bytes.len() - 1;
            self.bytes[last] |= ((value >> bit & 1) as u8) << (self.used % 8);
            self.used += 1;
        }
    }

    /// Returns the bytes.
    pub fn bytes(self) -> Vec<u8> {
        self.bytes
    }
}

/// A pseudo-random number generator.
pub struct Random(pub u64);

impl Random {
    /// Returns a number below `bound`.
    pub fn below(&mut self, bound: usize) -> usize {
        self.0 =
            self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) as usize % bound
    }
}

/// A complete code.
struct Code {
    /// The code's length per symbol; 0 if the symbol does not occur.
    lengths: Vec<u8>,
    /// The code per symbol; its first bit is the highest.
    codes: Vec<usize>,
    /// The symbols that occur.
    used: Vec<usize>,
}

impl Code {
    /// Makes a code of `count` of `symbols` symbols, including `must`. Splits the deepest leaf
    /// `deep` times in 10, else a random one.
    fn new(random: &mut Random, symbols: usize, count: usize, must: usize, deep: usize) -> Self {
        let mut leaves = vec![1_u8, 1];
        while leaves.len() < count {
            let deepest = (0..leaves.len()).filter(|&n| leaves[n] < 15).max_by_key(|&n| leaves[n]);
            let any = random.below(leaves.len());
            let chosen = if random.below(10) < deep { deepest.unwrap_or(any) } else { any };
            if leaves[chosen] < 15 {
                leaves[chosen] += 1;
                leaves.push(leaves[chosen]);
            }
        }
        let mut lengths = vec![0; symbols];
        lengths[must] = leaves.pop().unwrap();
        for leaf in leaves {
            let free: Vec<usize> = (0..symbols).filter(|&n| lengths[n] == 0).collect();
            lengths[free[random.below(free.len())]] = leaf;
        }
        Self::canonical(lengths)
    }

    /// Makes the canonical code with these lengths (RFC 1951, 3.2.2).
    fn canonical(lengths: Vec<u8>) -> Self {
        let mut codes = vec![0; lengths.len()];
        let mut next = 0;
        for length in 1..=15 {
            for symbol in (0..lengths.len()).filter(|&symbol| lengths[symbol] == length) {
                codes[symbol] = next;
                next += 1;
            }
            next <<= 1;
        }
        let used = (0..lengths.len()).filter(|&symbol| lengths[symbol] > 0).collect();
        Self { lengths, codes, used }
    }

    fn put(&self, bits: &mut Bits, symbol: usize) {
        for bit in (0..self.lengths[symbol]).rev() {
            bits.put(self.codes[symbol] >> bit & 1, 1);
        }
    }

    fn any(&self, random: &mut Random) -> usize {
        self.used[random.below(self.used.len())]
    }
}

/// Begins a final dynamic block with these code lengths, without repetitions. 13 of the codes for
/// lengths have 4 bits and 6 have 5.
pub fn dynamic(bits: &mut Bits, litlens: &[u8], distances: &[u8]) {
    let own = Code::canonical((0..19).map(|n| if n < 13 { 4 } else { 5 }).collect());
    bits.put(0b101, 3);
    bits.put(litlens.len() - 257, 5);
    bits.put(distances.len() - 1, 5);
    bits.put(15, 4);
    for symbol in super::super::CODE_LENGTH_ORDER {
        bits.put(own.lengths[symbol].into(), 3);
    }
    for length in litlens.iter().chain(distances) {
        own.put(bits, usize::from(*length));
    }
}

/// Returns a valid stream of about `count` symbols, and the length of its longest code.
pub fn stream(seed: u64, count: usize) -> (Vec<u8>, Option<u8>) {
    let mut random = Random(seed);
    let deep = random.below(11);
    let litlen_codes = 20 + random.below(LITLENS - 2 - 20);
    let litlens = Code::new(&mut random, LITLENS - 2, litlen_codes, 256, deep);
    let distance_codes = 16 + random.below(DISTANCES - 2 - 16);
    let distances = Code::new(&mut random, DISTANCES - 2, distance_codes, 0, deep);
    let mut bits = Bits::default();
    dynamic(&mut bits, &litlens.lengths, &distances.lengths);
    let mut made = 0;
    for _ in 0..count {
        let symbol = litlens.any(&mut random);
        match symbol {
            256 => continue,
            0..256 => {
                litlens.put(&mut bits, symbol);
                made += 1;
                continue;
            }
            _ => {}
        }
        let (base, extra) = length(symbol);
        let distance = distances.any(&mut random);
        let (near, far) = reach(distance);
        if near + (1 << far) > made {
            continue;
        }
        litlens.put(&mut bits, symbol);
        let more = random.below(1 << extra);
        bits.put(more, extra);
        distances.put(&mut bits, distance);
        bits.put(random.below(1 << far), far);
        made += base + more;
    }
    litlens.put(&mut bits, 256);
    (bits.bytes(), litlens.lengths.into_iter().max())
}

/// Returns the base and the number of extra bits of a length symbol (RFC 1951, 3.2.5).
fn length(symbol: usize) -> (usize, u8) {
    const BASES: [usize; 29] = [
        3, 4, 5, 6, 7, 8, 9, 10, 11, 13, 15, 17, 19, 23, 27, 31, 35, 43, 51, 59, 67, 83, 99, 115,
        131, 163, 195, 227, 258,
    ];
    let extra = match symbol {
        285 | 257..=264 => 0,
        _ => (symbol - 261) / 4,
    };
    (BASES[symbol - 257], extra as u8)
}

/// Returns the base and the number of extra bits of a distance symbol (RFC 1951, 3.2.5).
fn reach(symbol: usize) -> (usize, u8) {
    const BASES: [usize; 30] = [
        1, 2, 3, 4, 5, 7, 9, 13, 17, 25, 33, 49, 65, 97, 129, 193, 257, 385, 513, 769, 1025, 1537,
        2049, 3073, 4097, 6145, 8193, 12289, 16385, 24577,
    ];
    (BASES[symbol], (symbol / 2).saturating_sub(1) as u8)
}
