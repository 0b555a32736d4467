//! The endpoint of a registry's name, and the HTTP clients for it.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::path::Path;
use std::sync::{Mutex, Once, PoisonError};

use reqwest::redirect::Policy;
use reqwest::{Certificate, Client, Identity, Url};

use super::body::Peer;
use super::certs::{self, HostCerts};
use super::credentials::CredentialHost;
use super::error::{Cause, RegistryError};
use super::options::RegistryOptions;
use super::outage::Outages;
use super::proxy::Proxy;
use super::wait::WaitLimits;
use crate::reference::DOCKER_HUB;

/// Docker Hub's registry (moby registry/config.go).
const HUB_HOST: &str = "registry-1.docker.io";

/// The HTTP/2 flow control window in bytes, per stream and per connection: enough for
/// 160 MB/s at a round trip of 100 ms.
const WINDOW: u32 = 16 << 20;

/// The scheme and host that serve a registry's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// `http` or `https`.
    pub scheme: &'static str,
    /// `host[:port]`.
    pub host: String,
}

/// HTTP clients, one per [`Trust`]; they reuse connections.
pub struct Clients {
    options: RegistryOptions,
    built: Mutex<HashMap<Trust, Client>>,
    outages: Outages,
    /// The origins whose certificates and proxy are logged.
    logged: Mutex<HashSet<String>>,
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
    /// HTTPS to a host with its own certificates, or to a loopback address.
    Host(String),
}

impl Endpoint {
    /// Returns the endpoint for `domain` of a reference.
    pub fn of(domain: &str, options: &RegistryOptions) -> Self {
        let host = if domain == DOCKER_HUB { HUB_HOST } else { domain };
        let has_certs = certs::dir_of(&options.certs_dirs, host).is_some();
        let plain = options.plain_http || (is_loopback(host) && !has_certs);
        Self { scheme: if plain { "http" } else { "https" }, host: host.to_owned() }
    }

    /// Returns the host for which credentials are looked up. Docker's tools store those of Docker
    /// Hub under the domain of its references.
    pub fn credential_host(&self) -> CredentialHost {
        CredentialHost::of_endpoint(if self.host == HUB_HOST { DOCKER_HUB } else { &self.host })
    }

    /// Returns `scheme://host[:port]`.
    pub fn origin(&self) -> String {
        format!("{}://{}", self.scheme, self.host)
    }

    /// Returns the URL of `path` below `/v2/`.
    ///
    /// # Errors
    /// [`RegistryError::Protocol`] if host and path do not form a URL.
    pub fn url(&self, path: &str) -> Result<Url, RegistryError> {
        let text = format!("{}/v2/{path}", self.origin());
        Url::parse(&text)
            .map_err(|e| RegistryError::Protocol { host: self.host.clone(), what: e.to_string() })
    }
}

impl Endpoint {
    /// Returns whether credentials for this registry may be sent to `url`: over plain HTTP only
    /// if the registry itself uses it, and then only to a loopback address or with `plain_http`.
    pub fn may_send_credentials_to(&self, url: &Url, plain_http: bool) -> bool {
        let local = url.host_str().is_some_and(is_loopback);
        url.scheme() == "https" || self.scheme == "http" && (plain_http || local)
    }
}

