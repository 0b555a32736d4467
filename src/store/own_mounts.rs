//! The mounts of a store's images, recognized by their layers: mounts by rpull, and by other
//! programs with what `mount --print` shows. Mounts of dockerd's containers are not among them.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::mounts::KeptDir;
use super::orphans::disk_bytes;
use super::{Store, StoreError};
use crate::fsutil::{At, is_same};
use crate::oci::{ChainId, ImageId};
use crate::overlay::{self, CacheId, MountEntry, OverlayRoot};

/// One line of `mounts`: a mount of an image, or a writable mount that is not mounted now.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub struct MountLine {
    /// The name; `None` if it is not a writable mount of this store.
    pub name: Option<String>,
    /// The mount point; `None` if it is not mounted, or in another mount namespace only.
    pub target: Option<PathBuf>,
    /// A name of the image; `None` if it is unknown or was removed.
    pub image: Option<String>,
    /// The image ID.
    pub id: Option<ImageId>,
    /// The position of the topmost layer in the image, from the base, which is 1; `None` if it is that
    /// of the image.
    pub at_layer: Option<usize>,
    /// Whether the mount is writable.
    pub writable: bool,
    /// The directory of changes.
    pub upper: Option<PathBuf>,
    /// What the changes take on the disk, bytes.
    pub written: Option<u64>,
    /// Whether it is mounted.
    pub mounted: bool,
    /// When it was created, RFC 3339; `None` if that is unknown.
    pub created: Option<String>,
    /// Where a writable mount was mounted last.
    pub last_target: Option<String>,
}

/// The image of a mount, by its topmost layer.
#[derive(Clone)]
struct MountedImage {
    /// A name of the image.
    image: String,
    id: ImageId,
    /// As in [`MountLine`].
    at_layer: Option<usize>,
}

/// A mount of one of the store's images.
struct OwnMount {
    /// The topmost layer.
    top: CacheId,
    upper: Option<PathBuf>,
}

impl Store {
    /// Returns the directory of changes of the image mounted at `target`, if it is writable.
    ///
    /// # Errors
    /// [`StoreError::NotMounted`] if nothing is mounted there, [`StoreError::ForeignMount`] if it is
    /// something else than an image of this store.
    pub fn upper_of_mount(&self, target: &Path) -> Result<Option<PathBuf>, StoreError> {
        use std::io::ErrorKind::{NotADirectory, NotFound};
        let mount = match overlay::mount_at(target) {
            Err(e) if matches!(e.kind(), NotFound | NotADirectory) => None,
            other => other.at("unmount", target)?,
        };
        let mount = mount.ok_or_else(|| StoreError::NotMounted(target.to_owned()))?;
        let own = own_mount(&self.overlay(), &mount);
        let own = own.ok_or_else(|| StoreError::ForeignMount {
            target: target.to_owned(),
            what: describe(&mount),
        })?;
        Ok(own.upper)
    }

    /// Returns the changes of a writable mount whose upper directory is `upper`, if this store
    /// has them.
    pub fn changes_in(&self, upper: &Path) -> Option<KeptDir> {
        KeptDir::of_upper(&self.layout, upper)
    }

    /// Returns the changes at `path` that a mount left.
    ///
    /// # Errors
    /// [`StoreError`] if they cannot be listed.
    pub fn changes_at(&self, path: &Path) -> Result<Option<KeptDir>, StoreError> {
        KeptDir::at(&self.layout, path)
    }

    /// Returns the mounts of this store's images that this process sees, and the writable mounts that
    /// are not mounted.
    ///
    /// # Errors
    /// [`StoreError`] if the store or /proc cannot be read.
    pub fn mount_lines(&self) -> Result<Vec<MountLine>, StoreError> {
        let overlay = self.overlay();
        let mounts = overlay::mounts().at("list mounts of", self.root())?;
        let mut by_top = None;
        let mut lines = Vec::new();
        let mut left = KeptDir::all(&self.layout)?;
        for mount in mounts {
            let Some(own) = own_mount(&overlay, &mount) else { continue };
            let kept = own.upper.as_deref().and_then(|upper| self.changes_in(upper));
            let upper = kept.as_ref().map(KeptDir::upper).or_else(|| own.upper.clone());
            left.retain(|other| Some(other.upper()) != upper);
            let mut line = match &kept {
                Some(kept) => self.writable_line(kept),
                None => MountLine { upper, ..MountLine::empty() },
            };
            if line.id.is_none() {
                let by_top = match &mut by_top {
                    Some(by_top) => by_top,
                    none => none.insert(self.images_by_top()?),
                };
                if let Some(MountedImage { image, id, at_layer }) = by_top.get(&own.top).cloned() {
                    line = MountLine { image: Some(image), id: Some(id), at_layer, ..line };
                }
            }
            line.written = line.upper.as_deref().map(disk_bytes);
            line.target = Some(mount.target);
            // A bind mount is only writable if a mount was killed before it was read-only.
            line.writable =
                !mount.read_only && (line.upper.is_some() || mount.fs_type != "overlay");
            line.mounted = true;
            lines.push(line);
        }
        if left.is_empty() {
            return Ok(lines);
        }
        let (elsewhere, _) = overlay::uppers_everywhere();
        for kept in &left {
            let mounted = kept.is_among(&elsewhere);
            // Of the others, a killed process left some, and another one is about to mount some.
            if mounted || kept.is_wanted() || !kept.is_empty() {
                let line = self.writable_line(kept);
                let written = line.upper.as_deref().map(disk_bytes);
                lines.push(MountLine { written, mounted, ..line });
            }
        }
        Ok(lines)
    }

