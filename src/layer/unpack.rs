//! From a compressed stream to verified files: the threads of one layer and their order.
//!
//! ```text
//! source -> [count, decompress] -+-> [sha256 of both: the blob's digest, the diff id]
//!                                +-> [tar -> files, metadata] -+-> [deferred writes]
//!                                                              +-> [gzip of the metadata]
//! ```
//!
//! Each bracket is a thread; chunks are shared, not copied. The calling thread unpacks.

use std::fs::File;
use std::io;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::thread::{self, Scope, ScopedJoinHandle};

use super::LayerError;
use super::budget;
use super::extract::deferred;
use super::extract::omissions::OmissionReport;
use super::extract::{Extracted, Extractor, OpenFile};
use super::limits::Limits;
use super::stream::chunks::{self, BufferPool, ChunkSender, ChunkStream, LayerBuffers};
use super::stream::decompress::{Compression, Decoder};
use super::stream::digests::{self, BlobSpec, HashInput, HashSender};
use super::stream::source::BlobReader;
use super::stream::zstd_reader::WindowGate;
use super::tar::entry::TarEntry;
use super::tar::path;
use super::tar::reader::TarReader;
use super::tar_split::compressor::LineCompressor;
use super::tar_split::rewrite::rewrite;
use super::tar_split::writer::{MetadataWriter, RepeatedNames};
use super::usage::{ImageUsage, LayerUsage};
use crate::fsutil::Buffers;
use crate::oci::DiffId;
use crate::overlay::DiffDir;
use crate::progress::Meter;

/// A layer to unpack, and how.
pub struct Job<'a> {
    /// The expected size and digest of the source; `None` for local content, which its diff id
    /// verifies.
    pub blob: Option<BlobSpec>,
    /// Whether the source is a tar, whatever its first bytes are. Otherwise, it may be compressed.
    pub plain: bool,
    /// Whether blocks of zeros in large files become holes.
    pub holes: bool,
    /// The empty directory for the files.
    pub diff: &'a mut DiffDir,
    /// The empty, readable file for the tar-split metadata.
    pub tar_split: File,
    /// Limits on the content.
    pub limits: Limits,
    /// Counts compressed bytes.
    pub meter: Option<Meter>,
    /// The pool of buffers. Layers with the same pool reuse each other's buffers.
    pub pool: BufferPool,
    /// Allows the windows of a zstd stream, which share memory with those of other layers.
    pub window: WindowGate,
    /// What the other layers of the image unpacked.
    pub image: ImageUsage,
}

/// An unpacked layer.
#[derive(Debug)]
pub struct Unpacked {
    /// The sha256 of the uncompressed tar. The caller must compare it with the expected one.
    pub diff_id: DiffId,
    /// Docker's size: the sum of the sizes of all files that are not directories, bytes.
    pub size: u64,
    /// The number of entries in the archive.
    pub entries: u64,
    /// What this process could not create.
    pub omissions: OmissionReport,
}

/// Unpacks `source` as `job` describes. After an error the directory has partial output, which
/// the caller must remove.
///
/// # Errors
/// [`LayerError`]. If the content is invalid and the blob has another digest than expected, it is
/// [`LayerError::Digest`].
pub fn unpack(source: impl Buffers + Send, job: Job<'_>) -> Result<Unpacked, LayerError> {
    let (to_files, files) = chunks::channel();
    let (to_hash, hash_input) = digests::channel();
    let (deferred, worker) = deferred::channel();
    let (to_compressor, lines) = sync_channel::<Vec<u8>>(budget::METADATA_QUEUE);
    let Job { blob, plain, holes, diff, tar_split, limits, meter, pool, window, image } = job;
    let mut usage = LayerUsage::new(image);
    let mut metadata = tar_split.try_clone().map_err(LayerError::TarSplit)?;
    thread::scope(|scope| {
        let decoding = spawn(scope, "inflate", move || {
            let source = BlobReader::new(source, blob, meter, to_hash.clone());
            let buffers = LayerBuffers::new(pool);
            decode(source, plain, window, &buffers, &to_files, &to_hash)
        })?;
        let hashing = spawn(scope, "hash", move || Ok(digests::hash_all(&hash_input, blob)))?;
        let compressing = spawn(scope, "metadata", move || compress(tar_split, &lines))?;
        let writing = spawn(scope, "write", move || worker.run())?;
        let extractor = Extractor::new(diff, deferred);
        let size = blob.map(|blob| blob.size);
        let checks = Checks { limits: &limits, usage: &mut usage, blob: size };
        let unpacked = unpack_entries(files, extractor, checks, holes, to_compressor);
        let (decoded, hashed) = (join(decoding), join(hashing));
        let (compressed, written) = (join(compressing), join(writing));
        let hashed = hashed?;
        // A complete blob with another digest is the cause of every other error. Next come errors
        // of the source.
        hashed.check_blob()?;
        decoded?;
        compressed?;
        written?;
        let (Extracted { size, mut overwritten, omissions }, repeated, entries) = unpacked?;
        if !repeated.is_empty() || !overwritten.is_empty() {
            let scratch = diff.temp_file().map_err(LayerError::TarSplit)?;
            rewrite(&mut metadata, scratch, &repeated, &mut overwritten)?;
        }
        let diff_id = hashed.diff_id()?;
        usage.keep();
        Ok(Unpacked { diff_id, size, entries, omissions })
    })
}

