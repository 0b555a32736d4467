//! Making it real, in order: layers from the base up, then the image, then its names.

use std::fs::File;
use std::sync::Arc;

use super::obtain::{Obtained, blocking};
use super::plan::{Plan, Planned, Step};
use super::resolve::Found;
use super::{Pulled, Session};
use crate::error::Error;
use crate::oci::{Descriptor, Document, ImageConfig, ImageId};
use crate::progress::{Event, Image, LayerState, Status};
use crate::reference::Reference;
use crate::store::{LayerRecord, Store, StoreError};

/// Commits an image's layers.
pub async fn layers(session: &Session<'_>, image: &Image, plan: Plan) -> Result<(), Error> {
    session.layers.begin_writing().await?;
    let mut parent: Option<LayerRecord> = None;
    for Planned { blob, diff_id, chain, step } in plan.layers {
        let record = match step {
            Step::Present(record) => record,
            Step::DryRun => continue,
            Step::Obtain(obtaining) => {
                let obtained = obtaining.done().await?;
                if obtained.diff_id != diff_id {
                    let (expected, actual) = (diff_id, obtained.diff_id);
                    return Err(Error::DiffId { layer: blob.digest, expected, actual });
                }
                let _turn = session.layers.turn(chain).await;
                let record = one(session, &obtained, parent.take(), chain).await?;
                let (image, layer) = (image.clone(), blob.digest);
                session.events.send(Event::Layer { image, layer, state: LayerState::PullComplete });
                record
            }
        };
        let (store, repository) = (session.store.clone(), image.repository().clone());
        blocking(move || store.distribution().record(&blob.digest, &diff_id, &repository)).await?;
        parent = Some(record);
    }
    Ok(())
}

async fn one(
    session: &Session<'_>,
    obtained: &Arc<Obtained>,
    parent: Option<LayerRecord>,
    chain: crate::oci::ChainId,
) -> Result<LayerRecord, Error> {
    if let Some(record) = session.store.layers().get(&chain)? {
        return Ok(record);
    }
    let (store, diff_id) = (session.store.clone(), obtained.diff_id);
    let commit = |(staged, size)| {
        blocking(move || store.layers().commit(staged, parent.as_ref(), diff_id, size))
    };
    let mut staged = obtained.staged.lock().await;
    if let Some(staged) = staged.take() {
        return commit((staged, obtained.size)).await;
    }
    drop(staged);
    // Someone has committed it under another chain: the same blob twice in an image, or in
    // two images on different bases.
    commit(again(session, obtained).await?).await
}

async fn again(
    session: &Session<'_>,
    obtained: &Obtained,
) -> Result<(crate::store::Staged, u64), Error> {
    let records = session.store.layers().by_diff_id(&obtained.diff_id)?;
    let missing =
        || Error::Other(format!("layer {} went away while it was copied", obtained.diff_id));
    let copy = session.layers.copy_of(records.into_iter().next().ok_or_else(missing)?).await?;
    Ok((copy.staged.into_inner().ok_or_else(missing)?, copy.size))
}

/// Stores the image, then lets its names mean it.
pub async fn image(
    session: &Session<'_>,
    image: &Image,
    found: &Found,
    config: &Document<ImageConfig>,
) -> Result<Pulled, Error> {
    let named = found.named();
    let top = Descriptor {
        media_type: named.media_type.clone(),
        digest: named.digest,
        size: named.bytes.len() as u64,
        platform: None,
        urls: Vec::new(),
        annotations: Default::default(),
    };
    let documents: Vec<_> =
        found.documents.iter().map(|document| (document.digest, document.bytes.clone())).collect();
    let (store, reference, sync) =
        (session.store.clone(), Reference::clone(image), session.options.sync);
    let config = config.bytes.clone();
    let (id, status) = blocking(move || {
        for (digest, bytes) in &documents {
            store.content().put(digest, bytes)?;
        }
        let id = store.images().put(&config)?;
        store.content().put(&id.digest(), &config)?;
        if sync {
            sync_all(&store)?;
        }
        let status = name(&store, &reference, id, &top)?;
        Ok((id, status))
    })
    .await?;
    Ok(Pulled { reference: Reference::clone(image), digest: named.digest, id, status })
}

/// A tag pull writes the tag and the digest, a digest pull only the digest, as dockerd
/// does. Unlike dockerd's, a digest may come to mean another image: the same index, pulled
/// for another platform.
fn name(
    store: &Store,
    reference: &Reference,
    id: ImageId,
    top: &Descriptor,
) -> Result<Status, StoreError> {
    store.content().name(top.clone(), reference)?;
    let changed = store.names().update(|names| {
        let by_digest = names.set(&reference.with_digest(top.digest), id);
        let by_tag = reference.digest().is_none() && names.set(reference, id);
        if reference.digest().is_some() { by_digest } else { by_tag }
    })?;
    Ok(if changed { Status::Downloaded } else { Status::UpToDate })
}

fn sync_all(store: &Store) -> Result<(), StoreError> {
    use crate::fsutil::At;
    let root = store.root();
    let synced = File::open(root).and_then(|dir| Ok(rustix::fs::syncfs(dir)?));
    Ok(synced.at("sync", root)?)
}
