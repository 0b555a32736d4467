//! A layer's bytes, from the content store or the registry, to the unpacker.

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;

use super::obtain::{Layers, Obtained, Want, run};
use super::{lanes, pipeline};
use crate::error::Error;
use crate::fsutil;
use crate::layer::LayerError;
use crate::progress::{Event, Meter, Phase};

/// Obtains a layer by its bytes. A blob that the content store kept is read from there.
pub async fn fetch(layers: &Layers, want: &Want) -> Result<Arc<Obtained>, Error> {
    if let Some(obtained) = from_content(layers, want).await? {
        return Ok(obtained);
    }
    let (feed, fed) = pipeline::channel();
    let (all, wanted) = (layers.clone(), want.clone());
    let unpacking = tokio::spawn(run(want.blob.digest, move || {
        let Some(mut keep) = Keep::new(&all, &wanted)? else { return all.unpack(&wanted, fed) };
        let obtained = all.unpack(&wanted, fed.map(|read| keep.write(read?)))?;
        keep.finish()?;
        Ok(obtained)
    }));
    let (events, image) = (layers.events().clone(), want.image.clone());
    let mut meter = Meter::new(events, image, want.blob.digest, Phase::Download, want.blob.size);
    let stream = lanes::stream(want, layers.lanes());
    feed.run(stream.inspect_ok(|bytes| meter.add(bytes.len() as u64))).await;
    match unpacking.await {
        Ok(result) => result.map(Arc::new),
        Err(_) => Err(Error::Interrupted),
    }
}

async fn from_content(layers: &Layers, want: &Want) -> Result<Option<Arc<Obtained>>, Error> {
    let path = layers.store().content().path(&want.blob.digest);
    let Ok(file) = File::open(&path) else { return Ok(None) };
    let (all, wanted) = (layers.clone(), want.clone());
    let unpacked = run(want.blob.digest, move || all.unpack(&wanted, fsutil::runs(file)));
    match unpacked.await {
        Ok(obtained) => Ok(Some(Arc::new(obtained))),
        Err(Error::Layer {
            source: LayerError::Digest { .. } | LayerError::Size { .. }, ..
        }) => {
            let text = format!(
                "the kept blob {} is damaged; it is fetched again",
                want.blob.digest.short()
            );
            layers.events().send(Event::Warning { image: Some(want.image.clone()), text });
            Ok(None)
        }
        Err(e) => Err(e),
    }
}

/// A compressed layer on its way into the content store (`--keep-blobs`).
struct Keep {
    file: File,
    from: PathBuf,
    to: PathBuf,
    done: bool,
}

impl Keep {
    fn new(layers: &Layers, want: &Want) -> Result<Option<Self>, super::obtain::Failure> {
        if !layers.options().keep_blobs {
            return Ok(None);
        }
        let content = layers.store().content();
        let from = content.ingest()?.join(want.blob.digest.hex());
        let file = File::create(&from).map_err(|e| LayerError::Write {
            op: "create",
            path: from.display().to_string(),
            source: e,
        })?;
        Ok(Some(Self { file, from, to: content.path(&want.blob.digest), done: false }))
    }

    /// Writes `bytes`, and passes them on.
    fn write(&mut self, bytes: Bytes) -> io::Result<Bytes> {
        let lost = |source| LayerError::Write { op: "keep", path: "the blob".to_owned(), source };
        self.file.write_all(&bytes).map_err(|e| io::Error::other(lost(e)))?;
        Ok(bytes)
    }

    /// The bytes were verified: they get their name.
    fn finish(mut self) -> Result<(), LayerError> {
        let write =
            |source| LayerError::Write { op: "keep", path: self.to.display().to_string(), source };
        self.file.sync_all().and_then(|()| fs::rename(&self.from, &self.to)).map_err(write)?;
        self.done = true;
        Ok(())
    }
}

impl Drop for Keep {
    fn drop(&mut self) {
        if !self.done {
            let _ = fs::remove_file(&self.from);
        }
    }
}
