//! All entries below a directory.

use super::entry::Entry;
use super::stack::{Child, MergedTree, OpenDir};
use crate::fsutil::FsError;

impl MergedTree {
    /// Returns everything below the directory `dir`, sorted by name in each directory, a directory before
    /// its content. Memory is needed for the names of the directories on one path, and descriptors for one
    /// directory.
    pub fn walk(&self, dir: &Entry) -> Walk<'_> {
        Walk { tree: self, frames: Vec::new(), next: Some(dir.clone()) }
    }

    /// Returns the entries of the directory `dir` itself, sorted by name.
    ///
    /// # Errors
    /// [`FsError`] if a layer cannot be read.
    pub fn list(&self, dir: &Entry) -> Result<Vec<Entry>, FsError> {
        let open = self.open_at(&dir.path, &dir.layers)?;
        let entries = self.children(&open)?.into_iter();
        entries.filter_map(|child| self.entry(&open, child).transpose()).collect()
    }
}

/// Iterates over the entries below a directory.
pub struct Walk<'a> {
    tree: &'a MergedTree,
    frames: Vec<Frame>,
    /// The directory that was returned last, to enter next.
    next: Option<Entry>,
}

/// A directory on the path to the current entry.
struct Frame {
    path: Vec<u8>,
    layers: Vec<u16>,
    /// Closed while the walk is below one of its entries.
    open: Option<OpenDir>,
    children: std::vec::IntoIter<Child>,
}

impl Walk<'_> {
    /// Leaves out the content of the directory that was returned last.
    pub fn skip_content(&mut self) {
        self.next = None;
    }

    fn advance(&mut self) -> Result<Option<Entry>, FsError> {
        if let Some(dir) = self.next.take() {
            self.enter(&dir)?;
        }
        while let Some(frame) = self.frames.last_mut() {
            let Some(child) = frame.children.next() else {
                self.frames.pop();
                continue;
            };
            let open = match &frame.open {
                Some(open) => open,
                None => frame.open.insert(self.tree.open_at(&frame.path, &frame.layers)?),
            };
            let Some(entry) = self.tree.entry(open, child)? else { continue };
            if entry.is_dir() {
                self.next = Some(entry.clone());
            }
            return Ok(Some(entry));
        }
        Ok(None)
    }

    fn enter(&mut self, dir: &Entry) -> Result<(), FsError> {
        let parent = self.frames.last_mut().and_then(|frame| frame.open.take());
        let open = match &parent {
            Some(parent) => self.tree.open_child(parent, dir)?,
            None => self.tree.open_at(&dir.path, &dir.layers)?,
        };
        let children = self.tree.children(&open)?.into_iter();
        let (path, layers) = (open.path().to_vec(), open.layers());
        self.frames.push(Frame { path, layers, open: Some(open), children });
        Ok(())
    }
}

impl Iterator for Walk<'_> {
    type Item = Result<Entry, FsError>;

    fn next(&mut self) -> Option<Self::Item> {
        let result = self.advance().transpose();
        if let Some(Err(_)) = &result {
            self.frames.clear();
            self.next = None;
        }
        result
    }
}
