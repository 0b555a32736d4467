//! The tar of the changes of a mount: what a layer of them consists of. Equal changes give equal bytes.

use std::collections::HashMap;
use std::io::{self, Write};

use rustix::fs::{self, FileType};

use super::LayerError;
use super::tar::entry::EntryType;
use super::tar::header::Time;
use super::tar::writer::{DataError, NewEntry, TarWriter};
use crate::overlay::{self, Change, ChangeKind, Changes};

/// The name, in a directory, that makes it opaque.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// The mode of a whiteout, as dockerd writes it.
const WHITEOUT_MODE: u32 = 0o600;

/// Writes `changes` to `out` as a tar: sorted, with whiteouts and opaque directories by name, hard links,
/// devices and extended attributes, and with times in whole seconds, as in a layer that dockerd commits.
/// Times after `latest`, in seconds, become `latest`. Sockets are left out, because tar has none. Returns their
/// number.
///
/// # Errors
/// [`LayerError::Changes`] if the changes cannot be read, [`LayerError::Cancelled`] or [`LayerError::Source`] if `out` fails, whose
/// user has the reason.
pub fn write_changes(
    changes: &Changes,
    latest: Option<i64>,
    out: impl Write,
) -> Result<u64, LayerError> {
    let mut tar = ChangesTar { changes, latest, tar: TarWriter::new(out), links: HashMap::new() };
    let mut sockets = 0;
    for change in changes.walk() {
        let change = change?;
        if change.kind == ChangeKind::Other(FileType::Socket) {
            sockets += 1;
        } else {
            tar.add(&change)?;
        }
    }
    tar.tar.finish().map_err(|_| LayerError::Cancelled)?;
    Ok(sockets)
}

struct ChangesTar<'a, W> {
    changes: &'a Changes,
    latest: Option<i64>,
    tar: TarWriter<W>,
    /// The names of files with several links, by device and inode number, until all were written.
    links: HashMap<(u64, u64), (Vec<u8>, u64)>,
}

impl<W: Write> ChangesTar<'_, W> {
    fn add(&mut self, change: &Change) -> Result<(), LayerError> {
        let stat = &change.stat;
        let seconds = self.latest.map_or(stat.st_mtime, |latest| stat.st_mtime.min(latest));
        let header = NewEntry {
            name: &change.path,
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            mtime: Time { seconds, nanos: 0 },
            xattrs: &change.xattrs,
            ..NewEntry::file()
        };
        match change.kind {
            ChangeKind::Whiteout => self.whiteout(change),
            ChangeKind::Dir { opaque } => {
                let name = [&change.path, &b"/"[..]].concat();
                self.entry(&NewEntry { name: &name, kind: EntryType::Dir, ..header })?;
                if opaque { self.opaque(change) } else { Ok(()) }
            }
            ChangeKind::Other(kind) => match self.first_name(change) {
                Some(first) => {
                    let kind = EntryType::Hardlink;
                    self.entry(&NewEntry { kind, link: &first, xattrs: &[], ..header })
                }
                None => self.file(change, kind, header),
            },
        }
    }

    /// A whiteout has no time, because overlayfs shares one file for all of them.
    fn whiteout(&mut self, change: &Change) -> Result<(), LayerError> {
        let (dir, name) = overlay::split(&change.path);
        let separator: &[u8] = if dir.is_empty() { b"" } else { b"/" };
        let name = [dir, separator, b".wh.", name].concat();
        self.mark(change, &name, WHITEOUT_MODE)
    }

    fn opaque(&mut self, change: &Change) -> Result<(), LayerError> {
        let name = [&change.path, &b"/"[..], OPAQUE].concat();
        self.mark(change, &name, change.stat.st_mode & 0o777)
    }

    fn mark(&mut self, change: &Change, name: &[u8], mode: u32) -> Result<(), LayerError> {
        let (uid, gid) = (change.stat.st_uid, change.stat.st_gid);
        self.entry(&NewEntry { name, mode, uid, gid, ..NewEntry::file() })
    }

    fn file(
        &mut self,
        change: &Change,
        kind: FileType,
        header: NewEntry<'_>,
    ) -> Result<(), LayerError> {
        let device = (fs::major(change.stat.st_rdev), fs::minor(change.stat.st_rdev));
        let target;
        let header = match kind {
            FileType::RegularFile => return self.regular_file(change, header),
            FileType::Symlink => {
                target = self.changes.read_link(change)?;
                NewEntry { kind: EntryType::Symlink, link: &target, ..header }
            }
            FileType::CharacterDevice => NewEntry { kind: EntryType::Char, device, ..header },
            FileType::BlockDevice => NewEntry { kind: EntryType::Block, device, ..header },
            // No file system of Linux has other types.
            _ => NewEntry { kind: EntryType::Fifo, ..header },
        };
        self.entry(&header)
    }

    fn regular_file(&mut self, change: &Change, header: NewEntry<'_>) -> Result<(), LayerError> {
        let size = u64::try_from(change.stat.st_size).unwrap_or(0);
        self.entry(&NewEntry { size, ..header })?;
        // An empty file can be written without the right to read it.
        if size == 0 {
            return Ok(());
        }
        let changes = self.changes;
        let mut file = changes.open_file(change)?;
        let copied = self.tar.data(&mut file, size);
        copied.map_err(|error| match error {
            DataError::Write(e) => LayerError::Source(e),
            DataError::Read(e) if e.kind() == io::ErrorKind::UnexpectedEof => {
                LayerError::Changes(change.changed())
            }
            DataError::Read(e) => LayerError::Changes(changes.read_error(change, e)),
        })?;
        Ok(changes.must_be_same(change, &file)?)
    }

    fn entry(&mut self, entry: &NewEntry<'_>) -> Result<(), LayerError> {
        self.tar.entry(entry).map_err(|_| LayerError::Cancelled)
    }

    /// Returns the name with which the same file was written; notes a file with several names.
    fn first_name(&mut self, change: &Change) -> Option<Vec<u8>> {
        let (stat, links) = (&change.stat, change.links());
        if links < 2 {
            return None;
        }
        let key = (stat.st_dev, stat.st_ino);
        let Some((first, remaining)) = self.links.get_mut(&key) else {
            self.links.insert(key, (change.path.clone(), links - 1));
            return None;
        };
        *remaining -= 1;
        let (first, is_last) = (first.clone(), *remaining == 0);
        if is_last {
            self.links.remove(&key);
        }
        Some(first)
    }
}
