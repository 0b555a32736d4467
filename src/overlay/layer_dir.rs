//! One layer's directory in the form of Docker's overlay2 driver (moby
//! daemon/graphdriver/overlay2/overlay.go `create`):
//!
//! ```text
//! overlay2/<cache-id>/         0710
//!     diff/                    0755  the layer's files
//!     link                     0644  its link id
//!     lower                    0644  "l/<parent's link>:<parent's lower>"; absent for a base
//!     work/                    0700  with a parent only
//!     committed                0600  empty; once a child exists
//! overlay2/l/<link-id>         ->    ../<cache-id>/diff
//! ```
//!
//! dockerd mounts only by these files: `link`, `lower` and the symlinks in `l/`.

use std::fs;
use std::io;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::{CacheId, LinkId};
use crate::fsutil::{self, At, Durability, FsError, Temporary};

/// The directory of the short links.
const LINKS: &str = "l";

/// The `overlay2` directory.
#[derive(Debug, Clone)]
pub struct OverlayRoot {
    path: PathBuf,
    temporary: Temporary,
}

impl OverlayRoot {
    /// Creates a handle of the directory at `path`, whose files are replaced by way of
    /// `temporary`.
    pub fn new(path: PathBuf, temporary: Temporary) -> Self {
        Self { path, temporary }
    }

    /// Creates the directory and `l/`.
    ///
    /// # Errors
    /// [`FsError`] if they cannot be created.
    pub fn create(&self) -> Result<(), FsError> {
        fsutil::ensure_dir(&self.path, 0o710)?;
        fsutil::ensure_dir(&self.path.join(LINKS), 0o700)
    }

    /// Returns a layer's directory.
    pub fn dir(&self, id: &CacheId) -> PathBuf {
        self.path.join(id.as_str())
    }

    /// Returns the directory itself; the paths of [`link_in`](Self::link_in) are relative to it.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the relative path of a link.
    pub fn link_in(link: &LinkId) -> PathBuf {
        PathBuf::from(LINKS).join(link.as_str())
    }

    /// Returns the directory of a layer's files.
    pub fn diff(&self, id: &CacheId) -> PathBuf {
        self.dir(id).join("diff")
    }

    /// Returns the directory where dockerd mounts a layer, and which `inspect` shows.
    pub fn merged(&self, id: &CacheId) -> PathBuf {
        self.dir(id).join("merged")
    }

    /// Returns a layer's work directory.
    pub fn work(&self, id: &CacheId) -> PathBuf {
        self.dir(id).join("work")
    }

    /// Returns the names of all layers' directories, with those of dockerd's containers.
    ///
    /// # Errors
    /// [`FsError`] if the directory cannot be read.
    pub fn all(&self) -> Result<Vec<CacheId>, FsError> {
        let names = fsutil::names_in(&self.path)?;
        Ok(names.iter().filter_map(|name| CacheId::of_container(name)).collect())
    }

    /// Creates a layer's directory with an empty `diff`, its link and its symlink.
    ///
    /// # Errors
    /// [`FsError`] if something cannot be created; the rest stays, for the caller to remove.
    pub fn create_layer(&self, id: &CacheId, link: &LinkId) -> Result<(), FsError> {
        let dir = self.dir(id);
        fsutil::ensure_dir(&dir, 0o710)?;
        fsutil::ensure_dir(&dir.join("diff"), 0o755)?;
        let name = self.link_path(link);
        symlink(link_target(id), &name).at("create symlink", &name)?;
        fsutil::write_new(&dir.join("link"), link.as_str().as_bytes(), 0o644)
    }

    /// Sets the parent of a layer, or makes it a base: writes `lower`, creates `work` and marks the
    /// parent as committed. Replaces what a killed process wrote for another parent.
    ///
    /// # Errors
    /// [`FsError`] if a file cannot be written, or the parent has no valid link.
    pub fn set_parent(&self, id: &CacheId, parent: Option<&CacheId>) -> Result<(), FsError> {
        let (lower, work) = (self.dir(id).join("lower"), self.work(id));
        let Some(parent) = parent else {
            fsutil::remove(&lower)?;
            return fsutil::remove(&work);
        };
        let text = self.lower_of_child(parent)?;
        match fsutil::read_optional(&lower)? {
            Some(old) if old == text => {}
            Some(_) => self.replace(&lower, text.as_bytes(), 0o644)?,
            None => fsutil::write_new(&lower, text.as_bytes(), 0o644)?,
        }
        fsutil::ensure_dir(&work, 0o700)?;
        self.mark_committed(parent)
    }

