//! What happens during a pull, as one stream of [`Event`]s.
//!
//! The library says what happened and never how it looks: renderers (in the binary)
//! are functions of this stream alone.

mod meter;

use std::sync::Arc;
use std::time::Duration;

use crate::digest::Digest;
use crate::oci::ImageId;
use crate::reference::Reference;

pub use meter::Meter;

/// The image an event belongs to: one of the names given to one command.
pub type Image = Arc<Reference>;

/// One thing that happened.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub enum Event {
    /// A name was given neither tag nor digest; `latest` is meant.
    DefaultTag {
        /// The image, tag added.
        image: Image,
    },
    /// The name is being asked of a registry.
    Resolving {
        /// The image.
        image: Image,
    },
    /// The name is known and its layers are looked at.
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
        /// What it is now.
        state: LayerState,
    },
    /// Bytes moved; sent at most some ten times a second a layer, and at the end.
    Bytes {
        /// The image.
        image: Image,
        /// The compressed blob's digest.
        layer: Digest,
        /// Which bytes.
        phase: Phase,
        /// Bytes so far.
        done: u64,
        /// All bytes there will be.
        total: u64,
    },
    /// Something failed in passing and is tried again.
    Retrying {
        /// The image.
        image: Image,
        /// The layer, or nothing for a manifest or config.
        layer: Option<Digest>,
        /// Which try comes next, from 2.
        attempt: u32,
        /// How long until then.
        wait: Duration,
        /// Why.
        cause: String,
    },
    /// Another process is waited for.
    Waiting {
        /// Who or what, for people: `the store lock (held by process 123)`.
        what: String,
    },
    /// Something the user should know and that stops nothing.
    Warning {
        /// The image, if one is concerned.
        image: Option<Image>,
        /// One sentence.
        text: String,
    },
    /// The image is complete.
    Done {
        /// The image.
        image: Image,
        /// What the registry calls it: the index's digest for a multi-platform image.
        digest: Digest,
        /// Its id in the store.
        id: ImageId,
        /// Whether this pull changed anything.
        status: Status,
    },
    /// The image could not be pulled; the others of the command go on.
    Failed {
        /// The image.
        image: Image,
        /// The cause in one line.
        error: String,
    },
}

/// What becomes of a layer. A layer passes the states in this order, leaves out some, and never
/// goes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum LayerState {
    /// Will be fetched.
    PullingFsLayer,
    /// Waits for a free download.
    Waiting,
    /// The content is in the store under another chain and is copied locally. If that turns
    /// out to be damaged, the layer is downloaded.
    Copying,
    /// Bytes are coming.
    Downloading,
    /// All bytes are here and their digest is right.
    DownloadComplete,
    /// In the store already.
    AlreadyExists,
    /// Committed.
    PullComplete,
}

/// What bytes an [`Event::Bytes`] counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Compressed bytes that came from the registry.
    Download,
    /// Compressed bytes that were unpacked.
    Unpack,
}

/// How a pull ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// The name now means this image and did not before.
    Downloaded,
    /// The name meant this image already.
    UpToDate,
}

/// The receiver of events; cheap to clone, usable from async and blocking code.
#[derive(Clone, Default)]
pub struct Sender(Option<Arc<dyn Fn(Event) + Send + Sync>>);

impl Sender {
    /// A sender that calls `receive` with each event, on the thread that sends it.
    pub fn to(receive: impl Fn(Event) + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(receive)))
    }

    /// A sender and the end its events come out of.
    #[cfg(test)]
    pub fn channel() -> (Self, std::sync::mpsc::Receiver<Event>) {
        let (tx, rx) = std::sync::mpsc::channel();
        // A listener that went away is not an error.
        (Self::to(move |event| drop(tx.send(event))), rx)
    }

    /// A sender without a receiver.
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
