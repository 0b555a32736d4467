//! Registry client: hosts, credentials, manifests and blobs (OCI distribution-spec). Async only.
//!
//! HTTP is reqwest's. Only the error envelope is from `oci-client`; its `Client` supports
//! neither client certificates nor a custom HTTP client, does not exchange identity tokens,
//! drops the cause of a failed token exchange, and reads manifests of any size.

mod access;
mod attempts;
mod auth;
mod blob;
mod body;
mod certs;
mod client_cert;
mod credentials;
mod endpoint;
mod error;
mod fact;
mod flow;
mod host;
mod html;
mod http;
mod manifest;
mod options;
mod outage;
mod parallel;
mod proxy;
mod retry;
mod scheme;
mod tls_problem;
mod token;
mod upload;
mod verifier;
mod wait;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{OnceCell, Semaphore};

use crate::progress::{Image, Sender};
use crate::reference::Repository;

pub use blob::BlobStream;
pub use credentials::{
    Credential, CredentialSource, CustomSources, Explicit, Found, Secret, Sources,
};
pub use error::{Cause, RegistryError};
pub use flow::{BlobBytes, BlobSource};
pub use manifest::{ManifestInfo, RawManifest};
pub use options::RegistryOptions;
pub use parallel::{BlobRange, Keeper};
pub use proxy::Proxies;
pub use retry::is_transient;
pub use tls_problem::TlsProblem;
pub use upload::{Mounted, Session, Upload, Uploaded};

use auth::Authenticator;
use host::Clients;

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
    /// Set when the files with credentials have been checked.
    credentials_checked: OnceCell<()>,
}

impl Shared {
    /// Checks the files with credentials before the first request.
    async fn check_credentials(&self) -> Result<(), RegistryError> {
        let check = || async {
            let options = self.options.clone();
            // Reading files blocks.
            let checked = tokio::task::spawn_blocking(move || credentials::check(&options));
            checked.await.map_err(|e| RegistryError::Internal(e.to_string()))?
        };
        self.credentials_checked.get_or_try_init(check).await.copied()
    }

    fn count_request(&self) {
        self.requests.fetch_add(1, Ordering::Relaxed);
    }
}

impl Registry {
    /// Creates a client with `options`.
    pub fn new(mut options: RegistryOptions) -> Self {
        // Below the stall limit: a host that drops all packets is one that cannot be connected to.
        let below_stall = options.stall_timeout.mul_f64(0.9);
        options.connect_timeout = options.connect_timeout.min(below_stall);
        let auth = Authenticator::new(credentials::chain(&options));
        let clients = Clients::new(options.clone());
        let (requests, segments) = (AtomicU64::new(0), Semaphore::new(parallel::MAX_SEGMENTS));
        let credentials_checked = OnceCell::new();
        let shared = Shared { options, clients, auth, requests, segments, credentials_checked };
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

    /// Returns the number of requests sent, with redirects, without token requests and
    /// without the attempt to use TLS with a host that may not speak it.
    pub fn requests(&self) -> u64 {
        self.shared.requests.load(Ordering::Relaxed)
    }

    /// Logs which endpoint serves `repository`.
    pub async fn log_endpoint(&self, repository: &Repository) {
        if tracing::enabled!(tracing::Level::INFO)
            && let Ok(endpoint) = self.shared.clients.endpoint(repository.domain()).await
        {
            tracing::info!("{repository} is served by {}", endpoint.origin());
        }
    }
}
