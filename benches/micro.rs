//! The parts of a pull, one by one: `cargo bench`. Files go to /dev/shm, so that the kernel's
//! file creation is measured and not a disk.
//!
//! ```text
//! cargo bench -- --sample-count 10
//! ```
#![allow(missing_docs, clippy::unwrap_used)]

use std::fs::File;
use std::io::{self, Write};
use std::path::Path;

use divan::Bencher;
use divan::counter::BytesCount;
use flate2::Compression;
use flate2::write::GzEncoder;
use tempfile::TempDir;

use rpull::internal::digest::{Digest, Hasher};
use rpull::internal::fsutil;
use rpull::internal::layer::{self, BlobSpec, BufferPool, ImageUsage, Job, Limits};
use rpull::internal::overlay::{self, DiffDir};

fn main() {
    divan::main();
}

/// Text that compresses about threefold, like programs do.
fn text(bytes: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut out = Vec::with_capacity(bytes + 16);
    while out.len() < bytes {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        let word = (state >> 48) as u32 % 4096;
        write!(out, "{word:x} ").unwrap();
    }
    out.truncate(bytes);
    out
}

/// A tar of `count` files of `size` bytes, 50 a directory.
fn tar(count: usize, size: usize) -> Vec<u8> {
    let content = text(size);
    let mut builder = tar::Builder::new(Vec::new());
    for n in 0..count {
        let mut header = tar::Header::new_gnu();
        header.set_size(size as u64);
        header.set_mode(0o644);
        let name = format!("usr/share/d{}/file{n}", n / 50);
        builder.append_data(&mut header, name, content.as_slice()).unwrap();
    }
    builder.into_inner().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn scratch() -> TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() {
        tempfile::tempdir_in(memory).unwrap()
    } else {
        tempfile::tempdir().unwrap()
    }
}

fn unpack(blob: &[u8], dir: &Path) {
    std::fs::create_dir(dir.join("diff")).unwrap();
    let record =
        File::options().read(true).write(true).create_new(true).open(dir.join("record")).unwrap();
    let abilities = overlay::probe(&dir.join("probe")).unwrap().unwrap();
    let mut diff = DiffDir::open_to_fill(&dir.join("diff"), abilities.into()).unwrap();
    let job = Job {
        blob: Some(BlobSpec { digest: Digest::of(blob), size: blob.len() as u64 }),
        plain: false,
        holes: false,
        diff: &mut diff,
        tar_split: record,
        limits: Limits::default(),
        meter: None,
        pool: BufferPool::default(),
        window: Box::new(|_| true),
        image: ImageUsage::default(),
    };
    layer::unpack(fsutil::buffers(blob), job).unwrap();
}

#[divan::bench]
fn sha256(bencher: Bencher) {
    let bytes = text(64 << 20);
    bencher.counter(BytesCount::of_slice(&bytes)).bench(|| {
        let mut hasher = Hasher::new();
        hasher.update(&bytes);
        hasher.finish()
    });
}

/// Both digests of a layer: as it is served, and as it is unpacked.
#[divan::bench]
fn sha256_two(bencher: Bencher) {
    let bytes = text(64 << 20);
    let (blob, plain) = bytes.split_at(bytes.len() / 2);
    bencher.counter(BytesCount::of_slice(&bytes)).bench(|| {
        let (mut a, mut b) = (Hasher::new(), Hasher::new());
        Hasher::update_two((&mut a, blob), (&mut b, plain));
        (a.finish(), b.finish())
    });
}

/// A program that every Linux has, or text where it has not: what layers are made of.
fn program() -> Vec<u8> {
    let own = std::env::current_exe().and_then(std::fs::read);
    let mut bytes = own.unwrap_or_else(|_| text(32 << 20));
    bytes.truncate(32 << 20);
    bytes
}

/// The layer's own decoder.
#[divan::bench]
fn inflate(bencher: Bencher) {
    let bytes = program();
    let blob = gzip(&bytes);
    let mut room = vec![0; layer::DECODER_OVERHEAD + (512 << 10)];
    bencher.counter(BytesCount::of_slice(&bytes)).bench_local(|| {
        let mut decoder = layer::Decoder::new(blob.as_slice(), Box::new(|_| true)).unwrap();
        while !decoder.fill(&mut room).unwrap().is_empty() {}
    });
}

/// What it is there instead of.
#[divan::bench]
fn inflate_flate2(bencher: Bencher) {
    let bytes = program();
    let blob = gzip(&bytes);
    let mut room = vec![0; 512 << 10];
    bencher.counter(BytesCount::of_slice(&bytes)).bench_local(|| {
        let mut decoder = flate2::bufread::GzDecoder::new(blob.as_slice());
        while io::Read::read(&mut decoder, &mut room).unwrap() > 0 {}
    });
}

/// All of a layer's way but the network: verify, inflate, hash, record, files.
#[divan::bench(args = [(20_000, 1 << 10), (2_000, 32 << 10), (1, 64 << 20)])]
fn unpack_gzip(bencher: Bencher, (count, size): (usize, usize)) {
    let bytes = tar(count, size);
    let blob = gzip(&bytes);
    bencher
        .counter(BytesCount::of_slice(&bytes))
        .with_inputs(scratch)
        .bench_refs(|dir| unpack(&blob, dir.path()));
}

/// The same without compression: what is left is files, record and two hashes.
#[divan::bench(args = [(20_000, 1 << 10), (1, 64 << 20)])]
fn unpack_plain(bencher: Bencher, (count, size): (usize, usize)) {
    let bytes = tar(count, size);
    bencher
        .counter(BytesCount::of_slice(&bytes))
        .with_inputs(scratch)
        .bench_refs(|dir| unpack(&bytes, dir.path()));
}

/// A stored layer's tar put together again and hashed: `docker save`'s way back.
#[divan::bench]
fn reassemble(bencher: Bencher) {
    let bytes = tar(20_000, 1 << 10);
    let dir = scratch();
    unpack(&bytes, dir.path());
    let diff = DiffDir::open(&dir.path().join("diff")).unwrap();
    let diff_id = rpull::internal::oci::DiffId(Digest::of(&bytes));
    bencher.counter(BytesCount::of_slice(&bytes)).bench(|| {
        layer::verify(File::open(dir.path().join("record")).unwrap(), &diff, diff_id).unwrap();
    });
}
