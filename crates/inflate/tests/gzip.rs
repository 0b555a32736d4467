//! Randomized comparisons of the gzip reader with flate2's, through the public interface.
#![allow(clippy::unwrap_used)]

use std::io::{self, BufReader, Read, Write};

use flate2::{Compression, GzBuilder};
use inflate::{BUFFER_OVERHEAD, GzipReader};
use proptest::prelude::*;

/// The magic bytes, method and flags, which no test changes: flate2 rejects reserved flags and
/// checks the header's CRC, this reader does neither.
const FIXED: usize = 4;

/// The size of a header without optional parts.
const HEADER: usize = 10;

fn member(content: &[u8], level: u32) -> Vec<u8> {
    let mut encoder = GzBuilder::new().write(Vec::new(), Compression::new(level));
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

/// Decodes with a source buffer of `input` bytes and about `output` bytes of content per call.
fn decode(bytes: &[u8], input: usize, output: usize) -> io::Result<Vec<u8>> {
    let mut reader = GzipReader::new(BufReader::with_capacity(input, bytes));
    let mut buffer = vec![0xaa; BUFFER_OVERHEAD + output];
    let mut content = Vec::new();
    loop {
        let decoded = reader.fill(&mut buffer)?;
        if decoded.is_empty() {
            return Ok(content);
        }
        content.extend_from_slice(&buffer[decoded]);
    }
}

fn flate2_decode(bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut content = Vec::new();
    flate2::bufread::GzDecoder::new(bytes).read_to_end(&mut content)?;
    Ok(content)
}

/// Noise, repetitions at many distances, and runs.
fn content() -> impl Strategy<Value = Vec<u8>> {
    let noise = proptest::collection::vec(any::<u8>(), 0..2000);
    let repetition = (proptest::collection::vec(any::<u8>(), 1..300), 1..200_usize)
        .prop_map(|(bytes, count)| bytes.repeat(count));
    let run = (any::<u8>(), 1..70_000_usize).prop_map(|(byte, count)| vec![byte; count]);
    proptest::collection::vec(prop_oneof![noise, repetition, run], 0..6)
        .prop_map(|parts| parts.concat())
}

proptest! {
    #[test]
    fn members_any_split_decode_to_their_content(
        contents in proptest::collection::vec(content(), 1..4),
        level in 0..=9_u32,
        input in prop_oneof![1..100_usize, Just(1 << 16)],
        output in prop_oneof![0..1000_usize, Just(1 << 18)],
        padding in 0..20_usize,
    ) {
        let mut bytes: Vec<u8> = contents.iter().flat_map(|part| member(part, level)).collect();
        bytes.resize(bytes.len() + padding, 0);
        prop_assert_eq!(decode(&bytes, input, output).unwrap(), contents.concat());
    }

    #[test]
    fn changed_member_agrees_with_flate2(
        content in content(),
        level in 0..=9_u32,
        changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
        near in any::<bool>(),
        input in prop_oneof![1..100_usize, Just(1 << 16)],
    ) {
        let mut bytes = member(&content, level);
        // Half of the cases change the header and the codes, which come first.
        let end = if near { bytes.len().min(HEADER + 100) } else { bytes.len() };
        for (index, change) in changes {
            bytes[FIXED + index.index(end - FIXED)] ^= change;
        }
        prop_assert_eq!(decode(&bytes, input, 5000).ok(), flate2_decode(&bytes).ok());
    }

    #[test]
    fn cut_member_is_an_unexpected_end(content in content(), cut in any::<prop::sample::Index>()) {
        let bytes = member(&content, 6);
        let error = decode(&bytes[..cut.index(bytes.len())], 64, 5000).unwrap_err();
        prop_assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn arbitrary_data_after_header_agrees_with_flate2(
        data in proptest::collection::vec(any::<u8>(), 0..400),
    ) {
        let bytes = [&[0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 0xff][..], &data].concat();
        prop_assert_eq!(decode(&bytes, 7, 300).ok(), flate2_decode(&bytes).ok());
    }
}
