//! The auth.json of podman, skopeo and buildah (containers-auth.json(5)): like config.json,
//! but a key may be a host, a namespace or a repository, and the longest wins.

use std::path::PathBuf;

use super::docker_config::{self, ConfigFile};
use super::helper::Helpers;
use super::{CredentialSource, Found, wrong};
use crate::registry::RegistryError;

/// The key under which Docker's own tools keep Docker Hub's credentials.
const LEGACY_HUB: &str = "https://index.docker.io/v1/";

/// An auth.json.
pub struct AuthFile {
    path: PathBuf,
    required: bool,
    helpers: Helpers,
}

impl AuthFile {
    /// The file at `path`; if it was named, it must be there.
    pub fn new(path: PathBuf, required: bool, helpers: Helpers) -> Self {
        Self { path, required, helpers }
    }

    fn in_auths(&self, config: &ConfigFile, key: &str) -> Result<Option<Found>, RegistryError> {
        let Some(auth) = config.auths.get(key) else { return Ok(None) };
        let from = self.path.display().to_string();
        let credential =
            auth.credential().map_err(|cause| wrong(&from, format!("{cause} for {key}")))?;
        Ok(credential.map(|credential| Found { credential, from }))
    }
}

impl CredentialSource for AuthFile {
    fn find(&self, host: &str, path: &str) -> Result<Option<Found>, RegistryError> {
        let config = match docker_config::read(&self.path)? {
            Some(config) => config,
            None if self.required => {
                return Err(wrong(self.path.display(), "there is no such file"));
            }
            None => return Ok(None),
        };
        if let Some(name) = config.cred_helpers.get(host) {
            return self.helpers.get(name, &self.path, host);
        }
        let whole = format!("{host}/{path}");
        let mut key = whole.as_str();
        loop {
            if let Some(found) = self.in_auths(&config, key)? {
                return Ok(Some(found));
            }
            match key.rfind('/') {
                Some(slash) => key = &key[..slash],
                None if host == "docker.io" => return self.in_auths(&config, LEGACY_HUB),
                None => return Ok(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::Credential;
    use super::*;

    #[test]
    fn entry_with_the_longest_key_is_used() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("auth.json");
        let json = r#"{"auths":{"h":{"auth":"aDp4"},"h/ns":{"auth":"bnM6eA=="},"h/ns/repo":{"auth":"cmVwbzp4"}}}"#;
        std::fs::write(&path, json).unwrap();
        let file =
            AuthFile::new(path, true, Helpers::new(None, std::time::Duration::from_secs(60)));
        let user = |repository: &str| match file.find("h", repository).unwrap().unwrap().credential
        {
            Credential::Basic { username, .. } => username,
            other => panic!("{other:?}"),
        };
        assert_eq!(user("ns/repo"), "repo");
        assert_eq!(user("ns/other"), "ns");
        assert_eq!(user("ns/repository"), "ns");
        assert_eq!(user("x"), "h");
        assert_eq!(file.find("g", "x").unwrap(), None);
        let missing = AuthFile::new(
            dir.path().join("none"),
            true,
            Helpers::new(None, std::time::Duration::from_secs(60)),
        );
        assert!(missing.find("h", "x").is_err());
    }
}
