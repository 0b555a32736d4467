//! Images in archives, as sources of a pull.

use std::fmt;
use std::io::Read;
use std::sync::Arc;

use super::store::Store;
use crate::archive::{self, ArchiveKind, ArchiveLocation, ArchiveReader};
use crate::digest::Digest;
use crate::error::Error;
use crate::layer::Limits;
use crate::oci::Platform;
use crate::reference::Reference;

/// An open archive of images: a docker-archive or an OCI image layout, as a tar, a compressed tar or a
/// directory. It can be larger than memory. What cannot be read at any position, such as a stream, is
/// copied to a file of the store without a name.
#[derive(Clone)]
pub struct Archive(Arc<ArchiveReader>);

/// An image in an [`Archive`].
#[derive(Clone)]
pub struct ArchivedImage(pub(super) archive::ArchivedImage);

impl Store {
    /// Opens the archive of `location` for a load or a pull into this store. `limits` bound what a
    /// compressed archive unpacks to. The name of the location is for [`Archive::image`].
    ///
    /// # Errors
    /// There is no archive, or it is invalid.
    pub fn open_archive(
        &self,
        location: &ArchiveLocation,
        limits: &Limits,
    ) -> Result<Archive, Error> {
        let scratch = || Ok(self.begin().scratch_file()?);
        let reader = ArchiveReader::open(&location.path, location.kind, limits, scratch);
        Ok(Archive(reader?))
    }

    /// Reads an archive from `stream` to its end.
    ///
    /// # Errors
    /// It cannot be read, is not an archive, or exceeds `limits`.
    pub fn read_archive(&self, stream: impl Read, limits: &Limits) -> Result<Archive, Error> {
        let scratch = || Ok(self.begin().scratch_file()?);
        Ok(Archive(ArchiveReader::read(stream, limits, scratch)?))
    }
}

impl ArchiveLocation {
    /// Returns the location of all images in the archive at `path`, of any kind.
    pub fn of_path(path: impl Into<std::path::PathBuf>) -> Self {
        Self { path: path.into(), name: None, kind: ArchiveKind::Any }
    }
}

impl Archive {
    /// Returns all images. Of several with one name, it is the one for `platform`, or for this machine.
    ///
    /// # Errors
    /// There is none for the platform.
    pub fn images(&self, platform: Option<&Platform>) -> Result<Vec<ArchivedImage>, Error> {
        Ok(self.0.images(platform)?.into_iter().map(ArchivedImage).collect())
    }

    /// Returns the image `name`, or the only image.
    ///
    /// # Errors
    /// There is not exactly one such image.
    pub fn image(
        &self,
        name: Option<&str>,
        platform: Option<&Platform>,
    ) -> Result<ArchivedImage, Error> {
        Ok(ArchivedImage(self.0.find(name, platform)?))
    }
}

impl ArchivedImage {
    /// The names that it gets in a store.
    pub fn names(&self) -> &[Reference] {
        &self.0.names
    }

    /// What stands for it in events: its first name, or one that is made of its digest.
    pub fn reference(&self) -> &Reference {
        &self.0.reference
    }

    /// The digest of its manifest or index.
    pub fn digest(&self) -> Digest {
        self.0.top
    }
}

impl fmt::Debug for Archive {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Archive").finish_non_exhaustive()
    }
}

impl fmt::Debug for ArchivedImage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ArchivedImage")
            .field("reference", &self.0.reference)
            .finish_non_exhaustive()
    }
}
