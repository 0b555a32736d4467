//! Comparisons with flate2, which shares no code with this decoder, and streams made by hand.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use proptest::prelude::*;

use super::*;
use encoder::Bits as Encoder;

mod encoder;

/// The eight bytes after each stream.
const AFTER: [u8; 8] = *b"trailer!";

fn deflate(bytes: &[u8], level: u32) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() * 2 + 1000);
    let mut compress = Compress::new(Compression::new(level), false);
    let status = compress.compress_vec(bytes, &mut out, FlushCompress::Finish).unwrap();
    assert_eq!(status, Status::StreamEnd);
    out
}

#[derive(Debug, PartialEq)]
enum Outcome {
    End(Vec<u8>),
    Invalid,
    Unfinished,
}

/// Decodes `stream` with input in parts of `part` bytes and `space` bytes of output at a time.
/// Checks the bytes after its end.
fn inflate(stream: &[u8], part: usize, space: usize) -> Outcome {
    let mut inflate = Inflate::default();
    let mut buffer = vec![0xaa; Window::SIZE + space + Window::SLACK];
    let (mut start, mut end) = (Window::SIZE, Window::SIZE);
    let mut out = Vec::new();
    for mut input in stream.chunks(part) {
        loop {
            let from = end;
            let mut window = Window { bytes: &mut buffer, start, end };
            let pause = inflate.run(&mut input, &mut window);
            end = window.end;
            out.extend_from_slice(&buffer[from..end]);
            match pause {
                Err(_) => return Outcome::Invalid,
                Ok(Pause::End(after)) => {
                    assert_eq!(after, AFTER);
                    return Outcome::End(out);
                }
                Ok(Pause::Input) => {
                    assert!(input.is_empty(), "input is left");
                    break;
                }
                Ok(Pause::BufferFull) => {
                    let kept = (end - start).min(Window::SIZE);
                    buffer.copy_within(end - kept..end, Window::SIZE - kept);
                    (start, end) = (Window::SIZE - kept, Window::SIZE);
                }
            }
        }
    }
    Outcome::Unfinished
}

/// Returns what flate2 decodes, and how many bytes it took.
fn reference(stream: &[u8]) -> Option<(Vec<u8>, usize)> {
    let mut out = Vec::with_capacity(1 << 20);
    let mut decompress = Decompress::new(false);
    let status = decompress.decompress_vec(stream, &mut out, FlushDecompress::Finish);
    let taken = decompress.total_in() as usize;
    matches!(status, Ok(Status::StreamEnd)).then_some((out, taken))
}

fn followed(stream: &[u8]) -> Vec<u8> {
    [stream, &AFTER].concat()
}

/// Returns bytes whose frequencies fall like Fibonacci's numbers, which gives the longest codes.
fn skewed(count: usize, mut seed: u64) -> Vec<u8> {
    (0..count)
        .map(|_| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let mut symbol = 0;
            let mut bits = seed >> 16;
            // Each symbol is about 0.6 times as frequent as the previous one.
            while bits % 100 < 62 && symbol < 255 {
                symbol += 1;
                bits = bits.rotate_right(7).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 3;
            }
            symbol as u8
        })
        .collect()
}

fn content() -> impl Strategy<Value = Vec<u8>> {
    let run = (any::<u8>(), 1..600_usize).prop_map(|(byte, count)| vec![byte; count]);
    let noise = proptest::collection::vec(any::<u8>(), 0..300);
    let period = (proptest::collection::vec(any::<u8>(), 1..40), 1..60_usize)
        .prop_map(|(bytes, count)| bytes.repeat(count));
    let text = (any::<u64>(), 1..3000_usize).prop_map(|(seed, count)| skewed(count, seed));
    let part = prop_oneof![run, noise, period, text];
    proptest::collection::vec(part, 0..12).prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn deflated_content_any_split_round_trips(
        bytes in content(),
        level in 0..=9_u32,
        part in prop_oneof![1..100_usize, Just(1 << 20)],
        space in prop_oneof![1..500_usize, Just(1 << 16)],
    ) {
        let stream = followed(&deflate(&bytes, level));
        prop_assert_eq!(inflate(&stream, part, space), Outcome::End(bytes));
    }

    /// Both decoders accept a changed stream, with the same content, or both reject it.
    #[test]
    fn changed_stream_any_split_agrees_with_flate2(
        bytes in content(),
        level in 0..=9_u32,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        part in prop_oneof![1..100_usize, Just(1 << 20)],
    ) {
        let mut stream = deflate(&bytes, level);
        for (index, change) in changes {
            // Near the beginning, where the codes are.
            let near = index.index(stream.len().min(120));
            stream[near] ^= change;
        }
        let ours = |stream: &[u8]| inflate(&followed(stream), part, 1 << 16);
        match reference(&stream) {
            Some((out, taken)) => prop_assert_eq!(ours(&stream[..taken]), Outcome::End(out)),
            // flate2 may only miss the end of the stream, which the trailer could then complete.
            None if reference(&followed(&stream)).is_none() => {
                prop_assert!(!matches!(ours(&stream), Outcome::End(_)));
            }
            None => {}
        }
    }
}

