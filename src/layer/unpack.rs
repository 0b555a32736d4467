//! A compressed stream to verified files: the threads of one layer and their order.
//!
//! ```text
//! source -> [count, decompress] -+-> [sha256 of both: the blob's digest, the diff id]
//!                                +-> [tar -> files, record] -+-> [data of small files]
//!                                                            +-> [gzip of the record]
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
use super::extract::metadata::Owners;
use super::extract::{Extracted, Extractor, OpenFile};
use super::limits::Limits;
use super::stream::chunks::{self, BufferPool, ChunkSender, ChunkStream, LayerBuffers};
use super::stream::decompress::{Compression, Decoder};
use super::stream::digests::{self, HashInput, HashSender};
use super::stream::source::{BlobReader, BlobSpec};
use super::tar::path;
use super::tar::reader::{Entry, TarReader};
use super::tar_split::rewrite::{self, Writer};
use super::tar_split::writer::{Recorder, Repeated};
use crate::fsutil::Runs;
use crate::oci::DiffId;
use crate::overlay::DiffDir;
use crate::progress::Meter;

/// What to unpack, and how.
pub struct Job<'a> {
    /// What the source must be; `None` for a local copy, whose diff id says it all.
    pub blob: Option<BlobSpec>,
    /// The empty directory for the files.
    pub diff: &'a mut DiffDir,
    /// The empty, readable file for the record.
    pub tar_split: File,
    /// Bounds.
    pub limits: Limits,
    /// Whose the files become.
    pub owners: Owners,
    /// Counts compressed bytes.
    pub meter: Option<Meter>,
    /// Where buffers come from: layers that have theirs from one pool use each other's.
    pub pool: BufferPool,
}

/// A layer that lies unpacked.
#[derive(Debug)]
pub struct Unpacked {
    /// The sha256 of the uncompressed tar. The caller compares it.
    pub diff_id: DiffId,
    /// Docker's size: the sum of the sizes of all non-directories, bytes.
    pub size: u64,
    /// Entries in the archive.
    pub entries: u64,
    /// What the user should know.
    pub warnings: Vec<String>,
}

/// Unpacks what `source` brings as `job` says. On an error the directory holds rubbish, which
/// is the caller's to remove.
///
/// # Errors
/// [`LayerError`]; where the content is broken and the blob is not the one that was asked
/// for, the latter is said.
pub fn unpack(source: impl Runs + Send, job: Job<'_>) -> Result<Unpacked, LayerError> {
    let (to_files, files) = chunks::channel();
    let (to_hash, hash) = digests::channel();
    let (behind, worker) = deferred::channel();
    let (to_record, record) = sync_channel::<Vec<u8>>(budget::METADATA_QUEUE);
    let Job { blob, diff, tar_split, limits, owners, meter, pool } = job;
    let local = blob.is_none();
    let mut kept = tar_split.try_clone().map_err(LayerError::TarSplit)?;
    thread::scope(|scope| {
        let decoding = spawn(scope, "inflate", move || {
            let source = BlobReader::new(source, blob, meter, to_hash.clone());
            decode(source, local, &LayerBuffers::new(pool), &to_files, &to_hash)
        })?;
        let hashing = spawn(scope, "hash", move || Ok(digests::hash_all(&hash)))?;
        let recording = spawn(scope, "record", move || write_record(tar_split, &record))?;
        let writing = spawn(scope, "write", move || worker.run())?;
        let extractor = Extractor::new(diff, owners, behind);
        let unpacked = entries(files, extractor, &limits, blob.map(|blob| blob.size), to_record);
        let (decoded, digests) = (join(decoding), join(hashing));
        let (recorded, written) = (join(recording), join(writing));
        let digests = digests?;
        // A blob that came whole and is another explains all failures, then the source's own.
        let whole = matches!(decoded, Ok(()) | Err(LayerError::Decompress { .. }));
        if let Some(blob) = blob.filter(|_| whole) {
            blob.check(digests.blob)?;
        }
        decoded?;
        recorded?;
        written?;
        let (Extracted { size, mut spool, warnings }, repeated, entries) = unpacked?;
        if !repeated.is_empty() || !spool.is_empty() {
            let scratch = diff.temp_file().map_err(LayerError::TarSplit)?;
            rewrite::mend(&mut kept, scratch, &repeated, &mut spool)?;
        }
        Ok(Unpacked { diff_id: DiffId(digests.tar), size, entries, warnings })
    })
}

/// Starts a thread of the layer; `top -H` and profilers tell them apart by their names.
fn spawn<'scope, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() -> Result<T, LayerError> + Send + 'scope,
) -> Result<Running<'scope, T>, LayerError> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn_scoped(scope, work);
    thread.map_err(|source| LayerError::Write { op: "start", path: "a thread".to_owned(), source })
}

type Running<'scope, T> = ScopedJoinHandle<'scope, Result<T, LayerError>>;

