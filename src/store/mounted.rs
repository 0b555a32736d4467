//! The mounts of layers that this process sees.

use std::collections::HashSet;
use std::fs;

use super::{Store, StoreError};
use crate::fsutil::At;
use crate::oci::ChainId;
use crate::overlay::{CacheId, OverlayRoot};

const MOUNTS: &str = "/proc/thread-self/mountinfo";

/// All mounts at one moment, as lines of proc_pid_mountinfo(5).
pub struct Mounts(String);

impl Mounts {
    /// Reads the mounts.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if they cannot be read: then nothing may be removed.
    pub fn read() -> Result<Self, StoreError> {
        Ok(Self(fs::read_to_string(MOUNTS).at("read", MOUNTS.as_ref())?))
    }

    /// Returns the mount point of a mount whose line contains `name`.
    pub fn naming(&self, name: &str) -> Option<String> {
        let line = self.0.lines().find(|line| line.contains(name))?;
        line.split(' ').nth(4).map(str::to_owned)
    }

    /// Returns the mount point of a mount of the layer in `id`. dockerd mounts by the short links.
    pub fn of_layer(&self, overlay: &OverlayRoot, id: &CacheId) -> Option<String> {
        let link = overlay.link(id).ok().flatten();
        link.and_then(|link| self.naming(link.as_str())).or_else(|| self.naming(id.as_str()))
    }
}

impl Store {
    /// Returns the mount point of a mount that contains one of the layers, if there is one.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if a file cannot be read.
    pub fn mounted_layer(&self, chains: &HashSet<ChainId>) -> Result<Option<String>, StoreError> {
        let mounts = Mounts::read()?;
        for chain in chains {
            if let Some(record) = self.layers().get(chain)?
                && let Some(at) = mounts.of_layer(&self.overlay(), &record.cache_id)
            {
                return Ok(Some(at));
            }
        }
        Ok(None)
    }
}
