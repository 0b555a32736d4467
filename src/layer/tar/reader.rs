//! The reader of a tar stream: entries and their data, and separately every byte that is not file
//! data.
//!
//! Which headers make an entry, where its data ends and which header wins is what Go's
//! archive/tar decides (reader.go `next`), because dockerd reads layers with it.

use super::entry::{EntryType, TarEntry};
use super::header::{self, BLOCK, RawHeader, Time};
use super::number;
use super::pax::{self, Pax};
use super::sparse::{self, MapReader, SparseMap};
use crate::layer::stream::chunks::{ChunkSlice, ChunkStream};
use crate::layer::{LayerError, LimitKind};

/// Takes the bytes of an archive that are not file data: headers, padding and what follows the
/// end.
pub trait RawSink {
    /// Takes `bytes`, which follow those of the call before.
    ///
    /// # Errors
    /// [`LayerError::Cancelled`] if the metadata cannot be written.
    fn raw(&mut self, bytes: &[u8]) -> Result<(), LayerError>;
}

/// Reads entries from a stream of chunks.
pub struct TarReader {
    stream: ChunkStream,
    /// Unread bytes of the current entry's data.
    remaining: u64,
    /// Bytes of padding after the data.
    padding: usize,
    /// Bytes of a PAX or GNU extended header at most.
    pax_limit: u64,
}

impl TarReader {
    /// Creates a reader at the start of an archive.
    pub fn new(stream: ChunkStream, pax_limit: u64) -> Self {
        Self { stream, remaining: 0, padding: 0, pax_limit }
    }

    /// The number of bytes of the archive read so far.
    pub fn offset(&self) -> u64 {
        self.stream.offset()
    }

    /// Returns the next entry, or `None` at the archive's end. The data of the entry before must
    /// have been consumed.
    ///
    /// # Errors
    /// [`LayerError::Tar`], [`LayerError::Truncated`], [`LayerError::Limit`], or the stream's error.
    pub fn next(&mut self, raw_bytes: &mut impl RawSink) -> Result<Option<TarEntry>, LayerError> {
        let (mut long_name, mut long_link, mut pax) = (None, None, Pax::default());
        loop {
            let Some(block) = self.header_block(raw_bytes)? else { return Ok(None) };
            let mut raw = header::parse(&block).map_err(|what| self.invalid(what))?;
            match raw.flag {
                b'x' => {
                    let data = self.extended_header(&raw, raw_bytes)?;
                    pax = pax::parse(&data).map_err(|what| self.invalid(what))?;
                }
                b'L' => long_name = Some(self.long_text(&raw, raw_bytes)?),
                b'K' => long_link = Some(self.long_text(&raw, raw_bytes)?),
                b'g' => {
                    self.extended_header(&raw, raw_bytes)?;
                    return Ok(Some(TarEntry::global(raw.name)));
                }
                _ => {
                    raw.name = long_name.or(pax.path.take()).unwrap_or(raw.name);
                    raw.link = long_link.or(pax.linkpath.take()).unwrap_or(raw.link);
                    return self.entry(raw, pax, &block, raw_bytes).map(Some);
                }
            }
        }
    }

    /// Returns the next bytes of the current entry's data. They are empty only at its end.
    ///
    /// # Errors
    /// [`LayerError::Truncated`], or the stream's error.
    pub fn data(&mut self) -> Result<&[u8], LayerError> {
        if self.remaining == 0 {
            return Ok(&[]);
        }
        let offset = self.stream.offset();
        let bytes = self.stream.peek()?;
        if bytes.is_empty() {
            return Err(LayerError::Truncated { offset, what: "a file's data" });
        }
        let n = usize::try_from(self.remaining).unwrap_or(usize::MAX).min(bytes.len());
        Ok(&bytes[..n])
    }

    /// Returns the rest of the current entry's data if it lies in one chunk. Does not consume it.
    ///
    /// # Errors
    /// The stream's error.
    pub fn data_slice(&mut self) -> Result<Option<ChunkSlice>, LayerError> {
        match usize::try_from(self.remaining) {
            Ok(remaining) => self.stream.slice(remaining),
            Err(_) => Ok(None),
        }
    }

