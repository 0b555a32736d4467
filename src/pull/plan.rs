//! What has to be done for an image, layer by layer.

use tokio::task::JoinHandle;

use super::blocking::{blocking, ended};
use super::obtain::{Obtained, Want};
use super::resolve::Found;
use super::{Pulled, Session};
use crate::error::Error;
use crate::oci::{ChainId, Descriptor, DiffId, Document, ImageConfig, ImageId};
use crate::progress::{Image, LayerState, Status};
use std::sync::Arc;

/// A layer being obtained; given up when it is dropped.
pub struct Obtaining(JoinHandle<Result<Arc<Obtained>, Error>>);

impl Obtaining {
    /// Waits for it.
    pub async fn done(mut self) -> Result<Arc<Obtained>, Error> {
        match (&mut self.0).await {
            Ok(result) => result,
            Err(error) => Err(ended(&error)),
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
    /// Nothing: the store has it. Its agreement with its parents is checked when its turn to
    /// be committed comes.
    Present,
    /// It is being obtained.
    Obtain(Obtaining),
    /// It would be obtained.
    DryRun,
}

/// One layer of an image.
pub struct Planned {
    /// The layer, with what it must unpack to and the stack up to it.
    pub want: Want,
    /// What it must unpack to.
    pub diff_id: DiffId,
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
        let complete = self.layers.iter().all(|layer| matches!(layer.step, Step::Present));
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
    let blobs = found.manifest.parsed.layers.clone();
    if session.options.dry_run {
        return Ok(blobs.iter().map(|_| None).collect());
    }
    let store = session.store.clone();
    let digests: Vec<_> = blobs.iter().map(|blob| blob.digest).collect();
    let known = blocking(move || {
        digests
            .iter()
            .map(|digest| store.distribution().diff_id(digest))
            .collect::<Result<Vec<_>, _>>()
    })
    .await?;
    let unseen = |(blob, known): (&Descriptor, &Option<DiffId>)| {
        known.is_none().then(|| Want::new(image, found, blob, None))
    };
    let wanted: Vec<Option<Want>> = blobs.iter().zip(&known).map(unseen).collect();
    // All are announced before the first of them begins, as dockerd does it.
    wanted.iter().flatten().for_each(|want| session.layers.say(want, LayerState::PullingFsLayer));
    Ok(wanted.into_iter().map(|want| want.map(|want| begin(session, want))).collect())
}

/// Knowing the config, decides for each layer what is done for it, and begins that.
pub async fn with_config(
    session: &Session<'_>,
    image: &Image,
    found: &Found,
    config: &Document<ImageConfig>,
    early: Vec<Option<Obtaining>>,
) -> Result<Plan, Error> {
    let diff_ids = config.parsed.diff_ids().to_vec();
    let chains = ChainId::stack(&diff_ids);
    let (store, looked_up) = (session.store.clone(), chains.clone());
    let present = blocking(move || {
        looked_up
            .iter()
            .map(|chain| Ok(store.layers().get(chain)?.is_some()))
            .collect::<Result<Vec<_>, _>>()
    })
    .await?;
    let blobs = found.manifest.parsed.layers.iter();
    let mut layers = Vec::with_capacity(diff_ids.len());
    for ((((blob, diff_id), chain), present), early) in
        blobs.zip(diff_ids).zip(chains).zip(present).zip(early)
    {
        let want = Want::new(image, found, blob, Some((diff_id, chain)));
        let state = if present { LayerState::AlreadyExists } else { LayerState::PullingFsLayer };
        session.layers.say(&want, state);
        let step = match (present, early) {
            (true, _) => Step::Present,
            (false, Some(early)) => Step::Obtain(early),
            (false, None) if session.options.dry_run => Step::DryRun,
            (false, None) => Step::Obtain(begin(session, want.clone())),
        };
        layers.push(Planned { want, diff_id, step });
    }
    Ok(Plan { layers, id: ImageId(config.digest) })
}

fn begin(session: &Session<'_>, want: Want) -> Obtaining {
    let layers = session.layers.clone();
    Obtaining(tokio::spawn(async move { layers.obtain(want).await }))
}
