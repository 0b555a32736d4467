//! An image goes from registry to registry, without being unpacked and without a store.
//!
//! resolve -> collect (manifests, children first) -> blobs (exists, mount, stream) -> manifests ->
//! referrers -> tag. The tag is written last, so it never names an image that is not complete.

mod blobs;
mod collect;
mod referrers;

use std::sync::Arc;

use crate::digest::Digest;
use crate::error::{Error, ReferenceError};
use crate::oci::Platform;
use crate::progress::{Event, Image, Sender};
use crate::pull;
use crate::reference::Reference;
use crate::registry::Registry;

use blobs::Blobs;
use collect::Collected;

/// Blobs that are copied at a time, as with dockerd.
pub const DEFAULT_JOBS: usize = 5;

/// What a copy can be told.
#[derive(Debug, Clone)]
pub struct Options {
    /// Blobs that are copied at a time.
    pub jobs: usize,
    /// Copy only the image for this platform.
    pub platform: Option<Platform>,
}

impl Default for Options {
    fn default() -> Self {
        Self { jobs: DEFAULT_JOBS, platform: None }
    }
}

/// An image that was copied.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Copied {
    /// The reference of the copy.
    pub reference: Reference,
    /// The digest of its manifest or index, which is that of the source.
    pub digest: Digest,
    /// The size of this document in bytes.
    pub size: u64,
    /// Whether the target did not have the image under this name before.
    pub is_new: bool,
}

/// Returns the reference of a copy of `source`: `target`, or without tag and digest, with those of
/// `source`.
///
/// # Errors
/// [`ReferenceError`] if the tag of `source` is invalid.
pub fn target_of(source: &Reference, target: Reference) -> Result<Reference, ReferenceError> {
    let (source, _) = source.clone().with_default_tag();
    match (target.tag(), target.digest(), source.digest(), source.tag()) {
        (None, None, Some(digest), _) => Ok(target.with_digest(digest)),
        (None, None, None, Some(tag)) => target.tagged(tag),
        _ => Ok(target),
    }
}

/// One copy.
struct Session {
    registry: Registry,
    source: Reference,
    target: Image,
    options: Options,
    events: Sender,
}

/// Copies `source` to `target`. Without tag and digest, `target` gets the tag of `source`.
///
/// # Errors
/// [`Error`] if the source does not exist or is not what its digests say, or the target does not
/// accept it. Then the target's tag is what it was before.
pub async fn copy(
    registry: &Registry,
    source: Reference,
    target: Reference,
    options: Options,
    events: Sender,
) -> Result<Copied, Error> {
    let (source, _) = source.with_default_tag();
    let image: Image = Arc::new(target_of(&source, target)?);
    let registry = registry.with_events(events.clone(), image.clone());
    let session = Session { registry, source, target: image.clone(), options, events };
    let copied = session.run().await;
    session.events.send(match &copied {
        Ok(copied) => Event::Pushed { image, digest: copied.digest, size: copied.size },
        Err(error) => Event::Failed { image, error: error.to_string() },
    });
    copied
}

impl Session {
    async fn run(&self) -> Result<Copied, Error> {
        let (from, to) = (self.source.repository(), self.target.repository());
        self.registry.log_endpoint(from).await;
        self.registry.log_endpoint(to).await;
        let digest = self.resolve().await?;
        if let Some(expected) = self.target.digest().filter(|expected| *expected != digest) {
            let text =
                format!("the digest of the target is {expected}, and that of the source {digest}");
            return Err(Error::Usage(text));
        }
        self.events.send(Event::PushingTo { image: self.target.clone() });
        let by_digest = digest.to_string();
        let name = match self.target.digest() {
            Some(_) => by_digest.as_str(),
            None => self.target.tag().unwrap_or(&by_digest),
        };
        let blobs = Blobs::new(self);
        let known = self.registry.has_manifest(to, name).await?;
        let (is_new, size) = match known {
            Some((known, size)) if known == digest => {
                referrers::copy(self, &blobs, digest).await?;
                (false, size)
            }
            _ => {
                let mut collected = Collected::default();
                collected.add(&self.registry, from, digest).await?;
                let root = self.copy_manifests(&blobs, collected).await?;
                referrers::copy(self, &blobs, digest).await?;
                self.registry.push_manifest(to, name, (&root.media_type, &root.bytes)).await?;
                (true, root.bytes.len() as u64)
            }
        };
        Ok(Copied { reference: Reference::clone(&self.target), digest, size, is_new })
    }

    /// Returns the digest of what is copied.
    async fn resolve(&self) -> Result<Digest, Error> {
        if let Some(platform) = &self.options.platform {
            return Ok(pull::manifest_for(&self.registry, &self.source, platform).await?.digest);
        }
        match self.source.digest() {
            Some(digest) => Ok(digest),
            None => {
                let tag = self.source.tag().unwrap_or_default();
                let head = self.registry.head_manifest(self.source.repository(), tag).await?;
                Ok(head.digest)
            }
        }
    }

    /// Copies the blobs of all manifests, and all manifests but the last one, which it returns. The
    /// target has what a manifest names that it has.
    async fn copy_manifests(
        &self,
        blobs: &Blobs<'_>,
        mut collected: Collected,
    ) -> Result<collect::Item, Error> {
        let to = self.target.repository();
        let Some(root) = collected.items.pop() else {
            return Err(Error::Internal("nothing to copy".to_owned()));
        };
        let mut missing = Vec::new();
        for item in collected.items {
            let digest = item.digest.to_string();
            if self.registry.has_manifest(to, &digest).await?.is_none() {
                missing.push(item);
            }
        }
        blobs.copy(missing.iter().chain([&root])).await?;
        for item in missing {
            let digest = item.digest.to_string();
            self.registry.push_manifest(to, &digest, (&item.media_type, &item.bytes)).await?;
        }
        Ok(root)
    }
}
