//! The blobs of a copy, each by the cheapest way: the target has it, or mounts it from the source, or it
//! is streamed from the one registry to the other.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};

use futures::{StreamExt, TryStreamExt, stream};

use super::Session;
use super::collect::Item;
use crate::digest::Digest;
use crate::error::{Error, RegistryError};
use crate::oci::Descriptor;
use crate::progress::{Event, PushState, upload_meter};
use crate::reference::Repository;
use crate::registry::{BlobBytes, BlobSource, Mounted, Registry, Upload};

/// The blobs of one copy.
pub struct Blobs<'a> {
    session: &'a Session,
    /// Those that the target has.
    copied: Mutex<HashSet<Digest>>,
}

impl<'a> Blobs<'a> {
    /// Begins with none.
    pub fn new(session: &'a Session) -> Self {
        Self { session, copied: Mutex::default() }
    }

    /// Copies the blobs of `items` that were not copied yet, each once.
    ///
    /// # Errors
    /// [`Error`] if one cannot be read, has another digest or size, or is not accepted.
    pub async fn copy(&self, items: impl Iterator<Item = &Item>) -> Result<(), Error> {
        let is_first = |blob: &&Descriptor| {
            self.copied.lock().unwrap_or_else(PoisonError::into_inner).insert(blob.digest)
        };
        let blobs: Vec<_> = items.flat_map(|item| &item.blobs).filter(is_first).cloned().collect();
        for (place, blob) in blobs.iter().enumerate() {
            self.report(blob.digest, PushState::Preparing);
            if place >= self.session.options.jobs {
                self.report(blob.digest, PushState::Waiting);
            }
        }
        let copies = blobs.into_iter().map(|blob| async move {
            let state = self.copy_one(&blob).await?;
            self.report(blob.digest, state);
            Ok::<_, Error>(())
        });
        let jobs = self.session.options.jobs.max(1);
        stream::iter(copies).buffer_unordered(jobs).try_collect().await
    }

    async fn copy_one(&self, blob: &Descriptor) -> Result<PushState, Error> {
        let (registry, to) = (&self.session.registry, self.session.target.repository());
        let from = self.session.source.repository();
        if registry.blob_size(to, blob.digest).await? == Some(blob.size) {
            return Ok(PushState::AlreadyExists);
        }
        let mut started = None;
        if from.domain() == to.domain() {
            match registry.mount(to, blob.digest, from.path()).await? {
                Mounted::Yes => return Ok(PushState::MountedFrom(from.path().into())),
                Mounted::Started(session) => started = Some(session),
                Mounted::No => {}
            }
        }
        self.report(blob.digest, PushState::Pushing);
        let source = RemoteBlob {
            registry: registry.clone(),
            repository: from.clone(),
            blob: blob.clone(),
            error: Arc::default(),
        };
        let (events, image) = (self.session.events.clone(), self.session.target.clone());
        let upload = Upload {
            repository: to,
            source: &source,
            expected: Some((blob.digest, blob.size)),
            session: started,
            on_bytes: upload_meter(events, image, blob.digest, blob.size),
        };
        match registry.upload(upload).await {
            Ok(_) => Ok(PushState::Pushed),
            Err(RegistryError::Source) => {
                let error = source.error.lock().unwrap_or_else(PoisonError::into_inner).take();
                Err(error.unwrap_or(RegistryError::Source).into())
            }
            Err(e) => Err(e.into()),
        }
    }

    fn report(&self, layer: Digest, state: PushState) {
        let image = self.session.target.clone();
        self.session.events.send(Event::Push { image, layer, state });
    }
}

/// A blob of the source.
struct RemoteBlob {
    registry: Registry,
    repository: Repository,
    blob: Descriptor,
    error: Arc<Mutex<Option<RegistryError>>>,
}

impl BlobSource for RemoteBlob {
    fn open(&self, offset: u64) -> BlobBytes {
        let (registry, repository) = (self.registry.clone(), self.repository.clone());
        let (blob, error) = (self.blob.clone(), self.error.clone());
        let open = async move {
            let size = blob.size;
            registry.blob(&repository, &blob, offset..size).await
        };
        let keep = move |e: RegistryError| {
            let text = e.to_string();
            *error.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
            io::Error::other(text)
        };
        Box::pin(stream::once(open).try_flatten().map_err(keep))
    }
}
