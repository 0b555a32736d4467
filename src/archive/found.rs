//! What is found in the documents of an archive.

use std::collections::HashMap;

use bytes::Bytes;

use crate::digest::Digest;
use crate::oci::Descriptor;
use crate::reference::Reference;

/// An image as the documents of an archive name it.
pub struct FoundImage {
    /// Its manifest, or an index; of several, the one for the platform is chosen.
    pub tops: Vec<Descriptor>,
    /// Its whole names.
    pub names: Vec<Reference>,
    /// A name of any form, by which it can be chosen.
    pub label: Option<String>,
}

/// What is found in the documents of an archive.
#[derive(Default)]
pub struct Found {
    /// The images.
    pub images: Vec<FoundImage>,
    /// Manifests that were made.
    pub made: HashMap<Digest, Bytes>,
    /// Paths of blobs.
    pub paths: HashMap<Digest, String>,
}

impl FoundImage {
    /// Returns a name of it for messages.
    pub fn shown(&self) -> Option<String> {
        self.label.clone().or_else(|| self.names.first().map(ToString::to_string))
    }
}
