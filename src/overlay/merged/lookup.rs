//! Paths and symlinks inside the merged tree, as a process that was started in it sees them.

use rustix::fs::FileType;

use super::entry::Entry;
use super::stack::{MergedTree, OpenDir};
use crate::fsutil::FsError;

/// Symlinks of one path at most, as in the kernel.
const MAX_LINKS: usize = 40;

/// Whether the last part of a path may be a symlink that is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Follow {
    /// The result is what the symlink leads to.
    Yes,
    /// The result is the symlink itself.
    No,
}

/// Why a path leads to no file.
#[derive(Debug, thiserror::Error)]
pub enum LookupError {
    /// A part of the path does not exist.
    #[error("no such file or directory")]
    NotFound,
    /// A part of the path is a file, and more follows.
    #[error("not a directory")]
    NotADirectory,
    /// The path has too many symlinks, which may form a loop.
    #[error("too many levels of symbolic links")]
    Loop,
    /// A layer cannot be read.
    #[error(transparent)]
    Fs(#[from] FsError),
}

impl MergedTree {
    /// Finds the entry at `path`, which is relative to the root of the tree with or without a slash. An
    /// absolute target of a symlink is relative to the root too, and `..` of the root is the root. A path
    /// that ends with a slash leads to a directory.
    ///
    /// # Errors
    /// [`LookupError`].
    pub fn lookup(&self, path: &[u8], follow: Follow) -> Result<Entry, LookupError> {
        let follow = follow == Follow::Yes;
        let mut open = self.open_root()?;
        // The layers of the directories that lead to `open`.
        let mut parents: Vec<Vec<u16>> = Vec::new();
        let mut remaining = reversed_parts(path);
        let mut found = self.root()?;
        let mut links = 0;
        while let Some(part) = remaining.pop() {
            if part == b"." {
                continue;
            }
            if part == b".." {
                if let Some(layers) = parents.pop() {
                    open = self.open_at(crate::overlay::split(open.path()).0, &layers)?;
                }
                found = self.entry_of(&open)?;
                continue;
            }
            let entry = self.child(&open, &part)?.ok_or(LookupError::NotFound)?;
            match entry.kind() {
                FileType::Directory => {
                    parents.push(open.layers());
                    open = self.open_child(&open, &entry)?;
                    found = entry;
                }
                FileType::Symlink if follow || !remaining.is_empty() => {
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(LookupError::Loop);
                    }
                    let target = entry.read_link()?;
                    if target.starts_with(b"/") {
                        parents.clear();
                        open = self.open_root()?;
                    }
                    found = self.entry_of(&open)?;
                    remaining.extend(reversed_parts(&target));
                }
                _ if !remaining.is_empty() => return Err(LookupError::NotADirectory),
                _ => found = entry,
            }
        }
        Ok(found)
    }

    /// Returns the entry of an open directory.
    fn entry_of(&self, dir: &OpenDir) -> Result<Entry, LookupError> {
        let (parent, name) = crate::overlay::split(dir.path());
        if name.is_empty() {
            return Ok(self.root()?);
        }
        let parent = self.open_at(parent, &dir.layers())?;
        self.child(&parent, name)?.ok_or(LookupError::NotFound)
    }
}

/// Returns the parts of a path, the last one first. A slash at the end counts as `.`, which only a
/// directory has.
fn reversed_parts(path: &[u8]) -> Vec<Vec<u8>> {
    let parts = path.split(|&byte| byte == b'/').filter(|part| !part.is_empty());
    let mut parts: Vec<_> = parts.map(<[u8]>::to_vec).collect();
    if path.ends_with(b"/") {
        parts.push(b".".to_vec());
    }
    parts.reverse();
    parts
}
