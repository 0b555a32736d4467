//! A tar stream as entries, every byte that is no file data going to the tar-split record.
//!
//! What counts as an entry, where its data ends and which header wins is what Go's
//! archive/tar decides (reader.go `next`), since dockerd reads layers with it.

use super::header::{self, BLOCK, RawHeader, Time};
use super::pax::{self, Pax};
use super::sparse::{self, MapReader, SparseMap};
use crate::layer::LayerError;
use crate::layer::stream::chunks::{ChunkSlice, ChunkStream};
use crate::layer::tar_split::writer::Recorder;

/// What an entry makes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Dir,
    /// A symbolic link.
    Symlink,
    /// A hard link.
    Hardlink,
    /// A character device.
    Char,
    /// A block device.
    Block,
    /// A named pipe.
    Fifo,
    /// A PAX global header: nothing.
    Global,
}

/// One entry of a layer.
#[derive(Debug)]
pub struct Entry {
    /// The name in force, as it stands.
    pub name: Vec<u8>,
    /// The link's target, as it stands.
    pub link: Vec<u8>,
    /// What it makes.
    pub kind: Kind,
    /// Permission bits, 0 to 07777.
    pub mode: u32,
    /// Owner.
    pub uid: i64,
    /// Group.
    pub gid: i64,
    /// Modification time.
    pub mtime: Time,
    /// Access time, if the archive has one.
    pub atime: Option<Time>,
    /// Major and minor number of a device.
    pub device: (i64, i64),
    /// Extended attributes.
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    /// The size that the header states, whether or not data follows.
    pub stated: u64,
    /// Bytes of data that follow in the archive.
    pub data: u64,
    /// Where that data belongs, for a sparse file.
    pub sparse: Option<SparseMap>,
}

/// Reads entries from a stream of chunks.
pub struct TarReader {
    stream: ChunkStream,
    /// Bytes of the current entry's data that were not read yet.
    remaining: u64,
    /// Bytes of padding after that.
    padding: usize,
    /// The most bytes a PAX or GNU auxiliary header may have.
    pax_limit: u64,
}

impl TarReader {
    /// A reader at the start of an archive.
    pub fn new(stream: ChunkStream, pax_limit: u64) -> Self {
        Self { stream, remaining: 0, padding: 0, pax_limit }
    }

    /// Bytes of the archive read so far.
    pub fn offset(&self) -> u64 {
        self.stream.offset()
    }

    /// The next entry, or `None` at the archive's end. The data of the entry before must
    /// have been read.
    ///
    /// # Errors
    /// [`LayerError::Tar`], [`LayerError::Truncated`], or the stream's own.
    pub fn next(&mut self, record: &mut Recorder) -> Result<Option<Entry>, LayerError> {
        let (mut long_name, mut long_link, mut pax) = (None, None, Pax::default());
        loop {
            let Some(block) = self.header_block(record)? else { return Ok(None) };
            let mut raw = header::parse(&block).map_err(|what| self.bad(what))?;
            match raw.flag {
                b'x' => {
                    let data = self.auxiliary(&raw, record)?;
                    pax = pax::parse(&data).map_err(|what| self.bad(what))?;
                }
                b'L' => long_name = Some(self.long_text(&raw, record)?),
                b'K' => long_link = Some(self.long_text(&raw, record)?),
                b'g' => {
                    self.auxiliary(&raw, record)?;
                    return Ok(Some(global(raw.name)));
                }
                _ => {
                    raw.name = long_name.or(pax.path.take()).unwrap_or(raw.name);
                    raw.link = long_link.or(pax.linkpath.take()).unwrap_or(raw.link);
                    return self.entry(raw, pax, &block, record).map(Some);
                }
            }
        }
    }

    /// The next bytes of the current entry's data; none when it is all read.
    ///
    /// # Errors
    /// [`LayerError::Truncated`], or the stream's own.
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

