//! Docker's config.json (docker/cli cli/config/configfile/file.go) and the variable
//! `DOCKER_AUTH_CONFIG`.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use data_encoding::BASE64;
use serde::Deserialize;

use super::helper::Helpers;
use super::{Credential, CredentialSource, Found, Secret, without_values, wrong};
use crate::registry::RegistryError;

/// The key under which Docker Hub's credentials stand.
const HUB_KEY: &str = "https://index.docker.io/v1/";
const HUB: &str = "docker.io";

/// The part of the file that is about credentials.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase")]
pub struct ConfigFile {
    /// By server.
    #[serde(default)]
    pub auths: HashMap<String, Auth>,
    /// The helper for all servers.
    #[serde(default)]
    pub creds_store: String,
    /// Helpers by server.
    #[serde(default)]
    pub cred_helpers: HashMap<String, String>,
}

/// One entry of `auths`.
#[derive(Deserialize, Default)]
pub struct Auth {
    #[serde(default)]
    auth: String,
    #[serde(default)]
    username: String,
    #[serde(default)]
    password: String,
    #[serde(default)]
    identitytoken: String,
    #[serde(default)]
    registrytoken: String,
}

impl Auth {
    /// What the entry proves; nothing if it is empty, as a helper leaves it.
    ///
    /// # Errors
    /// `auth` is not base64 of `user:password`.
    pub fn credential(&self) -> Result<Option<Credential>, &'static str> {
        if !self.registrytoken.is_empty() {
            return Ok(Some(Credential::Bearer(Secret::new(&self.registrytoken))));
        }
        if !self.identitytoken.is_empty() {
            return Ok(Some(Credential::Identity(Secret::new(&self.identitytoken))));
        }
        let basic = |username: String, password: &str| Credential::Basic {
            username,
            password: Secret::new(password),
        };
        if self.auth.is_empty() {
            return Ok(
                (!self.username.is_empty()).then(|| basic(self.username.clone(), &self.password))
            );
        }
        const BAD: &str = "an 'auth' that is not base64 of user:password";
        let decoded = BASE64.decode(self.auth.trim().as_bytes()).map_err(|_| BAD)?;
        let decoded = String::from_utf8(decoded).map_err(|_| BAD)?;
        let (username, password) =
            decoded.split_once(':').filter(|(user, _)| !user.is_empty()).ok_or(BAD)?;
        Ok(Some(basic(username.to_owned(), password.trim_end_matches('\0'))))
    }
}

/// Returns the error of a file that is there and is not valid JSON of this kind. One that cannot be
/// read is an error only for a registry that asks for credentials.
///
/// # Errors
/// [`RegistryError::Credentials`].
pub fn check(path: &Path) -> Result<(), RegistryError> {
    let Ok(bytes) = fs::read(path) else { return Ok(()) };
    parse(path, &bytes).map(drop)
}

fn parse(path: &Path, bytes: &[u8]) -> Result<ConfigFile, RegistryError> {
    serde_json::from_slice(bytes).map_err(|e| wrong(path.display(), without_values(&e)))
}

/// Reads a file that need not be there.
///
/// # Errors
/// [`RegistryError::Credentials`].
pub fn read(path: &Path) -> Result<Option<ConfigFile>, RegistryError> {
    match fs::read(path) {
        Ok(bytes) => parse(path, &bytes).map(Some),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Ok(None)
        }
        Err(e) => Err(wrong(path.display(), e)),
    }
}

/// `config.json`.
pub struct DockerConfig {
    path: PathBuf,
    helpers: Helpers,
}

impl DockerConfig {
    /// The file at `path`.
    pub fn new(path: PathBuf, helpers: Helpers) -> Self {
        Self { path, helpers }
    }
}

impl CredentialSource for DockerConfig {
    fn find(&self, host: &str, _path: &str) -> Result<Option<Found>, RegistryError> {
        let Some(config) = read(&self.path)? else { return Ok(None) };
        let key = key(host);
        let helper = config
            .cred_helpers
            .get(key)
            .or(Some(&config.creds_store))
            .filter(|name| !name.is_empty());
        match helper {
            // With a helper, what stands in the file is not asked.
            Some(name) => self.helpers.get(name, &self.path, key),
            None => in_auths(&config, host, &self.path.display().to_string()),
        }
    }
}

