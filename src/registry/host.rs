//! The HTTP clients for hosts, and what they trust.

use std::collections::HashMap;
use std::error::Error;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, Once, PoisonError};
use std::time::Duration;

use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Url};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::sync::OnceCell;

use super::body::Peer;
use super::certs::{self, HostCerts};
use super::client_cert::ClientCertResolver;
use super::endpoint::{self, Endpoint, authority, is_loopback, origin};
use super::error::{Cause, RegistryError};
use super::options::RegistryOptions;
use super::outage::Outages;
use super::proxy::Proxy;
use super::tls_problem::TlsProblem;
use super::verifier::{HostTrust, SystemRoots, Verifier};
use super::wait::WaitLimits;

/// The HTTP/2 flow control window in bytes, per stream and per connection: enough for
/// 160 MB/s at a round trip of 100 ms.
const WINDOW: u32 = 16 << 20;

/// Limit on a connection to a host that may not speak TLS, with its handshake. A port that accepts
/// connections and stays silent delays plain HTTP by this time.
const MAX_HANDSHAKE_UNVERIFIED: Duration = Duration::from_secs(5);

/// HTTP clients, one per [`Trust`]; they reuse connections.
pub struct Clients {
    options: RegistryOptions,
    known: Mutex<Known>,
    outages: Outages,
    system_roots: Arc<SystemRoots>,
}

/// What was found out about hosts. A directory is looked up once, and not for each request.
#[derive(Default)]
struct Known {
    /// The certificate directory of each host.
    certs_dirs: HashMap<String, Option<PathBuf>>,
    /// The client certificate of each host that does not share its client with others.
    client_certs: HashMap<String, Arc<ClientCertResolver>>,
    clients: HashMap<Trust, Client>,
    /// The client of each origin.
    by_origin: HashMap<String, Client>,
    /// The endpoint of each domain whose scheme must be tried.
    endpoints: HashMap<String, Arc<OnceCell<Endpoint>>>,
}

/// The transport and CA certificates of a client.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Trust {
    /// Plain HTTP to a loopback address, without CA certificates and proxies.
    Local,
    /// Plain HTTP, perhaps through a proxy.
    Plain,
    /// HTTPS with the system's CA certificates.
    System,
    /// HTTPS to a host with its own certificates, or whose certificate is not verified.
    Host(String),
}

impl Clients {
    /// Creates an empty set; the first request to a host builds its client.
    pub fn new(options: RegistryOptions) -> Self {
        Self {
            options,
            known: Mutex::default(),
            outages: Outages::default(),
            system_roots: Arc::default(),
        }
    }

    /// Returns the options of the clients.
    pub fn options(&self) -> &RegistryOptions {
        &self.options
    }

    /// Returns what is known of the hosts.
    pub fn outages(&self) -> &Outages {
        &self.outages
    }

    /// Returns the server of `url`.
    pub fn peer(&self, url: &Url) -> Peer {
        let host = authority(url);
        let (limits, state) = (WaitLimits::of(&self.options), self.outages.of(&host));
        Peer { host, limits, state, proxy: self.proxy(url) }
    }

    /// Returns the client for `url`.
    ///
    /// # Errors
    /// [`RegistryError::Certificates`] if the host's certificates are invalid,
    /// [`RegistryError::Proxy`] if a variable does not name a proxy.
    pub fn client(&self, url: &Url) -> Result<Client, RegistryError> {
        let origin = origin(url);
        if let Some(client) = self.known().by_origin.get(&origin) {
            return Ok(client.clone());
        }
        let host = authority(url);
        let local = is_loopback(&host);
        let own = self.certs_dir(&host).is_some() || self.is_unverified(&host);
        let trust = match url.scheme() {
            "http" if local => Trust::Local,
            "http" => Trust::Plain,
            _ if own => Trust::Host(host.clone()),
            _ => Trust::System,
        };
        let shared = self.known().clients.get(&trust).cloned();
        let client = match shared {
            Some(client) => client,
            None => self.build(&trust, &host)?,
        };
        let mut known = self.known();
        // If another request built one at the same time, the first is used.
        let client = known.clients.entry(trust).or_insert(client).clone();
        let first = known.by_origin.insert(origin, client.clone()).is_none();
        drop(known);
        if first {
            self.log_transport(url);
        }
        Ok(client)
    }

    /// Returns the certificate directory of a host, `name[:port]`.
    pub fn certs_dir(&self, host: &str) -> Option<PathBuf> {
        let mut known = self.known();
        let found = known.certs_dirs.entry(host.to_owned());
        found.or_insert_with(|| certs::dir_of(&self.options.certs_dirs, host)).clone()
    }

    /// Returns whether the user allows any certificate and plain HTTP for a host.
    pub fn is_insecure(&self, host: &str) -> bool {
        endpoint::contains(&self.options.insecure, host)
    }

