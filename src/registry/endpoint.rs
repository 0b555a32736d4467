//! The endpoint of a registry's name.

use std::net::IpAddr;

use reqwest::Url;

use super::credentials::CredentialHost;
use super::error::RegistryError;
use crate::reference::DOCKER_HUB;

/// Docker Hub's registry (moby registry/config.go).
pub const HUB_HOST: &str = "registry-1.docker.io";

/// The scheme and host that serve a registry's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// `http` or `https`.
    pub scheme: &'static str,
    /// `host[:port]`.
    pub host: String,
}

impl Endpoint {
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

/// Returns `host[:port]` without the port and without the brackets of an IPv6 address.
pub fn name(host: &str) -> &str {
    match host.rfind(']') {
        Some(end) => host[..end].trim_start_matches('['),
        None => host.split(':').next().unwrap_or(host),
    }
}

/// Returns whether `host[:port]` is a loopback address.
pub fn is_loopback(host: &str) -> bool {
    let name = name(host);
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback())
}

/// Returns whether `listed`, `host[:port]` of which each without a port stands for all ports of
/// its host, contains `host[:port]`.
pub fn contains(listed: &[String], host: &str) -> bool {
    listed.iter().any(|entry| {
        let entry = if entry == DOCKER_HUB { HUB_HOST } else { entry };
        let all_ports = name(entry).len() == entry.trim_matches(['[', ']']).len();
        entry.eq_ignore_ascii_case(host)
            || all_ports && name(entry).eq_ignore_ascii_case(name(host))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn origin_of_a_url_omits_password_and_query() {
        let url = Url::parse("http://user:secret@host:81/path?signature=x#y").unwrap();
        assert_eq!(origin(&url), "http://host:81");
    }

    #[test]
    fn listed_host_without_a_port_stands_for_all_its_ports() {
        let is = |entry: &str, host: &str| contains(&[entry.to_owned()], host);
        for (entry, host) in [
            ("registry.lan", "registry.lan"),
            ("registry.lan", "registry.lan:5000"),
            ("Registry.LAN:5000", "registry.lan:5000"),
            ("[::1]", "[::1]:5000"),
            ("[::1]:5000", "[::1]:5000"),
            ("10.0.0.1", "10.0.0.1:443"),
            ("docker.io", HUB_HOST),
        ] {
            assert!(is(entry, host), "{entry} {host}");
        }
        for (entry, host) in [
            ("registry.lan:5000", "registry.lan"),
            ("registry.lan:5000", "registry.lan:5001"),
            ("registry.lan", "other.registry.lan"),
            ("lan", "registry.lan"),
            ("[::1]:5000", "[::1]:5001"),
            ("[::1]", "[::2]"),
            ("", "registry.lan"),
        ] {
            assert!(!is(entry, host), "{entry} {host}");
        }
    }
}
