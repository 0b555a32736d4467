//! Errors of requests to registries.

use std::time::Duration;

use crate::digest::Digest;

/// The error of a request to a registry. URLs in it have no query, which can contain signatures.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// No connection, or it broke, or bytes stopped coming.
    #[error("cannot reach {host}: {cause}")]
    Network {
        /// The host and port.
        host: String,
        /// All causes in a row.
        cause: String,
        /// Whether the host is unreachable: connection refused or DNS failure.
        down: bool,
    },
    /// The host's certificate is not trusted, or it rejected the client certificate.
    #[error("no trusted TLS connection to {host}: {cause}")]
    Tls {
        /// The host and port.
        host: String,
        /// All causes in a row.
        cause: String,
    },
    /// It is not there.
    #[error("{what} not found: {message}")]
    NotFound {
        /// `manifest for nginx:nope`.
        what: String,
        /// The registry's word.
        message: String,
    },
    /// The registry denies access with these credentials, or without any.
    #[error(
        "pull access denied for {repository}, repository does not exist or may require a login: {message}"
    )]
    Denied {
        /// The repository.
        repository: String,
        /// The registry's word.
        message: String,
    },
    /// The credentials are wrong, or there are none.
    #[error("unauthorized at {host}: {message}")]
    Unauthorized {
        /// The host that wants credentials.
        host: String,
        /// The registry's word.
        message: String,
        /// Where the credentials came from, if any were sent.
        source_of: Option<String>,
    },
    /// The token server did not give a token.
    #[error("cannot get a token from {realm}: {message}")]
    Token {
        /// The token server, without user, password and query.
        realm: String,
        /// Its word.
        message: String,
        /// Its status, 0 if it did not answer.
        status: u16,
    },
    /// Credentials would have gone to a token server over plain HTTP. They were not sent.
    #[error(
        "{host} names the token server {realm}, which uses plain HTTP: credentials are not sent there"
    )]
    InsecureRealm {
        /// The registry's host and port.
        host: String,
        /// The token server, without user, password and query.
        realm: String,
        /// Whether the registry itself was contacted over HTTPS.
        https: bool,
    },
    /// A redirect would have left HTTPS. It was not followed.
    #[error("{host} redirects to {target}, from HTTPS to plain HTTP: the redirect is not followed")]
    InsecureRedirect {
        /// The host and port that sent the redirect.
        host: String,
        /// Scheme, host and port that it leads to.
        target: String,
    },
    /// Credentials could not be looked up.
    #[error("cannot read credentials from {from}: {cause}")]
    Credentials {
        /// The file or helper.
        from: String,
        /// What is wrong.
        cause: String,
    },
    /// Too many requests.
    #[error("{host} limits requests: {message}")]
    RateLimited {
        /// The host.
        host: String,
        /// The registry's word, and its limits where it names them.
        message: String,
        /// When to come again.
        retry_after: Option<Duration>,
    },
    /// Any other status.
    #[error("{host} returned status {status}: {message}")]
    Status {
        /// The host.
        host: String,
        /// The HTTP status.
        status: u16,
        /// The registry's word.
        message: String,
        /// When to come again.
        retry_after: Option<Duration>,
    },
    /// The bytes are not those of the digest.
    #[error("digest mismatch: {what} has {actual}, expected {expected}")]
    Digest {
        /// The manifest or config.
        what: String,
        /// What was asked for.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// There are more or fewer bytes than promised.
    #[error("size mismatch: {what} has {actual} bytes, expected {expected}")]
    Size {
        /// The blob.
        what: String,
        /// Bytes the descriptor promised.
        expected: u64,
        /// Bytes that came or were announced.
        actual: u64,
    },
    /// A document that no honest image has.
    #[error("{what} is larger than {limit} bytes")]
    TooLarge {
        /// The document.
        what: String,
        /// The bound, in bytes.
        limit: u64,
    },
    /// An answer that breaks the protocol.
    #[error("invalid response from {host}: {what}")]
    Protocol {
        /// The host.
        host: String,
        /// How.
        what: String,
    },
    /// A certificate directory that cannot be used.
    #[error("cannot use the certificates in {dir}: {cause}")]
    Certificates {
        /// The directory.
        dir: String,
        /// What is wrong.
        cause: String,
    },
    /// A task of the registry client panicked: a bug in rpull.
    #[error("internal error: {0}")]
    Internal(String),
}

/// All causes of an error in one line, without URLs.
pub(super) fn causes(error: reqwest::Error) -> String {
    let error = error.without_url();
    let mut text = Vec::new();
    let mut cause: Option<&dyn std::error::Error> = Some(&error);
    while let Some(error) = cause {
        let said = error.to_string();
        if !text.iter().any(|known: &String| known.contains(&said)) {
            text.push(said);
        }
        cause = error.source();
    }
    text.join(": ")
}

/// What a failed request was.
pub(super) fn of_request(host: &str, error: reqwest::Error) -> RegistryError {
    let connecting = error.is_connect();
    let timed_out = error.is_timeout();
    let cause = causes(error);
    let host = host.to_owned();
    let lower = cause.to_ascii_lowercase();
    if connecting
        && (lower.contains("certificate") || lower.contains("tls") || lower.contains("alert"))
    {
        return RegistryError::Tls { host, cause };
    }
    RegistryError::Network { host, cause, down: connecting && !timed_out }
}
