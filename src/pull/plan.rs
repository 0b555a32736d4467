//! What has to be done for an image, layer by layer.

use tokio::task::JoinHandle;

use super::obtain::{Obtained, Want};
use super::resolve::Found;
use super::{Pulled, Session};
use crate::error::Error;
use crate::oci::{ChainId, Descriptor, DiffId, Document, ImageConfig, ImageId};
use crate::progress::{Event, Image, LayerState, Status};
use crate::store::LayerRecord;
use std::sync::Arc;

/// A layer being obtained; given up when it is dropped.
pub struct Obtaining(JoinHandle<Result<Arc<Obtained>, Error>>);

impl Obtaining {
    /// Waits for it.
    pub async fn done(mut self) -> Result<Arc<Obtained>, Error> {
        match (&mut self.0).await {
            Ok(result) => result,
            Err(_) => Err(Error::Interrupted),
        }
    }
}

impl Drop for Obtaining {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What is done for one layer.
pub enum Step {
    /// Nothing: the store has it.
    Present(LayerRecord),
    /// It is being obtained.
    Obtain(Obtaining),
    /// It would be obtained.
    DryRun,
}

/// One layer of an image.
pub struct Planned {
    /// The blob.
    pub blob: Descriptor,
    /// What it must unpack to.
    pub diff_id: DiffId,
    /// The stack up to it.
    pub chain: ChainId,
    /// What is done for it.
    pub step: Step,
}

/// All layers of an image, base first.
pub struct Plan {
    /// The layers.
    pub layers: Vec<Planned>,
    id: ImageId,
}

impl Plan {
    /// What a dry run says in the end.
    pub fn would_be(&self, image: &Image, found: &Found) -> Pulled {
        let complete = self.layers.iter().all(|layer| matches!(layer.step, Step::Present(_)));
        Pulled {
            reference: image.as_ref().clone(),
            digest: found.named().digest,
            id: self.id,
            status: if complete { Status::UpToDate } else { Status::Downloaded },
        }
    }
}

/// Begins with the layers that were never seen here, while the config is still on its way.
pub async fn before_config(
    session: &Session<'_>,
    image: &Image,
    found: &Found,
) -> Result<Vec<Option<Obtaining>>, Error> {
    let blobs = &found.manifest.parsed.layers;
    let mut early = Vec::with_capacity(blobs.len());
    for blob in blobs {
        let known = session.store.distribution().diff_id(&blob.digest)?.is_some();
        let unseen = !known && !session.options.dry_run;
        early.push(unseen.then(|| begin(session, image, found, blob, None)));
    }
    Ok(early)
}

/// Knowing the config, says for each layer what is done for it, and begins that.
pub async fn with_config(
    session: &Session<'_>,
    image: &Image,
    found: &Found,
    config: &Document<ImageConfig>,
    early: Vec<Option<Obtaining>>,
) -> Result<Plan, Error> {
    let diff_ids = config.parsed.diff_ids();
    let chains = ChainId::stack(diff_ids);
    let blobs = found.manifest.parsed.layers.iter();
    let mut layers = Vec::with_capacity(diff_ids.len());
    for (((blob, diff_id), chain), early) in blobs.zip(diff_ids).zip(chains).zip(early) {
        let present = session.store.layers().get(&chain)?;
        let step = match (present, early) {
            (Some(record), _) => Step::Present(record),
            (None, Some(early)) => Step::Obtain(early),
            (None, None) if session.options.dry_run => Step::DryRun,
            (None, None) => Step::Obtain(begin(session, image, found, blob, Some(*diff_id))),
        };
        let state = match step {
            Step::Present(_) => LayerState::AlreadyExists,
            Step::Obtain(_) | Step::DryRun => LayerState::PullingFsLayer,
        };
        session.events.send(Event::Layer { image: image.clone(), layer: blob.digest, state });
        layers.push(Planned { blob: blob.clone(), diff_id: *diff_id, chain, step });
    }
    Ok(Plan { layers, id: ImageId(config.digest) })
}

fn begin(
    session: &Session<'_>,
    image: &Image,
    found: &Found,
    blob: &Descriptor,
    diff_id: Option<DiffId>,
) -> Obtaining {
    let layers = session.layers.clone();
    let (image, registry, blob) = (image.clone(), found.registry.clone(), blob.clone());
    let want = Want { image, registry, blob, diff_id };
    Obtaining(tokio::spawn(async move { layers.obtain(want).await }))
}
