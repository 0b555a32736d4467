//! Commits, in order: layers from the base up, then the image, then its names.

use std::sync::Arc;

use super::Pulled;
use super::plan::{Plan, PlannedLayer, Step};
use super::resolve::ResolvedImage;
use super::session::Session;
use super::settle::{MAX_ROUNDS, Settled, settle};
use super::source::Source;
use super::stage::Stager;
use crate::error::Error;
use crate::oci::{ChainId, Descriptor, Document, ImageConfig, ImageId};
use crate::progress::{Image, LayerState, Status};
use crate::reference::Reference;
use crate::store::{LayerRecord, Store, StoreError};

/// Commits an image's layers and returns their records, base first.
///
/// # Errors
/// [`Error`] if a layer cannot be staged, has another diff id or cannot be committed. Layers
/// below it stay committed.
pub async fn layers(
    session: &Arc<Session>,
    stager: &Stager,
    plan: Plan,
) -> Result<Vec<LayerRecord>, Error> {
    let chains = plan.layers.iter().filter_map(|layer| layer.task.place);
    let chains: Vec<ChainId> = chains.map(|(_, chain)| chain).collect();
    // Layers whose directory another record names as well: only one of the two can be right.
    let suspects = session.store(move |store| store.layers().with_shared_directory(&chains));
    let suspects = suspects.await?;
    let mut records: Vec<LayerRecord> = Vec::with_capacity(plan.layers.len());
    for planned in plan.layers {
        let parent = records.last().cloned();
        records.push(layer(session, stager, planned, parent, &suspects).await?);
    }
    Ok(records)
}

/// Commits one layer above `parent`, unless its record is there and right. Returns the record.
async fn layer(
    session: &Arc<Session>,
    stager: &Stager,
    planned: PlannedLayer,
    parent: Option<LayerRecord>,
    suspects: &[ChainId],
) -> Result<LayerRecord, Error> {
    let PlannedLayer { mut task, diff_id, step } = planned;
    // Kept until the layer is committed: dropped before, what this process staged is removed.
    let mut ready = match step {
        Step::Stage(staging) => Some(staging.finish().await?),
        Step::Present | Step::DryRun => None,
    };
    // Not entered, because this function awaits: it measures the time from here to the end.
    let _span =
        tracing::debug_span!("commit", image = %task.image, layer = %task.blob.digest.short());
    let chain = ChainId::above(parent.as_ref().map(|parent| parent.chain), diff_id);
    let _commit = session.lock_commit(chain).await;
    let mut suspect =
        suspects.contains(&chain).then(|| "another layer uses its directory".to_owned());
    for _ in 0..MAX_ROUNDS {
        // What this process unpacked has its true diff id; the config promised another one.
        if let Some(actual) = ready.as_ref().filter(|it| it.is_staged_here()).map(|it| it.diff_id)
            && actual != diff_id
        {
            return Err(Error::DiffId { layer: task.blob.digest, expected: diff_id, actual });
        }
        let (below, broken, why) = (parent.clone(), task.broken.clone(), suspect.take());
        let blob = task.blob.digest;
        // No repository is known that has the blob of an archive.
        let repository = match task.source {
            Source::Registry(_) => Some(task.image.repository().clone()),
            Source::Archive(_) => None,
        };
        let settled = session.store(move |store| {
            // Before the layer is committed: a process that waited for its download finds it by
            // its write set or by this record, at any moment.
            if let Some(repository) = repository {
                store.distribution().record(&blob, &diff_id, &repository)?;
            }
            settle(store, below.as_ref(), diff_id, broken.as_ref(), why)
        });
        match settled.await? {
            Settled::Committed(record) => {
                if ready.is_some() && is_avoidable(session, &record).await? {
                    // A process with fewer capabilities staged it.
                    task.broken = Some(record.cache_id.clone());
                    task.unprivileged = Some(record);
                    ready = Some(stager.stage_anew(&task).await?);
                    continue;
                }
                if ready.is_some() {
                    session.report(&task, LayerState::PullComplete);
                }
                return Ok(record);
            }
            Settled::Missing => ready = Some(stager.stage_anew(&task).await?),
            Settled::Damaged(record, why) => {
                let text =
                    format!("layer {} is damaged ({why}); replacing it", task.blob.digest.short());
                session.warn_of_shared(&task.image, text);
                task.broken = Some(record.cache_id);
            }
        }
    }
    Err(Error::Other(format!(
        "cannot commit layer {}: it was removed repeatedly; check that no other program writes to this root",
        task.blob.digest
    )))
}

