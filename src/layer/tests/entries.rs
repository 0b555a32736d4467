//! The tar reader: a table of archives and the entries that it returns, with any chunks.

use std::fmt::Write as _;
use std::thread;

use super::POOL;
use super::tar::{Entry, Long, Tar};
use crate::layer::LayerError;
use crate::layer::stream::chunks::{self, ChunkSender, LayerBuffers};
use crate::layer::tar::entry::{EntryType, TarEntry};
use crate::layer::tar::reader::{RawSink, TarReader};

/// Collects raw bytes and data in the order of the archive.
#[derive(Default)]
pub struct Collected(pub Vec<u8>);

impl RawSink for Collected {
    fn raw(&mut self, bytes: &[u8]) -> Result<(), LayerError> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }
}

/// Calls `each` with every entry and its data, and returns all bytes that the reader returned.
/// The archive arrives in chunks of `size` bytes.
pub fn read(
    tar: &[u8],
    size: usize,
    mut each: impl FnMut(&TarEntry, &[u8]),
) -> Result<Vec<u8>, LayerError> {
    let (sender, stream) = chunks::channel();
    thread::scope(|scope| {
        scope.spawn(move || send(&sender, tar, size));
        let mut reader = TarReader::new(stream, 1 << 20);
        let mut collected = Collected::default();
        while let Some(entry) = reader.next(&mut collected)? {
            let start = collected.0.len();
            loop {
                let bytes = reader.data()?;
                let n = bytes.len();
                if n == 0 {
                    break;
                }
                collected.0.extend_from_slice(bytes);
                reader.consume(n);
            }
            each(&entry, &collected.0[start..]);
        }
        reader.trailer(&mut collected)?;
        Ok(collected.0)
    })
}

fn send(sender: &ChunkSender, tar: &[u8], size: usize) {
    let buffers = LayerBuffers::new(POOL.clone());
    for part in tar.chunks(size) {
        let mut buffer = buffers.acquire();
        buffer.memory()[..part.len()].copy_from_slice(part);
        if sender.send(Ok(buffer.into_chunk(0..part.len()))).is_err() {
            return;
        }
    }
}

/// One line per entry: kind, name, link or sparse map, mode, owner, time, header's size and data.
fn lines(tar: &[u8], size: usize) -> Result<String, LayerError> {
    let mut lines = String::new();
    let bytes = read(tar, size, |entry, data| {
        let name = entry.name.escape_ascii().to_string();
        let _ = write!(lines, "{:?} {name:.30}", entry.kind);
        if matches!(entry.kind, EntryType::Symlink | EntryType::Hardlink) {
            let _ = write!(lines, " -> {:.30}", entry.link.escape_ascii().to_string());
        }
        let (time, data) = (entry.mtime, data.escape_ascii());
        let _ = write!(lines, " {:o} {}:{}", entry.mode, entry.uid, entry.gid);
        let _ = write!(lines, " {}.{}", time.seconds, time.nanos);
        let _ = writeln!(lines, " {} '{data}'", entry.header_size);
    })?;
    assert!(bytes == tar, "the reader does not return every byte once");
    Ok(lines)
}

