//! The documents between a reference and an image: indexes, and the manifest for a platform.

use bytes::Bytes;

use crate::digest::Digest;
use crate::oci::{AnyManifest, Document, Manifest, ManifestError, Platform};
use crate::registry::RawManifest;

/// How deep an index may be nested in indexes.
const DEEPEST: usize = 3;

/// A document as it was served.
pub struct Served {
    /// Its type.
    pub media_type: String,
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub bytes: Bytes,
}

impl Served {
    fn new(raw: RawManifest, media_type: &str) -> Self {
        Self { media_type: media_type.to_owned(), digest: raw.digest, bytes: raw.bytes }
    }
}

/// The documents from the outermost one on.
pub struct Documents {
    wanted: Platform,
    served: Vec<Served>,
    is_listed: bool,
}

/// What follows a document.
pub enum Next {
    /// It is an index: the document for the platform follows.
    Document(Digest),
    /// It is the manifest.
    Manifest(Box<Document<Manifest>>),
}

impl Documents {
    /// Begins with none, for the platform `wanted` or else the host's.
    pub fn new(wanted: Option<&Platform>) -> Self {
        let wanted = wanted.cloned().unwrap_or_else(Platform::host);
        Self { wanted, served: Vec::new(), is_listed: false }
    }

    /// Adds the next document. Returns what follows it.
    ///
    /// # Errors
    /// [`ManifestError`] if it is not a manifest or index, no entry of it runs on the platform, or
    /// indexes are nested too deeply.
    pub fn add(&mut self, raw: RawManifest) -> Result<Next, ManifestError> {
        match AnyManifest::parse(raw.bytes.clone(), raw.digest, &raw.media_type)? {
            AnyManifest::Image(manifest) => {
                self.served.push(Served::new(raw, &manifest.media_type));
                Ok(Next::Manifest(Box::new(manifest)))
            }
            AnyManifest::Index(_) if self.served.len() == DEEPEST => Err(ManifestError::Nested),
            AnyManifest::Index(index) => {
                let entry = index.parsed.select(&self.wanted)?[0];
                self.is_listed |= entry.platform.is_some();
                self.served.push(Served::new(raw, &index.media_type));
                Ok(Next::Document(entry.digest))
            }
        }
    }

    /// Whether an index lists the image for the platform. Otherwise only the config of the
    /// image tells its platform.
    pub fn is_listed(&self) -> bool {
        self.is_listed
    }

    /// Returns the indexes, if any, and the manifest.
    pub fn into_served(self) -> Vec<Served> {
        self.served
    }
}
