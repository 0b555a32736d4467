//! What a check found: one damage per file, with a class.

use std::path::PathBuf;

use serde::Serialize;

use crate::oci::{ChainId, ImageId};

/// The class of a damage. The names are stable, because monitors read them in JSON; docs/damage.md
/// describes them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum DamageClass {
    /// The list of image names cannot be parsed.
    Names,
    /// The config of an image is missing, does not match its ID, or cannot be parsed.
    Config,
    /// The record of a layer is missing, incomplete or contradicts its chain ID.
    LayerRecord,
    /// The tar-split metadata of a layer is missing or cannot be read.
    TarSplit,
    /// The directory of a layer's files is missing.
    LayerDirectory,
    /// Several records name one directory.
    SharedDirectory,
    /// `link` of a layer is missing or malformed, or the short link does not point to the layer.
    LayerLink,
    /// `lower` of a layer does not list the layers below it.
    LayerLower,
    /// The work directory of a layer is missing.
    LayerWork,
    /// A layer with a child is not marked as having one.
    CommittedMark,
    /// A layer was unpacked without a capability that this process has, so that dockerd shows
    /// deleted files, or lacks devices, owners or attributes.
    UnprivilegedLayer,
    /// A file of a layer does not have the recorded content.
    LayerContent,
    /// A file of the content store does not match its name.
    ContentBlob,
}

impl DamageClass {
    /// Returns the name that JSON and tables show.
    pub fn name(self) -> &'static str {
        match self {
            Self::Names => "names",
            Self::Config => "config",
            Self::LayerRecord => "layer-record",
            Self::TarSplit => "tar-split",
            Self::LayerDirectory => "layer-directory",
            Self::SharedDirectory => "shared-directory",
            Self::LayerLink => "layer-link",
            Self::LayerLower => "layer-lower",
            Self::LayerWork => "layer-work",
            Self::CommittedMark => "committed-mark",
            Self::UnprivilegedLayer => "unprivileged-layer",
            Self::LayerContent => "layer-content",
            Self::ContentBlob => "content-blob",
        }
    }
}

/// A damaged file of a root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct Damage {
    /// The class.
    pub class: DamageClass,
    /// The file or directory.
    pub path: PathBuf,
    /// What is wrong with it, in one clause.
    pub why: String,
    /// The layer that it belongs to, if it belongs to one.
    pub layer: Option<ChainId>,
    /// The images that need it. Empty for a layer that no image has.
    pub images: Vec<ImageId>,
}

impl Damage {
    /// Creates a damage of no layer and no image.
    pub(crate) fn new(class: DamageClass, path: PathBuf, why: impl Into<String>) -> Self {
        Self { class, path, why: why.into(), layer: None, images: Vec::new() }
    }

    /// Sets the layer.
    pub(crate) fn of_layer(self, chain: ChainId) -> Self {
        Self { layer: Some(chain), ..self }
    }
}