/// An archive and its entries.
#[rustfmt::skip]
fn cases() -> Vec<(Vec<u8>, &'static str)> {
    let long = "l".repeat(120);
    let prefixed = format!("p/{}", "l".repeat(99));
    vec![
        (Tar::of([
            Entry::file("f", "data").mode(0o104_755).owner(1, 2).mtime(3),
            Entry::dir("d/"), Entry::symlink("s", "t"), Entry::hardlink("h", "f"), Entry::fifo("p"),
        ]).end(), "
            File f 4755 1:2 3.0 4 'data'
            Dir d/ 755 0:0 1700000000.0 0 ''
            Symlink s -> t 777 0:0 1700000000.0 0 ''
            Hardlink h -> f 644 0:0 1700000000.0 0 ''
            Fifo p 644 0:0 1700000000.0 0 ''"),
        (Tar::of([Entry::v7("d/", ""), Entry::v7("f", "x"), Entry::file("c", "x").kind(b'7')]).end(), "
            Dir d/ 644 0:0 1700000000.0 0 ''
            File f 644 0:0 1700000000.0 1 'x'
            File c 644 0:0 1700000000.0 1 'x'"),
        (Tar::of([
            Entry::file(&long, "").long(Long::Gnu), Entry::file(&long, "").long(Long::Pax),
            Entry::file(&prefixed, "").long(Long::Prefix), Entry::symlink("s", &long).long(Long::Gnu),
        ]).end(), "
            File llllllllllllllllllllllllllllll 644 0:0 1700000000.0 0 ''
            File llllllllllllllllllllllllllllll 644 0:0 1700000000.0 0 ''
            File p/llllllllllllllllllllllllllll 644 0:0 1700000000.0 0 ''
            Symlink s -> llllllllllllllllllllllllllllll 777 0:0 1700000000.0 0 ''"),
        (Tar::of([
            Entry::file("f", "").owner(1 << 40, 3_000_000).mtime(-5),
            Entry::file("g", "x").pax("mtime", "-1.5").pax("uid", "70000").claims(0).pax("size", "1"),
            Entry::file("h", "").pax("path", ""),
        ]).end(), "
            File f 644 1099511627776:3000000 -5.0 0 ''
            File g 644 70000:0 -2.500000000 1 'x'
            File h 644 0:0 1700000000.0 0 ''"),
        (Tar::of([
            Entry::dir("d/").claims(4096), Entry::fifo("p").claims(9), Entry::file("f", "x"),
        ]).end(), "
            Dir d/ 755 0:0 1700000000.0 4096 ''
            Fifo p 644 0:0 1700000000.0 9 ''
            File f 644 0:0 1700000000.0 1 'x'"),
        (Tar::new().global("path", "ignored").file("f", "x").end(), "
            Global pax_global_header 0 0:0 0.0 0 ''
            File f 644 0:0 1700000000.0 1 'x'"),
        (Tar::of([
            Entry::gnu_sparse("a", &[(1, 2), (5, 1)], 7, b"xyz"),
            Entry::pax_sparse("b", &[(1, 2), (5, 1)], 7, b"xyz"),
            Entry::pax_sparse_map("c", &[(1, 2), (5, 1)], 7, b"xyz"),
        ]).end(), "
            File a 644 0:0 1700000000.0 3 'xyz'
            File b 644 0:0 1700000000.0 515 'xyz'
            File c 644 0:0 1700000000.0 3 'xyz'"),
        (Tar::new().file("f", "x").raw(&[0; 1024]).raw(b"any bytes").unended(), "
            File f 644 0:0 1700000000.0 1 'x'"),
        (Tar::new().file("f", "x").unended(), "
            File f 644 0:0 1700000000.0 1 'x'"),
        (vec![], ""),
    ]
}

#[test]
fn archive_in_chunks_of_any_size_has_the_listed_entries() {
    for (tar, expected) in cases() {
        let expected: Vec<&str> = expected.lines().map(str::trim).skip(1).collect();
        for size in [1, 7, 511, 512, 513, 4096] {
            let lines = lines(&tar, size).unwrap();
            assert_eq!(lines.lines().collect::<Vec<_>>(), expected, "in chunks of {size} bytes");
        }
    }
}

/// Only an archive that ends after an entry, inside its padding, or inside the end blocks is whole.
#[test]
fn archive_cut_at_any_byte_is_truncated_or_has_fewer_entries() {
    let tar =
        Tar::of([Entry::file("l".repeat(120), "data").long(Long::Gnu), Entry::dir("d/")]).end();
    // Three blocks and the data of the file, padding, and the header of the directory.
    let (file_end, dir_end) = (3 * 512 + 4, 5 * 512);
    for cut in 0..tar.len() {
        let whole = usize::from(cut >= file_end) + usize::from(cut >= dir_end);
        match lines(&tar[..cut], 512) {
            Ok(lines) => assert_eq!(lines.lines().count(), whole, "cut at {cut}: {lines}"),
            Err(LayerError::Truncated { offset, .. }) => assert_eq!(offset, cut as u64),
            Err(other) => panic!("cut at {cut}: {other}"),
        }
    }
}
