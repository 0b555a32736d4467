//! A push, prepared step by step.

use std::fmt;
use std::sync::Arc;

use super::client::Client;
use super::store::Store;
use crate::error::Error;
use crate::progress::{Event, Sender};
use crate::push::{self, ManifestFormat, Options, Pushed};
use crate::reference::Reference;

/// A push that [`from`](Self::from) starts.
///
/// ```no_run
/// # async fn example() -> Result<(), rpull::Error> {
/// let store = rpull::Store::open("/var/lib/images")?;
/// let client = rpull::Client::from_env();
/// let pushed = client.push("registry.example/app:1.4".parse()?).from(&store).await?;
/// println!("{}", pushed.digest);
/// # Ok(())
/// # }
/// ```
///
/// Dropping the future ends the push. The registry keeps complete layers, and discards unfinished
/// uploads by itself.
#[must_use = "a push starts with `from`"]
pub struct Push {
    client: Client,
    reference: Reference,
    options: Options,
    events: Sender,
}

impl fmt::Debug for Push {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Push")
            .field("reference", &self.reference)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Push {
    /// The default of [`jobs`](Self::jobs).
    pub const DEFAULT_JOBS: usize = push::DEFAULT_JOBS;

    pub(super) fn new(client: Client, reference: Reference) -> Self {
        Self { client, reference, options: Options::default(), events: Sender::none() }
    }

    /// Pushes up to `jobs` layers in parallel, at least one. Each needs up to 1 MiB of memory for
    /// buffers.
    pub fn jobs(mut self, jobs: usize) -> Self {
        self.options.jobs = jobs.max(1);
        self
    }

    /// Sets the format of the manifest. The default is the one with which the image was pulled, and
    /// Docker's for others. Another format gives the manifest another digest; the image ID stays.
    pub fn manifest_format(mut self, format: ManifestFormat) -> Self {
        self.options.format = Some(format);
        self
    }

    /// Calls `receive` with each event, on any thread. It should return quickly: an upload waits for
    /// it.
    pub fn events(mut self, receive: impl Fn(Event) + Send + Sync + 'static) -> Self {
        self.events = Sender::to(receive);
        self
    }

    /// Pushes the tag from `store`. Without a tag, `latest` is meant.
    ///
    /// Layers that the registry has are not uploaded again, and those of other repositories of the
    /// registry are mounted. The manifest with which the image was pulled is kept if all its blobs are
    /// at the registry or in the content store; otherwise layers are compressed again, and the image
    /// gets a new manifest with the same ID.
    ///
    /// # Errors
    /// The store does not have the image, or the registry does not accept it.
    pub async fn from(self, store: &Store) -> Result<Pushed, Error> {
        let mut pushed = self.run(store).await?;
        pushed.pop().unwrap_or_else(|| Err(Error::Internal("nothing to push".to_owned())))
    }

    /// Pushes all tags of the repository from `store`, in their order. A tag that fails does not stop
    /// the others.
    ///
    /// # Errors
    /// The store has no tag of the repository, or it cannot be read.
    pub async fn all_tags_from(
        mut self,
        store: &Store,
    ) -> Result<Vec<Result<Pushed, Error>>, Error> {
        self.options.all_tags = true;
        self.run(store).await
    }

    async fn run(self, store: &Store) -> Result<Vec<Result<Pushed, Error>>, Error> {
        let Self { client, reference, options, events } = self;
        if reference.digest().is_some() {
            return Err(Error::Usage(format!("cannot push '{reference}', which has a digest")));
        }
        if options.all_tags && reference.tag().is_some() {
            return Err(Error::Usage(format!(
                "cannot push all tags of '{reference}', which has one"
            )));
        }
        push::push(Arc::new(store.begin()), &client.registry, reference, options, events).await
    }
}