    /// The rest of the current entry's data to keep, if it lies in one chunk.
    ///
    /// # Errors
    /// The stream's own.
    pub fn whole(&mut self) -> Result<Option<ChunkSlice>, LayerError> {
        match usize::try_from(self.remaining) {
            Ok(remaining) => self.stream.slice(remaining),
            Err(_) => Ok(None),
        }
    }

    /// Passes over `count` bytes that [`data`](Self::data) showed.
    pub fn consume(&mut self, count: usize) {
        self.stream.consume(count);
        self.remaining -= count as u64;
    }

    /// Records what follows the archive's end, up to the end of the stream.
    ///
    /// # Errors
    /// The stream's own.
    pub fn rest(&mut self, record: &mut Recorder) -> Result<(), LayerError> {
        record.flush_segment()?;
        loop {
            let bytes = self.stream.peek()?;
            let n = bytes.len();
            if n == 0 {
                return Ok(());
            }
            record.raw(bytes)?;
            self.stream.consume(n);
        }
    }

    fn header_block(&mut self, record: &mut Recorder) -> Result<Option<[u8; BLOCK]>, LayerError> {
        self.skip_padding(record)?;
        let Some(block) = self.block(record)? else { return Ok(None) };
        if block != [0; BLOCK] {
            return Ok(Some(block));
        }
        match self.block(record)? {
            Some(second) if second != [0; BLOCK] => Err(self.bad("a zero block amid the archive")),
            _ => Ok(None),
        }
    }

    fn block(&mut self, record: &mut Recorder) -> Result<Option<[u8; BLOCK]>, LayerError> {
        let mut block = [0; BLOCK];
        let n = self.stream.read_full(&mut block)?;
        record.raw(&block[..n])?;
        match n {
            0 => Ok(None),
            BLOCK => Ok(Some(block)),
            _ => Err(self.truncated("a header")),
        }
    }

    fn skip_padding(&mut self, record: &mut Recorder) -> Result<(), LayerError> {
        let mut padding = [0; BLOCK];
        let n = self.stream.read_full(&mut padding[..self.padding])?;
        self.padding = 0;
        // An archive that ends inside the last padding lacks nothing but zeros.
        record.raw(&padding[..n])
    }

    /// The data of an auxiliary header; its padding is left for the next entry, as
    /// tar-split does it.
    fn auxiliary(&mut self, raw: &RawHeader, record: &mut Recorder) -> Result<Vec<u8>, LayerError> {
        let size = raw.size.unsigned_abs();
        if size > self.pax_limit {
            return Err(LayerError::Limit {
                what: "the size of an extended header",
                limit: self.pax_limit,
                flag: "--max-pax-size",
            });
        }
        let mut data = vec![0; usize::try_from(size).unwrap_or(0)];
        let n = self.stream.read_full(&mut data)?;
        record.raw(&data[..n])?;
        if n < data.len() {
            return Err(self.truncated("an extended header"));
        }
        self.padding = padding_of(size);
        Ok(data)
    }

    fn long_text(&mut self, raw: &RawHeader, record: &mut Recorder) -> Result<Vec<u8>, LayerError> {
        let data = self.auxiliary(raw, record)?;
        Ok(header::text(&data).to_vec())
    }

    fn entry(
        &mut self,
        raw: RawHeader,
        pax: Pax,
        block: &[u8; BLOCK],
        record: &mut Recorder,
    ) -> Result<Entry, LayerError> {
        let kind = kind(&raw).ok_or_else(|| {
            LayerError::refused(
                &raw.name,
                format!("unknown tar entry type '{}'", raw.flag.escape_ascii()),
            )
        })?;
        let size =
            u64::try_from(pax.size.unwrap_or(raw.size)).map_err(|_| self.bad("a negative size"))?;
        // Links, directories and devices have no data, whatever their header says.
        let data = if matches!(kind, Kind::File) { size } else { 0 };
        let seconds = |seconds| Time { seconds, nanos: 0 };
        let mut entry = Entry {
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
            stated: size,
            data,
            sparse: None,
        };
        self.padding = padding_of(data);
        if raw.flag == b'S' {
            entry.sparse = Some(self.old_gnu_sparse(block, data, raw.gnu, record)?);
        } else if kind == Kind::File {
            self.pax_sparse(&mut entry, pax.sparse, record)?;
        }
        self.remaining = entry.data;
        Ok(entry)
    }