impl Clients {
    /// Creates an empty set; the first request to a host builds its client.
    pub fn new(options: RegistryOptions) -> Self {
        Self {
            options,
            built: Mutex::default(),
            outages: Outages::default(),
            logged: Mutex::default(),
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
        let host = authority(url);
        let dir = certs::dir_of(&self.options.certs_dirs, &host);
        let local = url.host_str().is_some_and(is_loopback);
        let trust = match (url.scheme(), dir.is_some()) {
            ("http", _) if local => Trust::Local,
            ("http", _) => Trust::Plain,
            (_, false) if !local => Trust::System,
            _ => Trust::Host(host.clone()),
        };
        if tracing::enabled!(tracing::Level::INFO) {
            self.log_transport(url, dir.as_deref());
        }
        let mut built = self.built.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = built.get(&trust) {
            return Ok(client.clone());
        }
        let host_certs = dir.as_deref().map(certs::read).transpose()?.unwrap_or_default();
        let named = dir.map(|dir| dir.display().to_string()).unwrap_or_else(|| host.clone());
        let wrong = |e: reqwest::Error| RegistryError::Certificates {
            dir: named.clone(),
            cause: Cause::of_http(e),
        };
        let proxies = if local { Vec::new() } else { self.options.proxies.clients()? };
        let client = self.build(&trust, proxies, &host_certs).map_err(wrong)?;
        built.insert(trust, client.clone());
        Ok(client)
    }

    /// Logs once how a host is contacted.
    fn log_transport(&self, url: &Url, certs_dir: Option<&Path>) {
        let mut logged = self.logged.lock().unwrap_or_else(PoisonError::into_inner);
        if !logged.insert(origin(url)) {
            return;
        }
        let proxy = self.proxy(url).map(|proxy| format!("proxy {proxy}"));
        let proxy = proxy.unwrap_or_else(|| "no proxy".to_owned());
        let certs = match (url.scheme(), certs_dir) {
            ("http", _) => "no TLS".to_owned(),
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

    fn build(
        &self,
        trust: &Trust,
        proxies: Vec<reqwest::Proxy>,
        certs: &HostCerts,
    ) -> reqwest::Result<Client> {
        install_crypto();
        let mut builder = Client::builder()
            // Those of the system are in the options, if the program wants them.
            .no_proxy()
            // Redirects are followed in `http`, because credentials must not be sent there.
            .redirect(Policy::none())
            .connect_timeout(self.options.connect_timeout)
            .tcp_nodelay(true)
            .user_agent(concat!("rpull/", env!("CARGO_PKG_VERSION")));
        for proxy in proxies {
            builder = builder.proxy(proxy);
        }
        if matches!(trust, Trust::Local | Trust::Plain) {
            // Reading the system's CA certificates takes longer than pulling a present image.
            return builder.tls_certs_only(Vec::<Certificate>::new()).http1_only().build();
        }
        let mut roots = Vec::new();
        for pem in &certs.roots {
            roots.extend(Certificate::from_pem_bundle(pem)?);
        }
        if let Some(pem) = &certs.client {
            builder = builder.identity(Identity::from_pem(pem)?);
        }
        builder
            .tls_certs_merge(roots)
            // The default windows limit a stream to 64 KiB per round trip.
            .http2_initial_stream_window_size(WINDOW)
            .http2_initial_connection_window_size(WINDOW)
            .build()
    }
}

/// Returns `host[:port]` of a URL, without the scheme's default port.
pub fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Removes user and password from a URL, which reqwest would send.
pub fn strip_user(url: &mut Url) {
    // This fails for URLs that cannot have any.
    let _ = url.set_username("").and_then(|()| url.set_password(None));
}

/// Returns `scheme://host[:port]` of a URL. The rest must not be shown, since it can contain
/// passwords and signatures.
pub fn origin(url: &Url) -> String {
    format!("{}://{}", url.scheme(), authority(url))
}

/// Returns whether `host[:port]` is a loopback address.
pub fn is_loopback(host: &str) -> bool {
    let name = match host.rfind(']') {
        Some(end) => host[..end].trim_start_matches('['),
        None => host.split(':').next().unwrap_or(host),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
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

    #[test]
    fn plain_http_is_the_default_for_loopback_hosts_only() {
        let options = RegistryOptions { certs_dirs: Vec::new(), ..RegistryOptions::default() };
        let scheme = |domain: &str| Endpoint::of(domain, &options).scheme;
        for local in ["localhost", "localhost:5000", "127.0.0.1:5000", "127.1.2.3", "[::1]:5000"] {
            assert_eq!(scheme(local), "http", "{local}");
        }
        for remote in ["docker.io", "quay.io", "localhost.example.com", "10.0.0.1:5000", "[::2]"] {
            assert_eq!(scheme(remote), "https", "{remote}");
        }
        assert_eq!(Endpoint::of("docker.io", &options).host, HUB_HOST);
        let plain = RegistryOptions { plain_http: true, ..options };
        assert_eq!(Endpoint::of("quay.io", &plain).scheme, "http");
    }

    #[test]
    fn credentials_use_plain_http_only_if_the_registry_does() {
        let may = |scheme, realm: &str, plain_http| {
            let endpoint = Endpoint { scheme, host: "registry.example".to_owned() };
            endpoint.may_send_credentials_to(&Url::parse(realm).unwrap(), plain_http)
        };
        assert!(may("https", "https://auth.example/token", false));
        for plain in ["http://auth.example/token", "http://127.0.0.1/token", "http://localhost"] {
            assert!(!may("https", plain, false), "{plain}");
            assert!(!may("https", plain, true), "{plain}");
            assert!(may("http", plain, true), "{plain}");
        }
        assert!(may("http", "http://127.0.0.1:5001/token", false));
        assert!(!may("http", "http://auth.example/token", false));
        assert!(may("http", "https://auth.example/token", false));
    }

    #[test]
    fn origin_of_a_url_omits_password_and_query() {
        let url = Url::parse("http://user:secret@host:81/path?signature=x#y").unwrap();
        assert_eq!(origin(&url), "http://host:81");
    }

    #[test]
    fn loopback_host_with_certificates_uses_https() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("localhost:5000")).unwrap();
        let options =
            RegistryOptions { certs_dirs: vec![dir.path().into()], ..RegistryOptions::default() };
        assert_eq!(Endpoint::of("localhost:5000", &options).scheme, "https");
        assert_eq!(Endpoint::of("localhost:5001", &options).scheme, "http");
    }
}
