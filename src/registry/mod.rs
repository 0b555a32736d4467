//! Registry client: hosts, credentials, manifests and blobs (OCI distribution-spec). Async only.
//!
//! HTTP is reqwest's. Only the error envelope is from `oci-client`; its `Client` supports
//! neither client certificates nor a custom HTTP client, does not exchange identity tokens,
//! drops the cause of a failed token exchange, and reads manifests of any size.

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
mod proxy;
mod retry;
mod token;
mod wait;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Semaphore;

use crate::digest::Digest;
use crate::progress::{Event, Image, Sender};
use crate::reference::Repository;

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
use host::{Clients, Endpoint};
use retry::Budget;
use wait::WaitLimits;

/// A client for all registries. Cheap to create and to clone: connections are opened, and
/// certificates and credentials read, when a host first needs them.
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
    /// One permit per segment of a parallel download in memory.
    segments: Semaphore,
}

impl Shared {
    fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }
}

impl Registry {
    /// Creates a client with `options`.
    pub fn new(options: RegistryOptions) -> Self {
        let auth = Authenticator::new(credentials::chain(&options));
        let clients = Clients::new(options.clone());
        let (requests, segments) = (AtomicU64::new(0), Semaphore::new(parallel::MAX_SEGMENTS));
        let shared = Shared { options, clients, auth, requests, segments };
        Self { shared: Arc::new(shared), events: None }
    }

    /// Returns the same client, which sends an [`Event::Retrying`] for `image` on each retry.
    pub fn with_events(&self, sender: Sender, image: Image) -> Self {
        Self { shared: self.shared.clone(), events: Some((sender, image)) }
    }

    /// Returns the number of requests sent, with redirects, without token requests.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// Logs which endpoint serves `repository`.
    pub fn log_endpoint(&self, repository: &Repository) {
        tracing::info!(
            "{repository} is served by {}",
            Endpoint::of(repository.domain(), &self.shared.options).origin()
        );
    }

    fn limits(&self) -> WaitLimits {
        WaitLimits::of(&self.shared.options)
    }

    fn budget(&self) -> Budget {
        Budget::new(self.shared.options.retries, self.shared.options.backoff)
    }

    /// Retries `request` until it succeeds, fails permanently, or the budget is spent.
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
            self.report_retry(layer, budget.attempt(), wait, cause);
            tokio::time::sleep(wait).await;
        }
    }

    fn report_retry(&self, layer: Option<Digest>, attempt: u32, wait: Duration, cause: String) {
        tracing::debug!("attempt {attempt} in {} ms, because: {cause}", wait.as_millis());
        if let Some((sender, image)) = &self.events {
            sender.send(Event::Retrying { image: image.clone(), layer, attempt, wait, cause });
        }
    }
}