/// Whether the layer lacks what this process would not omit.
async fn is_avoidable(session: &Session, record: &LayerRecord) -> Result<bool, Error> {
    let (record, abilities) = (record.clone(), session.abilities());
    let avoidable = session.store(move |store| store.avoidable(&[record], &abilities));
    Ok(avoidable.await?.is_some())
}

/// Stores the image with its committed `layers`, then writes its names.
///
/// # Errors
/// [`Error::Store`] if the records cannot be written.
pub async fn image(
    session: &Session,
    image: &Image,
    resolved: &ResolvedImage,
    (config, layers): (&Document<ImageConfig>, Vec<LayerRecord>),
    names: Names,
) -> Result<Pulled, Error> {
    let top = resolved.top();
    let digest = top.digest;
    let descriptor = Descriptor {
        media_type: top.media_type.clone(),
        digest,
        size: top.bytes.len() as u64,
        platform: None,
        urls: Vec::new(),
        annotations: Default::default(),
    };
    let documents = resolved.documents.iter();
    let documents: Vec<_> =
        documents.map(|document| (document.digest, document.bytes.clone())).collect();
    let config_digest = config.digest;
    let (reference, config) = (Reference::clone(image), config.bytes.clone());
    let sync = session.options.sync;
    let commit = session.store(move |store| {
        for (digest, bytes) in &documents {
            store.content().put(digest, bytes)?;
        }
        let is_new = !store.images().exists(&ImageId(config_digest));
        let id = store.commit_image(&config, &layers)?;
        store.content().put(&id.digest(), &config)?;
        if sync {
            store.sync()?;
        }
        let named = match names {
            Names::OfRegistry => (name(store, &reference, id, &descriptor)?, Vec::new()),
            Names::OfArchive(names) => name_archived(store, &names, (id, is_new), &descriptor)?,
        };
        Ok((id, named))
    });
    let (id, (status, moved)) = commit.await?;
    Ok(Pulled { reference: Reference::clone(image), digest, id, status, moved })
}

/// The names that an image gets.
pub enum Names {
    /// Those of a pull from a registry: the tag and the digest.
    OfRegistry,
    /// These tags, and no digest: no registry is known that has it.
    OfArchive(Vec<Reference>),
}

/// Writes the names of an image from an archive. Returns those that another image had.
fn name_archived(
    store: &Store,
    names: &[Reference],
    (id, is_new): (ImageId, bool),
    top: &Descriptor,
) -> Result<(Status, Vec<(Reference, ImageId)>), StoreError> {
    if !names.is_empty() {
        store.content().add_names(top, names)?;
    }
    let (changed, moved) = store.names().update(|all| {
        let mut moved = Vec::new();
        let mut changed = false;
        for name in names {
            let before = all.lookup(name).filter(|before| *before != id);
            moved.extend(before.map(|before| (name.clone(), before)));
            changed |= all.set(name, id);
        }
        (changed, moved)
    })?;
    Ok((if changed || is_new { Status::Downloaded } else { Status::UpToDate }, moved))
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
    store.content().add_names(top, std::slice::from_ref(reference))?;
    let changed = store.names().update(|names| {
        let by_digest = names.set(&reference.with_digest(top.digest), id);
        let by_tag = reference.digest().is_none() && names.set(reference, id);
        if reference.digest().is_some() { by_digest } else { by_tag }
    })?;
    Ok(if changed { Status::Downloaded } else { Status::UpToDate })
}
