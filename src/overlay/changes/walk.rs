//! All changes of a mount, one after the other.

use std::os::fd::OwnedFd;
use std::sync::Arc;

use super::{Change, ChangeKind, Changes, ChangesError};

impl Changes {
    /// Returns all changes, sorted by name in each directory, a directory before its content, without the
    /// root. Memory is needed for the names of the directories on one path, and descriptors for one directory.
    pub fn walk(&self) -> ChangeWalk<'_> {
        ChangeWalk { changes: self, frames: Vec::new(), next: Some(Vec::new()) }
    }
}

/// Iterates over changes.
pub struct ChangeWalk<'a> {
    changes: &'a Changes,
    frames: Vec<Frame>,
    /// The directory that was returned last, to enter next.
    next: Option<Vec<u8>>,
}

/// A directory on the path to the current change.
struct Frame {
    path: Vec<u8>,
    /// Closed while the walk is below one of its entries.
    open: Option<Arc<OwnedFd>>,
    names: std::vec::IntoIter<Vec<u8>>,
}

impl ChangeWalk<'_> {
    fn advance(&mut self) -> Result<Option<Change>, ChangesError> {
        if let Some(path) = self.next.take() {
            if let Some(parent) = self.frames.last_mut() {
                parent.open = None;
            }
            let open = self.changes.open_dir(&path)?;
            let names = self.changes.names(&open, &path)?.into_iter();
            self.frames.push(Frame { path, open: Some(open), names });
        }
        while let Some(frame) = self.frames.last_mut() {
            let Some(name) = frame.names.next() else {
                self.frames.pop();
                continue;
            };
            let open = match &frame.open {
                Some(open) => open.clone(),
                None => frame.open.insert(self.changes.open_dir(&frame.path)?).clone(),
            };
            let separator: &[u8] = if frame.path.is_empty() { b"" } else { b"/" };
            let change = self.changes.change(&open, [&frame.path, separator, &name].concat())?;
            if matches!(change.kind, ChangeKind::Dir { .. }) {
                self.next = Some(change.path.clone());
            }
            return Ok(Some(change));
        }
        Ok(None)
    }
}

impl Iterator for ChangeWalk<'_> {
    type Item = Result<Change, ChangesError>;

    fn next(&mut self) -> Option<Self::Item> {
        let result = self.advance().transpose();
        if let Some(Err(_)) = &result {
            self.frames.clear();
            self.next = None;
        }
        result
    }
}
