//! The containers of dockerd, as far as they keep layers (moby layer/filestore.go, mounts).

use super::StoreError;
use super::layout::Layout;
use crate::fsutil;
use crate::oci::ChainId;

/// Returns the top layers of the images of all containers.
///
/// # Errors
/// [`StoreError::Fs`] if a file cannot be read.
pub fn parents(layout: &Layout) -> Result<Vec<ChainId>, StoreError> {
    let mounts = layout.container_mounts();
    let mut parents = Vec::new();
    for name in fsutil::names_in(&mounts)? {
        let parent = fsutil::read_optional(&mounts.join(name).join("parent"))?;
        parents.extend(parent.and_then(|text| text.parse::<ChainId>().ok()));
    }
    Ok(parents)
}
