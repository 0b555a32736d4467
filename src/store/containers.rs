//! The containers of dockerd, as far as they keep layers (moby layer/filestore.go, mounts).

use std::path::Path;

use super::StoreError;
use super::layout::Layout;
use crate::fsutil;
use crate::oci::{ChainId, ImageId};
use crate::overlay::CacheId;

/// Bytes of a container's config at most.
const MAX_CONFIG_SIZE: u64 = 32 << 20;

/// Bytes of a file with one ID at most.
const MAX_RECORD_SIZE: u64 = 4096;

/// Returns the top layers of the images of all containers.
///
/// # Errors
/// [`StoreError::Fs`] if a file cannot be read.
pub fn parents(layout: &Layout) -> Result<Vec<ChainId>, StoreError> {
    let texts = texts(layout, "parent")?;
    Ok(texts.iter().filter_map(|text| text.parse().ok()).collect())
}

/// Returns the directories in `overlay2` of all containers' own layers.
///
/// # Errors
/// [`StoreError::Fs`] if a file cannot be read.
pub fn directories(layout: &Layout) -> Result<Vec<CacheId>, StoreError> {
    let mut texts = texts(layout, "mount-id")?;
    texts.extend(self::texts(layout, "init-id")?);
    Ok(texts.iter().filter_map(|text| CacheId::of_container(text)).collect())
}

/// Returns the image of each container, from its config (moby container/container.go).
///
/// # Errors
/// [`StoreError::Fs`] if the directory cannot be read.
pub fn images(layout: &Layout) -> Result<Vec<ImageId>, StoreError> {
    let containers = layout.containers();
    let names = fsutil::names_in(&containers)?;
    Ok(names.iter().filter_map(|name| image(&containers.join(name))).collect())
}

/// Returns the image of the container whose directory is `dir`.
pub fn image(dir: &Path) -> Option<ImageId> {
    let bytes = fsutil::read(&dir.join("config.v2.json"), MAX_CONFIG_SIZE).ok()?;
    let json: serde_json::Value = serde_json::from_slice(&bytes).ok()?;
    json.get("Image")?.as_str()?.parse().ok()
}

fn texts(layout: &Layout, file: &str) -> Result<Vec<String>, StoreError> {
    let mounts = layout.container_mounts();
    let mut texts = Vec::new();
    for name in fsutil::names_in(&mounts)? {
        // A file that cannot be read is an error, so that no layer of a container is removed.
        let bytes = fsutil::read_optional_bytes(&mounts.join(name).join(file), MAX_RECORD_SIZE)?;
        texts.extend(bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned()));
    }
    Ok(texts)
}
