//! Against flate2, which shares nothing with this decoder, and against streams made by hand.

use flate2::{Compress, Compression, Decompress, FlushCompress, FlushDecompress, Status};
use proptest::prelude::*;

use super::*;
use encoder::Bits as Encoder;

mod encoder;

/// What follows each stream here.
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

/// Decodes `stream` by pieces of input and rooms of output; at its end, what follows is
/// compared.
fn inflate(stream: &[u8], piece: usize, room: usize) -> Outcome {
    let mut inflate = Inflate::default();
    let mut buffer = vec![0xaa; Window::REACH + room + Window::SLACK];
    let (mut floor, mut end) = (Window::REACH, Window::REACH);
    let mut out = Vec::new();
    for mut input in stream.chunks(piece) {
        loop {
            let from = end;
            let mut window = Window { bytes: &mut buffer, floor, end };
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
                Ok(Pause::Room) => {
                    let kept = (end - floor).min(Window::REACH);
                    buffer.copy_within(end - kept..end, Window::REACH - kept);
                    (floor, end) = (Window::REACH - kept, Window::REACH);
                }
            }
        }
    }
    Outcome::Unfinished
}

/// What flate2 says of the same bytes, and how many of them it took.
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

/// Bytes in which symbols are as frequent as Fibonacci's numbers, so that codes get as long
/// as they may.
fn skewed(count: usize, mut seed: u64) -> Vec<u8> {
    (0..count)
        .map(|_| {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let mut symbol = 0;
            let mut bits = seed >> 16;
            // Each symbol is about 0.6 times as frequent as the one before.
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
    fn what_was_deflated_comes_back(
        bytes in content(),
        level in 0..=9_u32,
        piece in prop_oneof![1..100_usize, Just(1 << 20)],
        room in prop_oneof![1..500_usize, Just(1 << 16)],
    ) {
        let stream = followed(&deflate(&bytes, level));
        prop_assert_eq!(inflate(&stream, piece, room), Outcome::End(bytes));
    }

    /// A changed stream is taken by both decoders, with the same bytes, or by none.
    #[test]
    fn a_changed_stream_is_what_flate2_says(
        bytes in content(),
        level in 0..=9_u32,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        piece in prop_oneof![1..100_usize, Just(1 << 20)],
    ) {
        let mut stream = deflate(&bytes, level);
        for (index, change) in changes {
            // Most changes near the beginning, where the codes are.
            let near = index.index(stream.len().min(120));
            stream[near] ^= change;
        }
        let ours = |stream: &[u8]| inflate(&followed(stream), piece, 1 << 16);
        match reference(&stream) {
            Some((out, taken)) => prop_assert_eq!(ours(&stream[..taken]), Outcome::End(out)),
            // Without its end it is wanted more of, unless the bytes after it end it.
            None if reference(&followed(&stream)).is_none() => {
                prop_assert!(!matches!(ours(&stream), Outcome::End(_)));
            }
            None => {}
        }
    }
}

#[test]
fn distances_reach_back_across_rooms_and_no_further_than_the_beginning() {
    // Noise repeated at exactly the longest distance.
    let noise: Vec<u8> = skewed(Window::REACH, 7).iter().map(|b| b.wrapping_mul(151)).collect();
    let bytes = noise.repeat(4);
    let stream = followed(&deflate(&bytes, 9));
    assert!(stream.len() < 2 * noise.len(), "the repeats were not found");
    for room in [1, 1000, 40_000] {
        assert_eq!(inflate(&stream, 777, room), Outcome::End(bytes.clone()));
    }
    // A fixed block: the literal 0, then length 3 at `distance`, whose bits come highest first.
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
fn codes_of_every_shape_are_read() {
    let mut longest = Vec::new();
    for seed in 0..100 {
        let (stream, code) = encoder::stream(seed, 3000);
        let (out, taken) = reference(&stream).expect("flate2 reads it");
        assert_eq!(taken, stream.len());
        let stream = followed(&stream);
        for piece in [1, 37, 1 << 20] {
            let ours = inflate(&stream, piece, 1 << 16);
            assert!(ours == Outcome::End(out.clone()), "seed {seed} by {piece}");
        }
        longest.extend(code);
    }
    assert!(longest.contains(&15) && longest.iter().any(|code| *code < 12), "{longest:?}");
}

#[test]
fn a_block_without_an_end_is_refused() {
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
fn the_longest_codes_are_read() {
    let bytes = skewed(300_000, 3);
    for level in [1, 6, 9] {
        let stream = followed(&deflate(&bytes, level));
        for piece in [1, 23, 1 << 20] {
            assert_eq!(inflate(&stream, piece, 5000), Outcome::End(bytes.clone()));
        }
    }
}

#[test]
fn a_cut_stream_never_ends() {
    let bytes = skewed(3000, 5);
    for level in [0, 1, 9] {
        let stream = followed(&deflate(&bytes, level));
        for end in 0..stream.len() {
            assert_eq!(inflate(&stream[..end], 1 << 20, 1 << 16), Outcome::Unfinished, "at {end}");
        }
    }
}

#[test]
fn what_is_no_code_is_refused() {
    let code = |lengths: &[u8]| Distances::default().build(lengths, &DISTANCE_SYMBOLS);
    assert!(code(&[1, 1]).is_ok());
    assert!(code(&[1, 2, 2]).is_ok());
    assert!(code(&[0, 1]).is_ok(), "a lone code of one bit");
    assert!(code(&[0, 0]).is_ok(), "no code at all");
    assert!(code(&[1, 1, 1]).is_err(), "too many");
    assert!(code(&[1, 2]).is_err(), "too few");
    assert!(code(&[2]).is_err(), "a lone code of two bits");
    // The other half of a lone code means nothing.
    let mut lone = Distances::default();
    lone.build(&[0, 1], &DISTANCE_SYMBOLS).unwrap();
    assert_eq!(lone.first(0) >> 16, 2);
    assert!(lone.second(lone.first(1), 0).is_err());
}

#[test]
fn one_stream_follows_another() {
    let mut inflate = Inflate::default();
    let stream = followed(&deflate(b"one", 6)).repeat(2);
    let mut buffer = vec![0; Window::REACH + 100 + Window::SLACK];
    let mut window = Window { bytes: &mut buffer, floor: Window::REACH, end: Window::REACH };
    let mut input = stream.as_slice();
    for _ in 0..2 {
        assert_eq!(inflate.run(&mut input, &mut window), Ok(Pause::End(AFTER)));
    }
    assert!(input.is_empty());
    assert_eq!(&buffer[Window::REACH..][..6], b"oneone");
}
