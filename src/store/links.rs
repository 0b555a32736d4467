//! Consistency of `layerdb` and `overlay2`. dockerd finds a layer's parents by its records in
//! `layerdb` and mounts them by `link`, `l/` and `lower` in `overlay2`. If the two disagree, it
//! lists an image that it cannot mount, or mounts the files of another image.

use std::path::PathBuf;

use super::StoreError;
use super::layer_record::LayerRecord;
use super::layout::Layout;
use crate::fsutil::{self, FsError};
use crate::oci::ChainId;
use crate::overlay::{CacheId, LinkId, OverlayRoot};

/// Returns the fault of a layer in `overlay2`, if there is one. `parent` must have none.
///
/// # Errors
/// [`FsError`] if a file cannot be read.
pub fn fault(
    overlay: &OverlayRoot,
    record: &LayerRecord,
    parent: Option<&LayerRecord>,
) -> Result<Option<String>, FsError> {
    let id = &record.cache_id;
    let Some(link) = overlay.link(id)? else {
        return Ok(Some("its link is missing or malformed".to_owned()));
    };
    if !overlay.points_to(&link, id) {
        return Ok(Some(format!("l/{link} does not point to it")));
    }
    let parent_id = parent.map(|parent| &parent.cache_id);
    let (lower, expected) = (overlay.lower(id)?, overlay.expected_lower(parent_id)?);
    if !is_same_lower(overlay, lower.as_deref(), expected.as_deref()) {
        return Ok(Some("its lower file does not list its parents".to_owned()));
    }
    Ok(match parent_id {
        Some(_) if !overlay.work(id).is_dir() => Some("its work directory is missing".to_owned()),
        Some(parent) if !id.is_of_buildkit() && !overlay.is_committed(parent) => {
            Some("its parent is not marked as committed".to_owned())
        }
        _ => None,
    })
}

/// Returns whether two lists of the layers below a layer lead to the same files.
fn is_same_lower(overlay: &OverlayRoot, lower: Option<&str>, expected: Option<&str>) -> bool {
    let (Some(lower), Some(expected)) = (lower, expected) else { return lower == expected };
    let (lower, expected): (Vec<&str>, Vec<&str>) =
        (lower.split(':').collect(), expected.split(':').collect());
    let same = |(entry, expected): (&&str, &&str)| {
        entry == expected || in_build_cache(overlay, entry).is_some()
    };
    lower.len() == expected.len() && lower.iter().zip(&expected).all(same)
}

/// Returns the directory that an entry of `lower` refers to, if it is one of BuildKit's cache. BuildKit
/// builds on its own copy of a layer; if the layer has a record already, the record names another
/// directory with the same content (moby builder/builder-next/adapters/snapshot).
pub fn in_build_cache(overlay: &OverlayRoot, entry: &str) -> Option<CacheId> {
    let link = entry.strip_prefix("l/").unwrap_or(entry).parse().ok()?;
    let id = overlay.layer_at(&link)?;
    (id.is_of_buildkit() && overlay.diff(&id).is_dir()).then_some(id)
}

/// Repairs what [`fault`] found. The layer's files must have been verified, and the caller holds
/// the `commit` lock.
///
/// # Errors
/// [`StoreError`] if a file cannot be read or written.
pub fn repair(
    layout: &Layout,
    record: &LayerRecord,
    parent: Option<&LayerRecord>,
    children: &[LayerRecord],
) -> Result<(), StoreError> {
    let (overlay, id) = (layout.overlay(), &record.cache_id);
    let current = overlay.link(id)?;
    // A link of another layer is left to that layer.
    let own = current.filter(|link| is_free(&overlay, link, id));
    let link = match own {
        Some(link) => Some(link),
        None => known_link(layout, &record.chain, id, children)?,
    };
    let link = link.map_or_else(LinkId::generate, Ok).map_err(StoreError::Random)?;
    if overlay.link(id)?.as_ref() != Some(&link) || !overlay.points_to(&link, id) {
        overlay.set_link(id, &link)?;
    }
    Ok(overlay.set_parent(id, parent.map(|parent| &parent.cache_id))?)
}

