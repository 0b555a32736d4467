//! What has to be done for an image, layer by layer.

use std::collections::HashSet;
use std::sync::Arc;

use tokio::task::JoinHandle;

use super::gate::join_error;
use super::resolve::ResolvedImage;
use super::session::Session;
use super::source::Source;
use super::stage::Stager;
use super::task::{LayerTask, ReadyLayer};
use crate::digest::Digest;
use crate::error::Error;
use crate::oci::{ChainId, Descriptor, DiffId, Document, ImageConfig, ImageId};
use crate::overlay::Abilities;
use crate::progress::{Image, LayerState};
use crate::store::{LayerRecord, Store, StoreError};

/// A layer that is being staged. Dropped, it is cancelled.
pub struct Staging(JoinHandle<Result<Arc<ReadyLayer>, Error>>);

impl Staging {
    fn start(stager: &Stager, task: LayerTask) -> Self {
        let stager = stager.clone();
        Self(tokio::spawn(async move { stager.stage(task).await }))
    }

    /// Waits for the layer.
    ///
    /// # Errors
    /// The error of [`Stager::stage`].
    pub async fn finish(mut self) -> Result<Arc<ReadyLayer>, Error> {
        (&mut self.0).await.map_err(|e| join_error(&e))?
    }
}

impl Drop for Staging {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What is done for one layer.
pub enum Step {
    /// Nothing: the store has it. Whether it agrees with its parents is checked before the layers
    /// above it are committed.
    Present,
    /// It is being staged.
    Stage(Staging),
    /// It would be staged, but this is a dry run.
    DryRun,
}

/// One layer of an image.
pub struct PlannedLayer {
    /// The layer, with its place.
    pub task: LayerTask,
    /// The expected diff id.
    pub diff_id: DiffId,
    /// What is done for it.
    pub step: Step,
}

/// All layers of an image, base first.
pub struct Plan {
    /// The layers.
    pub layers: Vec<PlannedLayer>,
    /// The image.
    pub id: ImageId,
    /// Whether the config was fetched.
    pub is_config_fetched: bool,
}

impl Plan {
    /// Returns the blobs of the layers that the store has.
    pub fn present(&self) -> HashSet<Digest> {
        let present = self.layers.iter().filter(|layer| matches!(layer.step, Step::Present));
        present.map(|layer| layer.task.blob.digest).collect()
    }
}

/// Starts to stage the layers whose blobs are unknown here, while the config is fetched.
///
/// # Errors
/// [`Error::Store`] if the store cannot be read.
pub async fn before_config(
    session: &Session,
    stager: &Stager,
    image: &Image,
    resolved: &ResolvedImage,
) -> Result<Vec<Option<Staging>>, Error> {
    let blobs = resolved.manifest.parsed.layers.clone();
    // Without an index, only the config tells whether the image is for the platform.
    let may_mismatch = session.options.platform.is_some() && !resolved.is_listed;
    // The config of an archive is there at once.
    let is_local = matches!(resolved.source, Source::Archive(_));
    if session.options.dry_run || may_mismatch || is_local {
        return Ok(blobs.iter().map(|_| None).collect());
    }
    let digests: Vec<_> = blobs.iter().map(|blob| blob.digest).collect();
    let known = session.store(move |store| {
        let known = |digest| store.distribution().diff_id(digest);
        digests.iter().map(known).collect::<Result<Vec<_>, _>>()
    });
    let unknown = |(blob, known): (&Descriptor, &Option<DiffId>)| {
        known.is_none().then(|| LayerTask::new(image, resolved.source(), blob, None))
    };
    let tasks: Vec<Option<LayerTask>> = blobs.iter().zip(&known.await?).map(unknown).collect();
    // All of them are reported before the first one starts, as dockerd does it.
    for task in tasks.iter().flatten() {
        session.report(task, LayerState::PullingFsLayer);
    }
    Ok(tasks.into_iter().map(|task| task.map(|task| Staging::start(stager, task))).collect())
}

/// Decides by the config what is done for each layer, and starts it.
///
/// # Errors
/// [`Error::Store`] if the store cannot be read.
pub async fn with_config(
    session: &Session,
    stager: &Stager,
    image: &Image,
    resolved: &ResolvedImage,
    (config, is_config_fetched): (&Document<ImageConfig>, bool),
    early: Vec<Option<Staging>>,
) -> Result<Plan, Error> {
    let diff_ids = config.parsed.diff_ids().to_vec();
    let chains = ChainId::stack(&diff_ids);
    let looked_up: Vec<(ChainId, Descriptor)> =
        chains.iter().copied().zip(resolved.manifest.parsed.layers.iter().cloned()).collect();
    let (keep_blobs, abilities) = (session.options.keep_blobs, session.abilities());
    let records = session.store(move |store| {
        let record = |(chain, blob): &(ChainId, Descriptor)| {
            let is_kept = !keep_blobs || store.content().has(&blob.digest, blob.size)?;
            Ok((known(store, chain, &abilities)?, is_kept))
        };
        looked_up.iter().map(record).collect::<Result<Vec<_>, _>>()
    });
    let records = records.await?;
    let broken = |chain: &ChainId| {
        session.options.repair.as_ref().is_some_and(|layers| layers.contains(chain))
    };
    let blobs = resolved.manifest.parsed.layers.iter();
    let mut layers = Vec::with_capacity(diff_ids.len());
    for ((((blob, diff_id), chain), (record, is_kept)), early) in
        blobs.zip(diff_ids).zip(chains).zip(records).zip(early)
    {
        let mut task = LayerTask::new(image, resolved.source(), blob, Some((diff_id, chain)));
        let mut present = record.is_some() && !broken(&chain);
        if let (Some(Known { record, avoidable: Some(avoidable) }), true) = (&record, present) {
            match &avoidable.mounted {
                Some(at) => session.warn_of_shared(image, mounted(&chain, &avoidable.why, at)),
                None if !session.options.dry_run => {
                    present = false;
                    task.unprivileged = Some(record.clone());
                }
                None => {}
            }
        }
        task.broken = record.filter(|_| !present).map(|known| known.record.cache_id);
        // The blob of a layer that is present may be fetched all the same, to be kept.
        match present && is_kept {
            true => session.report(&task, LayerState::AlreadyExists),
            false if session.options.dry_run => {}
            false => session.report(&task, LayerState::PullingFsLayer),
        }
        if present {
            tracing::info!("layer {} is in the store", blob.digest.short());
        }
        let step = match (present, early) {
            (true, _) => Step::Present,
            (false, Some(early)) => Step::Stage(early),
            (false, None) if session.options.dry_run => Step::DryRun,
            (false, None) => Step::Stage(Staging::start(stager, task.clone())),
        };
        layers.push(PlannedLayer { task, diff_id, step });
    }
    Ok(Plan { layers, id: ImageId(config.digest), is_config_fetched })
}

/// A layer in the store.
struct Known {
    record: LayerRecord,
    /// What it lacks, and this process would not omit.
    avoidable: Option<Avoidable>,
}

/// What a layer lacks.
struct Avoidable {
    /// In one clause.
    why: String,
    /// Where the layer is mounted, if it is.
    mounted: Option<String>,
}

fn known(
    store: &Store,
    chain: &ChainId,
    abilities: &Abilities,
) -> Result<Option<Known>, StoreError> {
    let Some(record) = store.layers().get(chain)? else { return Ok(None) };
    let why = store.omitted(&record)?.and_then(|omitted| omitted.avoidable(abilities));
    let avoidable = match why {
        None => None,
        Some(why) => {
            Some(Avoidable { why, mounted: store.mounted_layer(&HashSet::from([*chain]))? })
        }
    };
    Ok(Some(Known { record, avoidable }))
}

fn mounted(chain: &ChainId, why: &str, at: &str) -> String {
    let chain = chain.short();
    format!(
        "layer {chain} was unpacked without privileges ({why}), and is mounted at {at}: unmount it \
         and pull again"
    )
}
