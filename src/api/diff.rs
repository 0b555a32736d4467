//! The changes of writable mounts, as `docker diff` lists them.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;

use super::files::Files;
use super::marks;
use super::store::Store;
use crate::error::Error;
use crate::overlay::{self, Abilities, MergedLayer, OpaqueDirs, XattrSpace};
use crate::store::WritableMount;

pub use crate::overlay::DifferenceKind;

/// A file or directory that differs.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Difference {
    /// What differs.
    pub kind: DifferenceKind,
    /// The path, from the root.
    pub path: PathBuf,
    /// The size before, bytes; `None` if it was not a regular file.
    pub old_size: Option<u64>,
    /// The size now, bytes; `None` if it is not a regular file.
    pub new_size: Option<u64>,
}

impl Difference {
    fn new(found: overlay::Difference) -> Self {
        let is_file = |stat: &rustix::fs::Stat| {
            rustix::fs::FileType::from_raw_mode(stat.st_mode) == rustix::fs::FileType::RegularFile
        };
        let size =
            |stat: Option<rustix::fs::Stat>| u64::try_from(stat.filter(is_file)?.st_size).ok();
        let path = [b"/", found.path.as_slice()].concat();
        Self {
            kind: found.kind,
            path: PathBuf::from(OsString::from_vec(path)),
            old_size: size(found.old),
            new_size: size(found.new),
        }
    }
}

impl Files {
    /// Calls `each` with what differs in these files from `old`, by the rules of
    /// [`Store::differences`]. What both have from the same layers is not read.
    ///
    /// # Errors
    /// A file cannot be read; the error of `each`.
    pub fn differences(
        &self,
        old: &Files,
        mut each: impl FnMut(Difference) -> Result<(), Error>,
    ) -> Result<(), Error> {
        self.tree.differences(&old.tree, |found| each(Difference::new(found)))
    }
}

impl Store {
    /// Calls `each` with what differs in a writable mount from the layers that it is based on, mounted or
    /// not, as `docker diff` finds it; sorted by name in each directory, a directory before its content. A
    /// directory in which something differs is listed as changed. Of a deleted directory, only itself is
    /// listed.
    ///
    /// # Errors
    /// A file cannot be read; this process cannot read overlayfs's marks of the changes
    /// ([`Error::Marks`]); the error of `each`.
    pub fn differences(
        &self,
        mount: &WritableMount,
        mut each: impl FnMut(Difference) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let ((), _lock) = self.read_and_keep(|_| Ok(()))?;
        let space = if mount.userxattr() { XattrSpace::User } else { XattrSpace::Trusted };
        let top = mount.layers().last().map(|layer| layer.chain.short()).unwrap_or_default();
        if space == XattrSpace::Trusted && Abilities::expected().space == XattrSpace::User {
            let why = "this process cannot read those of the changes above it";
            return Err(Error::Marks { image: mount.name().to_owned(), layer: top, why });
        }
        let store = self.begin();
        let layers = || marks::open_layers(&store, mount.lower(), mount.layers());
        let upper = MergedLayer::open(&mount.upper(), OpaqueDirs::Marked(vec![space]))?;
        let old = overlay::MergedTree::new(layers()?);
        let new = overlay::MergedTree::new(std::iter::once(upper).chain(layers()?).collect());
        new.differences(&old, |found| each(Difference::new(found)))
    }
}
