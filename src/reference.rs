//! Names of images.

use std::fmt;
use std::str::FromStr;

use crate::digest::Digest;

/// A normalised image name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    domain: String,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// Why a text is no [`Reference`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid reference format")]
pub struct ReferenceError;

impl Reference {
    /// `docker.io` for Docker Hub, else `host[:port]`.
    pub fn domain(&self) -> &str {
        &self.domain
    }
    /// The repository's path on its registry: `library/nginx`.
    pub fn path(&self) -> &str {
        &self.path
    }
    /// The tag, if one was given.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }
    /// The digest, if one was given. It wins over a tag.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }
}

impl fmt::Display for Reference {
    fn fmt(&self, _f: &mut fmt::Formatter<'_>) -> fmt::Result {
        todo!()
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;
    fn from_str(_text: &str) -> Result<Self, ReferenceError> {
        todo!()
    }
}
