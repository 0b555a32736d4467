//! Errors of requests to registries.

use std::error::Error;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use super::tls_problem::TlsProblem;
use crate::digest::Digest;

/// The error of a request to a registry. URLs in it have no query, which can contain signatures.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// No connection, or it broke, or bytes stopped coming.
    #[error("{cause}: {host}")]
    Network {
        /// The host and port.
        host: String,
        /// What happened, in plain words.
        #[source]
        cause: Cause,
        /// Whether the host is unreachable: connection refused or DNS failure.
        down: bool,
        /// The variable that names the proxy, if the connection goes through one.
        proxy: Option<String>,
    },
    /// A host that answered before has been silent for too long.
    #[error("{cause}: {host}; it has sent nothing for {} seconds", silent_for.as_secs())]
    Outage {
        /// The host and port.
        host: String,
        /// Why the last attempt failed.
        #[source]
        cause: Cause,
        /// The time since the first attempt that failed.
        silent_for: Duration,
    },
    /// The host's certificate is not trusted, or it rejected the client certificate, or one side
    /// does not speak TLS.
    #[error("{}", problem.sentence(host, cause))]
    Tls {
        /// The host and port.
        host: String,
        /// Why.
        problem: TlsProblem,
        /// The directory for certificates of this host. It may not exist yet.
        certs_dir: Option<PathBuf>,
        /// All causes in a row.
        #[source]
        cause: Cause,
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
    /// The registry denies a push with these credentials, or without any.
    #[error("push access denied for {repository}: {message}")]
    PushDenied {
        /// The repository.
        repository: String,
        /// The registry's word.
        message: String,
    },
    /// The registry refuses what is pushed, for example because it is too large or the registry is
    /// read-only.
    #[error("{host} refuses the push with status {status}: {message}")]
    PushRefused {
        /// The host.
        host: String,
        /// The HTTP status.
        status: u16,
        /// The registry's word.
        message: String,
    },
    /// The bytes to upload could not be read. Their source knows why.
    #[error("the content to push cannot be read")]
    Source,
    /// The token was rejected during an upload, and there is a new one.
    #[error("the registry rejects its token server's tokens")]
    Renewed,
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
        /// Its word, or why there is none.
        #[source]
        message: Cause,
        /// Its status, 0 if it did not answer.
        status: u16,
    },
    /// Credentials would have gone to a token server over plain HTTP, or without a verification of
    /// its certificate. They were not sent.
    #[error(
        "{host} names the token server {realm}, {}: credentials are not sent there",
        if realm.starts_with("https:") { "whose certificate is not verified" } else { "which uses plain HTTP" }
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
        #[source]
        cause: Cause,
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
    /// A web page in place of what a registry sends: the login page of a network, or a host that is
    /// not a registry.
    #[error("{host} answered with {content_type}, not with {expected}: '{text}'")]
    Html {
        /// The host and port.
        host: String,
        /// The content type of the response.
        content_type: String,
        /// What was requested: `a manifest`.
        expected: &'static str,
        /// The title of the page or its first words.
        text: String,
    },
    /// A variable of the environment that is to name a proxy and does not.
    #[error("invalid proxy URL in {variable}: {cause}")]
    Proxy {
        /// The variable.
        variable: String,
        /// What is wrong with its value, which can contain a password.
        cause: String,
    },
    /// A program that is to have the credentials is not there.
    #[error("{program} is not in PATH, and {file} asks for it")]
    NoHelper {
        /// The program: `docker-credential-NAME`.
        program: String,
        /// The file that names it.
        file: String,
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
        #[source]
        cause: Cause,
    },
    /// A task of the registry client panicked: a bug in rpull.
    #[error("internal error: {0}")]
    Internal(String),
}

impl RegistryError {
    /// Returns this error of a request without an answer as the end of an outage of `host`.
    pub(super) fn into_outage(self, host: &str, silent_for: Duration) -> Self {
        match self {
            Self::Network { cause, .. } | Self::Token { message: cause, .. } => {
                Self::Outage { host: host.to_owned(), cause, silent_for }
            }
            other => other,
        }
    }

    /// Returns the error of a [`CredentialSource`](super::CredentialSource) that cannot be read.
    /// `from` names the source, such as a file or a program.
    pub fn credentials(
        from: impl Into<String>,
        cause: impl Into<Box<dyn Error + Send + Sync>>,
    ) -> Self {
        let error: Arc<dyn Error + Send + Sync> = Arc::from(cause.into());
        let cause = Cause { text: error.to_string(), source: Some(error) };
        Self::Credentials { from: from.into(), cause }
    }
}

/// The cause of an error in one line. `source()` is the error that it was made of, if there was
/// one.
#[derive(Debug, Clone)]
pub struct Cause {
    text: String,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl Cause {
    /// Joins the texts of `error` and its sources, each once.
    pub(super) fn of(error: impl Error + Send + Sync + 'static) -> Self {
        let mut text = Vec::new();
        let mut cause: Option<&dyn Error> = Some(&error);
        while let Some(error) = cause {
            let said = error.to_string();
            if !text.iter().any(|known: &String| known.contains(&said)) {
                text.push(said);
            }
            cause = error.source();
        }
        Self { text: text.join(": "), source: Some(Arc::new(error)) }
    }

    /// Replaces the text, and keeps the error that it was made of.
    pub(super) fn lead_with(self, text: String) -> Self {
        Self { text, ..self }
    }

    /// Returns the cause of a failure in the HTTP client, without the URL, which can hold a
    /// signature.
    pub(super) fn of_http(error: reqwest::Error) -> Self {
        Self::of(error.without_url())
    }
}

impl From<String> for Cause {
    fn from(text: String) -> Self {
        Self { text, source: None }
    }
}

impl From<&str> for Cause {
    fn from(text: &str) -> Self {
        text.to_owned().into()
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Cause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

/// Returns the error of a request to `host` that was not answered.
pub(super) fn of_request(host: &str, error: reqwest::Error) -> RegistryError {
    let (connecting, timed_out) = (error.is_connect(), error.is_timeout());
    let host = host.to_owned();
    let problem = TlsProblem::of(&error, connecting);
    let cause = Cause::of_http(error);
    match problem {
        Some(problem) => RegistryError::Tls { host, problem, certs_dir: None, cause },
        None => RegistryError::Network { host, cause, down: connecting && !timed_out, proxy: None },
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn cause_shows_each_text_once_and_leads_to_its_error() {
        let cause = Cause::of(io::Error::other(RegistryError::credentials("f", "no such file")));
        assert_eq!(cause.to_string(), "cannot read credentials from f: no such file");
        assert!(cause.source().is_some_and(|source| source.is::<io::Error>()));
        assert!(Cause::from("text").source().is_none());
    }
}