/// Starts a thread of the layer. `top -H` and profilers show its name.
fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &'static str,
    work: impl FnOnce() -> Result<T, LayerError> + Send + 'scope,
) -> Result<Running<'scope, T>, LayerError> {
    spawn_with(thread::Builder::new(), scope, name, work)
}

fn spawn_with<'scope, T: Send + 'scope>(
    builder: thread::Builder,
    scope: &'scope Scope<'scope, '_>,
    name: &'static str,
    work: impl FnOnce() -> Result<T, LayerError> + Send + 'scope,
) -> Result<Running<'scope, T>, LayerError> {
    let thread = builder.name(name.to_owned()).spawn_scoped(scope, work);
    thread.map_err(|source| LayerError::Thread { name, source })
}

type Running<'scope, T> = ScopedJoinHandle<'scope, Result<T, LayerError>>;

/// Waits for a thread and returns its result. A panic goes on in this thread: it is a bug, not a
/// cancellation.
fn join<T>(running: Running<'_, T>) -> Result<T, LayerError> {
    running.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Decodes the whole source into chunks for both consumers. If they stop early or the stream is
/// invalid, reads the rest for its digest: a blob with another digest must be reported as such.
fn decode<S: Buffers>(
    source: BlobReader<S>,
    plain: bool,
    gate: WindowGate,
    buffers: &LayerBuffers,
    files: &ChunkSender,
    hash: &HashSender,
) -> Result<(), LayerError> {
    let mut decoder = if plain { Decoder::plain(source) } else { Decoder::new(source, gate)? };
    loop {
        let mut buffer = buffers.acquire();
        let filled = match decoder.fill(buffer.memory()) {
            Ok(filled) if filled.is_empty() => return drain(decoder.source()),
            Ok(filled) => filled,
            Err(e) => {
                let error = classify(e, decoder.compression());
                if matches!(error, LayerError::Decompress { .. }) {
                    drain(decoder.source())?;
                }
                let _ = files.send(Err(LayerError::Cancelled));
                return Err(error);
            }
        };
        let chunk = buffer.into_chunk(filled);
        let _ = hash.send(HashInput::Uncompressed(chunk.clone()));
        if files.send(Ok(chunk)).is_err() {
            return drain(decoder.source());
        }
    }
}

fn drain<S: Buffers>(source: &mut BlobReader<S>) -> Result<(), LayerError> {
    source.drain().map_err(|e| LayerError::from_io(e, LayerError::Source))
}

fn classify(error: io::Error, kind: Compression) -> LayerError {
    LayerError::from_io(error, |source| match kind {
        Compression::None => LayerError::Source(source),
        kind => LayerError::Decompress { kind: kind.name(), source },
    })
}

fn compress(file: File, batches: &Receiver<Vec<u8>>) -> Result<(), LayerError> {
    let mut compressor = LineCompressor::new(file).map_err(LayerError::TarSplit)?;
    for lines in batches {
        compressor.write(&lines).map_err(LayerError::TarSplit)?;
    }
    compressor.finish().map(drop).map_err(LayerError::TarSplit)
}

/// What is checked for each entry of a layer.
struct Checks<'a> {
    limits: &'a Limits,
    usage: &'a mut LayerUsage,
    /// The compressed size, bytes.
    blob: Option<u64>,
}

