//! Who we are at a registry: a chain of small sources, the first answer wins.
//!
//! Credentials are looked up by the host that is contacted, and only when it asks for them.
//! The order is: flags and `RPULL_*`, `DOCKER_AUTH_CONFIG`, the containers tools' auth.json
//! if it is named, Docker's config.json, auth.json where those tools look for it.

mod auth_file;
mod docker_config;
mod explicit;
mod helper;

use std::fmt;
use std::path::PathBuf;

use super::{RegistryError, RegistryOptions};

pub use explicit::Explicit;

/// A text that must not be shown.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret(String);

impl Secret {
    /// Hides `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text, for the one place that sends it.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("<redacted>")
    }
}

/// What proves who we are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// A user and a password.
    Basic {
        /// The user.
        username: String,
        /// The password.
        password: Secret,
    },
    /// An OAuth2 refresh token, exchanged for each scope.
    Identity(Secret),
    /// A token that is sent as it is.
    Bearer(Secret),
}

/// A credential and where it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// What proves who we are.
    pub credential: Credential,
    /// The flag, file or helper, for people.
    pub from: String,
}

/// One place that may know credentials.
pub trait CredentialSource: Send + Sync {
    /// The credential for `repository` (`host[:port]/path`, Docker Hub's host being
    /// `docker.io`), if this source has one. May block.
    ///
    /// # Errors
    /// [`RegistryError::Credentials`] if the source is there and cannot be read.
    fn find(&self, host: &str, path: &str) -> Result<Option<Found>, RegistryError>;
}

/// Where the files with credentials are.
#[derive(Debug, Clone, Default)]
pub struct Sources {
    /// `DOCKER_AUTH_CONFIG`: JSON like config.json's.
    pub docker_auth_config: Option<Secret>,
    /// An auth.json that was named (`--auth-file`, `REGISTRY_AUTH_FILE`).
    pub auth_file: Option<PathBuf>,
    /// Docker's config.json.
    pub docker_config: Option<PathBuf>,
    /// auth.json where podman and skopeo look for it.
    pub default_auth_files: Vec<PathBuf>,
    /// Where helpers are looked for before `PATH`.
    pub helper_dir: Option<PathBuf>,
}

impl Sources {
    /// The places that the environment names.
    pub fn of_environment() -> Self {
        let path = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
        let home = path("HOME");
        let below_home = |below: &str| home.as_ref().map(|home| home.join(below));
        let docker_dir = path("DOCKER_CONFIG").or_else(|| below_home(".docker"));
        let config_dir = path("XDG_CONFIG_HOME").or_else(|| below_home(".config"));
        let auth_files = [path("XDG_RUNTIME_DIR"), config_dir].into_iter().flatten();
        Self {
            docker_auth_config: std::env::var("DOCKER_AUTH_CONFIG")
                .ok()
                .filter(|v| !v.is_empty())
                .map(Secret::new),
            auth_file: path("REGISTRY_AUTH_FILE"),
            docker_config: docker_dir.map(|dir| dir.join("config.json")),
            default_auth_files: auth_files.map(|dir| dir.join("containers/auth.json")).collect(),
            helper_dir: None,
        }
    }
}

/// The chain of all sources, in order.
pub fn chain(options: &RegistryOptions) -> Vec<Box<dyn CredentialSource>> {
    let (explicit, sources) = (&options.explicit, &options.sources);
    let helpers = helper::Helpers::new(sources.helper_dir.clone(), options.helper_timeout);
    let auth_file = |path: &PathBuf, required| {
        auth_file::AuthFile::new(path.clone(), required, helpers.clone())
    };
    let mut chain: Vec<Box<dyn CredentialSource>> = vec![Box::new(explicit.clone())];
    if let Some(json) = &sources.docker_auth_config {
        chain.push(Box::new(docker_config::FromEnvironment::new(json.clone())));
    }
    if let Some(path) = &sources.auth_file {
        chain.push(Box::new(auth_file(path, true)));
    }
    if let Some(path) = &sources.docker_config {
        chain.push(Box::new(docker_config::DockerConfig::new(path.clone(), helpers.clone())));
    }
    for path in &sources.default_auth_files {
        chain.push(Box::new(auth_file(path, false)));
    }
    chain
}

/// Asks the sources in turn.
///
/// # Errors
/// The first error of a source that comes before an answer.
pub fn find(
    chain: &[Box<dyn CredentialSource>],
    host: &str,
    path: &str,
) -> Result<Option<Found>, RegistryError> {
    chain.iter().find_map(|source| source.find(host, path).transpose()).transpose()
}

fn wrong(from: impl fmt::Display, cause: impl fmt::Display) -> RegistryError {
    RegistryError::Credentials { from: from.to_string(), cause: cause.to_string() }
}
