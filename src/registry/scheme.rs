//! Whether a registry is contacted over HTTPS or over plain HTTP.
//!
//! Registries use HTTPS. The exceptions are loopback hosts and those for which the user allows it
//! (`--insecure`): HTTPS is tried first, and plain HTTP is used if the port does not speak TLS, as
//! Docker does. The result is kept for all requests of the client. A port that completes a TLS
//! handshake uses HTTPS, however long its responses take.
//!
//! No credential can leave over plain HTTP by mistake: they are sent only after a challenge, and a
//! port that speaks TLS cannot send one over plain HTTP.

use std::io;

use super::body::{self, TransferError};
use super::endpoint::{Endpoint, HUB_HOST, is_loopback};
use super::error::RegistryError;
use super::host::Clients;
use super::tls_problem::{TlsProblem, find};
use crate::reference::DOCKER_HUB;

impl Clients {
    /// Returns the endpoint for `domain` of a reference.
    ///
    /// # Errors
    /// [`RegistryError::Certificates`] if the host's certificates are invalid.
    pub async fn endpoint(&self, domain: &str) -> Result<Endpoint, RegistryError> {
        let host = if domain == DOCKER_HUB { HUB_HOST } else { domain };
        let with = |scheme| Endpoint { scheme, host: host.to_owned() };
        if self.options().plain_http {
            return Ok(with("http"));
        }
        let unverified = is_loopback(host) && self.certs_dir(host).is_none();
        if !unverified && !self.is_insecure(host) {
            return Ok(with("https"));
        }
        let cell = self.endpoint_cell(domain);
        let tried = cell.get_or_try_init(|| async {
            let speaks_tls = self.try_tls(&with("https")).await.map_err(Some)?;
            Ok(with(if speaks_tls.ok_or(None)? { "https" } else { "http" }))
        });
        match tried.await {
            Ok(endpoint) => Ok(endpoint.clone()),
            Err(Some(error)) => Err(error),
            // The request will tell why there is no connection. The next one tries TLS again.
            Err(None) => Ok(with("http")),
        }
    }

    /// Requests `/v2/` over HTTPS. Returns whether the port speaks TLS, `None` if there was no
    /// connection to tell it. A port without TLS receives no HTTP request.
    async fn try_tls(&self, endpoint: &Endpoint) -> Result<Option<bool>, RegistryError> {
        let url = endpoint.url("")?;
        let (request, peer) = (self.client(&url)?.get(url.clone()), self.peer(&url));
        let speaks_tls = match body::send(request, &peer).await {
            Err(TransferError::Http(error)) => speaks_tls(&error),
            // A stall comes after the handshake, whose limit is lower.
            Ok(_) | Err(_) => Some(true),
        };
        if speaks_tls == Some(false) {
            tracing::info!("{} does not speak TLS: plain HTTP is used", endpoint.host);
        }
        Ok(speaks_tls)
    }
}

/// Returns whether the port of a failed request over HTTPS speaks TLS, `None` if there was no
/// connection.
fn speaks_tls(error: &reqwest::Error) -> Option<bool> {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof};
    match TlsProblem::of(error, true) {
        Some(problem) => Some(problem != TlsProblem::NotTls),
        None if !error.is_connect() => Some(true),
        // It accepted the connection and stayed silent.
        None if error.is_timeout() => Some(false),
        None => {
            let closed = [BrokenPipe, ConnectionAborted, ConnectionReset, UnexpectedEof];
            let mut causes = find::<io::Error>(error);
            causes.any(|cause| closed.contains(&cause.kind())).then_some(false)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::options::RegistryOptions;
    use super::*;

    #[tokio::test]
    async fn scheme_is_https_except_with_plain_http() {
        let endpoint = async |domain: &str, plain_http| {
            let options = RegistryOptions {
                plain_http,
                certs_dirs: Vec::new(),
                ..RegistryOptions::default()
            };
            Clients::new(options).endpoint(domain).await.unwrap()
        };
        for remote in ["docker.io", "quay.io", "localhost.example.com", "10.0.0.1:5000", "[::2]"] {
            assert_eq!(endpoint(remote, false).await.scheme, "https", "{remote}");
            assert_eq!(endpoint(remote, true).await.scheme, "http", "{remote}");
        }
        assert_eq!(endpoint("docker.io", false).await.host, HUB_HOST);
        // A loopback port that nothing listens on is not known to speak TLS.
        for local in ["localhost:1", "127.0.0.1:1", "127.1.2.3:1", "[::1]:1"] {
            assert_eq!(endpoint(local, false).await.scheme, "http", "{local}");
        }
    }
}