#[test]
fn distance_across_buffers_is_resolved_and_beyond_start_is_refused() {
    // Noise, repeated at exactly the longest distance.
    let noise: Vec<u8> = skewed(Window::SIZE, 7).iter().map(|b| b.wrapping_mul(151)).collect();
    let bytes = noise.repeat(4);
    let stream = followed(&deflate(&bytes, 9));
    assert!(stream.len() < 2 * noise.len(), "the repeats were not found");
    for space in [1, 1000, 40_000] {
        assert_eq!(inflate(&stream, 777, space), Outcome::End(bytes.clone()));
    }
    // A fixed block: the literal 0, then a match of length 3. Code bits come highest first.
    let block = |distance: usize| {
        let mut bits = Encoder::default();
        bits.put(0b011, 3);
        bits.put(0b0000_1100, 8);
        bits.put(0b100_0000, 7);
        bits.put(if distance == 2 { 0b10000 } else { 0 }, 5);
        bits.put(0, 7);
        followed(&bits.bytes())
    };
    assert_eq!(inflate(&block(1), 64, 64), Outcome::End(vec![0; 4]));
    assert_eq!(inflate(&block(2), 64, 64), Outcome::Invalid);
}

#[test]
fn generated_codes_any_shape_agree_with_flate2() {
    let mut longest = Vec::new();
    for seed in 0..100 {
        let (stream, code) = encoder::stream(seed, 3000);
        let (out, taken) = reference(&stream).expect("flate2 decodes it");
        assert_eq!(taken, stream.len());
        let stream = followed(&stream);
        for part in [1, 37, 1 << 20] {
            let ours = inflate(&stream, part, 1 << 16);
            assert!(ours == Outcome::End(out.clone()), "seed {seed} by {part}");
        }
        longest.extend(code);
    }
    assert!(longest.contains(&15) && longest.iter().any(|code| *code < 12), "{longest:?}");
}

#[test]
fn block_without_end_symbol_is_refused() {
    let stream = |first: u8, second: u8, end: u8| {
        let mut litlens = [0; 257];
        (litlens[0], litlens[1], litlens[256]) = (first, second, end);
        let mut bits = Encoder::default();
        encoder::dynamic(&mut bits, &litlens, &[1, 1]);
        bits.put(0b11, 2);
        followed(&bits.bytes())
    };
    assert_eq!(inflate(&stream(1, 2, 2), 64, 64), Outcome::End(Vec::new()));
    assert_eq!(inflate(&stream(1, 1, 0), 64, 64), Outcome::Invalid);
}

#[test]
fn longest_codes_any_level_round_trip() {
    let bytes = skewed(300_000, 3);
    for level in [1, 6, 9] {
        let stream = followed(&deflate(&bytes, level));
        for part in [1, 23, 1 << 20] {
            assert_eq!(inflate(&stream, part, 5000), Outcome::End(bytes.clone()));
        }
    }
}

#[test]
fn cut_stream_at_any_byte_is_unfinished() {
    let bytes = skewed(3000, 5);
    for level in [0, 1, 9] {
        let stream = followed(&deflate(&bytes, level));
        for end in 0..stream.len() {
            assert_eq!(inflate(&stream[..end], 1 << 20, 1 << 16), Outcome::Unfinished, "at {end}");
        }
    }
}

#[test]
fn invalid_code_lengths_are_refused() {
    let code = |lengths: &[u8]| Distances::default().build(lengths, &DISTANCE_SYMBOLS);
    assert!(code(&[1, 1]).is_ok());
    assert!(code(&[1, 2, 2]).is_ok());
    assert!(code(&[0, 1]).is_ok(), "a lone code of one bit");
    assert!(code(&[0, 0]).is_ok(), "no code at all");
    assert!(code(&[1, 1, 1]).is_err(), "oversubscribed");
    assert!(code(&[1, 2]).is_err(), "incomplete");
    assert!(code(&[2]).is_err(), "a lone code of two bits");
    // The unassigned half of a lone code.
    let mut lone = Distances::default();
    lone.build(&[0, 1], &DISTANCE_SYMBOLS).unwrap();
    assert_eq!(lone.first(0) >> 16, 2);
    assert!(lone.second(lone.first(1), 0).is_err());
}

#[test]
fn consecutive_streams_one_decoder_both_decode() {
    let mut inflate = Inflate::default();
    let stream = followed(&deflate(b"one", 6)).repeat(2);
    let mut buffer = vec![0; Window::SIZE + 100 + Window::SLACK];
    let mut window = Window { bytes: &mut buffer, start: Window::SIZE, end: Window::SIZE };
    let mut input = stream.as_slice();
    for _ in 0..2 {
        assert_eq!(inflate.run(&mut input, &mut window), Ok(Pause::End(AFTER)));
    }
    assert!(input.is_empty());
    assert_eq!(&buffer[Window::SIZE..][..6], b"oneone");
}
