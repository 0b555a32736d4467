//! Tar archives of this machine that are not layers yet.

use std::io::{self, BufRead, Read};
use std::thread;

use super::budget;
use super::stream::chunks::{self, BufferPool, ChunkSender, LayerBuffers};
use super::stream::decompress::Decoder;
use super::tar::entry::EntryType;
use super::tar::header::{self, BLOCK, Time};
use super::tar::path;
use super::tar::reader::{RawSink, TarReader};
use super::tar::sparse::SparseMap;
use super::{LayerError, Limits};
use crate::overlay::{self, Xattrs};

/// An entry of an archive.
#[derive(Debug)]
pub struct ArchiveEntry {
    /// The path: clean and relative.
    pub path: Vec<u8>,
    /// The type, which is not `Global`.
    pub kind: EntryType,
    /// The target of a symlink, unchanged; that of a hard link, clean and relative.
    pub link: Vec<u8>,
    /// Permission bits, 0 to 07777.
    pub mode: u32,
    /// User and group.
    pub owner: (u32, u32),
    /// The time of modification.
    pub mtime: Time,
    /// Major and minor number of a device.
    pub device: (u32, u32),
    /// Extended attributes.
    pub xattrs: Xattrs,
    /// Bytes of data in the archive.
    pub size: u64,
    /// The layout of a sparse file, whose data lacks its holes.
    pub sparse: Option<SparseMap>,
}

/// Returns whether `file` is a tar, plain or compressed: whether its first block is a header.
///
/// # Errors
/// [`LayerError::Compression`] for a compression that cannot be decoded, the error of `file`.
pub fn is_tar(file: impl BufRead) -> Result<bool, LayerError> {
    let mut decoder = Decoder::new(file, Box::new(|_| true))?;
    let mut buffer = vec![0; budget::BUFFER_SIZE];
    // What cannot be decoded is not an archive.
    let Ok(filled) = decoder.fill(&mut buffer) else { return Ok(false) };
    let block = buffer[filled].first_chunk::<BLOCK>();
    Ok(block.is_some_and(|block| *block != [0; BLOCK] && header::parse(block).is_ok()))
}

/// Calls `each` with the entries of an archive, plain or compressed, and a reader of their data. The
/// root directory and global headers are left out. Reads `file` to its end.
///
/// # Errors
/// [`LayerError`] if the archive is invalid, leads out of its root, has names of whiteouts, or is larger than the default
/// [`Limits`]; the error of `each`.
pub fn read_tar<E: From<LayerError>>(
    file: impl BufRead + Send,
    mut each: impl FnMut(ArchiveEntry, &mut dyn Read) -> Result<(), E>,
) -> Result<(), E> {
    let (sender, stream) = chunks::channel();
    let buffers = LayerBuffers::new(BufferPool::default());
    thread::scope(|scope| {
        // The reader is dropped before the end of the scope, upon which the thread ends.
        let builder = thread::Builder::new().name("inflate".to_owned());
        builder
            .spawn_scoped(scope, move || {
                if let Err(error) = decode(file, &buffers, &sender) {
                    let _ = sender.send(Err(error));
                }
            })
            .map_err(|source| LayerError::Thread { name: "inflate", source })?;
        let limits = Limits::default();
        let mut reader = TarReader::new(stream, limits.pax);
        let mut entries = 0;
        while let Some(entry) = reader.next(&mut Discard)? {
            entries += 1;
            limits.check(reader.offset(), None, entries)?;
            let path = path::clean(&entry.name, limits.depth)?.path;
            if path.is_empty() || entry.kind == EntryType::Global {
                continue;
            }
            let refused = |why: &str| LayerError::refused(&entry.name, why.to_owned());
            let number = |number: i64| {
                u32::try_from(number).map_err(|_| refused("an owner or device number is too large"))
            };
            if overlay::split(&path).1.starts_with(b".wh.") {
                return Err(refused("a name that begins with .wh. hides a file in a layer").into());
            }
            let link = match entry.kind {
                EntryType::Hardlink => path::clean(&entry.link, limits.depth)?.path,
                _ => entry.link.clone(),
            };
            let owner = (number(entry.uid)?, number(entry.gid)?);
            let device = (number(entry.device.0)?, number(entry.device.1)?);
            let entry = ArchiveEntry {
                path,
                kind: entry.kind,
                link,
                mode: entry.mode,
                owner,
                mtime: entry.mtime,
                device,
                xattrs: entry.xattrs,
                size: entry.data_size,
                sparse: entry.sparse,
            };
            let mut data = EntryData(&mut reader);
            each(entry, &mut data)?;
            data.skip()?;
        }
        Ok(reader.trailer(&mut Discard)?)
    })
}

fn decode(
    file: impl BufRead,
    buffers: &LayerBuffers,
    sender: &ChunkSender,
) -> Result<(), LayerError> {
    let mut decoder = Decoder::new(file, Box::new(|_| true))?;
    loop {
        let mut buffer = buffers.acquire();
        let filled = decoder.fill(buffer.memory()).map_err(LayerError::Source)?;
        if filled.is_empty() {
            let rest = io::copy(decoder.source(), &mut io::sink());
            return rest.map(drop).map_err(LayerError::Source);
        }
        if sender.send(Ok(buffer.into_chunk(filled))).is_err() {
            return Ok(());
        }
    }
}

/// The data of the current entry.
struct EntryData<'a>(&'a mut TarReader);

impl EntryData<'_> {
    fn skip(&mut self) -> Result<(), LayerError> {
        loop {
            match self.0.data()?.len() {
                0 => return Ok(()),
                n => self.0.consume(n),
            }
        }
    }
}

impl Read for EntryData<'_> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let bytes = self.0.data().map_err(io::Error::other)?;
        let n = bytes.len().min(out.len());
        out[..n].copy_from_slice(&bytes[..n]);
        self.0.consume(n);
        Ok(n)
    }
}

/// Nothing but the entries matters.
struct Discard;

impl RawSink for Discard {
    fn raw(&mut self, _: &[u8]) -> Result<(), LayerError> {
        Ok(())
    }
}