const VARIABLE: &str = "DOCKER_AUTH_CONFIG";

/// `DOCKER_AUTH_CONFIG`.
pub struct FromEnvironment(Secret);

impl FromEnvironment {
    /// The variable's value.
    pub fn new(json: Secret) -> Self {
        Self(json)
    }

    /// Checks the value.
    ///
    /// # Errors
    /// [`RegistryError::Credentials`] if it is not valid.
    pub fn check(&self) -> Result<(), RegistryError> {
        self.parse().map(drop)
    }

    fn parse(&self) -> Result<ConfigFile, RegistryError> {
        serde_json::from_str(self.0.reveal()).map_err(|e| wrong(VARIABLE, without_values(&e)))
    }
}

impl CredentialSource for FromEnvironment {
    fn find(&self, host: &str, _path: &str) -> Result<Option<Found>, RegistryError> {
        in_auths(&self.parse()?, host, VARIABLE)
    }
}

fn key(host: &str) -> &str {
    if host == HUB { HUB_KEY } else { host }
}

fn in_auths(config: &ConfigFile, host: &str, from: &str) -> Result<Option<Found>, RegistryError> {
    let exact = config.auths.get(key(host));
    let by_host =
        || config.auths.iter().find(|(key, _)| host_of(key) == host).map(|(_, auth)| auth);
    let Some(auth) = exact.or_else(by_host) else { return Ok(None) };
    let credential =
        auth.credential().map_err(|cause| wrong(from, format!("{cause} for {host}")))?;
    Ok(credential.map(|credential| Found { credential, from: from.to_owned() }))
}

/// `https://host/v1/` as `host`.
fn host_of(key: &str) -> &str {
    let key = key.strip_prefix("https://").or_else(|| key.strip_prefix("http://")).unwrap_or(key);
    key.split('/').next().unwrap_or(key)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(json: &str, host: &str) -> Result<Option<Credential>, RegistryError> {
        let found = FromEnvironment::new(Secret::new(json)).find(host, "a/b")?;
        Ok(found.map(|found| found.credential))
    }

    fn basic(username: &str, password: &str) -> Credential {
        Credential::Basic { username: username.into(), password: Secret::new(password) }
    }

    #[test]
    fn entry_is_found_by_host_or_url() {
        let json = r#"{"auths":{"https://index.docker.io/v1/":{"auth":"aHViOmE6Yg=="},
            "https://host:5000/v1/":{"auth":"dTpwAA=="},"tok":{"identitytoken":"t"},"reg":{"registrytoken":"r"}}}"#;
        assert_eq!(find(json, "docker.io").unwrap(), Some(basic("hub", "a:b")));
        assert_eq!(find(json, "host:5000").unwrap(), Some(basic("u", "p")));
        assert_eq!(find(json, "host").unwrap(), None);
        assert_eq!(find(json, "tok").unwrap(), Some(Credential::Identity(Secret::new("t"))));
        assert_eq!(find(json, "reg").unwrap(), Some(Credential::Bearer(Secret::new("r"))));
        let error = find(r#"{"auths":{"h":{"auth":"!"}}}"#, "h").unwrap_err().to_string();
        assert!(error.contains("base64 of user:password for h"), "{error}");
    }

    #[test]
    fn value_of_the_wrong_type_is_not_shown() {
        for json in [r#"{"auths":{"h":"hunter2"}}"#, r#"{"auths":{"h":{"auth":["hunter2"]}}}"#] {
            let error = find(json, "h").unwrap_err().to_string();
            assert!(error.contains("a value has the wrong type at line 1 column"), "{error}");
        }
    }

    #[test]
    fn credential_in_debug_output_shows_no_secret() {
        let shown = format!("{:?}", basic("user", "hunter2"));
        assert!(shown.contains("user") && !shown.contains("hunter2"), "{shown}");
    }
}
