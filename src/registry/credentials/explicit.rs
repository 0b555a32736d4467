//! Credentials that the program was given itself.

use super::{CredentialSource, Found};
use crate::registry::RegistryError;

/// One credential for every registry, or none.
#[derive(Debug, Clone, Default)]
pub struct Explicit(Option<Found>);

impl Explicit {
    /// The credential `found`.
    pub fn new(found: Found) -> Self {
        Self(Some(found))
    }

    /// Returns whether there is one.
    pub fn is_given(&self) -> bool {
        self.0.is_some()
    }
}

impl CredentialSource for Explicit {
    fn find(&self, _host: &str, _path: &str) -> Result<Option<Found>, RegistryError> {
        Ok(self.0.clone())
    }
}
