//! One layer's directory in the form of Docker's overlay2 driver (moby
//! daemon/graphdriver/overlay2/overlay.go `create`):
//!
//! ```text
//! overlay2/<cache-id>/         0710
//!     diff/                    0755  the layer's files
//!     link                     0644  its link id
//!     lower                    0644  "l/<parent's link>:<parent's lower>"; none on a base
//!     work/                    0700  with a parent only
//!     committed                0600  empty; once a child exists
//! overlay2/l/<link-id>         ->    ../<cache-id>/diff
//! ```

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use super::{CacheId, LinkId};
use crate::fsutil::{self, At, FsError};

/// The directory of the short links.
const LINKS: &str = "l";

/// The `overlay2` directory.
#[derive(Debug, Clone)]
pub struct OverlayRoot(PathBuf);

impl OverlayRoot {
    /// The directory at `path`.
    pub fn new(path: PathBuf) -> Self {
        Self(path)
    }

    /// Its path.
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Makes the directory and `l/`.
    ///
    /// # Errors
    /// [`FsError`].
    pub fn create(&self) -> Result<(), FsError> {
        fsutil::ensure_dir(&self.0, 0o710)?;
        fsutil::ensure_dir(&self.0.join(LINKS), 0o700)
    }

    /// A layer's directory.
    pub fn dir(&self, id: &CacheId) -> PathBuf {
        self.0.join(id.as_str())
    }

    /// A layer's files.
    pub fn diff(&self, id: &CacheId) -> PathBuf {
        self.dir(id).join("diff")
    }

    /// Where dockerd mounts a layer, and what it names in `inspect`.
    pub fn merged(&self, id: &CacheId) -> PathBuf {
        self.dir(id).join("merged")
    }

    /// The layer's work directory.
    pub fn work(&self, id: &CacheId) -> PathBuf {
        self.dir(id).join("work")
    }

    /// The names in the directory that could be layers.
    ///
    /// # Errors
    /// [`FsError`].
    pub fn cache_ids(&self) -> Result<Vec<CacheId>, FsError> {
        Ok(fsutil::names_in(&self.0)?.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// Makes a layer's directory with an empty `diff`, its link and its symlink.
    ///
    /// # Errors
    /// [`FsError`]; what was made stays, for the journal's owner to remove.
    pub fn create_layer(&self, id: &CacheId, link: &LinkId) -> Result<(), FsError> {
        let dir = self.dir(id);
        fsutil::ensure_dir(&dir, 0o710)?;
        fsutil::ensure_dir(&dir.join("diff"), 0o755)?;
        let name = self.0.join(LINKS).join(link.as_str());
        symlink(format!("../{id}/diff"), &name).at("create symlink", &name)?;
        fsutil::write_new(&dir.join("link"), link.as_str().as_bytes(), 0o644)
    }

    /// Puts the layer above `parent`: writes `lower`, makes `work`, marks the parent as
    /// committed.
    ///
    /// # Errors
    /// [`FsError`].
    pub fn set_parent(&self, id: &CacheId, parent: &CacheId) -> Result<(), FsError> {
        let dir = self.dir(id);
        let lower = self.lower_of_child(parent)?;
        fsutil::write_new(&dir.join("lower"), lower.as_bytes(), 0o644)?;
        fsutil::ensure_dir(&dir.join("work"), 0o700)?;
        let committed = self.dir(parent).join("committed");
        if !committed.exists() {
            fsutil::write_atomic(&committed, b"", 0o600)?;
        }
        Ok(())
    }

    /// Takes `committed` from a layer that has no child after all.
    ///
    /// # Errors
    /// [`FsError`].
    pub fn uncommit(&self, id: &CacheId) -> Result<(), FsError> {
        fsutil::remove(&self.dir(id).join("committed"))
    }

    /// The link id of a layer.
    ///
    /// # Errors
    /// [`FsError`] if it is missing or malformed.
    pub fn link(&self, id: &CacheId) -> Result<LinkId, FsError> {
        let path = self.dir(id).join("link");
        let text = fs::read_to_string(&path).at("read", &path)?;
        text.parse().map_err(std::io::Error::other).at("read", &path)
    }

    /// The links below a layer, nearest first: `l/AAA:l/BBB`; empty on a base.
    ///
    /// # Errors
    /// [`FsError`].
    pub fn lower(&self, id: &CacheId) -> Result<String, FsError> {
        Ok(fsutil::read_optional(&self.dir(id).join("lower"))?.unwrap_or_default())
    }

    /// The layer that a link leads to, if it leads to one.
    pub fn behind(&self, link: &LinkId) -> Option<CacheId> {
        let target = fs::read_link(self.0.join(LINKS).join(link.as_str())).ok()?;
        target.parent()?.file_name()?.to_str()?.parse().ok()
    }

    /// The `diff` directories below a layer, nearest first.
    ///
    /// # Errors
    /// [`FsError`].
    pub fn lower_diffs(&self, id: &CacheId) -> Result<Vec<PathBuf>, FsError> {
        let lower = self.lower(id)?;
        let links = lower.split(':').filter_map(|part| part.strip_prefix("l/")?.parse().ok());
        Ok(links.filter_map(|link| self.behind(&link)).map(|id| self.diff(&id)).collect())
    }

    /// Removes a layer's directory and its symlink.
    ///
    /// # Errors
    /// [`FsError`].
    pub fn remove_layer(&self, id: &CacheId, link: Option<&LinkId>) -> Result<(), FsError> {
        let own = self.link(id).ok();
        for link in link.into_iter().chain(&own) {
            // Never take away a link that leads elsewhere.
            let name = self.0.join(LINKS).join(link.as_str());
            let leads_here =
                fs::read_link(&name).is_ok_and(|to| to.starts_with(format!("../{id}")));
            if leads_here {
                fsutil::remove(&name)?;
            }
        }
        fsutil::remove(&self.dir(id))
    }

    fn lower_of_child(&self, parent: &CacheId) -> Result<String, FsError> {
        let own = format!("{LINKS}/{}", self.link(parent)?);
        let rest = self.lower(parent)?;
        Ok(if rest.is_empty() { own } else { format!("{own}:{rest}") })
    }
}