/// What came of a thread.
fn join<T>(running: Running<'_, T>) -> Result<T, LayerError> {
    running.join().unwrap_or(Err(LayerError::Cancelled))
}

/// Reads the whole source in chunks for both consumers. When they stop early, or the
/// stream is broken, the rest is read for its digest alone: a blob that is not the one
/// asked for must be called that.
fn decode<S: Runs>(
    source: BlobReader<S>,
    local: bool,
    buffers: &LayerBuffers,
    files: &ChunkSender,
    hash: &HashSender,
) -> Result<(), LayerError> {
    let mut decoder = if local { Decoder::plain(source) } else { Decoder::new(source)? };
    loop {
        let mut buffer = buffers.acquire();
        let made = match decoder.fill(buffer.memory()) {
            Ok(made) if made.is_empty() => return drain(decoder.source()),
            Ok(made) => made,
            Err(e) => {
                let error = classify(e, decoder.compression());
                if matches!(error, LayerError::Decompress { .. }) {
                    drain(decoder.source())?;
                }
                let _ = files.send(Err(LayerError::Cancelled));
                return Err(error);
            }
        };
        let chunk = buffer.into_chunk(made);
        let _ = hash.send(HashInput::Uncompressed(chunk.clone()));
        if files.send(Ok(chunk)).is_err() {
            return drain(decoder.source());
        }
    }
}

fn drain<S: Runs>(source: &mut BlobReader<S>) -> Result<(), LayerError> {
    source.drain().map_err(|e| LayerError::from_io(e, LayerError::Source))
}

fn classify(error: io::Error, kind: Compression) -> LayerError {
    LayerError::from_io(error, |source| match kind {
        Compression::None => LayerError::Source(source),
        kind => LayerError::Decompress { kind: kind.name(), source },
    })
}

fn write_record(file: File, lines: &Receiver<Vec<u8>>) -> Result<(), LayerError> {
    let mut writer = Writer::new(file).map_err(LayerError::TarSplit)?;
    for lines in lines {
        writer.lines(&lines).map_err(LayerError::TarSplit)?;
    }
    writer.finish().map(drop).map_err(LayerError::TarSplit)
}

/// All entries of the archive to `files` and the record; how many there were.
fn entries(
    chunks: ChunkStream,
    mut files: Extractor<'_>,
    limits: &Limits,
    blob: Option<u64>,
    record: SyncSender<Vec<u8>>,
) -> Result<(Extracted, Repeated, u64), LayerError> {
    let mut tar = TarReader::new(chunks, limits.pax);
    let mut record = Recorder::new(Box::new(move |lines| {
        // If the writer is gone, its own error is the one to tell.
        record.send(lines).map_err(|_| LayerError::Cancelled)
    }));
    let mut count = 0;
    while let Some(entry) = tar.next(&mut record)? {
        count += 1;
        limits.check(tar.offset() + entry.data, blob, count)?;
        one_entry(&mut tar, &mut files, &mut record, &entry, limits)?;
    }
    tar.rest(&mut record)?;
    Ok((files.close()?, record.finish()?, count))
}

fn one_entry(
    tar: &mut TarReader,
    files: &mut Extractor<'_>,
    record: &mut Recorder,
    entry: &Entry,
    limits: &Limits,
) -> Result<(), LayerError> {
    let name = path::clean(&entry.name, limits.depth)?;
    let placed = files.place(entry, &name, record.position())?;
    record.begin(&name.path, placed.held, entry.data)?;
    let whole = match placed.file {
        Some(_) if deferred::takes(entry) => tar.whole()?,
        _ => None,
    };
    match (placed.file, whole) {
        (Some(open), Some(data)) => {
            record.data(&data)?;
            tar.consume(data.len());
            files.finish_behind(open, entry, data, name.path)?;
        }
        (file, _) => pass_through(tar, files, record, entry, file, &name.path)?,
    }
    record.end(&entry.name, entry.stated)
}

/// The entry's data to the record and to `file`, if it has one, as it comes.
fn pass_through(
    tar: &mut TarReader,
    files: &mut Extractor<'_>,
    record: &mut Recorder,
    entry: &Entry,
    mut file: Option<OpenFile>,
    path: &[u8],
) -> Result<(), LayerError> {
    let mut written = 0;
    loop {
        let bytes = tar.data()?;
        let n = bytes.len();
        if n == 0 {
            break;
        }
        record.data(bytes)?;
        if let Some(open) = &mut file {
            open.write(entry, bytes, written).map_err(|e| LayerError::write("write", path, e))?;
        }
        written += n as u64;
        tar.consume(n);
    }
    let Some(open) = file else { return Ok(()) };
    if let Some(map) = &entry.sparse {
        open.file.set_len(map.size).map_err(|e| LayerError::write("write", path, e))?;
    }
    files.finish(open, entry, path)
}
