//! Registry client: hosts, credentials, manifests and blobs (OCI distribution-spec). Async only.
//!
//! HTTP is reqwest's. Only the error envelope is from `oci-client`; its `Client` supports
//! neither client certificates nor a custom HTTP client, does not exchange identity tokens,
//! drops the cause of a failed token exchange, and reads manifests of any size.

mod attempts;
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
mod outage;
mod parallel;
mod proxy;
mod retry;
mod token;
mod wait;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Semaphore;

use crate::progress::{Image, Sender};
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

    /// Returns the same client, which reports retries for `image`: [`Event::Retrying`], and the
    /// state [`LayerState::Reconnecting`] of a layer, and [`LayerState::Downloading`] afterwards.
    ///
    /// [`Event::Retrying`]: crate::progress::Event::Retrying
    /// [`LayerState::Reconnecting`]: crate::progress::LayerState::Reconnecting
    /// [`LayerState::Downloading`]: crate::progress::LayerState::Downloading
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
}
