//! Layers that were committed and not synced since, so that a power failure may damage them.
//!
//! ```text
//! <root>/rpull/unsynced/<boot id>/<chain id>-<cache id>     empty
//! ```
//!
//! A layer is listed before its record gets its name. Journaling file systems keep the order of
//! these two changes, so after a power failure a layer that exists is also listed. The first command
//! after another boot verifies the listed layers before any command uses them (see `recovery`).

use std::fs::File;
use std::io;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use super::StoreError;
use super::boot::boot_id;
use super::layout::Layout;
use crate::digest::Digest;
use crate::fsutil::{self, At};
use crate::oci::ChainId;
use crate::overlay::CacheId;

/// Stands for the boot id if the kernel does not tell it: then every command verifies.
const UNKNOWN: &str = "unknown";

/// Layers that another boot left unsynced.
#[derive(Debug)]
pub struct Unsynced {
    boots: Vec<String>,
    /// The layers with their directories, each once.
    pub layers: Vec<(ChainId, CacheId)>,
}

/// Lists a layer that is about to be committed.
///
/// # Errors
/// [`StoreError::Fs`] if the file cannot be created.
pub fn add(layout: &Layout, chain: &ChainId, directory: &CacheId) -> Result<(), StoreError> {
    let dir = layout.unsynced().join(this_boot());
    let path = dir.join(name(chain, directory));
    // Whatever has the name lists the layer.
    let create = || match File::options().write(true).create_new(true).mode(0o600).open(&path) {
        Err(e) if e.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        other => other.map(drop),
    };
    if create().is_ok() {
        return Ok(());
    }
    if dir.symlink_metadata().is_ok_and(|meta| !meta.is_dir()) {
        fsutil::remove(&dir)?;
    }
    fsutil::ensure_dir(&dir, 0o700)?;
    Ok(create().at("create", &path)?)
}

/// Removes a layer from the list of this boot.
///
/// # Errors
/// [`StoreError::Fs`] if the file cannot be removed.
pub fn forget(layout: &Layout, chain: &ChainId, directory: &CacheId) -> Result<(), StoreError> {
    let list = layout.unsynced().join(this_boot());
    if !is_list(&list) {
        return Ok(());
    }
    Ok(fsutil::remove(&list.join(name(chain, directory)))?)
}

/// Returns the layers that other boots left, if there are any.
///
/// # Errors
/// [`StoreError::Fs`] if a list cannot be read.
pub fn of_other_boots(layout: &Layout) -> Result<Option<Unsynced>, StoreError> {
    let dir = layout.unsynced();
    let mut boots = fsutil::names_in(&dir)?;
    boots.retain(|boot| boot != this_boot() || boot == UNKNOWN);
    if boots.is_empty() {
        return Ok(None);
    }
    let mut names = Vec::new();
    for boot in &boots {
        names.extend(names_in(&dir.join(boot))?);
    }
    names.sort_unstable();
    names.dedup();
    let layers = names.iter().filter_map(|name| parse(name)).collect();
    Ok(Some(Unsynced { boots, layers }))
}

impl Unsynced {
    /// Removes the lists: their layers were verified, and are on the disk.
    ///
    /// # Errors
    /// [`StoreError::Fs`] if a list cannot be removed.
    pub fn remove(self, layout: &Layout) -> Result<(), StoreError> {
        for boot in self.boots {
            fsutil::remove(&layout.unsynced().join(boot))?;
        }
        Ok(())
    }
}

/// Writes everything on the root's file system to the disk, and removes from the list of this boot
/// what it had before.
///
/// # Errors
/// [`StoreError::Fs`] if syncfs(2) fails or the list cannot be read.
pub fn sync(layout: &Layout) -> Result<(), StoreError> {
    let list = layout.unsynced().join(this_boot());
    let names = names_in(&list)?;
    let root = layout.root();
    let synced = File::open(root).and_then(|dir| Ok(rustix::fs::syncfs(dir)?));
    synced.at("sync", root)?;
    names.iter().try_for_each(|name| Ok(fsutil::remove(&list.join(name))?))
}

/// Returns the names in a list. Something that is not a directory has none.
fn names_in(list: &Path) -> Result<Vec<String>, StoreError> {
    if is_list(list) { Ok(fsutil::names_in(list)?) } else { Ok(Vec::new()) }
}

fn is_list(path: &Path) -> bool {
    path.symlink_metadata().is_ok_and(|meta| meta.is_dir())
}

fn name(chain: &ChainId, directory: &CacheId) -> String {
    format!("{}-{directory}", chain.hex())
}

fn parse(name: &str) -> Option<(ChainId, CacheId)> {
    let (chain, directory) = name.split_once('-')?;
    Some((ChainId(Digest::from_hex(chain).ok()?), directory.parse().ok()?))
}

/// Returns the name of this boot's list.
fn this_boot() -> &'static str {
    boot_id().unwrap_or(UNKNOWN)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn layer_is_listed_until_it_is_synced_and_verified_after_another_boot() {
        let (_dir, layout) = Layout::scratch();
        let (one, two) = (ChainId(Digest::of(b"1")), ChainId(Digest::of(b"2")));
        let directory = CacheId::generate().unwrap();
        add(&layout, &one, &directory).unwrap();
        assert!(of_other_boots(&layout).unwrap().is_none(), "this boot's are not verified");
        sync(&layout).unwrap();
        assert_eq!(fsutil::names_in(&layout.unsynced().join(this_boot())).unwrap(), [""; 0]);
        add(&layout, &two, &directory).unwrap();
        let other = layout.unsynced().join("0b5c9a4e-other");
        fs::rename(layout.unsynced().join(this_boot()), &other).unwrap();
        let unsynced = of_other_boots(&layout).unwrap().unwrap();
        assert_eq!(unsynced.layers, [(two, directory)]);
        unsynced.remove(&layout).unwrap();
        assert!(!other.exists());
    }
}