/// Gives `new` the link of the broken layer `old`, if it had one, so that `lower` of the layers
/// above stays valid, and its mark of having a child.
///
/// # Errors
/// [`StoreError`] if a file cannot be read or written.
pub fn inherit(
    layout: &Layout,
    chain: &ChainId,
    old: Option<&CacheId>,
    new: &CacheId,
    children: &[LayerRecord],
) -> Result<(), StoreError> {
    let overlay = layout.overlay();
    let before = old.unwrap_or(new);
    if overlay.is_committed(before) {
        overlay.mark_committed(new)?;
    }
    let Some(link) = known_link(layout, chain, before, children)? else { return Ok(()) };
    let own = overlay.link(new)?;
    if own.as_ref() == Some(&link) {
        return Ok(());
    }
    overlay.set_link(new, &link)?;
    own.iter().try_for_each(|own| overlay.remove_link(new, own))?;
    Ok(())
}

/// Returns the link by which dockerd refers to the layer of `chain`, whose directory is or was
/// `id`: the one in `lower` of layers and containers above, else its own, else one that points
/// to it.
fn known_link(
    layout: &Layout,
    chain: &ChainId,
    id: &CacheId,
    children: &[LayerRecord],
) -> Result<Option<LinkId>, StoreError> {
    let overlay = layout.overlay();
    let mut above: Vec<CacheId> = children.iter().map(|child| child.cache_id.clone()).collect();
    above.extend(container_layers(layout, chain)?);
    let first = |id: &CacheId| overlay.lower_links(id).ok()?.into_iter().next();
    let named = above.iter().filter_map(first);
    let links = named.chain(overlay.link(id)?).chain(overlay.links_to(id)?);
    Ok(links.into_iter().find(|link| is_free(&overlay, link, id)))
}

/// Returns whether `link` can be the link of `id`: no other existing layer has it.
fn is_free(overlay: &OverlayRoot, link: &LinkId, id: &CacheId) -> bool {
    overlay.layer_at(link).is_none_or(|other| {
        let own = overlay.link(&other).ok().flatten();
        other == *id || !overlay.diff(&other).is_dir() || own.as_ref() != Some(link)
    })
}

/// Returns the lowest layers of dockerd's containers on `chain` (moby layer/filestore.go,
/// mounts), as the names of their directories in `overlay2`.
fn container_layers(layout: &Layout, chain: &ChainId) -> Result<Vec<CacheId>, FsError> {
    let mounts = layout.container_mounts();
    let mut found = Vec::new();
    for name in fsutil::names_in(&mounts)? {
        let read = |file: &str| fsutil::read_optional(&mounts.join(&name).join(file));
        if read("parent")?.as_deref() == Some(&chain.to_string()) {
            let id = read("init-id")?.or(read("mount-id")?);
            found.extend(id.and_then(|id| CacheId::of_container(&id)));
        }
    }
    Ok(found)
}

/// Returns the directories that dockerd mounts for an image with the layers `stack`, given base
/// first, and their links, relative to `overlay2`. Both are topmost first (moby overlay2.go
/// `getLower`, `get`).
///
/// # Errors
/// [`StoreError::Damaged`] if dockerd would mount other directories than those of `stack`.
pub fn mounted_by_dockerd(
    overlay: &OverlayRoot,
    stack: &[LayerRecord],
) -> Result<(Vec<PathBuf>, Vec<PathBuf>), StoreError> {
    let Some(top) = stack.last() else { return Ok((Vec::new(), Vec::new())) };
    let damaged = |why: String| StoreError::Damaged { path: overlay.dir(&top.cache_id), why };
    let own = overlay.link(&top.cache_id)?;
    let own = own.ok_or_else(|| damaged("its link is missing or malformed".to_owned()))?;
    let below = overlay.lower_links(&top.cache_id).map_err(|e| damaged(e.to_string()))?;
    let all: Vec<LinkId> = std::iter::once(own).chain(below).collect();
    let mut links = all.iter();
    let mut mounted = Vec::with_capacity(stack.len());
    for layer in stack.iter().rev() {
        let link = links.next().ok_or_else(|| {
            damaged("its lower file lists fewer layers than the image has".to_owned())
        })?;
        if overlay.points_to(link, &layer.cache_id) {
            mounted.push(overlay.diff(&layer.cache_id));
        } else if let Some(id) = in_build_cache(overlay, link.as_str()) {
            mounted.push(overlay.diff(&id));
        } else {
            let chain = layer.chain.short();
            return Err(damaged(format!("l/{link} does not point to the layer {chain} below it")));
        }
    }
    if links.next().is_some() {
        return Err(damaged("its lower file lists more layers than the image has".to_owned()));
    }
    Ok((mounted, all.iter().map(OverlayRoot::link_in).collect()))
}
