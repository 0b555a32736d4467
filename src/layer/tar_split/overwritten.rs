//! The data of files that later entries of the same layer replace.
//!
//! An archive may have a name twice, or a file and later something else in place of its directory.
//! The metadata has an entry for the first file, whose data would be lost. It is copied to an
//! unnamed file until the metadata is rewritten.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};

use rustix::fs::{self, AtFlags, FileType, Stat};

use crate::layer::LayerError;
use crate::overlay::{self, DiffDir, DirHandle};

/// The data of files that were removed while their layer was unpacked.
#[derive(Default)]
pub struct OverwrittenData {
    file: Option<File>,
    by_path: HashMap<Vec<u8>, Vec<SavedFile>>,
}

/// Where the data of one removed file is.
#[derive(Debug, Clone, Copy)]
struct SavedFile {
    /// The position of the metadata when the file was removed: its entry is an earlier one.
    removed_at: u64,
    offset: u64,
    length: u64,
}

impl OverwrittenData {
    /// Whether no removed file had data.
    pub fn is_empty(&self) -> bool {
        self.by_path.is_empty()
    }

    /// Removes `name` in `dir`, which is `path` below the layer's root, and everything below it.
    /// Saves the data of the files. Returns by how many bytes the sum of file sizes shrinks.
    ///
    /// # Errors
    /// [`LayerError::Write`].
    pub fn remove(
        &mut self,
        diff: &DiffDir,
        dir: &DirHandle,
        name: &[u8],
        path: &[u8],
        position: u64,
        stat: &Stat,
    ) -> Result<u64, LayerError> {
        let mut freed = 0;
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            let below = diff.existing_dir(path).map_err(|e| LayerError::write("open", path, e))?;
            for child_name in
                overlay::list(&below).map_err(|e| LayerError::write("list", path, e))?
            {
                let child = [path, b"/", &child_name].concat();
                let stat = fs::statat(&below, child_name.as_slice(), AtFlags::SYMLINK_NOFOLLOW)
                    .map_err(|e| LayerError::write("look at", &child, e))?;
                freed += self.remove(diff, &below, &child_name, &child, position, &stat)?;
            }
            fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
                .map_err(|e| LayerError::write("remove", path, e))?;
            return Ok(freed);
        }
        let size = u64::try_from(stat.st_size).unwrap_or(0);
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile && size > 0 {
            self.save(diff, path, position)
                .map_err(|e| LayerError::write("save the data of", path, e))?;
        }
        if stat.st_nlink == 1 {
            freed += size;
        }
        fs::unlinkat(dir, name, AtFlags::empty())
            .map_err(|e| LayerError::write("remove", path, e))?;
        Ok(freed)
    }

    /// Returns the data of the entry at `position` with the clean path `path`, if that file was
    /// removed.
    ///
    /// # Errors
    /// The error of lseek(2).
    pub fn data_of(&mut self, path: &[u8], position: u64) -> io::Result<Option<impl Read>> {
        let saved = self
            .by_path
            .get(path)
            .and_then(|saved| saved.iter().find(|saved| saved.removed_at > position));
        let (Some(saved), Some(file)) = (saved, &mut self.file) else { return Ok(None) };
        file.seek(SeekFrom::Start(saved.offset))?;
        Ok(Some(file.take(saved.length)))
    }

    fn save(&mut self, diff: &DiffDir, path: &[u8], position: u64) -> io::Result<()> {
        let mut from = diff.open_file(path)?;
        let to = match &mut self.file {
            Some(file) => file,
            None => self.file.insert(diff.temp_file()?),
        };
        let offset = to.seek(SeekFrom::End(0))?;
        let length = io::copy(&mut from, to)?;
        to.flush()?;
        let saved = SavedFile { removed_at: position, offset, length };
        self.by_path.entry(path.to_vec()).or_default().push(saved);
        Ok(())
    }
}
