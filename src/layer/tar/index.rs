//! The list of a tar's files, for a tar that can be read at any position. Their data is not read.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::header::{self, BLOCK, RawHeader};
use super::{number, pax};
use crate::layer::{LayerError, LimitKind};

/// A name in a tar, and what it stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexedEntry {
    /// The name, unchanged.
    pub name: Vec<u8>,
    /// What it is.
    pub kind: IndexedKind,
}

/// The kind of an entry, as far as the files of a tar are concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IndexedKind {
    /// A regular file: where its data begins in the tar, and its size in bytes.
    File {
        /// The position of the data.
        offset: u64,
        /// Bytes of data.
        size: u64,
    },
    /// A symbolic link, with its target.
    Symlink(Vec<u8>),
    /// A hard link, with its target.
    Hardlink(Vec<u8>),
    /// A directory, a device, a sparse file, or of an unknown type.
    Other,
}

/// Lists the entries of the tar `file`. Refuses more than `most` entries, and names of more than
/// `most_bytes` together.
///
/// # Errors
/// [`LayerError::Tar`], [`LayerError::Truncated`], [`LayerError::Limit`], or [`LayerError::Source`] if
/// it cannot be read.
pub fn index(file: &File, most: u64, most_bytes: u64) -> Result<Vec<IndexedEntry>, LayerError> {
    let length = file.metadata().map_err(LayerError::Source)?.len();
    let mut reader = IndexReader { file, length, offset: 0, left: most_bytes };
    let mut entries = Vec::new();
    while let Some(entry) = reader.next()? {
        if entries.len() as u64 == most {
            return Err(LayerError::Limit { what: LimitKind::Entries, limit: most });
        }
        entries.push(entry);
    }
    Ok(entries)
}

struct IndexReader<'a> {
    file: &'a File,
    length: u64,
    offset: u64,
    /// Bytes of names that may follow.
    left: u64,
}

impl IndexReader<'_> {
    fn next(&mut self) -> Result<Option<IndexedEntry>, LayerError> {
        let (mut long_name, mut long_link, mut pax) = (None, None, pax::Pax::default());
        loop {
            let Some(block) = self.header()? else { return Ok(None) };
            let invalid = |offset| move |what| LayerError::Tar { offset, what };
            let raw = header::parse(&block).map_err(invalid(self.offset))?;
            match raw.flag {
                b'x' => pax = pax::parse(&self.text(&raw)?).map_err(invalid(self.offset))?,
                b'L' => long_name = Some(number::text(&self.text(&raw)?).to_vec()),
                b'K' => long_link = Some(number::text(&self.text(&raw)?).to_vec()),
                b'g' => drop(self.text(&raw)?),
                _ => {
                    let name = long_name.or(pax.path.take()).unwrap_or(raw.name);
                    let link = long_link.or(pax.linkpath.take()).unwrap_or(raw.link);
                    let size = u64::try_from(pax.size.unwrap_or(raw.size))
                        .map_err(|_| invalid(self.offset)("a negative size"))?;
                    let is_sparse = raw.flag == b'S' || pax.sparse.is_used();
                    let kind = self.entry(raw.flag, link, size, is_sparse)?;
                    self.count(name.len() as u64)?;
                    return Ok(Some(IndexedEntry { name, kind }));
                }
            }
        }
    }

    fn entry(
        &mut self,
        flag: u8,
        link: Vec<u8>,
        size: u64,
        is_sparse: bool,
    ) -> Result<IndexedKind, LayerError> {
        Ok(match flag {
            b'1' => self.link(link, IndexedKind::Hardlink)?,
            b'2' => self.link(link, IndexedKind::Symlink)?,
            b'3'..=b'6' => IndexedKind::Other,
            _ => {
                let offset = self.offset;
                self.skip(size)?;
                match flag {
                    0 | b'0' | b'7' if !is_sparse => IndexedKind::File { offset, size },
                    _ => IndexedKind::Other,
                }
            }
        })
    }

    fn link(
        &mut self,
        target: Vec<u8>,
        kind: impl FnOnce(Vec<u8>) -> IndexedKind,
    ) -> Result<IndexedKind, LayerError> {
        self.count(target.len() as u64)?;
        Ok(kind(target))
    }

    fn count(&mut self, bytes: u64) -> Result<(), LayerError> {
        let limit = || LayerError::Limit { what: LimitKind::Pax, limit: self.left };
        self.left = self.left.checked_sub(bytes).ok_or_else(limit)?;
        Ok(())
    }

    /// Returns the next header, or `None` at the end of the archive.
    fn header(&mut self) -> Result<Option<[u8; BLOCK]>, LayerError> {
        // The last padding can be missing, and so can the blocks of zeros.
        if self.offset >= self.length {
            return Ok(None);
        }
        let mut block = [0; BLOCK];
        self.read(&mut block)?;
        Ok((block != [0; BLOCK]).then_some(block))
    }

    /// Reads the data of an extended header.
    fn text(&mut self, raw: &RawHeader) -> Result<Vec<u8>, LayerError> {
        let size = raw.size.unsigned_abs();
        self.count(size)?;
        let mut data = vec![0; usize::try_from(size).unwrap_or_default()];
        let at = self.offset;
        self.skip(size)?;
        self.file.read_exact_at(&mut data, at).map_err(LayerError::Source)?;
        Ok(data)
    }

    fn read(&mut self, block: &mut [u8; BLOCK]) -> Result<(), LayerError> {
        if self.length - self.offset < BLOCK as u64 {
            return Err(LayerError::Truncated { offset: self.offset, what: "a header" });
        }
        self.file.read_exact_at(block, self.offset).map_err(LayerError::Source)?;
        self.offset += BLOCK as u64;
        Ok(())
    }

    /// Skips data with its padding. The data must be there.
    fn skip(&mut self, size: u64) -> Result<(), LayerError> {
        let end = self.offset.checked_add(size).filter(|end| *end <= self.length);
        let truncated = || LayerError::Truncated { offset: self.offset, what: "a file's data" };
        self.offset = end.ok_or_else(truncated)?.next_multiple_of(BLOCK as u64);
        Ok(())
    }
}