/// Unpacks all entries of the archive to `files` and the metadata. Returns their number, too.
fn unpack_entries(
    chunks: ChunkStream,
    mut files: Extractor<'_>,
    checks: Checks<'_>,
    holes: bool,
    to_compressor: SyncSender<Vec<u8>>,
) -> Result<(Extracted, RepeatedNames, u64), LayerError> {
    let Checks { limits, usage, blob } = checks;
    let mut tar = TarReader::new(chunks, limits.pax);
    let mut metadata = MetadataWriter::new(Box::new(move |lines| {
        // If the compressor failed, its own error has the reason.
        to_compressor.send(lines).map_err(|_| LayerError::Cancelled)
    }));
    let mut count = 0;
    while let Some(entry) = tar.next(&mut metadata)? {
        count += 1;
        let bytes = tar.offset().saturating_add(entry.data_size);
        limits.check(bytes, blob, count)?;
        usage.update(bytes, count, limits)?;
        unpack_entry(&mut tar, &mut files, &mut metadata, &entry, (limits, holes))?;
    }
    metadata.end_segment()?;
    tar.trailer(&mut metadata)?;
    Ok((files.close()?, metadata.finish()?, count))
}

fn unpack_entry(
    tar: &mut TarReader,
    files: &mut Extractor<'_>,
    metadata: &mut MetadataWriter,
    entry: &TarEntry,
    (limits, holes): (&Limits, bool),
) -> Result<(), LayerError> {
    let path = path::clean(&entry.name, limits.depth)?;
    let placed = files.place(entry, &path, metadata.position())?;
    metadata.begin(&path.path, placed.stored_raw, entry.data_size)?;
    let data = match placed.file {
        Some(_) if deferred::can_defer(entry) => tar.data_slice()?,
        _ => None,
    };
    match (placed.file, data) {
        (Some(open), Some(data)) => {
            metadata.data(&data)?;
            tar.consume(data.len());
            files.finish_deferred(open, entry, data, path.path)?;
        }
        (file, _) => copy_data(tar, files, metadata, entry, (file, holes), &path.path)?,
    }
    metadata.end(&entry.name, entry.header_size)
}

/// Copies the entry's data to the metadata and to `file`, if it has one.
fn copy_data(
    tar: &mut TarReader,
    files: &mut Extractor<'_>,
    metadata: &mut MetadataWriter,
    entry: &TarEntry,
    (mut file, holes): (Option<OpenFile>, bool),
    path: &[u8],
) -> Result<(), LayerError> {
    let mut written = 0;
    loop {
        let bytes = tar.data()?;
        let n = bytes.len();
        if n == 0 {
            break;
        }
        metadata.data(bytes)?;
        if let Some(open) = &mut file {
            let done = match holes && entry.sparse.is_none() {
                true => open.write_with_holes(bytes, written),
                false => open.write(entry, bytes, written),
            };
            done.map_err(|e| LayerError::write("write", path, e))?;
        }
        written += n as u64;
        tar.consume(n);
    }
    let Some(open) = file else { return Ok(()) };
    if let Some(map) = &entry.sparse {
        open.file.set_len(map.size).map_err(|e| LayerError::write("write", path, e))?;
    } else if holes {
        open.file.set_len(written).map_err(|e| LayerError::write("write", path, e))?;
    }
    files.finish(open, entry, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn thread_that_cannot_start_is_a_thread_error() {
        thread::scope(|scope| {
            // No address space has room for this stack.
            let builder = thread::Builder::new().stack_size(1 << 60);
            let Err(error) = spawn_with(builder, scope, "inflate", || Ok(())) else {
                panic!("the thread started")
            };
            assert!(matches!(error, LayerError::Thread { name: "inflate", .. }), "{error}");
        });
    }

    #[test]
    #[should_panic(expected = "no such symbol")]
    fn panic_of_a_thread_is_a_panic_of_the_unpacker() {
        thread::scope(|scope| {
            let running =
                spawn(scope, "inflate", || -> Result<(), LayerError> { panic!("no such symbol") });
            let _ = join(running.unwrap());
        });
    }
}