    /// Consumes `count` of the bytes that [`data`](Self::data) returned.
    pub fn consume(&mut self, count: usize) {
        self.stream.consume(count);
        self.remaining -= count as u64;
    }

    /// Reads from the archive's end to the end of the stream.
    ///
    /// # Errors
    /// The stream's error.
    pub fn trailer(&mut self, raw_bytes: &mut impl RawSink) -> Result<(), LayerError> {
        loop {
            let bytes = self.stream.peek()?;
            let n = bytes.len();
            if n == 0 {
                return Ok(());
            }
            raw_bytes.raw(bytes)?;
            self.stream.consume(n);
        }
    }

    fn header_block(
        &mut self,
        raw_bytes: &mut impl RawSink,
    ) -> Result<Option<[u8; BLOCK]>, LayerError> {
        self.skip_padding(raw_bytes)?;
        let Some(block) = self.block(raw_bytes)? else { return Ok(None) };
        if block != [0; BLOCK] {
            return Ok(Some(block));
        }
        match self.block(raw_bytes)? {
            Some(second) if second != [0; BLOCK] => {
                Err(self.invalid("a zero block inside the archive"))
            }
            _ => Ok(None),
        }
    }

    fn block(&mut self, raw_bytes: &mut impl RawSink) -> Result<Option<[u8; BLOCK]>, LayerError> {
        let mut block = [0; BLOCK];
        let n = self.stream.read_full(&mut block)?;
        raw_bytes.raw(&block[..n])?;
        match n {
            0 => Ok(None),
            BLOCK => Ok(Some(block)),
            _ => Err(self.truncated("a header")),
        }
    }

    fn skip_padding(&mut self, raw_bytes: &mut impl RawSink) -> Result<(), LayerError> {
        let mut padding = [0; BLOCK];
        let n = self.stream.read_full(&mut padding[..self.padding])?;
        self.padding = 0;
        // An archive may end inside the last padding: only zeros are missing.
        raw_bytes.raw(&padding[..n])
    }

    /// Reads the data of an extended header. Leaves its padding to the next entry, as tar-split
    /// does.
    fn extended_header(
        &mut self,
        raw: &RawHeader,
        raw_bytes: &mut impl RawSink,
    ) -> Result<Vec<u8>, LayerError> {
        let size = raw.size.unsigned_abs();
        if size > self.pax_limit {
            return Err(LayerError::Limit { what: LimitKind::Pax, limit: self.pax_limit });
        }
        let mut data = vec![0; usize::try_from(size).unwrap_or(0)];
        let n = self.stream.read_full(&mut data)?;
        raw_bytes.raw(&data[..n])?;
        if n < data.len() {
            return Err(self.truncated("an extended header"));
        }
        self.padding = padding_of(size);
        Ok(data)
    }

    fn long_text(
        &mut self,
        raw: &RawHeader,
        raw_bytes: &mut impl RawSink,
    ) -> Result<Vec<u8>, LayerError> {
        let data = self.extended_header(raw, raw_bytes)?;
        Ok(number::text(&data).to_vec())
    }

    fn entry(
        &mut self,
        raw: RawHeader,
        pax: Pax,
        block: &[u8; BLOCK],
        raw_bytes: &mut impl RawSink,
    ) -> Result<TarEntry, LayerError> {
        let kind = entry_type(&raw).ok_or_else(|| {
            LayerError::refused(
                &raw.name,
                format!("unknown tar entry type '{}'", raw.flag.escape_ascii()),
            )
        })?;
        let size = u64::try_from(pax.size.unwrap_or(raw.size))
            .map_err(|_| self.invalid("a negative size"))?;
        // Links, directories and devices have no data, whatever their header says.
        let data = if matches!(kind, EntryType::File) { size } else { 0 };
        let seconds = |seconds| Time { seconds, nanos: 0 };
        let mut entry = TarEntry {
            mode: u32::try_from(raw.mode & 0o7777).unwrap_or(0),
            uid: pax.uid.unwrap_or(raw.uid),
            gid: pax.gid.unwrap_or(raw.gid),
            mtime: pax.mtime.unwrap_or(seconds(raw.mtime)),
            atime: pax.atime.or(raw.atime.map(seconds)),
            device: (raw.major, raw.minor),
            name: raw.name,
            link: raw.link,
            kind,
            xattrs: pax.xattrs,
            header_size: size,
            data_size: data,
            sparse: None,
        };
        self.padding = padding_of(data);
        if raw.flag == b'S' {
            entry.sparse = Some(self.old_gnu_sparse(block, data, raw.gnu, raw_bytes)?);
        } else if kind == EntryType::File {
            self.pax_sparse(&mut entry, pax.sparse, raw_bytes)?;
        }
        self.remaining = entry.data_size;
        Ok(entry)
    }

