//! The opaque directories of a stored layer, found without reading overlayfs's marks: a process
//! without `CAP_SYS_ADMIN` cannot read `trusted.*`.

use std::collections::HashSet;
use std::fs::File;

use rustix::fs::FileType;

use super::line::Line;
use super::reader::MetadataReader;
use crate::layer::LayerError;
use crate::layer::tar::path::{self, NameClass};
use crate::overlay::{self, DiffDir, DirHandle};

/// Which marks the opaque directories of a layer have.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Marks {
    /// One is marked with `user.overlay.opaque`.
    pub user: bool,
    /// One is not, so it must be marked with `trusted.overlay.opaque`.
    pub other: bool,
}

/// Finds the marks of a layer by the names in its metadata and the directories in `diff`. A whiteout
/// whose name the metadata stores raw, as no tool writes it, is not considered.
///
/// # Errors
/// [`LayerError::TarSplit`] if the metadata cannot be read.
pub fn marks(tar_split: File, diff: &DiffDir) -> Result<Marks, LayerError> {
    let mut lines = MetadataReader::new(tar_split);
    let mut marks = Marks::default();
    while let Some(line) = lines.next()? {
        let Line::Entry { name, .. } = line else { continue };
        let Some(dir) = hidden_dir(&name, diff) else { continue };
        match diff.is_marked_for_users(&dir) {
            Ok(true) => marks.user = true,
            _ => marks.other = true,
        }
    }
    Ok(marks)
}

/// Returns the paths of the layer's opaque directories, found as [`marks`] finds them.
///
/// # Errors
/// [`LayerError::TarSplit`] if the metadata cannot be read, or if /proc is not mounted.
pub fn opaque_dirs(tar_split: File, diff: &DiffDir) -> Result<HashSet<Vec<u8>>, LayerError> {
    let mut lines = MetadataReader::new(tar_split);
    let mut found = HashSet::new();
    while let Some(line) = lines.next()? {
        let Line::Entry { name, .. } = line else { continue };
        if let Some(dir) = hidden_dir(&name, diff) {
            found.insert(diff.real_path(&dir).map_err(LayerError::TarSplit)?);
        }
    }
    Ok(found)
}

/// Returns the directory of the layer that a whiteout `name` makes opaque.
fn hidden_dir(name: &[u8], diff: &DiffDir) -> Option<DirHandle> {
    let name = path::clean(name, usize::MAX).ok()?;
    let dir = match path::classify(&name.path).ok()? {
        NameClass::Ordinary => return None,
        NameClass::Opaque => overlay::split(&name.path).0.to_vec(),
        NameClass::Whiteout(hidden) => {
            let (parent, last) = overlay::split(&hidden);
            let stat = overlay::stat(&diff.existing_dir(parent).ok()?, last).ok()??;
            if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
                return None;
            }
            hidden
        }
    };
    diff.existing_dir(&dir).ok()
}
