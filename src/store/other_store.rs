//! Detection of a root that belongs to another image store: images pulled there would not be shown, or
//! would hide what the other store has.
//!
//! Docker 29 keeps images in containerd's store, unless its settings choose a graph driver or the
//! directory of a graph driver in its root is not empty (moby daemon/image_store_choice.go). With the
//! first layer in `overlay2/`, such a dockerd shows the images of `overlay2` only. docs/docker-29.md
//! tells users the same.

use std::fs;
use std::path::{Path, PathBuf};

use super::StoreError;
use super::bolt;
use crate::fsutil::{self, is_same};

/// Where Docker and containerd keep settings and data.
#[derive(Debug, Clone)]
pub struct Machine {
    /// dockerd's settings.
    pub daemon_json: PathBuf,
    /// dockerd's data root, unless the settings name another.
    pub data_root: PathBuf,
    /// The root of the system's containerd.
    pub containerd: PathBuf,
}

impl Default for Machine {
    fn default() -> Self {
        Self {
            daemon_json: "/etc/docker/daemon.json".into(),
            data_root: "/var/lib/docker".into(),
            containerd: "/var/lib/containerd".into(),
        }
    }
}

/// The other storage drivers of dockerd. It keeps images in `image/<driver>` and layers in `<driver>`.
const OTHER_DRIVERS: [&str; 4] = ["fuse-overlayfs", "btrfs", "zfs", "vfs"];

/// The images of podman and CRI-O in their graph root.
const PODMAN_IMAGES: [&str; 2] = ["overlay-images", "vfs-images"];

/// The root of the containerd that a dockerd starts if the system has none.
const OWN_CONTAINERD: &str = "containerd/daemon";

/// containerd's list of images, in its root.
const DATABASE: &str = "io.containerd.metadata.v1.bolt/meta.db";

/// The namespace of dockerd's images.
const NAMESPACE: &str = "moby";

/// Bytes of dockerd's settings at most.
const MAX_SETTINGS: u64 = 1 << 20;

/// Another store, and the settings that would make dockerd use this one.
struct Other {
    why: String,
    setting: Option<PathBuf>,
}

/// Refuses a root that belongs to another image store. Costs a few calls of stat(2), and for an empty
/// data root of dockerd some pages of containerd's database.
///
/// # Errors
/// [`StoreError::OtherStore`] if it does.
pub fn refuse(root: &Path, machine: &Machine) -> Result<(), StoreError> {
    match look(root, machine) {
        Ok(found) => {
            tracing::info!("image store of {}: {found}", root.display());
            Ok(())
        }
        Err(Other { why, setting }) => {
            Err(StoreError::OtherStore { root: root.to_owned(), why, setting })
        }
    }
}

/// Returns why the root can be written.
fn look(root: &Path, machine: &Machine) -> Result<String, Other> {
    if let Some(found) = PODMAN_IMAGES.iter().find(|name| root.join(name).is_dir()) {
        let why = format!(
            "podman or CRI-O keeps images there ({found}), and can fail on a root with overlay2"
        );
        return Err(Other { why, setting: None });
    }
    let daemon_json = machine.daemon_json.display();
    let settings = Settings::read(&machine.daemon_json);
    let data_root = settings.data_root.as_deref().unwrap_or(&machine.data_root);
    let is_data_root = root == data_root || is_same(root, data_root);
    let setting = is_data_root.then(|| machine.daemon_json.clone());
    match settings.choice {
        _ if !is_data_root => {}
        Choice::Overlay2 => return Ok(format!("{daemon_json} chooses overlay2")),
        Choice::Other(line) => {
            let why = format!("{daemon_json} has {line}, so dockerd shows no images of overlay2");
            return Err(Other { why, setting });
        }
        Choice::Default => {}
    }
    if has_entries(&root.join("overlay2")) {
        return Ok("overlay2 has content".to_owned());
    }
    let is_of_driver = |driver: &&&str| {
        root.join("image").join(driver).is_dir() && has_entries(&root.join(driver))
    };
    if let Some(driver) = OTHER_DRIVERS.iter().find(is_of_driver) {
        let why = format!("dockerd keeps images there with the storage driver {driver}");
        return Err(Other { why, setting });
    }
    // dockerd creates the file at its first start. Only its own root can hide images of the system's
    // containerd.
    let is_dockerds = is_data_root || root.join("engine-id").exists();
    let system = is_dockerds.then_some(&machine.containerd);
    let databases =
        [Some(&root.join(OWN_CONTAINERD)), system].map(|it| it.map(|it| it.join(DATABASE)));
    let databases: Vec<PathBuf> = databases.into_iter().flatten().collect();
    if let Some(database) = databases.iter().find(|path| bolt::has_images(path, NAMESPACE)) {
        let why = format!(
            "dockerd has images in containerd's store ({}, namespace {NAMESPACE}), which it no longer \
             shows once the root has layers in overlay2",
            database.display()
        );
        return Err(Other { why, setting });
    }
    let shown: Vec<_> = databases.iter().map(|path| path.display().to_string()).collect();
    Ok(format!("overlay2 is empty, and no images are in {}", shown.join(", ")))
}

/// The image store that dockerd's settings choose.
#[derive(Debug, Default, PartialEq, Eq)]
enum Choice {
    /// None: dockerd decides by what it finds.
    #[default]
    Default,
    /// The graph driver `overlay2`.
    Overlay2,
    /// Another one, by the setting in the string.
    Other(String),
}

#[derive(Debug, Default)]
struct Settings {
    data_root: Option<PathBuf>,
    choice: Choice,
}

impl Settings {
    /// Reads dockerd's settings. A file that is missing or invalid counts as empty: dockerd does not
    /// start with an invalid one.
    fn read(path: &Path) -> Self {
        let text = fsutil::read(path, MAX_SETTINGS).unwrap_or_default();
        let json: serde_json::Value = serde_json::from_slice(&text).unwrap_or_default();
        let data_root = json["data-root"].as_str().or(json["graph"].as_str());
        let driver = json["storage-driver"].as_str().unwrap_or_default();
        let choice = match (json["features"]["containerd-snapshotter"].as_bool(), driver) {
            (Some(true), _) => Choice::Other("\"containerd-snapshotter\": true".to_owned()),
            (Some(false), "") | (_, "overlay2") => Choice::Overlay2,
            (None, "") => Choice::Default,
            (_, driver) => Choice::Other(format!("\"storage-driver\": \"{driver}\"")),
        };
        Self { data_root: data_root.map(PathBuf::from), choice }
    }
}

fn has_entries(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some())
}

#[cfg(test)]
mod tests;
