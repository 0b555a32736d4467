//! Credentials given by flags or by `RPULL_USERNAME`, `RPULL_PASSWORD`, `RPULL_TOKEN`.

use super::{Credential, CredentialSource, Found, Secret};
use crate::registry::RegistryError;

/// Credentials for every registry of the command.
#[derive(Debug, Clone, Default)]
pub struct Explicit(Option<Credential>);

impl Explicit {
    /// A user and a password.
    pub fn basic(username: String, password: Secret) -> Self {
        Self(Some(Credential::Basic { username, password }))
    }

    /// A token that is sent as it is.
    pub fn bearer(token: Secret) -> Self {
        Self(Some(Credential::Bearer(token)))
    }
}

impl CredentialSource for Explicit {
    fn find(&self, _host: &str, _path: &str) -> Result<Option<Found>, RegistryError> {
        let found =
            |credential| Found { credential, from: "the flags or RPULL_* variables".to_owned() };
        Ok(self.0.clone().map(found))
    }
}
