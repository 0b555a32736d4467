//! A layer that an image needs, and what staging it gives.

use tokio::runtime::Handle;

use super::source::Source;
use super::windows::Window;
use crate::layer::ImageUsage;
use crate::oci::{ChainId, Descriptor, DiffId};
use crate::overlay::CacheId;
use crate::progress::Image;
use crate::store::{LayerRecord, StagedLayer};

/// A layer that an image needs.
#[derive(Clone)]
pub struct LayerTask {
    /// The image.
    pub image: Image,
    /// Where the blob comes from.
    pub source: Source,
    /// The blob.
    pub blob: Descriptor,
    /// The expected diff id, and the chain id up to this layer, once the config is known.
    pub place: Option<(DiffId, ChainId)>,
    /// A directory of the layer that is known to be damaged.
    pub broken: Option<CacheId>,
    /// The layer as it is in the store, if it was unpacked without a capability that this process has:
    /// it is unpacked again from its own files.
    pub unprivileged: Option<LayerRecord>,
    /// The memory for its zstd window, if the layer waited for it.
    pub window: Option<Window>,
    /// What all layers of the image unpacked.
    pub usage: ImageUsage,
}

impl LayerTask {
    /// Creates the task for the layer `blob` of `image` from `source`.
    pub fn new(
        image: &Image,
        (source, usage): (&Source, &ImageUsage),
        blob: &Descriptor,
        place: Option<(DiffId, ChainId)>,
    ) -> Self {
        let (image, source, blob) = (image.clone(), source.clone(), blob.clone());
        Self {
            image,
            source,
            blob,
            place,
            broken: None,
            unprivileged: None,
            window: None,
            usage: usage.clone(),
        }
    }
}

/// A layer that can be committed, or is.
pub struct ReadyLayer {
    /// Its diff id.
    pub diff_id: DiffId,
    staged: Option<StagedLayer>,
}

impl ReadyLayer {
    /// A layer that this process staged. If it is dropped before it is committed, its files are
    /// removed.
    pub fn staged_here(diff_id: DiffId, staged: StagedLayer) -> Self {
        Self { diff_id, staged: Some(staged) }
    }

    /// A layer that another process staged or committed.
    pub fn staged_elsewhere(diff_id: DiffId) -> Self {
        Self { diff_id, staged: None }
    }

    /// Whether this process unpacked the layer, so that its diff id is that of its content.
    pub fn is_staged_here(&self) -> bool {
        self.staged.is_some()
    }
}

impl ReadyLayer {
    /// Drops the layer on this thread, which may block. Its files are removed unless it is
    /// committed.
    pub fn discard(mut self) {
        drop(self.staged.take());
    }
}

impl Drop for ReadyLayer {
    fn drop(&mut self) {
        // Removing files blocks. A runtime that ends drops the closure, which removes them too.
        if let (Some(staged), Ok(runtime)) = (self.staged.take(), Handle::try_current()) {
            runtime.spawn_blocking(move || drop(staged));
        }
    }
}
