//! Unpacks a blob for a pull. Blocking.

use super::gate::WorkError;
use super::session::Session;
use super::task::{LayerTask, ReadyLayer};
use super::unpacking::{Content, UnpackedLayer};
use crate::fsutil::Buffers;
use crate::layer::BlobSpec;
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
    let content = Content {
        blob: Some(BlobSpec { digest, size }),
        plain: false,
        holes: false,
        meter: Some(meter),
        window: session.windows.gate(task.window.clone()),
        image: task.usage.clone(),
    };
    Ok(ready(session, session.unpacking().stage(store, source, content)?))
}

/// Returns the layer for the session, which warns of what it lacks.
pub fn ready(session: &Session, layer: UnpackedLayer) -> ReadyLayer {
    session.add_omissions(layer.omissions);
    ReadyLayer::staged_here(layer.diff_id, layer.staged)
}