    /// Marks a layer as having a child.
    ///
    /// # Errors
    /// [`FsError`] if the mark cannot be written.
    pub fn mark_committed(&self, id: &CacheId) -> Result<(), FsError> {
        if self.is_committed(id) {
            return Ok(());
        }
        self.replace(&self.committed(id), b"", 0o600)
    }

    /// Replaces a file of a layer. After a power failure, the layer is verified (see `unsynced`
    /// in `store`).
    fn replace(&self, path: &Path, bytes: &[u8], mode: u32) -> Result<(), FsError> {
        self.temporary.replace(path, bytes, mode, Durability::Unsynced)
    }

    /// Returns whether the layer is marked as having a child.
    pub fn is_committed(&self, id: &CacheId) -> bool {
        self.committed(id).is_file()
    }

    /// Removes `committed` from a layer without a child.
    ///
    /// # Errors
    /// [`FsError`] if it cannot be removed.
    pub fn uncommit(&self, id: &CacheId) -> Result<(), FsError> {
        fsutil::remove(&self.committed(id))
    }

    /// Returns the link ID of a layer; `None` if its file is missing or malformed.
    ///
    /// # Errors
    /// [`FsError`] if it cannot be read.
    pub fn link(&self, id: &CacheId) -> Result<Option<LinkId>, FsError> {
        let text = fsutil::read_optional(&self.dir(id).join("link"))?;
        Ok(text.and_then(|text| text.parse().ok()))
    }

    /// Sets the link ID of a layer: writes its `link`, and points `l/<link>` to it. Readers see the
    /// old symlink or the new one.
    ///
    /// # Errors
    /// [`FsError`] if they cannot be written.
    pub fn set_link(&self, id: &CacheId, link: &LinkId) -> Result<(), FsError> {
        self.replace(&self.dir(id).join("link"), link.as_str().as_bytes(), 0o644)?;
        self.point_link(link, id)
    }

    /// Points `l/<link>` to a layer. Readers see the old symlink or the new one.
    ///
    /// # Errors
    /// [`FsError`] if it cannot be written.
    pub fn point_link(&self, link: &LinkId, id: &CacheId) -> Result<(), FsError> {
        let name = self.link_path(link);
        let random = fsutil::random_hex::<6>().at("create symlink", &name)?;
        let temporary = self.path.join(LINKS).join(format!(".tmp-{random}"));
        symlink(link_target(id), &temporary).at("create symlink", &temporary)?;
        fsutil::rename_over(&temporary, &name).at("create symlink", &name)
    }

    /// Removes `l/<link>`, if it points to the layer.
    ///
    /// # Errors
    /// [`FsError`] if it cannot be removed.
    pub fn remove_link(&self, id: &CacheId, link: &LinkId) -> Result<(), FsError> {
        if self.points_to(link, id) { fsutil::remove(&self.link_path(link)) } else { Ok(()) }
    }

    /// Removes temporary symlinks of killed processes.
    ///
    /// # Errors
    /// [`FsError`] if they cannot be read or removed.
    pub fn remove_temporary_links(&self) -> Result<(), FsError> {
        let dir = self.path.join(LINKS);
        let names = fsutil::names_in(&dir)?;
        names
            .iter()
            .filter(|name| name.starts_with(".tmp-"))
            .try_for_each(|name| fsutil::remove(&dir.join(name)))
    }

    /// Returns whether `l/<link>` points to the layer, in exactly the form that dockerd writes.
    pub fn points_to(&self, link: &LinkId, id: &CacheId) -> bool {
        fs::read_link(self.link_path(link))
            .is_ok_and(|to| to.as_os_str() == link_target(id).as_str())
    }

    /// Returns the layer that a link points to, if any.
    pub fn layer_at(&self, link: &LinkId) -> Option<CacheId> {
        let target = fs::read_link(self.link_path(link)).ok()?;
        target.parent()?.file_name()?.to_str()?.parse().ok()
    }

