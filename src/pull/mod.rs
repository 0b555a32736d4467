//! The operation: references go in, a root that overlay mounts and dockerd can use comes out.
//!
//! [`pull`] and [`pull_one`], read from top to bottom, are the program:
//! recover (after a boot) -> resolve -> plan -> stage (fetch and unpack, in parallel) -> commit (in order) -> name.

mod archived;
mod bridge;
mod cached;
mod commit;
mod copy;
mod documents;
mod dry_run;
mod fetch;
mod files;
mod gate;
mod keep;
mod kept_blobs;
mod omissions;
mod options;
mod plan;
mod recover;
mod remote;
mod resolve;
mod resume;
mod session;
mod settle;
mod source;
mod stage;
mod states;
mod task;
mod threads;
mod unpack;
mod unpacking;
mod windows;

use std::sync::Arc;

use futures::future;
use tracing::Instrument;

use crate::digest::Digest;
use crate::error::Error;
use crate::oci::ImageId;
use crate::progress::{Event, Image, Sender, Status};
use crate::reference::Reference;
use crate::registry::Registry;
use crate::store::Store;

pub use copy::stage_copy;
pub use files::open_diff;
pub use gate::{StoreGate, WorkError};
pub use omissions::Omissions;
pub use options::{Options, Policy, RepairedLayers};
pub use recover::recover;
pub use remote::manifest_for;
pub use settle::{MAX_ROUNDS, Settled, settle};
pub use source::Wanted;
pub use threads::{reserve_threads, try_threads};
pub use unpacking::{Content, UnpackedLayer, Unpacking};

use commit::Names;
use resolve::Resolution;
use session::Session;
use stage::Stager;

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
    /// The names that another image had before, with that image.
    pub moved: Vec<(Reference, ImageId)>,
}

/// Pulls `images` together: what they share is fetched once. If one fails, the others go on. The
/// results have the order of `images`.
pub async fn pull(
    store: &Arc<Store>,
    registry: &Registry,
    images: Vec<Wanted>,
    options: &Options,
    events: &Sender,
) -> Vec<Result<Pulled, Error>> {
    let session = Session::new(store.clone(), registry.clone(), options.clone(), events.clone());
    let session = Arc::new(session);
    let stager = Stager::new(session.clone());
    let (shared, stage) = (&session, &stager);
    let pulls = images.into_iter().map(|wanted| async move {
        let (reference, added) = match &wanted {
            Wanted::Registry(reference) => reference.clone().with_default_tag(),
            Wanted::Archive(archived) => (archived.reference.clone(), false),
        };
        let image: Image = Arc::new(reference);
        if added {
            events.send(Event::DefaultTag { image: image.clone() });
        }
        let result = pull_one(shared, stage, &image, &wanted).await;
        if let Ok(Pulled { id, .. }) = result
            && !options.dry_run
        {
            let record = move |store: &Store| {
                store.record_use(&id);
                Ok(())
            };
            // The time of last use only decides which image is pruned first.
            let _ = shared.store(record).await;
        }
        events.send(match &result {
            // A dry run has sent what would be fetched.
            Ok(Pulled { status: Status::Downloaded, .. }) if options.dry_run => return result,
            Ok(pulled) => {
                Event::Done { image, digest: pulled.digest, id: pulled.id, status: pulled.status }
            }
            Err(error) => Event::Failed { image, error: error.to_string() },
        });
        result
    });
    let results = future::join_all(pulls).await;
    stager.close().await;
    session.warn_of_omissions();
    results
}

async fn pull_one(
    session: &Arc<Session>,
    stager: &Stager,
    image: &Image,
    wanted: &Wanted,
) -> Result<Pulled, Error> {
    session.accept_root().await?;
    session.recover().await?;
    let span = tracing::debug_span!("resolve", %image);
    let names = match wanted {
        Wanted::Registry(_) => Names::OfRegistry,
        Wanted::Archive(archived) => Names::OfArchive(archived.names.clone()),
    };
    let resolved = match wanted {
        Wanted::Registry(_) => match resolve::resolve(session, image).instrument(span).await? {
            Resolution::Present { digest, id } => {
                let (reference, status) = (Reference::clone(image), Status::UpToDate);
                return Ok(Pulled { reference, digest, id, status, moved: Vec::new() });
            }
            Resolution::Pull(resolved) => resolved,
        },
        Wanted::Archive(archived) => {
            Box::new(resolve::in_archive(session, archived).instrument(span).await?)
        }
    };
    let blobs = resolved.manifest.parsed.layers.iter();
    let layers = blobs.map(|blob| (blob.digest, blob.size)).collect();
    session.events.send(Event::Pulling { image: image.clone(), layers });
    if !session.options.dry_run {
        session.begin_writing().await?;
    }
    let plan = async {
        let early = plan::before_config(session, stager, image, &resolved).await?;
        let (config, is_fetched) = resolve::config(session, image, &resolved).await?;
        let with = (&config, is_fetched);
        let plan = plan::with_config(session, stager, image, &resolved, with, early).await?;
        Ok::<_, Error>((plan, config))
    };
    let (plan, config) = plan.instrument(tracing::debug_span!("plan", %image)).await?;
    if session.options.dry_run {
        return dry_run::report(session, image, &resolved, plan).await;
    }
    let present = plan.present();
    let layers = commit::layers(session, stager, plan).await?;
    if session.options.keep_blobs {
        keep::fill(session, image, &resolved, (&config, &present)).await?;
    }
    let commit = commit::image(session, image, &resolved, (&config, layers), names);
    commit.instrument(tracing::debug_span!("commit", %image)).await
}
