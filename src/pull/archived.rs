//! An archive on this machine as the source of an image: its documents and blobs take the place of a
//! registry's, and are verified in the same way.

use std::sync::Arc;

use bytes::Bytes;

use super::documents::{Documents, Next};
use super::session::Session;
use crate::archive::{ArchiveReader, ArchivedImage, FileRange};
use crate::digest::Digest;
use crate::error::Error;
use crate::oci::{Document, Manifest};
use crate::registry::RawManifest;

/// Returns the documents from the image in an archive to its manifest for the platform.
///
/// # Errors
/// [`Error::Archive`] if a document is missing or invalid, [`Error::Manifest`] if it is not an image, or
/// not for the platform.
pub async fn manifest(
    session: &Session,
    wanted: &ArchivedImage,
) -> Result<(Documents, Box<Document<Manifest>>), Error> {
    let mut documents = Documents::new(session.options.platform.as_ref());
    let mut next = wanted.top;
    loop {
        let bytes = document(session, &wanted.archive, next).await?;
        match documents.add(RawManifest { bytes, digest: next, media_type: String::new() })? {
            Next::Document(digest) => next = digest,
            Next::Manifest(manifest) => return Ok((documents, manifest)),
        }
    }
}

/// Returns the bytes of a document in an archive.
///
/// # Errors
/// [`Error::Archive`] if it is missing, too large, or has another digest.
pub async fn document(
    session: &Session,
    archive: &Arc<ArchiveReader>,
    digest: Digest,
) -> Result<Bytes, Error> {
    let archive = archive.clone();
    Ok(session.store(move |_| Ok(archive.document(&digest))).await??)
}

/// Finds a blob in an archive.
///
/// # Errors
/// [`Error::Archive`] if it is missing.
pub async fn blob(
    session: &Session,
    archive: &Arc<ArchiveReader>,
    digest: Digest,
) -> Result<FileRange, Error> {
    let archive = archive.clone();
    Ok(session.store(move |_| Ok(archive.blob(&digest))).await??)
}
