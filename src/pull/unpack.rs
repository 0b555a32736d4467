//! Unpacks a layer into a staging directory. Blocking.

use super::gate::WorkError;
use super::session::Session;
use super::task::{LayerTask, ReadyLayer};
use crate::fsutil::Buffers;
use crate::layer::{self, BlobSpec, ImageUsage, Job, LayerError, Unpacked, WindowGate};
use crate::overlay::{Abilities, DiffDir};
use crate::progress::{Meter, Phase};
use crate::store::Store;

/// Unpacks the blob of `task`, read from `source`.
///
/// # Errors
/// [`WorkError`]; nothing is left behind then.
pub fn unpack_blob(
    session: &Session,
    store: &Store,
    task: &LayerTask,
    source: impl Buffers + Send,
) -> Result<ReadyLayer, WorkError> {
    let (digest, size) = (task.blob.digest, task.blob.size);
    let meter = Meter::new(session.events.clone(), task.image.clone(), digest, Phase::Unpack, size);
    let gate = session.windows.gate(task.window.clone());
    unpack(
        session,
        store,
        source,
        Some(BlobSpec { digest, size }),
        Some(meter),
        (gate, task.usage.clone()),
    )
}

/// Unpacks an uncompressed tar, read from `source`.
///
/// # Errors
/// [`WorkError`]; nothing is left behind then.
pub fn unpack_tar(
    session: &Session,
    store: &Store,
    source: impl Buffers + Send,
) -> Result<ReadyLayer, WorkError> {
    // A tar has no window, and what the store has is not limited.
    unpack(session, store, source, None, None, (Box::new(|_| false), ImageUsage::default()))
}

fn unpack(
    session: &Session,
    store: &Store,
    source: impl Buffers + Send,
    blob: Option<BlobSpec>,
    meter: Option<Meter>,
    (window, image): (WindowGate, ImageUsage),
) -> Result<ReadyLayer, WorkError> {
    let layer = || blob.map_or("copy".to_owned(), |blob| blob.digest.short());
    let _span = tracing::debug_span!("unpack", layer = %layer()).entered();
    let staged = store.stage()?;
    let (abilities, path) = (session.abilities(), staged.diff_path());
    let diff = DiffDir::open_to_fill(&path, abilities.clone());
    let mut diff = diff.map_err(|e| LayerError::open(&path, e))?;
    let job = Job {
        blob,
        diff: &mut diff,
        tar_split: staged.create_tar_split()?,
        limits: session.options.limits,
        meter,
        pool: session.buffers.clone(),
        window,
        image,
    };
    let Unpacked { diff_id, size, omissions, .. } = layer::unpack(source, job)?;
    let omitted = omissions.omitted.avoided_by_capabilities(&Abilities::expected());
    let record = (!abilities.is_complete()).then_some(&omitted);
    staged.complete(blob.map(|blob| blob.digest).as_ref(), &diff_id, size, record)?;
    session.add_omissions(omissions);
    Ok(ReadyLayer::staged_here(diff_id, staged))
}
