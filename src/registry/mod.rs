//! The wire: hosts, credentials, manifests and blobs (OCI distribution-spec). Async only.
//!
//! HTTP is reqwest's. `oci-client` lends its error envelope; its `Client` is not used,
//! because it takes no client certificates and no HTTP client of ours, exchanges no
//! identity tokens, drops the cause of a failed token exchange, and reads manifests of any
//! size.

mod auth;
mod blob;
mod body;
mod certs;
mod credentials;
mod error;
mod host;
mod http;
mod manifest;
mod options;
mod parallel;
mod retry;
mod token;
mod wait;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::digest::Digest;
use crate::progress::{Event, Image, Sender};

pub use blob::BlobStream;
pub use credentials::{
    Credential, CredentialSource, CustomSources, Explicit, Found, Secret, Sources,
};
pub use error::{Cause, RegistryError};
pub use manifest::{ManifestInfo, RawManifest};
pub use options::RegistryOptions;
pub use parallel::{BlobRange, Keeper};
pub use retry::is_transient;

use auth::Authenticator;
use host::Clients;
use retry::Budget;
use wait::Limits;

/// Registries, as this program speaks to them. Cheap to make and to clone: connections,
/// roots and credentials are fetched when a host first needs them.
#[derive(Clone)]
pub struct Registry {
    shared: Arc<Shared>,
    events: Option<(Sender, Image)>,
}

struct Shared {
    options: RegistryOptions,
    clients: Clients,
    auth: Authenticator,
    requests: AtomicU64,
    /// One permit per segment of a parallel download that is in memory.
    segments: Semaphore,
}

impl Shared {
    fn count(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }
}

impl Registry {
    /// Registries spoken to by `options`.
    pub fn new(options: RegistryOptions) -> Self {
        let auth = Authenticator::new(credentials::chain(&options));
        let clients = Clients::new(options.clone());
        let (requests, segments) = (AtomicU64::new(0), Semaphore::new(parallel::MAX_SEGMENTS));
        let shared = Shared { options, clients, auth, requests, segments };
        Self { shared: Arc::new(shared), events: None }
    }

    /// The same, saying on behalf of `image` when something is tried again.
    pub fn with_events(&self, sender: Sender, image: Image) -> Self {
        Self { shared: self.shared.clone(), events: Some((sender, image)) }
    }

    /// How many requests were sent to registries, redirects included, tokens not.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    fn limits(&self) -> Limits {
        Limits::of(&self.shared.options)
    }

    fn budget(&self) -> Budget {
        Budget::new(self.shared.options.retries, self.shared.options.backoff)
    }

    /// Tries `request` until it succeeds, fails for good, or the budget is spent.
    async fn retrying<T, F>(
        &self,
        layer: Option<Digest>,
        mut request: impl FnMut() -> F,
    ) -> Result<T, RegistryError>
    where
        F: Future<Output = Result<T, RegistryError>>,
    {
        let mut budget = self.budget();
        loop {
            let error = match request().await {
                Ok(answer) => return Ok(answer),
                Err(e) => e,
            };
            let cause = error.to_string();
            let wait = budget.wait_after(error)?;
            self.say_retry(layer, budget.attempt(), wait, cause);
            tokio::time::sleep(wait).await;
        }
    }

    fn say_retry(&self, layer: Option<Digest>, attempt: u32, wait: Duration, cause: String) {
        if let Some((sender, image)) = &self.events {
            sender.send(Event::Retrying { image: image.clone(), layer, attempt, wait, cause });
        }
    }
}
