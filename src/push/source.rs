//! The bytes of a layer, read by blocking threads: a kept blob, or the tar that is reassembled from the
//! store, packed on its way.

use std::io::{self, Read, Seek, SeekFrom};
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use futures::stream;
use tokio::sync::mpsc;

use super::image::Layer;
use crate::digest::{Digest, Hasher};
use crate::error::Error;
use crate::fsutil;
use crate::layer::{LayerError, TarAssembler, gzip};
use crate::pull::{StoreGate, WorkError, open_diff};
use crate::registry::{BlobBytes, BlobSource};
use crate::store::{Store, StoreError};

/// Buffers of 256 KiB between the thread and the connection.
const QUEUE: usize = 2;

/// Where the bytes come from.
#[derive(Debug, Clone)]
pub enum Content {
    /// A blob of the content store.
    Kept(Digest),
    /// The reassembled tar of a layer.
    Tar(Layer),
    /// The same, packed by gzip.
    Gzip(Layer),
}

/// The bytes of a layer. They are the same each time.
pub struct LayerSource {
    gate: StoreGate,
    content: Content,
    error: Arc<Mutex<Option<Error>>>,
}

impl LayerSource {
    /// Creates the source of `content` in the store of `gate`.
    pub fn new(gate: StoreGate, content: Content) -> Self {
        Self { gate, content, error: Arc::default() }
    }

    /// Returns why the bytes could not be read.
    pub fn error(&self) -> Option<Error> {
        self.error.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl BlobSource for LayerSource {
    fn open(&self, offset: u64) -> BlobBytes {
        let (sender, receiver) = mpsc::channel(QUEUE);
        let (gate, content, error) = (self.gate.clone(), self.content.clone(), self.error.clone());
        tokio::spawn(async move {
            let digest = content.digest();
            let bytes = sender.clone();
            let read =
                gate.run_on_layer(digest, move |store| read(store, &content, offset, &bytes));
            if let Err(e) = read.await {
                *error.lock().unwrap_or_else(PoisonError::into_inner) = Some(e);
                let _ = sender.send(Err(io::Error::other("the layer cannot be read"))).await;
            }
        });
        let next = |mut receiver: mpsc::Receiver<io::Result<Bytes>>| async {
            receiver.recv().await.map(|bytes| (bytes, receiver))
        };
        Box::pin(stream::unfold(receiver, next))
    }
}

impl Content {
    /// Returns the digest that names the layer in errors.
    fn digest(&self) -> Digest {
        match self {
            Self::Kept(digest) => *digest,
            Self::Tar(layer) | Self::Gzip(layer) => layer.diff_id.digest(),
        }
    }
}

/// Sends the bytes of `content` from `offset` on, until the receiver is gone.
fn read(
    store: &Store,
    content: &Content,
    offset: u64,
    bytes: &mpsc::Sender<io::Result<Bytes>>,
) -> Result<(), WorkError> {
    match content {
        Content::Kept(digest) => {
            let Some(mut file) = store.content().open(digest)? else {
                let path = store.content().path().to_owned();
                let why = format!("blob {digest} was removed");
                return Err(StoreError::Damaged { path, why }.into());
            };
            file.seek(SeekFrom::Start(offset)).map_err(LayerError::Source)?;
            send(file, 0, bytes)
        }
        Content::Tar(layer) | Content::Gzip(layer) => {
            let Some(record) = store.layers().get(&layer.chain)? else {
                let path = store.layers().tar_split_path(&layer.chain);
                return Err(
                    StoreError::Damaged { path, why: "the layer is missing".to_owned() }.into()
                );
            };
            let from = open_diff(&store.layers().diff_path(&record))?;
            let tar = TarAssembler::new(store.layers().tar_split(&layer.chain)?, &from);
            let tar =
                Verified { tar, hasher: Some(Hasher::new()), expected: record.diff_id.digest() };
            match content {
                Content::Gzip(_) => send(gzip(tar), offset, bytes),
                _ => send(tar, offset, bytes),
            }
        }
    }
}

fn send(
    mut reader: impl Read,
    skip: u64,
    bytes: &mpsc::Sender<io::Result<Bytes>>,
) -> Result<(), WorkError> {
    let of_io = |e| WorkError::Layer(LayerError::from_io(e, LayerError::Source));
    io::copy(&mut reader.by_ref().take(skip), &mut io::sink()).map_err(of_io)?;
    for buffer in fsutil::buffers(reader) {
        // The attempt to send it ended; the next one reads it again.
        if bytes.blocking_send(Ok(buffer.map_err(of_io)?)).is_err() {
            break;
        }
    }
    Ok(())
}

/// The tar of a layer, whose end is an error if it has another digest.
struct Verified<R> {
    tar: R,
    hasher: Option<Hasher>,
    expected: Digest,
}

impl<R: Read> Read for Verified<R> {
    fn read(&mut self, out: &mut [u8]) -> io::Result<usize> {
        let n = self.tar.read(out)?;
        if n > 0 {
            if let Some(hasher) = &mut self.hasher {
                hasher.update(&out[..n]);
            }
        } else if !out.is_empty()
            && let Some(hasher) = self.hasher.take()
        {
            let (actual, expected) = (hasher.finish(), self.expected);
            if actual != expected {
                let why = format!("the layer's digest is {actual}, expected {expected}");
                let path = "/".to_owned();
                return Err(LayerError::Damaged { path, why }.into_io());
            }
        }
        Ok(n)
    }
}
