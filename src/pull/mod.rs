//! The operation: names go in, a root that overlay mounts and dockerd consume comes out.
//!
//! Read from top to bottom, [`pull`] and [`one`] are the program:
//! resolve -> plan -> stage (parallel) -> commit (in order) -> name.

mod blocking;
mod commit;
mod fetch;
mod kept;
mod lanes;
mod obtain;
mod options;
mod pipeline;
mod plan;
mod resolve;
mod states;

use std::sync::Arc;

use futures::future;

use crate::digest::Digest;
use crate::error::Error;
use crate::oci::ImageId;
use crate::progress::{Event, Image, Sender, Status};
use crate::reference::Reference;
use crate::registry::Registry;
use crate::store::Store;

pub use options::{Options, Policy};

use obtain::Layers;
use resolve::Resolved;

/// An image that is complete in the store.
#[derive(Debug, Clone)]
pub struct Pulled {
    /// The name, with its tag.
    pub reference: Reference,
    /// What the registry calls it: the index's digest for a multi-platform image.
    pub digest: Digest,
    /// Its id in the store.
    pub id: ImageId,
    /// Whether this pull changed anything.
    pub status: Status,
}

/// What all images of one command share.
struct Session<'a> {
    store: &'a Arc<Store>,
    registry: &'a Registry,
    options: &'a Options,
    events: &'a Sender,
    layers: Layers,
}

/// Pulls `images` together: what they share is fetched once. One that fails does not stop
/// the others; the results stand in the order of the names.
pub async fn pull(
    store: &Arc<Store>,
    registry: &Registry,
    images: Vec<Reference>,
    options: &Options,
    events: &Sender,
) -> Vec<Result<Pulled, Error>> {
    let layers = Layers::new(store.clone(), options, events.clone());
    let session = Session { store, registry, options, events, layers };
    let pulls = images.into_iter().map(|reference| async {
        let (reference, added) = reference.with_default_tag();
        let image: Image = Arc::new(reference);
        if added {
            session.events.send(Event::DefaultTag { image: image.clone() });
        }
        let result = one(&session, &image).await;
        match &result {
            Ok(pulled) => session.events.send(Event::Done {
                image: image.clone(),
                digest: pulled.digest,
                id: pulled.id,
                status: pulled.status,
            }),
            Err(error) => session
                .events
                .send(Event::Failed { image: image.clone(), error: error.to_string() }),
        }
        result
    });
    future::join_all(pulls).await
}

async fn one(session: &Session<'_>, image: &Image) -> Result<Pulled, Error> {
    let found = match resolve::resolve(session, image).await? {
        Resolved::Present { digest, id } => {
            let reference = Reference::clone(image);
            return Ok(Pulled { reference, digest, id, status: Status::UpToDate });
        }
        Resolved::Manifest(found) => found,
    };
    session.events.send(Event::Pulling {
        image: image.clone(),
        layers: found
            .manifest
            .parsed
            .layers
            .iter()
            .map(|layer| (layer.digest, layer.size))
            .collect(),
    });
    if !session.options.dry_run {
        session.layers.begin_writing().await?;
    }
    let early = plan::before_config(session, image, &found).await?;
    let config = resolve::config(session, image, &found).await?;
    let plan = plan::with_config(session, image, &found, &config, early).await?;
    if session.options.dry_run {
        return Ok(plan.would_be(image, &found));
    }
    commit::layers(session, plan).await?;
    commit::image(session, image, &found, &config).await
}
