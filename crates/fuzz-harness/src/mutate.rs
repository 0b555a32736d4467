//! Mutations of the inputs of a corpus.

/// Bytes of an input at most.
const MAX_SIZE: usize = 1 << 16;

/// Bytes that formats give a meaning to.
const BYTES: &[u8] = b"\0\n\r\t \"%&'()+,-./0179:;<=>?@[\\]^_{|}~\x1b\x7f\x80\x9b\xff";

/// Numbers at the limits of types, and one that is not a number.
const NUMBERS: [&str; 12] = [
    "0",
    "-1",
    "1",
    "255",
    "4096",
    "65536",
    "4294967295",
    "4294967296",
    "9223372036854775807",
    "-9223372036854775808",
    "18446744073709551616",
    "1e9",
];

/// The mutation of one of `inputs` that belongs to `seed`.
pub fn input(inputs: &[Vec<u8>], seed: u64) -> Vec<u8> {
    let mut random = Random(seed);
    let mut input = inputs[random.below(inputs.len())].clone();
    // Most inputs stay close to the corpus; some have many changes.
    let most = if random.below(4) == 0 { 16 } else { 3 };
    let changes = 1 + random.below(most);
    for _ in 0..changes {
        let other = &inputs[random.below(inputs.len())];
        change(&mut input, other, &mut random);
    }
    input.truncate(MAX_SIZE);
    input
}

fn change(input: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    let at = random.below(input.len() + 1);
    match random.below(10) {
        0 if at < input.len() => input[at] ^= 1 << random.below(8),
        1 if at < input.len() => input[at] = BYTES[random.below(BYTES.len())],
        2 if at < input.len() => input[at] = input[at].wrapping_add([1, 255][random.below(2)]),
        3 => input.insert(at, random.next() as u8),
        4 => drop(input.drain(range(input.len(), random))),
        5 => input.truncate(at),
        6 => {
            let part = input[range(input.len(), random)].to_vec();
            input.splice(at..at, part);
        }
        7 => {
            let part = other[range(other.len(), random)].to_vec();
            input.splice(at..at, part);
        }
        8 => {
            let part = other[range(other.len(), random)].to_vec();
            let end = input.len().min(at + part.len());
            input.splice(at..end, part);
        }
        9 => replace_number(input, at, random),
        _ => input.push(BYTES[random.below(BYTES.len())]),
    }
}

/// A range in `0..length`, mostly a short one.
fn range(length: usize, random: &mut Random) -> std::ops::Range<usize> {
    let start = random.below(length + 1);
    let most = if random.below(2) == 0 { 8 } else { length };
    start..length.min(start + random.below(most + 1))
}

/// Replaces the first decimal number at or after `at`.
fn replace_number(input: &mut Vec<u8>, at: usize, random: &mut Random) {
    let Some(start) = input[at..].iter().position(u8::is_ascii_digit) else { return };
    let start = at + start;
    let digits = input[start..].iter().take_while(|byte| byte.is_ascii_digit()).count();
    let number = NUMBERS[random.below(NUMBERS.len())];
    input.splice(start..start + digits, number.bytes());
}

/// SplitMix64 (Steele, Lea and Flood 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number below `limit`, which is not 0.
    fn below(&mut self, limit: usize) -> usize {
        (self.next() % limit as u64) as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seed_gives_the_same_input_again() {
        let inputs = [b"one".to_vec(), b"{\"size\":12}".to_vec(), Vec::new()];
        let all: Vec<_> = (0..1000).map(|seed| input(&inputs, seed)).collect();
        assert_eq!(all, (0..1000).map(|seed| input(&inputs, seed)).collect::<Vec<_>>());
        let new = all.iter().filter(|input| !inputs.contains(input)).count();
        assert!(new > 700, "{new} of 1000 inputs are not in the corpus");
    }
}
