//! The marks of overlayfs in the layers of an image: the choice of the mount option `userxattr`, and the
//! merged view without a mount.
//!
//! overlayfs reads either `trusted.overlay.*` or, with `userxattr`, `user.overlay.*`. A mount of layers
//! with the other marks shows files that the image deletes, without an error.

use std::path::PathBuf;

use crate::error::Error;
use crate::layer::{self, LayerError};
use crate::overlay::{Abilities, DiffDir, MergedLayer, OpaqueDirs, XattrSpace};
use crate::store::{LayerRecord, Store};

/// Returns whether a mount of `layers`, base first, needs `userxattr`. `changes` says which marks an upper
/// directory has that was mounted before: `Some(true)` if they are `user.overlay.*`.
///
/// # Errors
/// [`Error::Marks`] if every mount by this process would show deleted files.
pub fn needs_userxattr(
    store: &Store,
    image: &str,
    layers: &[LayerRecord],
    changes: Option<bool>,
) -> Result<bool, Error> {
    let is_trusted = Abilities::expected().space == XattrSpace::Trusted;
    // The base hides nothing.
    let above = layers.get(1..).unwrap_or_default();
    let (mut user, mut unknown) = (changes == Some(true), Vec::new());
    let mut is_recorded = true;
    for layer in above {
        match store.omitted(layer)? {
            Some(omitted) if !omitted.unknown => user |= omitted.user_marks > 0,
            other => {
                is_recorded &= other.is_none();
                unknown.push(layer);
            }
        }
    }
    // Layers without a record have the marks that this process reads, and no others exist.
    if is_trusted && !user && is_recorded {
        return Ok(false);
    }
    if let Some(top) = layers.last().filter(|_| changes == Some(false) && (user || !is_trusted)) {
        let why = "those of the changes are trusted.overlay.*, which this mount cannot read";
        return Err(Error::Marks { image: image.to_owned(), layer: top.chain.short(), why });
    }
    let mut trusted = None;
    for layer in unknown {
        let marks = marks(store, layer)?;
        user |= marks.user;
        trusted = trusted.or(marks.other.then_some(layer));
    }
    let refuse = |layer: &LayerRecord, why| {
        Err(Error::Marks { image: image.to_owned(), layer: layer.chain.short(), why })
    };
    match trusted {
        Some(layer) if user => refuse(layer, "those of another layer are user.overlay.*"),
        Some(layer) if !is_trusted => refuse(layer, "mounts by this process cannot read them"),
        _ => Ok(user || !is_trusted),
    }
}

/// Opens the directories `lower`, topmost first, of `layers`, base first, for the merged view.
///
/// # Errors
/// A layer or its metadata cannot be read.
pub fn open_layers(
    store: &Store,
    lower: &[PathBuf],
    layers: &[LayerRecord],
) -> Result<Vec<MergedLayer>, Error> {
    let open = |(path, layer): (&PathBuf, &LayerRecord)| {
        Ok(MergedLayer::open(path, opaque_dirs(store, layer)?)?)
    };
    lower.iter().zip(layers.iter().rev()).map(open).collect()
}

/// Returns how this process finds the opaque directories of a layer.
fn opaque_dirs(store: &Store, layer: &LayerRecord) -> Result<OpaqueDirs, Error> {
    let is_trusted = Abilities::expected().space == XattrSpace::Trusted;
    match store.omitted(layer)? {
        Some(omitted) if !omitted.unknown && omitted.user_marks > 0 => {
            Ok(OpaqueDirs::Marked(vec![XattrSpace::User]))
        }
        Some(omitted) if omitted.unknown && is_trusted => {
            Ok(OpaqueDirs::Marked(vec![XattrSpace::Trusted, XattrSpace::User]))
        }
        _ if is_trusted => Ok(OpaqueDirs::Marked(vec![XattrSpace::Trusted])),
        _ => {
            let failed = |source| Error::Layer { layer: layer.diff_id.digest(), source };
            let path = store.layers().diff_path(layer);
            let diff = DiffDir::open(&path).map_err(|e| failed(LayerError::open(&path, e)))?;
            let tar_split = store.layers().tar_split(&layer.chain)?;
            Ok(OpaqueDirs::Named(layer::opaque_dirs(tar_split, &diff).map_err(failed)?))
        }
    }
}

fn marks(store: &Store, layer: &LayerRecord) -> Result<layer::Marks, Error> {
    let failed = |source| Error::Layer { layer: layer.diff_id.digest(), source };
    let path = store.layers().diff_path(layer);
    let diff = DiffDir::open(&path).map_err(|e| failed(LayerError::open(&path, e)))?;
    let tar_split = store.layers().tar_split(&layer.chain)?;
    layer::marks(tar_split, &diff).map_err(failed)
}
