//! Credentials for registries: a chain of sources, of which the first that has any is used.
//!
//! Credentials are looked up by the host that is contacted, and only when it asks for them.
//! The order is: those given explicitly, the program's own sources, `DOCKER_AUTH_CONFIG`, the
//! containers tools' auth.json if it is named, Docker's config.json, auth.json where those tools
//! look for it.

mod auth_file;
mod docker_config;
mod explicit;
mod helper;

use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

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

/// A credential for a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
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
    /// The credential.
    pub credential: Credential,
    /// The flag, file or program that it came from, for messages.
    pub from: String,
}

/// A source of credentials, such as a file, a helper program or a secret manager.
///
/// A client asks its sources one after the other, and only when a registry asks for credentials;
/// the first that has any is used. One client asks at most once per repository, unless a request
/// for a token failed before.
///
/// ```
/// use rpull::credentials::{Credential, CredentialSource, Found, Secret};
/// use rpull::error::RegistryError;
///
/// /// One password for one registry.
/// struct Fixed(Secret);
///
/// impl CredentialSource for Fixed {
///     fn find(&self, host: &str, _path: &str) -> Result<Option<Found>, RegistryError> {
///         let credential = Credential::Basic { username: "ci".into(), password: self.0.clone() };
///         Ok((host == "registry.example").then(|| Found::new(credential, "the vault")))
///     }
/// }
///
/// let source = Fixed(Secret::new("..."));
/// let client = rpull::Client::builder().credential_source(source).build();
/// ```
pub trait CredentialSource: Send + Sync {
    /// Returns the credential for the repository `path` of the registry `host` (`name[:port]`;
    /// Docker Hub is `docker.io`), or `None` if this source has none. It is called on a thread
    /// that may block.
    ///
    /// # Errors
    /// [`RegistryError::credentials`] if the source exists and cannot be read. It ends the pull:
    /// sources that come later are not asked.
    fn find(&self, host: &str, path: &str) -> Result<Option<Found>, RegistryError>;
}

impl<T: CredentialSource + ?Sized> CredentialSource for Arc<T> {
    fn find(&self, host: &str, path: &str) -> Result<Option<Found>, RegistryError> {
        T::find(self, host, path)
    }
}

/// Sources that a program adds.
#[derive(Clone, Default)]
pub struct CustomSources(Vec<Arc<dyn CredentialSource>>);

impl CustomSources {
    /// Adds a source, which is asked after those that were added before.
    pub fn push(&mut self, source: impl CredentialSource + 'static) {
        self.0.push(Arc::new(source));
    }
}

impl fmt::Debug for CustomSources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} sources", self.0.len())
    }
}

impl Found {
    /// A credential that came from `from`.
    pub fn new(credential: Credential, from: impl Into<String>) -> Self {
        Self { credential, from: from.into() }
    }
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
    /// The places that the environment names; `variable` returns the value of a variable that
    /// is not empty.
    pub(super) fn from_variables(variable: &impl Fn(&str) -> Option<OsString>) -> Self {
        let path = |name: &str| variable(name).map(PathBuf::from);
        let home = path("HOME");
        let below_home = |below: &str| home.as_ref().map(|home| home.join(below));
        let docker_dir = path("DOCKER_CONFIG").or_else(|| below_home(".docker"));
        let config_dir = path("XDG_CONFIG_HOME").or_else(|| below_home(".config"));
        let auth_files = [path("XDG_RUNTIME_DIR"), config_dir].into_iter().flatten();
        let docker_auth_config = variable("DOCKER_AUTH_CONFIG").and_then(|v| v.into_string().ok());
        Self {
            docker_auth_config: docker_auth_config.map(Secret::new),
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
    for source in &options.custom.0 {
        chain.push(Box::new(source.clone()));
    }
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

/// Checks the files with credentials, also for registries that ask for none: a user whose
/// credentials are ignored gets wrong answers. Nothing is checked if a credential was given
/// explicitly.
///
/// # Errors
/// [`RegistryError::Credentials`] if one is not valid.
pub fn check(options: &RegistryOptions) -> Result<(), RegistryError> {
    let sources = &options.sources;
    let files = sources.auth_file.iter().chain(&sources.docker_config);
    let mut files = files.chain(&sources.default_auth_files);
    if options.explicit.is_given() {
        return Ok(());
    }
    if let Some(json) = &sources.docker_auth_config {
        docker_config::FromEnvironment::new(json.clone()).check()?;
    }
    files.try_for_each(|path| docker_config::check(path))
}

/// The host for which credentials are looked up: the one that is contacted. The domain of a
/// reference is not one, because a mirror can serve it. Only an endpoint makes one
/// (`Endpoint::credential_host`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CredentialHost(String);

impl CredentialHost {
    /// The name under which credentials for a contacted host are stored.
    pub(super) fn of_endpoint(name: &str) -> Self {
        Self(name.to_owned())
    }
}

/// Asks the sources in turn.
///
/// # Errors
/// The first error of a source that comes before an answer.
pub fn find(
    chain: &[Box<dyn CredentialSource>],
    host: &CredentialHost,
    path: &str,
) -> Result<Option<Found>, RegistryError> {
    chain.iter().find_map(|source| source.find(&host.0, path).transpose()).transpose()
}

fn wrong(
    from: impl fmt::Display,
    cause: impl Into<Box<dyn std::error::Error + Send + Sync>>,
) -> RegistryError {
    RegistryError::credentials(from.to_string(), cause)
}

/// Describes an error of the JSON without the values in it, which may be secrets.
pub fn without_values(error: &serde_json::Error) -> String {
    match error.classify() {
        serde_json::error::Category::Data => {
            let (line, column) = (error.line(), error.column());
            format!("a value has the wrong type at line {line} column {column}")
        }
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod fuzz;
