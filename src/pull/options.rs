//! What a pull can be told.

use std::collections::HashSet;
use std::sync::Arc;

use crate::layer::{self, Limits};
use crate::oci::ChainId;
use crate::oci::Platform;

/// When the registry is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum Policy {
    /// Always: a tag may have moved. A digest cannot, and is not asked for when present.
    #[default]
    Always,
    /// Only if the image is not in the store, and not with all blobs in the content store.
    Missing,
    /// Never: the image is in the store, or in the content store with all blobs, or the pull fails.
    Never,
}

/// What a pull can be told.
#[derive(Debug, Clone)]
pub struct Options {
    /// The platform wanted; the host's if none is given.
    pub platform: Option<Platform>,
    /// How many layers are fetched and unpacked at a time.
    pub jobs: usize,
    /// When the registry is asked.
    pub policy: Policy,
    /// Say what would be fetched, and change nothing.
    pub dry_run: bool,
    /// Pull into a root that belongs to another image store.
    pub force: bool,
    /// Keep the compressed layers in the content store.
    pub keep_blobs: bool,
    /// Return only when all is on the disk, not just in the page cache.
    pub sync: bool,
    /// Guards against bombs.
    pub limits: Limits,
    /// Pull images that are in the store, too, and replace these layers of them.
    pub repair: Option<RepairedLayers>,
}

/// Layers whose files are known to be damaged. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub struct RepairedLayers(Arc<HashSet<ChainId>>);

impl RepairedLayers {
    /// Replaces the layers `chains`.
    pub fn new(chains: HashSet<ChainId>) -> Self {
        Self(Arc::new(chains))
    }

    /// Returns whether the layer is replaced.
    pub fn contains(&self, chain: &ChainId) -> bool {
        self.0.contains(chain)
    }
}

/// Twice Docker's: on a long line, what many small layers cost is round trips.
const JOBS: usize = layer::budget::DEFAULT_LAYERS;

impl Default for Options {
    fn default() -> Self {
        Self {
            platform: None,
            jobs: JOBS,
            policy: Policy::default(),
            dry_run: false,
            force: false,
            keep_blobs: false,
            sync: false,
            limits: Limits::default(),
            repair: None,
        }
    }
}
