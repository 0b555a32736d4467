//! The containers of dockerd, as far as they keep layers (moby layer/filestore.go, mounts).

use super::StoreError;
use super::layout::Layout;
use crate::fsutil;
use crate::oci::{ChainId, ImageId};
use crate::overlay::CacheId;

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
    let image = |name: &String| {
        let path = containers.join(name).join("config.v2.json");
        let json: serde_json::Value = serde_json::from_slice(&std::fs::read(path).ok()?).ok()?;
        json.get("Image")?.as_str()?.parse().ok()
    };
    Ok(fsutil::names_in(&containers)?.iter().filter_map(image).collect())
}

fn texts(layout: &Layout, file: &str) -> Result<Vec<String>, StoreError> {
    let mounts = layout.container_mounts();
    let mut texts = Vec::new();
    for name in fsutil::names_in(&mounts)? {
        texts.extend(fsutil::read_optional(&mounts.join(name).join(file))?);
    }
    Ok(texts)
}
