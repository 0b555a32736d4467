//! Fuzz targets: the gzip reader against flate2's.
#![allow(clippy::unwrap_used)]

use std::io::Read;

use inflate::{BUFFER_OVERHEAD, GzipReader, InvalidData};

/// The magic bytes, method and flags. flate2 rejects reserved flags and checks the header's CRC,
/// this reader does neither.
const FIXED: [u8; 4] = [0x1f, 0x8b, 8, 0];

/// Decoded bytes at most: a small input can have a large output.
const MAX_SIZE: usize = 1 << 20;

/// Decodes up to [`MAX_SIZE`] bytes with the given space per call.
fn decode(bytes: &[u8], space: usize) -> std::io::Result<Vec<u8>> {
    let mut reader = GzipReader::new(bytes);
    let mut buffer = vec![0xaa; BUFFER_OVERHEAD + space];
    let mut content = Vec::new();
    while content.len() < MAX_SIZE {
        let decoded = reader.fill(&mut buffer)?;
        if decoded.is_empty() {
            break;
        }
        content.extend_from_slice(&buffer[decoded]);
    }
    Ok(content)
}

/// The first member's content, and the bytes after that member.
fn first_member(bytes: &[u8]) -> std::io::Result<(Vec<u8>, &[u8])> {
    let mut decoder = flate2::bufread::GzDecoder::new(bytes);
    let mut content = Vec::new();
    decoder.by_ref().take(MAX_SIZE as u64).read_to_end(&mut content)?;
    Ok((content, decoder.into_inner()))
}

fn check(bytes: &[u8]) {
    let actual = decode(bytes, 300);
    match (first_member(bytes), &actual) {
        (Ok((content, _)), _) if content.len() >= MAX_SIZE => {}
        (Ok((content, _)), Ok(actual)) => assert!(actual.starts_with(&content)),
        // An invalid member after a valid one is an error here only.
        (Ok((_, rest)), Err(e)) => assert!(rest.starts_with(&FIXED[..1]), "{e}"),
        (Err(e), Ok(_)) => panic!("flate2: {e}"),
        (Err(_), Err(e)) => {
            let invalid = e.get_ref().is_some_and(|e| e.is::<InvalidData>());
            assert!(invalid || e.kind() == std::io::ErrorKind::UnexpectedEof, "{e}");
        }
    }
    assert_eq!(decode(bytes, 70_000).ok(), actual.ok(), "the buffer's size changes the result");
}

#[test]
fn mutated_gzip_agrees_with_flate2() {
    fuzz_harness::run("tests/corpus/gzip", 10_000, |input| {
        if input.starts_with(&FIXED) {
            check(input);
        }
    });
}

/// The input is DEFLATE data, to which a header and a matching trailer are added.
#[test]
fn mutated_deflate_agrees_with_flate2() {
    fuzz_harness::run("tests/corpus/deflate", 10_000, |input| {
        let mut decoder = flate2::bufread::DeflateDecoder::new(input);
        let mut content = Vec::new();
        let _ = decoder.by_ref().take(MAX_SIZE as u64).read_to_end(&mut content);
        let mut crc = flate2::Crc::new();
        crc.update(&content);
        let used = usize::try_from(decoder.total_in()).unwrap();
        let trailer = [crc.sum().to_le_bytes(), crc.amount().to_le_bytes()].concat();
        check(&[&FIXED[..], &[0, 0, 0, 0, 0, 0xff], &input[..used], &trailer].concat());
    });
}