    /// Reads the map of the old GNU format (GNU tar manual, "Old GNU Format"): four extents in
    /// the header, then the file's size, and blocks of 21 more extents while a flag is set.
    fn old_gnu_sparse(
        &mut self,
        block: &[u8; BLOCK],
        data: u64,
        gnu: bool,
        raw_bytes: &mut impl RawSink,
    ) -> Result<SparseMap, LayerError> {
        if !gnu {
            return Err(self.invalid("a sparse entry without GNU's magic"));
        }
        let mut extents = Vec::new();
        sparse::old_gnu_extents(&block[386..482], 4, &mut extents)
            .map_err(|what| self.invalid(what))?;
        let size = number::field(&block[483..495]).map_err(|what| self.invalid(what))?;
        let mut extended = block[482] != 0;
        while extended {
            let more = self.block(raw_bytes)?.ok_or_else(|| self.truncated("a sparse map"))?;
            sparse::old_gnu_extents(&more[..504], 21, &mut extents)
                .map_err(|what| self.invalid(what))?;
            extended = more[504] != 0;
        }
        SparseMap::new(extents, size, data).map_err(|what| self.invalid(what))
    }

    fn pax_sparse(
        &mut self,
        entry: &mut TarEntry,
        found: pax::PaxSparse,
        raw_bytes: &mut impl RawSink,
    ) -> Result<(), LayerError> {
        let before_data = match (found.major, found.minor, &found.map) {
            (Some(1), Some(0), _) => true,
            (Some(0), Some(0 | 1), Some(_)) | (None, None, Some(_)) => false,
            _ => return Ok(()),
        };
        let extents = if before_data {
            self.map_before_data(entry, raw_bytes)?
        } else {
            found.map.unwrap_or_default()
        };
        entry.name = found.name.unwrap_or(std::mem::take(&mut entry.name));
        let size = found.size.unwrap_or_else(|| entry.header_size.cast_signed());
        let map =
            SparseMap::new(extents, size, entry.data_size).map_err(|what| self.invalid(what))?;
        entry.sparse = Some(map);
        Ok(())
    }

    fn map_before_data(
        &mut self,
        entry: &mut TarEntry,
        raw_bytes: &mut impl RawSink,
    ) -> Result<Vec<sparse::Extent>, LayerError> {
        let mut map = MapReader::default();
        loop {
            entry.data_size = entry
                .data_size
                .checked_sub(BLOCK as u64)
                .ok_or_else(|| self.invalid("an invalid sparse map"))?;
            let block = self.block(raw_bytes)?.ok_or_else(|| self.truncated("a sparse map"))?;
            if let Some(extents) = map.block(&block).map_err(|what| self.invalid(what))? {
                return Ok(extents);
            }
        }
    }

    fn invalid(&self, what: &'static str) -> LayerError {
        LayerError::Tar { offset: self.offset(), what }
    }

    fn truncated(&self, what: &'static str) -> LayerError {
        LayerError::Truncated { offset: self.offset(), what }
    }
}

fn padding_of(size: u64) -> usize {
    (size.wrapping_neg() % BLOCK as u64) as usize
}

fn entry_type(raw: &RawHeader) -> Option<EntryType> {
    Some(match raw.flag {
        // Before POSIX, only a trailing slash marked a directory.
        0 if raw.name.ends_with(b"/") => EntryType::Dir,
        0 | b'0' | b'7' | b'S' => EntryType::File,
        b'1' => EntryType::Hardlink,
        b'2' => EntryType::Symlink,
        b'3' => EntryType::Char,
        b'4' => EntryType::Block,
        b'5' => EntryType::Dir,
        b'6' => EntryType::Fifo,
        _ => return None,
    })
}