    /// Returns whether any certificate of a host is accepted: the user said so, or it is a loopback
    /// host without a certificate directory.
    pub fn is_unverified(&self, host: &str) -> bool {
        self.is_insecure(host) || (is_loopback(host) && self.certs_dir(host).is_none())
    }

    /// Returns whether requests that began at `from` may continue at `to`, with credentials or as a
    /// redirect: HTTPS with a verified certificate must not be left, and otherwise only for a
    /// loopback host, or within the hosts for which the user allows it.
    pub fn may_continue_at(&self, from: &Url, to: &Url) -> bool {
        let verified = |url: &Url| url.scheme() == "https" && !self.is_unverified(&authority(url));
        let (from_host, to_host) = (authority(from), authority(to));
        let may_be_seen = || {
            self.options.plain_http
                || is_loopback(&to_host)
                || self.is_insecure(&from_host) && self.is_insecure(&to_host)
        };
        verified(to)
            || to.scheme() == "https" && self.is_insecure(&to_host)
            || !verified(from) && may_be_seen()
    }

    /// Adds to an error of TLS what is known about the host of `url`.
    pub fn explain(&self, error: RegistryError, url: &Url) -> RegistryError {
        let authority = authority(url);
        let client_cert = self.known().client_certs.get(&authority).cloned();
        let rejected = TlsProblem::ClientCertificateRejected;
        let (host, mut problem, cause) = match error {
            RegistryError::Tls { host, problem, cause, .. } => (host, problem, cause),
            // The server closes the connection, and its alert is not always read in time.
            RegistryError::Network { host, cause, down: false, proxy: None }
                if client_cert.as_ref().is_some_and(|cert| cert.was_requested())
                    && self.outages.of(&authority).received() == 0
                    && is_closed(&cause) =>
            {
                (host, rejected.clone(), cause)
            }
            error => return error,
        };
        if problem == rejected && client_cert.is_none_or(|cert| !cert.has_certificate()) {
            problem = TlsProblem::NoClientCertificate;
        }
        let first = || self.options.certs_dirs.first().map(|dir| dir.join(&authority));
        let certs_dir = self.certs_dir(&authority).or_else(first);
        RegistryError::Tls { host, problem, certs_dir, cause }
    }

