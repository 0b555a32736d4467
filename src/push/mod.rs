//! The way back: an image of the store goes to a registry.
//!
//! [`push`] and [`push_one`], read from top to bottom, are the operation: prepare (manifest, config and
//! layers) -> push each layer (exists, mount, upload) -> config -> manifest -> record.

mod image;
mod layer;
mod manifest;
mod session;
mod source;

use std::sync::Arc;

use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};

use crate::digest::Digest;
use crate::error::Error;
use crate::oci::{Descriptor, ImageId};
use crate::progress::{Event, Image, PushState, Sender};
use crate::reference::Reference;
use crate::registry::Registry;
use crate::store::{Store, StoreError};

pub use manifest::ManifestFormat;

use image::Prepared;
use session::Session;

/// Layers that are pushed at a time, as with dockerd.
pub const DEFAULT_JOBS: usize = 5;

/// What a push can be told.
#[derive(Debug, Clone)]
pub struct Options {
    /// Layers that are pushed at a time.
    pub jobs: usize,
    /// The format of the manifest; `None` for the one that the image was pulled with.
    pub format: Option<ManifestFormat>,
    /// Push all tags of the repository.
    pub all_tags: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { jobs: DEFAULT_JOBS, format: None, all_tags: false }
    }
}

/// An image that a registry has.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Pushed {
    /// The reference, with its tag.
    pub reference: Reference,
    /// The digest of the manifest.
    pub digest: Digest,
    /// The size of the manifest in bytes.
    pub size: u64,
    /// The ID of the image.
    pub id: ImageId,
}

/// Pushes the image that `reference` names in the store, or all tags of its repository. The results
/// have the order of the tags.
///
/// # Errors
/// [`Error`] if the store has no such image or cannot be read.
pub async fn push(
    store: Arc<Store>,
    registry: &Registry,
    reference: Reference,
    options: Options,
    events: Sender,
) -> Result<Vec<Result<Pushed, Error>>, Error> {
    let session = Session::begin(store, registry.clone(), options, events).await?;
    let all = session.options.all_tags;
    let (reference, added) = match all {
        true => (reference, false),
        false => reference.with_default_tag(),
    };
    if added {
        session.events.send(Event::DefaultTag { image: Arc::new(reference.clone()) });
    }
    let images = session.gate.run({
        let reference = reference.clone();
        move |store| find(store, &reference, all)
    });
    let images = images.await?;
    session.events.send(Event::PushingTo { image: Arc::new(reference) });
    let mut results = Vec::new();
    for (reference, id) in images {
        let image: Image = Arc::new(reference);
        let result = push_one(&session, &image, id).await;
        session.events.send(match &result {
            Ok(pushed) => Event::Pushed { image, digest: pushed.digest, size: pushed.size },
            Err(error) => Event::Failed { image, error: error.to_string() },
        });
        results.push(result);
    }
    Ok(results)
}

/// Returns the tags to push with their images.
fn find(
    store: &Store,
    reference: &Reference,
    all: bool,
) -> Result<Vec<(Reference, ImageId)>, StoreError> {
    let names = store.names().load()?;
    let found: Vec<_> = match all {
        true => {
            let is_tag = |name: &Reference| {
                name.repository() == reference.repository() && name.digest().is_none()
            };
            names.iter().filter(|(name, _)| is_tag(name)).collect()
        }
        false => names.lookup(reference).map(|id| (reference.clone(), id)).into_iter().collect(),
    };
    match found.is_empty() {
        true => Err(StoreError::NoSuchImage(reference.to_string())),
        false => Ok(found),
    }
}

async fn push_one(session: &Arc<Session>, image: &Image, id: ImageId) -> Result<Pushed, Error> {
    let repository = image.repository().clone();
    session.registry.log_endpoint(&repository).await;
    let registry = session.registry.with_events(session.events.clone(), image.clone());
    let prepare = session.gate.run({
        let repository = repository.clone();
        move |store| Prepared::read(store, id, &repository)
    });
    let prepared = Arc::new(prepare.await?);
    // Docker begins with the top layer, which is most likely the one that is missing.
    let unique: Vec<_> = prepared.unique_layers().into_iter().rev().collect();
    for (place, layer) in unique.iter().enumerate() {
        let state = PushState::Preparing;
        session.report(image, layer.diff_id, state);
        if place >= session.options.jobs {
            session.report(image, layer.diff_id, PushState::Waiting);
        }
    }
    let pushes = unique.into_iter().map(|layer| {
        let (session, registry, image) = (session.clone(), registry.clone(), image.clone());
        async move {
            let blob = layer::push(&session, &registry, &image, &layer).await?;
            Ok::<_, Error>((layer.diff_id, blob))
        }
    });
    let pushes = stream::iter(pushes).buffer_unordered(session.options.jobs.max(1));
    let blobs = pushes.try_collect().await?;
    let layers: Vec<Descriptor> = prepared.descriptors(&blobs);
    registry.push_bytes(&repository, &prepared.config).await?;
    let (media_type, bytes): (String, Bytes) =
        manifest::of(&prepared, layers, session.options.format)?;
    let tag = image.tag().unwrap_or_default();
    registry.push_manifest(&repository, tag, (&media_type, &bytes)).await?;
    let (digest, size) = (Digest::of(&bytes), bytes.len() as u64);
    session.record_image(image, id, (media_type, bytes)).await;
    Ok(Pushed { reference: Reference::clone(image), digest, size, id })
}
