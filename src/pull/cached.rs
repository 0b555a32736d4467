//! Images in the content store: which ones it has whole, so that they are pulled without a request.

use super::documents::{Documents, Next};
use super::session::Session;
use crate::digest::Digest;
use crate::error::Error;
use crate::oci::{ChainId, Document, ImageConfig, ImageId, Manifest, Platform};
use crate::progress::Image;
use crate::registry::RawManifest;
use crate::store::{Store, StoreError};

/// Returns the digest that `image` has in the content store, if an image with all its blobs is there:
/// the reference's own digest, or the one that `index.json` lists for its tag. A layer that the store
/// has committed needs no blob.
///
/// # Errors
/// [`Error::Store`] if the content or the store cannot be read.
pub async fn find(session: &Session, image: &Image) -> Result<Option<Digest>, Error> {
    let (reference, platform) = (image.clone(), session.options.platform.clone());
    let find = session.store(move |store| {
        let digests = match reference.digest() {
            Some(digest) => vec![digest],
            None => store.content().lookup(&reference)?,
        };
        for digest in digests {
            if has_all(store, digest, platform.as_ref(), Layers::BlobOrCommitted)? {
                return Ok(Some(digest));
            }
        }
        Ok(None)
    });
    find.await
}

/// Whether the content store keeps all blobs of the image `digest`, and lists it for `image`.
///
/// # Errors
/// [`Error::Store`] if the content cannot be read.
pub async fn is_kept(
    session: &Session,
    image: &Image,
    digest: Digest,
    platform: Option<Platform>,
) -> Result<bool, Error> {
    let image = image.clone();
    let look_up = session.store(move |store| {
        Ok(has_all(store, digest, platform.as_ref(), Layers::Blob)?
            && store.content().lookup(&image)?.contains(&digest))
    });
    look_up.await
}

/// Where the layers of an image must be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Layers {
    /// In the content store.
    Blob,
    /// In the content store or committed.
    BlobOrCommitted,
}

fn has_all(
    store: &Store,
    digest: Digest,
    platform: Option<&Platform>,
    layers: Layers,
) -> Result<bool, StoreError> {
    let content = store.content();
    let Some(found) = manifest(store, digest, platform)? else { return Ok(false) };
    let id = found.manifest.parsed.config.digest;
    let mut bytes = content.get(&id)?;
    if bytes.is_none() && layers == Layers::BlobOrCommitted {
        bytes = match store.images().get(&ImageId(id)) {
            Err(StoreError::Damaged { .. }) => None,
            other => other?.map(Into::into),
        };
    }
    let Some(config) = bytes.and_then(|bytes| ImageConfig::parse(&bytes).ok()) else {
        return Ok(false);
    };
    let blobs = &found.manifest.parsed.layers;
    let is_other = !found.is_listed && platform.is_some_and(|platform| !config.runs_on(platform));
    if is_other || config.check_layers(blobs.len()).is_err() {
        return Ok(false);
    }
    for (blob, chain) in blobs.iter().zip(ChainId::stack(config.diff_ids())) {
        let is_there = content.has(&blob.digest, blob.size)?
            || (layers == Layers::BlobOrCommitted && store.layers().get(&chain)?.is_some());
        if !is_there {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A manifest in the content store.
struct Found {
    manifest: Box<Document<Manifest>>,
    /// Whether an index lists it for the platform.
    is_listed: bool,
}

/// Returns the manifest that the content store has for `digest`; `None` if it or an index is missing or
/// cannot be used.
fn manifest(
    store: &Store,
    digest: Digest,
    platform: Option<&Platform>,
) -> Result<Option<Found>, StoreError> {
    let mut documents = Documents::new(platform);
    let mut digest = digest;
    loop {
        let Some(bytes) = store.content().get(&digest)? else { return Ok(None) };
        match documents.add(RawManifest { bytes, digest, media_type: String::new() }) {
            Ok(Next::Document(next)) => digest = next,
            Ok(Next::Manifest(manifest)) => {
                return Ok(Some(Found { manifest, is_listed: documents.is_listed() }));
            }
            Err(_) => return Ok(None),
        }
    }
}
