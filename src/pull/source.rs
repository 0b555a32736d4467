//! Where an image comes from: a registry, or an archive on this machine.

use std::sync::Arc;

use crate::archive::{ArchiveReader, ArchivedImage};
use crate::reference::Reference;
use crate::registry::Registry;

/// An image to pull.
#[derive(Clone)]
pub enum Wanted {
    /// From its registry.
    Registry(Reference),
    /// From an archive.
    Archive(ArchivedImage),
}

/// The source of an image's blobs. Cheap to clone.
#[derive(Clone)]
pub enum Source {
    /// The registry, which reports its retries for the image.
    Registry(Registry),
    /// An archive.
    Archive(Arc<ArchiveReader>),
}