    /// GNU tar manual, "Old GNU Format": four runs in the header, the real size behind
    /// them, and blocks of 21 more runs while a flag says so.
    fn old_gnu_sparse(
        &mut self,
        block: &[u8; BLOCK],
        data: u64,
        gnu: bool,
        record: &mut Recorder,
    ) -> Result<SparseMap, LayerError> {
        if !gnu {
            return Err(self.bad("a sparse entry without GNU's magic"));
        }
        let mut runs = Vec::new();
        sparse::old_gnu_runs(&block[386..482], 4, &mut runs).map_err(|what| self.bad(what))?;
        let size = header::number(&block[483..495]).map_err(|what| self.bad(what))?;
        let mut extended = block[482] != 0;
        while extended {
            let more = self.block(record)?.ok_or_else(|| self.truncated("a sparse map"))?;
            sparse::old_gnu_runs(&more[..504], 21, &mut runs).map_err(|what| self.bad(what))?;
            extended = more[504] != 0;
        }
        SparseMap::new(runs, size, data).map_err(|what| self.bad(what))
    }

    fn pax_sparse(
        &mut self,
        entry: &mut Entry,
        found: pax::PaxSparse,
        record: &mut Recorder,
    ) -> Result<(), LayerError> {
        let before_data = match (found.major, found.minor, &found.map) {
            (Some(1), Some(0), _) => true,
            (Some(0), Some(0 | 1), Some(_)) | (None, None, Some(_)) => false,
            _ => return Ok(()),
        };
        let runs = if before_data {
            self.map_before_data(entry, record)?
        } else {
            found.map.unwrap_or_default()
        };
        entry.name = found.name.unwrap_or(std::mem::take(&mut entry.name));
        let size = found.size.unwrap_or_else(|| entry.stated.cast_signed());
        let map = SparseMap::new(runs, size, entry.data).map_err(|what| self.bad(what))?;
        entry.sparse = Some(map);
        Ok(())
    }

    fn map_before_data(
        &mut self,
        entry: &mut Entry,
        record: &mut Recorder,
    ) -> Result<Vec<sparse::Run>, LayerError> {
        let mut map = MapReader::default();
        loop {
            entry.data = entry
                .data
                .checked_sub(BLOCK as u64)
                .ok_or_else(|| self.bad("an invalid sparse map"))?;
            let block = self.block(record)?.ok_or_else(|| self.truncated("a sparse map"))?;
            if let Some(runs) = map.block(&block).map_err(|what| self.bad(what))? {
                return Ok(runs);
            }
        }
    }

    fn bad(&self, what: &'static str) -> LayerError {
        LayerError::Tar { offset: self.offset(), what }
    }

    fn truncated(&self, what: &'static str) -> LayerError {
        LayerError::Truncated { offset: self.offset(), what }
    }
}

fn padding_of(size: u64) -> usize {
    (size.wrapping_neg() % BLOCK as u64) as usize
}

fn kind(raw: &RawHeader) -> Option<Kind> {
    Some(match raw.flag {
        // Before POSIX, a trailing slash was what made a directory.
        0 if raw.name.ends_with(b"/") => Kind::Dir,
        0 | b'0' | b'7' | b'S' => Kind::File,
        b'1' => Kind::Hardlink,
        b'2' => Kind::Symlink,
        b'3' => Kind::Char,
        b'4' => Kind::Block,
        b'5' => Kind::Dir,
        b'6' => Kind::Fifo,
        _ => return None,
    })
}

fn global(name: Vec<u8>) -> Entry {
    Entry {
        name,
        link: Vec::new(),
        kind: Kind::Global,
        mode: 0,
        uid: 0,
        gid: 0,
        mtime: Time::default(),
        atime: None,
        device: (0, 0),
        xattrs: Vec::new(),
        stated: 0,
        data: 0,
        sparse: None,
    }
}
