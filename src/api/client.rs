//! The client: how registries are contacted.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use super::copy::Copy;
use super::pull::Pull;
use super::push::Push;
use crate::digest::Digest;
use crate::error::Error;
use crate::oci::Platform;
use crate::pull;
use crate::reference::Reference;
use crate::registry::{CredentialSource, Explicit, Found, Registry, RegistryOptions};

/// A client for registries. It is cheap to clone, and all clones share connections and tokens.
///
/// Its async methods need a Tokio runtime with I/O and time enabled.
#[derive(Clone)]
pub struct Client {
    pub(super) registry: Registry,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

/// What a reference means at its registry.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Resolution {
    /// The digest of the manifest or index.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
}

impl Client {
    /// Returns a client that uses the credentials, certificates and proxies that the environment
    /// names, as docker and podman do. See [`ClientBuilder::from_env`].
    pub fn from_env() -> Self {
        ClientBuilder::from_env().build()
    }

    /// Returns a builder that reads nothing from the environment: it has no credentials, uses no
    /// proxy, and trusts the system's root certificates and `/etc/docker/certs.d`.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::new(RegistryOptions::default())
    }

    /// Prepares a pull of `reference`, such as `nginx:1.27`. It starts with [`Pull::into`], which
    /// also reports an invalid reference.
    pub fn pull<R>(&self, reference: R) -> Pull
    where
        R: TryInto<Reference>,
        R::Error: Into<Error>,
    {
        Pull::new(self.clone()).and(reference)
    }

    /// Prepares a pull of several images, which share the layers that they have in common.
    pub fn pull_all(&self, references: impl IntoIterator<Item = Reference>) -> Pull {
        references.into_iter().fold(Pull::new(self.clone()), Pull::and)
    }

    /// Prepares a push of `reference`, a tag of the store. It starts with [`Push::from`].
    pub fn push(&self, reference: Reference) -> Push {
        Push::new(self.clone(), reference)
    }

    /// Prepares a copy of `source` to `target`, which can be on another registry. Without tag and
    /// digest, `target` gets those of `source`. The copy starts with [`Copy::run`].
    pub fn copy(&self, source: Reference, target: Reference) -> Copy {
        Copy::new(self.clone(), source, target)
    }

    /// Requests the digest that `reference` has now. Without tag and digest, `latest` is meant.
    ///
    /// # Errors
    /// [`Error::Registry`].
    pub async fn resolve(&self, reference: &Reference) -> Result<Resolution, Error> {
        let (name, _) = reference.clone().with_default_tag();
        let digest = name.digest().map(|digest| digest.to_string());
        let by = digest.as_deref().or(name.tag()).unwrap_or_default();
        self.registry.log_endpoint(name.repository()).await;
        let resolved = self.registry.head_manifest(name.repository(), by).await?;
        Ok(Resolution { digest: resolved.digest, media_type: resolved.media_type })
    }
}

impl Client {
    /// Requests the digest of the manifest that `reference` has for `platform`. An index, which lists
    /// images by platform, is followed. Without an index, the config of the image must be for the
    /// platform.
    ///
    /// # Errors
    /// [`Error::Registry`], or [`Error::Manifest`] if there is no image for the platform.
    pub async fn resolve_for(
        &self,
        reference: &Reference,
        platform: &Platform,
    ) -> Result<Resolution, Error> {
        let (name, _) = reference.clone().with_default_tag();
        self.registry.log_endpoint(name.repository()).await;
        let resolved = pull::manifest_for(&self.registry, &name, platform).await?;
        Ok(Resolution { digest: resolved.digest, media_type: resolved.media_type })
    }
}

impl Default for Client {
    /// The client of [`Client::builder`], which reads nothing from the environment.
    fn default() -> Self {
        Self::builder().build()
    }
}

