//! The report of a dry run: what a pull would fetch.

use super::Pulled;
use super::plan::{Plan, Step};
use super::resolve::ResolvedImage;
use super::session::Session;
use super::source::Source;
use crate::digest::Digest;
use crate::error::Error;
use crate::oci::DiffId;
use crate::progress::{Event, Image, Status};
use crate::store::{Store, StoreError};

/// A layer, as the plan sees it.
struct Candidate {
    blob: Digest,
    size: u64,
    diff_id: DiffId,
    is_present: bool,
}

/// Sends what a pull would fetch of an image.
///
/// # Errors
/// [`Error::Store`] if the store cannot be read.
pub async fn report(
    session: &Session,
    image: &Image,
    resolved: &ResolvedImage,
    plan: Plan,
) -> Result<Pulled, Error> {
    let (digest, id, is_config_fetched) = (resolved.top().digest, plan.id, plan.is_config_fetched);
    let candidates = plan.layers.into_iter().map(|layer| Candidate {
        blob: layer.task.blob.digest,
        size: layer.task.blob.size,
        diff_id: layer.diff_id,
        is_present: matches!(layer.step, Step::Present),
    });
    let mut missing: Vec<Candidate> = candidates.collect();
    let keep_blobs = session.options.keep_blobs;
    let find = session.store(move |store| {
        store.layers().refresh();
        let mut found = Vec::new();
        for layer in missing.drain(..) {
            if is_fetched(store, &layer, keep_blobs)? {
                found.push((layer.blob, layer.size));
            }
        }
        Ok(found)
    });
    let mut layers = find.await?;
    layers.retain(|(blob, _)| session.is_first_plan(*blob));
    let requests = match resolved.source {
        Source::Registry(_) => resolved.requests + usize::from(is_config_fetched) + layers.len(),
        Source::Archive(_) => 0,
    };
    session.events.send(Event::Planned { image: image.clone(), digest, id, layers, requests });
    let reference = image.as_ref().clone();
    Ok(Pulled { reference, digest, id, status: Status::Downloaded, moved: Vec::new() })
}

/// Whether the blob of a layer must come from the registry.
fn is_fetched(store: &Store, layer: &Candidate, keep_blobs: bool) -> Result<bool, StoreError> {
    if store.content().has(&layer.blob, layer.size)? {
        return Ok(false);
    }
    let is_stored = layer.is_present || !store.layers().by_diff_id(&layer.diff_id)?.is_empty();
    // An uncompressed blob is reassembled from the store.
    Ok(!is_stored || (keep_blobs && layer.diff_id.digest() != layer.blob))
}
