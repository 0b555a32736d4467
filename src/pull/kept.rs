//! Blobs that the content store keeps (`--keep-blobs`): read from there, and written there
//! while they are fetched.
//!
//! The content store may be shared by many processes and roots. Of those that keep blobs,
//! one fetches a blob, the others wait and read what it kept.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;

use bytes::Bytes;

use super::Session;
use super::blocking::{Failure, blocking, run};
use super::obtain::{Layers, Obtained, Want};
use super::resolve::Found;
use crate::digest::{Digest, Hasher};
use crate::error::Error;
use crate::fsutil;
use crate::layer::LayerError;
use crate::oci::Descriptor;
use crate::progress::{Event, Image};
use crate::store::{ContentLock, Ingest};

/// What became of looking for a layer in the content store.
pub enum Kept {
    /// It was there.
    Obtained(Arc<Obtained>),
    /// It has to be fetched. The lock, if it is to be kept, is held until that is done.
    Fetch(Option<ContentLock>),
}

/// Obtains a layer from the content store; if it is not there, takes the right to fetch and
/// keep it.
pub async fn obtain(layers: &Layers, want: &Want) -> Result<Kept, Error> {
    let mut damaged = None;
    loop {
        if let Some(file) = open(layers, want, damaged)? {
            damaged = Some(identity(&file)?);
            if let Some(obtained) = unpack(layers, want, file).await? {
                return Ok(Kept::Obtained(Arc::new(obtained)));
            }
        }
        if !layers.options().keep_blobs {
            return Ok(Kept::Fetch(None));
        }
        let lock = lock(layers, &want.image, &want.blob.digest).await?;
        // Another process may have kept it since it was looked for.
        if lock.is_none() || open(layers, want, damaged)?.is_none() {
            return Ok(Kept::Fetch(lock));
        }
    }
}

/// The kept blob, unless it is the file that was found damaged.
fn open(layers: &Layers, want: &Want, damaged: Option<(u64, u64)>) -> Result<Option<File>, Error> {
    let Some(file) = layers.store().content().open(&want.blob.digest)? else { return Ok(None) };
    Ok((Some(identity(&file)?) != damaged).then_some(file))
}

/// Tells one file from another.
fn identity(file: &File) -> Result<(u64, u64), Error> {
    let meta =
        file.metadata().map_err(|e| Error::Other(format!("cannot read a kept blob: {e}")))?;
    Ok((meta.dev(), meta.ino()))
}

/// Unpacks a kept blob; `None` if it is damaged, which the user is told.
async fn unpack(layers: &Layers, want: &Want, file: File) -> Result<Option<Obtained>, Error> {
    let (all, wanted) = (layers.clone(), want.clone());
    let digest = want.blob.digest;
    let unpacked = run(digest, move || {
        let again = file.try_clone().map_err(LayerError::Source)?;
        match all.unpack(&wanted, fsutil::runs(file)) {
            Ok(obtained) => Ok(Some(obtained)),
            Err(Failure::Layer(e)) if !is_cancelled(&e) && !is_whole(again, &digest) => Ok(None),
            Err(e) => Err(e),
        }
    });
    let unpacked = unpacked.await?;
    if unpacked.is_none() {
        let text = format!("the kept blob {} is damaged; fetching it again", digest.short());
        layers.events().send(Event::Warning { image: Some(want.image.clone()), text });
    }
    Ok(unpacked)
}

fn is_cancelled(error: &LayerError) -> bool {
    matches!(error, LayerError::Cancelled)
}

/// Whether a kept blob has its digest: then its content is at fault, and not the copy.
fn is_whole(mut file: File, digest: &Digest) -> bool {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; 256 << 10];
    let mut hash = || {
        file.rewind()?;
        loop {
            match file.read(&mut buffer)? {
                0 => return Ok::<_, io::Error>(()),
                n => hasher.update(&buffer[..n]),
            }
        }
    };
    hash().is_ok() && hasher.finish() == *digest
}

/// Waits until no other process fetches and keeps the same blob; `None` if the content store
/// is read-only, which the user is told.
async fn lock(
    layers: &Layers,
    image: &Image,
    digest: &Digest,
) -> Result<Option<ContentLock>, Error> {
    let (store, digest) = (layers.store().clone(), *digest);
    let attempt = move || {
        Ok(match store.content().try_lock_blob(&digest)? {
            Some(Ok(lock)) => Ok(Some(lock)),
            Some(Err(who)) => Err(format!("blob {}, which {who} is fetching", digest.short())),
            None => Ok(None),
        })
    };
    let lock = layers.wait(attempt).await?;
    let content = layers.store().content();
    if lock.is_none() && layers.options().keep_blobs && content.is_first_refusal() {
        let text = format!("cannot keep blobs: {} is read-only", content.path().display());
        layers.events().send(Event::Warning { image: Some(image.clone()), text });
    }
    Ok(lock)
}

/// Obtains the config's bytes from the content store, or fetches them. They are kept as soon as
/// they are here, so that of several processes one fetches them.
pub async fn config(
    session: &Session<'_>,
    image: &Image,
    found: &Found,
    largest: u64,
) -> Result<Bytes, Error> {
    let descriptor = &found.manifest.parsed.config;
    if let Some(bytes) = kept_config(session, descriptor, largest).await? {
        return Ok(bytes);
    }
    let fetch = found.registry.blob_bytes(image.repository(), descriptor, largest);
    if session.options.dry_run {
        return Ok(fetch.await?);
    }
    let lock = lock(&session.layers, image, &descriptor.digest).await?;
    if let Some(bytes) = kept_config(session, descriptor, largest).await? {
        return Ok(bytes);
    }
    let bytes = fetch.await?;
    let (store, digest, copy) = (session.store.clone(), descriptor.digest, bytes.clone());
    blocking(move || {
        // A pull that is given up here must not release it before the config is kept.
        let _lock = lock;
        store.content().put(&digest, &copy)
    })
    .await?;
    Ok(bytes)
}

async fn kept_config(
    session: &Session<'_>,
    descriptor: &Descriptor,
    largest: u64,
) -> Result<Option<Bytes>, Error> {
    let (store, digest) = (session.store.clone(), descriptor.digest);
    let bytes = blocking(move || store.content().get(&digest)).await?;
    let fits = |bytes: &Bytes| {
        let size = bytes.len() as u64;
        size == descriptor.size && size <= largest
    };
    Ok(bytes.filter(fits))
}

/// A compressed layer on its way into the content store.
pub struct Keep {
    ingest: Ingest,
    _lock: ContentLock,
}

impl Keep {
    /// Begins to keep the blob; `None` without its lock.
    pub fn new(
        layers: &Layers,
        want: &Want,
        lock: Option<ContentLock>,
    ) -> Result<Option<Self>, Failure> {
        let Some(lock) = lock else { return Ok(None) };
        let ingest = layers.store().content().ingest(&want.blob.digest)?;
        Ok(ingest.map(|ingest| Self { ingest, _lock: lock }))
    }

    /// Writes `bytes`, and passes them on.
    pub fn write(&mut self, bytes: Bytes) -> io::Result<Bytes> {
        let lost = |source| LayerError::Write { op: "keep", path: "the blob".to_owned(), source };
        self.ingest.write_all(&bytes).map_err(|e| io::Error::other(lost(e)))?;
        Ok(bytes)
    }

    /// Gives the bytes, which were verified, their name.
    pub fn finish(self) -> Result<(), Failure> {
        Ok(self.ingest.commit().map_err(crate::store::StoreError::from)?)
    }
}
