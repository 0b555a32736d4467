//! Data that a layer's own later entries take from the tree again.
//!
//! An archive may hold a name twice, or a file and then something else in place of its
//! directory. The record has a line for the first file, and its data would be gone. It is
//! kept here until the record is mended.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use rustix::fs::{self, AtFlags, Dir, FileType, Mode, OFlags, Stat};

use crate::layer::LayerError;
use crate::overlay::{DiffDir, DirHandle};

/// The data of files that were removed while their layer was unpacked.
#[derive(Default)]
pub struct Spool {
    file: Option<File>,
    kept: HashMap<Vec<u8>, Vec<Kept>>,
}

/// One removed file's data.
#[derive(Debug, Clone, Copy)]
struct Kept {
    /// The record's position when it was removed: it belongs to a line before that.
    removed_at: u64,
    offset: u64,
    length: u64,
}

impl Spool {
    /// Whether nothing was removed that held data.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Removes `last`, which is `path` below the layer's root, and all below it. The bytes
    /// that leave the sum of file sizes.
    ///
    /// # Errors
    /// [`LayerError::Write`].
    pub fn remove(
        &mut self,
        diff: &DiffDir,
        dir: &DirHandle,
        last: &[u8],
        path: &[u8],
        position: u64,
        stat: &Stat,
    ) -> Result<u64, LayerError> {
        let mut freed = 0;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let below = diff.existing_dir(path).map_err(|e| LayerError::write("open", path, e))?;
            for name in entries(&below).map_err(|e| LayerError::write("list", path, e))? {
                let child = [path, b"/", &name].concat();
                let stat = fs::statat(&below, name.as_slice(), AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|e| LayerError::write("look at", &child, e))?;
                freed += self.remove(diff, &below, &name, &child, position, &stat)?;
            }
            fs::unlinkat(dir, last, AtFlags::REMOVEDIR)
                .map_err(|e| LayerError::write("remove", path, e))?;
            return Ok(freed);
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && size > 0 {
            self.keep(diff, path, position)
                .map_err(|e| LayerError::write("keep the data of", path, e))?;
        }
        if stat.st_nlink == 1 {
            freed += size;
        }
        fs::unlinkat(dir, last, AtFlags::empty())
            .map_err(|e| LayerError::write("remove", path, e))?;
        Ok(freed)
    }

    /// The data that the line at `position` for the clean `name` lost, if it lost it.
    ///
    /// # Errors
    /// What reading it says.
    pub fn lost(&mut self, name: &[u8], position: u64) -> io::Result<Option<impl Read>> {
        let kept = self
            .kept
            .get(name)
            .and_then(|kept| kept.iter().find(|kept| kept.removed_at > position));
        let (Some(kept), Some(file)) = (kept, &mut self.file) else { return Ok(None) };
        file.seek(SeekFrom::Start(kept.offset))?;
        Ok(Some(file.take(kept.length)))
    }

    fn keep(&mut self, diff: &DiffDir, path: &[u8], position: u64) -> io::Result<()> {
        let mut from = diff.open_file(path)?;
        let to = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(diff.temp_file()?),
        };
        let offset = to.seek(SeekFrom::End(0))?;
        let length = io::copy(&mut from, to)?;
        to.flush()?;
        let kept = Kept { removed_at: position, offset, length };
        self.kept.entry(path.to_vec()).or_default().push(kept);
        Ok(())
    }
}

/// The names in `dir`.
///
/// # Errors
/// What getdents(2) says.
pub fn entries(dir: &DirHandle) -> io::Result<Vec<Vec<u8>>> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let fd = fs::openat(dir, ".", flags, Mode::empty())?;
    let mut names = Vec::new();
    for entry in Dir::read_from(&fd)? {
        let name = entry?.file_name().to_bytes().to_vec();
        if name != b"." && name != b".." {
            names.push(name);
        }
    }
    Ok(names)
}
