//! Unpacks a layer into a staging directory, for any command. Blocking.

use std::sync::Arc;

use super::gate::WorkError;
use crate::fsutil::Buffers;
use crate::layer::{
    self, BlobSpec, BufferPool, ImageUsage, Job, LayerError, Limits, OmissionReport, Unpacked,
    WindowGate,
};
use crate::oci::DiffId;
use crate::overlay::{Abilities, DiffDir};
use crate::progress::Meter;
use crate::store::{StagedLayer, Store};

/// What the unpacking of all layers of a command shares. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Unpacking {
    /// What this process may do with the files of layers.
    pub abilities: Arc<Abilities>,
    /// Limits on the content.
    pub limits: Limits,
    /// The buffers of all layers.
    pub buffers: BufferPool,
}

/// What the source of one layer is.
pub struct Content {
    /// Its size and digest, if it must have them.
    pub blob: Option<BlobSpec>,
    /// Whether it is a tar, whatever its first bytes are. Otherwise, it may be compressed.
    pub plain: bool,
    /// Whether blocks of zeros in large files become holes.
    pub holes: bool,
    /// Counts its bytes.
    pub meter: Option<Meter>,
    /// Allows the windows of a zstd stream.
    pub window: WindowGate,
    /// What the other layers of the image unpacked.
    pub image: ImageUsage,
}

impl Content {
    /// A tar that the store has, which is not limited with the rest of an image. A tar has no window.
    pub fn tar() -> Self {
        Self {
            blob: None,
            plain: true,
            holes: false,
            meter: None,
            window: Box::new(|_| false),
            image: ImageUsage::default(),
        }
    }
}

/// A layer that this process unpacked and verified. Its files are removed if it is dropped before
/// any process has committed it.
#[derive(Debug)]
pub struct UnpackedLayer {
    /// Its diff ID.
    pub diff_id: DiffId,
    /// Its files and its record.
    pub staged: StagedLayer,
    /// What it lacks.
    pub omissions: OmissionReport,
}

impl Unpacking {
    /// Unpacks `source` into a new directory of `store`. The caller holds the store lock.
    ///
    /// # Errors
    /// [`WorkError`]; nothing is left behind then.
    pub fn stage(
        &self,
        store: &Store,
        source: impl Buffers + Send,
        content: Content,
    ) -> Result<UnpackedLayer, WorkError> {
        let Content { blob, plain, holes, meter, window, image } = content;
        let layer = || blob.map_or("copy".to_owned(), |blob| blob.digest.short());
        let _span = tracing::debug_span!("unpack", layer = %layer()).entered();
        let staged = store.stage()?;
        let (abilities, path) = (&self.abilities, staged.diff_path());
        let diff = DiffDir::open_to_fill(&path, abilities.clone());
        let mut diff = diff.map_err(|e| LayerError::open(&path, e))?;
        let job = Job {
            blob,
            plain,
            holes,
            diff: &mut diff,
            tar_split: staged.create_tar_split()?,
            limits: self.limits,
            meter,
            pool: self.buffers.clone(),
            window,
            image,
        };
        let Unpacked { diff_id, size, omissions, .. } = layer::unpack(source, job)?;
        let omitted = omissions.omitted.avoided_by_capabilities(&Abilities::expected());
        let record = (!abilities.is_complete()).then_some(&omitted);
        staged.complete(blob.map(|blob| blob.digest).as_ref(), &diff_id, size, record)?;
        Ok(UnpackedLayer { diff_id, staged, omissions })
    }
}
