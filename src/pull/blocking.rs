//! Blocking work of an async pull: each piece runs on a thread of its own.

use crate::digest::Digest;
use crate::error::Error;
use crate::layer::LayerError;
use crate::store::StoreError;

/// What can fail while a layer is unpacked.
pub enum Failure {
    /// The layer.
    Layer(LayerError),
    /// The store.
    Store(StoreError),
}

impl From<LayerError> for Failure {
    fn from(error: LayerError) -> Self {
        Self::Layer(error)
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl Failure {
    /// The error for the user. A failure of the network that reached the layer as the end
    /// of its bytes becomes what it was.
    pub fn of(self, layer: Digest) -> Error {
        match self {
            Self::Store(error) => error.into(),
            Self::Layer(LayerError::Source(io)) => match io.downcast() {
                Ok(registry) => Error::Registry(registry),
                Err(io) => Error::Layer { layer, source: LayerError::Source(io) },
            },
            Self::Layer(source) => Error::Layer { layer, source },
        }
    }
}

/// Runs blocking work on a layer on a thread of its own.
pub async fn run<T: Send + 'static>(
    layer: Digest,
    work: impl FnOnce() -> Result<T, Failure> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result.map_err(|failure| failure.of(layer)),
        Err(_) => Err(Error::Interrupted),
    }
}

/// Runs blocking work on the store on a thread of its own.
pub async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, Error> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => Ok(result?),
        Err(_) => Err(Error::Interrupted),
    }
}
