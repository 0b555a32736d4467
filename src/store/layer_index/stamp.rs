//! The state of the layer db and of the image db for which the index is complete.

use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use crate::fsutil;
use crate::store::boot::boot_id;
use crate::store::layout::Layout;

/// The state of both directories: it differs after another program added, renamed or removed an
/// entry, after a directory was copied, and after the machine was started again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stamp {
    boot: String,
    layers: DirState,
    images: DirState,
}

/// The state of one directory.
#[derive(Debug, Clone, PartialEq, Eq)]
struct DirState {
    device: u64,
    inode: u64,
    modified: (i64, i64),
    changed: (i64, i64),
    links: u64,
    size: u64,
}

impl DirState {
    fn of(path: &Path) -> Option<Self> {
        let meta = fs::metadata(path).ok().filter(fs::Metadata::is_dir)?;
        Some(Self {
            device: meta.dev(),
            inode: meta.ino(),
            modified: (meta.mtime(), meta.mtime_nsec()),
            changed: (meta.ctime(), meta.ctime_nsec()),
            links: meta.nlink(),
            size: meta.len(),
        })
    }

    fn is_same_directory(&self, other: &Self) -> bool {
        (self.device, self.inode) == (other.device, other.inode)
    }
}

/// Bytes of the file with the stamp at most.
const MAX_SIZE: u64 = 4096;

impl Stamp {
    /// Returns the state of a root; `None` if it has no such directories, or if the kernel does not
    /// tell which start of the machine this is.
    pub fn of(layout: &Layout) -> Option<Self> {
        Some(Self {
            boot: boot_id()?.to_owned(),
            layers: DirState::of(&layout.layers())?,
            images: DirState::of(&layout.images())?,
        })
    }

    /// Returns whether the file at `path` has this stamp.
    pub fn is_in(&self, path: &Path) -> bool {
        fsutil::read(path, MAX_SIZE).is_ok_and(|text| text == self.to_string().as_bytes())
    }

    /// Returns whether `self` is the state after `added` records (removed ones if negative) were
    /// added to `before`. Most file systems count the subdirectories of a directory, so that a change
    /// of the layer db by another program within the resolution of the time is noticed there.
    pub fn follows(&self, before: &Self, added: i64) -> bool {
        const WITHOUT_SUBDIRECTORIES: u64 = 2;
        let (now, then) = (self.layers.links, before.layers.links);
        let counts = then > WITHOUT_SUBDIRECTORIES && now > WITHOUT_SUBDIRECTORIES;
        self.boot == before.boot
            && self.layers.is_same_directory(&before.layers)
            && self.images.is_same_directory(&before.images)
            && (!counts || then.checked_add_signed(added) == Some(now))
    }
}

impl fmt::Display for Stamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { boot, layers, images } = self;
        writeln!(f, "2 {boot} {layers} {images}")
    }
}

impl fmt::Display for DirState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { device, inode, modified, changed, links, size } = self;
        let (modified, changed) = (
            format!("{}.{:09}", modified.0, modified.1),
            format!("{}.{:09}", changed.0, changed.1),
        );
        write!(f, "{device} {inode} {modified} {changed} {links} {size}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stamp_differs_after_an_entry_was_added() {
        let (dir, layout) = Layout::scratch();
        let (db, file) = (layout.layers(), dir.path().join("stamp"));
        fs::create_dir(db.join("0")).unwrap();
        let before = Stamp::of(&layout).unwrap();
        fs::write(&file, before.to_string()).unwrap();
        assert!(Stamp::of(&layout).unwrap().is_in(&file));
        fs::create_dir(db.join("1")).unwrap();
        let after = Stamp::of(&layout).unwrap();
        assert!(!after.is_in(&file));
        assert!(after.follows(&before, 1));
        assert!(!Stamp { boot: "other".to_owned(), ..after.clone() }.follows(&before, 1));
        fs::write(layout.images().join("0"), "").unwrap();
        let with_image = Stamp::of(&layout).unwrap();
        assert!(with_image != after && with_image.follows(&after, 0));
        fs::remove_dir_all(db).unwrap();
        assert!(Stamp::of(&layout).is_none());
    }
}
