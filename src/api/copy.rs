//! A copy between registries, prepared step by step.

use std::fmt;

use super::client::Client;
use crate::copy::{self, Copied, Options};
use crate::error::Error;
use crate::oci::Platform;
use crate::progress::{Event, Sender};
use crate::reference::Reference;

/// A copy that [`run`](Self::run) starts.
///
/// ```no_run
/// # async fn example() -> Result<(), rpull::Error> {
/// let client = rpull::Client::from_env();
/// let copied = client.copy("debian:12".parse()?, "registry.example/debian".parse()?).run().await?;
/// println!("{}", copied.digest);
/// # Ok(())
/// # }
/// ```
#[must_use = "a copy starts with `run`"]
pub struct Copy {
    client: Client,
    source: Reference,
    target: Reference,
    options: Options,
    events: Sender,
}

impl fmt::Debug for Copy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Copy")
            .field("source", &self.source)
            .field("target", &self.target)
            .field("options", &self.options)
            .finish_non_exhaustive()
    }
}

impl Copy {
    /// The default of [`jobs`](Self::jobs).
    pub const DEFAULT_JOBS: usize = copy::DEFAULT_JOBS;

    pub(super) fn new(client: Client, source: Reference, target: Reference) -> Self {
        Self { client, source, target, options: Options::default(), events: Sender::none() }
    }

    /// Copies up to `jobs` blobs in parallel, at least one.
    pub fn jobs(mut self, jobs: usize) -> Self {
        self.options.jobs = jobs.max(1);
        self
    }

    /// Copies only the image for this platform. The default is all that an index lists.
    pub fn platform(mut self, platform: Platform) -> Self {
        self.options.platform = Some(platform);
        self
    }

    /// Calls `receive` with each event, on any thread. It should return quickly: an upload waits for
    /// it.
    pub fn events(mut self, receive: impl Fn(Event) + Send + Sync + 'static) -> Self {
        self.events = Sender::to(receive);
        self
    }

    /// Returns the reference of the copy: the target, or without tag and digest, with those of the source.
    ///
    /// # Errors
    /// [`Error::Reference`] if the tag of the source is invalid.
    pub fn target(&self) -> Result<Reference, Error> {
        Ok(copy::target_of(&self.source, self.target.clone())?)
    }

    /// Copies the image, its referrers, and theirs. Blobs are streamed and verified; those that the
    /// target has are not sent, and on one registry they are mounted. The digest stays. The tag is
    /// written last.
    ///
    /// # Errors
    /// The source does not exist or is not what its digests say, or the target does not accept it.
    pub async fn run(self) -> Result<Copied, Error> {
        let Self { client, source, target, options, events } = self;
        copy::copy(&client.registry, source, target, options, events).await
    }
}
