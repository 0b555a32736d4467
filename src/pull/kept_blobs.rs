//! Blobs that the content store keeps (`--keep-blobs`): read from there, and written there while
//! they are fetched.
//!
//! The content store may be shared by many processes and roots. Of those that keep blobs, one
//! fetches a blob; the others wait and read what it kept.

use std::fs::File;
use std::io::{self, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use bytes::Bytes;

use super::gate::WorkError;
use super::session::Session;
use super::task::{LayerTask, ReadyLayer};
use super::unpack::unpack_blob;
use crate::digest::{Digest, Hasher};
use crate::error::Error;
use crate::fsutil::{self, Buffers};
use crate::layer::LayerError;
use crate::oci::Descriptor;
use crate::progress::Image;
use crate::registry::Registry;
use crate::store::{ContentLock, Ingest, Store, StoreError};

/// The result of looking for a layer in the content store.
pub enum KeptBlob {
    /// It was there and is staged.
    Staged(ReadyLayer),
    /// It must be fetched. The lock, if the blob is to be kept, is for the time until it is.
    Missing(Option<ContentLock>),
}

/// Tells one file from another: device and inode.
type FileId = (u64, u64);

/// Stages a layer from the content store. If the store does not have it, takes the right to fetch
/// and keep it.
///
/// # Errors
/// [`Error::Layer`] if the blob has its digest and is invalid, or cannot be written;
/// [`Error::Store`] if the content store cannot be used.
pub async fn stage(session: &Arc<Session>, task: &LayerTask) -> Result<KeptBlob, Error> {
    let mut damaged = None;
    loop {
        if let Some((file, id)) = open(session, task, damaged).await? {
            damaged = Some(id);
            if let Some(layer) = unpack(session, task, file).await? {
                tracing::info!("layer {}: read from the kept blob", task.blob.digest.short());
                return Ok(KeptBlob::Staged(layer));
            }
        }
        if !session.options.keep_blobs {
            return Ok(KeptBlob::Missing(None));
        }
        let lock = lock(session, &task.image, task.blob.digest).await?;
        // Another process may have kept it since it was looked for.
        if lock.is_none() || open(session, task, damaged).await?.is_none() {
            return Ok(KeptBlob::Missing(lock));
        }
    }
}

/// Opens the kept blob, unless it is the file that was found damaged.
async fn open(
    session: &Session,
    task: &LayerTask,
    damaged: Option<FileId>,
) -> Result<Option<(File, FileId)>, Error> {
    let digest = task.blob.digest;
    let open = session.store_layer(digest, move |store| {
        let Some(file) = store.content().open(&digest)? else { return Ok(None) };
        let meta = file.metadata().map_err(LayerError::Source)?;
        Ok(Some((file, (meta.dev(), meta.ino()))))
    });
    Ok(open.await?.filter(|(_, id)| Some(*id) != damaged))
}

/// Unpacks a kept blob. If it is damaged, warns the user and returns `None`.
async fn unpack(
    session: &Arc<Session>,
    task: &LayerTask,
    file: File,
) -> Result<Option<ReadyLayer>, Error> {
    let (shared, unpacked, digest) = (session.clone(), task.clone(), task.blob.digest);
    let unpack = session.store_layer(digest, move |store| {
        let again = file.try_clone().map_err(LayerError::Source)?;
        match unpack_blob(&shared, store, &unpacked, fsutil::buffers(file)) {
            Ok(layer) => Ok(Some(layer)),
            Err(WorkError::Layer(e)) if !is_cancelled(&e) && !is_whole(again, &digest) => Ok(None),
            Err(e) => Err(e),
        }
    });
    let layer = unpack.await?;
    if layer.is_none() {
        let text = format!("the kept blob {} is damaged; fetching it again", digest.short());
        session.warn_of_shared(&task.image, text);
    }
    Ok(layer)
}

fn is_cancelled(error: &LayerError) -> bool {
    matches!(error, LayerError::Cancelled | LayerError::WindowInUse(_))
}

/// Whether a kept blob has its digest: then its content is invalid, and the copy is not damaged.
fn is_whole(mut file: File, digest: &Digest) -> bool {
    let actual = file.rewind().and_then(|()| Digest::of_reader(file));
    actual.is_ok_and(|actual| actual == *digest)
}

/// Waits until no other process fetches and keeps the same blob; `None` if the content store is
/// read-only, which the user is told once if blobs are to be kept.
///
/// # Errors
/// [`Error::Store`] if the content store cannot be used.
pub async fn lock(
    session: &Session,
    image: &Image,
    digest: Digest,
) -> Result<Option<ContentLock>, Error> {
    let attempt = move |store: &Store| {
        Ok(match store.content().try_lock_blob(&digest)? {
            Some(Ok(lock)) => Ok(Some(lock)),
            Some(Err(holder)) => {
                Err(format!("blob {}, which {holder} is fetching", digest.short()))
            }
            None => Ok(None),
        })
    };
    let lock = session.wait(attempt).await?;
    if lock.is_none() && session.options.keep_blobs {
        let refused = session.store(|store| {
            let content = store.content();
            Ok(content.is_first_refusal().then(|| content.path().to_owned()))
        });
        if let Some(path) = refused.await? {
            session.warn(image, format!("cannot keep blobs: {} is read-only", path.display()));
        }
    }
    Ok(lock)
}

/// Returns the bytes of a config from the content store, or fetches them, and whether it did. They
/// are kept as soon as they arrive, so that of several processes one fetches them.
///
/// # Errors
/// [`Error::Registry`] if it cannot be fetched or has more than `largest` bytes;
/// [`Error::Store`] if the content store cannot be used.
pub async fn config(
    session: &Session,
    image: &Image,
    registry: &Registry,
    descriptor: &Descriptor,
    largest: u64,
) -> Result<(Bytes, bool), Error> {
    if let Some(bytes) = kept_config(session, descriptor, largest).await? {
        tracing::info!("config {} is in the content store", descriptor.digest.short());
        return Ok((bytes, false));
    }
    session.may_request(|| format!("config {} of {image}", descriptor.digest.short()))?;
    let fetch = registry.blob_bytes(image.repository(), descriptor, largest);
    if session.options.dry_run {
        return Ok((fetch.await?, true));
    }
    let digest = descriptor.digest;
    let lock = lock(session, image, digest).await?;
    if let Some(bytes) = kept_config(session, descriptor, largest).await? {
        return Ok((bytes, false));
    }
    let bytes = fetch.await?;
    let kept = bytes.clone();
    let keep = session.store(move |store| {
        // A pull that is cancelled here must not release it before the config is kept.
        let _lock = lock;
        store.content().put(&digest, &kept)
    });
    keep.await?;
    Ok((bytes, true))
}

async fn kept_config(
    session: &Session,
    descriptor: &Descriptor,
    largest: u64,
) -> Result<Option<Bytes>, Error> {
    let digest = descriptor.digest;
    let bytes = session.store(move |store| store.content().get(&digest)).await?;
    let fits = |bytes: &Bytes| {
        let size = bytes.len() as u64;
        size == descriptor.size && size <= largest
    };
    Ok(bytes.filter(fits))
}

/// Writes a blob to the content store while it is fetched.
pub struct BlobWriter {
    ingest: Ingest,
    _lock: Arc<ContentLock>,
}

impl BlobWriter {
    /// Begins to keep the blob of `task`; `None` without its lock.
    ///
    /// # Errors
    /// [`WorkError::Store`] if the file cannot be created.
    pub fn new(
        store: &Store,
        task: &LayerTask,
        lock: Option<Arc<ContentLock>>,
    ) -> Result<Option<Self>, WorkError> {
        let Some(lock) = lock else { return Ok(None) };
        let ingest = store.content().ingest(&task.blob.digest)?;
        Ok(ingest.map(|ingest| Self { ingest, _lock: lock }))
    }

    /// Writes `bytes`, and returns them.
    ///
    /// # Errors
    /// [`LayerError::Write`] if the file cannot be written.
    pub fn write(&mut self, bytes: Bytes) -> io::Result<Bytes> {
        let lost = |source| LayerError::Write { op: "keep", path: "the blob".to_owned(), source };
        self.ingest.write_all(&bytes).map_err(|e| io::Error::other(lost(e)))?;
        Ok(bytes)
    }

    /// Writes all of `source`, verifies that it is `blob`, and gives it its name.
    ///
    /// # Errors
    /// [`LayerError`] if it is not, or cannot be read or written.
    pub fn write_all(mut self, blob: &Descriptor, source: impl Buffers) -> Result<(), WorkError> {
        let (mut hasher, mut actual) = (Hasher::new(), 0);
        for bytes in source {
            let bytes = bytes.and_then(|bytes| self.write(bytes));
            let bytes = bytes.map_err(|e| LayerError::from_io(e, LayerError::Source))?;
            hasher.update(&bytes);
            actual += bytes.len() as u64;
        }
        let (expected, found) = (blob.digest, hasher.finish());
        if actual != blob.size {
            return Err(LayerError::Size { expected: blob.size, actual, more: false }.into());
        }
        if found != expected {
            return Err(LayerError::Digest { expected, actual: found }.into());
        }
        self.commit()
    }

    /// Gives the bytes, which were verified, their name.
    ///
    /// # Errors
    /// [`WorkError::Store`] if the file cannot be renamed.
    pub fn commit(self) -> Result<(), WorkError> {
        Ok(self.ingest.commit().map_err(StoreError::from)?)
    }
}