    /// Returns the line of a writable mount, as far as its record tells.
    fn writable_line(&self, kept: &KeptDir) -> MountLine {
        let line = MountLine {
            name: Some(kept.name()),
            upper: Some(kept.upper()),
            writable: true,
            ..MountLine::empty()
        };
        let Some(record) = kept.record() else { return line };
        let at_layer = record.base.and_then(|base| {
            let chains = ChainId::stack(self.images().config(&record.id)?.diff_ids());
            let position = 1 + chains.iter().position(|chain| *chain == base)?;
            (position < chains.len()).then_some(position)
        });
        MountLine {
            image: Some(record.image),
            id: Some(record.id),
            at_layer,
            created: record.created,
            last_target: record.target,
            ..line
        }
    }

    /// Returns an image for each topmost layer: one whose topmost layer it is, or else one that has it.
    fn images_by_top(&self) -> Result<HashMap<CacheId, MountedImage>, StoreError> {
        let names = self.names().load()?.by_image();
        let (mut found, mut below) = (HashMap::new(), HashMap::new());
        for id in self.images().list()? {
            let Some(config) = self.images().config(&id) else { continue };
            let name = names.get(&id).and_then(|names| names.first());
            let name = name.map_or_else(|| id.short(), ToString::to_string);
            let chains = ChainId::stack(config.diff_ids());
            for (position, chain) in (1..).zip(&chains) {
                let Some(record) = self.layers().get(chain)? else { continue };
                let at_layer = (position < chains.len()).then_some(position);
                let image = MountedImage { image: name.clone(), id, at_layer };
                let map = if at_layer.is_some() { &mut below } else { &mut found };
                map.entry(record.cache_id).or_insert(image);
            }
        }
        below.extend(found);
        Ok(below)
    }
}

impl MountLine {
    fn empty() -> Self {
        Self {
            name: None,
            target: None,
            image: None,
            id: None,
            at_layer: None,
            writable: false,
            upper: None,
            written: None,
            mounted: false,
            created: None,
            last_target: None,
        }
    }
}

/// Returns what `mount` is of this store; `None` if it is something else.
fn own_mount(overlay: &OverlayRoot, mount: &MountEntry) -> Option<OwnMount> {
    if let Some(dirs) = mount.overlay_dirs() {
        let layers: Option<Vec<CacheId>> =
            dirs.lower.iter().map(|path| layer_at(overlay, path)).collect();
        let top = layers?.into_iter().next()?;
        // dockerd mounts a container with its changes in overlay2.
        let of_container = |upper: &PathBuf| layer_name(upper).is_some();
        let dockers = dirs.upper.as_ref().is_some_and(of_container);
        return (!dockers).then_some(OwnMount { top, upper: dirs.upper });
    }
    // An image with one layer is a bind mount of it.
    let top = layer_name(&mount.root)?;
    is_same(&mount.target, &overlay.diff(&top)).then_some(OwnMount { top, upper: None })
}

/// Returns the layer of this store at `path`: its files, or its link. The path is the one that
/// the mounting process used, which may be relative or another way to the same directory.
fn layer_at(overlay: &OverlayRoot, path: &Path) -> Option<CacheId> {
    let linked = || overlay.layer_at(&path.file_name()?.to_str()?.parse().ok()?);
    let id = layer_name(path).or_else(linked)?;
    let own = overlay.diff(&id);
    let is_other = path.is_absolute() && path.exists() && !is_same(path, &own);
    (own.is_dir() && !is_other).then_some(id)
}

/// Returns the name in `<name>/diff`.
fn layer_name(path: &Path) -> Option<CacheId> {
    let name = path.parent()?.file_name()?.to_str()?;
    path.ends_with("diff").then(|| CacheId::of_container(name))?
}

/// Describes a mount for an error.
fn describe(mount: &MountEntry) -> String {
    match mount.root.to_str() {
        Some("/") | None => format!("{} ({})", mount.source, mount.fs_type),
        Some(root) => format!("{root} of {} ({})", mount.source, mount.fs_type),
    }
}