/// The options of a [`Client`].
#[derive(Debug, Clone)]
#[must_use]
pub struct ClientBuilder {
    options: RegistryOptions,
    certs_dirs: Vec<PathBuf>,
}

impl ClientBuilder {
    fn new(options: RegistryOptions) -> Self {
        Self { options, certs_dirs: Vec::new() }
    }

    /// Returns a builder with what the environment names:
    ///
    /// - credentials in `DOCKER_AUTH_CONFIG`, `REGISTRY_AUTH_FILE`, `$DOCKER_CONFIG/config.json`
    ///   or `~/.docker/config.json`, and in `containers/auth.json` below `XDG_RUNTIME_DIR` and
    ///   `XDG_CONFIG_HOME` or `~/.config`
    /// - certificates in `~/.config/docker/certs.d` and `~/.config/containers/certs.d`
    /// - proxies in `HTTP_PROXY`, `HTTPS_PROXY`, `ALL_PROXY` and `NO_PROXY`
    ///
    /// An empty variable counts as unset.
    pub fn from_env() -> Self {
        Self::new(RegistryOptions::from_env())
    }

    /// Uses plain HTTP for every registry. Without this, a loopback registry without a certificate
    /// directory is tried over HTTPS with any certificate, and uses plain HTTP if it does not speak
    /// TLS.
    pub fn plain_http(mut self, plain_http: bool) -> Self {
        self.options.plain_http = plain_http;
        self
    }

    /// Accepts any certificate of `host`, as `HOST` or `HOST:PORT`, and uses plain HTTP if it does not
    /// speak TLS. Without a port, this holds for all ports of the host. Credentials for this host can
    /// then be seen and changed on the network. Redirects and token servers on other hosts are still
    /// verified. Call it again for another host.
    pub fn insecure(mut self, host: impl Into<String>) -> Self {
        self.options.insecure.push(host.into());
        self
    }

    /// Uses this credential for every registry that asks for one.
    pub fn credential(mut self, found: Found) -> Self {
        self.options.explicit = Explicit::new(found);
        self
    }

    /// Asks `source` for credentials, before the places that the environment names and after
    /// sources that were added before.
    pub fn credential_source(mut self, source: impl CredentialSource + 'static) -> Self {
        self.options.custom.push(source);
        self
    }

    /// Reads credentials from `path`, in the format of podman's auth.json. The file must exist.
    pub fn auth_file(mut self, path: impl Into<PathBuf>) -> Self {
        self.options.sources.auth_file = Some(path.into());
        self
    }

    /// Searches `dir` for certificates in `<host[:port]>/`: `*.crt` are additional roots or the
    /// certificate of the server itself, and `X.cert` with `X.key` is a client certificate. The first directory that has the host is
    /// used; those that are added here come first.
    pub fn certs_dir(mut self, dir: impl Into<PathBuf>) -> Self {
        self.certs_dirs.push(dir.into());
        self
    }

    /// Retries a failed request up to `retries` times in a row. The default is 5; 0 repeats no
    /// request at all.
    pub fn retries(mut self, retries: u32) -> Self {
        self.options.retries = retries;
        self
    }

    /// Repeats requests to a host that answered before and then sends nothing, for this long. The
    /// time is measured for all transfers of a host together, and these failures do not count
    /// towards [`retries`](Self::retries). The default is 120 seconds; zero treats such a host like
    /// one that never answered.
    pub fn outage_timeout(mut self, limit: Duration) -> Self {
        self.options.outage_timeout = limit;
        self
    }

    /// Abandons a request that receives nothing for this long. The default is 30 seconds.
    pub fn stall_timeout(mut self, limit: Duration) -> Self {
        self.options.stall_timeout = limit;
        self
    }

    /// Returns the client. It contacts no registry and reads no file before a request needs it.
    pub fn build(self) -> Client {
        let mut options = self.options;
        options.certs_dirs.splice(..0, self.certs_dirs);
        Client { registry: Registry::new(options) }
    }
}
