//! A layer's bytes, from the content store or the registry, to the unpacker.

use std::fs::{self, File};
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::PathBuf;
use std::sync::Arc;

use futures::TryStreamExt;

use super::obtain::{Layers, Obtained, Want, run};
use super::{lanes, pipeline};
use crate::error::Error;
use crate::layer::LayerError;
use crate::progress::{Event, Meter, Phase};

/// Obtains a layer by its bytes. A blob that the content store kept is read from there.
pub async fn fetch(layers: &Layers, want: &Want) -> Result<Arc<Obtained>, Error> {
    if let Some(obtained) = from_content(layers, want).await? {
        return Ok(obtained);
    }
    let (feed, reader) = pipeline::channel();
    let (all, wanted) = (layers.clone(), want.clone());
    let unpacking = tokio::spawn(run(want.blob.digest, move || {
        let mut keep = Keep::new(&all, &wanted)?;
        let tee =
            Tee { inner: reader, kept: keep.as_mut().map(|keep| &mut keep.file), failed: None };
        let obtained = all.unpack(&wanted, tee)?;
        if let Some(keep) = keep {
            keep.finish()?;
        }
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
    let unpacked = run(want.blob.digest, move || {
        all.unpack(&wanted, BufReader::with_capacity(256 << 10, file))
    });
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

/// Passes bytes through and writes them to a file.
struct Tee<'a, R> {
    inner: R,
    kept: Option<&'a mut File>,
    failed: Option<io::Error>,
}

impl<R: BufRead> BufRead for Tee<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        match self.failed.take() {
            Some(e) => Err(e),
            None => self.inner.fill_buf(),
        }
    }

    fn consume(&mut self, amount: usize) {
        if let (Some(file), Ok(bytes)) = (&mut self.kept, self.inner.fill_buf())
            && let Err(source) = file.write_all(&bytes[..amount])
        {
            let lost = LayerError::Write { op: "keep", path: "the blob".to_owned(), source };
            self.failed = Some(io::Error::other(lost));
        }
        self.inner.consume(amount);
    }
}

impl<R: BufRead> Read for Tee<'_, R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        crate::fsutil::read_buffered(self, out)
    }
}
