//! Making it real, in order: layers from the base up, then the image, then its names.

use std::fs::File;

use super::blocking::blocking;
use super::obtain::Layers;
use super::plan::{Plan, Planned, Step};
use super::resolve::Found;
use super::{Pulled, Session};
use crate::error::Error;
use crate::oci::{ChainId, Descriptor, Document, ImageConfig, ImageId};
use crate::progress::{Event, Image, LayerState, Status};
use crate::reference::Reference;
use crate::store::{Established, LayerRecord, Store, StoreError};

/// How often a layer is obtained anew at most, where other processes stage it and give up.
const ROUNDS: usize = 10;

/// Commits an image's layers.
pub async fn layers(session: &Session<'_>, plan: Plan) -> Result<(), Error> {
    let suspects = suspects(session, &plan).await?;
    let mut parent: Option<LayerRecord> = None;
    for planned in plan.layers {
        parent = Some(one(&session.layers, planned, parent.take(), &suspects).await?);
    }
    Ok(())
}

/// The planned layers whose directory another record names as well: only one can be right.
async fn suspects(session: &Session<'_>, plan: &Plan) -> Result<Vec<ChainId>, Error> {
    let chains = plan.layers.iter().filter_map(|layer| layer.want.place);
    let chains: Vec<ChainId> = chains.map(|(_, chain)| chain).collect();
    let store = session.store.clone();
    blocking(move || store.layers().with_shared_directory(&chains)).await
}

/// The record of one layer above `parent`: the one that is there if it is right, else of what
/// was obtained.
async fn one(
    layers: &Layers,
    planned: Planned,
    parent: Option<LayerRecord>,
    suspects: &[ChainId],
) -> Result<LayerRecord, Error> {
    let Planned { mut want, diff_id, step } = planned;
    // Held until the layer is committed: dropped before, what this process staged is removed.
    let mut obtained = match step {
        Step::Obtain(obtaining) => Some(obtaining.done().await?),
        Step::Present | Step::DryRun => None,
    };
    let chain = ChainId::above(parent.as_ref().map(|parent| parent.chain), diff_id);
    let _turn = layers.turn(chain).await;
    let mut suspect =
        suspects.contains(&chain).then(|| "another layer uses its directory".to_owned());
    for _ in 0..ROUNDS {
        // What this process unpacked has its true diff id; the config promised another one.
        if let Some(actual) =
            obtained.as_ref().filter(|it| it.staged.is_some()).map(|it| it.diff_id)
            && actual != diff_id
        {
            return Err(Error::DiffId { layer: want.blob.digest, expected: diff_id, actual });
        }
        let (store, below, known) = (layers.store().clone(), parent.clone(), want.broken.clone());
        let (blob, repository) = (want.blob.digest, want.image.repository().clone());
        let established = blocking(move || {
            // Before the layer is committed: a process that waited for its download finds it by
            // its write set or by this record, at any moment.
            store.distribution().record(&blob, &diff_id, &repository)?;
            store.layers().establish(below.as_ref(), diff_id, known.as_ref())
        });
        match (established.await?, suspect.take()) {
            (Established::Layer(record), None) => {
                if obtained.is_some() {
                    layers.say(&want, LayerState::PullComplete);
                }
                return Ok(record);
            }
            (Established::Missing, _) => obtained = Some(layers.obtain_anew(&want).await?),
            (Established::Layer(record), Some(why)) | (Established::Suspect(record, why), _) => {
                if layers.is_intact(&record).await? {
                    let (store, below) = (layers.store().clone(), parent.clone());
                    blocking(move || store.layers().repair(&record, below.as_ref())).await?;
                    continue;
                }
                let text =
                    format!("layer {} is damaged ({why}); replacing it", want.blob.digest.short());
                layers.events().send(Event::Warning { image: Some(want.image.clone()), text });
                want.broken = Some(record.cache_id);
            }
        }
    }
    Err(Error::Other(format!(
        "cannot commit layer {}: it was removed repeatedly; check that no other program writes to this root",
        want.blob.digest
    )))
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
    store.content().name(top, reference)?;
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