    /// Returns the cell for the endpoint of `domain`.
    pub fn endpoint_cell(&self, domain: &str) -> Arc<OnceCell<Endpoint>> {
        self.known().endpoints.entry(domain.to_owned()).or_default().clone()
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Logs how a host is contacted.
    fn log_transport(&self, url: &Url) {
        if !tracing::enabled!(tracing::Level::INFO) {
            return;
        }
        let proxy = self.proxy(url).map(|proxy| format!("proxy {proxy}"));
        let proxy = proxy.unwrap_or_else(|| "no proxy".to_owned());
        let host = authority(url);
        let certs = match (url.scheme(), self.certs_dir(&host)) {
            ("http", _) => "no TLS".to_owned(),
            _ if self.is_unverified(&host) => "any certificate is accepted".to_owned(),
            (_, Some(dir)) => format!("certificates in {}", dir.display()),
            (_, None) => "the system's CA certificates".to_owned(),
        };
        tracing::info!("{}: {proxy}, {certs}", origin(url));
    }

    /// Returns the proxy of requests to `url`.
    pub fn proxy(&self, url: &Url) -> Option<Proxy> {
        let local = url.host_str().is_some_and(is_loopback);
        if local { None } else { self.options.proxies.of(&origin(url)) }
    }

    fn build(&self, trust: &Trust, host: &str) -> Result<Client, RegistryError> {
        install_crypto();
        let mut connect_timeout = self.options.connect_timeout;
        if matches!(trust, Trust::Host(_)) && self.is_unverified(host) {
            // Below the stall limit, so that a stall means that the handshake succeeded.
            let stall = self.options.stall_timeout / 2;
            connect_timeout = connect_timeout.min(MAX_HANDSHAKE_UNVERIFIED).min(stall);
        }
        let mut builder = Client::builder()
            // Those of the system are in the options, if the program wants them.
            .no_proxy()
            // Redirects are followed in `http`, because credentials must not be sent there.
            .redirect(Policy::none())
            .connect_timeout(connect_timeout)
            .tcp_nodelay(true)
            .user_agent(concat!("rpull/", env!("CARGO_PKG_VERSION")));
        let proxies =
            if is_loopback(host) { Vec::new() } else { self.options.proxies.clients()? };
        for proxy in proxies {
            builder = builder.proxy(proxy);
        }
        let builder = match trust {
            // Reading the system's CA certificates takes longer than pulling a present image.
            Trust::Local | Trust::Plain => {
                builder.tls_certs_only(Vec::<Certificate>::new()).http1_only()
            }
            Trust::System => builder.tls_backend_preconfigured(self.tls_config(None)?),
            Trust::Host(host) => builder.tls_backend_preconfigured(self.tls_config(Some(host))?),
        };
        builder
            // The default windows limit a stream to 64 KiB per round trip.
            .http2_initial_stream_window_size(WINDOW)
            .http2_initial_connection_window_size(WINDOW)
            .build()
            .map_err(|e| RegistryError::Internal(Cause::of_http(e).to_string()))
    }

    /// Returns the TLS configuration for one host, or for all hosts without their own.
    fn tls_config(&self, host: Option<&str>) -> Result<ClientConfig, RegistryError> {
        let dir = host.and_then(|host| self.certs_dir(host)).unwrap_or_default();
        let certs = match dir.as_os_str().is_empty() {
            true => HostCerts::default(),
            false => certs::read(&dir)?,
        };
        let trust = HostTrust {
            host: host.and_then(|host| ServerName::try_from(endpoint::name(host).to_owned()).ok()),
            roots: certs.roots,
            certificates: certs.certificates,
            unverified: host.is_some_and(|host| self.is_unverified(host)),
        };
        let builder = ClientConfig::builder();
        let roots = self.system_roots.clone();
        let verifier = Verifier::new(trust, roots, builder.crypto_provider());
        let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
        let stem = certs.client.as_ref().map(|client| client.stem.clone()).unwrap_or_default();
        let client_cert = ClientCertResolver::new(certs.client, builder.crypto_provider());
        let client_cert = client_cert.map(Arc::new).map_err(|e| match e {
            rustls::Error::InconsistentKeys(_) => {
                certs::error(&dir, format!("{stem}.key is not the key of {stem}.cert"))
            }
            e => certs::error(&dir, format!("{stem}.cert: {e}")),
        })?;
        if let Some(host) = host {
            self.known().client_certs.insert(host.to_owned(), client_cert.clone());
        }
        let mut config = builder.with_client_cert_resolver(client_cert);
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// Returns whether a request failed because its connection was closed.
fn is_closed(cause: &Cause) -> bool {
    let http = cause.source().and_then(|error| error.downcast_ref::<reqwest::Error>());
    http.is_some_and(|error| !error.is_timeout() && !error.is_connect())
}

fn install_crypto() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // If an embedding program has installed one already, that is used.
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(insecure: &[&str], plain_http: bool) -> Clients {
        let insecure = insecure.iter().map(|host| (*host).to_owned()).collect();
        let certs_dirs = Vec::new();
        Clients::new(RegistryOptions {
            insecure,
            plain_http,
            certs_dirs,
            ..RegistryOptions::default()
        })
    }

    fn may(clients: &Clients, from: &str, to: &str) -> bool {
        clients.may_continue_at(&Url::parse(from).unwrap(), &Url::parse(to).unwrap())
    }

    #[test]
    fn credentials_use_plain_http_only_if_the_registry_does() {
        let (strict, plain) = (clients(&[], false), clients(&[], true));
        let (https, http) = ("https://registry.example", "http://registry.example");
        assert!(may(&strict, https, "https://auth.example/token"));
        for realm in ["http://auth.example/token", "http://127.0.0.1/token", "http://localhost"] {
            assert!(!may(&strict, https, realm), "{realm}");
            assert!(!may(&plain, https, realm), "{realm}");
            assert!(may(&plain, http, realm), "{realm}");
        }
        assert!(may(&strict, http, "http://127.0.0.1:5001/token"));
        assert!(!may(&strict, http, "http://auth.example/token"));
        assert!(may(&strict, http, "https://auth.example/token"));
    }

    #[test]
    fn credentials_leave_a_verified_host_for_no_unverified_one_that_the_user_did_not_list() {
        let strict = clients(&[], false);
        assert!(!may(&strict, "https://registry.example", "https://127.0.0.1:5001/token"));
        assert!(may(&strict, "https://127.0.0.1:5000", "https://127.0.0.1:5001/token"));
        assert!(may(&strict, "https://127.0.0.1:5000", "http://127.0.0.1:5001/token"));
        let listed = clients(&["registry.lan", "auth.lan:81"], false);
        assert!(may(&listed, "https://registry.example", "https://auth.lan:81/token"));
        assert!(!may(&listed, "https://registry.example", "http://auth.lan:81/token"));
        for from in ["https://registry.lan:5000", "http://registry.lan:5000"] {
            assert!(may(&listed, from, "http://auth.lan:81/token"));
            assert!(may(&listed, from, "http://registry.lan:5000/token"));
            assert!(may(&listed, from, "https://auth.example/token"));
            assert!(!may(&listed, from, "http://auth.lan:82/token"));
            assert!(!may(&listed, from, "http://auth.example/token"));
        }
    }

    #[test]
    fn loopback_host_with_certificates_is_verified() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("localhost:5000")).unwrap();
        let certs_dirs = vec![dir.path().into()];
        let clients = Clients::new(RegistryOptions { certs_dirs, ..RegistryOptions::default() });
        assert!(!clients.is_unverified("localhost:5000"));
        assert!(clients.is_unverified("localhost:5001"));
        assert!(!clients.is_unverified("registry.example"));
    }
}