    /// Returns all links that point to the layer.
    ///
    /// # Errors
    /// [`FsError`] if `l/` cannot be read.
    pub fn links_to(&self, id: &CacheId) -> Result<Vec<LinkId>, FsError> {
        let names = fsutil::names_in(&self.path.join(LINKS))?;
        let links = names.iter().filter_map(|name| name.parse().ok());
        Ok(links.filter(|link| self.points_to(link, id)).collect())
    }

    /// Returns the links below a layer, nearest first; empty for a base.
    ///
    /// # Errors
    /// [`FsError`] if `lower` cannot be read or is malformed.
    pub fn lower_links(&self, id: &CacheId) -> Result<Vec<LinkId>, FsError> {
        let path = self.dir(id).join("lower");
        let Some(text) = fsutil::read_optional(&path)? else { return Ok(Vec::new()) };
        let malformed = || io::Error::new(io::ErrorKind::InvalidData, "it is not a list of links");
        let link = |part: &str| part.strip_prefix("l/").and_then(|link| link.parse().ok());
        let links: Option<Vec<LinkId>> = text.split(':').map(link).collect();
        links.ok_or_else(malformed).at("read", &path)
    }

    /// Returns the path of `l/<link>`.
    pub fn link_path(&self, link: &LinkId) -> PathBuf {
        self.path.join(LINKS).join(link.as_str())
    }

    /// Returns the path of a layer's file with its link ID.
    pub fn link_file(&self, id: &CacheId) -> PathBuf {
        self.dir(id).join("link")
    }

    /// Returns the path of a layer's list of the layers below it.
    pub fn lower_file(&self, id: &CacheId) -> PathBuf {
        self.dir(id).join("lower")
    }

    /// Returns the path of the mark of a layer that has a child.
    pub fn committed(&self, id: &CacheId) -> PathBuf {
        self.dir(id).join("committed")
    }

    /// Returns the directory of the short links.
    pub fn links(&self) -> PathBuf {
        self.path.join(LINKS)
    }

    /// Returns the entry of `lower` for a layer with this link.
    pub fn lower_entry(link: &LinkId) -> String {
        format!("{LINKS}/{link}")
    }

    /// Returns the expected `lower` of a layer above `parent`; `None` for a base. Does not check
    /// the parent's `lower`.
    ///
    /// # Errors
    /// [`FsError`] if the parent has no valid link.
    pub fn expected_lower(&self, parent: Option<&CacheId>) -> Result<Option<String>, FsError> {
        parent.map(|parent| self.lower_of_child(parent)).transpose()
    }

    /// Returns the text of a layer's `lower`; `None` if it does not exist.
    ///
    /// # Errors
    /// [`FsError`] if it cannot be read.
    pub fn lower(&self, id: &CacheId) -> Result<Option<String>, FsError> {
        fsutil::read_optional(&self.dir(id).join("lower"))
    }

    /// Returns the `diff` directories below a layer, nearest first.
    ///
    /// # Errors
    /// [`FsError`] if `lower` cannot be read or is malformed.
    pub fn lower_diffs(&self, id: &CacheId) -> Result<Vec<PathBuf>, FsError> {
        let links = self.lower_links(id)?;
        Ok(links.iter().filter_map(|link| self.layer_at(link)).map(|id| self.diff(&id)).collect())
    }

    /// Removes a layer's directory and its symlinks: that of its `link` file, and `link`. Keeps a
    /// directory of BuildKit, whose build cache refers to it, too.
    ///
    /// # Errors
    /// [`FsError`] if they cannot be removed.
    pub fn remove_layer(&self, id: &CacheId, link: Option<&LinkId>) -> Result<(), FsError> {
        if id.is_of_buildkit() {
            return Ok(());
        }
        let own = self.link(id).unwrap_or_default();
        // A symlink that points elsewhere belongs to another layer.
        link.into_iter().chain(&own).try_for_each(|link| self.remove_link(id, link))?;
        fsutil::remove(&self.dir(id))
    }

    fn lower_of_child(&self, parent: &CacheId) -> Result<String, FsError> {
        let path = self.dir(parent).join("link");
        let missing = || io::Error::new(io::ErrorKind::InvalidData, "it is not a link id");
        let link = self.link(parent)?.ok_or_else(missing).at("read", &path)?;
        let own = format!("{LINKS}/{link}");
        Ok(match self.lower(parent)? {
            Some(rest) => format!("{own}:{rest}"),
            None => own,
        })
    }
}

fn link_target(id: &CacheId) -> String {
    format!("../{id}/diff")
}
