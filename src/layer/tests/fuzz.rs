//! Fuzz targets for archives, PAX records and tar-split metadata.

use std::collections::HashSet;

use super::{Layer, entries};
use crate::layer::LayerError;
use crate::layer::tar::pax::{self, Pax};
use crate::layer::tar_split::line::{self, Line};

/// Recomputes the checksum of each header block, so that a mutation gets past it.
fn with_checksums(input: &[u8]) -> Vec<u8> {
    let mut tar = input.to_vec();
    for block in tar.chunks_exact_mut(512).filter(|block| block[257..262] == *b"ustar") {
        block[148..156].fill(b' ');
        let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    tar
}

/// The entries, their data, and all bytes that the reader returned.
fn read(tar: &[u8], size: usize) -> Result<(Vec<String>, Vec<u8>), LayerError> {
    let mut found = Vec::new();
    let bytes = entries::read(tar, size, |entry, data| {
        assert_eq!(data.len() as u64, entry.data_size);
        found.push(format!("{entry:?} {}", data.escape_ascii()));
    })?;
    Ok((found, bytes))
}

#[test]
fn mutated_archive_in_any_chunks_has_the_same_entries_or_error() {
    fuzz_harness::run("tests/corpus/tar", 1500, |input| {
        let tar = with_checksums(input);
        let at_once = read(&tar, 1 << 16);
        if let Ok((found, bytes)) = &at_once {
            assert!(*bytes == tar, "the reader does not return every byte once");
            assert!(found.len() * 512 <= tar.len());
        }
        let in_pieces = read(&tar, 100);
        let text = |result| format!("{:?}", Result::map_err(result, |e| LayerError::to_string(&e)));
        assert_eq!(text(at_once), text(in_pieces));
    });
}

#[test]
fn mutated_archive_that_is_unpacked_is_reassembled() {
    fuzz_harness::run("tests/corpus/tar", 800, |input| {
        let tar = with_checksums(input);
        let Ok(layer) = Layer::of(&tar) else { return };
        let assembled = layer.assembled();
        assert!(assembled.as_ref() == Ok(&tar), "assembled: {:?}", assembled.err());
    });
}

/// Appends a record (POSIX pax, "pax Extended Header"), whose length counts its own digits.
fn print(out: &mut Vec<u8>, key: &[u8], value: &[u8]) {
    let rest = key.len() + value.len() + 3;
    let digits = (1..).find(|digits| (rest + digits).to_string().len() == *digits).unwrap();
    out.extend(format!("{} ", rest + digits).bytes());
    out.extend([key, b"=", value, b"\n"].concat());
}

fn records(pax: &Pax) -> Vec<u8> {
    let mut out = Vec::new();
    for (key, value) in [("path", &pax.path), ("linkpath", &pax.linkpath)] {
        value.iter().for_each(|value| print(&mut out, key.as_bytes(), value));
    }
    for (key, value) in [("size", pax.size), ("uid", pax.uid), ("gid", pax.gid)] {
        value.iter().for_each(|n| print(&mut out, key.as_bytes(), n.to_string().as_bytes()));
    }
    for (name, value) in &pax.xattrs {
        print(&mut out, &[b"SCHILY.xattr.", name.as_slice()].concat(), value);
    }
    out
}

#[test]
fn mutated_pax_records_that_parse_are_the_same_after_printing() {
    fuzz_harness::run("tests/corpus/pax", 20_000, |input| {
        let Ok(mut pax) = pax::parse(input) else { return };
        for time in [pax.mtime.take(), pax.atime.take()].into_iter().flatten() {
            assert!(time.nanos < 1_000_000_000, "{time:?}");
        }
        let names: HashSet<_> = pax.xattrs.iter().map(|(name, _)| name).collect();
        assert_eq!(names.len(), pax.xattrs.len(), "an attribute is repeated");
        let extents = pax.sparse.map.take().unwrap_or_default();
        assert!(extents.len() <= input.len());
        pax.sparse = pax::PaxSparse::default();
        let again = pax::parse(&records(&pax)).unwrap();
        assert_eq!(format!("{again:?}"), format!("{pax:?}"));
    });
}

#[test]
fn mutated_metadata_line_that_parses_is_the_same_after_printing() {
    fuzz_harness::run("tests/corpus/metadata-line", 20_000, |input| {
        let Ok(line) = Line::parse(input) else { return };
        let mut printed = Vec::new();
        match &line {
            Line::Segment(bytes) => line::write_segment(&mut printed, bytes, 7),
            Line::Entry { name, size, crc, position } => {
                line::write_entry(&mut printed, name, *size, *crc, *position);
            }
        }
        let again = Line::parse(&printed).unwrap();
        assert_eq!(format!("{again:?}"), format!("{line:?}"));
        assert_eq!(printed.iter().position(|byte| *byte == b'\n'), Some(printed.len() - 1));
    });
}
