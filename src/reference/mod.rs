//! References to images, by Docker's grammar and normalisation.
//!
//! ```text
//! reference       := name [ ":" tag ] [ "@" digest ]
//! name            := [ domain "/" ] path
//! domain          := host [ ":" port ]
//! host            := domain-component *( "." domain-component ) | "[" IPv6 "]"
//! domain-component:= alnum | alnum *( alnum | "-" ) alnum
//! path            := component *( "/" component )
//! component       := alnum *( separator alnum )          lower case only
//! separator       := "." | "_" | "__" | 1*"-"
//! tag             := word *127( word | "." | "-" )
//! digest          := "sha256:" 64 * lower-case hex
//! ```
//!
//! The source is distribution/reference (`regexp.go`, `normalize.go`): a name without a domain
//! is on Docker Hub, and one without a slash is there below `library/`.

mod grammar;
mod query;

use std::fmt;
use std::str::FromStr;

use crate::digest::{Digest, DigestError};

pub use query::Query;

/// Docker Hub's domain in normalised references.
pub const DOCKER_HUB: &str = "docker.io";

/// The tag of a reference without tag and digest.
const DEFAULT_TAG: &str = "latest";

/// A repository on a registry, with the versions of an image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Repository {
    domain: String,
    path: String,
}

/// A normalised reference. Displayed in the familiar form: `nginx`, `host:5000/a/b:t`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    repository: Repository,
    tag: Option<String>,
    digest: Option<Digest>,
}

/// The error for an invalid [`Reference`].
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid reference '{input}': {reason}")]
pub struct ReferenceError {
    /// The whole text.
    pub input: String,
    /// The part that is invalid.
    pub reason: Reason,
}

/// The invalid part of a reference.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Reason {
    /// The text is empty.
    #[error("it is empty")]
    Empty,
    /// The name is 64 hex digits and could be an image ID.
    #[error("a name of 64 hex digits is an image id; expected a repository name")]
    LooksLikeId,
    /// The path contains capitals.
    #[error("repository name '{0}' must be lowercase")]
    Uppercase(String),
    /// No path follows the domain.
    #[error("repository name must have at least one component")]
    NoPath,
    /// A component of the path violates the grammar.
    #[error(
        "repository name has the invalid part '{0}'; expected lower-case letters and digits, \
         joined by one '.', one or two '_', or dashes"
    )]
    Component(String),
    /// The path has more than 255 characters.
    #[error("repository name must not be more than 255 characters, it has {0}")]
    Long(usize),
    /// The host or its port violates the grammar.
    #[error("registry host '{0}' is invalid; expected HOST or HOST:PORT")]
    Domain(String),
    /// The tag violates the grammar.
    #[error(
        "tag '{0}' is invalid; expected at most 128 letters, digits, '_', '.' and '-', \
         not beginning with '.' or '-'"
    )]
    Tag(String),
    /// The digest violates the grammar.
    #[error("digest: {0}")]
    Digest(#[from] DigestError),
    /// `scratch` is reserved and not an image.
    #[error("'scratch' is a reserved name: the empty image has no layers to pull")]
    Scratch,
    /// `sha256:tag` would be ambiguous with a digest.
    #[error("the repository name 'sha256' would be ambiguous with a digest")]
    AlgorithmName,
}

impl Repository {
    /// Returns `docker.io` for Docker Hub, else `host[:port]`.
    pub fn domain(&self) -> &str {
        &self.domain
    }

    /// Returns the path on the registry: `library/nginx`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Returns the canonical name: `docker.io/library/nginx`.
    pub fn canonical(&self) -> String {
        format!("{}/{}", self.domain, self.path)
    }
}

/// The familiar form: without Docker Hub's domain, and without its `library/`.
impl fmt::Display for Repository {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.domain != DOCKER_HUB {
            return write!(f, "{}/{}", self.domain, self.path);
        }
        let official = self.path.strip_prefix("library/").filter(|rest| !rest.contains('/'));
        f.write_str(official.unwrap_or(&self.path))
    }
}

impl Reference {
    /// Returns `docker.io` for Docker Hub, else `host[:port]`.
    pub fn domain(&self) -> &str {
        &self.repository.domain
    }

    /// Returns the repository's path on its registry: `library/nginx`.
    pub fn path(&self) -> &str {
        &self.repository.path
    }

