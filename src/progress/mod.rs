//! The progress of a pull, as one stream of [`Event`]s.
//!
//! Events contain no formatting. The renderers, in the binary, depend only on this stream.

mod meter;

use std::sync::Arc;
use std::time::Duration;

use crate::digest::Digest;
use crate::oci::ImageId;
use crate::reference::Reference;

pub use meter::{Meter, upload_meter};

/// The reference that an event belongs to: one of the arguments of a command.
pub type Image = Arc<Reference>;

/// One event of a pull.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// A reference had neither tag nor digest, so the tag `latest` is used.
    DefaultTag {
        /// The image, with the tag.
        image: Image,
    },
    /// The reference is being resolved at a registry, or in the content store.
    Resolving {
        /// The image.
        image: Image,
    },
    /// The reference is resolved, and its layers follow.
    Pulling {
        /// The image.
        image: Image,
        /// The layers of its manifest, base first: digest and compressed size in bytes.
        layers: Vec<(Digest, u64)>,
    },
    /// A layer changed its state.
    Layer {
        /// The image.
        image: Image,
        /// The compressed blob's digest.
        layer: Digest,
        /// The new state.
        state: LayerState,
    },
    /// Progress in bytes; sent at most about ten times per second and layer, and at the end.
    Bytes {
        /// The image.
        image: Image,
        /// The compressed blob's digest.
        layer: Digest,
        /// The phase whose bytes are counted.
        phase: Phase,
        /// Bytes so far.
        done: u64,
        /// The total number of bytes.
        total: u64,
    },
    /// An earlier command received a part of the layer's blob, which is used.
    Resumed {
        /// The image.
        image: Image,
        /// The compressed blob's digest.
        layer: Digest,
        /// The bytes of that part. [`Event::Bytes`] counts from here.
        bytes: u64,
    },
    /// Transient errors occurred; the requests are retried. Sent at most once per second and host,
    /// for all of its transfers together, and less often while the host stays silent.
    Retrying {
        /// The image of one of the transfers.
        image: Image,
        /// The layer of this transfer; `None` for a manifest or config.
        layer: Option<Digest>,
        /// The host and port.
        host: String,
        /// The transfers that wait for their next attempt at this host, of all images.
        transfers: usize,
        /// The number of this transfer's next attempt, from 2.
        attempt: u32,
        /// The time until then.
        wait: Duration,
        /// The error.
        cause: String,
    },
    /// The command waits for another process.
    Waiting {
        /// What it waits for, in words: `the store lock, held by process 123`.
        what: String,
    },
    /// A warning to the user; the pull continues.
    Warning {
        /// The image, if the warning is about one.
        image: Option<Image>,
        /// One sentence.
        text: String,
    },
    /// The image is complete.
    Done {
        /// The image.
        image: Image,
        /// The digest at the registry: the index's for a multi-platform image.
        digest: Digest,
        /// Its ID in the store.
        id: ImageId,
        /// Whether this pull changed anything.
        status: Status,
    },
    /// Blobs of layers that the store had already were kept in the content store.
    Kept {
        /// The image.
        image: Image,
        /// The blobs of its layers.
        blobs: usize,
        /// Those that are kept now.
        kept: usize,
        /// Those that had to be fetched, because the store has the layers but not the blobs.
        fetched: usize,
        /// The sum of their sizes, bytes.
        bytes: u64,
    },
    /// The end of a dry run for an image that is not up to date: what a pull would fetch.
    Planned {
        /// The image.
        image: Image,
        /// The digest at the registry: the index's for a multi-platform image.
        digest: Digest,
        /// Its ID.
        id: ImageId,
        /// The layers that would be fetched, base first: digest and compressed size in bytes. A
        /// layer that several images of the command share is listed once.
        layers: Vec<(Digest, u64)>,
        /// The requests of the pull for manifests, the config and layers, without those for tokens,
        /// retries and segments.
        requests: usize,
    },
    /// A push to the repository of a reference begins.
    PushingTo {
        /// The image.
        image: Image,
    },
    /// A layer that is pushed, or a blob that is copied, changed its state.
    Push {
        /// The image.
        image: Image,
        /// The diff ID of the layer, or the digest of the blob.
        layer: Digest,
        /// The new state.
        state: PushState,
    },
    /// The registry has the image under its tag.
    Pushed {
        /// The image.
        image: Image,
        /// The digest of its manifest or index.
        digest: Digest,
        /// The size of that document in bytes.
        size: u64,
    },
    /// The image could not be pulled; other images of the command continue.
    Failed {
        /// The image.
        image: Image,
        /// The cause in one line.
        error: String,
    },
}

/// The state of a layer. A layer passes the states in this order; it can skip some, and never
/// goes back, except from `Reconnecting` to `Downloading`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum LayerState {
    /// The layer will be fetched.
    PullingFsLayer,
    /// The layer waits for a free download slot.
    Waiting,
    /// The content is copied from another chain in the store. If that is damaged, the layer is
    /// downloaded.
    Copying,
    /// The blob is being downloaded.
    Downloading,
    /// A request for the blob failed, and is repeated. `Downloading` follows when bytes arrive.
    Reconnecting,
    /// The blob is downloaded and its digest verified.
    DownloadComplete,
    /// The layer is already in the store.
    AlreadyExists,
    /// The layer is committed.
    PullComplete,
}

/// The state of a layer that is pushed.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum PushState {
    /// The layer will be pushed.
    Preparing,
    /// The layer waits until others are pushed.
    Waiting,
    /// The bytes of the layer are being sent.
    Pushing,
    /// The registry has all bytes and verified them.
    Pushed,
    /// The repository already had the layer.
    AlreadyExists,
    /// The registry had the layer in another repository, whose path this is.
    MountedFrom(Arc<str>),
}

/// The phase whose bytes an [`Event::Bytes`] counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Compressed bytes from the registry.
    Download,
    /// Compressed bytes that were unpacked.
    Unpack,
    /// Bytes that were sent to the registry. They become fewer if a part is sent again.
    Upload,
}

/// The result of a pull.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The reference points to this image now, and did not before.
    Downloaded,
    /// The reference already pointed to this image.
    UpToDate,
}

/// The receiver of events; cheap to clone, usable from async and blocking code.
#[derive(Clone, Default)]
pub struct Sender(Option<Arc<dyn Fn(Event) + Send + Sync>>);

impl Sender {
    /// Creates a sender that calls `receive` with each event, on the thread that sends it.
    pub fn to(receive: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(receive)))
    }

    /// Creates a sender and the receiver of its events.
    #[cfg(test)]
    pub fn channel() -> (Self, std::sync::mpsc::Receiver<Event>) {
        let (tx, rx) = std::sync::mpsc::channel();
        // A dropped receiver is not an error.
        (Self::to(move |event| drop(tx.send(event))), rx)
    }

    /// Creates a sender that drops its events.
    pub fn none() -> Self {
        Self(None)
    }

    /// Sends `event`.
    pub fn send(&self, event: Event) {
        if let Some(receive) = &self.0 {
            receive(event);
        }
    }
}
