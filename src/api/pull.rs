//! A pull, prepared step by step.

use std::fmt;
use std::sync::Arc;

use super::archive::ArchivedImage;
use super::client::Client;
use super::image::Image;
use super::store::Store;
use crate::error::Error;
use crate::layer::Limits;
use crate::oci::{ImageId, Platform};
use crate::progress::{Event, Sender};
use crate::pull::{self, Options, Policy, Pulled, Wanted};
use crate::reference::Reference;

/// A pull that [`into`](Self::into) starts.
///
/// ```no_run
/// # async fn example() -> Result<(), rpull::Error> {
/// let store = rpull::Store::open("/var/lib/images")?;
/// let image = rpull::Client::from_env()
///     .pull("nginx:1.27")
///     .policy(rpull::Policy::Missing)
///     .events(|event| eprintln!("{event:?}"))
///     .into(&store)
///     .await?;
/// # Ok(())
/// # }
/// ```
///
/// Dropping the future cancels the pull. Downloads end at once. Threads that unpack end at their
/// next read and remove the layers that they staged; complete layers are kept. A runtime that is
/// shut down waits for these threads.
#[must_use = "a pull starts with `into`"]
pub struct Pull {
    client: Client,
    images: Result<Vec<Wanted>, Error>,
    options: Options,
    events: Sender,
}

impl fmt::Debug for Pull {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pull").field("options", &self.options).finish_non_exhaustive()
    }
}

impl Pull {
    /// The default of [`jobs`](Self::jobs).
    pub const DEFAULT_JOBS: usize = crate::layer::budget::DEFAULT_LAYERS;

    pub(super) fn new(client: Client) -> Self {
        let (images, options) = (Ok(Vec::new()), Options::default());
        Self { client, images, options, events: Sender::none() }
    }

    /// Pulls `reference` as well. Layers that the images share are fetched once.
    pub fn and<R>(mut self, reference: R) -> Self
    where
        R: TryInto<Reference>,
        R::Error: Into<Error>,
    {
        self.images = self.images.and_then(|mut images| {
            images.push(Wanted::Registry(reference.try_into().map_err(Into::into)?));
            Ok(images)
        });
        self
    }

    /// Pulls an image of an archive as well, in place of a registry. It gets its names in the archive.
    pub fn and_archived(mut self, image: ArchivedImage) -> Self {
        if let Ok(images) = &mut self.images {
            images.push(Wanted::Archive(image.0));
        }
        self
    }

    /// Sets when the registry is contacted. The default is [`Policy::Always`].
    pub fn policy(mut self, policy: Policy) -> Self {
        self.options.policy = policy;
        self
    }

    /// Selects the platform of multi-platform images. The default is this machine's.
    pub fn platform(mut self, platform: Platform) -> Self {
        self.options.platform = Some(platform);
        self
    }

    /// Downloads and unpacks up to `jobs` layers in parallel, at least one. Each needs up to
    /// 10 MiB of memory for buffers.
    pub fn jobs(mut self, jobs: usize) -> Self {
        self.options.jobs = jobs;
        self
    }

    /// Keeps compressed layers in the content store, for caches.
    pub fn keep_blobs(mut self, keep: bool) -> Self {
        self.options.keep_blobs = keep;
        self
    }

    /// Pulls into a store whose directory belongs to another image store, such as containerd's in the
    /// data root of Docker 29, or podman's. Otherwise, such a pull fails with
    /// [`StoreError::OtherStore`](crate::error::StoreError::OtherStore) and without a request.
    pub fn force(mut self, force: bool) -> Self {
        self.options.force = force;
        self
    }

    /// Flushes everything to disk before the pull ends.
    pub fn sync(mut self, sync: bool) -> Self {
        self.options.sync = sync;
        self
    }

    /// Sets the limits that protect against archive bombs.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.options.limits = limits;
        self
    }

    /// Calls `receive` with each event, on any thread. It should return quickly: a download or
    /// an unpacking thread waits for it. The events of one layer arrive in order.
    ///
    /// To receive events elsewhere, pass them on: `.events(move |event| drop(sender.send(event)))`.
    pub fn events(mut self, receive: impl Fn(Event) + Send + Sync + 'static) -> Self {
        self.events = Sender::to(receive);
        self
    }

    /// Pulls into `store`, and returns the image when it is complete there. With several
    /// references all images are pulled, and the first one is returned.
    ///
    /// # Errors
    /// Why the first image that failed could not be pulled. [`Error::kind`] tells the category.
    pub async fn into(self, store: &Store) -> Result<Image, Error> {
        let images: Vec<Image> =
            self.all_into(store).await?.into_iter().collect::<Result<_, _>>()?;
        images.into_iter().next().ok_or_else(|| Error::Internal("nothing to pull".to_owned()))
    }

    /// Pulls into `store`. The results have the order of the references; an image that fails
    /// does not stop the others.
    ///
    /// # Errors
    /// A reference is invalid; nothing was pulled.
    pub async fn all_into(self, store: &Store) -> Result<Vec<Result<Image, Error>>, Error> {
        let image = |pulled: Pulled| store.pulled(pulled.id, &pulled.reference);
        let results = self.run(store).await?;
        Ok(results.into_iter().map(|result| result.map(image)).collect())
    }

    /// Pulls into `store` as [`all_into`](Self::all_into), and returns what `docker load` prints.
    ///
    /// # Errors
    /// As of [`all_into`](Self::all_into).
    pub async fn load_into(self, store: &Store) -> Result<Vec<Result<LoadedImage, Error>>, Error> {
        let results = self.run(store).await?;
        let loaded = |pulled: Pulled| LoadedImage { id: pulled.id, replaced: pulled.moved };
        Ok(results.into_iter().map(|result| result.map(loaded)).collect())
    }

    /// Resolves the references and reports what a pull would fetch by [`Event::Planned`], or by
    /// [`Event::Done`] for an image that is up to date. Changes nothing.
    ///
    /// # Errors
    /// A reference is invalid.
    pub async fn dry_run(mut self, store: &Store) -> Result<Vec<Result<(), Error>>, Error> {
        self.options.dry_run = true;
        let results = self.run(store).await?;
        Ok(results.into_iter().map(|result| result.map(drop)).collect())
    }

    async fn run(self, store: &Store) -> Result<Vec<Result<Pulled, Error>>, Error> {
        let Self { client, images, options, events } = self;
        let store = Arc::new(store.begin());
        Ok(pull::pull(&store, &client.registry, images?, &options, &events).await)
    }
}

/// An image that was loaded from an archive.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct LoadedImage {
    /// The image.
    pub id: ImageId,
    /// The names that another image had before, with that image.
    pub replaced: Vec<(Reference, ImageId)>,
}