    /// Returns the tag, if present.
    pub fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Returns the digest, if present. It takes precedence over a tag.
    pub fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Returns the repository, without tag and digest.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Adds the tag `latest` if there is neither tag nor digest. Returns whether it was added.
    pub fn with_default_tag(mut self) -> (Self, bool) {
        let added = self.tag.is_none() && self.digest.is_none();
        if added {
            self.tag = Some(DEFAULT_TAG.to_owned());
        }
        (self, added)
    }

    /// Returns the same repository with this digest and no tag.
    pub fn with_digest(&self, digest: Digest) -> Self {
        Self { repository: self.repository.clone(), tag: None, digest: Some(digest) }
    }

    /// Returns the same repository with this tag and no digest.
    ///
    /// # Errors
    /// [`Reason::Tag`] if the tag is invalid.
    pub fn tagged(&self, tag: &str) -> Result<Self, ReferenceError> {
        let valid = grammar::is_tag(tag).then(|| tag.to_owned());
        let wrong = || error(tag, Reason::Tag(tag.to_owned()));
        let tag = Some(valid.ok_or_else(wrong)?);
        Ok(Self { repository: self.repository.clone(), tag, digest: None })
    }

    /// Returns the canonical form: `docker.io/library/nginx:latest`.
    pub fn canonical(&self) -> String {
        format!("{}{}", self.repository.canonical(), self.suffix())
    }

    /// Returns the form with Docker Hub's index: `index.docker.io/library/nginx:latest`.
    pub fn index_form(&self) -> String {
        match self.domain() {
            DOCKER_HUB => format!("index.{}", self.canonical()),
            _ => self.canonical(),
        }
    }

    fn suffix(&self) -> String {
        let tag = self.tag.as_ref().map(|tag| format!(":{tag}")).unwrap_or_default();
        let digest = self.digest.map(|digest| format!("@{digest}")).unwrap_or_default();
        tag + &digest
    }
}

/// The familiar form.
impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", self.repository, self.suffix())
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(input: &str) -> Result<Self, ReferenceError> {
        parse(input).map_err(|reason| error(input, reason))
    }
}

impl TryFrom<&str> for Reference {
    type Error = ReferenceError;

    fn try_from(input: &str) -> Result<Self, ReferenceError> {
        input.parse()
    }
}

impl TryFrom<&String> for Reference {
    type Error = ReferenceError;

    fn try_from(input: &String) -> Result<Self, ReferenceError> {
        input.parse()
    }
}

impl TryFrom<String> for Reference {
    type Error = ReferenceError;

    fn try_from(input: String) -> Result<Self, ReferenceError> {
        input.parse()
    }
}

fn error(input: &str, reason: Reason) -> ReferenceError {
    ReferenceError { input: input.to_owned(), reason }
}

fn parse(input: &str) -> Result<Reference, Reason> {
    if input.is_empty() {
        return Err(Reason::Empty);
    }
    if grammar::is_bare_id(input) {
        return Err(Reason::LooksLikeId);
    }
    let (domain, rest) = grammar::split_domain(input);
    let (rest, digest) = match rest.split_once('@') {
        Some((rest, digest)) => (rest, Some(digest.parse()?)),
        None => (rest, None),
    };
    let (path, tag) = match rest.split_once(':') {
        Some((path, tag)) => (path, Some(tag)),
        None => (rest, None),
    };
    grammar::check_domain(domain)?;
    // As dockerd does, with `library/` or without.
    let official = (domain == DOCKER_HUB).then(|| path.strip_prefix("library/").unwrap_or(path));
    if official == Some("scratch") && digest.is_none() {
        return Err(Reason::Scratch);
    }
    grammar::check_path(path)?;
    if let Some(tag) = tag
        && !grammar::is_tag(tag)
    {
        return Err(Reason::Tag(tag.to_owned()));
    }
    if official == Some("sha256") {
        return Err(Reason::AlgorithmName);
    }
    let path = if domain == DOCKER_HUB && !path.contains('/') {
        format!("library/{path}")
    } else {
        path.to_owned()
    };
    if path.len() > 255 {
        return Err(Reason::Long(path.len()));
    }
    let repository = Repository { domain: domain.to_owned(), path };
    Ok(Reference { repository, tag: tag.map(str::to_owned), digest })
}

#[cfg(test)]
mod fuzz;
#[cfg(test)]
mod tests;
