//! Keeps the blobs of layers that were not downloaded, because the store has them (`--keep-blobs`).

use std::collections::HashSet;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};

use super::fetch;
use super::files::open_diff;
use super::gate::WorkError;
use super::kept_blobs::{self, BlobWriter};
use super::options::Policy;
use super::resolve::ResolvedImage;
use super::session::Session;
use super::task::LayerTask;
use crate::digest::Digest;
use crate::error::Error;
use crate::fsutil;
use crate::layer::{LayerError, TarAssembler};
use crate::oci::{ChainId, Document, ImageConfig};
use crate::progress::{Event, Image, LayerState};
use crate::store::ContentLock;

/// How a blob got into the content store.
#[derive(Clone, Copy)]
enum Kept {
    /// Another process kept it.
    Before,
    /// Its layer is not compressed: it was reassembled from the store.
    Reassembled,
    /// It was fetched; its size, bytes.
    Fetched(u64),
    /// It was not kept, and the user was told.
    Not,
}

/// Keeps each blob of the image that the content store does not have, and reports how. The layers are
/// committed; those with the blobs `present` were before. The others are shown as complete already.
///
/// # Errors
/// [`Error`] if a blob cannot be fetched or written.
pub async fn fill(
    session: &Arc<Session>,
    image: &Image,
    resolved: &ResolvedImage,
    (config, present): (&Document<ImageConfig>, &HashSet<Digest>),
) -> Result<(), Error> {
    let mut seen = HashSet::new();
    let chains = ChainId::stack(config.parsed.diff_ids());
    let places = config.parsed.diff_ids().iter().copied().zip(chains);
    let layers = resolved.manifest.parsed.layers.iter().zip(places);
    let tasks = layers
        .filter(|(blob, _)| seen.insert(blob.digest))
        .map(|(blob, place)| LayerTask::new(image, resolved.source(), blob, Some(place)));
    let tasks: Vec<LayerTask> = tasks.collect();
    let blobs = tasks.len();
    let missing = session.store(move |store| {
        let mut missing = Vec::new();
        for task in tasks {
            if !store.content().has(&task.blob.digest, task.blob.size)? {
                missing.push(task);
            }
        }
        Ok(missing)
    });
    let missing = missing.await?;
    if missing.is_empty() {
        return Ok(());
    }
    let keep = missing.into_iter().map(|task| {
        let is_shown = present.contains(&task.blob.digest);
        keep(session, task, is_shown)
    });
    let jobs = session.options.jobs.max(1);
    let kept: Vec<Kept> = stream::iter(keep).buffer_unordered(jobs).try_collect().await?;
    let is_kept = |kept: &&Kept| !matches!(kept, Kept::Not);
    let fetched = kept.iter().filter_map(|kept| match kept {
        Kept::Fetched(bytes) => Some(*bytes),
        _ => None,
    });
    let (fetched, bytes) = fetched.fold((0, 0), |(n, sum), bytes| (n + 1, sum + bytes));
    let kept_blobs = blobs - kept.len() + kept.iter().filter(is_kept).count();
    session.events.send(Event::Kept {
        image: image.clone(),
        blobs,
        kept: kept_blobs,
        fetched,
        bytes,
    });
    Ok(())
}

/// Keeps the blob of one layer. Sends the progress if it `is_shown`.
async fn keep(session: &Arc<Session>, task: LayerTask, is_shown: bool) -> Result<Kept, Error> {
    let (digest, size) = (task.blob.digest, task.blob.size);
    let Some(lock) = kept_blobs::lock(session, &task.image, digest).await? else {
        return Ok(Kept::Not);
    };
    if session.store(move |store| store.content().has(&digest, size)).await? {
        session.report(&task, LayerState::AlreadyExists);
        return Ok(Kept::Before);
    }
    let lock = Arc::new(lock);
    let is_tar = task.place.is_some_and(|(diff_id, _)| diff_id.digest() == digest);
    let kept = if is_tar && reassemble(session, &task, lock.clone()).await? {
        Kept::Reassembled
    } else if session.options.policy == Policy::Never {
        let text = format!("the blob {} is not kept: the policy forbids a pull", digest.short());
        session.warn_of_shared(&task.image, text);
        Kept::Not
    } else {
        let _job = session.jobs.acquire().await.map_err(|_| Error::Interrupted)?;
        session.report(&task, LayerState::Downloading);
        fetch::keep(session, &task, lock, is_shown).await?;
        session.report(&task, LayerState::DownloadComplete);
        Kept::Fetched(size)
    };
    session.report(&task, LayerState::AlreadyExists);
    Ok(kept)
}

/// Writes the tar of a committed layer as its blob. Returns whether the files have its digest.
async fn reassemble(
    session: &Arc<Session>,
    task: &LayerTask,
    lock: Arc<ContentLock>,
) -> Result<bool, Error> {
    let Some((_, chain)) = task.place else { return Ok(false) };
    let (blob, written) = (task.blob.digest, task.clone());
    let write = session.store_layer(blob, move |store| {
        let Some(record) = store.layers().get(&chain)? else { return Ok(()) };
        let from = open_diff(&store.layers().diff_path(&record))?;
        let tar = TarAssembler::new(store.layers().tar_split(&chain)?, &from);
        match BlobWriter::new(store, &written, Some(lock))? {
            Some(kept) => kept.write_all(&written.blob, fsutil::buffers(tar)),
            None => Err(WorkError::Layer(LayerError::Cancelled)),
        }
    });
    match write.await {
        Ok(()) => {
            let (digest, size) = (task.blob.digest, task.blob.size);
            session.store(move |store| store.content().has(&digest, size)).await
        }
        // A check finds what is damaged; the blob is fetched.
        Err(Error::Layer { .. }) => Ok(false),
        Err(e) => Err(e),
    }
}
