//! The images in an archive.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;

use super::docker;
use super::error::ArchiveError;
use super::files::{FileRange, Files};
use super::found::{Found, FoundImage};
use super::layout;
use super::open;
use crate::digest::Digest;
use crate::layer::Limits;
use crate::oci::Platform;
use crate::reference::Reference;

/// Which documents of an archive are used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ArchiveKind {
    /// `index.json` if it is there, else `manifest.json`.
    #[default]
    Any,
    /// `index.json`.
    Layout,
    /// `manifest.json`.
    Docker,
}

/// An open archive.
pub struct ArchiveReader {
    files: Files,
    /// Manifests that the archive does not have, because it is a docker-archive.
    made: HashMap<Digest, Bytes>,
    /// The paths of blobs that are not at the path of a layout.
    paths: HashMap<Digest, String>,
    images: Vec<FoundImage>,
}

/// An image in an archive.
#[derive(Clone)]
pub struct ArchivedImage {
    /// The archive.
    pub archive: Arc<ArchiveReader>,
    /// The digest of its manifest or index.
    pub top: Digest,
    /// The names that it gets in a store.
    pub names: Vec<Reference>,
    /// What stands for the image in events: a name, or one made of the digest.
    pub reference: Reference,
}

impl ArchiveReader {
    /// Opens the archive at `path`. `scratch` creates a file without a name, to which an archive is copied
    /// that cannot be read at any position.
    ///
    /// # Errors
    /// [`ArchiveError`] if it is not an archive, exceeds `limits`, or cannot be read.
    pub fn open(
        path: &Path,
        kind: ArchiveKind,
        limits: &Limits,
        scratch: impl FnOnce() -> Result<File, ArchiveError>,
    ) -> Result<Arc<Self>, ArchiveError> {
        Self::of(open::open(path, limits, scratch)?, kind)
    }

    /// Reads the archive that `stream` gives.
    ///
    /// # Errors
    /// As of [`open`](Self::open).
    pub fn read(
        stream: impl Read,
        limits: &Limits,
        scratch: impl FnOnce() -> Result<File, ArchiveError>,
    ) -> Result<Arc<Self>, ArchiveError> {
        Self::of(open::read(stream, limits, scratch)?, ArchiveKind::Any)
    }

    fn of(files: Files, kind: ArchiveKind) -> Result<Arc<Self>, ArchiveError> {
        let is_layout = kind != ArchiveKind::Docker && files.find(layout::INDEX)?.is_some();
        let is_docker = kind != ArchiveKind::Layout && files.find(docker::MANIFEST)?.is_some();
        let found = match (is_layout, is_docker) {
            (true, _) => layout::images(&files)?,
            (false, true) => docker::images(&files)?,
            (false, false) if files.find("repositories")?.is_some() => {
                let why = "it was saved by docker before 1.10, which wrote no manifest.json";
                return Err(ArchiveError::Invalid(why.to_owned()));
            }
            (false, false) => {
                let why = match kind {
                    ArchiveKind::Any => "it has neither index.json nor manifest.json",
                    ArchiveKind::Layout => "it has no index.json",
                    ArchiveKind::Docker => "it has no manifest.json",
                };
                return Err(ArchiveError::Invalid(why.to_owned()));
            }
        };
        let Found { images, made, paths } = found;
        if images.is_empty() {
            return Err(ArchiveError::Invalid("it lists no images".to_owned()));
        }
        Ok(Arc::new(Self { files, made, paths, images }))
    }

    /// Returns all images, for `platform` where there are several with one name.
    ///
    /// # Errors
    /// [`ArchiveError::Manifest`] if there is none for the platform.
    pub fn images(
        self: &Arc<Self>,
        platform: Option<&Platform>,
    ) -> Result<Vec<ArchivedImage>, ArchiveError> {
        self.images.iter().map(|found| self.image(found, platform, found.names.clone())).collect()
    }

    /// Returns the image that is called `name` in the archive, or the only one without a `name`.
    ///
    /// # Errors
    /// [`ArchiveError::NoSuchImage`] if there is not exactly one such image.
    pub fn find(
        self: &Arc<Self>,
        name: Option<&str>,
        platform: Option<&Platform>,
    ) -> Result<ArchivedImage, ArchiveError> {
        let Some(name) = name else {
            return match self.images.as_slice() {
                [one] => self.image(one, platform, one.names.clone()),
                all => {
                    let labels = all.iter().filter_map(FoundImage::shown).collect::<Vec<_>>();
                    Err(ArchiveError::Several(labels))
                }
            };
        };
        let wanted = name.parse::<Reference>().ok().map(|it| it.with_default_tag().0);
        let is_named = |image: &&FoundImage| {
            image.label.as_deref() == Some(name)
                || wanted.as_ref().is_some_and(|wanted| image.names.contains(wanted))
        };
        let found = self.images.iter().find(is_named);
        let found = found.ok_or_else(|| ArchiveError::NoSuchImage(name.to_owned()))?;
        let chosen = wanted.filter(|wanted| found.names.is_empty() || found.names.contains(wanted));
        let names = chosen.map_or_else(|| found.names.clone(), |name| vec![name]);
        self.image(found, platform, names)
    }

    fn image(
        self: &Arc<Self>,
        found: &FoundImage,
        platform: Option<&Platform>,
        names: Vec<Reference>,
    ) -> Result<ArchivedImage, ArchiveError> {
        let top = match found.tops.as_slice() {
            [one] => one.digest,
            several => {
                let host = Platform::host();
                let index = crate::oci::Index { manifests: several.to_vec() };
                index.select(platform.unwrap_or(&host))?[0].digest
            }
        };
        let reference = match names.first() {
            Some(name) => name.clone(),
            None => unnamed(top)?,
        };
        Ok(ArchivedImage { archive: self.clone(), top, names, reference })
    }

    /// Returns the bytes of a document, which have this digest.
    ///
    /// # Errors
    /// [`ArchiveError::Missing`] or [`ArchiveError::Digest`] if not, [`ArchiveError::Invalid`] if it is too
    /// large, [`ArchiveError::Read`] if it cannot be read.
    pub fn document(&self, digest: &Digest) -> Result<Bytes, ArchiveError> {
        if let Some(made) = self.made.get(digest) {
            return Ok(made.clone());
        }
        let bytes = self.files.document(&self.path(digest))?;
        let bytes = bytes.ok_or(ArchiveError::Missing(*digest))?;
        let actual = Digest::of(&bytes);
        match actual == *digest {
            true => Ok(bytes.into()),
            false => Err(ArchiveError::Digest { expected: *digest, actual }),
        }
    }

    /// Finds a blob. Its bytes are not verified.
    ///
    /// # Errors
    /// [`ArchiveError::Missing`] if it is not there, [`ArchiveError::Read`] if it cannot be opened.
    pub fn blob(&self, digest: &Digest) -> Result<FileRange, ArchiveError> {
        self.files.find(&self.path(digest))?.ok_or(ArchiveError::Missing(*digest))
    }

    fn path(&self, digest: &Digest) -> String {
        self.paths.get(digest).cloned().unwrap_or_else(|| layout::blob(digest))
    }
}

/// Returns what stands for an image without a name.
fn unnamed(top: Digest) -> Result<Reference, ArchiveError> {
    let name = format!("localhost/unnamed@{top}").parse();
    name.map_err(|e| ArchiveError::Store(crate::store::StoreError::Reference(e)))
}
