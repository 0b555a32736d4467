//! The state of the layer db for which the index is complete.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::store::boot::boot_id;

/// The state of a directory: it differs after another program added, renamed or removed an entry,
/// after the directory was copied, and after the machine was started again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    boot: String,
    device: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    links: u64,
}

impl Stamp {
    /// Returns the state of the directory at `path`; `None` if there is none, or if the kernel
    /// does not tell which start of the machine this is.
    pub fn of(path: &Path) -> Option<Self> {
        let boot = boot_id()?;
        let meta = fs::metadata(path).ok().filter(fs::Metadata::is_dir)?;
        Some(Self {
            boot: boot.to_owned(),
            device: meta.dev(),
            inode: meta.ino(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
            links: meta.nlink(),
        })
    }

    /// Returns whether the file at `path` has this stamp.
    pub fn is_in(&self, path: &Path) -> bool {
        fs::read(path).is_ok_and(|text| text == self.to_string().as_bytes())
    }

    /// Returns whether `self` is the state after `added` directories (removed ones if negative)
    /// were added to `before`. Most file systems count the subdirectories of a directory, so that
    /// a change of another program within the resolution of the time is noticed there.
    pub fn follows(&self, before: &Self, added: i64) -> bool {
        const WITHOUT_SUBDIRECTORIES: u64 = 2;
        let counts = before.links > WITHOUT_SUBDIRECTORIES && self.links > WITHOUT_SUBDIRECTORIES;
        (&self.boot, self.device, self.inode) == (&before.boot, before.device, before.inode)
            && (!counts || before.links.checked_add_signed(added) == Some(self.links))
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { boot, device, inode, modified, changed, links } = self;
        let (modified, changed) = (
            format!("{}.{:09}", modified.0, modified.1),
            format!("{}.{:09}", changed.0, changed.1),
        );
        writeln!(f, "1 {boot} {device} {inode} {modified} {changed} {links}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamp_differs_after_an_entry_was_added() {
        let dir = tempfile::tempdir().unwrap();
        let (db, file) = (dir.path().join("db"), dir.path().join("stamp"));
        fs::create_dir(&db).unwrap();
        fs::create_dir(db.join("0")).unwrap();
        let before = Stamp::of(&db).unwrap();
        fs::write(&file, before.to_string()).unwrap();
        assert!(Stamp::of(&db).unwrap().is_in(&file));
        fs::create_dir(db.join("1")).unwrap();
        let after = Stamp::of(&db).unwrap();
        assert!(!after.is_in(&file));
        assert!(after.follows(&before, 1));
        assert!(Stamp::of(&dir.path().join("none")).is_none());
        assert!(!Stamp { boot: "other".to_owned(), ..after }.follows(&before, 1));
    }
}
